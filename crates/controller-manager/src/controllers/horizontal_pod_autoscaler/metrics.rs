//! Reading of metrics: those of resources from `metrics.k8s.io`, others from the groups of
//! adapters, if there are any.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::quantity::Quantity;
use client::Client;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{MetricIdentifier, MetricSpec};
use k8s_openapi::api::core::v1::Pod;
use rpc::api_v1::{ListRequest, Target};
use serde_json::Value;

use super::replicas::{PodValue, PodValues};
use crate::machinery::cache::Key;

const CUSTOM: &str = "/apis/custom.metrics.k8s.io";
/// The versions that are known here, the better one first. They differ in how they name the metric.
const CUSTOM_VERSIONS: [&str; 2] = ["v1beta2", "v1beta1"];
const EXTERNAL: &str = "/apis/external.metrics.k8s.io/v1beta1";

/// What a metric is at the moment, in thousandths; or why that is not known.
pub type Reading = Result<Values, String>;

#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// By pod.
    Pods(PodValues),
    /// One for all.
    Sum(i64),
}

/// Reads a metric.
pub async fn read(
    client: &Client,
    key: &Key,
    metric: &MetricSpec,
    selector: &str,
    pods: &[Arc<Pod>],
) -> Reading {
    let namespace = &key.namespace;
    if let Some(resource) = &metric.resource {
        return of_resources(client, namespace, selector, (&resource.name, None), pods).await;
    }
    if let Some(resource) = &metric.container_resource {
        let wanted = (resource.name.as_str(), Some(resource.container.as_str()));
        return of_resources(client, namespace, selector, wanted, pods).await;
    }
    if let Some(source) = &metric.pods {
        let path = format!("namespaces/{namespace}/pods/*/{}", source.metric.name);
        let path = format!("{path}?labelSelector={}", escaped(selector));
        let items =
            custom(client, &with_selector(path, "&metricLabelSelector", &source.metric)).await?;
        return Ok(Values::Pods(items.iter().filter_map(pod_value).collect()));
    }
    if let Some(source) = &metric.object {
        let object = &source.described_object;
        let resource = plural(&object.kind);
        let path = match &*object.kind {
            "Namespace" => format!("namespaces/{}/metrics", object.name),
            _ => format!("namespaces/{namespace}/{resource}/{}", object.name),
        };
        let path = format!("{path}/{}", source.metric.name);
        let items =
            custom(client, &with_selector(path, "?metricLabelSelector", &source.metric)).await?;
        let first = items.first().and_then(|item| millis(&item["value"]));
        return first
            .map(Values::Sum)
            .ok_or_else(|| "no metrics returned from custom metrics API".to_owned());
    }
    if let Some(source) = &metric.external {
        let path = format!("{EXTERNAL}/namespaces/{namespace}/{}", source.metric.name);
        let path = with_selector(path, "?labelSelector", &source.metric);
        let items = items(client, &path).await.map_err(|error| {
            format!("unable to fetch metrics from external metrics API: {error} (get {}.external.metrics.k8s.io)", source.metric.name)
        })?;
        if items.is_empty() {
            return Err("no metrics returned from external metrics API".to_owned());
        }
        return Ok(Values::Sum(items.iter().filter_map(|item| millis(&item["value"])).sum()));
    }
    Err(format!("unknown metric source type {:?}", metric.type_))
}

/// What pods use of a resource, altogether or in one container.
async fn of_resources(
    client: &Client,
    namespace: &str,
    selector: &str,
    wanted: (&str, Option<&str>),
    pods: &[Arc<Pod>],
) -> Reading {
    let target = Target {
        group: api::metrics::GROUP.to_owned(),
        version: "v1beta1".to_owned(),
        resource: "pods".to_owned(),
        namespace: namespace.to_owned(),
        ..Target::default()
    };
    let label_selector = selector.to_owned();
    let request = ListRequest { target: Some(target), label_selector, ..ListRequest::default() };
    let (listed, _) = client
        .list_objects(request)
        .await
        .map_err(|error| format!("unable to fetch metrics from resource metrics API: {error}"))?;
    if listed.is_empty() {
        return Err("no metrics returned from resource metrics API".to_owned());
    }
    let there = |name: &str| pods.iter().any(|pod| pod.metadata.name.as_deref() == Some(name));
    let mut values = BTreeMap::new();
    for item in &listed {
        let Ok(item) = serde_json::from_slice::<Value>(&item.json) else { continue };
        let name = item["metadata"]["name"].as_str().unwrap_or_default();
        if let Some(value) = of_pod(&item, name, wanted)?.filter(|_| there(name)) {
            values.insert(name.to_owned(), value);
        }
    }
    Ok(Values::Pods(values))
}

/// The value of one pod; `None` if a container has none.
fn of_pod(
    item: &Value,
    name: &str,
    (resource, container): (&str, Option<&str>),
) -> Result<Option<PodValue>, String> {
    let mut containers = item["containers"].as_array().into_iter().flatten();
    let amount = |one: &Value| millis(&one["usage"][resource]);
    let value = match container {
        None => containers.map(amount).sum::<Option<i64>>(),
        Some(wanted) => {
            let found = containers.find(|one| one["name"] == wanted);
            amount(found.ok_or_else(|| {
                format!("container {wanted} not present in metrics for pod {name}")
            })?)
        }
    };
    let time = item["timestamp"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let window = item["window"].as_str().and_then(|text| api::duration::parse(text).ok());
    Ok(value.zip(time).map(|(value, time)| PodValue {
        value,
        time,
        window: window.unwrap_or_default(),
    }))
}

fn millis(value: &Value) -> Option<i64> {
    value.as_str()?.parse::<Quantity>().ok().map(Quantity::millis)
}

/// A value of the custom metrics API for a pod.
fn pod_value(item: &Value) -> Option<(String, PodValue)> {
    let name = item["describedObject"]["name"].as_str()?.to_owned();
    let time = item["timestamp"].as_str()?.parse().ok()?;
    let window = item["windowSeconds"].as_u64().unwrap_or(60);
    let window = std::time::Duration::from_secs(window);
    Some((name, PodValue { value: millis(&item["value"])?, time, window }))
}

/// Reads a path of the custom metrics API, in a version that is served.
async fn custom(client: &Client, path: &str) -> Result<Vec<Value>, String> {
    let failed =
        |error: String| format!("unable to fetch metrics from custom metrics API: {error}");
    let group = match client.get_path(CUSTOM, "application/json").await {
        Ok(body) => serde_json::from_slice(&body).unwrap_or_default(),
        Err(error) if error.is_not_found() => Value::Null,
        Err(error) => return Err(failed(error.to_string())),
    };
    let version = served_version(&group).ok_or_else(|| {
        failed("no custom metrics API (custom.metrics.k8s.io) registered".to_owned())
    })?;
    items(client, &format!("{CUSTOM}/{version}/{path}")).await.map_err(failed)
}

/// The version that a group prefers, or else any other, of those that are known here.
fn served_version(group: &Value) -> Option<&'static str> {
    let known = |name: &Value| CUSTOM_VERSIONS.into_iter().find(|known| name == known);
    let served = group["versions"].as_array().into_iter().flatten();
    let served: Vec<_> = served.filter_map(|one| known(&one["version"])).collect();
    let preferred = known(&group["preferredVersion"]["version"]);
    preferred.or_else(|| CUSTOM_VERSIONS.into_iter().find(|known| served.contains(known)))
}

async fn items(client: &Client, path: &str) -> Result<Vec<Value>, String> {
    let body =
        client.get_path(path, "application/json").await.map_err(|error| error.to_string())?;
    let list: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

fn with_selector(path: String, parameter: &str, metric: &MetricIdentifier) -> String {
    let selector = api::labels::Selector::from_label_selector(metric.selector.as_ref());
    match selector {
        Ok(selector) if metric.selector.is_some() => {
            format!("{path}{parameter}={}", escaped(&selector.to_string()))
        }
        _ => path,
    }
}

/// `services` of `Service`, as adapters name resources.
fn plural(kind: &str) -> String {
    let rows = api::kind::KINDS.iter();
    let known = rows.copied().find(|row| row.kind == kind);
    known.map_or_else(|| format!("{}s", kind.to_lowercase()), |row| row.plural.to_string())
}

fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let one = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_preferred_version_is_taken_if_it_is_known() {
        let group = |preferred: &str, versions: &[&str]| {
            let versions: Vec<_> =
                versions.iter().map(|version| json!({"version": version})).collect();
            json!({"versions": versions, "preferredVersion": {"version": preferred}})
        };
        let table = [
            (group("v1beta1", &["v1beta1", "v1beta2"]), Some("v1beta1")),
            (group("v1", &["v1", "v1beta1", "v1beta2"]), Some("v1beta2")),
            (group("v1", &["v1", "v1beta1"]), Some("v1beta1")),
            (group("v1", &["v1"]), None),
            (json!(null), None),
        ];
        for (group, version) in table {
            assert_eq!(served_version(&group), version, "{group}");
        }
    }
}
