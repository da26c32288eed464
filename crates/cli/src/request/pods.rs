//! The pods of a workload: `deploy/web`, `svc/web` or `job/x` where a pod is expected.

use anyhow::{Context, bail};
use api::labels::Selector;
use client::Client;
use k8s_openapi::api::core::v1::Pod;
use rpc::api_v1::ListRequest;
use serde_json::Value;

use crate::discovery::Resources;
use crate::request::selection::ObjectReference;
use crate::request::stream::pod_target;

/// Annotation of a Deployment and its ReplicaSets with their revision.
pub const REVISION: &str = "deployment.kubernetes.io/revision";

/// Pods by label selector, ready ones first, then the oldest.
pub async fn pods_by_selector(
    client: &Client,
    namespace: &str,
    selector: &str,
) -> anyhow::Result<Vec<Pod>> {
    let request = ListRequest {
        target: Some(pod_target(namespace, "", "")),
        label_selector: selector.to_owned(),
        ..Default::default()
    };
    let (objects, _) = client.list_objects(request).await?;
    let mut pods: Vec<Pod> =
        objects.iter().map(|object| api::Kind::decode(&object.json)).collect::<Result<_, _>>()?;
    pods.sort_by_key(|pod| {
        let ready = api::pod::condition_is_true(pod, "Ready");
        (!ready, pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
    });
    Ok(pods)
}

/// The label selector of a workload or Service, as text.
pub fn selector_of(object: &Value) -> anyhow::Result<String> {
    let spec = &object["spec"]["selector"];
    let structured = !spec["matchLabels"].is_null() || !spec["matchExpressions"].is_null();
    let selector = if structured {
        let text = serde_json::to_vec(spec)?;
        let selector =
            api::labels::decode_label_selector(&text).context("the object's selector")?;
        Selector::from_label_selector(Some(&selector))?
    } else {
        let labels = spec.as_object().context("the object has no selector for pods")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Selector::from_map(&labels.iter().map(|(key, value)| (key.clone(), text(value))).collect())
    };
    if selector.is_everything() {
        bail!("the object has no selector for pods");
    }
    Ok(selector.to_string())
}

/// All pods of an object: the pod itself, or those that the object's selector matches.
pub async fn pods_of(client: &Client, named: &ObjectReference<'_>) -> anyhow::Result<Vec<Pod>> {
    let object = client.get_object(named.target("")).await?;
    if named.resource.kind == "Pod" {
        return Ok(vec![api::Kind::decode(&object.json)?]);
    }
    let object: Value = serde_json::from_slice(&object.json)?;
    let pods = pods_by_selector(client, &named.namespace, &selector_of(&object)?).await?;
    if pods.is_empty() {
        bail!("{} has no pods", named.path());
    }
    Ok(pods)
}

/// The object that an argument names: `web-0`, `pod/web-0`, `deploy/web`; a bare name is a pod.
pub fn object_reference<'a>(
    client: &Client,
    resources: &'a Resources,
    word: &str,
) -> anyhow::Result<ObjectReference<'a>> {
    let (kind, name) = word.split_once('/').unwrap_or(("pods", word));
    let resource = resources.find(kind)?;
    Ok(ObjectReference {
        resource,
        namespace: client.default_namespace().to_owned(),
        name: name.to_owned(),
        source: None,
    })
}

/// The container to use when none is named: the annotated default, else the first.
pub fn annotated_or_first_container(pod: &Pod) -> anyhow::Result<String> {
    let annotations = pod.metadata.annotations.as_ref();
    let default = annotations
        .and_then(|annotations| annotations.get("kubectl.kubernetes.io/default-container"));
    if let Some(name) = default {
        return Ok(name.clone());
    }
    let spec = pod.spec.as_ref();
    let first = spec.and_then(|spec| spec.containers.first());
    Ok(first.context("the pod has no containers")?.name.clone())
}

/// As [`annotated_or_first_container`]; prints which one it is when there are others.
pub fn default_container(pod: &Pod) -> anyhow::Result<String> {
    let name = annotated_or_first_container(pod)?;
    let annotated = pod.metadata.annotations.as_ref().is_some_and(|annotations| {
        annotations.contains_key("kubectl.kubernetes.io/default-container")
    });
    let spec = pod.spec.as_ref();
    let own = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let init = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    if own.len() + init.len() > 1 && !annotated {
        let mut names: Vec<String> = own.iter().map(|one| one.name.clone()).collect();
        names.extend(init.iter().map(|one| format!("{} (init)", one.name)));
        eprintln!("Defaulted container {name:?} out of: {}", names.join(", "));
    }
    Ok(name)
}

/// Names of all containers: init, regular, ephemeral.
pub fn containers(pod: &Pod) -> Vec<String> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let init = spec.init_containers.iter().flatten().map(|container| container.name.clone());
    let regular = spec.containers.iter().map(|container| container.name.clone());
    let ephemeral =
        spec.ephemeral_containers.iter().flatten().map(|container| container.name.clone());
    init.chain(regular).chain(ephemeral).collect()
}

pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// Whether the container has ended, once it has started; `statuses` is the list that it is in.
pub fn container_started(
    pod: Option<&Value>,
    statuses: &str,
    container: &str,
) -> anyhow::Result<Option<bool>> {
    let state = container_state(pod, statuses, container)?;
    Ok(if state["running"].is_object() {
        Some(false)
    } else {
        state["terminated"].is_object().then_some(true)
    })
}

/// The `state` of a container; null when the pod does not report it.
pub fn container_state(
    pod: Option<&Value>,
    statuses: &str,
    container: &str,
) -> anyhow::Result<Value> {
    let pod = pod.context("the pod has been deleted")?;
    let status = pod["status"][statuses]
        .as_array()
        .into_iter()
        .flatten()
        .find(|status| status["name"] == container);
    Ok(status.map(|status| status["state"].clone()).unwrap_or_default())
}
