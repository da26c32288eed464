//! The DNS server of a node: answers for Services and their endpoints, and forwards everything
//! else.
//!
//! The binary (`main.rs`) parses flags, assigns the listening address to `lo` ([`address`]) and
//! serves. Modules:
//! - [`observe`]: watches Services and EndpointSlices, reduced to `model`, and publishes
//!   [`records::Records`] after each change: an immutable snapshot that queries read without
//!   locking.
//! - [`zone`]: answers a query from a snapshot (pure), following Kubernetes' DNS specification
//!   1.1.0.
//! - [`forward`]: forwards queries for other names to the servers of [`upstream`], within limits, and
//!   keeps the responses in [`cache`] for a while.
//! - [`clients`]: who may query.
//! - [`tcp`]: connections, of which each client has a share, as in the queries in flight.
//! - [`handler`]: handles a query from the socket to the response, including aliases that lead out
//!   of the zone.
//!
//! One server runs on each node, at the same address, so that a pod's queries never leave its node.
//! It must not know pods (their names derive from their addresses), nodes or the store.

pub mod address;
pub mod cache;
pub mod clients;
pub mod forward;
pub mod handler;
mod model;
pub mod observe;
pub mod records;
pub mod tcp;
pub mod upstream;
pub mod zone;
