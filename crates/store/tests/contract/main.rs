//! The store's contract: one suite, run against Debian's etcd and the embedded service, which must
//! behave the same.
//!
//! There are two kinds of tests. Those of the typed client (`facade`) state the expected results
//! and run once per backend. Those of the wire protocol (`kv`, `txn`, `watch`, `lease`, `random`)
//! send the same requests to both and compare the responses, so that etcd itself defines the
//! expected results.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backend;
mod facade;
mod kv;
mod lease;
mod outage;
mod pair;
mod random;
mod raw;
mod tls;
mod txn;
mod watch;

/// Defines a test per backend for each listed async function that takes a `&Backend`.
macro_rules! contract {
    ($($name:ident),+ $(,)?) => {
        mod etcd {
            $(#[tokio::test]
            async fn $name() {
                let backend = $crate::backend::Backend::etcd().await;
                super::$name(&backend).await;
            })+
        }
        mod embedded {
            $(#[tokio::test]
            async fn $name() {
                let backend = $crate::backend::Backend::embedded().await;
                super::$name(&backend).await;
            })+
        }
    };
}
pub(crate) use contract;
