//! What the end-to-end suites share: a real cluster of their own, and a harness that runs
//! scenarios on it.
//!
//! [`Cluster::start`] is `skiff up` with a name, a folder and address ranges that no other test
//! has, so that suites can run at the same time, and alongside a cluster of the user's. Dropping
//! it is `skiff down`. [`suite::run`] starts one cluster for a list of scenarios, each with a
//! namespace of its own and a time limit, and always removes it, even when interrupted. What a
//! killed suite leaves behind is removed by the next one.
//!
//! [`hollow`]: nodes without containers, for tests that need many or need no root. [`webhook`]: a
//! webhook's server. [`extension`]: one that an APIService names; [`wardle`]: what upstream's sample
//! of one does. [`reasons`]: the check of a component's table of Events.
//!
//! Entry points: [`Cluster`], [`suite::run`]. It must not know any component's internals: it
//! sees what a user sees, through programs, the API, and the nodes' network namespaces.

pub mod children;
pub mod cluster;
pub mod extension;
pub mod hollow;
pub mod manifest;
pub mod reasons;
pub mod registry;
pub mod suite;
pub mod tools;
pub mod wait;
pub mod wardle;
pub mod webhook;

pub use cluster::{Cluster, Options, Store};
