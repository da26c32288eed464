//! Tasks of the workspace's own upkeep, run as `cargo xtask <task>`.

mod codegen;

use clap::Parser;

#[derive(Parser)]
enum Task {
    /// Write the generated sources.
    Codegen {
        /// Fail when the checked-in files are not what would be written.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> anyhow::Result<()> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    match Task::parse() {
        Task::Codegen { check } => codegen::run(&root, check),
    }
}
