//! The Node object: registered, kept alive by a Lease, with a current status.
//!
//! - [`machine_info`]: what the machine is, read once. [`status`] (pure): the node's status.
//! - [`agent`]: registers the node, follows its object, opens the pod network once the node has a
//!   pod CIDR, and writes the status when it differs (and every five minutes).
//! - [`lease`]: the heartbeat. [`events`] (pure): what changed conditions are reported as.
//! - [`pressure`] (pure): shortages, and which pod to evict; [`eviction_manager`] evicts it, and
//!   pods that exceed their limits of [`local_storage`].

pub mod agent;
pub mod events;
pub mod eviction_manager;
pub mod lease;
pub mod local_storage;
pub mod machine_info;
pub mod pressure;
pub mod status;
