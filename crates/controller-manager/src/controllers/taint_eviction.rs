//! Deletes pods from nodes whose NoExecute taints they do not tolerate, or no longer
//! (`k8s.io/kubernetes/pkg/controller/tainteviction`).

use std::sync::Arc;
use std::time::Duration;

use client::events::EventRecorder;
use client::{Api, Client, DeleteOptions, PatchKind};
use clock::SharedClock;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use serde_json::json;

use crate::Error;
use crate::machinery::cache::{Cache, Key};
use crate::machinery::error::During;
use crate::machinery::node_match::tolerates;
use crate::machinery::owner::is_deleting;
use crate::machinery::queue::{Controller, Next, queue};
use crate::machinery::shared_informers::on_node;
use crate::wire::Wiring;

const NO_EXECUTE: &str = "NoExecute";

struct TaintEviction {
    client: Client,
    recorder: EventRecorder,
    clock: SharedClock,
    nodes: Arc<Cache<Node>>,
    pods: Arc<Cache<Pod>>,
}

/// Adds the controller; its keys are pods.
pub fn start(wiring: &mut Wiring) {
    let (trigger, requests) = queue();
    let informers = &wiring.informers;
    let nodes = informers.nodes.cache();
    informers.pods.subscribe(&trigger, move |change| {
        let pod = change.new.as_deref();
        let node = pod.and_then(api::pod::node_name);
        let node = node.and_then(|name| nodes.get(&Key::cluster(name)));
        node.filter(|node| no_execute(node).next().is_some())
            .and(pod.map(Key::of))
            .into_iter()
            .collect()
    });
    let pods = informers.pods.cache();
    informers.nodes.subscribe(&trigger, move |change| {
        let taints = |node: Option<&Arc<Node>>| {
            node.map(|node| no_execute(node).cloned().collect::<Vec<_>>()).unwrap_or_default()
        };
        let now = taints(change.new.as_ref());
        if now.is_empty() || now == taints(change.old.as_ref()) {
            return Vec::new();
        }
        let pods = pods.indexed(&on_node(&Key::of(&**change.last()).name));
        pods.iter().map(|pod| Key::of(&**pod)).collect()
    });
    let controller = TaintEviction {
        client: wiring.client.clone(),
        recorder: wiring.recorder.named("taint-eviction-controller"),
        clock: wiring.clock.clone(),
        nodes: informers.nodes.cache(),
        pods: informers.pods.cache(),
    };
    wiring.run(controller, requests);
}

fn no_execute(node: &Node) -> impl Iterator<Item = &Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == NO_EXECUTE)
}

/// When the pod is evicted from a node with these taints. `None`: never.
fn evict_at(taints: &[&Taint], tolerations: &[Toleration], now: Timestamp) -> Option<Timestamp> {
    let mut earliest: Option<Timestamp> = None;
    for taint in taints {
        let matching = tolerations.iter().filter(|toleration| tolerates(toleration, taint));
        let bounds: Vec<Option<i64>> = matching.map(|one| one.toleration_seconds).collect();
        if bounds.is_empty() {
            return Some(now);
        }
        // Of several tolerations of one taint the shortest counts.
        if let Some(seconds) = bounds.into_iter().flatten().min() {
            let since = taint.time_added.as_ref().map_or(now, |time| time.0);
            let until = since
                .checked_add(SignedDuration::from_secs(seconds.max(0)))
                .unwrap_or(Timestamp::MAX);
            earliest = Some(earliest.map_or(until, |earliest| earliest.min(until)));
        }
    }
    earliest
}

#[derive(Debug, PartialEq)]
enum Plan {
    Stay,
    Wait(Duration),
    Evict,
}

fn plan(pod: &Pod, node: &Node, now: Timestamp) -> Plan {
    if is_deleting(&pod.metadata) || api::pod::is_terminal(pod) {
        return Plan::Stay;
    }
    let taints: Vec<&Taint> = no_execute(node).collect();
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref());
    match evict_at(&taints, tolerations.unwrap_or_default(), now) {
        None => Plan::Stay,
        Some(at) if at <= now => Plan::Evict,
        Some(at) => Plan::Wait(Duration::try_from(at.duration_since(now)).unwrap_or_default()),
    }
}

impl Controller for TaintEviction {
    const NAME: &'static str = "taint-eviction";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(pod) = self.pods.get(key) else {
            return Ok(Next::Change);
        };
        let node = api::pod::node_name(&pod).and_then(|name| self.nodes.get(&Key::cluster(name)));
        let Some(node) = node else {
            return Ok(Next::Change);
        };
        match plan(&pod, &node, self.clock.now()) {
            Plan::Stay => Ok(Next::Change),
            Plan::Wait(wait) => Ok(Next::After(wait)),
            Plan::Evict => {
                self.evict(key, &pod).await?;
                Ok(Next::Change)
            }
        }
    }
}

impl TaintEviction {
    async fn evict(&self, key: &Key, pod: &Pod) -> Result<(), Error> {
        let pods = Api::<Pod>::namespaced(&self.client, &key.namespace);
        let patch = json!({
            "metadata": {"uid": pod.metadata.uid},
            "status": {"conditions": [{
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "DeletionByTaintManager",
                "message": "Taint manager: deleting due to NoExecute taint",
                "lastTransitionTime": self.clock.now().to_string(),
            }]},
        });
        match pods.patch_status(&key.name, PatchKind::Strategic, &patch).await {
            Err(error) if error.is_not_found() => return Ok(()),
            outcome => outcome.during(|| format!("mark pod {key} for eviction"))?,
        };
        let options =
            DeleteOptions { precondition_uid: pod.metadata.uid.clone(), ..Default::default() };
        let message = format!("Marking for deletion Pod {key}");
        self.recorder.normal(pod, "TaintManagerEviction", message);
        match pods.delete(&key.name, &options).await {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome.during(|| format!("evict pod {key}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinery::testing::{at, pod};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn node(keys: &[(&str, &str)]) -> Node {
        let mut node = Node::default();
        let taint = |(key, effect): &(&str, &str)| Taint {
            key: (*key).into(),
            effect: (*effect).into(),
            time_added: Some(Time(at(100))),
            value: None,
        };
        node.spec.get_or_insert_default().taints = Some(keys.iter().map(taint).collect());
        node
    }

    fn tolerating(list: &[(&str, Option<i64>)]) -> Pod {
        let mut pod = pod("p").on("n").running().build();
        let toleration = |(key, seconds): &(&str, Option<i64>)| Toleration {
            key: Some((*key).into()).filter(|key: &String| !key.is_empty()),
            operator: Some("Exists".into()),
            effect: Some(NO_EXECUTE.into()),
            toleration_seconds: *seconds,
            value: None,
        };
        let tolerations = list.iter().map(toleration).collect();
        pod.spec.as_mut().unwrap().tolerations = Some(tolerations);
        pod
    }

    #[test]
    fn pods_are_evicted_unless_they_tolerate_the_taints() {
        let down = node(&[("down", NO_EXECUTE), ("down", "NoSchedule")]);
        for (tolerations, expected) in [
            (vec![], Plan::Evict),
            (vec![("other", None)], Plan::Evict),
            (vec![("down", None)], Plan::Stay),
            (vec![("", None)], Plan::Stay),
            (vec![("down", Some(30))], Plan::Wait(Duration::from_secs(20))),
            (vec![("down", Some(30)), ("", Some(15))], Plan::Wait(Duration::from_secs(5))),
            (vec![("down", Some(10))], Plan::Evict),
        ] {
            assert_eq!(
                plan(&tolerating(&tolerations), &down, at(110)),
                expected,
                "{tolerations:?}"
            );
        }
        let two = node(&[("a", NO_EXECUTE), ("b", NO_EXECUTE)]);
        assert_eq!(plan(&tolerating(&[("a", None)]), &two, at(110)), Plan::Evict);
        assert_eq!(plan(&tolerating(&[]), &node(&[]), at(110)), Plan::Stay);
        let gone = pod("p").on("n").deleting().build();
        assert_eq!(plan(&gone, &down, at(110)), Plan::Stay);
    }
}
