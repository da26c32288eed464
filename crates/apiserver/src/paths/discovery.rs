//! Discovery of groups, versions and resources: the legacy documents and the aggregated ones. Types
//! and order of fields are those of upstream's `meta/v1` and `apidiscovery/v2`.

use std::net::SocketAddr;
use std::sync::Arc;

use api::kind::{Text, Texts};
use api::{Kind, KindRow};
use base64::Engine;
use bytes::Bytes;
use k8s_openapi::api::core::v1::Namespace;
use parking_lot::Mutex;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::aggregation::{self, Aggregator, Group, ResourceDocument, Snapshot};
use crate::kinds::forms;
use crate::registry::Kinds;
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
    name: String,
    versions: Vec<GroupVersion>,
    preferred_version: GroupVersion,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupVersion {
    group_version: String,
    version: String,
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
    singular_name: Text,
    namespaced: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    group: Text,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: Text,
    kind: Text,
    verbs: &'static [&'static str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    short_names: Texts,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    categories: Texts,
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
    name: String,
}

#[derive(Serialize)]
struct GroupDiscovery {
    metadata: GroupMetadata,
    versions: Vec<VersionDiscovery>,
}

#[derive(Serialize)]
struct VersionDiscovery {
    version: String,
    #[serde(skip_serializing_if = "Resources::is_unknown")]
    resources: Resources,
    freshness: &'static str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Resources {
    Own(Vec<ResourceDiscovery>),
    /// As another server describes its own.
    Theirs(Arc<Vec<ResourceDocument>>),
}

impl Resources {
    fn is_unknown(&self) -> bool {
        matches!(self, Self::Theirs(known) if known.is_empty())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceDiscovery {
    resource: Text,
    response_kind: GroupVersionKind,
    scope: &'static str,
    singular_resource: Text,
    verbs: &'static [&'static str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    short_names: Texts,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    categories: Texts,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subresources: Vec<SubresourceDiscovery>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SubresourceDiscovery {
    subresource: Text,
    response_kind: GroupVersionKind,
    verbs: &'static [&'static str],
}

#[derive(Serialize)]
struct GroupVersionKind {
    group: Text,
    version: Text,
    kind: Text,
}

/// The generations of the kinds and of the APIServices that documents describe, and these.
type Documents = ((u64, u64), [Bytes; 5]);

/// `/api` or `/apis`. `own` is the address that the server advertises.
pub fn root(
    kinds: &Kinds,
    aggregator: &Aggregator,
    path: &str,
    accept: &str,
    own: SocketAddr,
) -> Response {
    static DOCUMENTS: Mutex<Option<Documents>> = Mutex::new(None);
    let generations = (kinds.generation, aggregator.generation());
    let current = DOCUMENTS.lock().clone().filter(|(described, _)| *described == generations);
    let (_, documents) = current.unwrap_or_else(|| {
        let groups = aggregation::groups(kinds, &aggregator.snapshot());
        let legacy = encode(&legacy_apis(&groups));
        let groups = aggregation::by_name(groups);
        let documents = [
            legacy,
            encode(&aggregated(kinds, &groups, "/api", "v2")),
            encode(&aggregated(kinds, &groups, "/apis", "v2")),
            encode(&aggregated(kinds, &groups, "/api", "v2beta1")),
            encode(&aggregated(kinds, &groups, "/apis", "v2beta1")),
        ];
        DOCUMENTS.lock().insert((generations, documents)).clone()
    });
    let apis = usize::from(path == "/apis");
    let is_aggregated =
        |range: &&str| range.contains(AGGREGATED) && range.contains("as=APIGroupDiscoveryList");
    let is_legacy =
        |range: &&str| matches!(range.split(';').next(), Some("application/json" | "*/*"));
    let version = accept
        .split(',')
        .find(|range| is_aggregated(range) || (is_legacy(range) && !range.contains("as=")))
        .filter(is_aggregated)
        .map(|range| if range.contains("v=v2beta1") { "v2beta1" } else { "v2" });
    let (body, content_type) = match version {
        None if apis == 0 => (encode(&legacy_api(own)), "application/json".to_owned()),
        None => (documents[0].clone(), "application/json".to_owned()),
        Some(version) => (
            documents[if version == "v2" { 1 + apis } else { 3 + apis }].clone(),
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

fn legacy_group(group: &Group) -> ApiGroup {
    let version = |one: &aggregation::GroupVersion| GroupVersion {
        group_version: format!("{}/{}", group.name, one.version),
        version: one.version.clone(),
    };
    ApiGroup {
        kind: None,
        api_version: None,
        name: group.name.clone(),
        versions: group.versions.iter().map(version).collect(),
        preferred_version: version(&group.versions[0]),
    }
}

fn legacy_apis(groups: &[Group]) -> ApiGroupList {
    let groups = groups.iter().filter(|group| !group.name.is_empty());
    ApiGroupList {
        kind: "APIGroupList",
        api_version: "v1",
        groups: groups.map(legacy_group).collect(),
    }
}

/// `/api/v1`, `/apis/GROUP` or `/apis/GROUP/VERSION`.
pub fn group_or_version(kinds: &Kinds, snapshot: &Snapshot, path: &str) -> Option<Response> {
    let mut parts = path.trim_start_matches('/').split('/');
    let json = match (parts.next()?, parts.next()?, parts.next(), parts.next()) {
        ("api", version, None, None) => encode(&resource_list(kinds, "", version)?),
        ("apis", group, None, None) => {
            let groups = aggregation::groups(kinds, snapshot);
            let group = groups.iter().find(|known| known.name == group)?;
            encode(&ApiGroup {
                kind: Some("APIGroup"),
                api_version: Some("v1"),
                ..legacy_group(group)
            })
        }
        ("apis", group, Some(version), None) if !group.is_empty() => {
            encode(&resource_list(kinds, group, version)?)
        }
        _ => return None,
    };
    Some(Response::Json { code: 200, json, warnings: Vec::new() })
}

fn resource_list(kinds: &Kinds, group: &str, version: &str) -> Option<ApiResourceList> {
    let rows = kinds.of(group, version);
    let group_version = rows.first()?.api_version();
    let mut resources = Vec::new();
    for row in &rows {
        resources.push(ApiResource {
            name: row.plural.to_string(),
            singular_name: row.singular.clone(),
            namespaced: row.namespaced(),
            group: "".into(),
            version: "".into(),
            kind: row.kind.clone(),
            verbs: verbs(row),
            short_names: row.short_names.clone(),
            categories: row.categories.clone(),
            storage_version_hash: storage_version_hash(row),
        });
        for name in row.subresources.iter() {
            let subresource = subresource(row, name);
            let foreign = subresource.group != row.group || subresource.version != row.version;
            resources.push(ApiResource {
                name: format!("{}/{name}", row.plural),
                singular_name: "".into(),
                namespaced: row.namespaced(),
                group: if foreign { subresource.group } else { "".into() },
                version: if foreign { subresource.version } else { "".into() },
                kind: subresource.kind,
                verbs: subresource.verbs,
                short_names: Texts::default(),
                categories: Texts::default(),
                storage_version_hash: None,
            });
        }
    }
    Some(ApiResourceList { kind: "APIResourceList", api_version: "v1", group_version, resources })
}

/// Tells clients whether objects are stored in another version than before: the first eight bytes
/// of the hash of the stored kind (upstream's `discovery.StorageVersionHash`).
fn storage_version_hash(row: &KindRow) -> Option<String> {
    let stored = forms::stored(row);
    let custom = row.custom.as_ref();
    let version = custom.map_or(&*stored.version, |custom| &custom.storage_version);
    let stored = format!("{}/{version}/{}", stored.group, row.kind);
    let hash = &Sha256::digest(stored)[..8];
    row.has_objects().then(|| base64::engine::general_purpose::STANDARD.encode(hash))
}

/// The verbs of a kind.
pub fn verbs(row: &KindRow) -> &'static [&'static str] {
    if row.computed {
        return &["get", "list"];
    }
    if !row.has_objects() {
        return ONLY_CREATE;
    }
    // Namespaces are only deleted one by one.
    if row == Namespace::ROW {
        return ONE_BY_ONE;
    }
    VERBS
}

/// The verbs of a kind without objects.
pub const ONLY_CREATE: &[&str] = &["create"];

/// A subresource as documents show it.
pub struct Subresource {
    pub group: Text,
    pub version: Text,
    pub kind: Text,
    pub verbs: &'static [&'static str],
}

/// What a subresource takes and returns, and its verbs.
pub fn subresource(row: &KindRow, name: &str) -> Subresource {
    let (group, version, kind, verbs): (_, _, _, &[&str]) = match name {
        "scale" => ("autoscaling", "v1", "Scale", &["get", "patch", "update"]),
        "eviction" => ("policy", "v1", "Eviction", &["create"]),
        "binding" => ("", "v1", "Binding", &["create"]),
        "token" => ("authentication.k8s.io", "v1", "TokenRequest", &["create"]),
        "finalize" => ("", "v1", "Namespace", &["update"]),
        "log" => ("", "v1", "Pod", &["get"]),
        "exec" => ("", "v1", "PodExecOptions", &["create", "get"]),
        "attach" => ("", "v1", "PodAttachOptions", &["create", "get"]),
        "portforward" => ("", "v1", "PodPortForwardOptions", &["create", "get"]),
        "proxy" => {
            let kind = match &*row.kind {
                "Node" => "NodeProxyOptions",
                "Service" => "ServiceProxyOptions",
                _ => "PodProxyOptions",
            };
            ("", "v1", kind, &["create", "delete", "get", "patch", "update"])
        }
        _ => {
            let (group, version, kind) = (row.group.clone(), row.version.clone(), row.kind.clone());
            return Subresource { group, version, kind, verbs: &["get", "patch", "update"] };
        }
    };
    Subresource { group: group.into(), version: version.into(), kind: kind.into(), verbs }
}

/// All groups with all their resources in one document.
fn aggregated(
    kinds: &Kinds,
    groups: &[Group],
    path: &str,
    document_version: &str,
) -> GroupDiscoveryList {
    let groups = groups.iter().filter(|group| group.name.is_empty() == (path == "/api"));
    let items = groups.map(|group| {
        let version = |one: &aggregation::GroupVersion| {
            let (resources, is_current) = match &one.remote {
                None => {
                    let rows = kinds.of(&group.name, &one.version);
                    let rows = rows.iter().map(|row| aggregated_resource(row));
                    (Resources::Own(rows.collect()), true)
                }
                Some(service) => {
                    let (resources, is_current) = service.resources();
                    (Resources::Theirs(resources), is_current)
                }
            };
            let freshness = if is_current { "Current" } else { "Stale" };
            VersionDiscovery { version: one.version.clone(), resources, freshness }
        };
        GroupDiscovery {
            metadata: GroupMetadata { name: group.name.clone() },
            versions: group.versions.iter().map(version).collect(),
        }
    });
    GroupDiscoveryList {
        kind: "APIGroupDiscoveryList",
        api_version: format!("{AGGREGATED}/{document_version}"),
        metadata: GroupMetadata::default(),
        items: items.collect(),
    }
}

fn aggregated_resource(row: &KindRow) -> ResourceDiscovery {
    let subresources = row.subresources.iter().map(|name| {
        let Subresource { group, version, kind, verbs } = subresource(row, name);
        let response_kind = GroupVersionKind { group, version, kind };
        SubresourceDiscovery { subresource: name.clone(), response_kind, verbs }
    });
    ResourceDiscovery {
        resource: row.plural.clone(),
        response_kind: GroupVersionKind {
            group: row.group.clone(),
            version: row.version.clone(),
            kind: row.kind.clone(),
        },
        scope: if row.namespaced() { "Namespaced" } else { "Cluster" },
        singular_resource: row.singular.clone(),
        verbs: verbs(row),
        short_names: row.short_names.clone(),
        categories: row.categories.clone(),
        subresources: subresources.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    fn text(document: &impl Serialize) -> String {
        String::from_utf8(encode(document).to_vec()).unwrap()
    }

    #[test]
    fn documents_are_as_upstream_writes_them() {
        let own = "10.0.0.1:6443".parse().unwrap();
        let versions = r#"{"kind":"APIVersions","versions":["v1"],"serverAddressByClientCIDRs":"#;
        let address = r#"[{"clientCIDR":"0.0.0.0/0","serverAddress":"10.0.0.1:6443"}]}"#;
        assert_eq!(text(&legacy_api(own)).trim(), format!("{versions}{address}"));
        let kinds = Registry::default().kinds();
        let core = text(&resource_list(&kinds, "", "v1").unwrap());
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
        let groups = aggregation::groups(&kinds, &Snapshot::default());
        let core = text(&aggregated(&kinds, &groups, "/api", "v2"));
        let start = r#"{"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/v2","metadata":{},"items":[{"metadata":{},"versions":[{"version":"v1","resources":[{"resource":"bindings","responseKind":{"group":"","version":"v1","kind":"Binding"},"scope":"Namespaced","singularResource":"binding","verbs":["create"]}"#;
        assert!(core.starts_with(start), "{core}");
    }

    #[test]
    fn the_first_form_that_there_is_is_answered() {
        let kinds = Registry::default().kinds();
        let whole = |version| {
            format!("application/json;g={AGGREGATED};v={version};as=APIGroupDiscoveryList")
        };
        let (two, beta) = (whole("v2"), whole("v2beta1"));
        let legacy = "application/json".to_owned();
        for (accept, expected) in [
            (format!("{two},{beta},{legacy}"), &two),
            (format!("{beta},{two}"), &beta),
            (format!("application/vnd.kubernetes.protobuf,{two}"), &two),
            (format!("{legacy},{two}"), &legacy),
            (format!("text/html,*/*,{two}"), &legacy),
            (String::new(), &legacy),
        ] {
            let own = "10.0.0.1:6443".parse().unwrap();
            let answer =
                root(&kinds, &Aggregator::new(None, Default::default()), "/apis", &accept, own);
            let Response::Raw { content_type, .. } = answer else { panic!("{accept}") };
            assert_eq!(content_type, *expected, "{accept}");
        }
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
            ("autoscaling", "horizontalpodautoscalers", Some("qwQve8ut294=")),
            ("", "bindings", None),
            ("authentication.k8s.io", "tokenreviews", None),
        ];
        for (group, plural, hash) in hashes {
            let row = api::kind::by_resource(group, "v1", plural).unwrap();
            assert_eq!(storage_version_hash(row).as_deref(), hash, "{plural}");
        }
    }
}
