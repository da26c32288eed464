//! The content of a namespace that other servers have: those that APIServices name. It is read from
//! their discovery and deleted object by object. While one of them cannot be asked, nobody knows what
//! it still has, and the namespace stays.

use client::{Api, Client, DeleteOptions, ListOptions};
use futures::StreamExt;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use rpc::api_v1 as pb;
use serde_json::Value;

use super::DELETIONS;
use super::plan::Others;
use crate::Error;
use crate::machinery::error::During;

/// Deletes it, and returns what remains.
pub async fn empty(client: &Client, namespace: &str) -> Result<Others, Error> {
    let services = Api::<APIService>::all(client).list(&ListOptions::default()).await;
    let services = services.during(|| "list APIServices".to_owned())?.items;
    let mut others = Others::default();
    for spec in services.into_iter().filter_map(|service| service.spec) {
        let (Some(_), Some(group), Some(version)) = (spec.service, spec.group, spec.version) else {
            continue;
        };
        let served = read(client, &format!("/apis/{group}/{version}")).await;
        let Ok(served) = served else {
            others.failing.push(format!("{group}/{version}"));
            continue;
        };
        for resource in deletable(&served) {
            let target = pb::Target {
                group: group.clone(),
                version: version.clone(),
                resource: resource.to_owned(),
                namespace: namespace.to_owned(),
                ..pb::Target::default()
            };
            let left = empty_resource(client, target).await?;
            if left > 0 {
                others.remaining.push((format!("{resource}.{group}"), left));
            }
        }
    }
    Ok(others)
}

async fn read(client: &Client, path: &str) -> Result<Value, Error> {
    let read = client.get_path(path, "application/json").await;
    let body = read.during(|| format!("read {path}"))?;
    serde_json::from_slice(&body).map_err(|error| Error::Invalid(format!("{path}: {error}")))
}

/// The resources whose objects are in namespaces and can be listed and deleted.
fn deletable(list: &Value) -> impl Iterator<Item = &str> {
    let resources = list["resources"].as_array().into_iter().flatten();
    resources.filter_map(|resource| {
        let name = resource["name"].as_str().filter(|name| !name.contains('/'))?;
        let verbs = resource["verbs"].as_array()?;
        let can = |verb: &str| verbs.iter().any(|known| known == verb);
        (resource["namespaced"] == true && can("list") && can("delete")).then_some(name)
    })
}

/// Deletes the objects of a resource, and counts those that are left.
async fn empty_resource(client: &Client, target: pb::Target) -> Result<usize, Error> {
    let pb::Target { group, version, namespace, resource, .. } = &target;
    let path = format!("/apis/{group}/{version}/namespaces/{namespace}/{resource}");
    let all = names(&read(client, &path).await?);
    if all.is_empty() {
        return Ok(0);
    }
    let deletions = all.into_iter().map(|name| {
        let target = pb::Target { name, ..target.clone() };
        async move {
            let options =
                DeleteOptions { propagation_policy: Some("Background"), ..Default::default() };
            match client.delete_object(target, &options).await {
                Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
                outcome => outcome.map(drop).during(|| "delete an object of a server".to_owned()),
            }
        }
    });
    let outcomes: Vec<_> =
        futures::stream::iter(deletions).buffer_unordered(DELETIONS).collect().await;
    outcomes.into_iter().collect::<Result<(), Error>>()?;
    Ok(names(&read(client, &path).await?).len())
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().into_iter().flatten();
    items.filter_map(|item| item["metadata"]["name"].as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_can_be_emptied_is() {
        let resource = |name: &str, namespaced: bool, verbs: &[&str]| json!({"name": name, "namespaced": namespaced, "verbs": verbs});
        let list = json!({"resources": [
            resource("things", true, &["get", "list", "delete"]),
            resource("things/status", true, &["get", "list", "delete"]),
            resource("racks", false, &["list", "delete"]),
            resource("readings", true, &["get", "list"]),
            resource("orders", true, &["create", "delete"]),
            {"name": "odd"}]});
        assert_eq!(deletable(&list).collect::<Vec<_>>(), ["things"]);
        assert_eq!(deletable(&json!(null)).count(), 0);
    }
}
