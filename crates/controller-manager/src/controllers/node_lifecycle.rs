//! Nodes that stop reporting, and the taints that follow from a node's conditions
//! (`k8s.io/kubernetes/pkg/controller/nodelifecycle`).
//!
//! A node's heartbeats are its Lease and its status ([`heartbeats`]). Before a node is marked
//! unknown, both are read from the server: the cache may lag. The state of its zone decides when
//! its pods may be evicted ([`zones`]).

pub mod events;
mod heartbeats;
mod plan;
#[cfg(test)]
mod tests;
mod zones;

use std::sync::Arc;
use std::time::Duration;

use client::events::EventRecorder;
use client::{Api, Client, PatchKind};
use clock::SharedClock;
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use parking_lot::Mutex;
use serde_json::json;

use crate::Error;
use crate::config::NodeMonitor;
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::error::During;
use crate::machinery::owner::is_deleting;
use crate::machinery::pod_state;
use crate::machinery::queue::{Controller, Next};
use crate::machinery::shared_informers::on_node;
use crate::machinery::status::{self, PodMark};
use crate::wire::Wiring;
use heartbeats::{Heartbeat, Heartbeats};
pub use plan::is_ready;
use plan::{Eviction, Observed, Plan, plan};
use zones::{Admission, Zones};

/// Namespace of the nodes' Leases.
const LEASES: &str = "kube-node-lease";

struct NodeLifecycle {
    client: Client,
    recorder: EventRecorder,
    clock: SharedClock,
    nodes: Arc<Cache<Node>>,
    leases: Arc<Cache<Lease>>,
    pods: Arc<Cache<Pod>>,
    heartbeats: Heartbeats,
    zones: Arc<Mutex<Zones>>,
    monitor: NodeMonitor,
}

/// Adds the controller; its keys are nodes.
pub fn start(wiring: &mut Wiring, monitor: NodeMonitor) {
    let zones = Arc::new(Mutex::new(Zones::new(monitor.limits)));
    let controller = NodeLifecycle {
        client: wiring.client.clone(),
        recorder: wiring.recorder.named("node-controller"),
        clock: wiring.clock.clone(),
        nodes: wiring.cache(),
        leases: wiring.cache(),
        pods: wiring.cache(),
        heartbeats: Heartbeats::default(),
        zones: zones.clone(),
        monitor,
    };
    let (all, nodes) = (wiring.cache::<Node>(), wiring.cache::<Node>());
    // The zones are counted before the node is looked at.
    let counted = move |change: &Change<Node>| {
        if !zones.lock().apply(change, clock::instant()) {
            return vec![change.key()];
        }
        // Every node that waits for its turn has another one now.
        [all.keys(|_| true), vec![change.key()]].concat()
    };
    // A pod that is reported ready on a node that is not.
    let unready = move |change: &Change<Pod>| {
        let pod = change.new.as_deref().filter(|pod| pod_state::is_ready(pod))?;
        let key = Key::cluster(api::pod::node_name(pod)?);
        nodes.get(&key).is_some_and(|node| !is_ready(&node)).then_some(key)
    };
    wiring
        .controller(controller)
        .maps(counted)
        .maps(|change: &Change<Lease>| {
            let key = change.key();
            (key.namespace == LEASES).then(|| Key::cluster(key.name))
        })
        .maps(unready)
        .start();
}

impl Controller for NodeLifecycle {
    const NAME: &'static str = "node-lifecycle";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(node) = self.nodes.get(key) else {
            if let Some(uid) = self.heartbeats.forget(&key.name) {
                events::removing(&self.recorder, &key.name, &uid);
            }
            return Ok(Next::Change);
        };
        let lease = self.leases.get(&Key::new(LEASES, &key.name));
        let heartbeat = Heartbeat::of(&node, lease.as_deref());
        let silence = self.heartbeats.observe(&node, heartbeat.clone(), clock::instant());
        if silence.is_new {
            events::registered(&self.recorder, &node);
        }
        let now = self.clock.now();
        let (plan, turn) = self.plan(&node, silence.lasts, now);
        if plan.mark_unknown && !self.mark_unknown(&node, &heartbeat, now).await? {
            return Ok(Next::After(self.grace(&node)));
        }
        if let Some(taints) = plan.taints {
            self.write_taints(&node, &taints).await?;
        }
        if plan.pods_not_ready {
            self.mark_pods_not_ready(&node, now).await?;
        }
        let next = plan.requeue_after.into_iter().chain(turn).min();
        Ok(next.into())
    }
}

impl NodeLifecycle {
    /// A node that has never reported may take longer: it starts.
    fn grace(&self, node: &Node) -> Duration {
        let reported = plan::condition(node, "Ready").is_some();
        if reported { self.monitor.grace_period } else { self.monitor.startup_grace_period }
    }

    /// The plan, and how long the node must wait for its turn to be evicted.
    fn plan(&self, node: &Node, silent_for: Duration, now: Timestamp) -> (Plan, Option<Duration>) {
        let with =
            |eviction| plan(&Observed { node, silent_for, grace: self.grace(node), eviction }, now);
        let mut zones = self.zones.lock();
        if zones.all_disrupted() {
            return (with(Eviction::Withdrawn), None);
        }
        let planned = with(Eviction::Allowed);
        if !planned.evicts {
            return (planned, None);
        }
        match zones.admit(node, clock::instant()) {
            Admission::Now => (planned, None),
            Admission::After(wait) => (with(Eviction::Held), Some(wait)),
            Admission::Halted => (with(Eviction::Held), None),
        }
    }

    /// Writes to the node as the server has it: the cached copy lacks parts of the status. Returns
    /// false if the server knows of a newer heartbeat, or no longer of the node.
    async fn mark_unknown(
        &self,
        seen: &Node,
        last: &Heartbeat,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let key = Key::of(seen);
        let nodes = Api::<Node>::all(&self.client);
        let live = nodes.get_opt(&key.name).await;
        let Some(live) = live.during(|| format!("get node {key}"))? else {
            return Ok(false);
        };
        let leases = Api::<Lease>::namespaced(&self.client, LEASES);
        let lease = leases.get_opt(&key.name).await;
        let lease = lease.during(|| format!("get the lease of node {key}"))?;
        let newest = Heartbeat::of(&live, lease.as_ref());
        if newest != *last || live.metadata.uid != seen.metadata.uid {
            self.heartbeats.observe(&live, newest, clock::instant());
            return Ok(false);
        }
        let was_ready = is_ready(&live);
        let live = status::update(&self.client, &live, |live| plan::set_unknown(live, now)).await?;
        tracing::warn!(node = %key, "the node stopped reporting");
        if was_ready {
            events::status_change(&self.recorder, &live, "NodeNotReady");
        }
        Ok(true)
    }

    async fn write_taints(&self, node: &Node, taints: &[Taint]) -> Result<(), Error> {
        let to_json = |taint: &Taint| {
            let mut json = json!({"key": taint.key, "effect": taint.effect});
            if let Some(value) = &taint.value {
                json["value"] = value.as_str().into();
            }
            if let Some(added) = &taint.time_added {
                json["timeAdded"] = added.0.to_string().into();
            }
            json
        };
        let key = Key::of(node);
        let patch = json!({
            "metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
            "spec": {"taints": taints.iter().map(to_json).collect::<Vec<_>>()},
        });
        Api::<Node>::all(&self.client)
            .patch(&key.name, PatchKind::Merge, &patch)
            .await
            .during(|| format!("taint node {key}"))?;
        Ok(())
    }

    /// Removes the node's pods from their services: whether they still respond is unknown.
    async fn mark_pods_not_ready(&self, node: &Node, now: Timestamp) -> Result<(), Error> {
        let name = Key::of(node).name;
        let pods = self.pods.indexed(&on_node(&name));
        let ready =
            pods.iter().filter(|pod| pod_state::is_ready(pod) && !is_deleting(&pod.metadata));
        let outcomes = join_all(ready.map(async |pod| {
            let mark = PodMark {
                condition: ("Ready", "False"),
                reason: "NodeNotReady",
                message: "Node is not ready",
                phase: None,
            };
            if status::mark(&self.client, pod, mark, now).await? {
                self.recorder.warning(&**pod, "NodeNotReady", "Node is not ready");
            }
            Ok(())
        }))
        .await;
        outcomes.into_iter().collect()
    }
}
