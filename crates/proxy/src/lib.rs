//! The network proxy of a node: directs connections to Services to their endpoints, and enforces
//! NetworkPolicies, using nftables.
//!
//! The binary (`main.rs`) parses flags and starts [`sync::run`]. Modules, in the order of data
//! flow:
//! - [`observe`]: watches Services, EndpointSlices, Nodes, NetworkPolicies and this node's Pods,
//!   reduced to [`model`].
//! - [`plan`]: the table elements of a single object (pure), the desired state of all together, and
//!   the changes.
//! - [`policy`]: the table elements of NetworkPolicies (pure and incremental), their watches, and the
//!   end of connections that are no longer allowed.
//! - [`table`]: the layout of the tables; `nft`: their encoding over netlink.
//! - [`apply`]: one transaction per round; [`conntrack`]: cleanup of stale flows after a change.
//! - [`routes`]: routes to the pods of other nodes, through a `tunnel` if they share no link;
//!   [`sysctl`]: kernel settings for forwarding.
//! - [`announce`]: announces the addresses of load balancers on the links of this node.
//! - `health_check`: reports to load balancers whether this node has endpoints.
//! - [`inspect`]: shows what the tables actually contain, for `skiff trace`.
//! - [`monitor`]: detects changes to the tables and routes by others, so that they are repaired
//!   immediately.
//!
//! It only uses its own tables (`ip skiff-proxy`, `ip6 skiff-proxy`) and leaves the rest of the
//! ruleset alone. It must not know the container runtime, nor how pods get their addresses; it knows
//! the names of their links, which tell packets of a pod from those of others before the pod has an
//! address.

pub mod announce;
pub mod apply;
pub mod conntrack;
mod health_check;
pub mod inspect;
pub mod model;
pub mod monitor;
mod nft;
pub mod observe;
pub mod plan;
pub mod policy;
pub mod routes;
pub mod sync;
pub mod sysctl;
pub mod table;
mod tunnel;

pub use nft::Family;
