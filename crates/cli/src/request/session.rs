//! Connects the terminal to a container's process, for `exec`, `attach`, `debug` and `run`.

use std::io::{IsTerminal, Write};

use anyhow::{Context, bail};
use client::Client;
use nix::sys::termios::{self, SetArg, Termios};
use rpc::api_v1::{Channel, Frame};
use tokio::signal::unix::{SignalKind, signal};

use crate::request::log;
use crate::request::stream::{Input, Session, exit_code, open, pod_target};

/// What a container's process gets of the options.
#[derive(Clone, Copy, clap::Args)]
pub struct StreamOptions {
    /// Pass standard input to the container
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Standard input is a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Print only what the container writes
    #[arg(short, long)]
    pub quiet: bool,
}

/// Connects the terminal to a process of a container until that ends; returns its exit code.
pub async fn stream_container(
    client: &Client,
    (pod, subresource): (&str, &str),
    container: String,
    mut parameters: Vec<(&'static str, String)>,
    options: StreamOptions,
) -> anyhow::Result<u8> {
    let tty = options.tty && std::io::stdin().is_terminal();
    if options.tty && !tty {
        eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
    }
    if options.stdin && !options.quiet {
        eprintln!("If you don't see a command prompt, try pressing enter.");
    }
    parameters.push(("container", container));
    parameters.push(("stdout", "true".to_owned()));
    for (name, flag) in [("stdin", options.stdin), ("tty", tty), ("stderr", !tty)] {
        if flag {
            parameters.push((name, "true".to_owned()));
        }
    }
    let target = pod_target(client.default_namespace(), pod, subresource);
    let session = open(client, target, &parameters).await?;
    let raw = tty.then(RawTerminal::enter).transpose()?;
    let code = copy_streams(session, options.stdin, tty).await;
    drop(raw);
    code
}

/// Attaches to a container; follows its log when that fails, as when the container has just ended.
pub async fn attach_or_follow(
    client: &Client,
    pod: &str,
    container: String,
    options: StreamOptions,
) -> anyhow::Result<()> {
    let session = stream_container(client, (pod, "attach"), container.clone(), Vec::new(), options);
    if let Err(error) = session.await {
        eprintln!("warning: couldn't attach to pod/{pod}, falling back to streaming logs: {error}");
        log::follow(client, pod, &container).await?;
    }
    Ok(())
}

/// Copies the streams until the status arrives; returns the exit code.
async fn copy_streams(session: Session, stdin: bool, tty: bool) -> anyhow::Result<u8> {
    let Session { input, mut output } = session;
    if stdin {
        input.clone().forward(std::io::stdin());
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
    bail!("the server ended the stream without a status")
}

fn write(out: &mut impl Write, data: &[u8]) -> anyhow::Result<()> {
    out.write_all(data)?;
    Ok(out.flush()?)
}

async fn send_size(input: &Input) {
    let (height, width) = console::Term::stdout().size();
    let data = serde_json::json!({"Width": width, "Height": height}).to_string();
    input
        .send(Frame { channel: Channel::Resize.into(), data: data.into(), ..Default::default() })
        .await;
}

/// The terminal in raw mode; dropping it restores the settings.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> anyhow::Result<Self> {
        let before = termios::tcgetattr(std::io::stdin())
            .context("cannot read cannot read the terminal's settings")?;
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
