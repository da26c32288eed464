//! The objects that the system itself needs, written at start where they are missing or incomplete.

mod controller_roles;
pub mod endpoints;
mod priorities;
mod roles;

use std::sync::Arc;

use api::object::Object;
use api::{ApiError, Kind};
use k8s_openapi::api::core::v1::{Namespace, NamespaceSpec};

use crate::cache::Version;
use crate::core::{Call, Core, decode};
use crate::request::{Options, Target, Verb};
use crate::user::{MASTERS, User};
use crate::verbs::create::create_object;
use crate::verbs::update::update_with;
pub use controller_roles::is_controller;

/// The user of the apiserver's own writes.
pub fn system_user() -> User {
    User::authenticated("system:apiserver", vec![MASTERS.to_owned()])
}

/// Creates what is missing.
///
/// # Errors
/// When the store fails or refuses an object.
pub async fn reconcile(core: &Core) -> Result<(), ApiError> {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.to_owned());
        namespace.spec = Some(NamespaceSpec { finalizers: Some(vec!["kubernetes".to_owned()]) });
        create_missing(core, Box::new(namespace)).await?;
    }
    priorities::reconcile(core).await?;
    roles::reconcile(core).await?;
    core.allocator.repair(&core.cache).await
}

/// Creates `object` as the system, unless it exists.
///
/// # Errors
/// When the store fails or refuses it.
pub async fn create_missing(core: &Core, object: Box<dyn Object>) -> Result<(), ApiError> {
    if find(core, object.as_ref()).await?.is_some() {
        return Ok(());
    }
    let target = target(object.as_ref(), String::new());
    let (user, options) = (system_user(), Options::default());
    let call = Call { core, user: &user, verb: Verb::Create, target: &target, options: &options };
    match create_object(call, object).await {
        Ok(_) => Ok(()),
        // Another apiserver was faster.
        Err(error) if error.is_already_exists() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Creates `wanted` as the system where it is missing; an existing object is passed to `complete`,
/// and written if that changes it.
///
/// # Errors
/// When the store fails or refuses it.
async fn create_or_complete<K>(
    core: &Core,
    wanted: &K,
    complete: impl Fn(&mut K, &K),
) -> Result<(), ApiError>
where
    K: Kind + Object + Clone + PartialEq,
{
    let Some(version) = find(core, wanted).await? else {
        return create_missing(core, wanted.clone_object()).await;
    };
    let completed = |object: &dyn Object| {
        let mut next = object.downcast_ref::<K>()?.clone();
        complete(&mut next, wanted);
        (object.downcast_ref::<K>() != Some(&next)).then_some(next)
    };
    if completed(decode(K::ROW, &version)?.as_ref()).is_none() {
        return Ok(());
    }
    let target = target(wanted, Object::metadata(wanted).name.clone().unwrap_or_default());
    let (user, options) = (system_user(), Options::default());
    let call = Call { core, user: &user, verb: Verb::Update, target: &target, options: &options };
    let change = |object: &dyn Object, _: &Version| {
        Ok(match completed(object) {
            Some(next) => Box::new(next),
            None => object.clone_object(),
        })
    };
    update_with(call, change).await.map(|_| ())
}

async fn find(core: &Core, object: &dyn Object) -> Result<Option<Arc<Version>>, ApiError> {
    let (row, metadata) = (object.row(), object.metadata());
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let name = metadata.name.as_deref().unwrap_or_default();
    core.find(row, &crate::request::object_key(row, namespace, name)).await
}

fn target(object: &dyn Object, name: String) -> Target {
    Target {
        row: object.row(),
        namespace: object.metadata().namespace.clone().unwrap_or_default(),
        name,
        subresource: String::new(),
        subpath: String::new(),
    }
}
