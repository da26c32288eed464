//! Volumes on demand that this node keeps ([`api::local_path`]): their contents, from the first
//! mount to their removal. Blocks on the file system, and runs programs of util-linux and e2fsprogs.
//!
//! Each volume is a directory below `<root>/local-path`, named by its handle: in it either `data`,
//! which containers see, or `image`. It appears by a rename, complete. That it did is recorded in
//! the volume's object before any container uses it ([`api::local_path::MADE`]), so that contents
//! that have vanished are reported and never replaced by empty ones. Nobody but root has access to
//! the directories above `data`, and a handle is a name: no removal leaves the root.

pub mod follow;
pub mod image;

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use api::local_path::Backing;

use super::{VolumeError, mount, tree};

/// Mode of a volume's own file system or directory: pods run as any user.
const MODE: u32 = 0o777;
/// Mode of the directories above.
const PRIVATE: u32 = 0o700;
/// Part of the path of a volume that is incomplete, or is being removed. No handle begins with a dot.
const INCOMPLETE: &str = ".new-";
const OUTGOING: &str = ".old-";
/// The plugins in whose directories pods have claims' volumes.
const PLUGINS: [&str; 2] = ["kubernetes.io~claim", "kubernetes.io~ephemeral"];

/// A volume that this node keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalVolume {
    pub handle: String,
    pub backing: Backing,
    /// For its pods it is a block device.
    pub block: bool,
    pub bytes: u64,
    /// Its contents have been made.
    pub made: bool,
    pub mount_options: Vec<String>,
}

/// Where the volumes are kept, and the pods that have them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    pods: PathBuf,
}

impl Store {
    pub fn new(root: PathBuf, pods: PathBuf) -> Self {
        Self { root, pods }
    }

    /// The directory of a volume.
    ///
    /// # Errors
    /// When the handle is not a name of the provisioner's.
    fn folder(&self, handle: &str) -> Result<PathBuf, VolumeError> {
        match api::names::dns_subdomain(handle).is_empty() {
            true => Ok(self.root.join(handle)),
            false => Err(VolumeError::BadPath(handle.to_owned())),
        }
    }

    /// What a pod's link to the volume leads to.
    fn contents(&self, volume: &LocalVolume) -> Result<PathBuf, VolumeError> {
        let name = match volume.backing {
            Backing::Directory => "data",
            Backing::Image => "image",
        };
        Ok(self.folder(&volume.handle)?.join(name))
    }

    /// Makes the contents, unless they are there.
    ///
    /// # Errors
    /// When they had been made and are there no longer; when the disk is full.
    pub fn make(&self, volume: &LocalVolume) -> Result<(), VolumeError> {
        let contents = self.contents(volume)?;
        match (fs::symlink_metadata(&contents), volume.made) {
            (Ok(_), _) => return Ok(()),
            (Err(error), true) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(VolumeError::Vanished(contents));
            }
            (Err(error), _) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(VolumeError::io("stat", contents)(error));
            }
            (Err(_), _) => {}
        }
        let new = self.root.join(format!("{INCOMPLETE}{}", volume.handle));
        make_private(&self.root)?;
        remove(&new)?;
        make_private(&new)?;
        let made = match volume.backing {
            Backing::Directory => mount::make_directory(&new.join("data"), MODE),
            Backing::Image => image::make(&new.join("image"), volume.bytes, !volume.block),
        };
        if let Err(error) = made {
            remove(&new)?;
            return Err(error);
        }
        let folder = self.folder(&volume.handle)?;
        fs::rename(&new, &folder).map_err(VolumeError::io("rename", &new))?;
        sync_directory(&self.root)
    }

    /// Gives the volume to a pod, whose place for it is `at`; returns what its containers get: a
    /// directory, or a device. What is done already is kept.
    ///
    /// # Errors
    /// When it cannot be mounted, or attached.
    pub fn give(&self, volume: &LocalVolume, at: &Path) -> Result<PathBuf, VolumeError> {
        let contents = self.contents(volume)?;
        if volume.backing == Backing::Image && !volume.block {
            mount::make_mount_point(at)?;
            image::mount(&contents, at, &volume.mount_options, volume.bytes)?;
            return Ok(at.to_owned());
        }
        // What shows that the pod has the volume, also to the next process.
        match fs::read_link(at) {
            Ok(known) if known == contents => {}
            Ok(_) => return Err(VolumeError::BadPath(at.display().to_string())),
            Err(_) => symlink(&contents, at).map_err(VolumeError::io("link", at))?,
        }
        match volume.backing {
            Backing::Directory => Ok(contents),
            Backing::Image => image::attach(&contents),
        }
    }

    /// Opens the volume's own file system to every user, once it is mounted for the first time.
    ///
    /// # Errors
    /// When the mode cannot be changed.
    pub fn open_to_all(&self, volume: &LocalVolume, given: &Path) -> Result<(), VolumeError> {
        if volume.made || volume.block || volume.backing == Backing::Directory {
            return Ok(());
        }
        mount::make_directory(given, MODE)
    }

    /// Makes an image, and the file system and the devices on it, as large as the volume. Returns
    /// whether that is done, or has to wait until the file system is not mounted.
    ///
    /// # Errors
    /// When the disk is full, or a program fails.
    pub fn grow(&self, volume: &LocalVolume) -> Result<bool, VolumeError> {
        image::grow(&self.contents(volume)?, volume.bytes, !volume.block)
    }

    /// Whether the file system of an image cannot grow before it is mounted anew.
    ///
    /// # Errors
    /// When a program fails.
    pub fn waits_for_mount(&self, volume: &LocalVolume) -> Result<bool, VolumeError> {
        image::waits_for_mount(&self.contents(volume)?, volume.bytes, !volume.block)
    }

    /// The links in the places of a pod's claims.
    fn links(&self, uid: &str) -> Vec<PathBuf> {
        let volumes = self.pods.join(uid).join("volumes");
        let entries = PLUGINS.iter().filter_map(|plugin| fs::read_dir(volumes.join(plugin)).ok());
        let links =
            entries.flatten().flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        links.filter(|target| target.starts_with(&self.root)).collect()
    }

    /// The links of all pods but one.
    fn links_of_others(&self, uid: &str) -> Vec<PathBuf> {
        let pods = fs::read_dir(&self.pods).into_iter().flatten().flatten();
        let names = pods.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name != uid).flat_map(|name| self.links(&name)).collect()
    }

    /// Detaches the devices that no other pod has. Before the pod's places are removed.
    ///
    /// # Errors
    /// When a program fails.
    pub fn take_back(&self, uid: &str) -> Result<(), VolumeError> {
        let mut images = self.links(uid);
        images.retain(|path| path.ends_with("image"));
        if images.is_empty() {
            return Ok(());
        }
        let others = self.links_of_others(uid);
        let unused = images.iter().filter(|image| !others.contains(image));
        unused.into_iter().try_for_each(|image| image::detach(image))
    }

    /// Removes a volume's contents.
    ///
    /// # Errors
    /// When a pod still has it.
    pub fn remove(&self, handle: &str) -> Result<(), VolumeError> {
        let folder = self.folder(handle)?;
        let used = self.links_of_others("").iter().any(|link| link.starts_with(&folder));
        let image = folder.join("image");
        if used || (image.exists() && !image::devices(&image)?.is_empty()) {
            return Err(VolumeError::InUse(handle.to_owned()));
        }
        remove(&self.root.join(format!("{INCOMPLETE}{handle}")))?;
        // Gone at once for whoever looks, however long it takes.
        let old = self.root.join(format!("{OUTGOING}{handle}"));
        remove(&old)?;
        match fs::rename(&folder, &old) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            renamed => {
                renamed.map_err(VolumeError::io("rename", &folder))?;
                remove(&old)
            }
        }
    }
}

fn make_private(path: &Path) -> Result<(), VolumeError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(PRIVATE).create(path).map_err(VolumeError::io("create", path))
}

fn remove(path: &Path) -> Result<(), VolumeError> {
    tree::remove(path).map_err(VolumeError::io("remove", path))
}

/// What has been renamed in the directory stays so after a power loss.
fn sync_directory(path: &Path) -> Result<(), VolumeError> {
    let opened = File::open(path).map_err(VolumeError::io("open", path))?;
    opened.sync_all().map_err(VolumeError::io("sync", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn store(root: &Path) -> Store {
        Store::new(root.join("local-path"), root.join("pods"))
    }

    fn directory(handle: &str) -> LocalVolume {
        LocalVolume {
            handle: handle.to_owned(),
            backing: Backing::Directory,
            block: false,
            bytes: 1 << 20,
            made: false,
            mount_options: Vec::new(),
        }
    }

    /// The place of a pod's volume.
    fn place(root: &Path, uid: &str) -> PathBuf {
        let plugin = root.join("pods").join(uid).join("volumes").join(PLUGINS[0]);
        fs::create_dir_all(&plugin).unwrap();
        plugin.join("data")
    }

    #[test]
    fn contents_are_made_once_and_missed_when_they_vanish() {
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path());
        let mut volume = directory("pvc-1");
        // Killed while it was made.
        let unfinished = root.path().join("local-path/.new-pvc-1/data/rubbish");
        fs::create_dir_all(&unfinished).unwrap();
        store.make(&volume).unwrap();
        let data = store.give(&volume, &place(root.path(), "a")).unwrap();
        assert!(fs::read_dir(&data).unwrap().next().is_none(), "nothing of the first attempt");
        assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o7777, MODE);
        fs::write(data.join("row"), "1").unwrap();
        // Killed before that was recorded, and after.
        for made in [false, true] {
            volume.made = made;
            store.make(&volume).unwrap();
            assert_eq!(store.give(&volume, &place(root.path(), "a")).unwrap(), data);
            assert_eq!(fs::read_to_string(data.join("row")).unwrap(), "1");
        }
        fs::rename(root.path().join("local-path/pvc-1"), root.path().join("unplugged")).unwrap();
        assert!(matches!(store.make(&volume), Err(VolumeError::Vanished(_))));
        assert!(!data.exists(), "nothing replaces it");
    }

    #[test]
    fn a_volume_is_removed_when_no_pod_has_it_and_nothing_else_is() {
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path());
        let outside = root.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        for handle in ["pvc-1", "pvc-2"] {
            store.make(&directory(handle)).unwrap();
        }
        let place = place(root.path(), "a");
        let data = store.give(&directory("pvc-1"), &place).unwrap();
        symlink(&outside, data.join("link")).unwrap();
        assert!(matches!(store.remove("pvc-1"), Err(VolumeError::InUse(_))));
        fs::remove_file(&place).unwrap();
        store.remove("pvc-1").unwrap();
        assert!(!data.exists() && outside.join("kept").exists());
        assert!(root.path().join("local-path/pvc-2/data").exists());
        store.remove("pvc-1").unwrap();
        for bad in ["..", "../outside", "/etc", "a/b", "", ".new-pvc-2"] {
            assert!(matches!(store.remove(bad), Err(VolumeError::BadPath(_))), "{bad:?}");
            assert!(matches!(store.make(&directory(bad)), Err(VolumeError::BadPath(_))), "{bad:?}");
        }
        // An administrator's link in place of a volume leads nowhere.
        symlink(&outside, root.path().join("local-path/pvc-3")).unwrap();
        store.remove("pvc-3").unwrap();
        assert!(outside.join("kept").exists());
        assert!(fs::symlink_metadata(root.path().join("local-path/pvc-3")).is_err());
    }
}
