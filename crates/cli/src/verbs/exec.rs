//! `skiff exec` and `skiff attach`

use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use client::Client;
use nix::sys::termios::{self, SetArg, Termios};
use rpc::api_v1::{Channel, Frame};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::Connection;
use super::failure::usage;
use super::resources::Resources;
use super::stream::{Input, Session, exit_code, open, pod_target};
use super::workload::{default_container, name, named, pods_of};

/// Bytes read from standard input at once.
const CHUNK: usize = 16 << 10;

#[derive(clap::Args)]
pub struct Exec {
    #[command(flatten)]
    common: Common,
    #[arg(hide = true)]
    bare: Vec<String>,
    /// The command and its arguments, after --
    #[arg(last = true)]
    command: Vec<String>,
}

#[derive(clap::Args)]
pub struct Attach {
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
struct Common {
    /// POD, TYPE/NAME
    #[arg(value_name = "POD | TYPE/NAME")]
    target: Option<String>,
    #[arg(short, long)]
    container: Option<String>,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Standard input is a terminal
    #[arg(short, long)]
    tty: bool,
    /// Only what the process writes
    #[arg(short, long)]
    quiet: bool,
    /// Wait this long for a running pod
    #[arg(long, hide = true)]
    pod_running_timeout: Option<String>,
}

impl Exec {
    pub async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        if self.common.target.is_none() {
            bail!("pod, type/name or --filename must be specified");
        }
        if !self.bare.is_empty() {
            return Err(usage(
                "exec",
                "exec [POD] [COMMAND] is not supported anymore. Use exec [POD] -- [COMMAND] instead",
            ));
        }
        if self.command.is_empty() {
            bail!("you must specify at least one command for the container");
        }
        let command = self.command.iter().map(|word| ("command", word.clone())).collect();
        run(&connection.client()?, &self.common, "exec", command).await
    }
}

impl Attach {
    pub async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        run(&connection.client()?, &self.common, "attach", Vec::new()).await
    }
}

async fn run(
    client: &Client,
    common: &Common,
    subresource: &str,
    parameters: Vec<(&'static str, String)>,
) -> anyhow::Result<ExitCode> {
    let Some(target) = &common.target else {
        bail!("at least 1 argument is required for {subresource}");
    };
    let resources = Resources::discover(client).await?;
    let pods = pods_of(client, &named(client, &resources, target)?).await?;
    let pod = &pods[0];
    if api::pod::is_terminal(pod) {
        let verb = if subresource == "exec" { "exec into" } else { "attach to" };
        bail!(
            "cannot {verb} a container in a completed pod; current phase is {}",
            api::pod::phase(pod)
        );
    }
    let container = match &common.container {
        Some(container) => container.clone(),
        None => default_container(pod)?,
    };
    let terminal = Terminal {
        stdin: common.stdin,
        tty: common.tty,
        quiet: common.quiet || subresource == "exec",
    };
    let code = converse(client, (name(pod), subresource), container, parameters, terminal).await?;
    if code != 0 {
        eprintln!("command terminated with exit code {code}");
    }
    Ok(ExitCode::from(code))
}

/// What of the terminal a process gets.
#[derive(Clone, Copy)]
pub struct Terminal {
    pub stdin: bool,
    pub tty: bool,
    pub quiet: bool,
}

/// Carries a terminal to a process of a container until that ends; returns its exit code.
pub async fn converse(
    client: &Client,
    (pod, subresource): (&str, &str),
    container: String,
    mut parameters: Vec<(&'static str, String)>,
    terminal: Terminal,
) -> anyhow::Result<u8> {
    let tty = terminal.tty && std::io::stdin().is_terminal();
    if terminal.tty && !tty {
        eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
    }
    if terminal.stdin && !terminal.quiet {
        eprintln!("If you don't see a command prompt, try pressing enter.");
    }
    parameters.push(("container", container));
    parameters.push(("stdout", "true".to_owned()));
    for (name, flag) in [("stdin", terminal.stdin), ("tty", tty), ("stderr", !tty)] {
        if flag {
            parameters.push((name, "true".to_owned()));
        }
    }
    let target = pod_target(client.default_namespace(), pod, subresource);
    let session = open(client, target, &parameters).await?;
    let raw = tty.then(RawTerminal::enter).transpose()?;
    let code = pump(session, terminal.stdin, tty).await;
    drop(raw);
    code
}

/// Attaches to a container; shows its log when it cannot be attached to, as when it has just ended.
pub async fn attach_or_follow(
    client: &Client,
    pod: &str,
    container: String,
    terminal: Terminal,
) -> anyhow::Result<()> {
    let session = converse(client, (pod, "attach"), container.clone(), Vec::new(), terminal);
    if let Err(error) = session.await {
        eprintln!("warning: couldn't attach to pod/{pod}, falling back to streaming logs: {error}");
        super::logs::follow(client, pod, &container).await?;
    }
    Ok(())
}

/// Carries the streams until the outcome arrives; returns the exit code.
async fn pump(session: Session, stdin: bool, tty: bool) -> anyhow::Result<u8> {
    let Session { input, mut output } = session;
    if stdin {
        forward_stdin(input.clone());
    }
    if tty {
        send_size(&input).await;
        let mut resized = signal(SignalKind::window_change())?;
        let input = input.clone();
        tokio::spawn(async move {
            while resized.recv().await.is_some() {
                send_size(&input).await;
            }
        });
    }
    while let Some(frame) = output.message().await.map_err(client::Error::from)? {
        match frame.channel() {
            Channel::Stdout => write(&mut std::io::stdout().lock(), &frame.data)?,
            Channel::Stderr => write(&mut std::io::stderr().lock(), &frame.data)?,
            Channel::Status => return exit_code(&frame),
            _ => {}
        }
    }
    bail!("the server ended the stream without an outcome")
}

fn write(out: &mut impl Write, data: &[u8]) -> anyhow::Result<()> {
    out.write_all(data)?;
    Ok(out.flush()?)
}

/// Reads standard input on a thread of its own: a blocked read must not keep the process alive.
fn forward_stdin(input: Input) {
    let (chunks, mut queue) = mpsc::channel::<Vec<u8>>(4);
    std::thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        while let Ok(length @ 1..) = std::io::stdin().lock().read(&mut buffer) {
            if chunks.blocking_send(buffer[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        let frame = |data: Vec<u8>, end| Frame {
            channel: Channel::Stdin.into(),
            data: data.into(),
            end,
            ..Default::default()
        };
        while let Some(data) = queue.recv().await {
            if !input.send(frame(data, false)).await {
                return;
            }
        }
        input.send(frame(Vec::new(), true)).await;
    });
}

async fn send_size(input: &Input) {
    let (height, width) = console::Term::stdout().size();
    let data = serde_json::json!({"Width": width, "Height": height}).to_string();
    input
        .send(Frame { channel: Channel::Resize.into(), data: data.into(), ..Default::default() })
        .await;
}

/// The terminal in raw mode; as it was when dropped.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> anyhow::Result<Self> {
        let before = termios::tcgetattr(std::io::stdin()).context("the terminal's settings")?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(std::io::stdin(), SetArg::TCSANOW, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Err(error) = termios::tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.0) {
            eprintln!("cannot restore the terminal: {error}");
        }
    }
}
