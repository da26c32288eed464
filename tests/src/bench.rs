//! What the benchmarks of a cluster share.

use std::process::ExitCode;

/// Runs a benchmark to its end, and prints why it failed.
pub fn run(benchmark: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    runtime::init("warn");
    let threads = tokio::runtime::Runtime::new().expect("threads can be started");
    match threads.block_on(benchmark) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
