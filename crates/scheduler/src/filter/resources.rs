//! NodeResourcesFit: the requested resources are free.

use roaring::RoaringBitmap;

use super::{Code, Filtered};
use crate::plugin::Plugin;
use crate::pod::PodInfo;
use crate::prepare::Prepared;
use crate::profile::Profile;
use crate::snapshot::{Column, NodeIndex, Snapshot};

/// How many nodes to look for, and where to begin, so that pods are spread over all nodes though
/// not all are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    pub from: NodeIndex,
    pub enough: u64,
    /// Set by the search: how many nodes were looked at.
    pub examined: u64,
    /// Set by the search: where the next one should begin.
    pub next: NodeIndex,
}

struct Request<'a> {
    name: &'a str,
    amount: i64,
    /// `None`: no node and no pod has ever had the resource.
    column: Option<&'a Column>,
}

impl Request<'_> {
    fn fits(&self, node: NodeIndex) -> bool {
        let slot = node as usize;
        self.column.is_some_and(|column| {
            column.requested[slot].saturating_add(self.amount) <= column.allocatable[slot]
        })
    }

    /// Whether the node would not be large enough without any pod.
    fn exceeds(&self, node: NodeIndex) -> bool {
        self.name != "pods"
            && self.column.is_none_or(|column| self.amount > column.allocatable[node as usize])
    }
}

fn requests<'a>(snapshot: &'a Snapshot, pod: &'a PodInfo, profile: &Profile) -> Vec<Request<'a>> {
    pod.requests
        .iter()
        .filter(|(name, _)| !profile.ignores(name))
        .map(|(name, amount)| Request { name, amount: *amount, column: snapshot.resource(name) })
        .collect()
}

/// A node may lack several resources, and then has several reasons.
pub fn filter(
    snapshot: &Snapshot,
    prepared: &Prepared,
    filtered: &mut Filtered,
    search: Option<&mut Search>,
) {
    let requests = requests(snapshot, &prepared.pod, &prepared.profile);
    let fits = |node: NodeIndex| requests.iter().all(|request| request.fits(node));
    let lacking: Vec<NodeIndex> = match search {
        None => filtered.nodes.iter().filter(|node| !fits(*node)).collect(),
        Some(search) => {
            let (mut found, mut lacking) = (Vec::new(), Vec::new());
            search.examined = 0;
            search.next = search.from;
            // Only the part that is needed is looked at: in a large cluster, enough is found soon.
            let nodes = &filtered.nodes;
            for node in nodes.range(search.from..).chain(nodes.range(..search.from)) {
                if found.len() as u64 >= search.enough {
                    search.next = node;
                    break;
                }
                search.examined += 1;
                if fits(node) { found.push(node) } else { lacking.push(node) }
            }
            found.sort_unstable();
            filtered.nodes = found.into_iter().collect();
            lacking.sort_unstable();
            lacking
        }
    };
    reject(&requests, &lacking, filtered);
}

fn reject(requests: &[Request], lacking: &[NodeIndex], filtered: &mut Filtered) {
    if lacking.is_empty() {
        return;
    }
    if filtered.quiet {
        filtered.nodes -= lacking.iter().copied().collect::<RoaringBitmap>();
        return;
    }
    let (too_small, full): (Vec<NodeIndex>, Vec<NodeIndex>) = lacking.iter().partition(|node| {
        requests.iter().any(|request| !request.fits(**node) && request.exceeds(**node))
    });
    for (nodes, code) in [(too_small, Code::Unresolvable), (full, Code::Unschedulable)] {
        for request in requests {
            let short: RoaringBitmap =
                nodes.iter().copied().filter(|node| !request.fits(*node)).collect();
            let reason = match request.name {
                "pods" => "Too many pods".to_owned(),
                name => format!("Insufficient {name}"),
            };
            filtered.record(short, Plugin::NodeResourcesFit, &reason, code);
        }
    }
    filtered.nodes -= lacking.iter().copied().collect::<RoaringBitmap>();
}

/// Whether a node without any pod would have the resources.
pub fn fits_empty_node(
    snapshot: &Snapshot,
    pod: &PodInfo,
    profile: &Profile,
    node: NodeIndex,
) -> bool {
    let requests = requests(snapshot, pod, profile);
    requests.iter().all(|request| {
        request.column.is_some_and(|column| request.amount <= column.allocatable[node as usize])
    })
}
