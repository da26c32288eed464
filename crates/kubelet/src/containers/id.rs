//! Container ids.

use sha2::{Digest, Sha256};

use super::ContainerId;

/// The id of a container: a hash of its identity, so that creating it twice gives the same id.
pub(super) fn container_id(pod_uid: &str, name: &str, attempt: u32) -> ContainerId {
    let digest = Sha256::digest(format!("{pod_uid}/{name}/{attempt}"));
    ContainerId(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}
