//! persistentVolumeClaim: from the claim to the volume that it is bound to, and how the node
//! accesses it (local, hostPath, nfs, and what the node itself keeps).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api::local_path;
use client::{Api, PatchKind};
use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, NodeSelectorTerm, PersistentVolume, PersistentVolumeClaim,
    PersistentVolumeSpec, Pod,
};

use serde_json::json;

use super::local_path::{LocalVolume, Store};
use super::sync::blocking;
use super::{Mounted, VolumeError, VolumeManager, directory, mount};
use crate::pod::pod_ext::PodExt;

/// A bound volume on this node.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum BoundVolume {
    /// A directory that the administrator has set aside for a claim.
    Local(PathBuf),
    /// A block device that the administrator has set aside for a claim.
    Device(PathBuf),
    /// A path of the node, which others use as well.
    HostPath(HostPathVolumeSource),
    Nfs {
        server: String,
        export: String,
        options: Vec<String>,
    },
    /// One that this node makes and keeps.
    OnDemand(LocalVolume),
}

impl BoundVolume {
    /// Whether the pod's `fsGroup` applies (`Managed` in Kubernetes): the rest belongs to the node
    /// or to a server.
    pub(super) fn is_managed(&self) -> bool {
        match self {
            Self::Local(_) => true,
            Self::OnDemand(volume) => !volume.block,
            Self::Device(_) | Self::HostPath(_) | Self::Nfs { .. } => false,
        }
    }
}

/// A claim, and what it is bound to.
#[derive(Clone, Debug)]
pub(super) struct Claimed {
    pub(super) claim: PersistentVolumeClaim,
    pub(super) volume: PersistentVolume,
    pub(super) place: BoundVolume,
    /// Read only, whatever the pod says.
    pub(super) read_only: bool,
}

impl VolumeManager {
    /// Finds the volume behind the claim of the pod's volume `name`, and checks that this pod may
    /// use it here.
    pub(super) async fn claimed(
        &self,
        pod: &Pod,
        name: &str,
        claim_name: &str,
    ) -> Result<Claimed, VolumeError> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(&self.client, pod.pod_namespace());
        let claim = claims
            .get_opt(claim_name)
            .await?
            .ok_or_else(|| VolumeError::NoClaim(claim_name.to_owned()))?;
        let bound =
            claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        let volume_name = claim
            .spec
            .as_ref()
            .and_then(|spec| spec.volume_name.clone())
            .filter(|name| bound && !name.is_empty())
            .ok_or_else(|| VolumeError::Unbound(claim_name.to_owned()))?;
        let volumes: Api<PersistentVolume> = Api::all(&self.client);
        let volume = volumes.get(&volume_name).await?;
        let refuse =
            |why: &str| VolumeError::Volume { volume: volume_name.clone(), why: why.to_owned() };
        let spec = volume.spec.clone().unwrap_or_default();
        let owner = spec.claim_ref.as_ref().and_then(|claim| claim.uid.clone());
        if owner.is_some() && owner != claim.metadata.uid {
            return Err(refuse("it is bound to another claim"));
        }
        check_mode(pod, name, spec.volume_mode.as_deref() == Some("Block"))?;
        let kept_by = volume.metadata.labels.as_ref();
        let kept_by = kept_by.and_then(|labels| labels.get(local_path::NODE_LABEL));
        if kept_by.is_none_or(|node| **node != *self.node_name) && !self.here(&spec) {
            return Err(refuse("it is not on this node"));
        }
        let modes = spec.access_modes.clone().unwrap_or_default();
        let read_only = !modes.is_empty() && modes.iter().all(|mode| mode == "ReadOnlyMany");
        let place = place(&volume).ok_or_else(|| refuse("its plugin is not supported"))?;
        Ok(Claimed { claim, volume, place, read_only })
    }

    fn here(&self, spec: &PersistentVolumeSpec) -> bool {
        let required = spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref());
        required.is_none_or(|required| {
            required.node_selector_terms.iter().any(|term| self.matches(term))
        })
    }

    /// Checks node affinity by host name; the scheduler has checked other labels.
    fn matches(&self, term: &NodeSelectorTerm) -> bool {
        term.match_expressions
            .iter()
            .flatten()
            .filter(|one| one.key == "kubernetes.io/hostname")
            .all(|one| {
                let named = one.values.iter().flatten().any(|value| **value == *self.node_name);
                match one.operator.as_str() {
                    "In" => named,
                    "NotIn" => !named,
                    "DoesNotExist" => false,
                    _ => true,
                }
            })
    }
}

/// Containers mount a file system, and have a block device.
fn check_mode(pod: &Pod, name: &str, block: bool) -> Result<(), VolumeError> {
    let spec = pod.spec_ref();
    let mut containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let wrong = containers.any(|container| match block {
        true => container.volume_mounts.iter().flatten().any(|mount| mount.name == name),
        false => container.volume_devices.iter().flatten().any(|device| device.name == name),
    });
    let volume = name.to_owned();
    match (wrong, block) {
        (false, _) => Ok(()),
        (true, true) => Err(VolumeError::Mode { volume, mode: "Block", field: "volumeMounts" }),
        (true, false) => {
            Err(VolumeError::Mode { volume, mode: "Filesystem", field: "volumeDevices" })
        }
    }
}

fn place(volume: &PersistentVolume) -> Option<BoundVolume> {
    let spec = volume.spec.as_ref()?;
    let block = spec.volume_mode.as_deref() == Some("Block");
    if let Some(source) = local_path::source(volume) {
        let annotations = volume.metadata.annotations.as_ref();
        return Some(BoundVolume::OnDemand(LocalVolume {
            handle: source.volume_handle.clone(),
            backing: local_path::backing(source)?,
            block,
            bytes: local_path::size_bytes(volume),
            made: annotations.is_some_and(|all| all.contains_key(local_path::MADE)),
            mount_options: spec.mount_options.clone().unwrap_or_default(),
        }));
    }
    if let Some(local) = &spec.local {
        let path = PathBuf::from(&local.path);
        return Some(if block { BoundVolume::Device(path) } else { BoundVolume::Local(path) });
    }
    if block {
        return None;
    }
    if let Some(host) = &spec.host_path {
        return Some(BoundVolume::HostPath(host.clone()));
    }
    let nfs = spec.nfs.as_ref()?;
    let mut options = spec.mount_options.clone().unwrap_or_default();
    if nfs.read_only == Some(true) {
        options.push("ro".to_owned());
    }
    Some(BoundVolume::Nfs { server: nfs.server.clone(), export: nfs.path.clone(), options })
}

/// Makes a volume accessible; a remote one is mounted at `at`. Blocks.
pub(super) fn occupy(
    place: &BoundVolume,
    store: &Store,
    at: &Path,
    read_only: bool,
) -> Result<Mounted, VolumeError> {
    let of_type = |path: &Path, type_: &str| {
        directory::host_path(&HostPathVolumeSource {
            path: path.to_string_lossy().into_owned(),
            type_: Some(type_.to_owned()),
        })
    };
    let path = match place {
        // It may be the mount point of a disk that is not there: nothing takes its place.
        BoundVolume::Local(path) if !path.exists() => {
            return Err(VolumeError::NoPath(path.clone()));
        }
        BoundVolume::Local(path) => of_type(path, "Directory")?,
        BoundVolume::Device(path) => of_type(path, "BlockDevice")?,
        BoundVolume::HostPath(source) => directory::host_path(source)?,
        BoundVolume::Nfs { server, export, options } => {
            mount::make_mount_point(at)?;
            mount::nfs(server, export, at, options)?;
            at.to_owned()
        }
        BoundVolume::OnDemand(volume) => store.give(volume, at)?,
    };
    Ok(Mounted { path, read_only })
}

impl VolumeManager {
    /// Makes the contents of a volume that this node keeps, if it has none yet, and records that.
    pub(super) async fn make(
        &self,
        volume: &LocalVolume,
        object: &PersistentVolume,
        at: &Path,
    ) -> Result<(), VolumeError> {
        let (store, wanted) = (self.store.clone(), volume.clone());
        let at = at.to_owned();
        blocking(move || {
            store.make(&wanted)?;
            let given = if wanted.made { None } else { Some(store.give(&wanted, &at)?) };
            given.map_or(Ok(()), |given| store.open_to_all(&wanted, &given))
        })
        .await?;
        if volume.made {
            return Ok(());
        }
        let metadata = &object.metadata;
        let made = BTreeMap::from([(local_path::MADE, "true")]);
        let patch = json!({"metadata": {"uid": metadata.uid, "annotations": made}});
        let volumes: Api<PersistentVolume> = Api::all(&self.client);
        let name = metadata.name.as_deref().unwrap_or_default();
        volumes.patch(name, PatchKind::Merge, &patch).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Kind;

    #[test]
    fn a_volume_is_used_as_its_mode_says() {
        let pod = Pod::decode(
            br#"{"metadata": {"name": "p"}, "spec": {
                "initContainers": [{"name": "i", "volumeDevices": [{"name": "raw", "devicePath": "/dev/x"}]}],
                "containers": [{"name": "c", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}}"#,
        )
        .unwrap();
        for (name, block, problem) in [
            ("raw", true, ""),
            ("data", false, ""),
            (
                "raw",
                false,
                "volume raw has volumeMode Filesystem, but is specified in volumeDevices",
            ),
            ("data", true, "volume data has volumeMode Block, but is specified in volumeMounts"),
        ] {
            let checked = check_mode(&pod, name, block).map_err(|error| error.to_string());
            assert_eq!(checked.err().unwrap_or_default(), problem);
        }
    }

    #[test]
    fn sources_of_volumes() {
        let volume = |spec: &str| {
            let json = format!(
                r#"{{"metadata": {{"name": "v", "annotations": {{"skiff.dev/volume-made": "true"}}}}, "spec": {spec}}}"#
            );
            place(&PersistentVolume::decode(json.as_bytes()).unwrap())
        };
        let csi = |driver: &str, backing: &str| {
            volume(&format!(
                r#"{{"capacity": {{"storage": "1Mi"}}, "volumeMode": "Block", "csi": {{"driver": "{driver}",
                    "volumeHandle": "h", "volumeAttributes": {{"backing": "{backing}"}}}}}}"#
            ))
        };
        let Some(BoundVolume::OnDemand(found)) = csi("skiff.dev/local-path", "image") else {
            panic!()
        };
        assert!(found.made && found.block && found.bytes == 1 << 20 && found.handle == "h");
        assert_eq!(csi("skiff.dev/local-path", "tape"), None);
        assert_eq!(csi("example.com/disk", "image"), None);
        let device = volume(r#"{"volumeMode": "Block", "local": {"path": "/dev/sdz"}}"#);
        assert_eq!(device, Some(BoundVolume::Device("/dev/sdz".into())));
        assert_eq!(volume(r#"{"volumeMode": "Block", "hostPath": {"path": "/x"}}"#), None);
    }
}
