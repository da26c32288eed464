//! Unpacks layers from the content store into snapshots, and records images by name.

use std::collections::HashMap;
use std::time::Duration;

use clock::{Clock, SystemClock};
use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
};
use containerd_client::services::v1::{
    ApplyRequest, CreateImageRequest, CreateRequest as CreateLease, DeleteRequest as DeleteLease,
    Image as ImageRecord, UpdateImageRequest,
};
use containerd_client::types::{Descriptor as ContainerdDescriptor, Mount};
use prost_types::FieldMask;
use tonic::{Code, Status};

use super::content::set_labels;
use super::error::{ImageError, Result};
use super::manifest::{Descriptor, Manifest};
use super::store::{Contents, ImageStore};
use crate::containers::Containerd;

/// A lease left behind by a crash expires after this time.
const LEASE_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Holds what a pull or load writes, until the image's record refers to it.
pub(crate) struct Lease {
    id: String,
    containerd: Containerd,
}

impl Lease {
    pub(crate) async fn take(containerd: &Containerd) -> Result<Self> {
        let id = format!("skiff-{:016x}", rand::random::<u64>());
        let expires = SystemClock.now() + LEASE_LIFE;
        let labels = HashMap::from([("containerd.io/gc.expire".to_string(), expires.to_string())]);
        let response = containerd.leases().create(CreateLease { id: id.clone(), labels }).await;
        response.map_err(|status| ImageError::from_status("create lease", &status))?;
        Ok(Lease { containerd: containerd.with_lease(&id), id })
    }

    /// The connection whose writes this lease holds.
    pub(crate) fn containerd(&self) -> &Containerd {
        &self.containerd
    }

    /// Releases the lease. What no image refers to is then garbage.
    pub(crate) async fn release(self) {
        let request = DeleteLease { id: self.id.clone(), sync: false };
        if let Err(status) = self.containerd.leases().delete(request).await {
            tracing::debug!(lease = %self.id, message = status.message(), "a lease remains until it expires");
        }
    }
}

impl ImageStore {
    /// Unpacks one layer on top of those below, unless its snapshot exists.
    pub(crate) async fn unpack_layer(
        &self,
        containerd: &Containerd,
        layer: &Descriptor,
        diff_id: &str,
        parent: &str,
        chain_id: &str,
    ) -> Result<()> {
        if self.has_snapshot(chain_id).await? {
            return Ok(());
        }
        let key = format!("extract-{:016x} {chain_id}", rand::random::<u64>());
        let request = PrepareSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.clone(),
            parent: parent.to_string(),
            labels: HashMap::new(),
        };
        let response = containerd.snapshots().prepare(request).await;
        let mounts = response
            .map_err(|status| ImageError::from_status(format!("prepare {key}"), &status))?;
        let done = self
            .apply_and_commit(
                containerd,
                layer,
                diff_id,
                chain_id,
                &key,
                mounts.into_inner().mounts,
            )
            .await;
        if done.is_err() {
            let request =
                RemoveSnapshotRequest { snapshotter: self.snapshotter.clone(), key: key.clone() };
            if let Err(status) = containerd.snapshots().remove(request).await {
                tracing::debug!(%key, message = status.message(), "an incomplete snapshot remains until its lease is released");
            }
        }
        done
    }

    async fn apply_and_commit(
        &self,
        containerd: &Containerd,
        layer: &Descriptor,
        diff_id: &str,
        chain_id: &str,
        key: &str,
        mounts: Vec<Mount>,
    ) -> Result<()> {
        let failed = |operation: &str| {
            let operation = format!("{operation} layer {}", layer.digest);
            move |status: Status| ImageError::from_status(operation, &status)
        };
        let request =
            ApplyRequest { diff: Some(to_containerd(layer)), mounts, ..ApplyRequest::default() };
        let applied =
            containerd.diff().apply(request).await.map_err(failed("unpack"))?.into_inner().applied;
        let applied = applied.map(|applied| applied.digest).unwrap_or_default();
        if applied != diff_id {
            return Err(ImageError::Containerd {
                operation: format!("unpack layer {}", layer.digest),
                message: format!("its content is {applied}, its image says {diff_id}"),
            });
        }
        let request = CommitSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            name: chain_id.to_string(),
            key: key.to_string(),
            labels: HashMap::new(),
        };
        match containerd.snapshots().commit(request).await {
            Ok(_) => Ok(()),
            // Another image with the same layers was faster: ours is not needed.
            Err(status) if status.code() == Code::AlreadyExists => {
                let request = RemoveSnapshotRequest {
                    snapshotter: self.snapshotter.clone(),
                    key: key.to_string(),
                };
                containerd.snapshots().remove(request).await.map_err(failed("remove spare"))?;
                Ok(())
            }
            Err(status) => Err(failed("commit")(status)),
        }
    }

    pub(crate) async fn has_snapshot(&self, chain_id: &str) -> Result<bool> {
        let request = StatSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: chain_id.to_string(),
        };
        match self.containerd.snapshots().stat(request).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => {
                Err(ImageError::from_status(format!("stat snapshot {chain_id}"), &status))
            }
        }
    }

    /// Labels an image's documents so that the garbage collector keeps what they refer to.
    pub(crate) async fn link(
        &self,
        containerd: &Containerd,
        contents: &Contents,
        target: &Descriptor,
    ) -> Result<()> {
        if target.digest != contents.manifest_digest {
            let label = HashMap::from([(reference_label("m.0"), contents.manifest_digest.clone())]);
            set_labels(containerd, &target.digest, label).await?;
        }
        let Manifest { config, layers, .. } = &contents.manifest;
        let mut labels = HashMap::from([(reference_label("config"), config.digest.clone())]);
        for (index, layer) in layers.iter().enumerate() {
            labels.insert(reference_label(&format!("l.{index}")), layer.digest.clone());
        }
        set_labels(containerd, &contents.manifest_digest, labels).await?;
        if let Some(top) = contents.chain_ids.last() {
            let key = format!("containerd.io/gc.ref.snapshot.{}", self.snapshotter);
            set_labels(containerd, &config.digest, HashMap::from([(key, top.clone())])).await?;
        }
        Ok(())
    }

    /// Names an image; a name of another image is moved.
    pub(crate) async fn name(&self, name: &str, target: &Descriptor) -> Result<()> {
        let record = ImageRecord {
            name: name.to_string(),
            target: Some(to_containerd(target)),
            labels: HashMap::from([("io.cri-containerd.image".to_string(), "managed".to_string())]),
            ..ImageRecord::default()
        };
        let create =
            CreateImageRequest { image: Some(record.clone()), ..CreateImageRequest::default() };
        match self.containerd.images().create(create).await {
            Ok(_) => return Ok(()),
            Err(status) if status.code() == Code::AlreadyExists => {}
            Err(status) => {
                return Err(ImageError::from_status(format!("name image {name}"), &status));
            }
        }
        let update = UpdateImageRequest {
            image: Some(record),
            update_mask: Some(FieldMask { paths: vec!["target".to_string()] }),
            ..UpdateImageRequest::default()
        };
        let response = self.containerd.images().update(update).await;
        response
            .map_err(|status| ImageError::from_status(format!("name image {name}"), &status))?;
        Ok(())
    }
}

fn reference_label(what: &str) -> String {
    format!("containerd.io/gc.ref.content.{what}")
}

fn to_containerd(descriptor: &Descriptor) -> ContainerdDescriptor {
    ContainerdDescriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.clone(),
        size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
        annotations: HashMap::new(),
    }
}
