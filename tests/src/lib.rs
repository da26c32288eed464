//! End-to-end suites: what a user does with a cluster, tested on a real one, from the outside.
//!
//! Every suite is a file in `tests/`, which starts one cluster and runs its scenarios on it
//! (`testkit::suite`). They run the programs in the target folder, so build these first:
//! `cargo build --workspace --bins && cargo run -p xtask -- images`, then
//! `cargo test -p tests --test pods [SCENARIO]`, as root.
//!
//! Entry points for the suites: [`pods`] and [`web`], which hold what several of them share, and
//! [`device_plugin`]; for the benchmarks: [`mod@bench`].
//! It must not know any component's internals.

pub mod bench;
pub mod device_plugin;
pub mod pods;
pub mod web;

/// The cluster's programs. Where they are copied they are stripped, to a third of their size.
pub const PROGRAMS: [&str; 8] = [
    "skiff",
    "skiff-apiserver",
    "skiff-scheduler",
    "skiff-controller-manager",
    "skiff-kubelet",
    "skiff-log",
    "skiff-proxy",
    "skiff-dns",
];
