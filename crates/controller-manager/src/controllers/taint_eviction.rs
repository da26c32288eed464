//! Deletes pods from nodes whose NoExecute taints they do not tolerate, or no longer
//! (`k8s.io/kubernetes/pkg/controller/tainteviction`).
//!
//! How long a taint has been there is read from it once, when it is first seen, and measured by the
//! monotonic clock from then on: a step of the wall clock evicts nothing.

mod taints;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use client::events::EventRecorder;
use client::{Api, Client, DeleteOptions};
use clock::SharedClock;
use k8s_openapi::api::core::v1::{Node, Pod, Toleration};
use parking_lot::Mutex;
use taints::{NoExecute, Taints};
use tokio::time::Instant;

use crate::Error;
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::error::{During, Unless};
use crate::machinery::node_match::tolerates;
use crate::machinery::owner::is_deleting;
use crate::machinery::queue::{Controller, Next};
use crate::machinery::shared_informers::on_node;
use crate::machinery::status::{self, PodMark};
use crate::wire::Wiring;

struct TaintEviction {
    client: Client,
    recorder: EventRecorder,
    clock: SharedClock,
    pods: Arc<Cache<Pod>>,
    taints: Arc<Mutex<Taints>>,
    /// The pods whose eviction is scheduled.
    scheduled: Mutex<HashSet<Key>>,
}

/// Adds the controller; its keys are pods.
pub fn start(wiring: &mut Wiring) {
    let taints = Arc::new(Mutex::new(Taints::default()));
    let controller = TaintEviction {
        client: wiring.client.clone(),
        recorder: wiring.recorder.named("taint-eviction-controller"),
        clock: wiring.clock.clone(),
        pods: wiring.cache(),
        taints: taints.clone(),
        scheduled: Mutex::default(),
    };
    let nodes = wiring.cache::<Node>();
    let is_on_tainted_node = move |change: &Change<Pod>| {
        let node = api::pod::node_name(change.last());
        let node = node.and_then(|name| nodes.get(&Key::cluster(name)));
        node.is_some_and(|node| taints::no_execute(&node).next().is_some())
    };
    let (pods, clock) = (wiring.cache::<Pod>(), wiring.clock.clone());
    let of_node = move |change: &Change<Node>| {
        let changed = taints.lock().apply(change, clock.now(), clock::instant());
        if changed { pods.keys_of(&on_node(&change.key().name)) } else { Vec::new() }
    };
    wiring.controller(controller).of_some(is_on_tainted_node).maps(of_node).start();
}

/// When the pod is evicted from a node with these taints. `None`: never.
fn evict_at(taints: &[NoExecute], tolerations: &[Toleration], now: Instant) -> Option<Instant> {
    let mut earliest: Option<Instant> = None;
    for NoExecute { taint, since } in taints {
        let matching = tolerations.iter().filter(|toleration| tolerates(toleration, taint));
        let bounds: Vec<Option<i64>> = matching.map(|one| one.toleration_seconds).collect();
        if bounds.is_empty() {
            return Some(now);
        }
        // Of several tolerations of one taint the shortest counts.
        if let Some(seconds) = bounds.into_iter().flatten().min() {
            let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            // What no clock can hold is as good as never.
            let Some(until) = since.checked_add(seconds) else { continue };
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

fn plan(pod: &Pod, taints: &[NoExecute], now: Instant) -> Plan {
    if is_deleting(&pod.metadata) || api::pod::is_terminal(pod) {
        return Plan::Stay;
    }
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref());
    match evict_at(taints, tolerations.unwrap_or_default(), now) {
        None => Plan::Stay,
        Some(at) if at <= now => Plan::Evict,
        Some(at) => Plan::Wait(at - now),
    }
}

impl Controller for TaintEviction {
    const NAME: &'static str = "taint-eviction";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(pod) = self.pods.get(key) else {
            self.scheduled.lock().remove(key);
            return Ok(Next::Change);
        };
        let name = api::pod::node_name(&pod).unwrap_or_default();
        let taints = self.taints.lock().of(name);
        match plan(&pod, &taints, clock::instant()) {
            Plan::Stay => {
                let cancelled = self.scheduled.lock().remove(key);
                if cancelled && !is_deleting(&pod.metadata) {
                    let message = format!("Cancelling deletion of Pod {key}");
                    self.recorder.normal(&*pod, "TaintManagerEviction", message);
                }
                Ok(Next::Change)
            }
            Plan::Wait(wait) => {
                self.scheduled.lock().insert(key.clone());
                Ok(Next::After(wait))
            }
            Plan::Evict => {
                self.evict(key, &pod).await?;
                self.scheduled.lock().remove(key);
                Ok(Next::Change)
            }
        }
    }
}

impl TaintEviction {
    async fn evict(&self, key: &Key, pod: &Pod) -> Result<(), Error> {
        let pods = Api::<Pod>::namespaced(&self.client, &key.namespace);
        let mark = PodMark {
            condition: ("DisruptionTarget", "True"),
            reason: "DeletionByTaintManager",
            message: "Taint manager: deleting due to NoExecute taint",
            phase: None,
        };
        if !status::mark(&self.client, pod, mark, self.clock.now()).await? {
            return Ok(());
        }
        let message = format!("Marking for deletion Pod {key}");
        self.recorder.normal(pod, "TaintManagerEviction", message);
        let evicted = pods.delete_exactly(pod, &DeleteOptions::default()).await.unless_gone();
        evicted.map(drop).during(|| format!("evict pod {key}"))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Taint;

    use super::*;
    use crate::machinery::testing::pod;

    fn taints(keys: &[&str], since: Instant) -> Vec<NoExecute> {
        let taint = |key: &&str| Taint {
            key: (*key).into(),
            effect: taints::NO_EXECUTE.into(),
            ..Default::default()
        };
        keys.iter().map(|key| NoExecute { taint: taint(key), since }).collect()
    }

    fn tolerating(list: &[(&str, Option<i64>)]) -> Pod {
        let mut pod = pod("p").on("n").running().build();
        let toleration = |(key, seconds): &(&str, Option<i64>)| Toleration {
            key: Some((*key).into()).filter(|key: &String| !key.is_empty()),
            operator: Some("Exists".into()),
            effect: Some(taints::NO_EXECUTE.into()),
            toleration_seconds: *seconds,
            value: None,
        };
        let tolerations = list.iter().map(toleration).collect();
        pod.spec.as_mut().unwrap().tolerations = Some(tolerations);
        pod
    }

    #[test]
    fn pods_are_evicted_unless_they_tolerate_the_taints() {
        let since = clock::instant();
        let now = since + Duration::from_secs(10);
        let down = taints(&["down"], since);
        for (tolerations, expected) in [
            (vec![], Plan::Evict),
            (vec![("other", None)], Plan::Evict),
            (vec![("down", None)], Plan::Stay),
            (vec![("", None)], Plan::Stay),
            (vec![("down", Some(30))], Plan::Wait(Duration::from_secs(20))),
            (vec![("down", Some(30)), ("", Some(15))], Plan::Wait(Duration::from_secs(5))),
            (vec![("down", Some(10))], Plan::Evict),
            (vec![("down", Some(-1))], Plan::Evict),
            (vec![("down", Some(i64::MAX))], Plan::Stay),
        ] {
            assert_eq!(plan(&tolerating(&tolerations), &down, now), expected, "{tolerations:?}");
        }
        let two = taints(&["a", "b"], since);
        assert_eq!(plan(&tolerating(&[("a", None)]), &two, now), Plan::Evict);
        assert_eq!(plan(&tolerating(&[]), &[], now), Plan::Stay);
        let gone = pod("p").on("n").deleting().build();
        assert_eq!(plan(&gone, &down, now), Plan::Stay);
    }
}
