//! Which fields are pointers in Kubernetes' Go types, or are written by Go even when they are zero
//! (numbers, booleans and texts without `omitempty`): `pointers.txt`, a line per definition.
//!
//! Go cannot distinguish a value's zero from its absence, a pointer can, and no crate says which
//! field is which. `xtask pointers FOLDER` reads it from the Go source: FOLDER contains `api`,
//! `apimachinery`, `apiextensions-apiserver` and `kube-aggregator`, as `staging/src/k8s.io` of the
//! Kubernetes repository does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use anyhow::Context;

use super::openapi::{self, Type};
use super::{render, source};

const FACTS: &str = "crates/xtask/src/codegen/pointers.txt";
/// What Go files call the packages that others embed structs of.
const PACKAGES: [(&str, &str); 3] = [
    ("metav1", "io.k8s.apimachinery.pkg.apis.meta.v1"),
    ("corev1", "io.k8s.api.core.v1"),
    ("v1", "io.k8s.api.core.v1"),
];

/// The names of pointer fields by definition.
pub type Pointers = BTreeMap<String, BTreeSet<String>>;

/// Reads the checked-in facts.
pub fn read(root: &Path) -> anyhow::Result<Pointers> {
    let path = root.join(FACTS);
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let names = |fields: &str| fields.split_whitespace().map(str::to_owned).collect();
    Ok(lines.map(|(name, fields)| (name.to_owned(), names(fields))).collect())
}

/// Writes the facts of every definition in the table, from Go source under `folder`.
pub fn write(root: &Path, folder: &Path) -> anyhow::Result<()> {
    let types = openapi::read(&source::package(root, "k8s-openapi")?)?;
    let mut parsed = BTreeMap::new();
    let mut text = String::new();
    for Type { name, schema, .. } in render::reachable(&types)? {
        let mut found = BTreeMap::new();
        collect(name, folder, &mut parsed, &mut found)
            .with_context(|| format!("pointers of {name}"))?;
        let fields = schema["properties"].as_object().into_iter().flat_map(|map| map.keys());
        let required = schema["required"].as_array();
        let required = |field: &str| required.is_some_and(|all| all.iter().any(|one| one == field));
        // Of a field that this Go source does not have yet, no value is taken for unset.
        let pointers: Vec<&str> = fields
            .filter(|field| match found.get(*field) {
                Some(Zero::Kept) => true,
                // What is required is written in any case.
                Some(Zero::Written) => !required(field),
                Some(Zero::Omitted) => false,
                None => true,
            })
            .map(String::as_str)
            .collect();
        writeln!(text, "{}", format!("{name}: {}", pointers.join(" ")).trim_end())?;
    }
    let path = root.join(FACTS);
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

/// A field of a Go struct; without a name in JSON, that of an embedded struct.
struct GoField {
    json: String,
    ty: String,
    omitted: bool,
}

/// The types of fields whose zeros are kept if Go does not omit them.
const SCALARS: [&str; 4] = ["int32", "int64", "bool", "string"];

/// What becomes of a field's zero value.
#[derive(Clone, Copy)]
enum Zero {
    /// It is not absence: the field is a pointer.
    Kept,
    /// Go writes it.
    Written,
    Omitted,
}

impl GoField {
    fn zero(&self) -> Zero {
        if self.ty.starts_with('*') {
            Zero::Kept
        } else if !self.omitted && SCALARS.contains(&&*self.ty) {
            Zero::Written
        } else {
            Zero::Omitted
        }
    }
}

type Package = BTreeMap<String, Vec<GoField>>;

fn collect(
    definition: &str,
    folder: &Path,
    parsed: &mut BTreeMap<String, Package>,
    found: &mut BTreeMap<String, Zero>,
) -> anyhow::Result<()> {
    let (package, name) = definition.rsplit_once('.').context("a definition without package")?;
    if !parsed.contains_key(package) {
        let path = package.trim_start_matches("io.k8s.").replace('.', "/");
        parsed.insert(package.to_owned(), parse(&folder.join(path))?);
    }
    let mut embedded = Vec::new();
    for field in parsed[package].get(name).into_iter().flatten() {
        if !field.json.is_empty() {
            found.insert(field.json.clone(), field.zero());
        } else if let Some((alias, name)) = field.ty.split_once('.') {
            let known = PACKAGES.iter().find(|(known, _)| *known == alias);
            let (_, other) = known.with_context(|| format!("unknown package {alias}"))?;
            embedded.push(format!("{other}.{name}"));
        } else {
            embedded.push(format!("{package}.{}", field.ty));
        }
    }
    embedded.iter().try_for_each(|definition| collect(definition, folder, parsed, found))
}

/// The structs of one Go package.
fn parse(folder: &Path) -> anyhow::Result<Package> {
    let mut package = Package::new();
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.ends_with(".go") || name.ends_with("_test.go") || name.contains("generated") {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        let mut current: Option<(String, Vec<GoField>)> = None;
        for line in text.lines() {
            let declared =
                line.strip_prefix("type ").and_then(|rest| rest.strip_suffix(" struct {"));
            if let Some(name) = declared {
                current = Some((name.to_owned(), Vec::new()));
            } else if line == "}" {
                package.extend(current.take());
            } else if let Some((_, fields)) = &mut current {
                fields.extend(go_field(line));
            }
        }
    }
    Ok(package)
}

/// Parses a line such as ``Name string `json:"name,omitempty"` ``.
fn go_field(line: &str) -> Option<GoField> {
    let (declaration, tags) = line.trim().split_once('`')?;
    if declaration.starts_with("//") {
        return None;
    }
    let (_, json) = tags.split_once("json:\"")?;
    let (name_and_options, _) = json.split_once('"')?;
    let mut options = name_and_options.split(',');
    let json = options.next()?;
    let omitted = options.any(|option| matches!(option, "omitempty" | "omitzero"));
    let ty = declaration.split_whitespace().last()?;
    (json != "-").then(|| GoField { json: json.to_owned(), ty: ty.to_owned(), omitted })
}
