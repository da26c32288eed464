//! Tests that mount: each in a mount namespace of its own, which vanishes with its thread. As root.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use jiff::Timestamp;
use nix::mount::{MsFlags, mount as mount_at};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};

use super::atomic::{self, Payload};
use super::directory::{self, Medium};
use super::once::Once;
use super::{VolumeError, content, mount, sub_path};

const GROUP: u32 = 4711;
const MEMORY: Medium = Medium::Memory { max_bytes: Some(1 << 20) };

/// Runs `work` with a new directory in a mount namespace of its own, and with a umask that would
/// hide everything from other users.
fn isolated(work: impl FnOnce(&Path) + Send + 'static) {
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNS).expect("the tests of mounts run as root");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount_at(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        umask(Mode::from_bits_truncate(0o077));
        let root = tempfile::tempdir().unwrap();
        work(root.path());
        mount::unmount_all(root.path()).unwrap();
    };
    std::thread::spawn(run).join().unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn mounts(path: &Path) -> usize {
    mount::below(path).unwrap().len()
}

fn files(files: &[(&str, &str)]) -> Payload {
    let mut payload = Payload::default();
    for (path, text) in files {
        payload.insert((*path).to_owned(), content::file(text.as_bytes(), 0o644, None)).unwrap();
    }
    payload
}

fn write(volume: &Path, contents: &[(&str, &str)]) {
    atomic::write(volume, &files(contents), None, Timestamp::UNIX_EPOCH).unwrap();
}

#[test]
fn an_empty_dir_in_memory_is_for_everyone_and_kept() {
    isolated(|root| {
        let (path, set_up) = (root.join("volume"), Once::new(root.join("marker")));
        let sync = || directory::empty_dir(&path, MEMORY, None, &set_up).unwrap();
        sync();
        assert!(mount::is_tmpfs(&path));
        assert_eq!(mode(&path), 0o1777, "anyone may write, and delete only what is theirs");
        assert!(fs::write(path.join("large"), vec![0; 2 << 20]).is_err(), "it is limited");
        fs::remove_file(path.join("large")).unwrap();
        fs::write(path.join("file"), "kept").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        sync();
        assert_eq!(mounts(&path), 1);
        assert_eq!(mode(&path), 0o700, "as its containers left it");
        assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "kept");
        // After a reboot.
        mount::unmount_all(&path).unwrap();
        sync();
        assert_eq!((mounts(&path), mode(&path)), (1, 0o1777));
    });
}

#[test]
fn an_empty_dir_is_given_to_the_group_once_even_if_that_was_interrupted() {
    isolated(|root| {
        for (medium, expected) in [(MEMORY, 0o3777), (Medium::Disk, 0o2777)] {
            let path = root.join(format!("{medium:?}"));
            let set_up = Once::new(root.join(format!("marker {medium:?}")));
            let sync = || directory::empty_dir(&path, medium, Some(GROUP), &set_up).unwrap();
            // Killed between the creation and the change of the group.
            directory::empty_dir(&path, medium, None, &set_up).unwrap();
            set_up.forget().unwrap();
            sync();
            assert_eq!(mode(&path), expected, "{medium:?}");
            assert_eq!(fs::metadata(&path).unwrap().gid(), GROUP);
            let file = path.join("file");
            fs::write(&file, "x").unwrap();
            let before = mode(&file);
            sync();
            assert_eq!(mode(&file), before, "what the pod creates is left alone");
        }
    });
}

#[test]
fn secrets_are_in_memory_and_stay_there() {
    isolated(|root| {
        let path = root.join("plugin/volume");
        let sync = |contents: &[(&str, &str)]| {
            directory::contents(&path, true).unwrap();
            write(&path, contents);
        };
        sync(&[("key", "one")]);
        assert!(mount::is_tmpfs(&path));
        assert_eq!(mode(&path), 0o755);
        assert_eq!(mode(&fs::canonicalize(path.join("key")).unwrap()), 0o644);
        let data = fs::read_link(path.join("..data")).unwrap();
        sync(&[("key", "one")]);
        assert_eq!(mounts(&path), 1);
        assert_eq!(fs::read_link(path.join("..data")).unwrap(), data, "nothing is written again");
        sync(&[("key", "two")]);
        assert_eq!(fs::read_to_string(path.join("key")).unwrap(), "two");
        let bytes = nix::sys::statvfs::statvfs(&path).unwrap();
        let size = bytes.blocks() * bytes.fragment_size();
        assert_eq!(size, 2 * atomic::PAYLOAD_MAX_BYTES);
        // After a reboot nothing is left of it.
        mount::unmount_all(&path).unwrap();
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "nothing is on disk");
        sync(&[("key", "two")]);
        assert!(mount::is_tmpfs(&path));
    });
}

#[test]
fn a_volume_that_containers_have_on_disk_is_not_covered() {
    isolated(|root| {
        let path = root.join("volume");
        directory::contents(&path, false).unwrap();
        assert_eq!((mounts(&path), mode(&path)), (0, 0o755));
        write(&path, &[("token", "old")]);
        directory::contents(&path, true).unwrap();
        assert_eq!(mounts(&path), 0);
    });
}

#[test]
fn all_mounts_below_a_directory_are_found_also_through_a_link() {
    isolated(|root| {
        let real = root.join("real");
        let odd = real.join("a b\n");
        fs::create_dir_all(&odd).unwrap();
        symlink(&real, root.join("link")).unwrap();
        let stack = || {
            mount_at(Some("tmpfs"), &odd, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        };
        stack();
        stack();
        let seen = root.join("link/a b\n");
        assert!(mount::is_mount_point(&seen).unwrap());
        assert!(!mount::is_mount_point(&root.join("link")).unwrap());
        assert_eq!(mounts(&root.join("link")), 2);
        mount::unmount_all(&root.join("link")).unwrap();
        assert_eq!(mounts(&real), 0);
        mount::unmount_all(&root.join("none")).unwrap();
    });
}

#[test]
fn a_tree_with_a_mount_is_not_removed_beyond_it() {
    isolated(|root| {
        let (tree, other) = (root.join("tree"), root.join("tree/below/other"));
        fs::create_dir_all(&other).unwrap();
        mount::tmpfs(&other, None, 0o755).unwrap();
        fs::write(other.join("precious"), "x").unwrap();
        assert!(super::tree::remove(&tree).is_err());
        assert!(other.join("precious").exists());
        mount::unmount_all(&tree).unwrap();
        super::tree::remove(&tree).unwrap();
        assert!(!tree.exists());
    });
}

/// What a container runtime does with the source of a mount: it has to be there.
fn start_container(source: &Path, container: &Path) -> Result<(), VolumeError> {
    fs::write(container, "").unwrap();
    mount::bind(source, container)
}

#[test]
fn a_container_starts_again_with_the_file_that_a_config_map_has_now() {
    isolated(|root| {
        let (volume, target) = (root.join("volume"), root.join("subpaths/v-0"));
        fs::create_dir(&volume).unwrap();
        write(&volume, &[("key", "one"), ("deep/key", "1")]);
        sub_path::bind(&volume, "key", &target).unwrap();
        start_container(&target, &root.join("first")).unwrap();
        sub_path::bind(&volume, "key", &target).unwrap();
        assert_eq!(mounts(&target), 1, "the same file is not mounted again");
        write(&volume, &[("key", "two"), ("deep/key", "2")]);
        assert_eq!(fs::read_to_string(root.join("first")).unwrap(), "one", "it runs on");
        let stale = start_container(&target, &root.join("stale"));
        assert!(stale.is_err_and(|error| error.is_missing_file()), "the old file is gone");
        sub_path::bind(&volume, "key", &target).unwrap();
        start_container(&target, &root.join("second")).unwrap();
        assert_eq!(fs::read_to_string(root.join("second")).unwrap(), "two");
        assert_eq!(fs::read_to_string(root.join("first")).unwrap(), "one");
        assert_eq!(mounts(&target), 1);
        // The target is whatever the path is now: a directory, and a file again.
        write(&volume, &[("key/below", "three")]);
        sub_path::bind(&volume, "key", &target).unwrap();
        assert_eq!(fs::read_to_string(target.join("below")).unwrap(), "three");
        write(&volume, &[("key", "four")]);
        sub_path::bind(&volume, "key", &target).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "four");
        assert_eq!(mounts(&target), 1);
    });
}

#[test]
fn a_sub_path_is_mounted_while_its_volume_changes() {
    isolated(|root| {
        let (volume, target) = (root.join("volume"), root.join("subpaths/v-0"));
        fs::create_dir(&volume).unwrap();
        for round in 0..50 {
            write(&volume, &[("key", &round.to_string())]);
            sub_path::bind(&volume, "key", &target).unwrap();
            assert_eq!(fs::read_to_string(&target).unwrap(), round.to_string());
        }
        assert_eq!(mounts(&target), 1);
    });
}
