//! The writer process.

use std::process::ExitCode;

/// If this process was started to write a container's log, does that and gives the exit code; `None`
/// otherwise. Call it first in `main`, before any thread or runtime is started.
pub fn run_logger_if_asked() -> Option<ExitCode> {
    None
}
