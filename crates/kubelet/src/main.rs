//! `skiff-kubelet`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // The container log writers are this same executable.
    kubelet::logs::run_logger_if_asked().unwrap_or(ExitCode::SUCCESS)
}
