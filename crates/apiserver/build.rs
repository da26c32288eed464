//! Extracts the descriptions of Kubernetes' types and fields from the source of `k8s-openapi`, for
//! `kubectl explain`: a line of `definition[.field]`, a tab and the text with `\n` and `\\`
//! escaped.

#[path = "../xtask/src/codegen/openapi.rs"]
#[expect(dead_code, reason = "codegen needs more of a type than its texts")]
mod openapi;
#[path = "../xtask/src/codegen/source.rs"]
mod source;

use std::path::{Path, PathBuf};

use serde_json::Value;

fn main() -> anyhow::Result<()> {
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

fn describe(key: &str, schema: &Value, out: &mut String) {
    let text = schema["description"].as_str().unwrap_or_default();
    if !text.is_empty() {
        let text = text.replace('\\', "\\\\").replace('\n', "\\n");
        out.push_str(&format!("{key}\t{text}\n"));
    }
}
