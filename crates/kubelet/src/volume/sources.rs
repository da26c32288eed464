//! Fetches the sources of configMap, secret, downwardAPI and projected volumes.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Pod, ProjectedVolumeSource, SecretVolumeSource, Volume, VolumeProjection,
};

use super::atomic::Payload;
use super::content::{self, DEFAULT_MODE, Selection};
use super::{VolumeError, VolumeManager};
use crate::pod::downward_api::RuntimeFields;
use crate::pod::pod_ext::PodExt;
use crate::pod::worker::handle::WorkerHandle;

/// The files of a volume made from objects.
#[derive(Debug, Default)]
pub struct Contents {
    pub payload: Payload,
    /// When a token in it must be renewed.
    pub renew_at: Option<Timestamp>,
}

/// The pod that the contents are for.
pub struct Subject<'a> {
    pub pod: &'a Pod,
    pub runtime_fields: &'a RuntimeFields,
    /// Notified when a source changes.
    pub worker: &'a Arc<WorkerHandle>,
}

impl VolumeManager {
    /// `None`: it is another kind of volume.
    pub(super) async fn contents(
        &self,
        subject: &Subject<'_>,
        volume: &Volume,
    ) -> Result<Option<Contents>, VolumeError> {
        let payload = if let Some(source) = &volume.config_map {
            self.config_map_volume(subject, source).await?
        } else if let Some(source) = &volume.secret {
            self.secret_volume(subject, source).await?
        } else if let Some(source) = &volume.downward_api {
            let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
            let items = source.items.clone().unwrap_or_default();
            content::downward(subject.pod, &items, mode, subject.runtime_fields)?
        } else if let Some(source) = &volume.projected {
            return self.projected(subject, source).await.map(Some);
        } else {
            return Ok(None);
        };
        Ok(Some(Contents { payload, renew_at: None }))
    }

    async fn config_map_volume(
        &self,
        subject: &Subject<'_>,
        source: &ConfigMapVolumeSource,
    ) -> Result<Payload, VolumeError> {
        let selection = Selection {
            items: source.items.as_ref(),
            mode: source.default_mode.unwrap_or(DEFAULT_MODE),
            optional: source.optional.unwrap_or(false),
        };
        self.config_map(subject, &source.name, selection).await
    }

    async fn secret_volume(
        &self,
        subject: &Subject<'_>,
        source: &SecretVolumeSource,
    ) -> Result<Payload, VolumeError> {
        let selection = Selection {
            items: source.items.as_ref(),
            mode: source.default_mode.unwrap_or(DEFAULT_MODE),
            optional: source.optional.unwrap_or(false),
        };
        let name = source.secret_name.as_deref().unwrap_or_default();
        self.secret(subject, name, selection).await
    }

    async fn config_map(
        &self,
        subject: &Subject<'_>,
        name: &str,
        selection: Selection<'_>,
    ) -> Result<Payload, VolumeError> {
        let namespace = subject.pod.pod_namespace();
        match self.objects.config_map(namespace, name, subject.worker).await? {
            Some(map) => content::config_map(&map, selection),
            None if selection.optional => Ok(Payload::new()),
            None => Err(VolumeError::NoConfigMap(name.to_owned())),
        }
    }

    async fn secret(
        &self,
        subject: &Subject<'_>,
        name: &str,
        selection: Selection<'_>,
    ) -> Result<Payload, VolumeError> {
        let namespace = subject.pod.pod_namespace();
        match self.objects.secret(namespace, name, subject.worker).await? {
            Some(secret) => content::secret(&secret, selection),
            None if selection.optional => Ok(Payload::new()),
            None => Err(VolumeError::NoSecret(name.to_owned())),
        }
    }

    async fn projected(
        &self,
        subject: &Subject<'_>,
        source: &ProjectedVolumeSource,
    ) -> Result<Contents, VolumeError> {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let mut contents = Contents::default();
        for part in source.sources.iter().flatten() {
            let payload = self.projection(subject, part, mode, &mut contents).await?;
            contents.payload.extend(payload);
        }
        Ok(contents)
    }

    async fn projection(
        &self,
        subject: &Subject<'_>,
        part: &VolumeProjection,
        mode: i32,
        contents: &mut Contents,
    ) -> Result<Payload, VolumeError> {
        if let Some(source) = &part.config_map {
            let selection = Selection {
                items: source.items.as_ref(),
                mode,
                optional: source.optional.unwrap_or(false),
            };
            return self.config_map(subject, &source.name, selection).await;
        }
        if let Some(source) = &part.secret {
            let selection = Selection {
                items: source.items.as_ref(),
                mode,
                optional: source.optional.unwrap_or(false),
            };
            return self.secret(subject, &source.name, selection).await;
        }
        if let Some(source) = &part.downward_api {
            let items = source.items.clone().unwrap_or_default();
            return content::downward(subject.pod, &items, mode, subject.runtime_fields);
        }
        if let Some(source) = &part.service_account_token {
            let token = self.tokens.get(subject.pod, source).await?;
            let renew = contents.renew_at.map_or(token.renew_at, |at| at.min(token.renew_at));
            contents.renew_at = Some(renew);
            let (mode, owner) = token_access(subject.pod, mode);
            let file = content::file(token.text.as_bytes(), mode, owner.or(source.user));
            return Ok([(source.path.clone(), file)].into());
        }
        Err(VolumeError::Unsupported(if part.cluster_trust_bundle.is_some() {
            "clusterTrustBundle"
        } else {
            "podCertificate"
        }))
    }
}

/// A token is readable by the containers' user only if all containers run as the same one, and by
/// the pod's group if it has one.
fn token_access(pod: &Pod, mode: i32) -> (i32, Option<i64>) {
    let spec = pod.spec_ref();
    let of_pod = spec.security_context.clone().unwrap_or_default();
    if of_pod.fs_group.is_some() {
        return (0o600, None);
    }
    let users: Vec<Option<i64>> = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .map(|container| {
            let own = container.security_context.as_ref();
            own.and_then(|own| own.run_as_user).or(of_pod.run_as_user)
        })
        .collect();
    match users.first() {
        Some(Some(user)) if users.iter().all(|other| *other == Some(*user)) => (0o600, Some(*user)),
        _ => (mode, None),
    }
}
