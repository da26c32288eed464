//! The supervisor: a process that outlives the terminal, starts the cluster's processes in order,
//! restarts them when they end, and answers `skiff status` and `skiff down` on a socket.
//!
//! It only waits for events (a process's end, its readiness, a request), and is idle otherwise.
//! When killed with -9 it leaves the processes running; the next supervisor takes over by
//! restarting the processes in the previous one's records, which stops no container.

pub mod control;
mod keeper;
mod logs;
mod notify;
pub mod record;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::cluster::layout::Layout;
use crate::cluster::processes::Process;
use crate::cluster::{cgroup, files};
use control::{Desired, Status};
use keeper::Keeper;

/// How long a process may take to end after SIGTERM.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// Pending requests to stop the supervisor; one is enough.
const STOP_QUEUE: usize = 4;

/// The list of processes as the supervisor reads it.
pub fn processes_file(run: &Path) -> std::path::PathBuf {
    run.join("processes.json")
}

/// What the supervisor shares between its tasks.
pub struct Shared {
    processes: Vec<Process>,
    /// The status of each process, by name; a change wakes every watcher.
    states: watch::Sender<BTreeMap<String, Status>>,
    /// The desired state of each process.
    desired: BTreeMap<String, watch::Sender<Desired>>,
    /// Asks the supervisor to end.
    stop: mpsc::Sender<()>,
}

/// Runs until asked to stop.
///
/// # Errors
/// When another supervisor uses the run folder, or the socket or the list of processes cannot be
/// used. A process that cannot be started is retried.
pub async fn run(layout: &Layout, group: Option<&str>) -> anyhow::Result<()> {
    let folder = layout.run();
    files::make_private_dir(&folder)?;
    let _lock = lock(&folder)?;
    // Fails when the process is a group leader already, as when it is started from a shell; then it
    // keeps its session.
    if let Err(error) = nix::unistd::setsid() {
        tracing::debug!(%error, "the supervisor stays in its session");
    }
    if let Some(group) = group {
        cgroup::join(&format!("{group}/processes"))?;
    }
    record::take_over(&folder, STOP_GRACE).await?;
    record::write(&folder, record::SUPERVISOR, std::process::id())?;
    let text = std::fs::read_to_string(processes_file(&folder))
        .context("cannot read the list of processes")?;
    let processes: Vec<Process> = serde_json::from_str(&text)?;

    let (stop, mut stopped) = mpsc::channel(STOP_QUEUE);
    let shared = Arc::new(Shared::new(processes, stop));
    let keepers = start_keepers(&shared, layout)?;
    let server = tokio::spawn(control::serve(control::bind(&folder)?, shared.clone()));
    let rotation =
        keeps_logs(&shared, layout).then(|| tokio::spawn(logs::keep_small(layout.logs())));

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = stopped.recv() => break,
            _ = hangup.recv() => tracing::debug!("the terminal is gone"),
        }
    }
    tracing::info!("stopping");
    stop_all(&shared, keepers).await;
    server.abort();
    if let Some(rotation) = rotation {
        rotation.abort();
    }
    record::clear(&folder)
}

/// Whether the processes write to files of the cluster's, and not to a container's output.
fn keeps_logs(shared: &Shared, layout: &Layout) -> bool {
    let folder = layout.logs();
    shared.processes.iter().any(|process| process.log.starts_with(&folder))
}

impl Shared {
    fn new(processes: Vec<Process>, stop: mpsc::Sender<()>) -> Self {
        let states = processes.iter().map(|p| (p.name.clone(), Status::waiting(p))).collect();
        let desired = processes
            .iter()
            .map(|p| (p.name.clone(), watch::Sender::new(Desired::Running)))
            .collect();
        Self { processes, states: watch::Sender::new(states), desired, stop }
    }

    fn update(&self, name: &str, change: impl FnOnce(&mut Status)) {
        self.states.send_modify(|states| {
            if let Some(state) = states.get_mut(name) {
                change(state);
            }
        });
    }
}

fn start_keepers(
    shared: &Arc<Shared>,
    layout: &Layout,
) -> anyhow::Result<Vec<tokio::task::JoinHandle<()>>> {
    let mut keepers = Vec::new();
    for process in &shared.processes {
        let keeper = Keeper::new(process.clone(), shared.clone(), layout.run())?;
        keepers.push(tokio::spawn(keeper.run()));
    }
    Ok(keepers)
}

/// Stops the processes in reverse order, so that a process ends before those it depends on.
async fn stop_all(shared: &Shared, keepers: Vec<tokio::task::JoinHandle<()>>) {
    // Nodes first and all at once, then the control plane from its end to its start.
    let of_node = |process: &&Process| process.node.is_some();
    let waves: Vec<Vec<&Process>> = [
        shared
            .processes
            .iter()
            .filter(of_node)
            .filter(|p| !p.name.starts_with("containerd"))
            .collect(),
        shared.processes.iter().filter(of_node).collect(),
    ]
    .into_iter()
    .chain(shared.processes.iter().rev().filter(|p| p.node.is_none()).map(|p| vec![p]))
    .collect();
    for wave in waves {
        for process in &wave {
            shared.desired[&process.name].send_replace(Desired::Ended);
        }
        for process in &wave {
            let mut states = shared.states.subscribe();
            let ended = |states: &BTreeMap<String, Status>| states[&process.name].pid.is_none();
            if states.wait_for(ended).await.is_err() {
                tracing::error!(process = process.name, "its keeper has ended");
            }
        }
    }
    for keeper in keepers {
        if let Err(error) = keeper.await {
            tracing::error!(%error, "a keeper failed");
        }
    }
}

/// Locks the run folder for this supervisor; released when the process ends for whatever reason.
fn lock(folder: &Path) -> anyhow::Result<Flock<File>> {
    let path = folder.join("supervisor.lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, error)| error)
        .with_context(|| format!("another supervisor runs in {}", folder.display()))
}

/// SIGTERM, or SIGKILL to end a process at once.
fn end_signal(impatient: bool) -> Signal {
    if impatient { Signal::SIGKILL } else { Signal::SIGTERM }
}
