//! Protects claims that pods use, and volumes that claims use, from deletion
//! (`k8s.io/kubernetes/pkg/controller/volume/{pvcprotection,pvprotection}`).

use std::sync::Arc;

use client::{Api, Client, ListOptions};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::Error;
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::error::During;
use crate::machinery::index::{By, claims_of};
use crate::machinery::owner::{is_deleting, patch_finalizers};
use crate::machinery::queue::{Controller, Next};
use crate::machinery::shared_informers::Shared;
use crate::wire::Wiring;

/// A kind whose objects are protected while they are in use.
trait Protected: Shared {
    const CONTROLLER: &'static str;
    const FINALIZER: &'static str;
    /// Whether pods use it, so that all of them have to be known before it is let go.
    const USED_BY_PODS: bool;
    fn is_used<'a>(&self, pods: impl Iterator<Item = &'a Pod>) -> bool;
}

impl Protected for PersistentVolumeClaim {
    const CONTROLLER: &'static str = "persistentvolumeclaim-protection";
    const FINALIZER: &'static str = "kubernetes.io/pvc-protection";

    const USED_BY_PODS: bool = true;

    /// A pod that has ended still uses it: its volumes may not be unmounted yet. One without a node
    /// does not: no kubelet starts a pod whose claim is being deleted.
    fn is_used<'a>(&self, mut pods: impl Iterator<Item = &'a Pod>) -> bool {
        let key = Key::of(self);
        pods.any(|pod| has_node(pod) && claims_of(pod).contains(&key))
    }
}

impl Protected for PersistentVolume {
    const CONTROLLER: &'static str = "persistentvolume-protection";
    const FINALIZER: &'static str = "kubernetes.io/pv-protection";

    const USED_BY_PODS: bool = false;

    fn is_used<'a>(&self, _: impl Iterator<Item = &'a Pod>) -> bool {
        let status = self.status.as_ref();
        status.and_then(|status| status.phase.as_deref()) == Some("Bound")
    }
}

fn has_node(pod: &Pod) -> bool {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    node.is_some_and(|node| !node.is_empty())
}

struct Protection<K> {
    client: Client,
    objects: Arc<Cache<K>>,
    pods: Arc<Cache<Pod>>,
}

impl<K: Protected> Protection<K> {
    fn new(wiring: &Wiring) -> Self {
        let client = wiring.client.clone();
        Self { client, objects: wiring.cache(), pods: wiring.cache() }
    }
}

/// Adds the controller of claims; its keys are claims.
pub fn start_claims(wiring: &mut Wiring) {
    let released = |change: &Change<Pod>| match change.new {
        Some(_) => Vec::new(),
        None => claims_of(change.last()),
    };
    let controller = Protection::<PersistentVolumeClaim>::new(wiring);
    wiring.controller(controller).of::<PersistentVolumeClaim>().maps(released).start();
}

/// Adds the controller of volumes; its keys are volumes.
pub fn start_volumes(wiring: &mut Wiring) {
    let controller = Protection::<PersistentVolume>::new(wiring);
    wiring.controller(controller).of::<PersistentVolume>().start();
}

/// The finalizers that an object should have. `None`: it has them already.
fn plan(metadata: &ObjectMeta, finalizer: &str, used: bool) -> Option<Vec<String>> {
    let mut finalizers = metadata.finalizers.clone().unwrap_or_default();
    let protected = finalizers.iter().any(|name| name == finalizer);
    match (is_deleting(metadata), protected) {
        (false, false) => finalizers.push(finalizer.to_owned()),
        (true, true) if !used => finalizers.retain(|name| name != finalizer),
        _ => return None,
    }
    Some(finalizers)
}

impl<K: Protected> Controller for Protection<K> {
    const NAME: &'static str = K::CONTROLLER;

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(object) = self.objects.get(key) else {
            return Ok(Next::Change);
        };
        let metadata = object.metadata();
        let users = self.pods.indexed(&By::Claim(key.clone()));
        let mut used = object.is_used(users.iter().map(|pod| &**pod));
        if K::USED_BY_PODS && !used && is_deleting(metadata) {
            let pods = Api::<Pod>::namespaced(&self.client, &key.namespace);
            let live = pods.list(&ListOptions::default()).await;
            let live = live.during(|| format!("list the pods that may use {} {key}", K::KIND))?;
            used = object.is_used(live.items.iter());
        }
        if let Some(finalizers) = plan(metadata, K::FINALIZER, used) {
            patch_finalizers::<K>(&self.client, metadata, finalizers)
                .await
                .during(|| format!("protect {} {key}", K::KIND))?;
        }
        Ok(Next::Change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinery::testing::{at, pod};
    use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Volume};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn objects_are_protected_while_in_use() {
        let mut metadata = ObjectMeta::default();
        assert_eq!(plan(&metadata, "f", false), Some(vec!["f".into()]));
        metadata.finalizers = Some(vec!["g".into(), "f".into()]);
        assert_eq!(plan(&metadata, "f", false), None);
        metadata.deletion_timestamp = Some(Time(at(0)));
        assert_eq!(plan(&metadata, "f", true), None);
        assert_eq!(plan(&metadata, "f", false), Some(vec!["g".into()]));
        metadata.finalizers = None;
        assert_eq!(plan(&metadata, "f", false), None);
    }

    #[test]
    fn a_claim_is_used_by_every_pod_that_has_a_node() {
        let mut claim = PersistentVolumeClaim::default();
        claim.metadata.namespace = Some("ns".into());
        claim.metadata.name = Some("p-b".into());
        let used = |node: Option<&str>, phase: &str| {
            let mut pod = pod("p").phase(phase).build();
            let spec = pod.spec.get_or_insert_default();
            spec.node_name = node.map(Into::into);
            let ephemeral = Some(Default::default());
            let volume = Volume { name: "b".into(), ephemeral, ..Default::default() };
            spec.volumes = Some(vec![volume]);
            claim.is_used([pod].iter())
        };
        for phase in ["Pending", "Running", "Succeeded", "Failed"] {
            assert!(used(Some("n1"), phase), "{phase}");
        }
        assert!(!used(None, "Pending") && !used(Some(""), "Pending"));
    }

    #[test]
    fn claims_of_a_pod() {
        let mut pod = pod("p").build();
        pod.spec.get_or_insert_default().volumes = Some(vec![
            Volume {
                name: "a".into(),
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: "data".into(),
                    read_only: None,
                }),
                ..Default::default()
            },
            Volume { name: "b".into(), ephemeral: Some(Default::default()), ..Default::default() },
        ]);
        assert_eq!(claims_of(&pod), [Key::new("ns", "data"), Key::new("ns", "p-b")]);
    }
}
