//! The DNS server of a node: names of Services and their endpoints, and everything else by
//! forwarding.
//!
//! The binary (`main.rs`) reads flags, adds the listening address to `lo` ([`address`]) and serves.
//! Parts:
//! - [`observe`]: watches Services and EndpointSlices, reduced to [`model`], and publishes a [`records::Records`]
//!   after each change: an immutable snapshot that queries read without a lock.
//! - [`zone`]: the answer to a question from a snapshot (pure), by Kubernetes' DNS specification 1.1.0.
//! - [`forward`]: questions about other names, to the servers of [`upstream`].
//! - [`handler`]: one query from the socket to the response, including aliases that lead out of the zone.
//!
//! One runs on each node, at the same address: a pod's question never leaves its node. It must not
//! know pods (names of pods are made from their addresses), nodes or the store.

pub mod address;
pub mod forward;
pub mod handler;
mod model;
pub mod observe;
pub mod records;
pub mod upstream;
pub mod zone;
