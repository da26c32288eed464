//! The controllers: each brings a part of the cluster nearer to what its objects say.
//!
//! - [`wire::run`] starts them all; `main` calls it while it holds the Lease.
//! - [`informers`]: one shared informer and [`cache`] per kind; a controller subscribes with a
//!   function from a change to keys.
//! - [`queue`]: the loop that every controller runs in. Keys, never events, reach a controller.
//! - [`owner`], [`expectations`]: adoption by owner reference, and what a controller has written but
//!   not seen yet.
//! - Every other module is one controller, under Kubernetes' name for it: observe (read the caches), plan
//!   (a pure function of what was observed), apply (write, with uid and revision as preconditions).
//!
//! A plan must not know caches, clients or clocks. Nothing here may act without the Lease, keep state
//! that a restart could lose, or wait by sleeping where a change would come.

pub mod amount;
pub mod cache;
pub mod clusterrole_aggregation;
pub mod config;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod endpointslice;
pub mod endpointslice_mirroring;
mod ephemeral_volume;
mod error;
pub mod expectations;
pub mod garbage_collector;
pub mod hash;
pub mod informer;
pub mod informers;
pub mod job;
pub mod namespace;
pub mod node_lifecycle;
pub mod node_match;
pub mod nodeipam;
pub mod owner;
pub mod persistent_volume;
pub mod pod_control;
pub mod pod_gc;
pub mod pods;
pub mod queue;
pub mod replicaset;
pub mod resource_quota;
pub mod revisions;
pub mod root_ca;
pub mod service_account;
pub mod statefulset;
pub mod storage_protection;
pub mod taint_eviction;
#[cfg(test)]
mod testing;
pub mod ttl_after_finished;
pub mod wire;

pub use error::Error;
