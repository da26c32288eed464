//! `skiff exec` and `skiff attach`: run a command in a container, or attach to its process.

use std::process::ExitCode;

use anyhow::bail;
use client::Client;

use crate::discovery::Resources;
use crate::request::Connection;
use crate::request::failure::usage;
use crate::request::pods::{default_container, name, object_reference, pods_of};
use crate::request::session::{StreamOptions, stream_container};

#[derive(clap::Args)]
pub struct Exec {
    #[command(flatten)]
    flags: ExecFlags,
    #[arg(hide = true)]
    bare: Vec<String>,
    /// The command and its arguments, after --
    #[arg(last = true)]
    command: Vec<String>,
}

#[derive(clap::Args)]
pub struct Attach {
    #[command(flatten)]
    flags: ExecFlags,
}

#[derive(clap::Args)]
struct ExecFlags {
    /// POD, TYPE/NAME
    #[arg(value_name = "POD | TYPE/NAME")]
    target: Option<String>,
    #[arg(short, long)]
    container: Option<String>,
    #[command(flatten)]
    stream: StreamOptions,
    /// Wait this long for a running pod
    #[arg(long, hide = true)]
    pod_running_timeout: Option<String>,
}

impl Exec {
    pub async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        if self.flags.target.is_none() {
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
        run(&connection.client()?, &self.flags, "exec", command).await
    }
}

impl Attach {
    pub async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        run(&connection.client()?, &self.flags, "attach", Vec::new()).await
    }
}

async fn run(
    client: &Client,
    flags: &ExecFlags,
    subresource: &str,
    parameters: Vec<(&'static str, String)>,
) -> anyhow::Result<ExitCode> {
    let Some(target) = &flags.target else {
        bail!("at least 1 argument is required for {subresource}");
    };
    let resources = Resources::discover(client).await?;
    let pods = pods_of(client, &object_reference(client, &resources, target)?).await?;
    let pod = &pods[0];
    if api::pod::is_terminal(pod) {
        let verb = if subresource == "exec" { "exec into" } else { "attach to" };
        bail!(
            "cannot {verb} a container in a completed pod; current phase is {}",
            api::pod::phase(pod)
        );
    }
    let container = match &flags.container {
        Some(container) => container.clone(),
        None => default_container(pod)?,
    };
    let mut options = flags.stream;
    options.quiet |= subresource == "exec";
    let code =
        stream_container(client, (name(pod), subresource), container, parameters, options).await?;
    if code != 0 {
        eprintln!("command terminated with exit code {code}");
    }
    Ok(ExitCode::from(code))
}
