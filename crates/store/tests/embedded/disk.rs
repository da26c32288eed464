//! A full disk. Requires root, to mount a small file system.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use bytes::Bytes;
use store::{Error, ListOptions, Store};
use tempfile::TempDir;

use crate::{b, folder, open, written};

/// A tmpfs, unmounted on drop.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(size: &str) -> SmallDisk {
        let folder = folder();
        mount(folder.path(), &format!("size={size}"));
        SmallDisk(folder)
    }

    fn enlarge(&self, size: &str) {
        mount(self.0.path(), &format!("remount,size={size}"));
    }
}

fn mount(path: &Path, options: &str) {
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "skiff-store-test"])
        .arg(path)
        .status();
    assert!(mounted.unwrap().success(), "mounting a tmpfs needs root");
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted =
            Command::new("umount").arg("-l").arg(self.0.path()).stderr(Stdio::inherit()).status();
        assert!(unmounted.unwrap().success());
    }
}

/// Creates keys until the store rejects one; returns the number of keys.
async fn fill(store: &Store) -> usize {
    let value = Bytes::from(vec![b'x'; 50_000]);
    for index in 0.. {
        match store.create(b(&format!("/{index:04}")), value.clone()).await {
            Ok(outcome) => written(outcome),
            Err(Error::NoSpace) => return index,
            Err(error) => panic!("{error}"),
        };
    }
    unreachable!("the disk is small")
}

#[tokio::test]
async fn a_full_disk_loses_nothing() {
    let small = SmallDisk::mount("6m");
    let (embedded, store) = open(&small.0).await;
    let filled = fill(&store).await;
    assert!(filled > 20, "{filled}");
    let options = ListOptions { prefix: b("/"), ..ListOptions::default() };
    for _ in 0..3 {
        assert!(store.create(b("/more"), Bytes::from(vec![b'x'; 50_000])).await.is_err());
        let listing = store.list(options.clone()).await.unwrap();
        assert_eq!((listing.entries.len(), listing.revision.get()), (filled, filled as u64 + 1));
    }
    small.enlarge("64m");
    let revision = written(store.create(b("/more"), b("now")).await.unwrap());
    assert_eq!(revision.get(), filled as u64 + 2);
    assert_eq!(store.list(options.clone()).await.unwrap().entries.len(), filled + 1);
    embedded.stop().await.unwrap();

    let (embedded, store) = open(&small.0).await;
    assert_eq!(store.list(options).await.unwrap().entries.len(), filled + 1);
    assert_eq!(store.current_revision().await.unwrap(), revision);
    embedded.stop().await.unwrap();
}
