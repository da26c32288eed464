//! Tests of the embedded store alone: its file, its socket, its lifecycle.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod disk;
mod etcdctl;
mod file;
mod load;

use bytes::Bytes;
use store::{
    Outcome, Revision, Store,
    embedded::{Embedded, EmbeddedConfig},
};
use tempfile::TempDir;

fn folder() -> TempDir {
    TempDir::with_prefix("skiff-store-own-").unwrap()
}

async fn open(folder: &TempDir) -> (Embedded, Store) {
    open_with(EmbeddedConfig::new(folder.path())).await
}

async fn open_with(config: EmbeddedConfig) -> (Embedded, Store) {
    let embedded = Embedded::open(config).await.unwrap();
    let store = embedded.store().await.unwrap();
    (embedded, store)
}

fn b(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn written(outcome: Outcome) -> Revision {
    match outcome {
        Outcome::Written(revision) => revision,
        conflict => panic!("{conflict:?}"),
    }
}
