//! `skiff completion`

use std::process::ExitCode;

use clap::ValueEnum;
use clap_complete::Shell;

use crate::request::failure::usage;

#[derive(clap::Args)]
pub struct Args {
    /// The shell to complete for: bash, elvish, fish, powershell or zsh
    shell: Option<String>,
}

/// Writes the completion script for the whole command line.
pub fn run(args: &Args, mut command: clap::Command) -> anyhow::Result<ExitCode> {
    let Some(name) = &args.shell else {
        return Err(usage("completion", "Shell not specified."));
    };
    let Ok(shell) = Shell::from_str(name, true) else {
        return Err(usage("completion", format!("Unsupported shell type {name:?}.")));
    };
    clap_complete::generate(shell, &mut command, "skiff", &mut std::io::stdout());
    Ok(ExitCode::SUCCESS)
}
