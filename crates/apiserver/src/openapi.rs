//! OpenAPI documents of all kinds, generated from the schema table and from CustomResourceDefinitions.
//!
//! Entry points: [`index`] (`/openapi/v3`), [`document`] (`/openapi/v3/<path of a group version>`)
//! and [`swagger`] (`/openapi/v2`). kubectl takes patch strategies, merge keys, supported
//! parameters and the explanations of fields from the former. Documents are built on first use and
//! kept.
//!
//! It must not know requests or negotiation: callers get JSON, or protobuf where they ask for it.

mod descriptions;
mod enums;
mod merge;
mod operation;
mod parameters;
mod paths;
mod protobuf;
mod schemas;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use api::KindRef;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use schemas::{Dialect, Schemas};

use crate::registry::{Group, Kinds};

/// The API version that the documents state.
const API_VERSION: &str = "v1.37.0";

/// CustomResourceDefinitions by name, as JSON: kinds keep no descriptions.
pub type Definitions<'a> = &'a dyn Fn(&str) -> Option<Value>;

/// A group and a version.
type GroupVersion = (String, String);

/// The documents of a group version that another server answers.
pub struct Other {
    pub group: String,
    pub version: String,
    /// Of the group version alone, as JSON.
    pub v3: Option<Bytes>,
    /// In the format of the document of all kinds, with paths of the group version only.
    pub v2: Option<Bytes>,
}

impl Other {
    fn is(&self, group: &str, version: &str) -> bool {
        self.group == group && self.version == version
    }
}

/// What documents are made of.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    pub kinds: &'a Kinds,
    pub definitions: Definitions<'a>,
    pub others: &'a [Other],
    /// Rises with every change of the others.
    pub generation: u64,
    /// Told how long it took to make the document of all kinds.
    pub built: &'a dyn Fn(Duration),
}

impl Sources<'_> {
    /// Every group version that this server answers.
    fn own(&self) -> impl Iterator<Item = GroupVersion> {
        let all = group_versions(self.kinds).into_iter();
        all.filter(|(group, version)| !self.others.iter().any(|other| other.is(group, version)))
    }
}

/// Every group version that has kinds.
fn group_versions(kinds: &Kinds) -> BTreeSet<GroupVersion> {
    let of = |group: &Group| {
        let name = group.name.to_string();
        let versions = group.versions.clone();
        versions.into_iter().map(move |version| (name.clone(), version.into_owned()))
    };
    kinds.groups().iter().flat_map(of).collect()
}

/// `api/v1` or `apis/apps/v1`: the key of a group version in the index.
pub fn path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The index of documents, as JSON. Each URL has the hash of its document, so that clients may
/// cache it for ever.
pub fn index(sources: Sources<'_>) -> Bytes {
    let own = sources.own().filter_map(|(group, version)| {
        let document = rendered(sources.kinds, sources.definitions, &group, &version)?;
        Some((path(&group, &version), document.hash))
    });
    let others = sources
        .others
        .iter()
        .filter_map(|other| Some((path(&other.group, &other.version), hash(other.v3.as_deref()?))));
    let paths: Map<String, Value> = own
        .chain(others)
        .map(|(path, hash)| {
            let url = format!("/openapi/v3/{path}?hash={hash}");
            (path, json!({ "serverRelativeURL": url }))
        })
        .collect();
    Bytes::from(json!({ "paths": paths }).to_string())
}

/// The document of a group version, as JSON. `None`: no such group version.
pub fn document(sources: Sources<'_>, group: &str, version: &str) -> Option<Bytes> {
    if let Some(other) = sources.others.iter().find(|other| other.is(group, version)) {
        return other.v3.clone();
    }
    rendered(sources.kinds, sources.definitions, group, version).map(|document| document.json)
}

/// A document that has been built, and what of.
#[derive(Clone)]
struct Document {
    kinds: Vec<KindRef>,
    json: Bytes,
    hash: String,
}

/// The document of a group version, built again only if one of its kinds has been redefined.
fn rendered(
    kinds: &Kinds,
    definitions: Definitions<'_>,
    group: &str,
    version: &str,
) -> Option<Document> {
    static DOCUMENTS: LazyLock<Mutex<BTreeMap<GroupVersion, Document>>> =
        LazyLock::new(Mutex::default);
    let rows = kinds.of(group, version);
    let key = (group.to_owned(), version.to_owned());
    let mut known = DOCUMENTS.lock();
    if rows.is_empty() {
        known.remove(&key);
        return None;
    }
    let same = |document: &&Document| {
        let mut pairs = document.kinds.iter().zip(&rows);
        document.kinds.len() == rows.len() && pairs.all(|(one, other)| one.is_same(other))
    };
    if let Some(document) = known.get(&key).filter(same) {
        return Some(document.clone());
    }
    let json = Bytes::from(build(&rows, definitions));
    let document = Document { hash: hash(&json), kinds: rows, json };
    known.insert(key, document.clone());
    Some(document)
}

/// The hash that [`index`] has for a document.
pub fn hash(document: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, document);
    digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
}

fn build(rows: &[KindRef], definitions: Definitions<'_>) -> Vec<u8> {
    let mut schemas = Schemas::new(Dialect::V3, definitions);
    let mut all_paths = Map::new();
    for row in rows {
        paths::of_kind(row, &mut schemas, &mut all_paths);
    }
    let document = json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": API_VERSION},
        "paths": all_paths,
        "components": {
            "schemas": schemas.finish(),
            "securitySchemes": {"BearerToken": bearer_token()},
        },
    });
    document.to_string().into_bytes()
}

fn bearer_token() -> Value {
    json!({"type": "apiKey", "name": "authorization", "in": "header",
        "description": "Bearer Token authentication"})
}

/// All definitions in the format of OpenAPI v2, as JSON, for legacy clients.
pub fn swagger(sources: Sources<'_>) -> Bytes {
    static SWAGGER: Known = Mutex::new(None);
    current(&SWAGGER, sources, |swagger| Bytes::from(swagger.to_string()))
}

/// The same as protobuf (gnostic's `openapi.v2.Document`).
pub fn swagger_protobuf(sources: Sources<'_>) -> Bytes {
    static SWAGGER: Known = Mutex::new(None);
    current(&SWAGGER, sources, |swagger| Bytes::from(protobuf::document(&swagger)))
}

/// A document, and the generations of what it was made of.
type Known = Mutex<Option<((u64, u64), Bytes)>>;

/// A form of the document of all kinds, built again once something has changed.
fn current(known: &Known, sources: Sources<'_>, form: impl FnOnce(Value) -> Bytes) -> Bytes {
    let mut known = known.lock();
    let generations = (sources.kinds.generation, sources.generation);
    match &*known {
        Some((made_of, document)) if *made_of == generations => document.clone(),
        _ => {
            let begun = clock::monotonic();
            let document = form(build_swagger(sources));
            (sources.built)(begun.elapsed());
            known.insert((generations, document)).1.clone()
        }
    }
}

fn build_swagger(sources: Sources<'_>) -> Value {
    let mut schemas = Schemas::new(Dialect::V2, sources.definitions);
    let mut all_paths = Map::new();
    for (group, version) in sources.own() {
        for row in sources.kinds.of(&group, &version) {
            paths::of_kind(&row, &mut schemas, &mut all_paths);
        }
    }
    let mut whole = json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": API_VERSION},
        "paths": all_paths,
        "definitions": schemas.finish(),
        "parameters": parameters::shared(),
        "securityDefinitions": {"BearerToken": bearer_token()},
        "security": [{"BearerToken": []}],
    });
    for other in sources.others {
        let parsed = other.v2.as_deref().map(serde_json::from_slice::<Value>);
        if let Some(Ok(document)) = parsed {
            merge::merge(&mut whole, &document);
        }
    }
    whole
}
