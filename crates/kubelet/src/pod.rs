//! Pods: a worker per pod that observes, plans and applies.
//!
//! - [`workers`] gives each pod bound to the node a [`worker`] and notifies it; [`manager`] is the
//!   list of the node's pods; [`static_pods`] come from files.
//! - A worker gathers an [`observed::Observed`], asks [`plan`] what to do and [`status`] what to
//!   report, and runs the actions ([`apply`]). Their outcomes go to its [`worker::state`] and wake
//!   it again.
//! - [`container_config`]: from a container's spec to what the container layer takes; [`hooks`]:
//!   postStart and preStop; [`files`]: `/etc/hosts` and others.
//! - Pure parts: [`plan`], [`status`], [`admission`], [`qos`], [`resources`], [`downward_api`],
//!   [`hosts`].
//!
//! Nothing here polls: a worker sleeps until the pod changes, containerd reports an event, the
//! result of a probe changes, an action ends, or a time named by the plan has come.

pub mod admission;
pub mod apply;
pub mod backoff;
pub mod container_config;
pub mod context;
pub mod declared;
pub mod downward_api;
pub mod files;
pub mod hooks;
pub mod hosts;
pub mod manager;
pub mod observed;
pub mod plan;
pub mod pod_ext;
pub mod qos;
pub mod resources;
pub mod static_pods;
pub mod status;
pub mod worker;
pub mod workers;
