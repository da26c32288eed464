//! The two PriorityClasses that system pods use.

use api::ApiError;
use k8s_openapi::api::scheduling::v1::PriorityClass;

use super::create_missing;
use crate::core::Core;

/// Creates them where they are missing.
///
/// # Errors
/// When the store fails.
pub async fn reconcile(core: &Core) -> Result<(), ApiError> {
    for (name, value, description) in [
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ] {
        let mut class = PriorityClass {
            value: Some(value),
            description: Some(description.to_owned()),
            ..PriorityClass::default()
        };
        class.metadata.name = Some(name.to_owned());
        create_missing(core, Box::new(class)).await?;
    }
    Ok(())
}
