//! Sets up, updates and tears down a pod's volumes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Pod, Volume};

use super::atomic;
use super::sources::{Contents, Subject};
use super::{
    Mounted, MountedVolumes, VolumeError, VolumeManager, claim, directory, mount, ownership,
};
use crate::pod::downward_api::RuntimeFields;
use crate::pod::pod_ext::PodExt;
use crate::pod::worker::handle::WorkerHandle;

impl VolumeManager {
    /// Mounts what is missing and updates contents, all volumes at once: one whose source is
    /// missing does not block the others.
    pub async fn sync(
        &self,
        pod: &Pod,
        runtime_fields: &RuntimeFields,
        worker: &Arc<WorkerHandle>,
    ) -> Result<MountedVolumes, VolumeError> {
        let subject = Subject { pod, runtime_fields, worker };
        let volumes = pod.spec_ref().volumes.iter().flatten();
        let each = volumes.map(|volume| async {
            let named = |error: VolumeError| error.of(&volume.name);
            let (mounted, renew_at) = self.one(&subject, volume).await.map_err(named)?;
            Ok::<_, VolumeError>((volume.name.clone(), mounted, renew_at))
        });
        let mut all = MountedVolumes::default();
        for one in join_all(each).await {
            let (name, mounted, renew_at) = one?;
            all.by_name.insert(name, mounted);
            if let Some(at) = renew_at {
                all.renew_at = Some(all.renew_at.map_or(at, |before| before.min(at)));
            }
        }
        Ok(all)
    }

    async fn one(
        &self,
        subject: &Subject<'_>,
        volume: &Volume,
    ) -> Result<(Mounted, Option<jiff::Timestamp>), VolumeError> {
        let path = self.path(subject.pod.uid(), volume);
        let group = fs_group(subject.pod);
        if let Some(Contents { payload, renew_at }) = self.contents(subject, volume).await? {
            let now = self.clock.now();
            blocking(move || {
                fs::create_dir_all(&path).map_err(VolumeError::io("create", &path))?;
                atomic::write(&path, &payload, group, now)?;
                Ok(Mounted { path, read_only: true })
            })
            .await
            .map(|mounted| (mounted, renew_at))
        } else {
            Ok((self.place(subject.pod, volume, path, group).await?, None))
        }
    }

    async fn place(
        &self,
        pod: &Pod,
        volume: &Volume,
        path: PathBuf,
        group: Option<u32>,
    ) -> Result<Mounted, VolumeError> {
        let security = pod.spec_ref().security_context.as_ref();
        let policy = security.and_then(|security| security.fs_group_change_policy.as_deref());
        let if_needed = policy == Some("OnRootMismatch");
        if let Some(source) = volume.empty_dir.clone() {
            return blocking(move || {
                let new = !path.exists();
                directory::empty_dir(&path, &source)?;
                if let Some(group) = group.filter(|_| new) {
                    ownership::give_to_group(&path, group, if_needed)?;
                }
                Ok(Mounted { path, read_only: false })
            })
            .await;
        }
        if let Some(source) = volume.host_path.clone() {
            return blocking(move || {
                let path = directory::host_path(&source)?;
                Ok(Mounted { path, read_only: false })
            })
            .await;
        }
        if let Some(source) = &volume.persistent_volume_claim {
            let (place, read_only) = self.claimed(pod, &source.claim_name).await?;
            let read_only = read_only || source.read_only == Some(true);
            return self.occupy(pod, place, path, read_only, group, if_needed).await;
        }
        if volume.ephemeral.is_some() {
            let claim = format!("{}-{}", pod.pod_name(), volume.name);
            let (place, read_only) = self.claimed(pod, &claim).await?;
            return self.occupy(pod, place, path, read_only, group, if_needed).await;
        }
        if let Some(source) = volume.nfs.clone() {
            let read_only = source.read_only == Some(true);
            return blocking(move || {
                fs::create_dir_all(&path).map_err(VolumeError::io("create", &path))?;
                mount::nfs(&source.server, &source.path, &path, &[])?;
                Ok(Mounted { path, read_only })
            })
            .await;
        }
        if volume.image.is_some() {
            // The pod's actions mount the image here.
            return blocking(move || {
                fs::create_dir_all(&path).map_err(VolumeError::io("create", &path))?;
                Ok(Mounted { path, read_only: true })
            })
            .await;
        }
        Err(match plugin(volume) {
            "none" => VolumeError::NoSource,
            plugin => VolumeError::Unsupported(plugin),
        })
    }

    async fn occupy(
        &self,
        pod: &Pod,
        place: claim::BoundVolume,
        path: PathBuf,
        read_only: bool,
        group: Option<u32>,
        if_needed: bool,
    ) -> Result<Mounted, VolumeError> {
        // Once per pod: files that the pod creates later keep their group.
        let marker = self
            .directories
            .volumes(pod.uid())
            .join(format!(".owned-{}", path.file_name().unwrap_or_default().to_string_lossy()));
        blocking(move || {
            let mounted = claim::occupy(&place, &path, read_only)?;
            if let Some(group) = group.filter(|_| !read_only && !marker.exists()) {
                ownership::give_to_group(&mounted.path, group, if_needed)?;
                if let Some(parent) = marker.parent() {
                    fs::create_dir_all(parent).map_err(VolumeError::io("create", parent))?;
                }
                fs::write(&marker, b"").map_err(VolumeError::io("write", &marker))?;
            }
            Ok(mounted)
        })
        .await
    }

    fn path(&self, uid: &str, volume: &Volume) -> PathBuf {
        self.directories
            .volumes(uid)
            .join(format!("kubernetes.io~{}", plugin(volume)))
            .join(&volume.name)
    }

    /// Unmounts the pod's volumes and sub-paths, and removes what was created for them.
    pub async fn tear_down(&self, uid: &str) -> Result<(), VolumeError> {
        self.tokens.release(uid);
        let (volumes, containers) =
            (self.directories.volumes(uid), self.directories.pod(uid).join("containers"));
        blocking(move || {
            mount::unmount_all(&containers)?;
            mount::unmount_all(&volumes)?;
            remove_tree(&volumes)
        })
        .await
    }
}

/// Removes a directory tree without mounts, if it exists.
pub fn remove_tree(path: &Path) -> Result<(), VolumeError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(VolumeError::io("remove", path)),
    }
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let group = pod.spec_ref().security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

/// The plugin's name in the path, as upstream.
fn plugin(volume: &Volume) -> &'static str {
    match volume {
        Volume { empty_dir: Some(_), .. } => "empty-dir",
        Volume { host_path: Some(_), .. } => "host-path",
        Volume { config_map: Some(_), .. } => "configmap",
        Volume { secret: Some(_), .. } => "secret",
        Volume { downward_api: Some(_), .. } => "downward-api",
        Volume { projected: Some(_), .. } => "projected",
        Volume { persistent_volume_claim: Some(_), .. } => "claim",
        Volume { ephemeral: Some(_), .. } => "ephemeral",
        Volume { nfs: Some(_), .. } => "nfs",
        Volume { csi: Some(_), .. } => "csi",
        Volume { image: Some(_), .. } => "image",
        Volume { iscsi: Some(_), .. } => "iscsi",
        Volume { fc: Some(_), .. } => "fc",
        Volume { rbd: Some(_), .. } => "rbd",
        Volume { cephfs: Some(_), .. } => "cephfs",
        Volume { git_repo: Some(_), .. } => "git-repo",
        Volume { flex_volume: Some(_), .. } => "flexvolume",
        _ => "none",
    }
}

/// Runs blocking file system work off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, VolumeError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| VolumeError::Cancelled)?
}
