//! Deletes pods that nothing else will: terminated ones beyond a threshold, those of nodes that no
//! longer exist, and those that were deleted before they were scheduled
//! (`k8s.io/kubernetes/pkg/controller/podgc`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Api, Client, DeleteOptions};
use clock::SharedClock;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::Error;
use crate::controllers::node_lifecycle::is_ready;
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::error::{During, Unless};
use crate::machinery::index::{By, on_node};
use crate::machinery::owner::is_deleting;
use crate::machinery::queue::{Controller, Next};
use crate::machinery::status::{self, PodMark};
use crate::wire::Wiring;

const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// How long a node must be missing before its pods are considered lost.
const QUARANTINE: Duration = Duration::from_secs(40);

struct PodGc {
    client: Client,
    clock: SharedClock,
    nodes: Arc<Cache<Node>>,
    pods: Arc<Cache<Pod>>,
    /// Since when nodes of pods are missing, by the monotonic clock.
    missing: Mutex<HashMap<String, Instant>>,
    threshold: usize,
}

/// Adds the controller. Its keys are node names, and the empty name for all unscheduled and all
/// terminated pods. `threshold`: how many terminated pods are kept; 0: all.
pub fn start(wiring: &mut Wiring, threshold: usize) {
    let controller = PodGc {
        client: wiring.client.clone(),
        clock: wiring.clock.clone(),
        nodes: wiring.cache(),
        pods: wiring.cache(),
        missing: Mutex::default(),
        threshold,
    };
    let nodes = wiring.cache::<Node>();
    let of_pod = move |change: &Change<Pod>| {
        let pod = change.new.as_deref()?;
        match api::pod::node_name(pod) {
            _ if api::pod::is_terminal(pod) => Some(Key::cluster("")),
            None => is_deleting(&pod.metadata).then(|| Key::cluster("")),
            Some(name) => {
                let key = Key::cluster(name);
                nodes.get(&key).is_none_or(|node| is_out_of_service(&node)).then_some(key)
            }
        }
    };
    let lost = |change: &Change<Node>| change.new.as_deref().is_none_or(is_out_of_service);
    wiring.controller(controller).of_some(lost).maps(of_pod).start();
}

fn is_out_of_service(node: &Node) -> bool {
    let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.any(|taint| taint.key == OUT_OF_SERVICE) && !is_ready(node)
}

/// A pod to delete without a grace period.
#[derive(Debug, PartialEq)]
struct Removal {
    pod: Arc<Pod>,
    /// Message of the condition DisruptionTarget; `None`: the pod had terminated already.
    disrupted: Option<String>,
}

/// Terminated pods beyond the threshold, oldest first, and deleted pods that were never scheduled.
fn plan_terminated(pods: &[Arc<Pod>], threshold: usize) -> Vec<Removal> {
    let mut terminated: Vec<&Arc<Pod>> =
        pods.iter().filter(|pod| api::pod::is_terminal(pod)).collect();
    terminated.retain(|pod| !is_deleting(&pod.metadata));
    let surplus = if threshold == 0 { 0 } else { terminated.len().saturating_sub(threshold) };
    terminated.sort_by_key(|pod| {
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created, pod.metadata.name.clone())
    });
    let unscheduled =
        pods.iter().filter(|pod| is_deleting(&pod.metadata) && api::pod::node_name(pod).is_none());
    terminated
        .into_iter()
        .take(surplus)
        .chain(unscheduled)
        .map(|pod| Removal { pod: pod.clone(), disrupted: None })
        .collect()
}

/// The pods of a node that no longer exists or is out of service.
fn plan_node(node: Option<&Node>, pods: &[Arc<Pod>]) -> Vec<Removal> {
    let removal = |pod: &Arc<Pod>, message: &str| Removal {
        pod: pod.clone(),
        disrupted: (!api::pod::is_terminal(pod)).then(|| message.to_owned()),
    };
    match node {
        None => pods.iter().map(|pod| removal(pod, "PodGC: node no longer exists")).collect(),
        Some(node) if is_out_of_service(node) => pods
            .iter()
            .filter(|pod| is_deleting(&pod.metadata))
            .map(|pod| removal(pod, "PodGC: node is out of service"))
            .collect(),
        Some(_) => Vec::new(),
    }
}

impl Controller for PodGc {
    const NAME: &'static str = "pod-garbage-collector";
    const CONCURRENCY: usize = 4;

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let removals = if key.name.is_empty() {
            plan_terminated(&self.pods.indexed(&By::Ended), self.threshold)
        } else {
            let pods = self.pods.indexed(&on_node(&key.name));
            let node = self.nodes.get(key);
            if node.is_some() || pods.is_empty() {
                self.missing.lock().remove(&key.name);
            } else if let Some(wait) = self.quarantine(key).await? {
                return Ok(Next::After(wait));
            }
            plan_node(node.as_deref(), &pods)
        };
        if !removals.is_empty() {
            tracing::info!(node = key.name, count = removals.len(), "deleting lost pods");
        }
        try_join_all(removals.iter().map(|removal| self.remove(removal))).await?;
        Ok(Next::Change)
    }
}

impl PodGc {
    /// How much longer to wait for the missing node. In the end it is looked up on the server.
    async fn quarantine(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let now = clock::instant();
        let since = *self.missing.lock().entry(key.name.clone()).or_insert(now);
        let waited = now.duration_since(since);
        if waited < QUARANTINE {
            return Ok(Some(QUARANTINE - waited));
        }
        self.missing.lock().remove(&key.name);
        let live = Api::<Node>::all(&self.client).get_opt(&key.name).await;
        let live = live.during(|| format!("get node {key}"))?;
        Ok(live.map(|_| QUARANTINE))
    }

    async fn remove(&self, removal: &Removal) -> Result<(), Error> {
        let pod = &removal.pod;
        let key = Key::of(&**pod);
        let pods = Api::<Pod>::namespaced(&self.client, &key.namespace);
        if let Some(message) = &removal.disrupted {
            let mark = PodMark {
                condition: ("DisruptionTarget", "True"),
                reason: "DeletionByPodGC",
                message,
                phase: Some("Failed"),
            };
            if !status::mark(&self.client, pod, mark, self.clock.now()).await? {
                return Ok(());
            }
        }
        let options = DeleteOptions { grace_period_seconds: Some(0), ..Default::default() };
        let deleted = pods.delete_exactly(pod, &options).await.unless_gone();
        deleted.map(drop).during(|| format!("delete pod {key}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinery::testing::pod;
    use k8s_openapi::api::core::v1::Taint;

    fn names(removals: &[Removal]) -> Vec<&str> {
        let names = removals.iter();
        names.map(|removal| removal.pod.metadata.name.as_deref().unwrap()).collect()
    }

    #[test]
    fn the_oldest_terminated_pods_are_deleted_first() {
        let pods: Vec<Arc<Pod>> = [
            pod("new").phase("Succeeded").created(30).build(),
            pod("old").phase("Failed").created(10).build(),
            pod("middle").phase("Succeeded").created(20).build(),
            pod("running").running().build(),
            pod("unscheduled").deleting().build(),
            pod("scheduled").on("n").deleting().build(),
        ]
        .map(Arc::new)
        .into();
        assert_eq!(names(&plan_terminated(&pods, 2)), ["old", "unscheduled"]);
        assert_eq!(names(&plan_terminated(&pods, 0)), ["unscheduled"]);
    }

    #[test]
    fn pods_of_lost_nodes_are_deleted() {
        let pods: Vec<Arc<Pod>> = [
            pod("a").on("n").running().build(),
            pod("b").on("n").phase("Succeeded").build(),
            pod("c").on("n").running().deleting().build(),
        ]
        .map(Arc::new)
        .into();
        let gone = plan_node(None, &pods);
        assert_eq!(names(&gone), ["a", "b", "c"]);
        assert!(gone[0].disrupted.is_some() && gone[1].disrupted.is_none());
        let mut node = Node::default();
        assert!(plan_node(Some(&node), &pods).is_empty());
        node.spec.get_or_insert_default().taints = Some(vec![Taint {
            key: OUT_OF_SERVICE.into(),
            effect: "NoExecute".into(),
            ..Default::default()
        }]);
        assert_eq!(names(&plan_node(Some(&node), &pods)), ["c"]);
    }
}
