//! The default StorageClass: a claim is served on a cluster that nobody has set up.

use std::collections::BTreeMap;

use api::ApiError;
use k8s_openapi::api::storage::v1::StorageClass;

use super::create_missing;
use crate::core::Core;

/// Creates it where it is missing. One that exists is left as it is: an administrator who wants
/// another default, or none, changes its annotation.
///
/// # Errors
/// When the store fails.
pub async fn reconcile(core: &Core) -> Result<(), ApiError> {
    create_missing(core, Box::new(standard())).await
}

fn standard() -> StorageClass {
    let default = ("storageclass.kubernetes.io/is-default-class".to_owned(), "true".to_owned());
    let mut class = StorageClass {
        provisioner: api::local_path::PROVISIONER.to_owned(),
        reclaim_policy: Some("Delete".to_owned()),
        // The volume is on the node of the pod that uses it first.
        volume_binding_mode: Some("WaitForFirstConsumer".to_owned()),
        allow_volume_expansion: Some(true),
        ..StorageClass::default()
    };
    class.metadata.name = Some("standard".to_owned());
    class.metadata.annotations = Some(BTreeMap::from([default]));
    class
}
