//! Compares the embedded store with Debian's etcd, on this machine, in one run:
//! `cargo bench -p store`.
//!
//! Prints puts per second with 1, 16 and 64 writers (3 KB values, through the same typed client),
//! the duration of a burst, of ranges over the whole set and of single gets, and the ratio of the
//! two.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

#[path = "../tests/contract/backend.rs"]
mod backend;

use std::time::Duration;

use backend::Backend;
use bytes::Bytes;
use futures::future::join_all;
use store::{ListOptions, Outcome, Store};
use tokio::time::Instant;

const VALUE_BYTES: usize = 3_000;
/// The duration of each measurement of a put rate.
const PUTS_FOR: Duration = Duration::from_secs(2);
/// The number of keys and of concurrent writers in the burst.
const BURST_KEYS: usize = 10_000;
const BURST_WRITERS: usize = 1_000;
/// The number of keys of an idle cluster, for measuring its memory.
const IDLE_KEYS: usize = 500;
const GETS: usize = 20_000;
const LISTS: usize = 5;

/// The name of a measurement, its value, and whether more is better.
type Measured = (String, f64, bool);

/// A measurement of both stores.
struct Figure {
    name: String,
    embedded: f64,
    etcd: f64,
    more_is_better: bool,
}

fn main() {
    // `cargo bench` passes `--bench`; under `cargo test` there is nothing to do.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (embedded, recovery) = runtime.block_on(async {
        let backend = Backend::embedded().await;
        (measure(&backend).await, recovery(&backend).await)
    });
    let etcd = runtime.block_on(async { measure(&Backend::etcd().await).await });
    println!("{:<44} {:>12} {:>12} {:>8}", "", "embedded", "etcd", "ratio");
    for ((name, embedded, more_is_better), (_, etcd, _)) in embedded.into_iter().zip(etcd) {
        Figure { name, embedded, etcd, more_is_better }.print();
    }
    println!("{recovery}");
}

/// Opens a copy of the file as a crash would leave it now.
async fn recovery(backend: &Backend) -> String {
    let image = tempfile::TempDir::with_prefix("skiff-store-crash-").unwrap();
    let source =
        backend.directory().expect("the embedded store has a directory").join("store.redb");
    let bytes = std::fs::copy(source, image.path().join("store.redb")).unwrap();
    let start = clock::instant();
    let store = Store::embedded(image.path()).await.unwrap();
    let opened = millis(start);
    let keys = store.count(Bytes::new()).await.unwrap();
    format!("opening after a crash: {opened:.0} ms for {keys} keys in a file of {} MB", bytes >> 20)
}

impl Figure {
    fn print(&self) {
        let ratio =
            if self.more_is_better { self.embedded / self.etcd } else { self.etcd / self.embedded };
        println!("{:<44} {:>12.1} {:>12.1} {ratio:>7.2}x", self.name, self.embedded, self.etcd);
    }
}

async fn measure(backend: &Backend) -> Vec<Measured> {
    let store = &backend.store;
    let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
    let mut figures = Vec::new();
    for index in 0..IDLE_KEYS {
        let outcome = store.create(format!("/idle/{index}").into(), value.clone()).await.unwrap();
        assert!(matches!(outcome, Outcome::Written(_)));
    }
    let megabytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    figures.push((
        format!("resident memory with {IDLE_KEYS} keys, MB"),
        megabytes(backend.resident_bytes()),
        false,
    ));
    for writers in [1, 16, 64] {
        let rate = puts(store, writers, &value).await;
        figures.push((format!("puts/s, {writers} at once"), rate, true));
    }
    let start = clock::instant();
    burst(store, &value).await;
    figures.push((format!("{BURST_KEYS} puts, {BURST_WRITERS} at once, ms"), millis(start), false));

    reads(store, &mut figures).await;
    let start = clock::instant();
    for _ in 0..GETS {
        // A failing comparison covers the whole path of a write except the flush.
        let outcome = store.create(burst_key(0), Bytes::new()).await.unwrap();
        assert!(matches!(outcome, Outcome::Conflict { .. }));
    }
    figures.push(("refused creates, µs each".to_owned(), millis(start) * 1e3 / GETS as f64, false));
    figures.push((
        "resident memory at the end, MB".to_owned(),
        megabytes(backend.resident_bytes()),
        false,
    ));
    figures
}

/// Ranges and gets of the keys written by the burst.
async fn reads(store: &Store, figures: &mut Vec<Measured>) {
    let prefix = Bytes::from_static(b"/burst/");
    let start = clock::instant();
    for _ in 0..LISTS {
        let listing = store
            .list(ListOptions { prefix: prefix.clone(), ..ListOptions::default() })
            .await
            .unwrap();
        assert_eq!(listing.entries.len(), BURST_KEYS);
    }
    figures.push((format!("list of {BURST_KEYS}, ms"), millis(start) / LISTS as f64, false));
    let start = clock::instant();
    let options = ListOptions { prefix: prefix.clone(), limit: 500, ..ListOptions::default() };
    for _ in 0..LISTS {
        assert_eq!(store.list(options.clone()).await.unwrap().entries.len(), 500);
    }
    figures.push(("list of the first 500, ms".to_owned(), millis(start) / LISTS as f64, false));
    let start = clock::instant();
    for _ in 0..LISTS {
        assert_eq!(store.count(prefix.clone()).await.unwrap(), BURST_KEYS as u64);
    }
    figures.push((format!("count of {BURST_KEYS}, ms"), millis(start) / LISTS as f64, false));
    let start = clock::instant();
    for index in 0..GETS {
        assert!(store.get(burst_key(index % BURST_KEYS)).await.unwrap().entry.is_some());
    }
    figures.push((
        "gets/s, one at a time".to_owned(),
        GETS as f64 / start.elapsed().as_secs_f64(),
        true,
    ));
}

async fn puts(store: &Store, writers: usize, value: &Bytes) -> f64 {
    let start = clock::instant();
    let done = join_all((0..writers).map(|writer| {
        let (store, value) = (store.clone(), value.clone());
        tokio::spawn(async move {
            let mut done = 0;
            while start.elapsed() < PUTS_FOR {
                let key = format!("/puts/{writers}/{writer}/{done}");
                let outcome = store.create(key.into(), value.clone()).await.unwrap();
                assert!(matches!(outcome, Outcome::Written(_)));
                done += 1;
            }
            done
        })
    }));
    let done: u32 = done.await.into_iter().map(Result::unwrap).sum();
    f64::from(done) / start.elapsed().as_secs_f64()
}

async fn burst(store: &Store, value: &Bytes) {
    let writers = (0..BURST_WRITERS).map(|writer| {
        let (store, value) = (store.clone(), value.clone());
        tokio::spawn(async move {
            for index in (writer..BURST_KEYS).step_by(BURST_WRITERS) {
                let outcome = store.create(burst_key(index), value.clone()).await.unwrap();
                assert!(matches!(outcome, Outcome::Written(_)));
            }
        })
    });
    join_all(writers).await.into_iter().for_each(Result::unwrap);
}

fn burst_key(index: usize) -> Bytes {
    format!("/burst/{index:06}").into()
}

fn millis(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}
