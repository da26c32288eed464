//! Local ephemeral storage: how much of the node's disk pods use, and emptyDir volumes that exceed
//! their `sizeLimit`, whose pods are evicted.

use std::collections::HashSet;
use std::path::Path;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::Pod;

use crate::config::Directories;
use crate::pod::pod_ext::PodExt;
use crate::volume::tree;

/// Directory of the plugin's volumes.
const EMPTY_DIR: &str = "kubernetes.io~empty-dir";
/// Bytes in a unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;

/// The message for the pod's eviction, if one of its volumes exceeds its limit. Blocks on the file
/// system; volumes without a limit are not measured.
pub fn exceeded(pod: &Pod, directories: &Directories) -> Option<String> {
    for volume in pod.spec_ref().volumes.iter().flatten() {
        let Some(source) = &volume.empty_dir else {
            continue;
        };
        let limit = source.size_limit.as_ref().map(Quantity::of);
        let Some(limit) = limit.filter(|limit| !limit.is_zero()) else {
            continue;
        };
        // The kernel enforces the size of those in memory.
        if source.medium.as_deref() == Some("Memory") {
            continue;
        }
        let path = directories.volumes(pod.uid()).join(EMPTY_DIR).join(&volume.name);
        if tree_bytes(&path) > u64::try_from(limit.units()).unwrap_or(0) {
            return Some(format!(
                "Usage of EmptyDir volume \"{}\" exceeds the limit \"{limit}\". ",
                volume.name
            ));
        }
    }
    None
}

/// Disk usage of the pod's emptyDir volumes in bytes. Blocks on the file system.
pub fn volume_bytes(pod: &Pod, directories: &Directories) -> u64 {
    let of_pod = directories.volumes(pod.uid()).join(EMPTY_DIR);
    let volumes = pod.spec_ref().volumes.iter().flatten();
    let on_disk = volumes.filter(|volume| {
        let source = volume.empty_dir.as_ref();
        source.is_some_and(|source| source.medium.as_deref() != Some("Memory"))
    });
    on_disk.map(|volume| tree_bytes(&of_pod.join(&volume.name))).sum()
}

/// Disk usage of a directory tree in bytes; hard links count once. What vanishes or cannot be read
/// does not count. Blocks on the file system.
pub fn tree_bytes(path: &Path) -> u64 {
    let (mut bytes, mut seen) = (0, HashSet::new());
    let Ok(root) = tree::open(path, false) else {
        return 0;
    };
    let walked = tree::walk(root, |visit| {
        let stat = visit.stat;
        let linked = stat.st_nlink > 1 && !visit.is_directory();
        if !linked || seen.insert((stat.st_dev, stat.st_ino)) {
            bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK_BYTES;
        }
        Ok(())
    });
    if let Err(error) = walked {
        tracing::debug!(%error, path = %path.display(), "cannot measure all of a directory");
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, PodSpec, Volume};
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

    #[test]
    fn only_volumes_over_their_limit_are_reported() {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories::new(root.path());
        let volume = |name: &str, limit: Option<&str>| Volume {
            name: name.into(),
            empty_dir: Some(EmptyDirVolumeSource {
                size_limit: limit.map(|limit| Text(limit.into())),
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut pod = Pod {
            spec: Some(PodSpec {
                volumes: Some(vec![volume("free", None), volume("small", Some("64Ki"))]),
                ..Default::default()
            }),
            ..Default::default()
        };
        pod.metadata.uid = Some("u1".into());
        for name in ["free", "small"] {
            let path = directories.volumes("u1").join("kubernetes.io~empty-dir");
            fs::create_dir_all(path.join(name)).unwrap();
            fs::write(path.join(name).join("data"), vec![1; 32 << 10]).unwrap();
            fs::hard_link(path.join(name).join("data"), path.join(name).join("same")).unwrap();
        }
        assert_eq!(exceeded(&pod, &directories), None);
        let path = directories.volumes("u1").join("kubernetes.io~empty-dir/small/more");
        fs::write(path, vec![1; 64 << 10]).unwrap();
        assert_eq!(
            exceeded(&pod, &directories).unwrap(),
            "Usage of EmptyDir volume \"small\" exceeds the limit \"64Ki\". "
        );
    }
}
