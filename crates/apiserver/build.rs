//! Extracts the descriptions of Kubernetes' types and fields from the source of `k8s-openapi`, for
//! `kubectl explain`: a line of `definition[.field]`, a tab and the text with `\n` and `\\`
//! escaped. Also passes on the commit that is built, for `/version`.

#[path = "../xtask/src/codegen/openapi.rs"]
#[expect(dead_code, reason = "codegen needs more of a type than its texts")]
mod openapi;
#[path = "../xtask/src/codegen/source.rs"]
mod source;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn main() -> anyhow::Result<()> {
    tell_commit();
    println!("cargo:rerun-if-changed=../../Cargo.lock");
    println!("cargo:rerun-if-changed=../xtask/src/codegen");
    let types = openapi::read(&source::package(Path::new("../.."), "k8s-openapi")?)?;
    let mut text = String::new();
    for (name, definition) in &types.by_name {
        let short = name.trim_start_matches("io.k8s.");
        describe(short, &definition.schema, &mut text);
        let properties = definition.schema["properties"].as_object();
        for (field, schema) in properties.into_iter().flatten() {
            describe(&format!("{short}.{field}"), schema, &mut text);
        }
    }
    let folder = PathBuf::from(std::env::var("OUT_DIR")?);
    Ok(std::fs::write(folder.join("descriptions.txt"), text)?)
}

/// Sets the variables that the version is made of. In a release they are exact; otherwise a commit
/// would rebuild the crate, so the commit is that of the last time this script ran, and the tree
/// counts as dirty.
fn tell_commit() {
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let unchanged = git(&["status", "--porcelain"]).is_some_and(|changes| changes.is_empty());
    let state = if release && unchanged { "clean" } else { "dirty" };
    let commit = git(&["rev-parse", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    let date = ["log", "-1", "--format=%cd", "--date=format-local:%Y-%m-%dT%H:%M:%SZ"];
    let date = git(&date).unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned());
    for (name, value) in [("COMMIT", &*commit), ("BUILD_DATE", &*date), ("TREE_STATE", state)] {
        println!("cargo:rustc-env=SKIFF_{name}={value}");
    }
    if release
        && let Some(log) = git(&["rev-parse", "--path-format=absolute", "--git-path", "logs/HEAD"])
    {
        println!("cargo:rerun-if-changed={log}");
    }
}

/// The output of git; `None` without git or a repository.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).env("TZ", "UTC").output().ok()?;
    let text = output.status.success().then(|| String::from_utf8(output.stdout).ok())??;
    Some(text.trim().to_owned())
}

fn describe(key: &str, schema: &Value, out: &mut String) {
    let text = schema["description"].as_str().unwrap_or_default();
    if !text.is_empty() {
        let text = text.replace('\\', "\\\\").replace('\n', "\\n");
        out.push_str(&format!("{key}\t{text}\n"));
    }
}
