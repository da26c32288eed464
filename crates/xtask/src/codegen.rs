//! `xtask codegen`: writes the schema table and the field descriptions.
//!
//! Types, fields, required lists and descriptions come from the JSON schemas inside `k8s-openapi`'s
//! source; list types, map keys, patch strategies, merge keys and defaults from the field comments
//! of `k8s-pb`'s source. Both are found through `cargo metadata`, so that the crates' versions are
//! the lock file's. The result is checked in: `crates/api/src/schema/generated.rs` and
//! `crates/apiserver/src/openapi/descriptions.txt`. `--check` compares instead of writing.

mod markers;
mod openapi;
mod render;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// The level of the Kubernetes API that `k8s-openapi` is built for.
const API_LEVEL: &str = "v1_37";
const TABLE: &str = "crates/api/src/schema/generated.rs";
const DESCRIPTIONS: &str = "crates/apiserver/src/openapi/descriptions.txt";

/// Generates both files under `root`, the workspace's folder; with `check`, fails when the files
/// there are not what would be written.
pub fn run(root: &Path, check: bool) -> anyhow::Result<()> {
    let openapi = package_source(root, "k8s-openapi")?
        .join("src")
        .join(API_LEVEL);
    let pb = package_source(root, "k8s-pb")?.join("src");
    let types = openapi::read(&openapi)?;
    let markers = markers::read(&pb)?;
    let table = render::table(&types, &markers)?;
    let table = rustfmt(root, &table)?;
    for (path, text) in [(TABLE, table), (DESCRIPTIONS, render::descriptions(&types))] {
        let path = root.join(path);
        if check {
            let current = std::fs::read_to_string(&path).unwrap_or_default();
            if current != text {
                bail!(
                    "{} is out of date: run `cargo xtask codegen`",
                    path.display()
                );
            }
        } else {
            std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
    }
    Ok(())
}

/// The folder of a dependency's source, as cargo resolved it.
fn package_source(root: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version=1", "--locked"])
        .current_dir(root)
        .output()
        .context("run cargo metadata")?;
    if !output.status.success() {
        bail!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let manifest = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == name)
        .and_then(|package| package["manifest_path"].as_str())
        .with_context(|| format!("{name} is not a dependency"))?;
    let folder = Path::new(manifest)
        .parent()
        .context("manifest without folder")?;
    Ok(folder.to_owned())
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
    writer
        .join()
        .map_err(|_| anyhow::anyhow!("rustfmt's writer panicked"))??;
    if !output.status.success() {
        bail!("rustfmt refused the generated code");
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Every `.rs` file under a folder, sorted.
fn rust_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
