//! Process startup: crypto provider, logging, limits, tokio.

use std::future::Future;
use std::process::ExitCode;

use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::memory;

/// Installs ring as rustls' crypto provider and starts logging to standard error. May be called
/// more than once, as tests do.
pub fn init(log_level: &str) {
    // Fails harmlessly if a provider is already installed.
    rustls::crypto::ring::default_provider().install_default().ok();
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(log_level))
        .unwrap_or_default();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init()
        .ok();
}

/// Raises the number of files and sockets that may be open to what the system allows. The usual
/// soft limit of 1024 is meant for programs that call select(2).
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// Bytes of a worker's stack, of which those in use take memory. What clients send nests 128 deep at
/// most; each level takes several frames, which are large in programs that are not optimized.
const STACK: usize = 8 << 20;

/// Runs `body` on a tokio runtime of at most `workers` threads, with a token that is cancelled on
/// SIGTERM or SIGINT. An error is logged with its cause chain and becomes exit code 1.
pub fn run<F>(
    log_level: &str,
    workers: usize,
    body: impl FnOnce(CancellationToken) -> F,
) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    init(log_level);
    raise_open_files();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = workers.clamp(1, cores.max(1));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_stack_size(STACK)
        // A worker may find work before it has ever had nothing to do.
        .on_thread_start(memory::resumed)
        .on_thread_unpark(memory::resumed)
        .on_thread_park(memory::idle)
        .enable_all()
        .build()
        .expect("threads can be started at process startup");
    runtime.spawn(memory::keep_small(workers));
    let outcome = runtime.block_on(async {
        let shutdown = crate::shutdown::on_signal()?;
        body(shutdown).await
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
