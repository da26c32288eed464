//! Maintenance tasks of the workspace, run as `cargo run -p xtask -- TASK`.
//!
//! `tidy` checks the rules of the code base, `codegen` writes the generated sources, `images`
//! builds the images that end-to-end tests run, `test` runs every test and counts them. A
//! task reports what it needs from the machine, and installs nothing (the Makefile does).
//!
//! Entry point: [`main`], one module for each task. It must not know any other crate of the
//! workspace, so that building it is quick.

mod codegen;
mod images;
mod test;
mod tidy;

use clap::Parser;
use std::process::ExitCode;

#[derive(Parser)]
enum Task {
    /// Write the generated sources
    Codegen {
        /// Fail if the checked-in files are out of date
        #[arg(long)]
        check: bool,
    },
    /// Read from Go source which fields are pointers, before `codegen`
    Pointers {
        /// The folder with `api`, `apimachinery`, ...: Kubernetes' staging/src/k8s.io
        folder: std::path::PathBuf,
    },
    /// Check the rules of the code base
    Tidy,
    /// Build the test images as OCI archives in target/images
    Images,
    /// Run all tests; the last line counts them
    Test(test::TestArgs),
}

fn main() -> anyhow::Result<ExitCode> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    match Task::parse() {
        Task::Codegen { check } => codegen::run(&root, check)?,
        Task::Pointers { folder } => codegen::write_pointers(&root, &folder)?,
        Task::Tidy => tidy::run(&root)?,
        Task::Images => images::run(&root)?,
        Task::Test(args) => return test::run(&root, &args),
    }
    Ok(ExitCode::SUCCESS)
}
