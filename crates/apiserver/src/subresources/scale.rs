//! `scale` of Deployments, ReplicaSets, ReplicationControllers and StatefulSets.

use api::object::Object;
use api::status::FieldError;
use api::{ApiError, Kind, ObjectMeta, labels};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use k8s_openapi::api::core::v1::ReplicationController;

use super::{decode, json};
use crate::cache::Version;
use crate::core::{self, Call};
use crate::request::{Request, Target};
use crate::response::Response;
use crate::verbs::patch::Patch;
use crate::verbs::update::update_with;

/// The target's scale.
///
/// # Errors
/// 404.
pub async fn get(call: Call<'_>) -> Result<Response, ApiError> {
    call.core.cache.fresh().await?;
    let version = call.current().await?;
    let object = core::decode(call.row(), &version)?;
    Ok(json(200, &scale_of(&*object)?))
}

/// Sets the replicas by a whole Scale.
///
/// # Errors
/// 404, 409, 422.
pub async fn update(call: Call<'_>, request: &Request) -> Result<Response, ApiError> {
    let scale: Scale = decode(request)?;
    write(call, |_| Ok(scale.clone())).await
}

/// Sets the replicas by a patch of the Scale.
///
/// # Errors
/// 404, 409, 422.
pub async fn patch(call: Call<'_>, request: &Request) -> Result<Response, ApiError> {
    let patch = Patch::read(call, request)?;
    write(call, |scale| {
        let json = patch.apply(Scale::ROW, &Kind::encode(scale))?;
        Scale::decode(&json).map_err(|error| ApiError::bad_request(error.source.to_string()))
    })
    .await
}

async fn write(
    call: Call<'_>,
    mut change: impl FnMut(&Scale) -> Result<Scale, ApiError> + Send,
) -> Result<Response, ApiError> {
    // The object itself is what changes; the right to its scale has been checked.
    let target = Target {
        subresource: String::new(),
        ..call.target.clone()
    };
    let call = Call {
        target: &target,
        ..call
    };
    let answer = update_with(call, |object, version: &Version| {
        let scale = change(&scale_of(object)?)?;
        if let Some(name) = scale.metadata.name.as_deref()
            && name != call.target.name
        {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                call.target.name
            )));
        }
        let replicas = scale
            .spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or_default();
        if replicas < 0 {
            let error = FieldError::invalid(
                "spec.replicas",
                replicas,
                "must be greater than or equal to 0",
            );
            return Err(ApiError::invalid(Scale::ROW, &call.target.name, &[error]));
        }
        let mut new = object.clone_object();
        *replicas_mut(&mut *new)? = Some(replicas);
        let metadata = new.metadata_mut();
        metadata.resource_version = scale
            .metadata
            .resource_version
            .filter(|version| !version.is_empty());
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
        let object = object
            .downcast_mut::<ReplicationController>()
            .ok_or_else(no_scale)?;
        Ok(&mut object.spec.get_or_insert_default().replicas)
    }
}

fn scale_of(object: &dyn Object) -> Result<Scale, ApiError> {
    let text = |selector| {
        labels::Selector::from_label_selector(Some(selector)).map(|selector| selector.to_string())
    };
    let (wanted, present, selector) = if let Some(object) = object.downcast_ref::<Deployment>() {
        let spec = &object.spec;
        let status = object.status.as_ref().and_then(|status| status.replicas);
        (spec.replicas, status, text(&spec.selector))
    } else if let Some(object) = object.downcast_ref::<ReplicaSet>() {
        let spec = &object.spec;
        (
            spec.replicas,
            object.status.as_ref().map(|status| status.replicas),
            text(&spec.selector),
        )
    } else if let Some(object) = object.downcast_ref::<StatefulSet>() {
        let spec = &object.spec;
        (
            spec.replicas,
            object.status.as_ref().map(|status| status.replicas),
            text(&spec.selector),
        )
    } else if let Some(object) = object.downcast_ref::<ReplicationController>() {
        let spec = object.spec.clone().unwrap_or_default();
        let selector = labels::Selector::from_map(&spec.selector.unwrap_or_default()).to_string();
        (
            spec.replicas,
            object.status.as_ref().map(|status| status.replicas),
            Ok(selector),
        )
    } else {
        return Err(no_scale());
    };
    let own = object.metadata();
    Ok(Scale {
        metadata: ObjectMeta {
            name: own.name.clone(),
            namespace: own.namespace.clone(),
            uid: own.uid.clone(),
            resource_version: own.resource_version.clone(),
            creation_timestamp: own.creation_timestamp.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(ScaleSpec { replicas: wanted }),
        status: Some(ScaleStatus {
            replicas: present.unwrap_or_default(),
            selector: Some(selector.map_err(ApiError::internal)?),
        }),
    })
}
