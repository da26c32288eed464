//! The typed client.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use store::{Batch, Error, EventKind, ListOptions, Outcome, Revision, Store, Watch, WatchOptions};

use crate::{backend::Backend, contract};

contract!(
    create_once,
    update_and_delete_are_conditional,
    a_read_may_depend_on_a_revision,
    a_creation_may_depend_on_another_key,
    list_in_pages_at_one_revision,
    compaction_ends_old_reads,
    watch_delivers_in_order,
    watch_reports_progress,
    progress_does_not_overtake_events,
    watch_of_compacted_revision_fails,
    leases_are_revoked,
    large_values,
);

fn b(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn create(store: &Store, key: &str, value: &str) -> Revision {
    match store.create(b(key), b(value)).await.unwrap() {
        Outcome::Written(revision) => revision,
        conflict => panic!("{key}: {conflict:?}"),
    }
}

async fn update(store: &Store, key: &str, value: &str, expected: Revision) -> Revision {
    match store.update(b(key), b(value), expected).await.unwrap() {
        Outcome::Written(revision) => revision,
        conflict => panic!("{key}: {conflict:?}"),
    }
}

fn watch_options(prefix: &str, from: u64) -> WatchOptions {
    WatchOptions { prefix: b(prefix), from: Revision::new(from), previous: false }
}

async fn next(watch: &mut Watch) -> Batch {
    loop {
        let batch = watch.next().await.unwrap().unwrap();
        if !batch.events.is_empty() {
            return batch;
        }
    }
}

async fn create_once(backend: &Backend) {
    let store = &backend.store;
    assert_eq!(store.current_revision().await.unwrap(), Revision::new(1));
    assert_eq!(create(store, "/r/a", "1").await, Revision::new(2));
    match store.create(b("/r/a"), b("2")).await.unwrap() {
        Outcome::Conflict { current: Some(entry), revision } => {
            assert_eq!((entry.key, entry.value), (b("/r/a"), b("1")));
            assert_eq!(
                (entry.create_revision, entry.mod_revision),
                (Revision::new(2), Revision::new(2))
            );
            assert_eq!((entry.version, entry.lease), (1, None));
            assert_eq!(revision, Revision::new(2));
        }
        other => panic!("{other:?}"),
    }
    let fetched = store.get(b("/r/a")).await.unwrap();
    assert_eq!(fetched.entry.unwrap().value, b("1"));
    assert_eq!(fetched.revision, Revision::new(2));
    assert_eq!(store.get(b("/r/b")).await.unwrap().entry, None);
}

async fn a_read_may_depend_on_a_revision(backend: &Backend) {
    let store = &backend.store;
    let changed = async |known| store.get_if_changed(b("/r/a"), known).await.unwrap();
    assert_eq!(changed(Revision::NONE).await, None);
    let first = create(store, "/r/a", "1").await;
    assert_eq!(changed(first).await, None);
    for stale in [Revision::NONE, Revision::new(99)] {
        let fetched = changed(stale).await.unwrap();
        assert_eq!((fetched.entry.unwrap().value, fetched.revision), (b("1"), first));
    }
    let second = update(store, "/r/a", "2", first).await;
    assert_eq!(changed(first).await.unwrap().entry.unwrap().mod_revision, second);
    let _gone = store.delete(b("/r/a"), second).await.unwrap();
    assert_eq!(changed(second).await.unwrap().entry, None);
    assert_eq!(store.current_revision().await.unwrap(), second.next(), "reads write nothing");
}

async fn a_creation_may_depend_on_another_key(backend: &Backend) {
    let store = &backend.store;
    let create_in = async |key: &str, revision| {
        store.create_while(b(key), b("v"), None, (b("/n/a"), revision)).await.unwrap()
    };
    let first = create(store, "/n/a", "1").await;
    assert_eq!(create_in("/r/a", first).await, Outcome::Written(first.next()));
    assert!(matches!(
        create_in("/r/a", first).await,
        Outcome::Conflict { current: Some(entry), .. } if entry.key == b("/r/a")
    ));
    let second = update(store, "/n/a", "2", first).await;
    for stale in [first, Revision::NONE] {
        let refused = Outcome::Conflict { current: None, revision: second };
        assert_eq!(create_in("/r/b", stale).await, refused);
    }
    assert_eq!(create_in("/r/b", second).await, Outcome::Written(second.next()));
}

async fn update_and_delete_are_conditional(backend: &Backend) {
    let store = &backend.store;
    let missing = store.update(b("/r/a"), b("x"), Revision::new(7)).await.unwrap();
    assert_eq!(missing, Outcome::Conflict { current: None, revision: Revision::new(1) });
    let first = create(store, "/r/a", "1").await;
    let second = update(store, "/r/a", "2", first).await;
    assert!(second > first);
    let Outcome::Conflict { current: Some(entry), .. } =
        store.update(b("/r/a"), b("3"), first).await.unwrap()
    else {
        panic!("a stale update was applied");
    };
    assert_eq!(
        (entry.value, entry.mod_revision, entry.create_revision, entry.version),
        (b("2"), second, first, 2)
    );
    let Outcome::Conflict { current: Some(_), .. } = store.delete(b("/r/a"), first).await.unwrap()
    else {
        panic!("a stale delete was applied");
    };
    assert_eq!(store.delete(b("/r/a"), second).await.unwrap(), Outcome::Written(second.next()));
    assert_eq!(store.get(b("/r/a")).await.unwrap().entry, None);
}

async fn list_in_pages_at_one_revision(backend: &Backend) {
    let store = &backend.store;
    for index in 0..5 {
        create(store, &format!("/r/pods/{index}"), "v").await;
    }
    create(store, "/r/podsx", "outside").await;
    let revision = store.current_revision().await.unwrap();
    let mut options = ListOptions { prefix: b("/r/pods/"), limit: 2, ..ListOptions::default() };
    let first = store.list(options.clone()).await.unwrap();
    assert_eq!(
        (first.entries.len(), first.count, first.more, first.revision),
        (2, 5, true, revision)
    );

    create(store, "/r/pods/9", "late").await;
    options.revision = first.revision;
    let mut keys: Vec<Bytes> = first.entries.iter().map(|entry| entry.key.clone()).collect();
    let mut from = first.next_from();
    while let Some(start) = from {
        let page = store.list(ListOptions { from: Some(start), ..options.clone() }).await.unwrap();
        assert_eq!(page.revision, revision);
        keys.extend(page.entries.iter().map(|entry| entry.key.clone()));
        from = page.next_from();
    }
    assert_eq!(keys, ["/r/pods/0", "/r/pods/1", "/r/pods/2", "/r/pods/3", "/r/pods/4"].map(b));
    assert_eq!(store.count(b("/r/pods/")).await.unwrap(), 6);
    assert_eq!(store.count(b("")).await.unwrap(), 7);
}

async fn compaction_ends_old_reads(backend: &Backend) {
    let store = &backend.store;
    let first = create(store, "/r/a", "1").await;
    let second = update(store, "/r/a", "2", first).await;
    let third = update(store, "/r/a", "3", second).await;
    store.compact(second).await.unwrap();
    let list =
        |revision| store.list(ListOptions { prefix: b("/r/"), revision, ..ListOptions::default() });
    assert!(
        matches!(list(first).await, Err(Error::Compacted { requested, .. }) if requested == first)
    );
    assert_eq!(list(second).await.unwrap().entries[0].value, b("2"));
    assert_eq!(list(third).await.unwrap().entries[0].value, b("3"));
    assert!(matches!(list(third.next()).await, Err(Error::FutureRevision { .. })));
    assert!(matches!(store.compact(second).await, Err(Error::Compacted { .. })));
    assert!(matches!(store.compact(third.next()).await, Err(Error::FutureRevision { .. })));
}

async fn watch_delivers_in_order(backend: &Backend) {
    let store = &backend.store;
    let first = create(store, "/r/a", "1").await;
    let mut watch = store.watch(watch_options("/r/", first.get())).await.unwrap();
    let second = update(store, "/r/a", "2", first).await;
    create(store, "/elsewhere", "x").await;
    let Outcome::Written(third) = store.delete(b("/r/a"), second).await.unwrap() else {
        panic!("not deleted")
    };
    let mut events = Vec::new();
    while events.len() < 3 {
        let batch = next(&mut watch).await;
        assert_eq!(batch.revision, batch.events.last().unwrap().entry.mod_revision);
        events.extend(batch.events);
    }
    let changes: Vec<_> =
        events.iter().map(|e| (e.kind, e.entry.mod_revision, e.entry.value.clone())).collect();
    assert_eq!(
        changes,
        [
            (EventKind::Created, first, b("1")),
            (EventKind::Updated, second, b("2")),
            (EventKind::Deleted, third, b("")),
        ]
    );
    assert!(events.iter().all(|event| event.previous.is_none()));

    let options = WatchOptions { previous: true, ..watch_options("/r/", third.get()) };
    let mut watch = store.watch(options).await.unwrap();
    let batch = next(&mut watch).await;
    assert_eq!(batch.events[0].previous.as_ref().unwrap().value, b("2"));
}

async fn watch_reports_progress(backend: &Backend) {
    let store = &backend.store;
    let mut watch = store.watch(watch_options("/r/", 0)).await.unwrap();
    create(store, "/r/a", "1").await;
    assert_eq!(next(&mut watch).await.revision, Revision::new(2));
    let revision = create(store, "/elsewhere", "x").await;
    watch.progress_requester().request().await.unwrap();
    let batch = watch.next().await.unwrap().unwrap();
    assert_eq!(batch.events, []);
    // With an old etcd progress is requested by a write, which is a revision of its own and hidden.
    assert!(batch.revision >= revision);
    assert_eq!(store.list(ListOptions::default()).await.unwrap().entries.len(), 2);
}

/// A watch that reports a revision has delivered everything up to it.
async fn progress_does_not_overtake_events(backend: &Backend) {
    let store = &backend.store;
    let mut watch = store.watch(watch_options("/r/", 2)).await.unwrap();
    let progress = watch.progress_requester();
    let mut delivered = Revision::NONE;
    for index in 0..200 {
        let value = "x".repeat(index * 37 % 5000);
        let revision = create(store, &format!("/r/{index}"), &value).await;
        progress.request().await.unwrap();
        loop {
            let batch = watch.next().await.unwrap().unwrap();
            delivered = batch.events.last().map_or(delivered, |event| event.entry.mod_revision);
            if batch.revision >= revision {
                break;
            }
        }
        assert_eq!(delivered, revision);
    }
}

async fn watch_of_compacted_revision_fails(backend: &Backend) {
    let store = &backend.store;
    let first = create(store, "/r/a", "1").await;
    let second = update(store, "/r/a", "2", first).await;
    store.compact(second).await.unwrap();
    let failure = match store.watch(watch_options("/r/", first.get())).await {
        Ok(mut watch) => watch.next().await.unwrap().unwrap_err(),
        Err(error) => error,
    };
    assert!(
        matches!(failure, Error::Compacted { oldest: Some(oldest), .. } if oldest == second),
        "{failure:?}"
    );
}

async fn leases_are_revoked(backend: &Backend) {
    let store = &backend.store;
    let shared = store.lease(Duration::from_secs(60)).await.unwrap();
    assert_eq!(store.lease(Duration::from_secs(60)).await.unwrap(), shared);
    let mut watch = store.watch(watch_options("/r/", 2)).await.unwrap();
    for key in ["/r/a", "/r/b"] {
        let outcome = store.create_with_lease(b(key), b("v"), Some(shared)).await.unwrap();
        assert!(matches!(outcome, Outcome::Written(_)));
    }
    let mut etcd = store.etcd();
    let id = etcd.leases().await.unwrap().leases()[0].id();
    etcd.lease_client().revoke(id).await.unwrap();
    let mut deleted = Vec::new();
    while deleted.len() < 2 {
        let events = next(&mut watch).await.events;
        deleted.extend(events.into_iter().filter(|event| event.kind == EventKind::Deleted));
    }
    assert_eq!(deleted[0].entry.mod_revision, deleted[1].entry.mod_revision);
    let gone = store.create_with_lease(b("/r/c"), b("v"), Some(shared)).await;
    assert!(matches!(gone, Err(Error::LeaseNotFound)), "{gone:?}");
}

async fn large_values(backend: &Backend) {
    let store = &backend.store;
    let megabyte = Bytes::from(vec![b'x'; 1 << 20]);
    for index in 0..6 {
        let outcome = store.create(b(&format!("/r/{index}")), megabyte.clone()).await.unwrap();
        assert!(matches!(outcome, Outcome::Written(_)));
    }
    let listing =
        store.list(ListOptions { prefix: b("/r/"), ..ListOptions::default() }).await.unwrap();
    assert_eq!(listing.entries.iter().map(|entry| entry.value.len()).sum::<usize>(), 6 << 20);
    let mut watch = store.watch(watch_options("/r/", 2)).await.unwrap();
    let mut seen = 0;
    while seen < 6 {
        seen += next(&mut watch).await.events.len();
    }
    let huge = Bytes::from(vec![b'x'; 2 << 20]);
    assert!(matches!(store.create(b("/r/huge"), huge).await, Err(Error::TooLarge)));
}
