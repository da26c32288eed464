//! The pod network: one routed veth pair per pod, set up over netlink.
//!
//! Entry point: [`PodNetwork`]. `open` prepares the node (forwarding, the unreachable route over
//! the node's own pod CIDR) and loads previous allocations; `setup` allocates a pod's addresses and
//! connects its network namespace; `teardown` undoes both. All three are idempotent: they only do
//! what is missing.
//!
//! What a pod sees: `eth0` with a /32 (or /128) address, a default route through a link-local
//! gateway that has a permanent neighbour entry, and `lo`. What the node sees: `veth<hash of the
//! pod's uid>` without an address, a host route to each pod address with the node's own address as
//! source, and a permanent neighbour entry. No bridge, no ARP, no address resolution on the path;
//! strict reverse path filtering keeps a pod from forging its source.
//!
//! Routes to other nodes, masquerading and host ports are up to the proxy, which keeps them in its
//! nftables tables (for host ports it watches the pods of its own node). This module must not know
//! the apiserver, pod specs or the container runtime: it is given a uid and a namespace.

mod ipam;
mod netns;
mod sysctl;
mod veth;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use ipam::Ipam;
use veth::Node;

/// The route protocol number that marks the node's routes to its own pods (`ip route show proto
/// 172`).
pub const ROUTE_PROTOCOL: u8 = 172;

/// The addresses of one pod, primary family first, as in `status.podIPs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodIps(pub Vec<IpAddr>);

/// Why a pod's network could not be set up or torn down.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("the node has no pod address range")]
    NoRange,
    #[error("the pod address range {0} is used up")]
    Exhausted(IpNet),
    #[error("{0:?} cannot be the uid of a pod")]
    BadUid(String),
    #[error("no interface of this node has the address {0}")]
    NoSuchAddress(IpAddr),
    #[error("{action} {path}")]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("read the allocation {path}")]
    Allocation {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("enter the network namespace {path}")]
    Namespace {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("open a netlink socket")]
    Socket(#[source] std::io::Error),
    #[error("{action} for pod {uid}")]
    Link {
        action: &'static str,
        uid: String,
        #[source]
        source: rtnetlink::Error,
    },
    #[error("{action} on the node")]
    Node {
        action: &'static str,
        #[source]
        source: rtnetlink::Error,
    },
}

/// The pod network of one node. Cheap calls, safe to use from many pod workers at once; the calls
/// for one pod must not overlap, which a pod worker guarantees.
pub struct PodNetwork {
    ipam: Ipam,
    node: Node,
}

impl PodNetwork {
    /// Prepares the node and loads the allocations below `state_dir` (for the kubelet:
    /// `<root-dir>/network`).
    ///
    /// `ranges` are the node's `spec.podCIDRs`, at most one per family; `node_ip` is the address
    /// that the node reaches its pods from; its interface also determines the pods' MTU.
    pub async fn open(
        ranges: &[IpNet],
        node_ip: IpAddr,
        state_dir: &Path,
    ) -> Result<Self, NetworkError> {
        if ranges.is_empty() {
            return Err(NetworkError::NoRange);
        }
        let ipam = Ipam::load(ranges, state_dir)?;
        sysctl::prepare_node(ranges)?;
        let node = Node::open(node_ip).await?;
        for range in ranges {
            node.refuse_unallocated(*range).await?;
        }
        Ok(Self { ipam, node })
    }

    /// Allocates the pod's addresses (the same ones on each call) and connects the namespace at
    /// `netns` (a bind mount or a `/proc/<pid>/ns/net` path). A namespace that is connected already
    /// is left unchanged.
    pub async fn setup(&self, pod_uid: &str, netns: &Path) -> Result<PodIps, NetworkError> {
        let ips = self.ipam.allocate(pod_uid)?;
        self.node.connect(pod_uid, &ips.0, netns).await?;
        Ok(ips)
    }

    /// Removes the pod's link and routes, then frees its addresses. It is not an error if the pod
    /// has none; the namespace may be gone already.
    pub async fn teardown(&self, pod_uid: &str) -> Result<(), NetworkError> {
        self.node.disconnect(pod_uid).await?;
        self.ipam.release(pod_uid)
    }

    /// The uids of all pods that hold addresses; those that no longer exist need a `teardown`.
    pub fn pods(&self) -> BTreeSet<String> {
        self.ipam.pods()
    }
}
