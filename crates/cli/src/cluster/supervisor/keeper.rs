//! Keeps one process running.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::cluster::network::namespace;
use crate::cluster::processes::Process;
use crate::cluster::supervisor::control::{Desired, Phase};
use crate::cluster::supervisor::notify::Notifications;
use crate::cluster::supervisor::{STOP_GRACE, Shared, end_signal, record};

/// How long a process waits for those it is started after. Then it is started anyway, since every
/// process can cope without the others.
const ORDER_TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses before restarts.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
const BACKOFF: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(100))
    .with_max_delay(BACKOFF_MAX)
    .without_max_times();
/// A process that has run this long starts over with the shortest pause.
const BACKOFF_RESET: Duration = Duration::from_secs(60);

/// Keeps one process in its desired state, and reports its status.
pub struct Keeper {
    process: Process,
    shared: Arc<Shared>,
    run: PathBuf,
    notifications: Notifications,
    desired: watch::Receiver<Desired>,
}

impl Keeper {
    pub fn new(process: Process, shared: Arc<Shared>, run: PathBuf) -> anyhow::Result<Self> {
        let notifications = Notifications::bind(&run, &process.name)?;
        let desired = shared.desired[&process.name].subscribe();
        Ok(Self { process, shared, run, notifications, desired })
    }

    /// Starts the process, and restarts it when it ends, until it is to be stopped for good.
    pub async fn run(mut self) {
        self.wait_for_turn().await;
        let mut pauses = BACKOFF.build();
        loop {
            match self.wait_until_desired().await {
                Desired::Ended => return,
                Desired::Stopped | Desired::Killed => continue,
                Desired::Running => {}
            }
            let started = clock::instant();
            match self.spawn() {
                Ok(child) => self.watch(child).await,
                Err(error) => {
                    tracing::error!(process = self.process.name, "cannot start: {error:#}");
                    self.failed(format!("{error:#}"));
                }
            }
            if *self.desired.borrow() != Desired::Running {
                pauses = BACKOFF.build();
                continue;
            }
            if started.elapsed() >= BACKOFF_RESET {
                pauses = BACKOFF.build();
            }
            let pause = pauses.next().unwrap_or(BACKOFF_MAX);
            self.shared.update(&self.process.name, |status| status.restarts += 1);
            tracing::warn!(process = self.process.name, ?pause, "restarting");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = self.desired.changed() => {}
            }
        }
    }

    async fn wait_for_turn(&mut self) {
        let mut states = self.shared.states.subscribe();
        let after = self.process.after.clone();
        let turn = async {
            let ready = |states: &std::collections::BTreeMap<
                String,
                crate::cluster::supervisor::Status,
            >| {
                after.iter().all(|name| states.get(name).is_none_or(|s| s.phase == Phase::Ready))
            };
            if states.wait_for(ready).await.is_err() {
                tracing::error!("the statuses are no longer published");
            }
        };
        tokio::select! {
            () = turn => {}
            () = tokio::time::sleep(ORDER_TIMEOUT) => {
                tracing::warn!(process = self.process.name, ?after, "starting without waiting any longer");
            }
            () = until_undesired(&mut self.desired) => {}
        }
    }

    /// Waits while the process is to stay stopped.
    async fn wait_until_desired(&mut self) -> Desired {
        let is_desired = |desired: &Desired| matches!(desired, Desired::Running | Desired::Ended);
        match self.desired.wait_for(is_desired).await {
            Ok(desired) => *desired,
            Err(_) => Desired::Ended,
        }
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        self.notifications.drain();
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o640)
            .open(&self.process.log)
            .with_context(|| format!("cannot open {}", self.process.log.display()))?;
        let mut command = Command::new(&self.process.program);
        command
            .args(&self.process.arguments)
            .env_clear()
            .envs(&self.process.environment)
            .env("NOTIFY_SOCKET", self.notifications.path())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Signals to the supervisor's process group must not reach its processes.
            .process_group(0);
        let runtime = tokio::runtime::Handle::current();
        let mut spawn = move || {
            let _inside = runtime.enter();
            command.spawn().context("cannot start the program")
        };
        let child = match &self.process.namespace {
            Some(path) => namespace::within(path, spawn),
            None => spawn(),
        }
        .with_context(|| self.process.program.display().to_string())?;
        if let Some(pid) = child.id() {
            record::write(&self.run, &self.process.name, pid)?;
            tracing::info!(process = self.process.name, pid, "started");
            self.shared.update(&self.process.name, |status| {
                status.pid = Some(pid);
                status.phase = Phase::Starting;
                status.message.clear();
            });
        }
        Ok(child)
    }

    /// Follows a running process to its end.
    async fn watch(&self, mut child: Child) {
        let mut ready = false;
        let mut desired = self.desired.clone();
        let ended = loop {
            tokio::select! {
                ended = child.wait() => break ended,
                () = self.notifications.ready(), if !ready => {
                    ready = true;
                    tracing::info!(process = self.process.name, "ready");
                    self.shared.update(&self.process.name, |status| status.phase = Phase::Ready);
                }
                () = until_undesired(&mut desired) => {
                    break self.end(&mut child).await;
                }
            }
        };
        record::remove(&self.run, &self.process.name);
        let message = match ended {
            Ok(status) => status.to_string(),
            Err(error) => format!("cannot wait for it: {error}"),
        };
        tracing::info!(process = self.process.name, message, "ended");
        self.failed(message);
    }

    async fn end(&self, child: &mut Child) -> std::io::Result<std::process::ExitStatus> {
        let kill_at_once = *self.desired.borrow() == Desired::Killed;
        let signal = |impatient| {
            if let Some(pid) = child.id() {
                let pid = nix::unistd::Pid::from_raw(pid as i32);
                if let Err(error) = nix::sys::signal::kill(pid, end_signal(impatient)) {
                    tracing::debug!(process = self.process.name, %error, "cannot signal");
                }
            }
        };
        signal(kill_at_once);
        match tokio::time::timeout(STOP_GRACE, child.wait()).await {
            Ok(ended) => ended,
            Err(_) => {
                tracing::warn!(process = self.process.name, "does not stop in time, killing it");
                child.kill().await?;
                child.wait().await
            }
        }
    }

    fn failed(&self, message: String) {
        let stopped = *self.desired.borrow() != Desired::Running;
        self.shared.update(&self.process.name, |status| {
            status.pid = None;
            status.phase = if stopped { Phase::Stopped } else { Phase::Failed };
            status.message = message;
        });
    }
}

async fn until_undesired(desired: &mut watch::Receiver<Desired>) {
    let is_undesired = |desired: &Desired| *desired != Desired::Running;
    if desired.wait_for(is_undesired).await.is_err() {
        tracing::error!("the desired state is no longer published");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restarts_are_quick_and_later_ones_bounded() {
        let pauses: Vec<Duration> = BACKOFF.build().take(40).collect();
        assert!(pauses[0] + pauses[1] < Duration::from_secs(1));
        assert_eq!(pauses[3].as_millis(), 800);
        assert_eq!(pauses[39], BACKOFF_MAX);
    }
}
