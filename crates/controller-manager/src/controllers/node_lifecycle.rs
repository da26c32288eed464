//! Nodes that stop reporting, and the taints that follow from a node's conditions
//! (`k8s.io/kubernetes/pkg/controller/nodelifecycle`).
//!
//! A node's heartbeats are its Lease and its status. Their age is measured by the controller's own
//! clock from when they were observed, so that clocks need not agree. After a restart every node
//! gets the full grace period.

mod plan;

use std::collections::HashMap;
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
use crate::machinery::cache::{Cache, Key};
use crate::machinery::error::During;
use crate::machinery::owner::is_deleting;
use crate::machinery::pod_state;
use crate::machinery::queue::{Controller, Next, queue};
use crate::machinery::shared_informers::on_node;
use crate::wire::Wiring;
pub use plan::is_ready;
use plan::{Heartbeat, Observed, plan};

/// Namespace of the nodes' Leases.
const LEASES: &str = "kube-node-lease";

struct NodeLifecycle {
    client: Client,
    recorder: EventRecorder,
    clock: SharedClock,
    nodes: Arc<Cache<Node>>,
    leases: Arc<Cache<Lease>>,
    pods: Arc<Cache<Pod>>,
    heartbeats: Mutex<HashMap<String, (Heartbeat, Timestamp)>>,
    grace: Duration,
}

/// Adds the controller; its keys are nodes.
pub fn start(wiring: &mut Wiring, grace: Duration) {
    let (trigger, requests) = queue();
    let informers = &wiring.informers;
    // Whether any node is ready affects the plan of every other node.
    let nodes = informers.nodes.cache();
    informers.nodes.subscribe(&trigger, move |change| {
        let ready = |side: &Option<Arc<Node>>| side.as_deref().is_some_and(is_ready);
        if ready(&change.old) == ready(&change.new) {
            return vec![Key::of(&**change.last())];
        }
        let mut all: Vec<Key> = nodes.list().iter().map(|node| Key::of(&**node)).collect();
        all.push(Key::of(&**change.last()));
        all
    });
    informers.leases.subscribe(&trigger, |change| {
        let key = Key::of(&**change.last());
        (key.namespace == LEASES).then(|| Key::cluster(key.name)).into_iter().collect()
    });
    // A pod that is reported ready on a node that is not.
    let nodes = informers.nodes.cache();
    informers.pods.subscribe(&trigger, move |change| {
        let ready = change.new.as_deref().filter(|pod| pod_state::is_ready(pod));
        ready
            .and_then(api::pod::node_name)
            .map(Key::cluster)
            .filter(|key| nodes.get(key).is_some_and(|node| !is_ready(&node)))
            .into_iter()
            .collect()
    });
    let controller = NodeLifecycle {
        client: wiring.client.clone(),
        recorder: wiring.recorder.named("node-controller"),
        clock: wiring.clock.clone(),
        nodes: informers.nodes.cache(),
        leases: informers.leases.cache(),
        pods: informers.pods.cache(),
        heartbeats: Mutex::default(),
        grace,
    };
    wiring.run(controller, requests);
}

impl Controller for NodeLifecycle {
    const NAME: &'static str = "node-lifecycle";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let now = self.clock.now();
        let Some(node) = self.nodes.get(key) else {
            self.heartbeats.lock().remove(&key.name);
            return Ok(Next::Change);
        };
        let lease = self.leases.get(&Key::new(LEASES, &key.name));
        let observed = Observed {
            node: &node,
            silent_for: self.silence(key, Heartbeat::of(&node, lease.as_deref()), now),
            grace: self.grace,
            any_ready: is_ready(&node) || self.nodes.list().iter().any(|node| is_ready(node)),
        };
        let plan = plan(&observed, now);
        if plan.mark_unknown {
            self.mark_unknown(key, now).await?;
        }
        if let Some(taints) = plan.taints {
            self.write_taints(&node, &taints).await?;
        }
        if plan.pods_not_ready {
            self.mark_pods_not_ready(&node, now).await?;
        }
        Ok(plan.requeue_after.map_or(Next::Change, Next::After))
    }
}

impl NodeLifecycle {
    /// How long ago the last new heartbeat was observed.
    fn silence(&self, key: &Key, heartbeat: Heartbeat, now: Timestamp) -> Duration {
        let mut heartbeats = self.heartbeats.lock();
        let last = heartbeats.entry(key.name.clone()).or_insert_with(|| (heartbeat.clone(), now));
        if last.0 != heartbeat {
            *last = (heartbeat, now);
        }
        Duration::try_from(now.duration_since(last.1)).unwrap_or(Duration::ZERO)
    }

    /// Writes to the node as the server has it: the cached copy lacks parts of the status.
    async fn mark_unknown(&self, key: &Key, now: Timestamp) -> Result<(), Error> {
        let nodes = Api::<Node>::all(&self.client);
        let live = nodes.get_opt(&key.name).await;
        let Some(mut live) = live.during(|| format!("get node {key}"))? else {
            return Ok(());
        };
        let was_ready = is_ready(&live);
        plan::set_unknown(&mut live, now);
        nodes.replace_status(&live).await.during(|| format!("mark node {key} unknown"))?;
        tracing::warn!(node = %key, "the node stopped reporting");
        if was_ready {
            let message = format!("Node {key} status is now: NodeNotReady");
            self.recorder.normal(&live, "NodeNotReady", message);
        }
        Ok(())
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
            let key = Key::of(&**pod);
            let patch = json!({
                "metadata": {"uid": pod.metadata.uid},
                "status": {"conditions": [{
                    "type": "Ready",
                    "status": "False",
                    "reason": "NodeNotReady",
                    "message": "Node is not ready",
                    "lastTransitionTime": now.to_string(),
                }]},
            });
            let pods = Api::<Pod>::namespaced(&self.client, &key.namespace);
            let patched = pods.patch_status(&key.name, PatchKind::Strategic, &patch).await;
            match patched {
                Err(error) if error.is_not_found() => Ok(()),
                outcome => {
                    outcome.during(|| format!("mark pod {key} not ready"))?;
                    self.recorder.warning(&**pod, "NodeNotReady", "Node is not ready");
                    Ok(())
                }
            }
        }))
        .await;
        outcomes.into_iter().collect()
    }
}
