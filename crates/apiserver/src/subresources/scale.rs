//! `scale` of Deployments, ReplicaSets, ReplicationControllers, StatefulSets and custom resources.

use api::custom::CustomObject;
use api::object::Object;
use api::status::FieldError;
use api::{ApiError, Kind, KindRow, ObjectMeta, labels};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use k8s_openapi::api::core::v1::ReplicationController;

use serde_json::json;

use super::{decode, json};
use crate::body::decode_as;
use crate::cache::Version;
use crate::core::{self, Call};
use crate::request::{Options, PatchType, Request, Target};
use crate::response::Response;
use crate::verbs::apply;
use crate::verbs::patch::Patch;
use crate::verbs::update::update_with;

/// What upstream takes for the replicas of a custom resource that has none.
const UNSET: i32 = i32::MIN;

/// The target's scale.
///
/// # Errors
/// 404.
pub async fn get(call: Call<'_>) -> Result<Response, ApiError> {
    let version = call.current().await?;
    let object = core::decode(call.row(), &version)?;
    Ok(json(200, &scale_of(&*object)?))
}

/// Sets the replicas by replacing the Scale.
///
/// # Errors
/// 404, 409, 422.
pub async fn update(call: Call<'_>, request: &Request) -> Result<Response, ApiError> {
    let scale: Scale = decode(request)?;
    write(call, |_| Ok(scale.clone())).await
}

/// Sets the replicas by patching the Scale.
///
/// # Errors
/// 404, 409, 422.
pub async fn patch(call: Call<'_>, request: &Request) -> Result<Response, ApiError> {
    if call.options.patch_type == Some(PatchType::Apply) {
        return apply(call, request).await;
    }
    let patch = Patch::read(call, request)?;
    write(call, |scale| {
        let json = patch.apply(Scale::ROW, &Kind::encode(scale))?;
        decode_as(&json).map_err(ApiError::bad_request)
    })
    .await
}

/// Applies a Scale: its manager becomes the owner of the object's own replicas.
async fn apply(call: Call<'_>, request: &Request) -> Result<Response, ApiError> {
    let wanted = apply::read(call, request)?;
    let unknown = [(&wanted, &["apiVersion", "kind", "metadata", "spec", "status"][..], "")]
        .into_iter()
        .chain([(&wanted["spec"], &["replicas"][..], ".spec")])
        .find_map(|(value, known, path)| {
            let mut fields = value.as_object()?.keys();
            let unknown = fields.find(|field| !known.contains(&field.as_str()))?;
            Some(format!("{path}.{unknown}"))
        });
    if let Some(field) = unknown {
        let why = format!("{field}: field not declared in schema");
        return Err(apply::untyped(call, &wanted, Scale::ROW, &why));
    }
    let text = serde_json::to_vec(&wanted).map_err(ApiError::internal)?;
    let scale: Scale = decode_as(&text).map_err(ApiError::bad_request)?;
    check_name(call, &scale)?;
    // A configuration without replicas leaves them alone, while zero is a wish.
    let given = !wanted["spec"]["replicas"].is_null();
    let replicas = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default();
    check_replicas(call, replicas)?;
    let row = call.row();
    let mut config = json!({
        "apiVersion": row.api_version(), "kind": row.kind, "metadata": {"name": call.target.name},
    });
    if given {
        let path = replicas_path(row);
        let pointer = path.split('.').filter(|part| !part.is_empty());
        let mut at = &mut config;
        for part in pointer {
            at = &mut at[part];
        }
        *at = replicas.into();
    }
    let (target, options) = itself(call);
    let call = Call { target: &target, options: &options, ..call };
    let answer = apply::apply_config(call, request, &config, "scale").await?;
    let object = core::decode(call.row(), &answer.version)?;
    Ok(json(200, &scale_of(&*object)?))
}

/// The object itself is what changes; the right to update its scale has been checked.
fn itself(call: Call<'_>) -> (Target, Options) {
    (
        Target { subresource: String::new(), ..call.target.clone() },
        Options { written_through: "scale", ..call.options.clone() },
    )
}

fn check_name(call: Call<'_>, scale: &Scale) -> Result<(), ApiError> {
    match scale.metadata.name.as_deref() {
        Some(name) if !name.is_empty() && name != call.target.name => {
            Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                call.target.name
            )))
        }
        _ => Ok(()),
    }
}

fn check_replicas(call: Call<'_>, replicas: i32) -> Result<(), ApiError> {
    if replicas >= 0 {
        return Ok(());
    }
    let error =
        FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
    Err(ApiError::invalid(Scale::ROW, &call.target.name, &[error]))
}

async fn write(
    call: Call<'_>,
    mut change: impl FnMut(&Scale) -> Result<Scale, ApiError> + Send,
) -> Result<Response, ApiError> {
    let (target, options) = itself(call);
    let call = Call { target: &target, options: &options, ..call };
    let answer = update_with(call, |object, version: &Version| {
        let scale = change(&to_change(object)?)?;
        check_name(call, &scale)?;
        let replicas = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default();
        if replicas == UNSET {
            let path = replicas_path(call.row());
            return Err(ApiError::bad_request(format!(
                "the spec replicas field {path:?} cannot be empty"
            )));
        }
        check_replicas(call, replicas)?;
        let mut new = object.clone_object();
        set_replicas(&mut *new, replicas)?;
        let metadata = new.metadata_mut();
        // None is no precondition, also for kinds whose own updates need one.
        if let Some(version) = scale.metadata.resource_version.filter(|it| !it.is_empty()) {
            metadata.resource_version = Some(version);
        }
        if let Some(uid) = scale.metadata.uid.filter(|uid| !uid.is_empty()) {
            metadata.uid = Some(uid);
        }
        debug_assert!(version.revision > 0, "only stored objects are scaled");
        Ok(new)
    })
    .await?;
    let object = core::decode(call.row(), &answer.version)?;
    Ok(json(200, &scale_of(&*object)?))
}

fn no_scale() -> ApiError {
    ApiError::internal("the kind has no replicas to scale")
}

/// Where the wanted number is.
fn replicas_path(row: &KindRow) -> &str {
    let scale = row.custom.as_ref().and_then(|custom| custom.scale.as_ref());
    scale.map_or(".spec.replicas", |scale| &scale.spec_replicas)
}

/// Takes the replicas of a Scale.
///
/// # Errors
/// 422 for a negative number.
pub fn set_from(call: Call<'_>, object: &mut dyn Object, scale: &Scale) -> Result<(), ApiError> {
    let replicas = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default();
    check_replicas(call, replicas)?;
    set_replicas(object, replicas)
}

fn set_replicas(object: &mut dyn Object, replicas: i32) -> Result<(), ApiError> {
    if let Some(custom) = object.as_any_mut().downcast_mut::<CustomObject>() {
        return custom.set_replicas(replicas).ok_or_else(no_scale);
    }
    *replicas_mut(object)? = Some(replicas);
    Ok(())
}

fn replicas_mut(object: &mut dyn Object) -> Result<&mut Option<i32>, ApiError> {
    let row = object.row();
    if row == Deployment::ROW {
        let object = object.downcast_mut::<Deployment>().ok_or_else(no_scale)?;
        Ok(&mut object.spec.replicas)
    } else if row == ReplicaSet::ROW {
        let object = object.downcast_mut::<ReplicaSet>().ok_or_else(no_scale)?;
        Ok(&mut object.spec.replicas)
    } else if row == StatefulSet::ROW {
        let object = object.downcast_mut::<StatefulSet>().ok_or_else(no_scale)?;
        Ok(&mut object.spec.replicas)
    } else {
        let object = object.downcast_mut::<ReplicationController>().ok_or_else(no_scale)?;
        Ok(&mut object.spec.get_or_insert_default().replicas)
    }
}

/// The scale of an object.
///
/// # Errors
/// 500 when it has none.
pub fn scale_of(object: &dyn Object) -> Result<Scale, ApiError> {
    let scale = to_change(object)?;
    if scale.spec.as_ref().is_some_and(|spec| spec.replicas == Some(UNSET)) {
        let path = replicas_path(&object.row()).to_owned();
        return Err(ApiError::internal(format!("the spec replicas field {path:?} does not exist")));
    }
    Ok(scale)
}

/// As [`scale_of`], where the wanted number may be [`UNSET`].
fn to_change(object: &dyn Object) -> Result<Scale, ApiError> {
    if let Some(custom) = object.as_any().downcast_ref::<CustomObject>() {
        let scale = custom.scale().ok_or_else(no_scale)?;
        let wanted = scale.wanted.unwrap_or(UNSET);
        return Ok(with_metadata(object, Some(wanted), scale.present, scale.selector));
    }
    let text = |selector| {
        labels::Selector::from_label_selector(Some(selector)).map(|selector| selector.to_string())
    };
    let (wanted, present, selector) = if let Some(object) = object.downcast_ref::<Deployment>() {
        let spec = &object.spec;
        let status = object.status.as_ref().and_then(|status| status.replicas);
        (spec.replicas, status, text(&spec.selector))
    } else if let Some(object) = object.downcast_ref::<ReplicaSet>() {
        let spec = &object.spec;
        (spec.replicas, object.status.as_ref().map(|status| status.replicas), text(&spec.selector))
    } else if let Some(object) = object.downcast_ref::<StatefulSet>() {
        let spec = &object.spec;
        (spec.replicas, object.status.as_ref().map(|status| status.replicas), text(&spec.selector))
    } else if let Some(object) = object.downcast_ref::<ReplicationController>() {
        let spec = object.spec.clone().unwrap_or_default();
        let selector = labels::Selector::from_map(&spec.selector.unwrap_or_default()).to_string();
        (spec.replicas, object.status.as_ref().map(|status| status.replicas), Ok(selector))
    } else {
        return Err(no_scale());
    };
    let selector = selector.map_err(ApiError::internal)?;
    Ok(with_metadata(object, wanted, present.unwrap_or_default(), Some(selector)))
}

fn with_metadata(
    object: &dyn Object,
    wanted: Option<i32>,
    present: i32,
    selector: Option<String>,
) -> Scale {
    let own = object.metadata();
    Scale {
        metadata: ObjectMeta {
            name: own.name.clone(),
            namespace: own.namespace.clone(),
            uid: own.uid.clone(),
            resource_version: own.resource_version.clone(),
            creation_timestamp: own.creation_timestamp.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(ScaleSpec { replicas: wanted }),
        status: Some(ScaleStatus { replicas: present, selector }),
    }
}
