//! Protects claims that pods use, and volumes that claims use, from deletion
//! (`k8s.io/kubernetes/pkg/controller/volume/{pvcprotection,pvprotection}`).

use std::sync::Arc;

use api::Kind;
use client::{Api, Client, PatchKind};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use crate::Error;
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::error::During;
use crate::machinery::owner::{is_deleting, none_if_empty};
use crate::machinery::queue::{Controller, Next, queue};
use crate::wire::Wiring;

/// A kind whose objects are protected while they are in use.
trait Protected: Kind {
    const CONTROLLER: &'static str;
    const FINALIZER: &'static str;
    fn is_used(&self, pods: &Cache<Pod>) -> bool;
}

impl Protected for PersistentVolumeClaim {
    const CONTROLLER: &'static str = "persistentvolumeclaim-protection";
    const FINALIZER: &'static str = "kubernetes.io/pvc-protection";

    fn is_used(&self, pods: &Cache<Pod>) -> bool {
        let key = Key::of(self);
        let pods = pods.namespace(&key.namespace);
        pods.iter()
            .filter(|pod| !api::pod::is_terminal(pod))
            .any(|pod| claims_of(pod).contains(&key))
    }
}

impl Protected for PersistentVolume {
    const CONTROLLER: &'static str = "persistentvolume-protection";
    const FINALIZER: &'static str = "kubernetes.io/pv-protection";

    fn is_used(&self, _: &Cache<Pod>) -> bool {
        let status = self.status.as_ref();
        status.and_then(|status| status.phase.as_deref()) == Some("Bound")
    }
}

/// The claims of a pod's volumes, including ephemeral ones.
fn claims_of(pod: &Pod) -> Vec<Key> {
    let key = Key::of(pod);
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .filter_map(|volume| {
            let named = volume.persistent_volume_claim.as_ref();
            let own = volume.ephemeral.as_ref();
            named
                .map(|claim| claim.claim_name.clone())
                .or_else(|| own.map(|_| format!("{}-{}", key.name, volume.name)))
        })
        .map(|name| Key::new(&key.namespace, name))
        .collect()
}

struct Protection<K> {
    client: Client,
    objects: Arc<Cache<K>>,
    pods: Arc<Cache<Pod>>,
}

/// Adds the controller of claims; its keys are claims.
pub fn start_claims(wiring: &mut Wiring) {
    let (trigger, requests) = queue();
    let informers = &wiring.informers;
    informers
        .persistent_volume_claims
        .subscribe(&trigger, |change| vec![Key::of(&**change.last())]);
    informers.pods.subscribe(&trigger, |change: &Change<Pod>| {
        let ended = change.new.as_deref().is_none_or(api::pod::is_terminal);
        if ended { claims_of(change.last()) } else { Vec::new() }
    });
    let claims = Protection {
        client: wiring.client.clone(),
        objects: informers.persistent_volume_claims.cache(),
        pods: informers.pods.cache(),
    };
    wiring.run::<Protection<PersistentVolumeClaim>>(claims, requests);
}

/// Adds the controller of volumes; its keys are volumes.
pub fn start_volumes(wiring: &mut Wiring) {
    let (trigger, requests) = queue();
    let informers = &wiring.informers;
    informers.persistent_volumes.subscribe(&trigger, |change| vec![Key::of(&**change.last())]);
    let volumes = Protection {
        client: wiring.client.clone(),
        objects: informers.persistent_volumes.cache(),
        pods: informers.pods.cache(),
    };
    wiring.run::<Protection<PersistentVolume>>(volumes, requests);
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
        let used = object.is_used(&self.pods);
        if let Some(finalizers) = plan(metadata, K::FINALIZER, used) {
            let patch = json!({"metadata": {
                "uid": metadata.uid,
                "resourceVersion": metadata.resource_version,
                "finalizers": none_if_empty(finalizers),
            }});
            Api::<K>::namespaced(&self.client, &key.namespace)
                .patch(&key.name, PatchKind::Merge, &patch)
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
