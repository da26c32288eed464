//! LimitRanger: defaults and bounds of a namespace's LimitRanges
//! (`k8s.io/kubernetes/plugin/pkg/admission/limitranger`).

use std::collections::{BTreeMap, BTreeSet};

use api::object::Object;
use api::pod::{Side, resources};
use api::quantity::Quantity;
use api::{ApiError, Kind};
use k8s_openapi::api::core::v1::{
    Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod, PodSpec,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::attributes::Attributes;
use crate::cache::Filter;
use crate::core::Call;

/// Annotation that lists what was defaulted.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

type Amounts = BTreeMap<String, Text>;

fn items(call: Call<'_>) -> Vec<LimitRangeItem> {
    let filter = Filter::everything(LimitRange::ROW, &call.target.namespace);
    let ranges = call.core.cache.resource(LimitRange::ROW).list(&filter);
    ranges
        .iter()
        .filter_map(|version| LimitRange::decode(&version.json).ok())
        .filter_map(|range| range.spec)
        .flat_map(|spec| spec.limits)
        .collect()
}

/// Fills in requests and limits that the containers of a new pod leave out, and records it in an
/// annotation.
///
/// # Errors
/// None.
pub fn complete(attributes: &Attributes<'_>, object: &mut dyn Object) -> Result<(), ApiError> {
    if attributes.old.is_none()
        && let Some(pod) = object.downcast_mut::<Pod>()
    {
        fill_pod(pod, &items(attributes.call));
    }
    Ok(())
}

fn fill_pod(pod: &mut Pod, items: &[LimitRangeItem]) {
    let Some(spec) = pod.spec.as_mut() else {
        return;
    };
    let mut filled = Vec::new();
    for (what, containers) in [
        ("container", spec.containers.as_mut_slice()),
        ("init container", spec.init_containers.as_deref_mut().unwrap_or_default()),
    ] {
        for container in containers {
            let mut names = (BTreeSet::new(), BTreeSet::new());
            for item in items.iter().filter(|item| item.type_ == "Container") {
                fill(container, item, &mut names);
            }
            for (names, side) in [(names.0, "request"), (names.1, "limit")] {
                if !names.is_empty() {
                    let names: Vec<String> = names.into_iter().collect();
                    filled.push(format!(
                        "{} {side} for {what} {}",
                        names.join(", "),
                        container.name
                    ));
                }
            }
        }
    }
    if !filled.is_empty() {
        let text = format!("LimitRanger plugin set: {}", filled.join("; "));
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(ANNOTATION.to_owned(), text);
    }
}

/// Collects the names of the requests and limits that it sets.
fn fill(
    container: &mut Container,
    item: &LimitRangeItem,
    set: &mut (BTreeSet<String>, BTreeSet<String>),
) {
    let resources = container.resources.get_or_insert_default();
    for (own, defaults, names) in [
        (&mut resources.limits, &item.default, &mut set.1),
        (&mut resources.requests, &item.default_request, &mut set.0),
    ] {
        for (name, amount) in defaults.iter().flatten() {
            own.get_or_insert_default().entry(name.clone()).or_insert_with(|| {
                names.insert(name.clone());
                amount.clone()
            });
        }
    }
}

/// Checks the minimums, maximums and ratios.
///
/// # Errors
/// 403 that lists every violation.
pub fn check(attributes: &Attributes<'_>, object: &dyn Object) -> Result<(), ApiError> {
    let mut problems = Vec::new();
    let (call, old) = (attributes.call, attributes.old_object());
    if let Some(pod) = object.downcast_ref::<Pod>() {
        // Only a resize changes what a pod uses.
        if old.is_some() && attributes.subresource.is_empty() {
            return Ok(());
        }
        check_pod(pod, &items(call), &mut problems);
    } else if let Some(claim) = object
        .downcast_ref::<PersistentVolumeClaim>()
        // A claim that is being deleted, or does not grow, is not checked again.
        .filter(|claim| claim.metadata.deletion_timestamp.is_none())
        .filter(|claim| {
            let old = old.and_then(|old| old.downcast_ref::<PersistentVolumeClaim>());
            old.is_none_or(|old| storage(old) != storage(claim))
        })
    {
        let requests = claim
            .spec
            .as_ref()
            .and_then(|spec| spec.resources.as_ref())
            .and_then(|resources| resources.requests.clone())
            .unwrap_or_default();
        for item in items(call).iter().filter(|item| item.type_ == "PersistentVolumeClaim") {
            bounds(item, &requests, &Amounts::new(), &mut problems);
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    let text =
        if problems.len() == 1 { problems.remove(0) } else { format!("[{}]", problems.join(", ")) };
    Err(attributes.forbidden(object, text))
}

fn storage(claim: &PersistentVolumeClaim) -> Option<&Amounts> {
    claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()
}

fn check_pod(pod: &Pod, items: &[LimitRangeItem], problems: &mut Vec<String>) {
    let Some(spec) = &pod.spec else { return };
    let whole = |side| -> Amounts {
        let sum = resources(&PodSpec { overhead: None, ..spec.clone() }, side);
        sum.into_iter().map(|(name, amount)| (name, amount.to_text())).collect()
    };
    for item in items {
        match item.type_.as_str() {
            "Container" => {
                for container in spec.containers.iter().chain(spec.init_containers.iter().flatten())
                {
                    let own = container.resources.clone().unwrap_or_default();
                    let (requests, limits) = (own.requests, own.limits);
                    bounds(
                        item,
                        &requests.unwrap_or_default(),
                        &limits.unwrap_or_default(),
                        problems,
                    );
                }
            }
            "Pod" => bounds(item, &whole(Side::Requests), &whole(Side::Limits), problems),
            _ => {}
        }
    }
}

fn bounds(item: &LimitRangeItem, requests: &Amounts, limits: &Amounts, problems: &mut Vec<String>) {
    let kind = item.type_.as_str();
    let get = |amounts: &Amounts, name: &str| amounts.get(name).map(Quantity::of);
    for (name, min) in item.min.iter().flatten() {
        let bound = Quantity::of(min);
        match (get(requests, name), get(limits, name)) {
            (None, _) => problems.push(format!(
                "minimum {name} usage per {kind} is {}.  No request is specified",
                min.0
            )),
            (Some(request), _) if request < bound => problems.push(format!(
                "minimum {name} usage per {kind} is {}, but request is {}",
                min.0,
                request.to_text().0
            )),
            (_, Some(limit)) if limit < bound => problems.push(format!(
                "minimum {name} usage per {kind} is {}, but limit is {}",
                min.0,
                limit.to_text().0
            )),
            _ => {}
        }
    }
    for (name, max) in item.max.iter().flatten() {
        let bound = Quantity::of(max);
        let claim = kind == "PersistentVolumeClaim";
        match (get(requests, name), get(limits, name)) {
            (_, None) if !claim => problems.push(format!(
                "maximum {name} usage per {kind} is {}.  No limit is specified",
                max.0
            )),
            (_, Some(limit)) if limit > bound => problems.push(format!(
                "maximum {name} usage per {kind} is {}, but limit is {}",
                max.0,
                limit.to_text().0
            )),
            (Some(request), _) if request > bound => problems.push(format!(
                "maximum {name} usage per {kind} is {}, but request is {}",
                max.0,
                request.to_text().0
            )),
            (None, _) if claim => problems.push(format!(
                "maximum {name} usage per {kind} is {}.  No request is specified",
                max.0
            )),
            _ => {}
        }
    }
    for (name, ratio) in item.max_limit_request_ratio.iter().flatten() {
        let some = |amounts: &Amounts| get(amounts, name).filter(|amount| !amount.is_zero());
        let text = format!("{name} max limit to request ratio per {kind} is {}", ratio.0);
        match (some(requests), some(limits)) {
            (None, _) => {
                problems.push(format!("{text}, but no request is specified or request is 0"))
            }
            (_, None) => problems.push(format!("{text}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let (request, limit) = (request.millis() as f64, limit.millis() as f64);
                let actual = limit / request.max(1.0);
                if actual > Quantity::of(ratio).millis() as f64 / 1_000.0 {
                    problems.push(format!("{text}, but provided ratio is {actual:.6}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn item(json: Value) -> LimitRangeItem {
        let range = json!({"spec": {"limits": [json]}}).to_string();
        let range = LimitRange::decode(range.as_bytes()).unwrap();
        range.spec.unwrap().limits.remove(0)
    }

    fn pod(containers: Value) -> Pod {
        let json = json!({"spec": {"containers": containers, "initContainers": [{"name": "i"}]}});
        Pod::decode(json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn missing_resources_are_defaulted_and_annotated() {
        let item = item(
            json!({"type": "Container", "default": {"cpu": "1", "memory": "2Gi"}, "defaultRequest": {"cpu": "1"}}),
        );
        let mut pod = pod(json!([{"name": "a", "resources": {"limits": {"cpu": "2"}}}]));
        fill_pod(&mut pod, &[item]);
        assert_eq!(
            pod.metadata.annotations.unwrap()[ANNOTATION],
            "LimitRanger plugin set: cpu request for container a; memory limit for container a; \
             cpu request for init container i; cpu, memory limit for init container i"
        );
        let resources = pod.spec.unwrap().containers.remove(0).resources.unwrap();
        assert_eq!(resources.limits.unwrap()["cpu"].0, "2");
    }

    #[test]
    fn violations_are_worded_as_kubernetes_words_them() {
        let small = json!([{"name": "a", "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "300m"}}}]);
        for (limits, problems) in [
            (
                json!({"type": "Container", "max": {"cpu": "1"}}),
                vec!["maximum cpu usage per Container is 1.  No limit is specified"],
            ),
            (
                json!({"type": "Pod", "min": {"cpu": "200m"}, "max": {"cpu": "250m"}}),
                vec![
                    "minimum cpu usage per Pod is 200m, but request is 100m",
                    "maximum cpu usage per Pod is 250m, but limit is 300m",
                ],
            ),
            (
                json!({"type": "Pod", "min": {"memory": "1Gi"}}),
                vec!["minimum memory usage per Pod is 1Gi.  No request is specified"],
            ),
            (
                json!({"type": "Pod", "maxLimitRequestRatio": {"cpu": "2"}}),
                vec!["cpu max limit to request ratio per Pod is 2, but provided ratio is 3.000000"],
            ),
            (
                json!({"type": "Pod", "maxLimitRequestRatio": {"memory": "2"}}),
                vec![
                    "memory max limit to request ratio per Pod is 2, but no request is specified or request is 0",
                ],
            ),
            (json!({"type": "Pod", "max": {"cpu": "1"}}), vec![]),
        ] {
            let mut found = Vec::new();
            check_pod(&pod(small.clone()), &[item(limits)], &mut found);
            assert_eq!(found, problems);
        }
    }
}
