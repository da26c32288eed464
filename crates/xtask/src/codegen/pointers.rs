//! What only Kubernetes' Go types tell. `xtask pointers FOLDER` reads it from the Go source: FOLDER
//! contains `api`, `apimachinery`, `apiextensions-apiserver` and `kube-aggregator`, as
//! `staging/src/k8s.io` of the Kubernetes repository does. It is checked in:
//!
//! - `pointers.txt`, a line per definition: which fields are pointers, or are written by Go even
//!   when they are zero (numbers, booleans and texts without `omitempty`). Go cannot distinguish a
//!   value's zero from its absence, a pointer can, and no crate says which field is which.
//! - `newer.txt`, a line per field: numbers in the protobuf encoding and markers of the fields that
//!   `k8s-pb` does not have yet, or has with another number.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use anyhow::Context;

use super::markers::{All, Markers, TypeMarkers};
use super::openapi::{self, Type};
use super::{render, source};

const POINTERS: &str = "crates/xtask/src/codegen/pointers.txt";
const NEWER: &str = "crates/xtask/src/codegen/newer.txt";
/// What Go files call the packages that others embed structs of.
const PACKAGES: [(&str, &str); 3] = [
    ("metav1", "io.k8s.apimachinery.pkg.apis.meta.v1"),
    ("corev1", "io.k8s.api.core.v1"),
    ("v1", "io.k8s.api.core.v1"),
];

/// The names of pointer fields by definition.
pub type Pointers = BTreeMap<String, BTreeSet<String>>;

/// Fields that `k8s-pb` lacks, by definition and name, with their numbers, outermost first.
pub type Newer = BTreeMap<(String, String), (Vec<u16>, Markers)>;

/// Reads the checked-in pointers.
pub fn read(root: &Path) -> anyhow::Result<Pointers> {
    let text = text_of(root, POINTERS)?;
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let names = |fields: &str| fields.split_whitespace().map(str::to_owned).collect();
    Ok(lines.map(|(name, fields)| (name.to_owned(), names(fields))).collect())
}

/// Reads the checked-in fields that are newer than `k8s-pb`.
pub fn read_newer(root: &Path) -> anyhow::Result<Newer> {
    let mut newer = Newer::new();
    for line in text_of(root, NEWER)?.lines() {
        let parse = || {
            let (name, facts) = line.split_once(": ")?;
            let (definition, field) = name.rsplit_once('.')?;
            let mut words = facts.split(' ');
            let tags = words.next()?.split('.').map(|tag| tag.parse().ok());
            let mut markers = Markers::default();
            words.for_each(|marker| markers.add(&format!("+{marker}")));
            Some((
                (definition.to_owned(), field.to_owned()),
                (tags.collect::<Option<_>>()?, markers),
            ))
        };
        let (key, facts) = parse().with_context(|| format!("{NEWER}: {line}"))?;
        newer.insert(key, facts);
    }
    Ok(newer)
}

fn text_of(root: &Path, path: &str) -> anyhow::Result<String> {
    let path = root.join(path);
    std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

/// Writes the facts of every definition in the table, from Go source under `folder`.
pub fn write(root: &Path, folder: &Path) -> anyhow::Result<()> {
    let types = openapi::read(&source::package(root, "k8s-openapi")?)?;
    let markers = super::markers::read(&source::package(root, "k8s-pb")?.join("src"))?;
    let mut parsed = BTreeMap::new();
    let (mut text, mut newer) = (String::new(), String::new());
    for ty in render::reachable(&types)? {
        let Type { name, schema, .. } = ty;
        let mut found = BTreeMap::new();
        collect(name, folder, Some(&[]), &mut parsed, &mut found)
            .with_context(|| format!("fields of {name}"))?;
        let fields = schema["properties"].as_object().into_iter().flat_map(|map| map.keys());
        let required = schema["required"].as_array();
        let required = |field: &str| required.is_some_and(|all| all.iter().any(|one| one == field));
        // Of a field that this Go source does not have yet, no value is taken for unset.
        let pointers: Vec<&str> = fields
            .filter(|field| match found.get(*field).map(|go| go.zero) {
                Some(Zero::Kept) => true,
                // What is required is written in any case.
                Some(Zero::Written) => !required(field),
                Some(Zero::Omitted) => false,
                None => true,
            })
            .map(String::as_str)
            .collect();
        writeln!(text, "{}", format!("{name}: {}", pointers.join(" ")).trim_end())?;
        lacking(ty, &markers, &found, &mut newer)?;
    }
    for (path, text) in [(POINTERS, text), (NEWER, newer)] {
        let path = root.join(path);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// Adds the lines of the fields that `k8s-pb` does not have, or with another number.
fn lacking(
    ty: &Type,
    all: &All,
    found: &BTreeMap<String, Found>,
    newer: &mut String,
) -> anyhow::Result<()> {
    let none = TypeMarkers::default();
    let (module, short) = render::place(ty);
    let known = render::find(all, &module, &short).unwrap_or(&none);
    let properties = render::properties(ty);
    for name in ty.schema["properties"].as_object().into_iter().flat_map(|map| map.keys()) {
        let Some(go) = found.get(name).filter(|go| !go.tags.is_empty()) else {
            continue;
        };
        if known.tags(name, all, &module, &properties) == go.tags {
            continue;
        }
        let tags: Vec<String> = go.tags.iter().map(u16::to_string).collect();
        write!(newer, "{}.{name}: {}", ty.name, tags.join("."))?;
        for marker in go.markers.written() {
            write!(newer, " {marker}")?;
        }
        newer.push('\n');
    }
    Ok(())
}

/// A field of a Go struct; without a name in JSON, that of an embedded struct.
struct GoField {
    json: String,
    ty: String,
    omitted: bool,
    /// What the comment says of it, and its number in the protobuf encoding.
    markers: Markers,
}

/// A field of a definition, which may be one of an embedded struct.
struct Found {
    zero: Zero,
    /// Numbers in the protobuf encoding, outermost first.
    tags: Vec<u16>,
    markers: Markers,
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
    outer: Option<&[u16]>,
    parsed: &mut BTreeMap<String, Package>,
    found: &mut BTreeMap<String, Found>,
) -> anyhow::Result<()> {
    let (package, name) = definition.rsplit_once('.').context("a definition without package")?;
    if !parsed.contains_key(package) {
        let path = package.trim_start_matches("io.k8s.").replace('.', "/");
        parsed.insert(package.to_owned(), parse(&folder.join(path))?);
    }
    let mut embedded = Vec::new();
    for field in parsed[package].get(name).into_iter().flatten() {
        // A struct that is embedded without a number is in JSON only.
        let tags = outer.zip(field.markers.tag).map(|(outer, tag)| [outer, &[tag]].concat());
        if !field.json.is_empty() {
            let (zero, markers) = (field.zero(), field.markers.clone());
            let tags = tags.unwrap_or_default();
            found.insert(field.json.clone(), Found { zero, tags, markers });
        } else if let Some((alias, name)) = field.ty.split_once('.') {
            let known = PACKAGES.iter().find(|(known, _)| *known == alias);
            let (_, other) = known.with_context(|| format!("unknown package {alias}"))?;
            embedded.push((format!("{other}.{name}"), tags));
        } else {
            embedded.push((format!("{package}.{}", field.ty), tags));
        }
    }
    let mut embedded = embedded.iter();
    embedded.try_for_each(|(definition, tags)| {
        collect(definition, folder, tags.as_deref(), parsed, found)
    })
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
        let mut pending = Markers::default();
        for line in text.lines() {
            if let Some(comment) = line.trim().strip_prefix("//") {
                pending.add(comment);
                continue;
            }
            let markers = std::mem::take(&mut pending);
            let declared =
                line.strip_prefix("type ").and_then(|rest| rest.strip_suffix(" struct {"));
            if let Some(name) = declared {
                current = Some((name.to_owned(), Vec::new()));
            } else if line == "}" {
                package.extend(current.take());
            } else if let Some((_, fields)) = &mut current {
                fields.extend(go_field(line, markers));
            }
        }
    }
    Ok(package)
}

/// Parses a line such as ``Name string `json:"name,omitempty" protobuf:"bytes,1,opt,name=name"` ``.
fn go_field(line: &str, mut markers: Markers) -> Option<GoField> {
    let (declaration, tags) = line.trim().split_once('`')?;
    let tag = |name: &str| Some(tags.split_once(&format!("{name}:\""))?.1.split_once('"')?.0);
    let mut options = tag("json")?.split(',');
    let json = options.next()?;
    let omitted = options.any(|option| matches!(option, "omitempty" | "omitzero"));
    let ty = declaration.split_whitespace().last()?;
    markers.tag = tag("protobuf").and_then(|protobuf| protobuf.split(',').nth(1)?.parse().ok());
    (json != "-").then(|| GoField { json: json.to_owned(), ty: ty.to_owned(), omitted, markers })
}
