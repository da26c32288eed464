//! Discovery of groups, versions and resources: the legacy documents and the aggregated ones.

use std::sync::LazyLock;

use api::KindRow;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::response::Response;

const AGGREGATED: &str = "apidiscovery.k8s.io";
const VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const ONE_BY_ONE: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];

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

/// `/api` or `/apis`.
pub fn root(path: &str, accept: &str) -> Response {
    static DOCUMENTS: LazyLock<[Bytes; 6]> = LazyLock::new(|| {
        [
            legacy_api().to_string().into(),
            legacy_apis().to_string().into(),
            aggregated("/api", "v2").to_string().into(),
            aggregated("/apis", "v2").to_string().into(),
            aggregated("/api", "v2beta1").to_string().into(),
            aggregated("/apis", "v2beta1").to_string().into(),
        ]
    });
    let apis = usize::from(path == "/apis");
    let version = accept
        .split(',')
        .find(|range| range.contains(AGGREGATED) && range.contains("as=APIGroupDiscoveryList"))
        .map(|range| if range.contains("v=v2beta1") { "v2beta1" } else { "v2" });
    let (index, content_type) = match version {
        None => (apis, "application/json".to_owned()),
        Some(version) => (
            if version == "v2" { 2 + apis } else { 4 + apis },
            format!("application/json;g={AGGREGATED};v={version};as=APIGroupDiscoveryList"),
        ),
    };
    Response::Raw { code: 200, content_type, body: DOCUMENTS[index].clone() }
}

fn legacy_api() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}]})
}

fn legacy_group(group: &str, version: &str) -> Value {
    let version = json!({"groupVersion": format!("{group}/{version}"), "version": version});
    json!({"name": group, "versions": [version], "preferredVersion": version})
}

fn legacy_apis() -> Value {
    let groups: Vec<_> = groups()
        .into_iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, version)| legacy_group(group, version))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/api/v1`, `/apis/GROUP` or `/apis/GROUP/VERSION`.
pub fn group_or_version(path: &str) -> Option<Response> {
    let mut parts = path.trim_start_matches('/').split('/');
    let value = match (parts.next()?, parts.next()?, parts.next(), parts.next()) {
        ("api", version, None, None) => resource_list("", version)?,
        ("apis", group, None, None) => {
            let (group, version) = groups().into_iter().find(|(name, _)| *name == group)?;
            let mut value = legacy_group(group, version);
            value["kind"] = "APIGroup".into();
            value["apiVersion"] = "v1".into();
            value
        }
        ("apis", group, Some(version), None) if !group.is_empty() => resource_list(group, version)?,
        _ => return None,
    };
    Some(Response::Json { code: 200, json: value.to_string().into(), warnings: Vec::new() })
}

fn resource_list(group: &str, version: &str) -> Option<Value> {
    let rows = rows(group, version);
    let api_version = rows.first()?.api_version();
    let mut resources = Vec::new();
    for row in rows {
        let mut resource = json!({"name": row.plural, "singularName": row.singular,
            "namespaced": row.namespaced(), "kind": row.kind, "verbs": verbs(row)});
        if !row.short_names.is_empty() {
            resource["shortNames"] = json!(row.short_names);
        }
        if !row.categories.is_empty() {
            resource["categories"] = json!(row.categories);
        }
        resources.push(resource);
        for name in row.subresources {
            let subresource = subresource(row, name);
            let mut entry = json!({"name": format!("{}/{name}", row.plural), "singularName": "",
                "namespaced": row.namespaced(), "kind": subresource.kind, "verbs": subresource.verbs});
            if subresource.group != row.group || subresource.version != row.version {
                entry["group"] = subresource.group.into();
                entry["version"] = subresource.version.into();
            }
            resources.push(entry);
        }
    }
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": resources}),
    )
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

struct Subresource {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
}

fn subresource(row: &KindRow, name: &str) -> Subresource {
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
fn aggregated(path: &str, document_version: &str) -> Value {
    let items: Vec<_> = groups()
        .into_iter()
        .filter(|(group, _)| group.is_empty() == (path == "/api"))
        .map(|(group, version)| {
            let resources: Vec<_> =
                rows(group, version).into_iter().map(aggregated_resource).collect();
            let metadata = if group.is_empty() {
                json!({"creationTimestamp": null})
            } else {
                json!({"name": group, "creationTimestamp": null})
            };
            json!({"metadata": metadata,
                "versions": [{"version": version, "resources": resources, "freshness": "Current"}]})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("{AGGREGATED}/{document_version}"),
        "metadata": {}, "items": items})
}

fn aggregated_resource(row: &'static KindRow) -> Value {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let subresources: Vec<_> = row
        .subresources
        .iter()
        .map(|name| {
            let sub = subresource(row, name);
            json!({"subresource": name, "responseKind": kind(sub.group, sub.version, sub.kind), "verbs": sub.verbs})
        })
        .collect();
    let mut resource = json!({
        "resource": row.plural,
        "responseKind": kind(row.group, row.version, row.kind),
        "scope": if row.namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular,
        "verbs": verbs(row),
    });
    if !row.short_names.is_empty() {
        resource["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        resource["categories"] = json!(row.categories);
    }
    if !subresources.is_empty() {
        resource["subresources"] = json!(subresources);
    }
    resource
}
