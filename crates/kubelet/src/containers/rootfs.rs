//! Root file systems: snapshots, and reading an image's account files without mounting them.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use containerd_client::services::v1::snapshots::{
    MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, UsageRequest,
};
use containerd_client::types::Mount;
use tonic::Code;

use super::spec::Accounts;
use super::{Inner, Result, RuntimeError};
use crate::image::Contents;

/// Label that keeps a snapshot that no container refers to yet. Removed with the snapshot.
pub(super) const GC_ROOT: &str = "containerd.io/gc.root";
/// Account files are truncated to this size.
const MAX_ACCOUNTS_BYTES: u64 = 4 << 20;
/// Maximum number of symbolic links to an account file.
const MAX_LINKS: usize = 8;

impl Inner {
    /// Creates (or finds) the container's writable snapshot of the image, and returns its mounts.
    pub(super) async fn ensure_snapshot(
        &self,
        key: &str,
        contents: &Contents,
    ) -> Result<Vec<Mount>> {
        let parent = contents.chain_ids.last().cloned().unwrap_or_default();
        let request = PrepareSnapshotRequest {
            snapshotter: self.config.snapshotter.clone(),
            key: key.to_string(),
            parent: parent.clone(),
            labels: [(GC_ROOT.to_string(), "1".to_string())].into(),
        };
        match self.containerd.snapshots().prepare(request).await {
            Ok(response) => Ok(response.into_inner().mounts),
            Err(status) if status.code() == Code::AlreadyExists => self.snapshot_mounts(key).await,
            Err(status) if status.code() == Code::NotFound => {
                Err(RuntimeError::ImageMissing { image: contents.id.clone() })
            }
            Err(status) => {
                Err(RuntimeError::from_status(format!("prepare snapshot {key}"), &status))
            }
        }
    }

    pub(super) async fn snapshot_mounts(&self, key: &str) -> Result<Vec<Mount>> {
        let request =
            MountsRequest { snapshotter: self.config.snapshotter.clone(), key: key.to_string() };
        let response = self.containerd.snapshots().mounts(request).await;
        Ok(response
            .map_err(|status| {
                RuntimeError::from_status(format!("mounts of snapshot {key}"), &status)
            })?
            .into_inner()
            .mounts)
    }

    /// Bytes that a snapshot adds to its parent; 0 if there is no snapshot.
    pub(super) async fn snapshot_bytes(&self, key: &str) -> Result<u64> {
        let request =
            UsageRequest { snapshotter: self.config.snapshotter.clone(), key: key.to_string() };
        match self.containerd.snapshots().usage(request).await {
            Ok(response) => Ok(u64::try_from(response.into_inner().size).unwrap_or(0)),
            Err(status) if status.code() == Code::NotFound => Ok(0),
            Err(status) => {
                Err(RuntimeError::from_status(format!("usage of snapshot {key}"), &status))
            }
        }
    }

    pub(super) async fn remove_snapshot(&self, key: &str) -> Result<()> {
        let request = RemoveSnapshotRequest {
            snapshotter: self.config.snapshotter.clone(),
            key: key.to_string(),
        };
        match self.containerd.snapshots().remove(request).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::NotFound => Ok(()),
            Err(status) => {
                Err(RuntimeError::from_status(format!("remove snapshot {key}"), &status))
            }
        }
    }
}

/// Reads `/etc/passwd` and `/etc/group` of a snapshot from its layers' directories.
pub(super) async fn read_accounts(mounts: &[Mount]) -> Accounts {
    let layers = layer_directories(mounts);
    let read = move || Accounts {
        passwd: read_in_layers(&layers, "etc/passwd").unwrap_or_default(),
        group: read_in_layers(&layers, "etc/group").unwrap_or_default(),
    };
    tokio::task::spawn_blocking(read).await.expect("reading files does not panic")
}

/// The directories that a mount combines, uppermost first.
fn layer_directories(mounts: &[Mount]) -> Vec<PathBuf> {
    let Some(mount) = mounts.first() else {
        return Vec::new();
    };
    if mount.r#type != "overlay" {
        return vec![PathBuf::from(&mount.source)];
    }
    let option = |name: &str| mount.options.iter().find_map(|option| option.strip_prefix(name));
    let upper = option("upperdir=").map(PathBuf::from);
    let lower = option("lowerdir=")
        .unwrap_or_default()
        .split(':')
        .filter(|path| !path.is_empty())
        .map(PathBuf::from);
    upper.into_iter().chain(lower).collect()
}

/// What one layer has at a path.
enum InLayer {
    Absent,
    Deleted,
    Link(PathBuf),
    File(String),
}

/// A text file of a stack of layers. Links are followed inside it, but not out of it.
fn read_in_layers(layers: &[PathBuf], path: &str) -> Option<String> {
    let mut path = PathBuf::from(path);
    for _ in 0..MAX_LINKS {
        let found = layers
            .iter()
            .map(|layer| look_in_layer(layer, &path))
            .find(|found| !matches!(found, InLayer::Absent))?;
        match found {
            InLayer::File(text) => return Some(text),
            InLayer::Link(target) => path = resolve_link(&path, &target),
            InLayer::Deleted | InLayer::Absent => return None,
        }
    }
    None
}

fn look_in_layer(layer: &Path, path: &Path) -> InLayer {
    let mut current = layer.to_path_buf();
    let count = path.components().count();
    for (at, component) in path.components().enumerate() {
        current.push(component);
        let Ok(metadata) = fs::symlink_metadata(&current) else {
            return InLayer::Absent;
        };
        let kind = metadata.file_type();
        let last = at + 1 == count;
        if kind.is_char_device() && metadata.rdev() == 0 {
            return InLayer::Deleted;
        }
        if kind.is_symlink() {
            // A link in the middle of the path is not followed: such images have no accounts.
            let target = fs::read_link(&current).ok().filter(|_| last);
            return target.map_or(InLayer::Deleted, InLayer::Link);
        }
        if last && kind.is_file() {
            return read_text(&current).map_or(InLayer::Absent, InLayer::File);
        }
    }
    InLayer::Absent
}

fn read_text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(MAX_ACCOUNTS_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The path in the root file system that a link leads to. `..` at the root stays at the root.
fn resolve_link(link: &Path, target: &Path) -> PathBuf {
    let mut resolved = if target.is_absolute() {
        PathBuf::new()
    } else {
        link.parent().unwrap_or(Path::new("")).to_path_buf()
    };
    for component in target.components() {
        match component {
            Component::Normal(name) => resolved.push(name),
            Component::ParentDir => {
                resolved.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    resolved
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_are_found_through_layers_and_links_stay_inside() {
        let directory = tempfile::tempdir().unwrap();
        let (upper, lower) = (directory.path().join("upper"), directory.path().join("lower"));
        fs::create_dir_all(upper.join("etc")).unwrap();
        fs::create_dir_all(lower.join("etc")).unwrap();
        fs::create_dir_all(lower.join("usr")).unwrap();
        fs::write(lower.join("etc/passwd"), "lower").unwrap();
        fs::write(lower.join("usr/group"), "linked").unwrap();
        symlink("../../../usr/group", upper.join("etc/group")).unwrap();
        let layers = [upper.clone(), lower.clone()];
        assert_eq!(read_in_layers(&layers, "etc/passwd").as_deref(), Some("lower"));
        assert_eq!(read_in_layers(&layers, "etc/group").as_deref(), Some("linked"));
        fs::write(upper.join("etc/passwd"), "upper").unwrap();
        assert_eq!(read_in_layers(&layers, "etc/passwd").as_deref(), Some("upper"));
        fs::remove_file(upper.join("etc/passwd")).unwrap();
        symlink("passwd", upper.join("etc/passwd")).unwrap();
        assert_eq!(read_in_layers(&layers, "etc/passwd"), None);
        fs::remove_dir_all(upper.join("etc")).unwrap();
        symlink("/etc", upper.join("etc")).unwrap();
        assert_eq!(read_in_layers(&layers, "etc/passwd"), None);
    }

    #[test]
    fn overlay_options_are_read() {
        let overlay = Mount {
            r#type: "overlay".into(),
            source: "overlay".into(),
            options: vec!["workdir=/w".into(), "upperdir=/u".into(), "lowerdir=/a:/b".into()],
            ..Mount::default()
        };
        let paths: Vec<_> =
            layer_directories(&[overlay]).iter().map(|path| path.display().to_string()).collect();
        assert_eq!(paths, ["/u", "/a", "/b"]);
    }
}
