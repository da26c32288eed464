//! Assigns every node a range of pod addresses out of the cluster's
//! (`k8s.io/kubernetes/pkg/controller/nodeipam`).
//!
//! Reconciliations run one at a time, and a range stays allocated in the [`Pool`] until its node is
//! gone, so that a stale cache never causes a range to be assigned twice.

mod pool;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::events::EventRecorder;
use client::{Api, Client, PatchKind};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use serde_json::json;

use crate::Error;
use crate::config::NodeRange;
use crate::controllers::node_lifecycle::events;
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::error::During;
use crate::machinery::queue::{Controller, Next};
use crate::wire::Wiring;
use pool::Pool;

struct NodeIpam {
    client: Client,
    recorder: EventRecorder,
    nodes: Arc<Cache<Node>>,
    pool: Mutex<Option<Pool>>,
    ranges: Vec<NodeRange>,
}

/// Adds the controller; its keys are nodes.
pub fn start(wiring: &mut Wiring, ranges: Vec<NodeRange>) {
    let controller = NodeIpam {
        client: wiring.client.clone(),
        recorder: wiring.recorder.named("cidrAllocator"),
        nodes: wiring.cache(),
        pool: Mutex::new(None),
        ranges,
    };
    let needs =
        |change: &Change<Node>| change.new.as_ref().is_none_or(|node| pod_cidrs(node).is_empty());
    wiring.controller(controller).of_some(needs).start();
}

/// The ranges that a node has.
fn pod_cidrs(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else {
        return Vec::new();
    };
    let all = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
    let mut ranges: Vec<IpNet> = Vec::new();
    for range in all.filter_map(|text| text.parse().ok()) {
        if !ranges.contains(&range) {
            ranges.push(range);
        }
    }
    ranges
}

impl NodeIpam {
    /// The ranges to write to the node at `key`; `Err` when none is left.
    fn plan(&self, key: &Key, node: Option<&Node>) -> Result<Option<Vec<IpNet>>, Error> {
        let mut pool = self.pool.lock();
        let pool = pool.get_or_insert_with(|| {
            let mut pool = Pool::new(self.ranges.clone());
            for node in self.nodes.list() {
                pool.occupy(&Key::of(&*node).name, &pod_cidrs(&node));
            }
            pool
        });
        let Some(node) = node else {
            pool.release(&key.name);
            return Ok(None);
        };
        let present = pod_cidrs(node);
        if !present.is_empty() {
            pool.occupy(&key.name, &present);
            return Ok(None);
        }
        pool.allocate(&key.name)
            .map(Some)
            .ok_or_else(|| Error::Invalid(format!("no pod range is left for node {key}")))
    }
}

impl Controller for NodeIpam {
    const NAME: &'static str = "nodeipam";
    const CONCURRENCY: usize = 1;

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let node = self.nodes.get(key);
        let planned = match self.plan(key, node.as_deref()) {
            Ok(planned) => planned,
            Err(error) => {
                if let Some(node) = &node {
                    events::status_warning(&self.recorder, node, "CIDRNotAvailable");
                }
                return Err(error);
            }
        };
        let Some((node, ranges)) = node.zip(planned) else {
            return Ok(Next::Change);
        };
        let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
        let patch = json!({
            "metadata": {"uid": node.metadata.uid},
            "spec": {"podCIDR": ranges.first(), "podCIDRs": ranges},
        });
        let nodes = Api::<Node>::all(&self.client);
        let patched = nodes.patch(&key.name, PatchKind::Merge, &patch).await;
        let assigned = patched.during(|| format!("assign node {key} the ranges {ranges:?}"));
        if let Err(error) = &assigned
            && !error.is_race()
        {
            events::status_warning(&self.recorder, &node, "CIDRAssignmentFailed");
        }
        assigned?;
        tracing::info!(node = %key, ?ranges, "assigned pod ranges");
        Ok(Next::Change)
    }
}
