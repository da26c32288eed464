//! Volumes on demand, on the disk of the node where a claim's first pod runs: what the provisioner
//! (in the controller manager), the kubelets and the apiserver have to agree on.
//!
//! Such a volume is one of CSI with the driver [`PROVISIONER`], which is built in. Its handle is a
//! name, never a path: where a node keeps it is the node's own affair.

use k8s_openapi::api::core::v1::{CSIPersistentVolumeSource, PersistentVolume};

use crate::quantity::Quantity;

/// The provisioner of a StorageClass, and the driver of its volumes.
pub const PROVISIONER: &str = "skiff.dev/local-path";
/// Label of a volume: the node that keeps it.
pub const NODE_LABEL: &str = "skiff.dev/node";
/// Annotation of a volume: its node has made its contents. If they are missing from then on, they
/// are lost, and are not made anew.
pub const MADE: &str = "skiff.dev/volume-made";
/// Finalizer of a volume whose contents exist, or may.
pub const FINALIZER: &str = "skiff.dev/local-path";
/// Annotation of a volume and of a claim: who provisioned the one, and is asked to for the other.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Parameter of a StorageClass, and attribute of a volume: see [`Backing`].
pub const BACKING: &str = "backing";
/// What is in an image that is not a block device for its pods.
pub const FILE_SYSTEM: &str = "ext4";

/// What a volume is on its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backing {
    /// A directory. Nothing limits it to its size: it shares the node's disk.
    #[default]
    Directory,
    /// A file of exactly its size, which is reserved: a file system in it, or a block device.
    Image,
}

impl Backing {
    pub fn name(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Image => "image",
        }
    }

    /// `None`: there is no such backing.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Directory, Self::Image].into_iter().find(|one| one.name() == name)
    }
}

/// The source of a volume of this driver; `None` for every other volume.
pub fn source(volume: &PersistentVolume) -> Option<&CSIPersistentVolumeSource> {
    let source = volume.spec.as_ref()?.csi.as_ref()?;
    (source.driver == PROVISIONER).then_some(source)
}

/// What a volume of this driver is on its node.
pub fn backing(source: &CSIPersistentVolumeSource) -> Option<Backing> {
    let attributes = source.volume_attributes.as_ref();
    Backing::parse(attributes?.get(BACKING)?)
}

/// Whether the node has to give a volume of this driver its new size: a directory has none.
pub fn grows_on_node(volume: &PersistentVolume) -> bool {
    source(volume).and_then(backing) == Some(Backing::Image)
}

/// The node that keeps the volume.
pub fn node_of(volume: &PersistentVolume) -> Option<&str> {
    volume.metadata.labels.as_ref()?.get(NODE_LABEL).map(String::as_str)
}

/// The size of a volume of any kind, in bytes.
pub fn size_bytes(volume: &PersistentVolume) -> u64 {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
    let storage = capacity.and_then(|capacity| capacity.get("storage"));
    storage.map_or(0, |size| u64::try_from(Quantity::of(size).units()).unwrap_or(0))
}

/// Whether the node has to remove the contents: the volume is being deleted, no claim is bound to
/// it, and its policy is not to keep them.
pub fn is_to_be_removed(volume: &PersistentVolume) -> bool {
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    let policy =
        volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    volume.metadata.deletion_timestamp.is_some()
        && volume.metadata.finalizers.iter().flatten().any(|one| one == FINALIZER)
        && matches!(phase, Some("Available" | "Released" | "Failed"))
        && policy == Some("Delete")
        && source(volume).is_some()
}
