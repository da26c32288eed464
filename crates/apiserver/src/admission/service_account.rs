//! ServiceAccount: every pod runs under one, with its token mounted
//! (`k8s.io/kubernetes/plugin/pkg/admission/serviceaccount`).

mod mountable;

use std::time::Duration;

use api::object::Object;
use api::pod::is_mirror;
use api::{ApiError, Kind};
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, Container, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath,
    ObjectFieldSelector, Pod, ProjectedVolumeSource, ServiceAccount, ServiceAccountTokenProjection,
    Volume, VolumeMount, VolumeProjection,
};
use serde_json::Value;

use super::attributes::{Attributes, typed};
use super::webhooks::Operation;
use crate::core::Call;
use crate::meta::random_suffix;
use crate::references::{self, Naming};

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const DEFAULT: &str = "default";
/// Validity of mounted tokens: an hour, and the 7 seconds that mark them as such, as upstream.
const TOKEN_SECONDS: i64 = 3_607;
/// What a token's volume is called, and a suffix.
const TOKEN_VOLUME: &str = "kube-api-access-";
/// How long to wait for the default account of a new namespace, which a controller creates.
const ATTEMPTS: usize = 10;
const PAUSE: Duration = Duration::from_millis(150);

/// Gives the pod its account, the account's pull secrets, and a token.
///
/// # Errors
/// 403 when the account does not exist.
pub async fn complete(
    attributes: &Attributes<'_>,
    object: &mut dyn Object,
) -> Result<(), ApiError> {
    let Some(pod) = object.downcast_ref::<Pod>() else {
        return Ok(());
    };
    if attributes.operation != Operation::Create {
        return Ok(());
    }
    if is_mirror(pod) {
        return check_mirror(pod).map_err(|why| attributes.forbidden(pod, why));
    }
    let name = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
    let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| DEFAULT.to_owned());
    let account = existing(attributes, pod, &name).await?;
    let Some(spec) = object.downcast_mut::<Pod>().and_then(|pod| pod.spec.as_mut()) else {
        return Ok(());
    };
    spec.service_account_name = Some(name);
    let automount = spec
        .automount_service_account_token
        .or(account.automount_service_account_token)
        .unwrap_or(true);
    if spec.image_pull_secrets.as_ref().is_none_or(Vec::is_empty) {
        spec.image_pull_secrets = account.image_pull_secrets;
    }
    if !automount {
        return Ok(());
    }
    // The plugins may run twice, and a client may have a volume of its own.
    let volumes = spec.volumes.iter().flatten();
    let present = volumes.map(|volume| &volume.name).find(|name| name.starts_with(TOKEN_VOLUME));
    let (is_present, present) = (present.is_some(), present.cloned());
    let volume_name = present.unwrap_or_else(|| format!("{TOKEN_VOLUME}{}", random_suffix()));
    let mut mounted = false;
    let init = spec.init_containers.iter_mut().flatten();
    for container in init.chain(spec.containers.iter_mut()) {
        mounted |= mount(container, &volume_name);
    }
    if mounted && !is_present {
        spec.volumes.get_or_insert_default().push(volume(volume_name));
    }
    Ok(())
}

/// Checks what the pod refers to, or what an ephemeral container does that is added to it.
///
/// # Errors
/// 403 when its account does not exist, or does not let its pods refer to a secret.
pub async fn check(
    attributes: &Attributes<'_>,
    object: Option<&dyn Object>,
) -> Result<(), ApiError> {
    let Some(pod) = typed::<Pod>(object) else {
        return Ok(());
    };
    let is_created = attributes.operation == Operation::Create;
    if is_created && is_mirror(pod) {
        return check_mirror(pod).map_err(|why| attributes.forbidden(pod, why));
    }
    let Some(spec) = pod.spec.as_ref().filter(|_| is_created || !attributes.subresource.is_empty())
    else {
        return Ok(());
    };
    let name = spec.service_account_name.as_deref().unwrap_or_default();
    if name.is_empty() {
        let namespace = &attributes.call.target.namespace;
        let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
        let why = format!("no service account specified for pod {namespace}/{pod_name}");
        return Err(attributes.forbidden(pod, why));
    }
    let account = existing(attributes, pod, name).await?;
    if !mountable::is_enforced(&account) {
        return Ok(());
    }
    let checked = match is_created {
        true => mountable::check(spec, &account),
        false => mountable::check_ephemeral(spec, &account),
    };
    checked.map_err(|why| attributes.forbidden(pod, why))
}

/// Mirror pods have no account, and may not refer to secrets.
fn check_mirror(pod: &Pod) -> Result<(), &'static str> {
    let Ok(object) = serde_json::from_slice::<Value>(&Kind::encode(pod)) else {
        return Err("a mirror pod must be readable");
    };
    let refers = |resource: &str, naming: Naming| {
        references::visit(&object["spec"], "", &mut |reference| {
            reference.place.resource == resource && reference.place.naming == naming
        })
    };
    if refers("serviceaccounts", Naming::Value) {
        return Err("a mirror pod may not reference service accounts");
    }
    if refers("secrets", Naming::Value) {
        return Err("a mirror pod may not reference secrets");
    }
    if refers("serviceaccounts", Naming::Presence) {
        return Err("a mirror pod may not use ServiceAccountToken volume projections");
    }
    Ok(())
}

async fn existing(
    attributes: &Attributes<'_>,
    pod: &Pod,
    name: &str,
) -> Result<ServiceAccount, ApiError> {
    find(attributes.call, name).await?.ok_or_else(|| {
        let namespace = &attributes.call.target.namespace;
        attributes.forbidden(
            pod,
            format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"),
        )
    })
}

async fn find(call: Call<'_>, name: &str) -> Result<Option<ServiceAccount>, ApiError> {
    let key = format!("{}/{name}", call.target.namespace);
    let attempts = if name == DEFAULT { ATTEMPTS } else { 1 };
    for attempt in 0..attempts {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        if let Some(version) = call.core.find(ServiceAccount::ROW, &key).await? {
            return ServiceAccount::decode(&version.json).map(Some).map_err(ApiError::internal);
        }
    }
    Ok(None)
}

fn mount(container: &mut Container, volume: &str) -> bool {
    let mounts = container.volume_mounts.get_or_insert_default();
    if mounts.iter().any(|mount| mount.mount_path == MOUNT_PATH) {
        return false;
    }
    mounts.push(VolumeMount {
        name: volume.to_owned(),
        mount_path: MOUNT_PATH.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    });
    true
}

fn volume(name: String) -> Volume {
    let token = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            path: "token".to_owned(),
            expiration_seconds: Some(TOKEN_SECONDS),
            ..ServiceAccountTokenProjection::default()
        }),
        ..VolumeProjection::default()
    };
    let authority = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: "kube-root-ca.crt".to_owned(),
            items: Some(vec![KeyToPath {
                key: "ca.crt".to_owned(),
                path: "ca.crt".to_owned(),
                ..KeyToPath::default()
            }]),
            optional: None,
        }),
        ..VolumeProjection::default()
    };
    let namespace = VolumeProjection {
        downward_api: Some(DownwardAPIProjection {
            items: Some(vec![DownwardAPIVolumeFile {
                path: "namespace".to_owned(),
                field_ref: Some(ObjectFieldSelector {
                    api_version: Some("v1".to_owned()),
                    field_path: "metadata.namespace".to_owned(),
                }),
                ..DownwardAPIVolumeFile::default()
            }]),
        }),
        ..VolumeProjection::default()
    };
    Volume {
        name,
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(0o644),
            sources: Some(vec![token, authority, namespace]),
            ..ProjectedVolumeSource::default()
        }),
        ..Volume::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_pod_names_no_secret_and_no_account() {
        for (way, place, spec) in references::tests::generated() {
            let mut object = serde_json::json!({"metadata": {}, "spec": spec});
            if !object["spec"]["containers"].is_array() {
                object["spec"]["containers"] = serde_json::json!([]);
            }
            let pod = Pod::decode(object.to_string().as_bytes()).unwrap();
            let checked = check_mirror(&pod);
            let account = place.resource == "serviceaccounts";
            let refused = account || (place.resource == "secrets" && place.naming == Naming::Value);
            assert_eq!(checked.is_err(), refused, "{way}: {checked:?}");
        }
    }
}
