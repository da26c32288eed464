//! The controllers, one module each, under Kubernetes' names.
//!
//! A controller observes (reads the caches), plans (a pure function of what was observed) and
//! applies (writes, with uid and revision as preconditions). Its `start` declares what triggers
//! it to [`wire`](crate::wire). A controller whose file grows beyond about 250 lines gets
//! a folder, with `plan.rs` and `tests.rs` in it.
//!
//! What two controllers need belongs in [`machinery`](crate::machinery).

pub mod bootstrap;
pub mod certificates;
pub mod clusterrole_aggregation;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod endpointslice;
pub mod endpointslice_mirroring;
pub mod ephemeral_volume;
pub mod garbage_collector;
pub mod horizontal_pod_autoscaler;
pub mod job;
pub mod local_path;
pub mod namespace;
pub mod node_lifecycle;
pub mod nodeipam;
pub mod persistent_volume;
pub mod pod_gc;
pub mod replicaset;
pub mod resource_claim;
pub mod resource_quota;
pub mod root_ca;
pub mod service_account;
pub mod service_cidr;
pub mod service_load_balancer;
pub mod statefulset;
pub mod storage_protection;
pub mod storage_version_migrator;
pub mod taint_eviction;
pub mod trust_bundle;
pub mod ttl_after_finished;
pub mod validating_admission_policy_status;
pub mod volume_expand;
