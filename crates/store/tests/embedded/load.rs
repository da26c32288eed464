//! Concurrent clients.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use bytes::Bytes;
use futures::{StreamExt, future::join_all};
use store::{Error, ListOptions, Revision, WatchOptions};

use crate::{b, folder, open, written};

const WRITERS: usize = 16;
const WRITES: usize = 150;

/// Reads reflect all acknowledged writes, and a list reflects a single revision.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn reads_see_acknowledged_writes() {
    let folder = folder();
    let (_embedded, store) = open(&folder).await;
    let acknowledged = Arc::new(AtomicU64::new(1));
    let stop = Arc::new(AtomicBool::new(false));
    let readers = (0..2).map(|_| {
        let (store, acknowledged, stop) = (store.clone(), acknowledged.clone(), stop.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let least = acknowledged.load(Ordering::SeqCst);
                let listing = store
                    .list(ListOptions { prefix: b("/"), ..ListOptions::default() })
                    .await
                    .unwrap();
                assert!(listing.revision.get() >= least);
                let newest = listing.entries.iter().map(|entry| entry.mod_revision).max();
                assert!(newest.is_none_or(|newest| newest <= listing.revision));
                // Each revision creates one key, and none is deleted.
                assert_eq!(listing.entries.len() as u64 + 1, listing.revision.get());
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    let writers = (0..WRITERS).map(|writer| {
        let (store, acknowledged) = (store.clone(), acknowledged.clone());
        tokio::spawn(async move {
            for index in 0..WRITES {
                let key = format!("/{writer}/{index}");
                let revision = written(store.create(key.clone().into(), b("v")).await.unwrap());
                acknowledged.fetch_max(revision.get(), Ordering::SeqCst);
                let own = store.get(key.into()).await.unwrap().entry.unwrap();
                assert_eq!(own.mod_revision, revision);
            }
        })
    });
    join_all(writers).await.into_iter().for_each(Result::unwrap);
    stop.store(true, Ordering::Relaxed);
    join_all(readers).await.into_iter().for_each(Result::unwrap);
}

/// A slow watch, under many writes and compactions, sees every revision or fails as compacted.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn watches_miss_no_revision() {
    let folder = folder();
    let (_embedded, store) = open(&folder).await;
    let total = (WRITERS * WRITES) as u64;
    let watches = (0..4).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut next = Revision::new(2);
            let options = WatchOptions { prefix: b("/"), from: next, previous: false };
            let mut watch = store.watch(options).await.unwrap();
            while next.get() < total + 2 {
                let batch = match watch.next().await.unwrap() {
                    Ok(batch) => batch,
                    Err(Error::Compacted { oldest: Some(oldest), .. }) => {
                        assert!(oldest > next);
                        return false;
                    }
                    Err(error) => panic!("{error}"),
                };
                for event in batch.events {
                    assert_eq!(event.entry.mod_revision, next);
                    next = next.next();
                }
                tokio::task::yield_now().await;
            }
            true
        })
    });
    let watches: Vec<_> = watches.collect();
    let value = Bytes::from(vec![b'x'; 2_000]);
    let writers = (0..WRITERS).map(|writer| {
        let (store, value) = (store.clone(), value.clone());
        tokio::spawn(async move {
            for index in 0..WRITES {
                let key = format!("/{writer}/{index}");
                let revision = written(store.create(key.into(), value.clone()).await.unwrap());
                if index % 20 == 19 {
                    match store.compact(Revision::new(revision.get() / 2)).await {
                        Ok(()) | Err(Error::Compacted { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        })
    });
    join_all(writers).await.into_iter().for_each(Result::unwrap);
    join_all(watches).await.into_iter().for_each(|watch| {
        watch.unwrap();
    });
}

/// Of many concurrent creates of a key exactly one succeeds, and the others get its value.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn one_of_many_creates_wins() {
    let folder = folder();
    let (_embedded, store) = open(&folder).await;
    for round in 0..20 {
        let key = b(&format!("/leader/{round}"));
        let contenders = (0..WRITERS).map(|contender| {
            let (store, key) = (store.clone(), key.clone());
            tokio::spawn(async move { store.create(key, b(&contender.to_string())).await.unwrap() })
        });
        let outcomes: Vec<_> = join_all(contenders).await.into_iter().map(Result::unwrap).collect();
        let winner = outcomes
            .iter()
            .position(|outcome| matches!(outcome, store::Outcome::Written(_)))
            .unwrap();
        for (contender, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                store::Outcome::Written(_) => assert_eq!(contender, winner),
                store::Outcome::Conflict { current, .. } => {
                    assert_eq!(current.unwrap().value, b(&winner.to_string()));
                }
            }
        }
    }
}
