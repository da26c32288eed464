//! No acknowledged write is lost: not when the process is killed, and not when the power fails.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod disk;
mod kill;
mod power;
mod workload;
