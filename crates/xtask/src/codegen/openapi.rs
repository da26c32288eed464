//! Reads the types of `k8s-openapi` from its source: each file holds one type and its JSON
//! schema in a `json_schema!` macro, which is JSON except for references and trailing commas.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use anyhow::Context;
use regex::{Captures, Regex};
use serde_json::Value;

use super::source::rust_files;

/// The version of the Kubernetes API that `k8s-openapi` is built for.
const API_LEVEL: &str = "v1_37";

/// One definition.
pub struct Type {
    /// `io.k8s.api.core.v1.Pod`
    pub name: String,
    /// The schema; references are `{"$ref": "<Rust path>"}` with the path of [`Types::by_path`].
    pub schema: Value,
    /// Group, version and kind of a type that is a resource.
    pub resource: Option<(String, String, String)>,
}

/// All definitions by name, and names by Rust path (`api::core::v1::Pod`).
pub struct Types {
    pub by_name: BTreeMap<String, Type>,
    pub by_path: BTreeMap<String, String>,
}

/// Reads them from the crate's folder.
pub fn read(package: &Path) -> anyhow::Result<Types> {
    let folder = &package.join("src").join(API_LEVEL);
    let mut types = Types { by_name: BTreeMap::new(), by_path: BTreeMap::new() };
    for file in rust_files(folder)? {
        let source = std::fs::read_to_string(&file)?;
        let Some(name) = source.strip_prefix("// Generated from definition ") else {
            continue;
        };
        let name = name.lines().next().unwrap_or_default().trim().to_owned();
        let Some(at) = source.find("json_schema!({") else {
            continue;
        };
        let body = balanced(&source[at + "json_schema!(".len()..]);
        let schema = to_json(body).with_context(|| format!("schema of {name}"))?;
        let short = name.rsplit('.').next().unwrap_or_default();
        let module = file.parent().context("file without folder")?.strip_prefix(folder)?;
        let mut path: Vec<String> =
            module.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        path.push(short.to_owned());
        types.by_path.insert(path.join("::"), name.clone());
        let resource = resource(&source);
        types.by_name.insert(name.clone(), Type { name, schema, resource });
    }
    Ok(types)
}

fn resource(source: &str) -> Option<(String, String, String)> {
    source.contains("impl crate::Resource for").then_some(())?;
    let constant = |name: &str| {
        let (_, rest) = source.split_once(&format!("const {name}: &'static str = \""))?;
        Some(rest.split_once('"')?.0.to_owned())
    };
    Some((constant("GROUP")?, constant("VERSION")?, constant("KIND")?))
}

/// The text up to the brace that closes the first one; braces in strings are skipped.
fn balanced(text: &str) -> &str {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (index, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            '{' if !in_string => depth += 1,
            '}' if !in_string => {
                depth -= 1;
                if depth == 0 {
                    return &text[..=index];
                }
            }
            _ => {}
        }
    }
    text
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the patterns are constants")
}

/// The macro's body as JSON.
fn to_json(body: &str) -> anyhow::Result<Value> {
    static DESCRIBED: LazyLock<Regex> = LazyLock::new(|| {
        pattern(
            r#"\(\{\s*let mut schema_obj = __gen\.subschema_for::<crate::([A-Za-z0-9_:]+)>\(\);\s*schema_obj\.ensure_object\(\)\.insert\("description"\.into\(\), ("(?:[^"\\]|\\.)*")\.into\(\)\);\s*schema_obj\s*\}\)"#,
        )
    });
    static REFERENCE: LazyLock<Regex> =
        LazyLock::new(|| pattern(r"\(?__gen\.subschema_for::<crate::([A-Za-z0-9_:]+)>\(\)\)?"));
    static COMMA: LazyLock<Regex> = LazyLock::new(|| pattern(r",(\s*[}\]])"));
    let body = DESCRIBED.replace_all(body, r#"{"$$ref": "$1", "description": $2}"#);
    let body = REFERENCE.replace_all(&body, r#"{"$$ref": "$1"}"#);
    // No schema text contains a comma before a closing bracket at the end of a line.
    let body = COMMA.replace_all(&body, |found: &Captures<'_>| {
        if found[1].contains('\n') { found[1].to_owned() } else { found[0].to_owned() }
    });
    serde_json::from_str(&body.replace("\\'", "'")).context("not JSON")
}
