//! `skiff`: the command line.
//!
//! Two families of commands live here. `cluster` brings a cluster up and down on this machine,
//! supervises its processes and shows their state; it starts the component binaries, it never links
//! them. `verbs` are kubectl's: they talk gRPC to an apiserver through the `client` crate, reading
//! the same kubeconfig as kubectl.
//!
//! Entry point: [`main`] parses the arguments and hands them to the family that owns the command. A
//! family is a clap `Subcommand` enum with a `run` function; adding one is a line in [`Command`]
//! and a line in [`Command::run`].
//!
//! Under the verbs are layers, each of which knows only those before it: [`discovery`] (which kinds
//! the server serves), [`output`] (printers), [`request`] (connection, selection, reads and
//! writes), [`describe`] (describers).
//!
//! It must not know the store, nor any component's internals: a component is known by its flags,
//! its readiness and its health port.

mod arguments;
mod cluster;
mod describe;
mod discovery;
mod output;
mod request;
mod verbs;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use request::Connection;

/// Skiff: Kubernetes, smaller and faster.
#[derive(Parser)]
#[command(name = "skiff", version, about, arg_required_else_help = true, args_override_self = true)]
struct Cli {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

/// Every family of commands.
#[derive(Subcommand)]
#[expect(clippy::large_enum_variant, reason = "a process parses one command line")]
enum Command {
    #[command(flatten)]
    Cluster(cluster::Command),
    #[command(flatten)]
    Verbs(verbs::Command),
}

impl Command {
    /// Runs the command; the returned code is the process's.
    async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        match self {
            Command::Cluster(command) => cluster::run(command).await,
            Command::Verbs(command) => verbs::run(command, connection).await,
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    exit_silently_on_closed_output();
    let cli = match parse(std::env::args().collect()) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match cli.command.run(&cli.connection).await {
        Ok(code) => code,
        Err(error) => {
            request::failure::report_connection(&error, &cli.connection);
            ExitCode::FAILURE
        }
    }
}

/// Reads the command line as kubectl would; an error has been printed already.
fn parse(arguments: Vec<String>) -> Result<Cli, ExitCode> {
    let mut command = <Cli as clap::CommandFactory>::command();
    if arguments::has_boolean_values(&arguments) {
        command = arguments::with_boolean_values(command);
    }
    let parsed = command
        .clone()
        .try_get_matches_from(&arguments)
        .and_then(|matches| <Cli as clap::FromArgMatches>::from_arg_matches(&matches));
    parsed.map_err(|error| {
        use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand as NoCommand;
        if error.exit_code() == 0 || error.kind() == NoCommand {
            // Nobody reads a closed output.
            error.print().ok();
            let bare = error.exit_code() != 0 && arguments.len() > 1;
            return if bare { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
        eprintln!("{}", arguments::usage_error(&error, &command, &arguments));
        ExitCode::FAILURE
    })
}

/// Exits silently when the reader of our output has closed it (`| head`).
fn exit_silently_on_closed_output() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload().downcast_ref::<String>();
        if text.is_some_and(|text| text.starts_with("failed printing to stdout")) {
            std::process::exit(0);
        }
        report(panic);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flags_of_any_command_clash() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn every_command_is_completed() {
        use clap_complete::Shell;
        let command = <Cli as clap::CommandFactory>::command();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command.clone(), "skiff", &mut script);
            let script = String::from_utf8(script).unwrap();
            for name in command.get_subcommands().map(clap::Command::get_name) {
                assert!(script.contains(name), "{shell}: {name}");
            }
            for flag in ["from", "all-namespaces"] {
                assert!(script.contains(flag), "{shell}: {flag}");
            }
        }
    }
}
