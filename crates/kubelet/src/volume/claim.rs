//! persistentVolumeClaim: from the claim to the volume that it is bound to, and how the node
//! accesses it (local, hostPath, nfs).

use std::path::{Path, PathBuf};

use client::Api;
use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, NodeSelectorTerm, PersistentVolume, PersistentVolumeClaim,
    PersistentVolumeSpec, Pod,
};

use super::{Mounted, VolumeError, VolumeManager, directory, mount};
use crate::pod::pod_ext::PodExt;

/// A bound volume on this node.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum BoundVolume {
    /// A directory that the administrator has set aside for a claim.
    Local(PathBuf),
    /// A path of the node, which others use as well.
    HostPath(HostPathVolumeSource),
    Nfs {
        server: String,
        export: String,
        options: Vec<String>,
    },
}

impl BoundVolume {
    /// Whether the pod's `fsGroup` applies (`Managed` in Kubernetes): the rest belongs to the node
    /// or to a server.
    pub(super) fn is_managed(&self) -> bool {
        matches!(self, Self::Local(_))
    }
}

impl VolumeManager {
    /// Finds the volume behind a claim and checks that this pod may use it here.
    pub(super) async fn claimed(
        &self,
        pod: &Pod,
        claim_name: &str,
    ) -> Result<(BoundVolume, bool), VolumeError> {
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
        if spec.volume_mode.as_deref() == Some("Block") {
            return Err(refuse("its mode is Block"));
        }
        if !self.here(&spec) {
            return Err(refuse("it is not on this node"));
        }
        let modes = spec.access_modes.clone().unwrap_or_default();
        let read_only = !modes.is_empty() && modes.iter().all(|mode| mode == "ReadOnlyMany");
        volume_source(&spec)
            .map(|volume_source| (volume_source, read_only))
            .ok_or_else(|| refuse("its plugin is not supported"))
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

fn volume_source(spec: &PersistentVolumeSpec) -> Option<BoundVolume> {
    if let Some(local) = &spec.local {
        return Some(BoundVolume::Local(PathBuf::from(&local.path)));
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
    volume_source: &BoundVolume,
    at: &Path,
    read_only: bool,
) -> Result<Mounted, VolumeError> {
    let path = match volume_source {
        BoundVolume::Local(path) => {
            let source = HostPathVolumeSource {
                path: path.to_string_lossy().into_owned(),
                type_: Some("DirectoryOrCreate".to_owned()),
            };
            directory::host_path(&source)?
        }
        BoundVolume::HostPath(source) => directory::host_path(source)?,
        BoundVolume::Nfs { server, export, options } => {
            mount::make_mount_point(at)?;
            mount::nfs(server, export, at, options)?;
            at.to_owned()
        }
    };
    Ok(Mounted { path, read_only })
}
