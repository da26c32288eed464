//! Pods: a worker per pod that observes, plans and applies.
//!
//! - [`manager`] gives each pod bound to the node a [`worker`] and wakes it.
//! - The worker gathers an [`observed::Observed`], asks [`plan`] what to do and [`status`] what to
//!   report, and runs the actions ([`apply`]); their outcomes go to its [`memory`] and wake it again.
//! - Pure parts: [`plan`], [`status`], [`admission`], [`qos`], [`environment`], [`expansion`], [`hosts`].
//!
//! Nothing here polls: a worker sleeps until the pod changes, containerd reports an event, a probe
//! changes its mind, an action ends, or a time named by the plan has come.

pub mod admission;
pub mod apply;
pub mod backoff;
pub mod container_config;
pub mod containers;
pub mod context;
pub mod environment;
pub mod expansion;
pub mod field;
pub mod files;
pub mod hosts;
pub mod lifecycle;
pub mod manager;
pub mod memory;
pub mod notes;
pub mod object;
pub mod observed;
pub mod plan;
pub mod qos;
pub mod registry;
pub mod report;
pub mod resources;
pub mod security;
pub mod status;
pub mod worker;
