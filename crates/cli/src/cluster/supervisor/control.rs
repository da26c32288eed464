//! The supervisor's socket: requests and answers are lines of JSON.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::cluster::processes::Process;
use crate::cluster::supervisor::Shared;

/// Longest request in bytes.
const REQUEST_MAX: u64 = 64 << 10;
/// Requests that are served concurrently; others wait.
const CONNECTIONS_MAX: usize = 32;

/// The desired state of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Desired {
    Running,
    /// Stopped; may be started again.
    Stopped,
    /// Killed without a chance to clean up; may be started again.
    Killed,
    /// Stopped for good: the supervisor is about to end.
    Ended,
}

/// The phase of a process's lifecycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Waits for others to be ready.
    Waiting,
    /// Running, but not ready yet.
    Starting,
    Ready,
    /// Has ended, and will be restarted.
    Failed,
    /// Stopped on request.
    Stopped,
}

/// The status of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub name: String,
    pub node: Option<String>,
    pub phase: Phase,
    pub pid: Option<u32>,
    pub restarts: u32,
    pub log: PathBuf,
    /// How it last ended, or why it cannot be started; empty while it runs.
    pub message: String,
    pub health: Option<String>,
    pub namespace: Option<PathBuf>,
}

impl Status {
    /// The state of a process that has not been started yet.
    pub fn waiting(process: &Process) -> Self {
        Self {
            name: process.name.clone(),
            node: process.node.clone(),
            phase: Phase::Waiting,
            pid: None,
            restarts: 0,
            log: process.log.clone(),
            message: String::new(),
            health: process.health.clone(),
            namespace: process.namespace.clone(),
        }
    }
}

/// A request to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "do")]
pub enum Request {
    /// All statuses, once.
    Status,
    /// All statuses, now and after every change.
    Watch,
    /// Stop every process, then the supervisor. The connection ends when it has.
    Stop,
    /// Start, stop or kill the processes of one node.
    Node { node: String, action: NodeAction },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "camelCase")]
pub enum NodeAction {
    /// Start the node's processes.
    Start,
    /// Stop the node's processes; its containers keep running.
    Stop,
    /// Kill the node's processes and containers, and cut its link.
    Kill,
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    States(Vec<Status>),
    Done,
    Error(String),
}

fn socket(run: &Path) -> PathBuf {
    run.join("control.sock")
}

/// Binds the socket in the run folder; only its owner can connect, since the folder is private.
///
/// # Errors
/// When it cannot be bound.
pub fn bind(run: &Path) -> anyhow::Result<UnixListener> {
    let path = socket(run);
    if let Err(error) = std::fs::remove_file(&path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error).with_context(|| format!("cannot replace {}", path.display()));
    }
    UnixListener::bind(&path).with_context(|| format!("cannot listen on {}", path.display()))
}

/// Answers requests until it is dropped.
pub async fn serve(listener: UnixListener, shared: Arc<Shared>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    if let Err(error) = answer(stream, &shared).await {
                        tracing::debug!("a request ended: {error:#}");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::error!(%error, "cannot accept a request");
                return;
            }
        }
    }
}

async fn answer(stream: UnixStream, shared: &Shared) -> anyhow::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(REQUEST_MAX)).read_line(&mut line).await?;
    let request = serde_json::from_str(&line).context("not a request")?;
    let mut send = async |answer: &Answer| -> anyhow::Result<()> {
        let mut bytes = serde_json::to_vec(answer)?;
        bytes.push(b'\n');
        Ok(write.write_all(&bytes).await?)
    };
    match request {
        Request::Status => {
            let states = in_order(shared, &shared.states.borrow());
            send(&Answer::States(states)).await
        }
        Request::Watch => {
            let mut states = shared.states.subscribe();
            loop {
                let now = in_order(shared, &states.borrow_and_update());
                send(&Answer::States(now)).await?;
                states.changed().await?;
            }
        }
        Request::Stop => {
            send(&Answer::Done).await?;
            shared.stop.send(()).await?;
            // The connection ends with the supervisor.
            std::future::pending().await
        }
        Request::Node { node, action } => send(&change_node(shared, &node, action).await).await,
    }
}

/// Sets the desired state of a node's processes, and waits until those to be stopped have ended.
async fn change_node(shared: &Shared, node: &str, action: NodeAction) -> Answer {
    let desired = match action {
        NodeAction::Start => Desired::Running,
        NodeAction::Stop => Desired::Stopped,
        NodeAction::Kill => Desired::Killed,
    };
    let of_node = |process: &&Process| process.node.as_deref() == Some(node);
    let names: Vec<_> = shared.processes.iter().filter(of_node).map(|p| p.name.clone()).collect();
    if names.is_empty() {
        return Answer::Error(format!("there is no node {node:?}"));
    }
    for name in &names {
        shared.desired[name].send_replace(desired);
    }
    if desired != Desired::Running {
        let mut states = shared.states.subscribe();
        let down =
            |states: &BTreeMap<String, Status>| names.iter().all(|n| states[n].pid.is_none());
        if states.wait_for(down).await.is_err() {
            return Answer::Error("the supervisor is ending".to_owned());
        }
    }
    Answer::Done
}

fn in_order(shared: &Shared, states: &BTreeMap<String, Status>) -> Vec<Status> {
    shared.processes.iter().filter_map(|process| states.get(&process.name).cloned()).collect()
}

/// A connection to a running supervisor.
pub struct Connection {
    lines: tokio::io::Lines<BufReader<OwnedReadHalf>>,
    // Closing this half would end the connection for the supervisor.
    _write: tokio::net::unix::OwnedWriteHalf,
}

/// Sends a request to the supervisor of a run folder; returns `None` when there is none.
///
/// # Errors
/// When the socket exists and cannot be used.
pub async fn request(run: &Path, request: &Request) -> anyhow::Result<Option<Connection>> {
    let path = socket(run);
    let stream = match UnixStream::connect(&path).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot connect to {}", path.display()));
        }
    };
    let (read, mut write) = stream.into_split();
    let mut bytes = serde_json::to_vec(request)?;
    bytes.push(b'\n');
    write.write_all(&bytes).await.context("cannot send a request to the supervisor")?;
    Ok(Some(Connection { lines: BufReader::new(read).lines(), _write: write }))
}

impl Connection {
    /// The next line of the answer; `None` at its end.
    ///
    /// # Errors
    /// When the supervisor reports an error, or the connection breaks.
    pub async fn next(&mut self) -> anyhow::Result<Option<Answer>> {
        let Some(line) =
            self.lines.next_line().await.context("cannot read the supervisor's answer")?
        else {
            return Ok(None);
        };
        match serde_json::from_str(&line).context("cannot parse the supervisor's answer")? {
            Answer::Error(message) => bail!(message),
            answer => Ok(Some(answer)),
        }
    }

    /// The next statuses; `None` at the end of the answer.
    ///
    /// # Errors
    /// As [`Connection::next`].
    pub async fn states(&mut self) -> anyhow::Result<Option<Vec<Status>>> {
        loop {
            match self.next().await? {
                Some(Answer::States(states)) => return Ok(Some(states)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }
}
