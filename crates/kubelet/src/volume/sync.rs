//! Sets up, updates and tears down a pod's volumes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use api::quantity::Quantity;
use futures::future::join_all;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, Volume};

use super::directory::Medium;
use super::once::Once;
use super::sources::{Contents, Subject};
use super::{
    Mounted, MountedVolumes, VolumeError, VolumeManager, atomic, claim, directory, mount,
    ownership, tree,
};
use crate::pod::downward_api::RuntimeFields;
use crate::pod::pod_ext::PodExt;
use crate::pod::resources;
use crate::pod::worker::handle::WorkerHandle;

/// Mode of the directories that hold the volumes of a pod: containers reach them by their mounts,
/// and nobody else has any business there.
const PARENT_MODE: u32 = 0o700;

/// Pause before a volume that could not grow is tried again.
const GROW_RETRY: SignedDuration = SignedDuration::from_mins(1);

impl VolumeManager {
    /// Mounts what is missing and updates contents, all volumes at once: one whose source is
    /// missing does not block the others.
    pub async fn sync(
        &self,
        pod: &Pod,
        runtime_fields: &RuntimeFields,
        worker: &Arc<WorkerHandle>,
    ) -> Result<MountedVolumes, VolumeError> {
        self.make_parents(pod).await?;
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

    /// Creates the directories above the pod's volumes.
    async fn make_parents(&self, pod: &Pod) -> Result<(), VolumeError> {
        let volumes = pod.spec_ref().volumes.iter().flatten();
        let plugins: BTreeSet<PathBuf> = volumes
            .filter_map(|volume| Some(self.path(pod.uid(), volume).parent()?.to_owned()))
            .collect();
        if plugins.is_empty() {
            return Ok(());
        }
        let above = [self.directories.pod(pod.uid()), self.directories.volumes(pod.uid())];
        blocking(move || {
            let parents = above.iter().chain(&plugins);
            parents.into_iter().try_for_each(|path| mount::make_directory(path, PARENT_MODE))
        })
        .await
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
            let in_memory = volume.config_map.is_none();
            blocking(move || {
                directory::contents(&path, in_memory)?;
                atomic::write(&path, &payload, group, now)?;
                Ok(Mounted { path, read_only: true })
            })
            .await
            .map(|mounted| (mounted, renew_at))
        } else if let Some(claim) = claim_of(subject.pod, volume) {
            self.claim(subject, volume, &claim, path, group).await
        } else {
            Ok((self.place(subject, volume, path, group).await?, None))
        }
    }

    async fn place(
        &self,
        subject: &Subject<'_>,
        volume: &Volume,
        path: PathBuf,
        group: Option<u32>,
    ) -> Result<Mounted, VolumeError> {
        let pod = subject.pod;
        if let Some(source) = &volume.empty_dir {
            let medium = medium(pod, source, subject.runtime_fields)?;
            let set_up = self.once(pod, &volume.name);
            return blocking(move || {
                directory::empty_dir(&path, medium, group, &set_up)?;
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
        if let Some(source) = volume.nfs.clone() {
            let read_only = source.read_only == Some(true);
            return blocking(move || {
                mount::make_mount_point(&path)?;
                mount::nfs(&source.server, &source.path, &path, &[])?;
                Ok(Mounted { path, read_only })
            })
            .await;
        }
        if volume.image.is_some() {
            // The pod's actions mount the image here.
            return blocking(move || {
                mount::make_mount_point(&path)?;
                Ok(Mounted { path, read_only: true })
            })
            .await;
        }
        Err(match plugin(volume) {
            "none" => VolumeError::NoSource,
            plugin => VolumeError::Unsupported(plugin),
        })
    }

    /// A claim's volume; and when it is to be synced again, because it could not grow.
    async fn claim(
        &self,
        subject: &Subject<'_>,
        volume: &Volume,
        claim: &str,
        path: PathBuf,
        group: Option<u32>,
    ) -> Result<(Mounted, Option<jiff::Timestamp>), VolumeError> {
        let pod = subject.pod;
        let claimed = self.claimed(pod, &volume.name, claim).await?;
        if let claim::BoundVolume::OnDemand(local) = &claimed.place {
            let name = claimed.volume.metadata.name.as_deref().unwrap_or_default();
            self.users.register(name, subject.worker);
            self.make(local, &claimed.volume, &path).await?;
        }
        let source = volume.persistent_volume_claim.as_ref();
        let read_only = claimed.read_only || source.is_some_and(|one| one.read_only == Some(true));
        let security = pod.spec_ref().security_context.as_ref();
        let policy = security.and_then(|security| security.fs_group_change_policy.as_deref());
        let if_needed = policy == Some("OnRootMismatch");
        let group = group.filter(|_| !read_only && claimed.place.is_managed());
        let set_up = self.once(pod, &volume.name);
        let (place, store) = (claimed.place.clone(), self.store.clone());
        let mounted = blocking(move || {
            let mounted = claim::occupy(&place, &store, &path, read_only)?;
            if let Some(group) = group.filter(|_| !set_up.is_done()) {
                ownership::give_to_group(&mounted.path, group, if_needed)?;
                set_up.done()?;
            }
            Ok(mounted)
        })
        .await?;
        let again = self.grow(pod, &claimed).await;
        Ok((mounted, again.then(|| self.clock.now() + GROW_RETRY)))
    }

    /// What is done once for a volume of a pod, so that files of the pod keep their group.
    fn once(&self, pod: &Pod, volume: &str) -> Once {
        Once::new(self.directories.volumes(pod.uid()).join(format!(".owned-{volume}")))
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
        self.certificates.release(uid);
        let (volumes, containers) =
            (self.directories.volumes(uid), self.directories.pod(uid).join("containers"));
        let (store, uid) = (self.store.clone(), uid.to_owned());
        blocking(move || {
            mount::unmount_all(&containers)?;
            mount::unmount_all(&volumes)?;
            store.take_back(&uid)?;
            tree::remove(&volumes).map_err(VolumeError::io("remove", &volumes))
        })
        .await
    }
}

/// The name of the claim of a pod's volume.
fn claim_of(pod: &Pod, volume: &Volume) -> Option<String> {
    let named = volume.persistent_volume_claim.as_ref().map(|source| source.claim_name.clone());
    let own = volume.ephemeral.as_ref().map(|_| format!("{}-{}", pod.pod_name(), volume.name));
    named.or(own)
}

/// Where an emptyDir is stored, and how much of the node's memory it may take: no more than the
/// pod could use at all.
fn medium(
    pod: &Pod,
    source: &EmptyDirVolumeSource,
    runtime_fields: &RuntimeFields,
) -> Result<Medium, VolumeError> {
    match source.medium.as_deref() {
        None | Some("") => Ok(Medium::Disk),
        Some("Memory") => {
            let of_node = runtime_fields.allocatable.get("memory").map(|amount| amount.units());
            let of_pod = resources::pod_cgroup(pod).memory_limit_bytes;
            let own = source.size_limit.as_ref().map(|limit| Quantity::of(limit).units());
            let limits = [of_node, of_pod, own].into_iter().flatten();
            let limits = limits.filter_map(|limit| u64::try_from(limit).ok());
            Ok(Medium::Memory { max_bytes: limits.filter(|limit| *limit > 0).min() })
        }
        Some("HugePages") => single_page_size(pod),
        Some(other) => match other.strip_prefix("HugePages-") {
            Some(size) => resources::page_size(&format!("hugepages-{size}"))
                .map(|page_bytes| Medium::HugePages { page_bytes })
                .ok_or_else(|| VolumeError::Medium(other.to_owned())),
            None => Err(VolumeError::Medium(other.to_owned())),
        },
    }
}

/// Huge pages of the only size that the pod asks for.
fn single_page_size(pod: &Pod) -> Result<Medium, VolumeError> {
    let asked = api::pod::resources(pod.spec_ref(), api::pod::Side::Requests);
    let mut sizes = asked.keys().filter_map(|name| resources::page_size(name));
    match (sizes.next(), sizes.next()) {
        (Some(page_bytes), None) => Ok(Medium::HugePages { page_bytes }),
        (None, _) => Err(VolumeError::NoHugePages),
        (Some(_), Some(_)) => Err(VolumeError::PageSizes),
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
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, VolumeError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| VolumeError::Cancelled)?
}
