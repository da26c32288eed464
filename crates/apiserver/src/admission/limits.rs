//! LimitRanger: defaults and bounds of a namespace's LimitRanges
//! (`k8s.io/kubernetes/plugin/pkg/admission/limitranger`).

use std::collections::BTreeMap;

use api::object::Object;
use api::quantity::Quantity;
use api::{ApiError, Kind};
use k8s_openapi::api::core::v1::{
    Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use crate::cache::Filter;
use crate::core::Call;

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

/// Fills requests and limits that containers leave out.
///
/// # Errors
/// None today; the signature is that of the other plugins.
pub fn complete(call: Call<'_>, pod: &mut Pod) -> Result<(), ApiError> {
    let Some(spec) = pod.spec.as_mut() else {
        return Ok(());
    };
    for item in items(call).iter().filter(|item| item.type_ == "Container") {
        let init = spec.init_containers.iter_mut().flatten();
        for container in init.chain(spec.containers.iter_mut()) {
            fill(container, item);
        }
    }
    Ok(())
}

fn fill(container: &mut Container, item: &LimitRangeItem) {
    let resources = container.resources.get_or_insert_default();
    for (name, amount) in item.default.iter().flatten() {
        resources
            .limits
            .get_or_insert_default()
            .entry(name.clone())
            .or_insert_with(|| amount.clone());
    }
    for (name, amount) in item.default_request.iter().flatten() {
        resources
            .requests
            .get_or_insert_default()
            .entry(name.clone())
            .or_insert_with(|| amount.clone());
    }
}

/// Checks the bounds.
///
/// # Errors
/// 403 that names every bound that is broken.
pub fn check(call: Call<'_>, object: &dyn Object) -> Result<(), ApiError> {
    let mut problems = Vec::new();
    if let Some(pod) = object.downcast_ref::<Pod>() {
        check_pod(pod, &items(call), &mut problems);
    } else if let Some(claim) = object.downcast_ref::<PersistentVolumeClaim>() {
        let requests = claim
            .spec
            .as_ref()
            .and_then(|spec| spec.resources.as_ref())
            .and_then(|resources| resources.requests.clone())
            .unwrap_or_default();
        for item in items(call)
            .iter()
            .filter(|item| item.type_ == "PersistentVolumeClaim")
        {
            bounds(item, &requests, &Amounts::new(), &mut problems);
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    let text = if problems.len() == 1 {
        problems.remove(0)
    } else {
        format!("[{}]", problems.join(", "))
    };
    let name = object.metadata().name.as_deref().unwrap_or_default();
    Err(ApiError::forbidden(call.row(), name, text))
}

fn check_pod(pod: &Pod, items: &[LimitRangeItem], problems: &mut Vec<String>) {
    let Some(spec) = &pod.spec else { return };
    let amounts = |container: &Container| {
        let resources = container.resources.clone().unwrap_or_default();
        (
            resources.requests.unwrap_or_default(),
            resources.limits.unwrap_or_default(),
        )
    };
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    for container in &spec.containers {
        let (own_requests, own_limits) = amounts(container);
        add(&mut requests, &own_requests);
        add(&mut limits, &own_limits);
    }
    for item in items {
        match item.type_.as_str() {
            "Container" => {
                for container in spec
                    .init_containers
                    .iter()
                    .flatten()
                    .chain(&spec.containers)
                {
                    let (requests, limits) = amounts(container);
                    bounds(item, &requests, &limits, problems);
                }
            }
            "Pod" => bounds(item, &requests, &limits, problems),
            _ => {}
        }
    }
}

fn add(sum: &mut Amounts, own: &Amounts) {
    for (name, amount) in own {
        let total =
            Quantity::of(amount) + sum.get(name).map_or(Quantity::from_units(0), Quantity::of);
        sum.insert(name.clone(), total.to_text());
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
            _ => {}
        }
    }
    for (name, ratio) in item.max_limit_request_ratio.iter().flatten() {
        if let (Some(request), Some(limit)) = (get(requests, name), get(limits, name)) {
            let (request, limit) = (request.millis() as f64, limit.millis() as f64);
            let actual = limit / request.max(1.0);
            if actual > Quantity::of(ratio).millis() as f64 / 1_000.0 {
                problems.push(format!(
                    "{name} max limit to request ratio per {kind} is {}, but provided ratio is {actual:.6}",
                    ratio.0
                ));
            }
        }
    }
}
