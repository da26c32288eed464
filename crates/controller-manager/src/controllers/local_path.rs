//! Volumes on demand, on the disk of the node of a claim's first pod ([`api::local_path`]): what
//! CSI's external provisioner and resizer do beside a cluster, built in.
//!
//! The controllers decide, and the node acts. A volume's object is created first, under a name made
//! of the claim's uid, and the kubelet makes its contents at the first mount; on the way back the
//! kubelet removes the contents, then the finalizer. So there is never anything on a disk that no
//! object stands for, whoever is killed between which steps; and a kubelet creates no volumes.

mod provision;
mod reclaim;
mod resize;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::local_path::{PROVISIONED_BY, PROVISIONER, grows_on_node, node_of, source};
use api::storage_class;
use client::events::EventRecorder;
use client::{Api, Client, DeleteOptions};
use clock::SharedClock;
use k8s_openapi::api::core::v1::{
    Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use self::provision::{Observed, ProvisionPlan, plan_provision};
use self::reclaim::{ReclaimPlan, plan_reclaim};
use self::resize::{ResizeStep, plan_resize};
use super::persistent_volume::{claim_key, release};
use crate::Error;
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::error::{During, Unless};
use crate::machinery::index::By;
use crate::machinery::owner::{finalizers_without, is_deleting, patch_finalizers, uid};
use crate::machinery::queue::{Controller, Next};
use crate::machinery::status;
use crate::wire::Wiring;

struct Provisioner {
    client: Client,
    recorder: EventRecorder,
    claims: Arc<Cache<PersistentVolumeClaim>>,
    classes: Arc<Cache<StorageClass>>,
    nodes: Arc<Cache<Node>>,
}

struct Reclaimer {
    client: Client,
    recorder: EventRecorder,
    volumes: Arc<Cache<PersistentVolume>>,
    nodes: Arc<Cache<Node>>,
}

struct Resizer {
    client: Client,
    clock: SharedClock,
    recorder: EventRecorder,
    claims: Arc<Cache<PersistentVolumeClaim>>,
    volumes: Arc<Cache<PersistentVolume>>,
    nodes: Arc<Cache<Node>>,
}

/// Adds the three controllers; the keys are claims to provision for, volumes, and claims to resize.
pub fn start(wiring: &mut Wiring) {
    let provisioner = Provisioner {
        client: wiring.client.clone(),
        recorder: wiring.recorder.named(PROVISIONER),
        claims: wiring.cache(),
        classes: wiring.cache(),
        nodes: wiring.cache(),
    };
    let claims = wiring.cache::<PersistentVolumeClaim>();
    wiring
        .controller(provisioner)
        .of::<PersistentVolumeClaim>()
        .maps(move |change: &Change<StorageClass>| claims.keys_of(&By::Class(change.key().name)))
        .start();

    let reclaimer = Reclaimer {
        client: wiring.client.clone(),
        recorder: wiring.recorder.named(PROVISIONER),
        volumes: wiring.cache(),
        nodes: wiring.cache(),
    };
    let volumes = wiring.cache::<PersistentVolume>();
    let orphans = move |change: &Change<Node>| match change.new {
        Some(_) => Vec::new(),
        None => volumes.keys_of(&By::Node(change.key().name)),
    };
    wiring.controller(reclaimer).of::<PersistentVolume>().maps(orphans).start();

    let resizer = Resizer {
        client: wiring.client.clone(),
        clock: wiring.clock.clone(),
        recorder: wiring.recorder.named("external-resizer skiff.dev/local-path"),
        claims: wiring.cache(),
        volumes: wiring.cache(),
        nodes: wiring.cache(),
    };
    wiring
        .controller(resizer)
        .of::<PersistentVolumeClaim>()
        .maps(|change: &Change<PersistentVolume>| claim_key(change.last()))
        .start();
}

impl Controller for Provisioner {
    const NAME: &'static str = "local-path-provisioner";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(claim) = self.claims.get(key).filter(|claim| !is_deleting(&claim.metadata)) else {
            return Ok(Next::Change);
        };
        let class = self.classes.get(&Key::cluster(storage_class::of_claim(&claim)));
        let nodes = self.nodes.list();
        let plan =
            plan_provision(&Observed { claim: &claim, class: class.as_deref(), nodes: &nodes });
        match plan {
            ProvisionPlan::Nothing => {}
            ProvisionPlan::Create(volume) => self.create(&claim, &volume).await?,
            ProvisionPlan::Fail(why) => self.failed(&claim, &why),
            ProvisionPlan::Reschedule(why) => {
                self.failed(&claim, &why);
                self.release_node(&claim).await?;
            }
        }
        Ok(Next::Change)
    }
}

impl Provisioner {
    fn failed(&self, claim: &PersistentVolumeClaim, why: &str) {
        let class = storage_class::of_claim(claim);
        let message = format!("failed to provision volume with StorageClass {class:?}: {why}");
        self.recorder.warning(claim, "ProvisioningFailed", message);
    }

    async fn create(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
    ) -> Result<(), Error> {
        let (key, name) = (Key::of(claim), Key::of(volume).name);
        let created = Api::<PersistentVolume>::all(&self.client).create(volume).await;
        let created = created.unless_there();
        if created.during(|| format!("create persistentvolume {name} for {key}"))?.is_none() {
            // An earlier attempt, whose outcome was lost or is not in the cache yet.
            return Ok(());
        }
        let message = format!("External provisioner is provisioning volume for claim \"{key}\"");
        self.recorder.normal(claim, "Provisioning", message);
        let message = format!("Successfully provisioned volume {name}");
        self.recorder.normal(claim, "ProvisioningSucceeded", message);
        if !grows_on_node(volume) {
            let message = "The size of the volume is not enforced: it is a directory on the \
                           node's disk, which it shares with everything else there";
            self.recorder.normal(claim, "SizeNotEnforced", message);
        }
        tracing::info!(claim = %key, volume = name, "provisioned");
        Ok(())
    }

    /// Lets the scheduler choose another node.
    async fn release_node(&self, claim: &PersistentVolumeClaim) -> Result<(), Error> {
        let key = Key::of(claim);
        let mut changed = claim.clone();
        release(&mut changed);
        let claims = Api::<PersistentVolumeClaim>::namespaced(&self.client, &key.namespace);
        let replaced = claims.replace(&changed).await;
        replaced.during(|| format!("release the node of persistentvolumeclaim {key}"))?;
        Ok(())
    }
}

impl Controller for Reclaimer {
    const NAME: &'static str = "local-path-reclaimer";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(volume) = self.volumes.get(key) else {
            return Ok(Next::Change);
        };
        let node = node_of(&volume).and_then(|name| self.nodes.get(&Key::cluster(name)));
        match plan_reclaim(&volume, node.is_some()) {
            ReclaimPlan::Nothing => {}
            ReclaimPlan::Delete => {
                let volumes = Api::<PersistentVolume>::all(&self.client);
                let deleted = volumes.delete_exactly(&*volume, &DeleteOptions::default()).await;
                deleted.during(|| format!("delete persistentvolume {key}"))?;
            }
            ReclaimPlan::Forget(warning) => {
                if let Some(warning) = warning {
                    self.recorder.warning(&*volume, "VolumeFailedDelete", warning);
                }
                let (client, metadata) = (&self.client, &volume.metadata);
                let finalizers = finalizers_without(metadata, api::local_path::FINALIZER);
                patch_finalizers::<PersistentVolume>(client, metadata, finalizers)
                    .await
                    .during(|| format!("release persistentvolume {key}"))?;
            }
        }
        Ok(Next::Change)
    }
}

impl Controller for Resizer {
    const NAME: &'static str = "local-path-resizer";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(claim) = self.claims.get(key) else {
            return Ok(Next::Change);
        };
        let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone());
        let Some(volume) = name.and_then(|name| self.volumes.get(&Key::cluster(name))) else {
            return Ok(Next::Change);
        };
        let node = node_of(&volume).and_then(|name| self.nodes.get(&Key::cluster(name)));
        let mut claim = (*claim).clone();
        for step in plan_resize(&claim, &volume, node.as_deref(), &Time(self.clock.now())) {
            match step {
                ResizeStep::Fail { status, why } => {
                    claim = self.write_status(&claim, *status).await?;
                    self.recorder.warning(&claim, "VolumeResizeFailed", why);
                }
                ResizeStep::Grow(changed) => {
                    let message = format!("External resizer is resizing volume {}", changed.name());
                    self.recorder.normal(&claim, "Resizing", message);
                    let volumes = Api::<PersistentVolume>::all(&self.client);
                    let replaced = volumes.replace(&changed.0).await;
                    replaced.during(|| format!("resize persistentvolume {}", changed.name()))?;
                }
                ResizeStep::Status { status, event } => {
                    claim = self.write_status(&claim, *status).await?;
                    if let Some((reason, message)) = event {
                        self.recorder.normal(&claim, reason, message);
                    }
                }
            }
        }
        Ok(Next::Change)
    }
}

impl Resizer {
    async fn write_status(
        &self,
        claim: &PersistentVolumeClaim,
        status: PersistentVolumeClaimStatus,
    ) -> Result<PersistentVolumeClaim, Error> {
        status::update(&self.client, claim, |claim| claim.status = Some(status)).await
    }
}

/// Whether this volume was made for this very claim.
fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    reference.is_some_and(|reference| reference.uid.as_deref() == Some(uid(&claim.metadata)))
}

/// Whether the volume is one of this provisioner's.
fn is_ours(volume: &PersistentVolume) -> bool {
    let annotations = volume.metadata.annotations.as_ref();
    let by = annotations.and_then(|annotations| annotations.get(PROVISIONED_BY));
    source(volume).is_some() && by.is_some_and(|by| by == PROVISIONER)
}
