//! Volumes as CSI drivers count them. The drivers that have replaced volume types of Kubernetes
//! also count volumes of those types, by the handles that `k8s.io/csi-translation-lib` gives them.

use k8s_openapi::api::core::v1::{PersistentVolume, Volume};

/// A volume that a CSI driver attaches to a node. Two with the same driver and handle are one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attached {
    pub driver: String,
    pub handle: String,
    /// Counts only on nodes that say that they have handed this type of volume to its driver.
    pub migrated: Option<&'static str>,
}

impl Attached {
    /// What makes it one volume: the driver and the handle.
    pub fn id(&self) -> (&str, &str) {
        (&self.driver, &self.handle)
    }
}

/// A type of volume that a driver has replaced.
#[derive(Debug, PartialEq, Eq)]
pub struct Migration {
    pub provisioner: &'static str,
    driver: &'static str,
    /// Whether a node has to say so; for the others it is taken for granted.
    announced: bool,
}

const fn replaced(provisioner: &'static str, driver: &'static str) -> Migration {
    Migration { provisioner, driver, announced: false }
}

const EBS: Migration = replaced("kubernetes.io/aws-ebs", "ebs.csi.aws.com");
const GCE: Migration = replaced("kubernetes.io/gce-pd", "pd.csi.storage.gke.io");
const AZURE: Migration = replaced("kubernetes.io/azure-disk", "disk.csi.azure.com");
const CINDER: Migration = replaced("kubernetes.io/cinder", "cinder.csi.openstack.org");
const PORTWORX: Migration =
    Migration { announced: true, ..replaced("kubernetes.io/portworx-volume", "pxd.portworx.com") };
/// Types whose volumes are counted. Those of Azure Files and vSphere are not, as upstream.
const MIGRATIONS: [&Migration; 5] = [&EBS, &GCE, &AZURE, &CINDER, &PORTWORX];

impl Migration {
    fn volume(&self, handle: impl Into<String>) -> Attached {
        let migrated = self.announced.then_some(self.provisioner);
        Attached { driver: self.driver.to_owned(), handle: handle.into(), migrated }
    }
}

/// A volume that the provisioner of a class will make.
pub fn to_be_made(provisioner: &str, handle: String) -> Attached {
    let migration = MIGRATIONS.iter().find(|known| known.provisioner == provisioner);
    migration.map_or_else(
        || Attached { driver: provisioner.to_owned(), handle: handle.clone(), migrated: None },
        |migration| migration.volume(handle.clone()),
    )
}

/// The driver's view of a persistent volume.
pub fn of_volume(volume: &PersistentVolume) -> Option<Attached> {
    let spec = volume.spec.as_ref()?;
    if let Some(csi) = &spec.csi {
        let (driver, handle) = (csi.driver.clone(), csi.volume_handle.clone());
        return Some(Attached { driver, handle, migrated: None });
    }
    if let Some(disk) = &spec.aws_elastic_block_store {
        return Some(EBS.volume(ebs_id(&disk.volume_id)));
    }
    if let Some(disk) = &spec.gce_persistent_disk {
        return Some(GCE.volume(format!("{}/disks/{}", gce_place(volume), disk.pd_name)));
    }
    if let Some(disk) = &spec.azure_disk {
        return Some(AZURE.volume(&disk.disk_uri));
    }
    if let Some(disk) = &spec.cinder {
        return Some(CINDER.volume(&disk.volume_id));
    }
    spec.portworx_volume.as_ref().map(|disk| PORTWORX.volume(&disk.volume_id))
}

/// The driver's view of a volume that a pod names itself. Inline volumes of CSI drivers are not
/// attached, and not counted.
pub fn of_pod(volume: &Volume) -> Option<Attached> {
    if let Some(disk) = &volume.aws_elastic_block_store {
        return Some(EBS.volume(ebs_id(&disk.volume_id)));
    }
    if let Some(disk) = &volume.gce_persistent_disk {
        let place = format!("projects/{UNSPECIFIED}/zones/{UNSPECIFIED}");
        return Some(GCE.volume(format!("{place}/disks/{}", disk.pd_name)));
    }
    if let Some(disk) = &volume.azure_disk {
        return Some(AZURE.volume(&disk.disk_uri));
    }
    if let Some(disk) = &volume.cinder {
        return Some(CINDER.volume(&disk.volume_id));
    }
    volume.portworx_volume.as_ref().map(|disk| PORTWORX.volume(&disk.volume_id))
}

const UNSPECIFIED: &str = "UNSPECIFIED";

/// `aws://eu-west-1a/vol-1` or `vol-1`.
fn ebs_id(id: &str) -> &str {
    let path = id.strip_prefix("aws://").map(|rest| rest.trim_start_matches('/'));
    path.map_or(id, |path| path.rsplit('/').next().unwrap_or(path))
}

/// The zone or the region of a disk, by the labels of its volume.
fn gce_place(volume: &PersistentVolume) -> String {
    let label = |name: &str| {
        let labels = volume.metadata.labels.as_ref();
        let names = [
            format!("topology.kubernetes.io/{name}"),
            format!("failure-domain.beta.kubernetes.io/{name}"),
        ];
        names.iter().find_map(|name| labels?.get(name).cloned())
    };
    let project = format!("projects/{UNSPECIFIED}");
    match (label("zone"), label("region")) {
        (Some(zones), Some(region)) if zones.contains("__") => {
            format!("{project}/regions/{region}")
        }
        (Some(zone), _) if !zone.contains("__") => format!("{project}/zones/{zone}"),
        _ => format!("{project}/zones/{UNSPECIFIED}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn volumes_of_replaced_types_are_those_of_their_drivers() {
        let zone = json!({"topology.kubernetes.io/zone": "a"});
        let zones =
            json!({"topology.kubernetes.io/zone": "a__b", "topology.kubernetes.io/region": "r"});
        let none = json!({});
        for (source, labels, driver, handle) in [
            (json!({"csi": {"driver": "d", "volumeHandle": "h"}}), &none, "d", "h"),
            (
                json!({"awsElasticBlockStore": {"volumeID": "aws://eu-west-1a/vol-1"}}),
                &none,
                "ebs.csi.aws.com",
                "vol-1",
            ),
            (
                json!({"gcePersistentDisk": {"pdName": "p"}}),
                &zone,
                "pd.csi.storage.gke.io",
                "projects/UNSPECIFIED/zones/a/disks/p",
            ),
            (
                json!({"gcePersistentDisk": {"pdName": "p"}}),
                &zones,
                "pd.csi.storage.gke.io",
                "projects/UNSPECIFIED/regions/r/disks/p",
            ),
            (
                json!({"gcePersistentDisk": {"pdName": "p"}}),
                &none,
                "pd.csi.storage.gke.io",
                "projects/UNSPECIFIED/zones/UNSPECIFIED/disks/p",
            ),
            (
                json!({"azureDisk": {"diskName": "n", "diskURI": "/u"}}),
                &none,
                "disk.csi.azure.com",
                "/u",
            ),
            (json!({"cinder": {"volumeID": "c"}}), &none, "cinder.csi.openstack.org", "c"),
        ] {
            let volume: Value =
                json!({"metadata": {"name": "v", "labels": labels}, "spec": source});
            let volume = serde_json::from_value(volume).unwrap();
            let expected =
                Attached { driver: driver.into(), handle: handle.into(), migrated: None };
            assert_eq!(of_volume(&volume), Some(expected), "{source}");
        }
        let nfs = json!({"metadata": {}, "spec": {"nfs": {"path": "/", "server": "s"}}});
        assert_eq!(of_volume(&serde_json::from_value(nfs).unwrap()), None);
        let of_pod = |volume: Value| super::of_pod(&serde_json::from_value(volume).unwrap());
        let portworx = of_pod(json!({"name": "v", "portworxVolume": {"volumeID": "p"}})).unwrap();
        assert_eq!(portworx.migrated, Some("kubernetes.io/portworx-volume"));
        assert_eq!(of_pod(json!({"name": "v", "csi": {"driver": "d"}})), None);
        assert_eq!(to_be_made("kubernetes.io/aws-ebs", "h".into()).driver, "ebs.csi.aws.com");
        assert_eq!(to_be_made("other", "h".into()).driver, "other");
    }
}
