//! OpenAPI documents of the built-in kinds, generated from the schema table.
//!
//! Entry points: [`index`] (`/openapi/v3`), [`document`] (`/openapi/v3/<path of a group version>`)
//! and [`swagger`] (`/openapi/v2`). kubectl takes patch strategies, merge keys, supported
//! parameters and the explanations of fields from the former. Documents are built on first use and
//! kept.
//!
//! It must not know requests or negotiation: callers get JSON, or protobuf where they ask for it.

mod descriptions;
mod enums;
mod operation;
mod parameters;
mod paths;
mod protobuf;
mod schemas;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{LazyLock, OnceLock};

use api::kind::KINDS;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use schemas::{Dialect, Schemas};

/// The API version that the documents state.
const API_VERSION: &str = "v1.37.0";

/// A group and a version.
type GroupVersion = (&'static str, &'static str);

/// Every group version that has kinds.
fn group_versions() -> BTreeSet<GroupVersion> {
    KINDS.iter().map(|row| (row.group, row.version)).collect()
}

/// `api/v1` or `apis/apps/v1`: the key of a group version in the index.
pub fn path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The index of documents, as JSON. Each URL has the hash of its document, so that clients may
/// cache it for ever.
pub fn index() -> Bytes {
    static INDEX: OnceLock<Bytes> = OnceLock::new();
    let build = || {
        let paths: Map<String, Value> = group_versions()
            .into_iter()
            .map(|(group, version)| {
                let path = path(group, version);
                let url = format!("/openapi/v3/{path}?hash={}", hash(&build(group, version)));
                (path, json!({ "serverRelativeURL": url }))
            })
            .collect();
        Bytes::from(json!({ "paths": paths }).to_string())
    };
    INDEX.get_or_init(build).clone()
}

/// The document of a group version, as JSON. `None`: no such group version.
pub fn document(group: &str, version: &str) -> Option<Bytes> {
    static DOCUMENTS: LazyLock<Mutex<BTreeMap<GroupVersion, Bytes>>> =
        LazyLock::new(Mutex::default);
    let key = group_versions().into_iter().find(|key| *key == (group, version))?;
    if let Some(document) = DOCUMENTS.lock().get(&key) {
        return Some(document.clone());
    }
    let document = Bytes::from(build(key.0, key.1));
    DOCUMENTS.lock().insert(key, document.clone());
    Some(document)
}

/// The hash that [`index`] has for a document.
pub fn hash(document: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, document);
    digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
}

fn build(group: &'static str, version: &'static str) -> Vec<u8> {
    let mut schemas = Schemas::new(Dialect::V3);
    let mut all_paths = Map::new();
    for row in KINDS.iter().filter(|row| (row.group, row.version) == (group, version)) {
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
pub fn swagger() -> Bytes {
    static SWAGGER: OnceLock<Bytes> = OnceLock::new();
    SWAGGER.get_or_init(|| Bytes::from(build_swagger().to_string())).clone()
}

/// The same as protobuf (gnostic's `openapi.v2.Document`).
pub fn swagger_protobuf() -> Bytes {
    static SWAGGER: OnceLock<Bytes> = OnceLock::new();
    SWAGGER.get_or_init(|| Bytes::from(protobuf::document(&build_swagger()))).clone()
}

fn build_swagger() -> Value {
    let mut schemas = Schemas::new(Dialect::V2);
    let mut all_paths = Map::new();
    for row in KINDS {
        paths::of_kind(row, &mut schemas, &mut all_paths);
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": API_VERSION},
        "paths": all_paths,
        "definitions": schemas.finish(),
        "parameters": parameters::shared(),
        "securityDefinitions": {"BearerToken": bearer_token()},
        "security": [{"BearerToken": []}],
    })
}
