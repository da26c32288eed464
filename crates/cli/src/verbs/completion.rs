//! `skiff completion`

use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    /// The shell to complete for
    shell: clap_complete::Shell,
}

/// Writes the completion script for the whole command line.
pub fn run(args: &Args, mut command: clap::Command) -> ExitCode {
    clap_complete::generate(args.shell, &mut command, "skiff", &mut std::io::stdout());
    ExitCode::SUCCESS
}
