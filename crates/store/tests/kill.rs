//! Kills a process that writes to an embedded store, a hundred times, and checks that no
//! acknowledged write is lost.
//!
//! The child (this program, running its other test) runs a few writers, each with its own keys, and
//! reports acknowledged writes on its standard output: `worker revision key value`, without a value
//! for a deletion. The parent kills it after a random time, opens the store itself and compares.
//! Each writer may have had one operation in flight, which may or may not have been applied.
//! Everything else must be exactly as acknowledged, ordered by revision.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use store::{
    Error, EventKind, ListOptions, Outcome, Revision, Store, WatchOptions,
    embedded::{Embedded, EmbeddedConfig},
};
use tempfile::TempDir;

const ROUNDS: usize = 100;
const WORKERS: usize = 8;
const KEYS: usize = 12;
/// The number of acknowledged writes of a worker between compactions.
const COMPACT_EVERY: u64 = 10;
/// The number of revisions that a compaction keeps.
const KEPT_REVISIONS: u64 = 300;
/// The lifetime of a child, from its first acknowledged write.
const LIFE_MS: std::ops::Range<u64> = 1..120;
const VALUE_BYTES: std::ops::Range<usize> = 10..6_000;

/// The environment variable with the child's directory.
const DIRECTORY: &str = "SKIFF_STORE_KILL_DIRECTORY";
/// The prefix of the child's own lines, which distinguishes them from the test runner's.
const ACKNOWLEDGED: &str = "acknowledged: ";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_a_hundred_kills() {
    parent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process to be killed; started by the test above"]
async fn child_process() {
    let directory =
        std::env::var_os(DIRECTORY).expect("started by the other test, which sets the directory");
    child(Path::new(&directory)).await;
}

async fn child(directory: &Path) {
    let store = Store::embedded(directory).await.unwrap();
    let workers: Vec<_> =
        (0..WORKERS).map(|worker| tokio::spawn(work(store.clone(), worker))).collect();
    for worker in workers {
        worker.await.unwrap();
    }
}

fn key(worker: usize, index: usize) -> String {
    format!("/registry/{worker}/{index}")
}

/// Writes forever, one operation at a time.
async fn work(store: Store, worker: usize) {
    let mut known: Vec<Revision> = Vec::new();
    for index in 0..KEYS {
        let fetched = store.get(key(worker, index).into()).await.unwrap();
        known.push(fetched.entry.map_or(Revision::NONE, |entry| entry.mod_revision));
    }
    for count in 1_u64.. {
        let index = rand::random_range(0..KEYS);
        let key = Bytes::from(key(worker, index));
        let value = format!("{worker}-{count}-{}", "x".repeat(rand::random_range(VALUE_BYTES)));
        let expected = known[index];
        let delete = !expected.is_none() && rand::random_ratio(1, 4);
        let outcome = if delete {
            store.delete(key.clone(), expected).await.unwrap()
        } else if expected.is_none() {
            store.create(key.clone(), Bytes::from(value.clone())).await.unwrap()
        } else {
            store.update(key.clone(), Bytes::from(value.clone()), expected).await.unwrap()
        };
        let Outcome::Written(revision) = outcome else {
            panic!("another writer changed {key:?}: {outcome:?}")
        };
        known[index] = if delete { Revision::NONE } else { revision };
        let value = if delete { "" } else { &value };
        let mut line =
            format!("{ACKNOWLEDGED}{worker} {revision} {} {value}", String::from_utf8_lossy(&key));
        line.push('\n');
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
        if count.is_multiple_of(COMPACT_EVERY) && revision.get() > KEPT_REVISIONS {
            match store.compact(Revision::new(revision.get() - KEPT_REVISIONS)).await {
                Ok(()) | Err(Error::Compacted { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// The acknowledged writes: the state of each key, and the last revision of each worker.
#[derive(Default)]
struct Acknowledged {
    keys: BTreeMap<String, (u64, String)>,
    workers: BTreeMap<usize, u64>,
    writes: Vec<(u64, String, String)>,
}

async fn parent() {
    let directory = TempDir::with_prefix("skiff-store-kill-").unwrap();
    let mut acknowledged = Acknowledged::default();
    for round in 0..ROUNDS {
        let before = acknowledged.writes.len();
        run_and_kill(directory.path(), &mut acknowledged);
        verify(directory.path(), &mut acknowledged, before).await;
        if round % 10 == 9 {
            println!(
                "killed {} times, {} acknowledged writes are present",
                round + 1,
                acknowledged.writes.len()
            );
        }
    }
}

/// Lets a child write for a while and kills it. Its output remains in the pipe.
fn run_and_kill(directory: &Path, acknowledged: &mut Acknowledged) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_process", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let child = Arc::new(Mutex::new(child));
    let mut output = BufReader::new(child.lock().unwrap().stdout.take().unwrap());
    let mut killer = None;
    let mut line = String::new();
    // The kill may have truncated the last line.
    while output.read_line(&mut line).unwrap() > 0 && line.ends_with('\n') {
        let acknowledgement = std::mem::take(&mut line);
        let Some((_, write)) = acknowledgement.trim_end_matches('\n').split_once(ACKNOWLEDGED)
        else {
            continue;
        };
        if killer.is_none() {
            let life = Duration::from_millis(rand::random_range(LIFE_MS));
            let child = child.clone();
            killer = Some(thread::spawn(move || {
                // The lifetime of the child is the parameter of the test, not a wait for a
                // condition.
                thread::sleep(life);
                child.lock().unwrap().kill().unwrap();
            }));
        }
        let fields: Vec<&str> = write.splitn(4, ' ').collect();
        let [worker, revision, key, value] = fields[..] else { panic!("{write:?}") };
        let (worker, revision) = (worker.parse().unwrap(), revision.parse().unwrap());
        let last = acknowledged.workers.insert(worker, revision).unwrap_or_default();
        assert!(revision > last, "worker {worker} got revision {revision} after {last}");
        acknowledged.writes.push((revision, key.to_owned(), value.to_owned()));
        acknowledged.keys.insert(key.to_owned(), (revision, value.to_owned()));
    }
    killer.expect("the child wrote nothing").join().unwrap();
    assert!(!child.lock().unwrap().wait().unwrap().success());
}

async fn verify(directory: &Path, acknowledged: &mut Acknowledged, before: usize) {
    let embedded = Embedded::open(EmbeddedConfig::new(directory)).await.unwrap();
    let store = embedded.store().await.unwrap();
    let prefix = Bytes::from_static(b"/registry/");
    let listing =
        store.list(ListOptions { prefix: prefix.clone(), ..ListOptions::default() }).await.unwrap();
    let mut actual: BTreeMap<String, (u64, String)> = BTreeMap::new();
    for entry in &listing.entries {
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        actual.insert(text(&entry.key), (entry.mod_revision.get(), text(&entry.value)));
    }
    for worker in 0..WORKERS {
        let last = acknowledged.workers.get(&worker).copied().unwrap_or_default();
        let mut deviating = 0;
        for index in 0..KEYS {
            let key = key(worker, index);
            let expected = acknowledged.keys.get(&key).filter(|(_, value)| !value.is_empty());
            let found = actual.get(&key);
            if found != expected {
                deviating += 1;
                let revision = found.map(|(revision, _)| *revision);
                assert!(
                    revision.is_none_or(|revision| revision > last),
                    "{key}: {revision:?}, acknowledged {last}"
                );
            }
        }
        assert!(deviating <= 1, "worker {worker}: {deviating} keys are not as acknowledged");
    }
    verify_history(&store, &acknowledged.writes[before..], listing.revision).await;
    // Operations in flight may or may not have been applied; from here on their outcome is known.
    acknowledged.keys = actual;
    drop(store);
    embedded.stop().await.unwrap();
}

/// Checks that every acknowledged write that is not compacted is in history exactly once, and that
/// no revision is missing.
async fn verify_history(store: &Store, writes: &[(u64, String, String)], current: Revision) {
    let mut from = Revision::new(2);
    let mut watch = loop {
        let options = WatchOptions { prefix: Bytes::new(), from, previous: false };
        let mut watch = store.watch(options).await.unwrap();
        watch.progress_requester().request().await.unwrap();
        match watch.next().await.unwrap() {
            Ok(first) => break futures::stream::iter([Ok(first)]).chain(watch),
            Err(Error::Compacted { oldest: Some(oldest), .. }) => from = oldest.next(),
            Err(error) => panic!("{error}"),
        }
    };
    let mut history = BTreeMap::new();
    let mut next = from;
    while next <= current {
        for event in watch.next().await.unwrap().unwrap().events {
            assert_eq!(event.entry.mod_revision, next, "a revision is missing or duplicated");
            let value =
                if event.kind == EventKind::Deleted { Bytes::new() } else { event.entry.value };
            history.insert(next.get(), (event.entry.key, value));
            next = next.next();
        }
    }
    for (revision, key, value) in writes.iter().filter(|(revision, _, _)| *revision >= from.get()) {
        let found = history.get(revision).map(|(key, value)| (key.as_ref(), value.as_ref()));
        assert_eq!(found, Some((key.as_bytes(), value.as_bytes())), "revision {revision}");
    }
}
