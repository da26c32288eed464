//! Scales workloads by what their pods use (`k8s.io/kubernetes/pkg/controller/podautoscaler`).
//!
//! Every autoscaler is looked at every 15 s: its metrics are no objects whose changes could be
//! watched.

mod behavior;
mod metrics;
mod plan;
mod replicas;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use api::KindRef;
use api::labels::Selector;
use client::Client;
use client::dynamic::target;
use client::events::EventRecorder;
use clock::SharedClock;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use rpc::api_v1::WriteOptions;

use crate::Error;
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::kinds::Kinds;
use crate::machinery::queue::{Controller, Next};
use crate::machinery::status;
use crate::wire::Wiring;
use behavior::Memory;
use plan::{Observed, plan};

/// Time between two looks at an autoscaler (`--horizontal-pod-autoscaler-sync-period`).
const SYNC_PERIOD: Duration = Duration::from_secs(15);

struct Autoscaler {
    client: Client,
    recorder: EventRecorder,
    clock: SharedClock,
    kinds: Arc<Kinds>,
    autoscalers: Arc<Cache<HorizontalPodAutoscaler>>,
    pods: Arc<Cache<Pod>>,
    /// What each autoscaler has recommended and done, while it is there.
    memories: Mutex<HashMap<Key, Memory>>,
    /// What each autoscaler selected when it was last looked at.
    selectors: Mutex<BTreeMap<Key, Selector>>,
}

/// Adds the controller; its keys are autoscalers.
pub fn start(wiring: &mut Wiring) {
    let autoscaler = Autoscaler {
        client: wiring.client.clone(),
        recorder: wiring.recorder.named("horizontal-pod-autoscaler"),
        clock: wiring.clock.clone(),
        kinds: wiring.kinds(),
        autoscalers: wiring.cache(),
        pods: wiring.cache(),
        memories: Mutex::default(),
        selectors: Mutex::default(),
    };
    // What it writes itself, its status, is no reason to look again.
    let asks = |change: &Change<HorizontalPodAutoscaler>| {
        let [old, new] = [&change.old, &change.new].map(|side| side.as_ref().map(|it| &it.spec));
        old != new
    };
    wiring.controller(autoscaler).of_some(asks).start();
}

impl Controller for Autoscaler {
    const NAME: &'static str = "horizontalpodautoscaler";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(autoscaler) = self.autoscalers.get(key) else {
            self.memories.lock().remove(key);
            self.selectors.lock().remove(key);
            return Ok(Next::Change);
        };
        let spec = autoscaler.spec.clone();
        let found = self.scale(key, &spec).await;
        let now = self.clock.now();
        let memory = self.memories.lock().remove(key).unwrap_or_default();
        let pods = found.as_ref().ok().and_then(|(_, scale)| self.pods(key, scale));
        let selector = found.as_ref().ok().and_then(|(_, scale)| selector_of(scale));
        let mut readings = Vec::new();
        if let (Some(pods), Some(selector)) = (&pods, &selector) {
            for metric in spec.metrics.iter().flatten() {
                readings.push(metrics::read(&self.client, key, metric, selector, pods).await);
            }
        }
        let observed = Observed {
            autoscaler: &autoscaler,
            scale: found.as_ref().map(|(_, scale)| scale).map_err(String::as_str),
            rivals: found.as_ref().map_or_else(
                |_| Vec::new(),
                |(_, scale)| self.rivals(key, scale, pods.as_deref().unwrap_or_default()),
            ),
            pods: pods.unwrap_or_default(),
            readings,
        };
        let mut plan = plan(&observed, memory, now);
        if let (Some(rescale), Ok((kind, scale))) = (&plan.rescale, found) {
            let done = self.rescale(key, &kind, scale, rescale.to).await;
            plan = plan.after(&autoscaler, done.map_err(|error| error.to_string()), now);
        }
        self.memories.lock().insert(key.clone(), plan.memory);
        self.recorder.all(&*autoscaler, plan.events);
        status::update(&self.client, &*autoscaler, |it| it.status = Some(plan.status)).await?;
        Ok(Next::After(SYNC_PERIOD))
    }
}

/// The selector of a scale, as text.
fn selector_of(scale: &Scale) -> Option<String> {
    scale.status.as_ref()?.selector.clone().filter(|text| !text.is_empty())
}

impl Autoscaler {
    /// The kind and the scale of what is scaled, or why there is none.
    async fn scale(
        &self,
        key: &Key,
        spec: &HorizontalPodAutoscalerSpec,
    ) -> Result<(KindRef, Scale), String> {
        let to = &spec.scale_target_ref;
        let version = to.api_version.as_deref().unwrap_or_default();
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let kinds = self.kinds.stored();
        let kind = kinds.into_iter().find(|row| row.kind == to.kind && row.group == group);
        let Some(kind) = kind else {
            return Err(format!("no matches for kind {:?} in group {group:?}", to.kind));
        };
        let object = self.client.get_object(target(&kind, &key.namespace, &to.name, "scale")).await;
        let object = object.map_err(|error| error.to_string())?;
        let scale = api::Kind::decode(&object.json).map_err(|error| error.to_string())?;
        Ok((kind, scale))
    }

    /// The pods that a scale selects.
    fn pods(&self, key: &Key, scale: &Scale) -> Option<Vec<Arc<Pod>>> {
        let selector = Selector::parse(&selector_of(scale)?).ok()?;
        let mut pods = self.pods.namespace(&key.namespace);
        pods.retain(|pod| selector.matches(pod.metadata.labels.as_ref()));
        Some(pods)
    }

    /// The autoscalers that select one of these pods, which `key` selects, if there are several.
    fn rivals(&self, key: &Key, scale: &Scale, pods: &[Arc<Pod>]) -> Vec<Key> {
        let selector = selector_of(scale).and_then(|text| Selector::parse(&text).ok());
        let mut all = self.selectors.lock();
        match selector {
            Some(selector) => all.insert(key.clone(), selector),
            None => all.remove(key),
        };
        let selects = |selector: &Selector| {
            pods.iter().any(|pod| selector.matches(pod.metadata.labels.as_ref()))
        };
        let near = all.iter().filter(|(other, _)| other.namespace == key.namespace);
        let found: Vec<Key> = near
            .filter(|(_, selector)| selects(selector))
            .map(|(other, _)| other.clone())
            .collect();
        if found.len() > 1 { found } else { Vec::new() }
    }

    async fn rescale(
        &self,
        key: &Key,
        kind: &KindRef,
        mut scale: Scale,
        replicas: i32,
    ) -> Result<(), client::Error> {
        let name = scale.metadata.name.clone().unwrap_or_default();
        scale.spec.get_or_insert_default().replicas = Some(replicas);
        let target = target(kind, &key.namespace, &name, "scale");
        let json = api::Kind::encode(&scale);
        self.client.update_object(target, json, WriteOptions::default()).await.map(|_| ())
    }
}
