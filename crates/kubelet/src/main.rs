//! `skiff-kubelet`: reads the flags and runs the kubelet. See the library's documentation.

use std::process::ExitCode;

use clap::Parser;
use kubelet::config::Flags;

/// The kubelet mostly waits; more threads would only take memory.
const WORKER_THREADS: usize = 4;

fn main() -> ExitCode {
    // The container log writers and the helpers for user namespaces are this same executable.
    if let Some(code) = kubelet::logs::run_logger_if_asked() {
        return code;
    }
    if let Some(code) = kubelet::containers::run_if_asked() {
        return code;
    }
    let flags = Flags::parse();
    let level = flags.common.log_level.clone();
    runtime::start::run(&level, WORKER_THREADS, |shutdown| kubelet::wire::run(flags, shutdown))
}
