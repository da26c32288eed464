//! The objects that the system itself needs, written at start where they are missing.

pub mod endpoints;
mod priorities;
mod roles;

use api::ApiError;
use api::object::Object;
use k8s_openapi::api::core::v1::{Namespace, NamespaceSpec};

use crate::core::{Call, Core};
use crate::request::{Options, Target, Verb};
use crate::user::{MASTERS, User};
use crate::verbs::create::create_object;

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
        namespace.spec = Some(NamespaceSpec {
            finalizers: Some(vec!["kubernetes".to_owned()]),
        });
        create_missing(core, Box::new(namespace)).await?;
    }
    priorities::reconcile(core).await?;
    roles::reconcile(core).await?;
    core.allocator.repair(&core.cache, core.clock.now()).await
}

/// Creates `object` as the system, unless it exists.
///
/// # Errors
/// When the store fails or refuses it.
pub async fn create_missing(core: &Core, object: Box<dyn Object>) -> Result<(), ApiError> {
    let row = object.row();
    let metadata = object.metadata();
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let name = metadata.name.clone().unwrap_or_default();
    let key = crate::request::object_key(row, &namespace, &name);
    if core.find(row, &key).await?.is_some() {
        return Ok(());
    }
    let target = Target {
        row,
        namespace,
        name: String::new(),
        subresource: String::new(),
        subpath: String::new(),
    };
    let (user, options) = (system_user(), Options::default());
    let call = Call {
        core,
        user: &user,
        verb: Verb::Create,
        target: &target,
        options: &options,
    };
    match create_object(call, object).await {
        Ok(_) => Ok(()),
        // Another apiserver was faster.
        Err(error) if error.is_already_exists() => Ok(()),
        Err(error) => Err(error),
    }
}
