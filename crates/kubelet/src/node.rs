//! The Node object: registered, kept alive by a Lease, and told how the node is.
//!
//! - [`facts`]: what the machine is, read once. [`status`] (pure): the status from what is known now.
//! - [`agent`]: registers the node, follows its object, opens the pod network when the node has an
//!   address range, and writes the status when it differs (and every five minutes).
//! - [`lease`]: the heartbeat. [`pressure`] (pure): shortages and whom to evict; [`evict`] does it, and for
//!   volumes over their limit ([`local_storage`]).

pub mod agent;
pub mod evict;
pub mod facts;
pub mod lease;
pub mod local_storage;
pub mod news;
pub mod pressure;
pub mod status;
