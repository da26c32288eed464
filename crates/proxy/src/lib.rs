//! The service proxy of a node: it makes connections to Services reach their endpoints, by
//! nftables.
//!
//! The binary (`main.rs`) reads flags and starts [`sync::run`]. Parts, in the order of the data:
//! - [`observe`]: watches Services, EndpointSlices, Nodes and this node's Pods, reduced to [`model`].
//! - [`plan`]: what one of them wants in the table (pure), what all together want, and what changes.
//! - [`table`]: what the table looks like, [`nft`]: how it is written and read over netlink.
//! - [`apply`]: one transaction per round; [`conntrack`]: what must not outlive a change.
//! - [`routes`]: routes to the pods of other nodes, by [`tunnel`] if they share no link. [`sysctl`]: what forwarding needs.
//! - [`health_check`]: tells load balancers whether this node has endpoints.
//! - [`monitor`]: what others do to tables and routes, so that it is repaired at once.
//!
//! Tables of its own only (`ip skiff-proxy`, `ip6 skiff-proxy`): whatever else is in the ruleset is
//! not touched. It must not know the container runtime, nor how pods get their addresses.

pub mod apply;
pub mod conntrack;
mod health_check;
pub mod model;
pub mod monitor;
mod nft;
pub mod observe;
pub mod plan;
pub mod routes;
pub mod sync;
pub mod sysctl;
pub mod table;
mod tunnel;

pub use nft::Family;
