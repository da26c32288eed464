//! Discovery of groups, versions and resources: the legacy documents and the aggregated ones. Types
//! and order of fields are those of upstream's `meta/v1` and `apidiscovery/v2`.

use std::net::SocketAddr;
use std::sync::LazyLock;

use api::KindRow;
use base64::Engine;
use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::response::Response;

const AGGREGATED: &str = "apidiscovery.k8s.io";
const VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const ONE_BY_ONE: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiVersions {
    kind: &'static str,
    versions: [&'static str; 1],
    #[serde(rename = "serverAddressByClientCIDRs")]
    server_addresses: [ServerAddress; 1],
}

#[derive(Serialize)]
struct ServerAddress {
    #[serde(rename = "clientCIDR")]
    client_cidr: &'static str,
    #[serde(rename = "serverAddress")]
    server_address: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiGroupList {
    kind: &'static str,
    api_version: &'static str,
    groups: Vec<ApiGroup>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiGroup {
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<&'static str>,
    name: &'static str,
    versions: [GroupVersion; 1],
    preferred_version: GroupVersion,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupVersion {
    group_version: String,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiResourceList {
    kind: &'static str,
    api_version: &'static str,
    group_version: String,
    resources: Vec<ApiResource>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiResource {
    name: String,
    singular_name: &'static str,
    namespaced: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    group: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    short_names: &'static [&'static str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    categories: &'static [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    storage_version_hash: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupDiscoveryList {
    kind: &'static str,
    api_version: String,
    metadata: GroupMetadata,
    items: Vec<GroupDiscovery>,
}

#[derive(Default, Serialize)]
struct GroupMetadata {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'static str,
}

#[derive(Serialize)]
struct GroupDiscovery {
    metadata: GroupMetadata,
    versions: [VersionDiscovery; 1],
}

#[derive(Serialize)]
struct VersionDiscovery {
    version: &'static str,
    resources: Vec<ResourceDiscovery>,
    freshness: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceDiscovery {
    resource: &'static str,
    response_kind: GroupVersionKind,
    scope: &'static str,
    singular_resource: &'static str,
    verbs: &'static [&'static str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    short_names: &'static [&'static str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    categories: &'static [&'static str],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subresources: Vec<SubresourceDiscovery>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SubresourceDiscovery {
    subresource: &'static str,
    response_kind: GroupVersionKind,
    verbs: &'static [&'static str],
}

#[derive(Serialize)]
struct GroupVersionKind {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
}

/// The groups in the order in which they are listed, the core group first.
fn groups() -> Vec<(&'static str, &'static str)> {
    let mut groups: Vec<(&str, &str)> = Vec::new();
    for row in api::kind::KINDS {
        if !groups.contains(&(row.group, row.version)) {
            groups.push((row.group, row.version));
        }
    }
    groups
}

fn rows(group: &str, version: &str) -> Vec<&'static KindRow> {
    let mut rows: Vec<_> = api::kind::KINDS
        .iter()
        .copied()
        .filter(|row| row.group == group && row.version == version)
        .collect();
    rows.sort_by_key(|row| row.plural);
    rows
}

/// `/api` or `/apis`. `own` is the address that the server advertises.
pub fn root(path: &str, accept: &str, own: SocketAddr) -> Response {
    static DOCUMENTS: LazyLock<[Bytes; 5]> = LazyLock::new(|| {
        [
            encode(&legacy_apis()),
            encode(&aggregated("/api", "v2")),
            encode(&aggregated("/apis", "v2")),
            encode(&aggregated("/api", "v2beta1")),
            encode(&aggregated("/apis", "v2beta1")),
        ]
    });
    let apis = usize::from(path == "/apis");
    let version = accept
        .split(',')
        .find(|range| range.contains(AGGREGATED) && range.contains("as=APIGroupDiscoveryList"))
        .map(|range| if range.contains("v=v2beta1") { "v2beta1" } else { "v2" });
    let (body, content_type) = match version {
        None if apis == 0 => (encode(&legacy_api(own)), "application/json".to_owned()),
        None => (DOCUMENTS[0].clone(), "application/json".to_owned()),
        Some(version) => (
            DOCUMENTS[if version == "v2" { 1 + apis } else { 3 + apis }].clone(),
            format!("application/json;g={AGGREGATED};v={version};as=APIGroupDiscoveryList"),
        ),
    };
    Response::Raw { code: 200, content_type, body }
}

fn encode(document: &impl Serialize) -> Bytes {
    let mut json = serde_json::to_vec(document).expect("documents are made of texts and lists");
    json.push(b'\n');
    json.into()
}

fn legacy_api(own: SocketAddr) -> ApiVersions {
    let address = ServerAddress { client_cidr: "0.0.0.0/0", server_address: own.to_string() };
    ApiVersions { kind: "APIVersions", versions: ["v1"], server_addresses: [address] }
}

fn legacy_group(group: &'static str, version: &'static str) -> ApiGroup {
    let version = GroupVersion { group_version: format!("{group}/{version}"), version };
    ApiGroup {
        kind: None,
        api_version: None,
        name: group,
        versions: [version.clone()],
        preferred_version: version,
    }
}

fn legacy_apis() -> ApiGroupList {
    let groups = groups().into_iter().filter(|(group, _)| !group.is_empty());
    ApiGroupList {
        kind: "APIGroupList",
        api_version: "v1",
        groups: groups.map(|(group, version)| legacy_group(group, version)).collect(),
    }
}

/// `/api/v1`, `/apis/GROUP` or `/apis/GROUP/VERSION`.
pub fn group_or_version(path: &str) -> Option<Response> {
    let mut parts = path.trim_start_matches('/').split('/');
    let json = match (parts.next()?, parts.next()?, parts.next(), parts.next()) {
        ("api", version, None, None) => encode(&resource_list("", version)?),
        ("apis", group, None, None) => {
            let (group, version) = groups().into_iter().find(|(name, _)| *name == group)?;
            encode(&ApiGroup {
                kind: Some("APIGroup"),
                api_version: Some("v1"),
                ..legacy_group(group, version)
            })
        }
        ("apis", group, Some(version), None) if !group.is_empty() => {
            encode(&resource_list(group, version)?)
        }
        _ => return None,
    };
    Some(Response::Json { code: 200, json, warnings: Vec::new() })
}

fn resource_list(group: &str, version: &str) -> Option<ApiResourceList> {
    let rows = rows(group, version);
    let group_version = rows.first()?.api_version();
    let mut resources = Vec::new();
    for row in rows {
        resources.push(ApiResource {
            name: row.plural.to_owned(),
            singular_name: row.singular,
            namespaced: row.namespaced(),
            group: "",
            version: "",
            kind: row.kind,
            verbs: verbs(row),
            short_names: row.short_names,
            categories: row.categories,
            storage_version_hash: storage_version_hash(row),
        });
        for name in row.subresources {
            let subresource = subresource(row, name);
            let foreign = subresource.group != row.group || subresource.version != row.version;
            resources.push(ApiResource {
                name: format!("{}/{name}", row.plural),
                singular_name: "",
                namespaced: row.namespaced(),
                group: if foreign { subresource.group } else { "" },
                version: if foreign { subresource.version } else { "" },
                kind: subresource.kind,
                verbs: subresource.verbs,
                short_names: &[],
                categories: &[],
                storage_version_hash: None,
            });
        }
    }
    Some(ApiResourceList { kind: "APIResourceList", api_version: "v1", group_version, resources })
}

/// Tells clients whether objects are stored in another version than before: the first eight bytes
/// of the hash of the stored kind (upstream's `discovery.StorageVersionHash`).
fn storage_version_hash(row: &KindRow) -> Option<String> {
    // Events of both groups are stored as those of the core group.
    let group = if row.kind == "Event" { "" } else { row.group };
    let stored = format!("{group}/{}/{}", row.version, row.kind);
    let hash = &Sha256::digest(stored)[..8];
    row.has_objects().then(|| base64::engine::general_purpose::STANDARD.encode(hash))
}

fn verbs(row: &KindRow) -> &'static [&'static str] {
    if !row.has_objects() {
        return &["create"];
    }
    // Namespaces are only deleted one by one.
    if row.kind == "Namespace" {
        return ONE_BY_ONE;
    }
    VERBS
}

/// A subresource as documents show it.
pub struct Subresource {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub verbs: &'static [&'static str],
}

/// What a subresource takes and returns, and its verbs.
pub fn subresource(row: &KindRow, name: &str) -> Subresource {
    let (group, version, kind, verbs): (_, _, _, &[&str]) = match name {
        "scale" => ("autoscaling", "v1", "Scale", &["get", "patch", "update"]),
        "eviction" => ("policy", "v1", "Eviction", &["create"]),
        "binding" => ("", "v1", "Binding", &["create"]),
        "token" => ("authentication.k8s.io", "v1", "TokenRequest", &["create"]),
        "finalize" => ("", "v1", row.kind, &["update"]),
        "log" => ("", "v1", "Pod", &["get"]),
        "exec" => ("", "v1", "PodExecOptions", &["create", "get"]),
        "attach" => ("", "v1", "PodAttachOptions", &["create", "get"]),
        "portforward" => ("", "v1", "PodPortForwardOptions", &["create", "get"]),
        "proxy" => {
            let kind = match row.kind {
                "Node" => "NodeProxyOptions",
                "Service" => "ServiceProxyOptions",
                _ => "PodProxyOptions",
            };
            ("", "v1", kind, &["create", "delete", "get", "patch", "update"])
        }
        _ => (row.group, row.version, row.kind, &["get", "patch", "update"]),
    };
    Subresource { group, version, kind, verbs }
}

/// All groups with all their resources in one document.
fn aggregated(path: &str, document_version: &str) -> GroupDiscoveryList {
    let groups = groups().into_iter().filter(|(group, _)| group.is_empty() == (path == "/api"));
    let items = groups.map(|(group, version)| {
        let resources = rows(group, version).into_iter().map(aggregated_resource).collect();
        GroupDiscovery {
            metadata: GroupMetadata { name: group },
            versions: [VersionDiscovery { version, resources, freshness: "Current" }],
        }
    });
    GroupDiscoveryList {
        kind: "APIGroupDiscoveryList",
        api_version: format!("{AGGREGATED}/{document_version}"),
        metadata: GroupMetadata::default(),
        items: items.collect(),
    }
}

fn aggregated_resource(row: &'static KindRow) -> ResourceDiscovery {
    let subresources = row.subresources.iter().map(|name| {
        let Subresource { group, version, kind, verbs } = subresource(row, name);
        let response_kind = GroupVersionKind { group, version, kind };
        SubresourceDiscovery { subresource: name, response_kind, verbs }
    });
    ResourceDiscovery {
        resource: row.plural,
        response_kind: GroupVersionKind { group: row.group, version: row.version, kind: row.kind },
        scope: if row.namespaced() { "Namespaced" } else { "Cluster" },
        singular_resource: row.singular,
        verbs: verbs(row),
        short_names: row.short_names,
        categories: row.categories,
        subresources: subresources.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(document: &impl Serialize) -> String {
        String::from_utf8(encode(document).to_vec()).unwrap()
    }

    #[test]
    fn documents_are_as_upstream_writes_them() {
        let own = "10.0.0.1:6443".parse().unwrap();
        let versions = r#"{"kind":"APIVersions","versions":["v1"],"serverAddressByClientCIDRs":"#;
        let address = r#"[{"clientCIDR":"0.0.0.0/0","serverAddress":"10.0.0.1:6443"}]}"#;
        assert_eq!(text(&legacy_api(own)).trim(), format!("{versions}{address}"));
        let core = text(&resource_list("", "v1").unwrap());
        let start =
            r#"{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"v1","resources":["#;
        assert!(core.starts_with(start), "{core}");
        let verbs =
            r#"["create","delete","deletecollection","get","list","patch","update","watch"]"#;
        let pods = format!(
            r#"{{"name":"pods","singularName":"pod","namespaced":true,"kind":"Pod","verbs":{verbs},"shortNames":["po"],"categories":["all"],"storageVersionHash":"xPOwRZ+Yhw8="}}"#
        );
        assert!(core.contains(&pods), "{core}");
        let scale = r#"{"name":"replicationcontrollers/scale","singularName":"","namespaced":true,"group":"autoscaling","version":"v1","kind":"Scale","verbs":["get","patch","update"]}"#;
        assert!(core.contains(scale), "{core}");
        let core = text(&aggregated("/api", "v2"));
        let start = r#"{"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/v2","metadata":{},"items":[{"metadata":{},"versions":[{"version":"v1","resources":[{"resource":"bindings","responseKind":{"group":"","version":"v1","kind":"Binding"},"scope":"Namespaced","singularResource":"binding","verbs":["create"]}"#;
        assert!(core.starts_with(start), "{core}");
    }

    #[test]
    fn storage_version_hashes_are_those_of_upstream() {
        let hashes = [
            ("", "pods", Some("xPOwRZ+Yhw8=")),
            ("", "nodes", Some("XwShjMxG9Fs=")),
            ("", "persistentvolumes", Some("HN/zwEC+JgM=")),
            ("", "events", Some("r2yiGXH7wu8=")),
            ("events.k8s.io", "events", Some("r2yiGXH7wu8=")),
            ("apps", "deployments", Some("8aSe+NMegvE=")),
            ("", "bindings", None),
            ("authentication.k8s.io", "tokenreviews", None),
        ];
        for (group, plural, hash) in hashes {
            let row = rows(group, "v1").into_iter().find(|row| row.plural == plural).unwrap();
            assert_eq!(storage_version_hash(row).as_deref(), hash, "{plural}");
        }
    }
}
