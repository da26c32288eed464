//! The store's contract: one suite, run against Debian's etcd and against the embedded service. Whatever etcd does in
//! it, the embedded service does.
//!
//! Two kinds of tests. Those of the typed client (`facade`) say what is expected and run once per backend. Those of the
//! wire (`kv`, `txn`, `watch`, `lease`, `random`) send the same requests to both and compare the answers, so that etcd
//! itself says what is expected.

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

/// Makes a test per backend of each listed async function that takes a `&Backend`.
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
