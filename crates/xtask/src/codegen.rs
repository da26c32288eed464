//! `xtask codegen`: writes the schema table.
//!
//! Types, fields and required lists come from the JSON schemas inside `k8s-openapi`'s
//! source; list types, map keys, patch strategies, merge keys, defaults and numbers from `k8s-pb`'s
//! source, what it lacks from `newer.txt`, pointers from `pointers.txt`. Both crates are found
//! through `cargo metadata`, so that the crates' versions are the lock file's. The result is checked in: `crates/api/src/schema/generated.rs`. `--check`
//! compares instead of writing. The fields' descriptions are not checked in: the apiserver's build
//! takes them from the same source.

mod markers;
mod openapi;
mod pointers;
mod render;
mod source;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

pub use pointers::write as write_pointers;

const TABLE: &str = "crates/api/src/schema/generated.rs";

/// Generates the table under `root`, the workspace's folder; with `check`, fails when the file
/// there is out of date.
pub fn run(root: &Path, check: bool) -> anyhow::Result<()> {
    let types = openapi::read(&source::package(root, "k8s-openapi")?)?;
    let markers = markers::read(&source::package(root, "k8s-pb")?.join("src"))?;
    let (pointers, newer) = (pointers::read(root)?, pointers::read_newer(root)?);
    let table = rustfmt(root, &render::table(&types, &markers, &pointers, &newer)?)?;
    let path = root.join(TABLE);
    if !check {
        return std::fs::write(&path, table).with_context(|| format!("write {}", path.display()));
    }
    let current = std::fs::read_to_string(&path).unwrap_or_default();
    if current != table {
        bail!("{} is out of date: run `cargo xtask codegen`", path.display());
    }
    Ok(())
}

fn rustfmt(root: &Path, source: &str) -> anyhow::Result<String> {
    use std::io::Write;
    use std::process::Stdio;
    let mut child = Command::new("rustfmt")
        .args(["--edition", "2024", "--emit", "stdout"])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("run rustfmt")?;
    let mut stdin = child.stdin.take().context("rustfmt's stdin")?;
    let source = source.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(source.as_bytes()));
    let output = child.wait_with_output()?;
    writer.join().map_err(|_| anyhow::anyhow!("rustfmt's writer panicked"))??;
    if !output.status.success() {
        bail!("rustfmt rejected the generated code");
    }
    Ok(String::from_utf8(output.stdout)?)
}
