//! The objects that the system itself needs, written at start where they are missing or incomplete.

pub mod authentication;
mod controller_roles;
pub mod endpoints;
pub mod flow_control;
mod priorities;
mod roles;
mod storage;

use std::sync::Arc;
use std::time::Duration;

use api::object::Object;
use api::{ApiError, Kind};
use k8s_openapi::api::core::v1::{Endpoints, Namespace, NamespaceSpec, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{ServiceCIDR, ServiceCIDRSpec};
use tokio_util::sync::CancellationToken;

use self::endpoints::Advertised;
use crate::cache::{Filter, Follower, Version};
use crate::core::{Call, Core, decode};
use crate::request::{Options, Target, Verb};
use crate::user::{MASTERS, User};
use crate::verbs::create::create_object;
use crate::verbs::update::update_with;
pub use controller_roles::is_controller;

pub use roles::node_rules;

/// How often the lease of this apiserver is renewed.
const RENEW_INTERVAL: Duration = Duration::from_secs(8);
/// The least time between two looks at what the system needs, however often others change it.
const RESTORE_PAUSE: Duration = Duration::from_secs(1);
/// The system's namespaces.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

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
    storage::reconcile(core).await?;
    flow_control::reconcile(core).await?;
    roles::reconcile(core).await?;
    service_cidr(core).await?;
    core.allocator.repair(&core.cache, core.clock.now()).await
}

/// Creates the ServiceCIDR of the server's own range where it is missing. One with another range
/// is left as it is: the server's range is what it was started with.
async fn service_cidr(core: &Core) -> Result<(), ApiError> {
    let cidrs = Some(vec![core.allocator.range().to_string()]);
    let mut range = ServiceCIDR { spec: Some(ServiceCIDRSpec { cidrs }), ..ServiceCIDR::default() };
    range.metadata.name = Some(endpoints::NAME.to_owned());
    create_missing(core, Box::new(range)).await
}

/// Creates the system's namespaces where they are missing.
async fn namespaces(core: &Core) -> Result<(), ApiError> {
    for name in NAMESPACES {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.to_owned());
        namespace.spec = Some(NamespaceSpec { finalizers: Some(vec!["kubernetes".to_owned()]) });
        create_missing(core, Box::new(namespace)).await?;
    }
    Ok(())
}

/// Restores the system's namespaces, the Service `kubernetes` and its endpoints until `shutdown`,
/// as soon as somebody changes or deletes them.
///
/// # Errors
/// When the store fails at start.
pub async fn keep(
    core: &Arc<Core>,
    own: Advertised,
    alone: bool,
    shutdown: CancellationToken,
) -> Result<(), ApiError> {
    endpoints::ensure(core, own, alone).await?;
    let core = core.clone();
    let keeping = async move {
        let (mut changes, mut later) = (Follower::new(&core, restored_objects()), None);
        loop {
            changes.next(later).await;
            let restored = restore(&core, own, alone).await;
            tokio::time::sleep(RESTORE_PAUSE).await;
            later = (restored.is_err() || !alone).then_some(RENEW_INTERVAL);
        }
    };
    tokio::spawn(async move { shutdown.run_until_cancelled(keeping).await });
    Ok(())
}

/// Everything that [`keep`] restores.
fn restored_objects() -> Vec<Filter> {
    let namespaces = NAMESPACES.map(|name| Filter::one(Namespace::ROW, "", name));
    let own = [Service::ROW, Endpoints::ROW, EndpointSlice::ROW]
        .map(|row| Filter::one(row, "default", endpoints::NAME));
    let range = Filter::one(ServiceCIDR::ROW, "", endpoints::NAME);
    namespaces.into_iter().chain(own).chain([range]).collect()
}

/// Creates or corrects what is missing or not as it should be.
async fn restore(core: &Core, own: Advertised, alone: bool) -> Result<(), ApiError> {
    let namespaces = namespaces(core).await.inspect_err(|error| {
        tracing::warn!(%error, "cannot restore the system's namespaces");
    });
    let endpoints = endpoints::ensure(core, own, alone).await.inspect_err(|error| {
        tracing::warn!(%error, "cannot update the kubernetes Service and its endpoints");
    });
    let range = service_cidr(core).await.inspect_err(|error| {
        tracing::warn!(%error, "cannot restore the ServiceCIDR kubernetes");
    });
    namespaces.and(endpoints).and(range)
}

/// Creates `object` as the system, unless it exists.
///
/// # Errors
/// When the store fails or refuses it.
pub async fn create_missing(core: &Core, object: Box<dyn Object>) -> Result<(), ApiError> {
    create_as(core, object, "").await
}

/// The same, as a field manager.
async fn create_as(core: &Core, object: Box<dyn Object>, manager: &str) -> Result<(), ApiError> {
    if find(core, object.as_ref()).await?.is_some() {
        return Ok(());
    }
    let target = target(object.as_ref(), String::new());
    let options = Options { field_manager: manager.to_owned(), ..Options::default() };
    let user = system_user();
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
    complete: impl Fn(&mut K, &K) + Sync,
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
