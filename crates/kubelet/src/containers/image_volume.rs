//! Images as volumes: what to mount to see an image's files in a pod's directory. The caller mounts
//! it; a snapshot keeps the layers on the node for as long as the pod exists.

use std::fs;

use containerd_client::services::v1::snapshots::{ListSnapshotsRequest, ViewSnapshotRequest};
use containerd_client::types::Mount;
use tonic::{Code, Status};

use super::id::container_id;
use super::record;
use super::rootfs::GC_ROOT;
use super::{Inner, Result, Runtime, RuntimeError};

/// Value of their label [`GC_ROOT`], which distinguishes them from root file systems.
const OF_VOLUME: &str = "volume";

/// One mount of a file system, as containerd describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageMount {
    /// `overlay`, or `bind` for an image of one layer.
    pub kind: String,
    pub source: String,
    pub options: Vec<String>,
}

impl From<Mount> for ImageMount {
    fn from(mount: Mount) -> Self {
        Self { kind: mount.r#type, source: mount.source, options: mount.options }
    }
}

impl Runtime {
    /// What to mount to show an image of this node in a volume. Idempotent.
    pub async fn view_image(
        &self,
        pod_uid: &str,
        volume: &str,
        image: &str,
    ) -> Result<Option<ImageMount>> {
        let contents = self.inner.image_contents(image).await?;
        // Spares all other pods the search when they are removed.
        let marker = self.inner.pod_paths(pod_uid).images();
        if let Some(directory) = marker.parent() {
            fs::create_dir_all(directory).map_err(RuntimeError::io("create", directory))?;
        }
        fs::write(&marker, b"").map_err(RuntimeError::io("write", &marker))?;
        let key = container_id(pod_uid, &format!("volume/{volume}"), 0).0;
        let request = ViewSnapshotRequest {
            snapshotter: self.inner.config.snapshotter.clone(),
            key: key.clone(),
            parent: contents.chain_ids.last().cloned().unwrap_or_default(),
            labels: [
                (GC_ROOT.to_owned(), OF_VOLUME.to_owned()),
                (record::POD_UID.to_owned(), pod_uid.to_owned()),
            ]
            .into(),
        };
        let mounts = match self.inner.containerd.snapshots().view(request).await {
            Ok(response) => response.into_inner().mounts,
            Err(status) if status.code() == Code::AlreadyExists => {
                self.inner.snapshot_mounts(&key).await?
            }
            Err(status) => {
                return Err(RuntimeError::from_status(format!("view {image}"), &status));
            }
        };
        Ok(mounts.into_iter().next().map(ImageMount::from))
    }
}

impl Inner {
    /// Releases the images that a pod's volumes had mounted.
    pub(super) async fn release_images(&self, pod_uid: &str) -> Result<()> {
        if !self.pod_paths(pod_uid).images().exists() {
            return Ok(());
        }
        let failed = |status: Status| RuntimeError::from_status("list snapshots", &status);
        let request = ListSnapshotsRequest {
            snapshotter: self.config.snapshotter.clone(),
            filters: vec![format!("labels.\"{GC_ROOT}\"==\"{OF_VOLUME}\"")],
        };
        let mut client = self.containerd.snapshots();
        let mut pages = client.list(request).await.map_err(failed)?.into_inner();
        let mut keys = Vec::new();
        while let Some(page) = pages.message().await.map_err(failed)? {
            let own = page.info.into_iter().filter(|info| {
                info.labels.get(record::POD_UID).map(String::as_str) == Some(pod_uid)
            });
            keys.extend(own.map(|info| info.name));
        }
        for key in keys {
            self.remove_snapshot(&key).await?;
        }
        Ok(())
    }
}
