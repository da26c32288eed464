//! What a backend says about its resources: discovery, in the aggregated form or else the legacy
//! one, and OpenAPI of both versions. Upstream: `handler_discovery.go`,
//! `pkg/controllers/{openapi,openapiv3}`.
//!
//! Whatever a backend answers is parsed and bounded here; what is merged into this server's documents
//! has the form that clients expect.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::backend::{Asked, Backend, Document, Failure};
use super::{Regenerated, aggregator, discovery_path, split};
use crate::core::Core;

/// Maximum size of a document.
const DISCOVERY_BYTES: usize = 4 << 20;
const OPENAPI_BYTES: usize = 16 << 20;
/// How long one may take.
const DOCUMENT: Duration = Duration::from_secs(5);

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
    application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
const JSON: &str = "application/json";

/// What is known.
#[derive(Clone, Debug, Default)]
pub struct Documents {
    /// The resources of the group version.
    pub resources: Arc<Vec<ResourceDocument>>,
    etag: String,
    /// Whether the last attempt to read the resources succeeded.
    pub is_current: bool,
    pub openapi_v3: Option<OpenApi>,
    pub openapi_v2: Option<OpenApi>,
}

/// A document of OpenAPI, as the backend has it.
#[derive(Clone, Debug)]
pub struct OpenApi {
    /// What tells whether it has changed: an ETag, or a URL.
    tag: String,
    pub json: Bytes,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindDocument {
    #[serde(default)]
    group: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    kind: String,
}

/// `APIResourceDiscovery`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceDocument {
    resource: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response_kind: Option<KindDocument>,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    singular_resource: String,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    short_names: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    categories: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    subresources: Vec<SubresourceDocument>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SubresourceDocument {
    subresource: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response_kind: Option<KindDocument>,
    #[serde(default)]
    verbs: Vec<String>,
}

/// What is not the same as before.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub any: bool,
    pub openapi_v2: Option<Regenerated>,
}

/// Reads what has changed.
pub async fn refresh(core: &Core, backend: &Arc<Backend>, name: &str) -> Change {
    let before = backend.documents.load_full();
    let mut now = Documents::clone(&before);
    let reader = Reader { core, backend, name };
    match reader.resources(&before).await {
        Ok(Some((resources, etag))) => {
            (now.resources, now.etag, now.is_current) = (Arc::new(resources), etag, true);
        }
        Ok(None) => now.is_current = true,
        Err(error) => {
            tracing::debug!(name, %error, "cannot read the discovery of an extension server");
            now.is_current = false;
        }
    }
    // Not every server has them.
    let (v3, v2) = (reader.openapi_v3(&before), reader.openapi_v2(&before));
    let (v3, v2) = tokio::join!(v3, v2);
    for (read, kept) in [(v3, &mut now.openapi_v3), (v2, &mut now.openapi_v2)] {
        match read {
            Ok(Some(document)) => *kept = document,
            Ok(None) => {}
            Err(error) => tracing::debug!(name, %error, "cannot read the OpenAPI of a server"),
        }
    }
    let tag = |document: &Option<OpenApi>| document.as_ref().map(|document| document.tag.clone());
    let same = now.is_current == before.is_current
        && now.resources == before.resources
        && tag(&now.openapi_v3) == tag(&before.openapi_v3)
        && tag(&now.openapi_v2) == tag(&before.openapi_v2);
    let openapi_v2 = match (&before.openapi_v2, &now.openapi_v2) {
        (None, None) => None,
        (None, Some(_)) => Some(Regenerated::Add),
        (Some(_), None) => Some(Regenerated::Delete),
        (Some(before), Some(now)) => (before.tag != now.tag).then_some(Regenerated::Update),
    };
    backend.documents.store(Arc::new(now));
    Change { any: !same, openapi_v2 }
}

struct Reader<'a> {
    core: &'a Core,
    backend: &'a Arc<Backend>,
    /// Of the APIService.
    name: &'a str,
}

impl Reader<'_> {
    async fn get(&self, asked: Asked<'_>, most: usize) -> Result<Document, Failure> {
        let user = aggregator();
        let reading = self.backend.ask(self.core, &user, asked, most);
        tokio::time::timeout(DOCUMENT, reading).await?
    }

    /// The resources, and the document's ETag; `None`: they are the same as before.
    async fn resources(
        &self,
        before: &Documents,
    ) -> Result<Option<(Vec<ResourceDocument>, String)>, Failure> {
        let (group, version) = split(self.name);
        let path = if group.is_empty() { "/api" } else { "/apis" };
        let asked = Asked::document(path, AGGREGATED, &before.etag);
        let document = self.get(asked, DISCOVERY_BYTES).await?;
        match document.code {
            304 if !before.etag.is_empty() => return Ok(None),
            200 if document.header(CONTENT_TYPE).contains("as=APIGroupDiscoveryList") => {
                let resources = aggregated(&document.body, group, version)?;
                return Ok(Some((resources, document.header(ETAG).to_owned())));
            }
            503 => return Err("it is not available".into()),
            _ => {}
        }
        let path = discovery_path(self.name);
        let asked = Asked::document(&path, JSON, "");
        let document = self.get(asked, DISCOVERY_BYTES).await?;
        if document.code != 200 {
            return Err(format!("{path} was answered with {}", document.code).into());
        }
        Ok(Some((legacy(&document.body, group, version)?, String::new())))
    }

    /// The document of the group version; `None`: it is the same as before, `Some(None)`: there is
    /// none.
    async fn openapi_v3(&self, before: &Documents) -> Result<Option<Option<OpenApi>>, Failure> {
        let index = Asked::document("/openapi/v3", JSON, "");
        let index = self.get(index, DISCOVERY_BYTES).await?;
        if index.code != 200 {
            return Ok(Some(None));
        }
        let index: Value = serde_json::from_slice(&index.body)?;
        let key = discovery_path(self.name);
        let url = index["paths"][key.trim_start_matches('/')]["serverRelativeURL"].as_str();
        let Some(url) = url.filter(|url| url.starts_with("/openapi/v3/")) else {
            return Ok(Some(None));
        };
        if before.openapi_v3.as_ref().is_some_and(|known| known.tag == url) {
            return Ok(None);
        }
        let asked = Asked::document(url, JSON, "");
        let document = self.get(asked, OPENAPI_BYTES).await?;
        if document.code != 200 {
            return Err(format!("{url} was answered with {}", document.code).into());
        }
        serde_json::from_slice::<Map<String, Value>>(&document.body)?;
        Ok(Some(Some(OpenApi { tag: url.to_owned(), json: document.body })))
    }

    /// What the document of all kinds says about the group version.
    async fn openapi_v2(&self, before: &Documents) -> Result<Option<Option<OpenApi>>, Failure> {
        let etag = before.openapi_v2.as_ref().map_or("", |known| &known.tag);
        let asked = Asked::document("/openapi/v2", JSON, etag);
        let document = self.get(asked, OPENAPI_BYTES).await?;
        match document.code {
            304 if !etag.is_empty() => return Ok(None),
            200 => {}
            _ => return Ok(Some(None)),
        }
        let mut whole: Map<String, Value> = serde_json::from_slice(&document.body)?;
        let prefix = format!("{}/", discovery_path(self.name));
        if let Some(Value::Object(paths)) = whole.get_mut("paths") {
            paths.retain(|path, _| format!("{path}/").starts_with(&prefix));
        }
        let json = Bytes::from(Value::Object(whole).to_string());
        let tag = match document.header(ETAG) {
            "" => crate::openapi::hash(&json),
            etag => etag.to_owned(),
        };
        Ok(Some(Some(OpenApi { tag, json })))
    }
}

/// The resources of a group version in `APIGroupDiscoveryList`.
fn aggregated(
    json: &[u8],
    group: &str,
    version: &str,
) -> Result<Vec<ResourceDocument>, serde_json::Error> {
    #[derive(Deserialize)]
    struct List {
        #[serde(default)]
        items: Vec<Group>,
    }
    #[derive(Deserialize)]
    struct Group {
        #[serde(default)]
        metadata: Metadata,
        #[serde(default)]
        versions: Vec<Version>,
    }
    #[derive(Default, Deserialize)]
    struct Metadata {
        #[serde(default)]
        name: String,
    }
    #[derive(Deserialize)]
    struct Version {
        version: String,
        #[serde(default)]
        resources: Vec<ResourceDocument>,
    }
    let list: List = serde_json::from_slice(json)?;
    let groups = list.items.into_iter().filter(|known| known.metadata.name == group);
    let mut versions = groups.flat_map(|known| known.versions);
    let found = versions.find(|known| known.version == version);
    Ok(found.map(|found| found.resources).unwrap_or_default())
}

/// The resources of `APIResourceList` (`ConvertGroupVersionIntoToDiscovery`).
fn legacy(
    json: &[u8],
    group: &str,
    version: &str,
) -> Result<Vec<ResourceDocument>, serde_json::Error> {
    #[derive(Deserialize)]
    struct List {
        resources: Vec<Resource>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Resource {
        name: String,
        #[serde(default)]
        singular_name: String,
        #[serde(default)]
        namespaced: bool,
        #[serde(default)]
        group: String,
        #[serde(default)]
        version: String,
        #[serde(default)]
        kind: String,
        #[serde(default)]
        verbs: Vec<String>,
        #[serde(default)]
        short_names: Vec<String>,
        #[serde(default)]
        categories: Vec<String>,
    }
    let list: List = serde_json::from_slice(json)?;
    let mut all: Vec<ResourceDocument> = Vec::new();
    for one in list.resources {
        let own = |text: String, own: &str| if text.is_empty() { own.to_owned() } else { text };
        let kind = KindDocument {
            group: own(one.group, group),
            version: own(one.version, version),
            kind: one.kind,
        };
        let response_kind = Some(kind).filter(|kind| !kind.kind.is_empty());
        let (parent, subresource) = match one.name.split_once('/') {
            Some((parent, subresource)) => (parent.to_owned(), Some(subresource.to_owned())),
            None => (one.name, None),
        };
        let index = all.iter().position(|known| known.resource == parent);
        let index = index.unwrap_or_else(|| {
            all.push(ResourceDocument { resource: parent, ..ResourceDocument::default() });
            all.len() - 1
        });
        let known = &mut all[index];
        if known.scope.is_empty() {
            let scope = if one.namespaced { "Namespaced" } else { "Cluster" };
            scope.clone_into(&mut known.scope);
        }
        match subresource {
            Some(subresource) => known.subresources.push(SubresourceDocument {
                subresource,
                response_kind,
                verbs: one.verbs,
            }),
            None => {
                known.response_kind = response_kind;
                known.singular_resource = one.singular_name;
                known.verbs = one.verbs;
                known.short_names = one.short_names;
                known.categories = one.categories;
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn expected() -> Value {
        json!([{"resource": "things",
            "responseKind": {"group": "g", "version": "v1", "kind": "Thing"},
            "scope": "Namespaced", "singularResource": "thing", "verbs": ["get", "list"],
            "shortNames": ["th"], "categories": ["all"],
            "subresources": [{"subresource": "scale", "verbs": ["get"],
                "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"}}]}])
    }

    #[test]
    fn both_forms_of_discovery_say_the_same() {
        let old = json!({"kind": "APIResourceList", "groupVersion": "g/v1", "resources": [
            {"name": "things/scale", "singularName": "", "namespaced": true, "verbs": ["get"],
                "group": "autoscaling", "version": "v1", "kind": "Scale"},
            {"name": "things", "singularName": "thing", "namespaced": true, "kind": "Thing",
                "verbs": ["get", "list"], "shortNames": ["th"], "categories": ["all"]}]});
        let new = json!({"items": [
            {"metadata": {"name": "other"}, "versions": [{"version": "v1", "resources": []}]},
            {"metadata": {"name": "g"}, "versions": [
                {"version": "v2", "resources": []},
                {"version": "v1", "resources": expected(), "freshness": "Current"}]}]});
        let old = legacy(old.to_string().as_bytes(), "g", "v1").unwrap();
        let new_resources = aggregated(new.to_string().as_bytes(), "g", "v1").unwrap();
        assert_eq!(serde_json::to_value(&old).unwrap(), expected());
        assert_eq!(old, new_resources);
        assert_eq!(aggregated(new.to_string().as_bytes(), "g", "v3").unwrap(), []);
        assert_eq!(aggregated(b"{}", "g", "v1").unwrap(), []);
    }

    proptest! {
        #[test]
        fn no_answer_panics(text in ".{0,60}", name in "[a-z/]{0,8}") {
            let around = json!({"resources": [{"name": name}, {"name": text}],
                "items": [{"metadata": {"name": "g"}, "versions": [{"version": "v1", "resources": text}]}]});
            for json in [text.clone(), around.to_string()] {
                legacy(json.as_bytes(), "g", "v1").ok();
                aggregated(json.as_bytes(), "g", "v1").ok();
            }
        }
    }
}
