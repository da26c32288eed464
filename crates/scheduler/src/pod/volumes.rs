//! The volumes of a pod that matter for its node.

use k8s_openapi::api::core::v1::{PodSpec, Volume};

use super::Disk;

/// Names of the claims in the pod's namespace that must be bound before it can run.
pub fn claims(spec: &PodSpec, pod_name: &str) -> Vec<String> {
    spec.volumes
        .iter()
        .flatten()
        .filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(claim), _) => Some(claim.claim_name.clone()),
            (None, Some(_)) => Some(format!("{pod_name}-{}", volume.name)),
            (None, None) => None,
        })
        .collect()
}

/// Disks that VolumeRestrictions keeps pods from sharing.
pub fn disks(spec: &PodSpec) -> Vec<Disk> {
    spec.volumes.iter().flatten().filter_map(disk).collect()
}

fn disk(volume: &Volume) -> Option<Disk> {
    let plain = |kind, id: &str, read_only| Disk {
        id: (kind, id.to_owned()),
        monitors: Vec::new(),
        read_only,
    };
    if let Some(disk) = &volume.gce_persistent_disk {
        return Some(plain("gce", &disk.pd_name, disk.read_only.unwrap_or(false)));
    }
    if let Some(disk) = &volume.aws_elastic_block_store {
        // Never shared, not even by readers.
        return Some(plain("aws", &disk.volume_id, false));
    }
    if let Some(disk) = &volume.iscsi {
        return Some(plain("iscsi", &disk.iqn, disk.read_only.unwrap_or(false)));
    }
    let disk = volume.rbd.as_ref()?;
    let pool = disk.pool.as_deref().unwrap_or("rbd");
    Some(Disk {
        monitors: disk.monitors.clone(),
        ..plain("rbd", &format!("{pool}/{}", disk.image), disk.read_only.unwrap_or(false))
    })
}
