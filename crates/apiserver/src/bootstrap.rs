//! The objects that the system itself needs, written at start where they are missing or incomplete.

pub mod authentication;
mod controller_roles;
pub mod endpoints;
mod priorities;
mod roles;

use std::sync::Arc;
use std::time::Duration;

use api::object::Object;
use api::{ApiError, Kind};
use k8s_openapi::api::core::v1::{Namespace, NamespaceSpec};
use tokio_util::sync::CancellationToken;

use self::endpoints::Advertised;
use crate::cache::Version;
use crate::core::{Call, Core, decode};
use crate::request::{Options, Target, Verb};
use crate::user::{MASTERS, User};
use crate::verbs::create::create_object;
use crate::verbs::update::update_with;
pub use controller_roles::is_controller;

pub use roles::node_rules;

/// How often it is checked that what the system needs is there: Kubernetes restores it within ten
/// seconds.
const RESTORE_INTERVAL: Duration = Duration::from_secs(4);
/// Every how many checks the lease of this apiserver is renewed.
const RENEW_TURNS: u32 = 2;

/// The user of the apiserver's own writes.
pub fn system_user() -> User {
    User::authenticated("system:apiserver", vec![MASTERS.to_owned()])
}

/// Creates what is missing.
///
/// # Errors
/// When the store fails or refuses an object.
pub async fn reconcile(core: &Core) -> Result<(), ApiError> {
    namespaces(core).await?;
    priorities::reconcile(core).await?;
    roles::reconcile(core).await?;
    core.allocator.repair(&core.cache).await
}

/// Creates the system's namespaces where they are missing.
async fn namespaces(core: &Core) -> Result<(), ApiError> {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.to_owned());
        namespace.spec = Some(NamespaceSpec { finalizers: Some(vec!["kubernetes".to_owned()]) });
        create_missing(core, Box::new(namespace)).await?;
    }
    Ok(())
}

/// Restores the system's namespaces and the Service `kubernetes` until `shutdown`, should somebody
/// delete them. While they are there, that is a look into the cache.
///
/// # Errors
/// When the store fails at start.
pub async fn keep(
    core: &Arc<Core>,
    own: Advertised,
    alone: bool,
    shutdown: CancellationToken,
) -> Result<(), ApiError> {
    endpoints::ensure(core, own, alone, true).await?;
    let core = core.clone();
    tokio::spawn(async move {
        for turn in 1_u32.. {
            tokio::select! {
                () = tokio::time::sleep(RESTORE_INTERVAL) => {}
                () = shutdown.cancelled() => return,
            }
            if let Err(error) = namespaces(&core).await {
                tracing::warn!(%error, "cannot restore the system's namespaces");
            }
            let renew = turn.is_multiple_of(RENEW_TURNS);
            if let Err(error) = endpoints::ensure(&core, own, alone, renew).await {
                tracing::warn!(%error, "cannot update the kubernetes Service and its endpoints");
            }
        }
    });
    Ok(())
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
    core.find(&row, &crate::request::object_key(&row, namespace, name)).await
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
