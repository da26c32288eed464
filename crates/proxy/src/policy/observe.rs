//! Watches NetworkPolicies and, only while there are any, all Namespaces and Pods of the cluster.

use std::collections::HashSet;

use client::informer::{self, InformerOptions};
use client::mirror::{self, Mirror, Name};
use futures::stream::{self, BoxStream, StreamExt};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1 as networking;
use tokio::sync::watch;

use super::Policies;
use super::model::Policy;
use crate::model::{Labels, Pod, labels_of};

/// The number of unused labels that are kept at most, besides as many as are used.
const UNUSED_LABELS_MAX: usize = 1024;

/// Whether Namespaces and Pods are to be watched. Each time they are, the number is another one, so
/// that late events of earlier watches can be recognized.
pub type Demand = watch::Sender<Option<u64>>;

/// A change of an object; those that are only watched on demand with the number of that demand.
pub enum Event {
    Policy(informer::Event<(Name, Policy)>),
    Namespace(u64, informer::Event<(Name, Labels)>),
    Pod(u64, informer::Event<(Name, Pod)>),
}

/// All events; the stream never ends while `demand` exists.
pub fn events(
    client: &client::Client,
    demand: watch::Receiver<Option<u64>>,
) -> BoxStream<'static, Event> {
    let all = InformerOptions::default();
    let policies = mirror::events::<networking::NetworkPolicy, _>(client, all, Policy::from_object);
    let client = client.clone();
    let peers = on_demand(demand, move |round| {
        let all = InformerOptions::default;
        let namespaces = mirror::events::<core::Namespace, _>(&client, all(), |object| {
            labels_of(&object.metadata)
        });
        let pods = mirror::events::<core::Pod, _>(&client, all(), Pod::from_object);
        let namespaces = namespaces.map(move |event| Event::Namespace(round, event));
        stream::select(namespaces, pods.map(move |event| Event::Pod(round, event))).boxed()
    });
    stream::select(policies.map(Event::Policy), peers).boxed()
}

/// Runs `start` for each demand, until the demand changes.
fn on_demand<T: Send + 'static>(
    demand: watch::Receiver<Option<u64>>,
    start: impl Fn(u64) -> BoxStream<'static, T> + Send + 'static,
) -> BoxStream<'static, T> {
    let rounds = stream::unfold(demand.clone(), |mut demand| async move {
        let round = demand.wait_for(Option::is_some).await.ok().and_then(|round| *round)?;
        Some((round, demand))
    });
    let running = move |round| {
        let mut demand = demand.clone();
        let changed = async move { demand.wait_for(|now| *now != Some(round)).await.is_ok() };
        start(round).take_until(Box::pin(changed))
    };
    rounds.flat_map(running).boxed()
}

/// The watched objects, and what follows from them.
pub struct Observed {
    policies: Mirror<Policy>,
    namespaces: Mirror<Labels>,
    pods: Mirror<Pod>,
    /// All labels of pods: those of many pods are the same.
    labels: HashSet<Labels>,
    labels_used: usize,
    demand: Demand,
    round: u64,
    pub plan: Policies,
}

impl Observed {
    pub fn new(demand: Demand) -> Self {
        Self {
            policies: Mirror::default(),
            namespaces: Mirror::default(),
            pods: Mirror::default(),
            labels: HashSet::new(),
            labels_used: 0,
            demand,
            round: 0,
            plan: Policies::default(),
        }
    }

    /// Whether all policies have been received and, if there are any, all namespaces and pods.
    pub fn is_ready(&self) -> bool {
        let peers = self.namespaces.is_synced() && self.pods.is_synced();
        self.policies.is_synced() && (self.plan.is_empty() || peers)
    }

    pub fn take(&mut self, event: Event) {
        match event {
            Event::Policy(event) => {
                for change in self.policies.take(event) {
                    let name = change.key();
                    self.plan.set_policy(name, self.policies.get(name).cloned());
                }
                self.update_demand();
            }
            Event::Namespace(round, event) if self.is_current(round) => {
                for change in self.namespaces.take(event) {
                    let name = change.key();
                    self.plan.set_namespace(name, self.namespaces.get(name).cloned());
                }
            }
            Event::Pod(round, event) if self.is_current(round) => {
                let event = event.map(|(name, pod)| (name, self.with_shared_labels(pod)));
                for change in self.pods.take(event) {
                    let name = change.key();
                    self.plan.set_pod(name, self.pods.get(name));
                }
            }
            Event::Namespace(..) | Event::Pod(..) => {}
        }
    }

    fn is_current(&self, round: u64) -> bool {
        *self.demand.borrow() == Some(round)
    }

    /// Until all policies have been received, there may be more of them.
    fn update_demand(&mut self) {
        let wanted = !self.plan.is_empty();
        if wanted == self.demand.borrow().is_some() {
            return;
        }
        if wanted {
            self.round += 1;
            self.demand.send_replace(Some(self.round));
            return;
        }
        self.demand.send_replace(None);
        (self.namespaces, self.pods) = (Mirror::default(), Mirror::default());
        self.labels.clear();
        self.plan.clear_peers();
    }

    fn with_shared_labels(&mut self, mut pod: Pod) -> Pod {
        match self.labels.get(&pod.labels) {
            Some(labels) => pod.labels = labels.clone(),
            None => {
                if self.labels.len() > 2 * self.labels_used + UNUSED_LABELS_MAX {
                    self.labels.retain(|labels| Labels::strong_count(labels) > 1);
                    self.labels_used = self.labels.len();
                }
                self.labels.insert(pod.labels.clone());
            }
        }
        pod
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn streams_run_while_they_are_wanted() {
        let demand = Demand::new(None);
        let mut running = on_demand(demand.subscribe(), |round| {
            stream::iter([round]).chain(stream::pending()).boxed()
        });
        let mut next = move || running.next().now_or_never().flatten();
        assert_eq!(next(), None);
        demand.send_replace(Some(1));
        assert_eq!(next(), Some(1));
        assert_eq!(next(), None, "still running");
        demand.send_replace(Some(2));
        assert_eq!(next(), Some(2), "started over");
        demand.send_replace(None);
        assert_eq!(next(), None);
        demand.send_replace(Some(3));
        assert_eq!(next(), Some(3));
    }

    #[test]
    fn pods_are_watched_while_there_are_policies() {
        let name: Name = "ns/p".into();
        let policy = Policy {
            pods: api::labels::Selector::everything(),
            ingress: Some(Vec::new()),
            egress: None,
        };
        let mut observed = Observed::new(Demand::new(None));
        observed.take(Event::Policy(informer::Event::Init));
        observed.take(Event::Policy(informer::Event::InitDone));
        assert!(observed.is_ready() && observed.demand.borrow().is_none());
        let apply = |observed: &mut Observed| {
            let event = informer::Event::Apply((name.clone(), policy.clone()));
            observed.take(Event::Policy(event));
        };
        let sync = |observed: &mut Observed, round| {
            for event in [informer::Event::Init, informer::Event::InitDone] {
                observed.take(Event::Namespace(round, event));
            }
            for event in [informer::Event::Init, informer::Event::InitDone] {
                observed.take(Event::Pod(round, event));
            }
        };
        apply(&mut observed);
        assert!(!observed.is_ready() && *observed.demand.borrow() == Some(1));
        sync(&mut observed, 1);
        assert!(observed.is_ready());
        observed.take(Event::Policy(informer::Event::Delete((name.clone(), policy.clone()))));
        assert!(observed.is_ready() && observed.demand.borrow().is_none());
        apply(&mut observed);
        sync(&mut observed, 1);
        assert!(!observed.is_ready(), "events of the first watch are late");
        sync(&mut observed, 2);
        assert!(observed.is_ready());
    }

    #[test]
    fn labels_that_no_pod_has_any_more_are_forgotten() {
        let mut observed = Observed::new(Demand::new(None));
        for number in 0..10 * UNUSED_LABELS_MAX {
            let labels: Labels =
                std::sync::Arc::new([("number".to_owned(), number.to_string())].into());
            let pod = Pod { labels, ..Pod::default() };
            // Nobody keeps it.
            observed.with_shared_labels(pod);
            let kept = observed.labels.len();
            assert!(kept <= UNUSED_LABELS_MAX + 2, "{kept}");
        }
    }
}
