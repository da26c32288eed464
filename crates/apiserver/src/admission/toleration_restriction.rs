//! PodTolerationRestriction: which taints the pods of a namespace tolerate, and may tolerate; and
//! ExtendedResourceToleration
//! (`k8s.io/kubernetes/plugin/pkg/admission/{podtolerationrestriction,extendedresourcetoleration}`).

use std::collections::{BTreeMap, BTreeSet};

use api::object::Object;
use api::{ApiError, Kind};
use k8s_openapi::api::core::v1::{Namespace, Pod, Toleration};
use serde::Deserialize;

use super::attributes::{Attributes, typed};
use super::configuration::decode;
use crate::configuration::{Unusable, aggregate};
use crate::kinds::at::At;
use crate::kinds::pod_spec;
use crate::scan;

const DEFAULTS: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const ALLOWED: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";
const MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";
const KINDS: &[(&str, &str)] =
    &[("podtolerationrestriction.admission.k8s.io/v1alpha1", "Configuration")];

/// What namespaces without annotations get.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterTolerations {
    default: Vec<Toleration>,
    whitelist: Vec<Toleration>,
}

/// Decodes what the plugin is told.
///
/// # Errors
/// What is wrong with it.
pub fn configured(text: &str) -> Result<ClusterTolerations, Unusable> {
    let decoded: ClusterTolerations = decode(text, KINDS)?;
    let errors = At::object(|at| {
        pod_spec::tolerations(&decoded.default, &at.child("default"));
        pod_spec::tolerations(&decoded.whitelist, &at.child("whitelist"));
    });
    match aggregate(&errors) {
        Some(problem) => Err(Unusable(problem)),
        None => Ok(decoded),
    }
}

/// Adds the tolerations of the namespace to a new pod, and one for memory pressure to a pod that
/// has resources of its own.
///
/// # Errors
/// 500 when the pod tolerates what it may not, as upstream.
pub async fn complete(
    attributes: &Attributes<'_>,
    object: &mut dyn Object,
) -> Result<(), ApiError> {
    let mut extra = Vec::new();
    if attributes.old.is_none() {
        let given = of_namespace(attributes, DEFAULTS).await?;
        let cluster = &attributes.call.core.admission.settings.tolerations.default;
        extra = given.unwrap_or_else(|| cluster.clone());
    }
    if let Some(spec) = object.downcast_mut::<Pod>().and_then(|pod| pod.spec.as_mut()) {
        if api::pod::qos_class(spec) != "BestEffort" {
            extra.push(toleration(MEMORY_PRESSURE));
        }
        if !extra.is_empty() {
            let own = spec.tolerations.take().unwrap_or_default();
            spec.tolerations = Some(merged([own, extra].concat()));
        }
    }
    check(attributes, Some(object)).await
}

/// Checks that the pod tolerates only what its namespace allows.
///
/// # Errors
/// 500 when it tolerates more, as upstream.
pub async fn check(
    attributes: &Attributes<'_>,
    object: Option<&dyn Object>,
) -> Result<(), ApiError> {
    let spec = typed::<Pod>(object).and_then(|pod| pod.spec.as_ref());
    let own = spec.and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    if own.is_empty() {
        return Ok(());
    }
    let given = of_namespace(attributes, ALLOWED).await?;
    let cluster = &attributes.call.core.admission.settings.tolerations.whitelist;
    let allowed = given.as_deref().unwrap_or(cluster);
    let is_allowed = |own: &Toleration| allowed.iter().any(|allowed| covers(allowed, own));
    if allowed.is_empty() || own.iter().all(is_allowed) {
        return Ok(());
    }
    let why = "pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace whitelist";
    Err(ApiError::new(500, "", why))
}

/// Tolerates the taints by which nodes with extended resources are kept for pods that use them.
///
/// # Errors
/// None.
pub fn of_extended_resources(_: &Attributes<'_>, object: &mut dyn Object) -> Result<(), ApiError> {
    let Some(spec) = object.downcast_mut::<Pod>().and_then(|pod| pod.spec.as_mut()) else {
        return Ok(());
    };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let requests =
        containers.filter_map(|container| container.resources.as_ref()?.requests.as_ref());
    let names: BTreeSet<String> = requests
        .flat_map(BTreeMap::keys)
        .filter(|name| api::pod::is_extended_resource(name))
        .cloned()
        .collect();
    for name in names {
        let wanted = toleration(&name);
        let tolerations = spec.tolerations.get_or_insert_default();
        let same = |own: &&mut Toleration| {
            (&own.key, &own.effect, &own.operator, own.value.as_deref().unwrap_or_default())
                == (&wanted.key, &wanted.effect, &wanted.operator, "")
        };
        match tolerations.iter_mut().find(same) {
            Some(own) => *own = wanted,
            None => tolerations.push(wanted),
        }
    }
    Ok(())
}

fn toleration(key: &str) -> Toleration {
    Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some("NoSchedule".to_owned()),
        ..Toleration::default()
    }
}

/// The tolerations in an annotation of the namespace; `None`: it has none.
async fn of_namespace(
    attributes: &Attributes<'_>,
    annotation: &str,
) -> Result<Option<Vec<Toleration>>, ApiError> {
    let (core, name) = (attributes.call.core, &attributes.call.target.namespace);
    let namespace = core.find(Namespace::ROW, name).await?;
    let namespace = namespace.ok_or_else(|| ApiError::not_found(Namespace::ROW, name))?;
    let annotations = scan::at_path(&namespace.json, "metadata.annotations").unwrap_or(b"{}");
    let annotations: BTreeMap<String, String> =
        serde_json::from_slice(annotations).map_err(ApiError::internal)?;
    match annotations.get(annotation).map(String::as_str) {
        None => Ok(None),
        Some("") => Ok(Some(Vec::new())),
        Some(text) => {
            let read: Result<Option<Vec<Toleration>>, _> = serde_json::from_str(text);
            let read = read.map_err(|error| ApiError::new(500, "", error.to_string()))?;
            Ok(Some(read.unwrap_or_default()))
        }
    }
}

/// Without those that another one covers; of equal ones the first is kept.
fn merged(all: Vec<Toleration>) -> Vec<Toleration> {
    let mut merged: Vec<Toleration> = Vec::new();
    for (index, own) in all.iter().enumerate() {
        let later = all[index + 1..].iter().any(|other| other != own && covers(other, own));
        if !later && !merged.iter().any(|kept| covers(kept, own)) {
            merged.push(own.clone());
        }
    }
    merged
}

/// Whether one tolerates whatever the other does.
fn covers(more: &Toleration, less: &Toleration) -> bool {
    let text = |text: &'_ Option<String>| text.clone().unwrap_or_default();
    let (operator, effect) = (text(&more.operator), text(&more.effect));
    if more == less {
        return true;
    }
    let every_key = text(&more.key).is_empty() && operator == "Exists";
    if text(&more.key) != text(&less.key) && !every_key {
        return false;
    }
    if effect != text(&less.effect) && !effect.is_empty() {
        return false;
    }
    let is_shorter = more
        .toleration_seconds
        .is_some_and(|most| less.toleration_seconds.is_none_or(|seconds| seconds > most));
    if effect == "NoExecute" && is_shorter {
        return false;
    }
    match operator.as_str() {
        "Equal" | "" => text(&less.operator) == "Equal" && text(&more.value) == text(&less.value),
        "Exists" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Toleration {
        let mut parts = text.split_whitespace();
        let mut next = || parts.next().filter(|part| *part != "-").map(str::to_owned);
        let (key, operator, value, effect) = (next(), next(), next(), next());
        let toleration_seconds = next().map(|seconds| seconds.parse().unwrap());
        Toleration { key, operator, value, effect, toleration_seconds }
    }

    #[test]
    fn some_tolerations_cover_others() {
        for (more, less, expected) in [
            ("a Exists - NoExecute", "a Exists - NoExecute", true),
            ("a Exists - -", "a Equal v NoExecute", true),
            ("a Exists - NoSchedule", "a Equal v NoExecute", false),
            ("- Exists - -", "b Equal v NoExecute", true),
            ("- Equal - -", "b Equal - NoExecute", false),
            ("a Equal v -", "a Equal v NoSchedule", true),
            ("a - v -", "a Equal v NoSchedule", true),
            ("a - v -", "a - v NoSchedule", false),
            ("a Equal w -", "a Equal v NoSchedule", false),
            ("a Exists - NoExecute 30", "a Exists - NoExecute 20", true),
            ("a Exists - NoExecute 30", "a Exists - NoExecute 40", false),
            ("a Exists - NoExecute 30", "a Exists - NoExecute", false),
            ("a Exists - NoSchedule 30", "a Exists - NoSchedule", true),
            ("a Gt 3 NoSchedule", "a Equal 3 NoSchedule", false),
        ] {
            assert_eq!(covers(&parsed(more), &parsed(less)), expected, "{more} of {less}");
        }
    }

    #[test]
    fn merging_drops_what_others_cover() {
        let all = ["a Equal v -", "b Exists - -", "a Exists - -", "b Exists - -", "c Equal v -"];
        let kept: Vec<Toleration> = merged(all.into_iter().map(parsed).collect());
        let expected: Vec<Toleration> =
            ["b Exists - -", "a Exists - -", "c Equal v -"].into_iter().map(parsed).collect();
        assert_eq!(kept, expected);
    }
}
