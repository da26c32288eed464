//! PodNodeSelector: the nodes that the pods of a namespace may be on
//! (`k8s.io/kubernetes/plugin/pkg/admission/podnodeselector`).

use std::collections::BTreeMap;

use api::object::Object;
use api::{ApiError, Kind, names};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use serde::Deserialize;

use super::attributes::{Attributes, typed};
use crate::configuration::Unusable;
use crate::scan;

const ANNOTATION: &str = "scheduler.alpha.kubernetes.io/node-selector";
/// The member of the configuration for namespaces without the annotation.
const DEFAULT: &str = "clusterDefaultNodeSelector";
const CONFLICT: &str = "pod node label selector conflicts with its namespace node label selector";

type Labels = BTreeMap<String, String>;

/// What the plugin is told: the default selector, and by namespace what its pods may select.
#[derive(Debug, Default)]
pub struct NodeSelectors(BTreeMap<String, Labels>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    #[serde(default)]
    pod_node_selector_plugin_config: BTreeMap<String, String>,
}

/// Decodes what the plugin is told. It has no version, as upstream.
///
/// # Errors
/// What is wrong with it.
pub fn configured(text: &str) -> Result<NodeSelectors, Unusable> {
    let decoded = serde_saphyr::from_str::<Configuration>(text);
    let decoded = decoded.map_err(|error| error.to_string())?;
    let mut selectors = BTreeMap::new();
    for (name, text) in decoded.pod_node_selector_plugin_config {
        let labels = labels(&text).map_err(|why| format!("{name}: {why}"))?;
        selectors.insert(name, labels);
    }
    Ok(NodeSelectors(selectors))
}

/// Adds the namespace's labels to the pod's selector.
///
/// # Errors
/// 403 when they conflict, or the namespace's pods may not select that.
pub async fn complete(
    attributes: &Attributes<'_>,
    object: &mut dyn Object,
) -> Result<(), ApiError> {
    let own = of_namespace(attributes).await?;
    let Some(pod) = object.downcast_mut::<Pod>() else {
        return Ok(());
    };
    let mut merged = selector(pod);
    if conflict(&own, &merged) {
        return Err(refusal(attributes, pod, CONFLICT));
    }
    merged.extend(own);
    pod.spec.get_or_insert_default().node_selector = (!merged.is_empty()).then_some(merged);
    check_allowed(attributes, pod)
}

/// Checks that nobody has changed the selector since.
///
/// # Errors
/// 403 when it conflicts with the namespace's.
pub async fn check(
    attributes: &Attributes<'_>,
    object: Option<&dyn Object>,
) -> Result<(), ApiError> {
    let own = of_namespace(attributes).await?;
    let Some(pod) = typed::<Pod>(object) else {
        return Ok(());
    };
    if conflict(&own, &selector(pod)) {
        return Err(refusal(attributes, pod, CONFLICT));
    }
    check_allowed(attributes, pod)
}

fn check_allowed(attributes: &Attributes<'_>, pod: &Pod) -> Result<(), ApiError> {
    let NodeSelectors(all) = &attributes.call.core.admission.settings.node_selectors;
    let allowed = all.get(&attributes.call.target.namespace).filter(|allowed| !allowed.is_empty());
    let is_allowed = allowed.is_none_or(|allowed| {
        selector(pod).iter().all(|(key, value)| allowed.get(key) == Some(value))
    });
    if is_allowed {
        return Ok(());
    }
    let why = "pod node label selector labels conflict with its namespace whitelist";
    Err(refusal(attributes, pod, why))
}

fn refusal(attributes: &Attributes<'_>, pod: &Pod, why: &str) -> ApiError {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    ApiError::forbidden(attributes.call.row(), name, why)
}

fn selector(pod: &Pod) -> Labels {
    let selector = pod.spec.as_ref().and_then(|spec| spec.node_selector.clone());
    selector.unwrap_or_default()
}

fn conflict(left: &Labels, right: &Labels) -> bool {
    left.iter().any(|(key, value)| right.get(key).is_some_and(|other| other != value))
}

/// The selector of the request's namespace, or the default one.
async fn of_namespace(attributes: &Attributes<'_>) -> Result<Labels, ApiError> {
    let (core, name) = (attributes.call.core, &attributes.call.target.namespace);
    let namespace = core.find(Namespace::ROW, name).await?;
    let namespace =
        namespace.ok_or_else(|| ApiError::internal(format!("namespace {name} does not exist")))?;
    let annotations = scan::at_path(&namespace.json, "metadata.annotations").unwrap_or(b"{}");
    let annotations: BTreeMap<String, String> =
        serde_json::from_slice(annotations).map_err(ApiError::internal)?;
    match annotations.get(ANNOTATION) {
        // As upstream, an error without a reason of its own.
        Some(text) => labels(text).map_err(|why| ApiError::new(500, "", why)),
        None => {
            let NodeSelectors(all) = &core.admission.settings.node_selectors;
            Ok(all.get(DEFAULT).cloned().unwrap_or_default())
        }
    }
}

/// `a=b,c=d`
fn labels(text: &str) -> Result<Labels, String> {
    if text.is_empty() {
        return Ok(Labels::new());
    }
    let label = |text: &str| {
        let parts: Vec<&str> = text.split('=').collect();
        let [key, value] = parts[..] else {
            return Err(format!("invalid selector: [{}]", parts.join(" ")));
        };
        let (key, value) = (key.trim(), value.trim());
        let mut problems = names::qualified_name(key);
        problems.extend(names::label_value(value));
        match problems.is_empty() {
            true => Ok((key.to_owned(), value.to_owned())),
            false => Err(format!("invalid selector: {}", problems.join("; "))),
        }
    };
    text.split(',').map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_lists_of_labels() {
        let text = |labels: Labels| {
            labels.iter().map(|(key, value)| format!("{key}:{value}")).collect::<Vec<_>>().join(" ")
        };
        for (given, expected) in [
            ("", Ok("")),
            ("a=b, c = d", Ok("a:b c:d")),
            ("a=", Ok("a:")),
            ("a", Err("invalid selector: [a]")),
            ("a=b=c", Err("invalid selector: [a b c]")),
            ("a=b,", Err("invalid selector: []")),
        ] {
            let read = labels(given).map(text);
            assert_eq!(read.as_deref().map_err(String::as_str), expected, "{given}");
        }
        assert!(labels("a b=c").unwrap_err().starts_with("invalid selector: name part must"));
    }
}
