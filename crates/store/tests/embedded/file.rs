//! The file: restarts, space, snapshots.

use std::{os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use store::{
    Error, ListOptions, Revision, Store, WatchOptions,
    embedded::{EmbeddedConfig, OpenError, RestoreError, restore},
};
use tempfile::TempDir;

use crate::{b, folder, open, open_with, written};

async fn list(store: &Store, revision: Revision) -> Result<Vec<(Bytes, Bytes, u64)>, Error> {
    let listing =
        store.list(ListOptions { prefix: b("/"), revision, ..ListOptions::default() }).await?;
    Ok(listing.entries.into_iter().map(|entry| (entry.key, entry.value, entry.version)).collect())
}

fn file_bytes(folder: &TempDir) -> u64 {
    folder.path().join("store.redb").metadata().unwrap().len()
}

#[tokio::test]
async fn a_restart_preserves_everything() {
    let folder = folder();
    let (embedded, store) = open(&folder).await;
    let first = written(store.create(b("/a"), b("1")).await.unwrap());
    let second = written(store.update(b("/a"), b("2"), first).await.unwrap());
    let lease = store.grant_lease(Duration::from_secs(500)).await.unwrap();
    written(store.create_with_lease(b("/b"), b("leased"), Some(lease)).await.unwrap());
    let gone = written(store.create(b("/c"), b("x")).await.unwrap());
    let deleted = written(store.delete(b("/c"), gone).await.unwrap());
    store.compact(second).await.unwrap();
    let status = store.etcd().status().await.unwrap();
    embedded.stop().await.unwrap();
    assert!(matches!(store.get(b("/a")).await, Err(Error::Unavailable(_))));

    let (_embedded, store) = open(&folder).await;
    assert_eq!(store.current_revision().await.unwrap(), deleted);
    assert_eq!(
        list(&store, Revision::NONE).await.unwrap(),
        [(b("/a"), b("2"), 2), (b("/b"), b("leased"), 1)]
    );
    assert_eq!(list(&store, gone).await.unwrap().len(), 3);
    assert!(matches!(list(&store, first).await, Err(Error::Compacted { .. })));
    let again = store.etcd().status().await.unwrap();
    assert_eq!(again.header().unwrap().cluster_id(), status.header().unwrap().cluster_id());
    let leases = store.etcd().leases().await.unwrap();
    assert_eq!(leases.leases().len(), 1);
    store.etcd().lease_client().revoke(leases.leases()[0].id()).await.unwrap();
    assert_eq!(list(&store, Revision::NONE).await.unwrap().len(), 1);
    let from = second.next();
    let mut watch =
        store.watch(WatchOptions { prefix: b("/"), from, previous: false }).await.unwrap();
    let mut revisions = Vec::new();
    while revisions.len() < 4 {
        let batch = watch.next().await.unwrap().unwrap();
        revisions.extend(batch.events.iter().map(|event| event.entry.mod_revision.get()));
    }
    assert_eq!(revisions, (from.get()..from.get() + 4).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_directory_serves_one_store_at_a_time() {
    let folder = folder();
    let (embedded, _store) = open(&folder).await;
    let second = Store::embedded(folder.path()).await;
    assert!(matches!(second.err(), Some(Error::Open(OpenError::InUse(_)))));
    embedded.stop().await.unwrap();
    Store::embedded(folder.path()).await.unwrap();
}

#[tokio::test]
async fn a_corrupted_file_is_an_error() {
    let folder = folder();
    std::fs::write(
        folder.path().join("store.redb"),
        b"this is not a store, whatever its name says".repeat(500),
    )
    .unwrap();
    let opened = Store::embedded(folder.path()).await;
    assert!(matches!(opened.err(), Some(Error::Open(OpenError::File { .. }))));
    let opened = Store::embedded(&PathBuf::from("/proc/nowhere")).await;
    assert!(matches!(opened.err(), Some(Error::Open(OpenError::Directory { .. }))));
}

#[tokio::test]
async fn other_users_cannot_read_the_file() {
    let folder = folder();
    let directory = folder.path().join("store");
    let store = Store::embedded(&directory).await.unwrap();
    written(store.create(b("/secret"), b("x")).await.unwrap());
    let mode = |path: PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(directory.clone()), mode(directory.join("store.redb"))), (0o700, 0o600));
}

#[tokio::test]
async fn stopping_ends_watches() {
    let folder = folder();
    let (embedded, store) = open(&folder).await;
    let options = WatchOptions { prefix: b("/"), from: Revision::NONE, previous: false };
    let mut watch = store.watch(options).await.unwrap();
    embedded.stop().await.unwrap();
    assert!(matches!(watch.next().await, Some(Err(Error::Unavailable(_)))));
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn compaction_and_defragmentation_free_space() {
    let folder = folder();
    let (_embedded, store) = open(&folder).await;
    let value = Bytes::from(vec![b'x'; 100_000]);
    let mut revision = written(store.create(b("/a"), value.clone()).await.unwrap());
    for _ in 0..100 {
        revision = written(store.update(b("/a"), value.clone(), revision).await.unwrap());
    }
    let full = file_bytes(&folder);
    assert!(full > 10_000_000, "{full}");
    let options = etcd_client::CompactionOptions::new().with_physical();
    let mut client = store.etcd();
    client.compact(i64::try_from(revision.get()).unwrap(), Some(options)).await.unwrap();
    let status = client.status().await.unwrap();
    assert!(status.raft_used_db_size() < 110_000, "{}", status.raft_used_db_size());
    client.defragment().await.unwrap();
    let left = file_bytes(&folder);
    assert!(left < full / 10, "{left} of {full}");
    assert_eq!(store.get(b("/a")).await.unwrap().entry.unwrap().version, 101);
    written(store.create(b("/b"), value).await.unwrap());
}

#[tokio::test]
async fn a_full_store_accepts_only_deletions() {
    let folder = folder();
    let (_embedded, store) =
        open_with(EmbeddedConfig { quota_bytes: 100_000, ..EmbeddedConfig::new(folder.path()) })
            .await;
    let value = Bytes::from(vec![b'x'; 60_000]);
    let first = written(store.create(b("/a"), value.clone()).await.unwrap());
    written(store.create(b("/b"), value.clone()).await.unwrap());
    assert!(matches!(store.create(b("/c"), value.clone()).await, Err(Error::NoSpace)));
    assert_eq!(store.etcd().status().await.unwrap().errors(), ["NOSPACE"]);
    let deleted = written(store.delete(b("/a"), first).await.unwrap());
    let options = etcd_client::CompactionOptions::new().with_physical();
    store.etcd().compact(i64::try_from(deleted.get()).unwrap(), Some(options)).await.unwrap();
    written(store.create(b("/c"), value).await.unwrap());
}

#[tokio::test]
async fn a_snapshot_is_a_store() {
    let source = folder();
    let (_embedded, store) = open(&source).await;
    let first = written(store.create(b("/a"), b("1")).await.unwrap());
    written(store.update(b("/a"), b("2"), first).await.unwrap());
    written(store.create(b("/b"), Bytes::from(vec![7; 500_000])).await.unwrap());
    store.compact(first).await.unwrap();
    store.grant_lease(Duration::from_secs(500)).await.unwrap();
    let mut stream = store.etcd().snapshot().await.unwrap();
    let mut snapshot = Vec::new();
    while let Some(part) = stream.message().await.unwrap() {
        snapshot.extend_from_slice(part.blob());
    }
    let path = source.path().join("saved");
    std::fs::write(&path, &snapshot).unwrap();

    let target = folder();
    restore(&path, target.path()).unwrap();
    assert!(matches!(restore(&path, target.path()), Err(RestoreError::Exists(_))));
    let (_restored, copy) = open(&target).await;
    assert_eq!(
        list(&copy, Revision::NONE).await.unwrap(),
        list(&store, Revision::NONE).await.unwrap()
    );
    assert_eq!(copy.current_revision().await.unwrap(), store.current_revision().await.unwrap());
    assert_eq!(copy.etcd().leases().await.unwrap().leases().len(), 1);
    let hash = store.etcd().hash_kv(0).await.unwrap();
    assert_eq!(copy.etcd().hash_kv(0).await.unwrap().hash(), hash.hash());

    snapshot[100_000] ^= 1;
    std::fs::write(&path, &snapshot).unwrap();
    let elsewhere = folder();
    assert!(matches!(restore(&path, elsewhere.path()), Err(RestoreError::Damaged(_))));
    assert!(!elsewhere.path().join("store.redb").exists());
}
