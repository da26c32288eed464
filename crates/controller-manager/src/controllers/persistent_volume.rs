//! Binds claims to volumes, and releases volumes whose claims are gone
//! (`k8s.io/kubernetes/pkg/controller/volume/persistentvolume`).
//!
//! A binding is four writes (the volume's reference and phase, the claim's volume and phase), each
//! skipped if it is done already; after a restart between any two, the next one follows.

mod matching;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::storage_class;
use client::events::EventRecorder;
use client::{Api, Client};
use clock::SharedClock;
use k8s_openapi::api::core::v1::{
    Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus,
    Pod,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::Error;
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::error::During;
use crate::machinery::index::{By, claims_of};
use crate::machinery::owner::is_deleting;
use crate::machinery::queue::{Controller, Next};
use crate::machinery::status;
use crate::wire::Wiring;
use plan::{ClaimPlan, ObservedClaim, VolumePlan, plan_claim, plan_volume};
pub use plan::{SELECTED_NODE, STORAGE_PROVISIONER};

struct Claims {
    client: Client,
    recorder: EventRecorder,
    claims: Arc<Cache<PersistentVolumeClaim>>,
    volumes: Arc<Cache<PersistentVolume>>,
    classes: Arc<Cache<StorageClass>>,
    nodes: Arc<Cache<Node>>,
    pods: Arc<Cache<Pod>>,
}

struct Volumes {
    client: Client,
    clock: SharedClock,
    volumes: Arc<Cache<PersistentVolume>>,
}

/// Adds both controllers; their keys are claims and volumes.
pub fn start(wiring: &mut Wiring) {
    let controller = Claims {
        client: wiring.client.clone(),
        recorder: wiring.recorder.named("persistentvolume-controller"),
        claims: wiring.cache(),
        volumes: wiring.cache(),
        classes: wiring.cache(),
        nodes: wiring.cache(),
        pods: wiring.cache(),
    };
    // Any unbound claim may be waiting for a volume that is created or becomes available; one that
    // is promised to a claim concerns only that.
    let claims = wiring.cache::<PersistentVolumeClaim>();
    let of_volume = move |change: &Change<PersistentVolume>| {
        let promised: Option<Vec<Key>> = change.sides().map(|volume| claim_key(volume)).collect();
        promised.unwrap_or_else(|| {
            let of = |volume| claims.keys_of(&By::Volume(volume));
            [of(None), of(Some(change.key().name))].concat()
        })
    };
    let claims = wiring.cache::<PersistentVolumeClaim>();
    let of_class = move |change: &Change<StorageClass>| {
        let of = |class| claims.keys_of(&By::Class(class));
        [of(String::new()), of(change.key().name)].concat()
    };
    // What a claim waits for depends on the pods that want it.
    let of_pod = |change: &Change<Pod>| {
        let waited = |pod: &Option<Arc<Pod>>| pod.as_deref().is_some_and(is_unscheduled);
        let same = waited(&change.old) == waited(&change.new);
        if same { Vec::new() } else { claims_of(change.last()) }
    };
    wiring
        .controller(controller)
        .of::<PersistentVolumeClaim>()
        .maps(of_volume)
        .maps(of_class)
        .maps(of_pod)
        .start();

    let controller = Volumes {
        client: wiring.client.clone(),
        clock: wiring.clock.clone(),
        volumes: wiring.cache(),
    };
    let named = |change: &Change<PersistentVolumeClaim>| {
        let sides = change.sides();
        let named = sides.filter_map(|claim| claim.spec.as_ref()?.volume_name.clone());
        named.map(Key::cluster).collect::<Vec<_>>()
    };
    wiring.controller(controller).of::<PersistentVolume>().maps(named).start();
}

/// Whether the scheduler has still to find a node for the pod.
fn is_unscheduled(pod: &Pod) -> bool {
    !api::pod::is_terminal(pod) && api::pod::node_name(pod).is_none()
}

/// The claim that a volume is bound to or reserved for.
pub fn claim_key(volume: &PersistentVolume) -> Option<Key> {
    let reference = volume.spec.as_ref()?.claim_ref.clone()?;
    Some(Key::new(reference.namespace?, reference.name?))
}

impl Controller for Claims {
    const NAME: &'static str = "persistentvolume-binder";
    /// One at a time: two claims must not choose the same volume.
    const CONCURRENCY: usize = 1;

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(claim) = self.claims.get(key).filter(|claim| !is_deleting(&claim.metadata)) else {
            return Ok(Next::Change);
        };
        let class = self.classes.get(&Key::cluster(storage_class::of_claim(&claim)));
        let classes = self.classes.list();
        let annotations = claim.metadata.annotations.as_ref();
        let node = annotations
            .and_then(|annotations| annotations.get(plan::SELECTED_NODE))
            .and_then(|name| self.nodes.get(&Key::cluster(name)));
        let volumes = self.volumes.list();
        let plan = plan_claim(&ObservedClaim {
            claim: &claim,
            volumes: &volumes,
            class: class.as_deref(),
            default_class: matching::default_class(&classes),
            node: node.as_deref(),
            unscheduled: self.unscheduled(key),
        });
        match plan {
            ClaimPlan::Bind(volume) => self.bind(&claim, &volume).await?,
            ClaimPlan::Lost(reason, message) => {
                if phase(&claim) != "Lost" {
                    self.recorder.warning(&*claim, reason, message);
                }
                self.write_phase(&claim, "Lost", None).await?;
            }
            ClaimPlan::Wait(reason, message) => {
                if matches!(reason, "ProvisioningFailed" | "VolumeMismatch") {
                    self.recorder.warning(&*claim, reason, message);
                } else {
                    self.recorder.normal(&*claim, reason, message);
                }
                self.write_phase(&claim, "Pending", None).await?;
            }
            ClaimPlan::Provision(provisioner) => {
                self.request_provisioning(&claim, &provisioner).await?
            }
            ClaimPlan::AssignClass(class) => {
                let set = |claim: &mut PersistentVolumeClaim| {
                    claim.spec.get_or_insert_default().storage_class_name = Some(class);
                };
                self.replace(&claim, "set the class of", set).await?;
            }
            ClaimPlan::ReleaseNode => self.replace(&claim, "release the node of", release).await?,
            ClaimPlan::Pending => self.write_phase(&claim, "Pending", None).await?,
        }
        Ok(Next::Change)
    }
}

/// Lets the scheduler choose another node for the claim.
pub fn release(claim: &mut PersistentVolumeClaim) {
    claim.metadata.annotations.get_or_insert_default().remove(SELECTED_NODE);
}

fn phase(claim: &PersistentVolumeClaim) -> &str {
    let status = claim.status.as_ref();
    status.and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

impl Claims {
    /// The names of the pods that use the claim and have no node yet.
    fn unscheduled(&self, claim: &Key) -> Vec<String> {
        let pods = self.pods.indexed(&By::Claim(claim.clone()));
        let unscheduled = pods.iter().filter(|pod| is_unscheduled(pod));
        unscheduled.filter_map(|pod| pod.metadata.name.clone()).collect()
    }

    async fn bind(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
    ) -> Result<(), Error> {
        let (key, name) = (Key::of(claim), Key::of(volume).name);
        let volume = self.set_claim_ref(claim, volume).await?;
        let claims = Api::<PersistentVolumeClaim>::namespaced(&self.client, &key.namespace);
        let mut bound = claim.clone();
        let spec = bound.spec.get_or_insert_default();
        let chosen_by_us = spec.volume_name.as_deref().is_none_or(str::is_empty);
        spec.volume_name = Some(name.clone());
        let annotations = bound.metadata.annotations.get_or_insert_default();
        if chosen_by_us {
            annotations.insert(plan::BOUND_BY_CONTROLLER.into(), "yes".into());
        }
        annotations.insert(plan::BIND_COMPLETED.into(), "yes".into());
        if bound != *claim {
            bound = claims
                .replace(&bound)
                .await
                .during(|| format!("bind persistentvolumeclaim {key} to {name}"))?;
            tracing::info!(claim = %key, volume = name, "bound");
        }
        self.write_phase(&bound, "Bound", Some(&volume)).await
    }

    /// Makes the volume's `claimRef` refer to the claim.
    async fn set_claim_ref(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
    ) -> Result<PersistentVolume, Error> {
        let mut referring = volume.clone();
        let spec = referring.spec.get_or_insert_default();
        let free = spec.claim_ref.is_none();
        let reference = spec.claim_ref.get_or_insert_default();
        if reference.uid == claim.metadata.uid {
            return Ok(referring);
        }
        *reference = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("PersistentVolumeClaim".into()),
            namespace: claim.metadata.namespace.clone(),
            name: claim.metadata.name.clone(),
            uid: claim.metadata.uid.clone(),
            resource_version: claim.metadata.resource_version.clone(),
            field_path: None,
        };
        if free {
            let annotations = referring.metadata.annotations.get_or_insert_default();
            annotations.insert(plan::BOUND_BY_CONTROLLER.into(), "yes".into());
        }
        Api::<PersistentVolume>::all(&self.client)
            .replace(&referring)
            .await
            .during(|| format!("bind persistentvolume {}", Key::of(volume)))
    }

    async fn replace(
        &self,
        claim: &PersistentVolumeClaim,
        what: &str,
        change: impl FnOnce(&mut PersistentVolumeClaim),
    ) -> Result<(), Error> {
        let key = Key::of(claim);
        let mut changed = claim.clone();
        change(&mut changed);
        let claims = Api::<PersistentVolumeClaim>::namespaced(&self.client, &key.namespace);
        let replaced = claims.replace(&changed).await;
        replaced.during(|| format!("{what} persistentvolumeclaim {key}"))?;
        Ok(())
    }

    async fn request_provisioning(
        &self,
        claim: &PersistentVolumeClaim,
        provisioner: &str,
    ) -> Result<(), Error> {
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or \
             manually by the system administrator. If volume creation is delayed, please verify that the \
             provisioner is running and correctly registered."
        );
        let annotations = claim.metadata.annotations.as_ref();
        let requested = annotations.and_then(|annotations| annotations.get(STORAGE_PROVISIONER));
        if requested.map(String::as_str) != Some(provisioner) {
            let set = |claim: &mut PersistentVolumeClaim| {
                let annotations = claim.metadata.annotations.get_or_insert_default();
                annotations.insert(STORAGE_PROVISIONER.into(), provisioner.into());
            };
            self.replace(claim, "request a volume for", set).await?;
            self.recorder.normal(claim, "ExternalProvisioning", message);
        }
        Ok(())
    }

    async fn write_phase(
        &self,
        claim: &PersistentVolumeClaim,
        phase: &str,
        volume: Option<&PersistentVolume>,
    ) -> Result<(), Error> {
        let spec = volume.and_then(|volume| volume.spec.as_ref());
        let was = claim.status.clone().unwrap_or_default();
        // The size of a claim that is bound follows its volume's when the volume has been resized.
        let capacity = match volume {
            Some(_) if was.phase.as_deref() == Some(phase) => was.capacity.clone(),
            _ => spec.and_then(|spec| spec.capacity.clone()),
        };
        let status = PersistentVolumeClaimStatus {
            phase: Some(phase.into()),
            access_modes: spec.and_then(|spec| spec.access_modes.clone()),
            capacity,
            ..was
        };
        status::update(&self.client, claim, |claim| claim.status = Some(status)).await.map(drop)
    }
}

impl Controller for Volumes {
    const NAME: &'static str = "persistentvolume";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        // A volume that is being deleted too: its protection waits until it is not Bound any more.
        let Some(volume) = self.volumes.get(key) else {
            return Ok(Next::Change);
        };
        let volumes = Api::<PersistentVolume>::all(&self.client);
        let claim = self.claim_of(&volume).await?;
        let mut changed = (*volume).clone();
        match plan_volume(&volume, claim.as_ref()) {
            VolumePlan::Unbind => {
                changed.spec.get_or_insert_default().claim_ref = None;
                if let Some(annotations) = &mut changed.metadata.annotations {
                    annotations.remove(plan::BOUND_BY_CONTROLLER);
                }
                volumes
                    .replace(&changed)
                    .await
                    .during(|| format!("unbind persistentvolume {key}"))?;
            }
            VolumePlan::Phase(phase, message) => {
                let status = changed.status.get_or_insert_default();
                if status.phase.as_deref() == Some(phase) {
                    return Ok(Next::Change);
                }
                status.phase = Some(phase.into());
                status.message = (!message.is_empty()).then(|| message.into());
                status.last_phase_transition_time = Some(Time(self.clock.now()));
                status::write(&self.client, &*volume, &changed).await?;
            }
        }
        Ok(Next::Change)
    }
}

impl Volumes {
    /// Read from the server, so that no volume is released because of a stale cache.
    async fn claim_of(
        &self,
        volume: &PersistentVolume,
    ) -> Result<Option<PersistentVolumeClaim>, Error> {
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let Some(reference) = reference else {
            return Ok(None);
        };
        let namespace = reference.namespace.as_deref().unwrap_or_default();
        let name = reference.name.as_deref().unwrap_or_default();
        Api::<PersistentVolumeClaim>::namespaced(&self.client, namespace)
            .get_opt(name)
            .await
            .during(|| format!("get persistentvolumeclaim {namespace}/{name}"))
    }
}
