//! `pods/eviction`: a deletion that respects disruption budgets
//! (`k8s.io/kubernetes/pkg/registry/core/pod/storage/eviction.go`).

use api::object::Object;
use api::{ApiError, Kind, labels};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::api::policy::v1::{Eviction, PodDisruptionBudget};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, StatusCause, Time};

use super::{admitted, created};
use crate::cache::Filter;
use crate::core::{self, Call};
use crate::request::{Options, Request, Target};
use crate::response::Response;
use crate::verbs::delete::{check_preconditions, delete_object};
use crate::verbs::update::swap_with;

/// Evicted pods of one budget that its controller may not have seen yet.
const MAX_DISRUPTED: usize = 2_000;
/// How often an eviction is decided again because the pod has changed meanwhile.
const ATTEMPTS: usize = 16;

/// Evicts the target.
///
/// # Errors
/// 404; 429 when a budget does not allow it now.
pub async fn create(call: Call<'_>, request: &Request) -> Result<Response, ApiError> {
    let eviction: Eviction = admitted(call, request).await?;
    if let Some(name) = eviction.metadata.name.as_deref().filter(|name| !name.is_empty())
        && name != call.target.name
    {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut delete = eviction.delete_options.unwrap_or_default();
    let mut options: Options = call.options.clone();
    options.dry_run |=
        delete.dry_run.as_ref().is_some_and(|values| values.iter().any(|value| value == "All"));
    let target = Target { subresource: String::new(), ..call.target.clone() };
    let call = Call { target: &target, options: &options, ..call };
    let asked = delete.preconditions.take().unwrap_or_default();
    let mut attempts = 0;
    loop {
        attempts += 1;
        let version = call.current().await?;
        let object = core::decode(Pod::ROW, &version)?;
        let pod = object.downcast_ref::<Pod>().ok_or_else(|| ApiError::internal("not a pod"))?;
        let only_this_version = match exempt(pod) {
            Some(exemption) => exemption == Exemption::ForNow,
            None => spend(call, pod).await? == Spent::Nothing,
        } && asked.resource_version.is_none()
            && asked.uid.as_ref().is_none_or(|uid| **uid == *version.uid);
        let mut preconditions = asked.clone();
        preconditions.uid.get_or_insert_with(|| version.uid.to_string());
        if only_this_version {
            preconditions.resource_version = Some(version.revision.to_string());
        }
        delete.preconditions = Some(preconditions);
        let evicted = match mark(call, &mut delete).await {
            Ok(()) => delete_object(call, &delete).await,
            Err(error) => Err(error),
        };
        match evicted {
            // It may be protected now: ready, or running.
            Err(error) if error.is_conflict() && only_this_version && attempts < ATTEMPTS => {}
            deleted => return deleted.map(|_| created()),
        }
    }
}

/// Notes in the pod's status why it ends, so that a Job's failure policy can tell an eviction from
/// a failure. Whoever evicts again finds the condition there.
async fn mark(call: Call<'_>, delete: &mut DeleteOptions) -> Result<(), ApiError> {
    if call.options.dry_run {
        return Ok(());
    }
    let now = call.now();
    let target = Target { subresource: "status".to_owned(), ..call.target.clone() };
    let marking = Call { target: &target, ..call };
    let options = delete.clone();
    let marked = swap_with(marking, |object, version| {
        check_preconditions(call, &options, version)?;
        let mut pod =
            object.downcast_ref::<Pod>().ok_or_else(|| ApiError::internal("not a pod"))?.clone();
        disrupt(&mut pod, now);
        Ok(Box::new(pod) as Box<dyn Object>)
    })
    .await?;
    let preconditions = delete.preconditions.as_mut();
    if let Some(expected) = preconditions.and_then(|own| own.resource_version.as_mut()) {
        *expected = marked.version.revision.to_string();
    }
    Ok(())
}

/// Sets the condition `DisruptionTarget`.
fn disrupt(pod: &mut Pod, now: Timestamp) {
    const KIND: &str = "DisruptionTarget";
    let generation = pod.metadata.generation;
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    let known = conditions.iter().position(|condition| condition.type_ == KIND);
    let before = known.map(|index| conditions.remove(index));
    let since = before.filter(|before| before.status == "True");
    let condition = PodCondition {
        type_: KIND.to_owned(),
        status: "True".to_owned(),
        reason: Some("EvictionByEvictionAPI".to_owned()),
        message: Some("Eviction API: evicting".to_owned()),
        observed_generation: generation,
        last_transition_time: since
            .and_then(|before| before.last_transition_time)
            .or(Some(Time(crate::meta::whole_seconds(now)))),
        ..PodCondition::default()
    };
    conditions.insert(known.unwrap_or(conditions.len()), condition);
}

/// Why no budget protects a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exemption {
    /// It has terminated or is being deleted.
    ForGood,
    /// It is pending.
    ForNow,
}

fn exempt(pod: &Pod) -> Option<Exemption> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    match phase {
        _ if pod.metadata.deletion_timestamp.is_some() => Some(Exemption::ForGood),
        Some("Succeeded" | "Failed") => Some(Exemption::ForGood),
        Some("Pending") => Some(Exemption::ForNow),
        _ => None,
    }
}

/// What an eviction has taken from a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spent {
    /// The pod is not ready, so the budget does not count it.
    Nothing,
    /// A disruption, if the pod has a budget at all.
    Disruption,
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Takes one disruption from the pod's budget, if it has one.
async fn spend(call: Call<'_>, pod: &Pod) -> Result<Spent, ApiError> {
    let filter = Filter::everything(PodDisruptionBudget::ROW, &call.target.namespace);
    let budgets = call.core.cache.resource(PodDisruptionBudget::ROW).list(&filter);
    let mut protecting = Vec::new();
    for version in budgets {
        let budget = PodDisruptionBudget::decode(&version.json).map_err(ApiError::internal)?;
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let selector = labels::Selector::from_label_selector(selector);
        if selector.is_ok_and(|selector| selector.matches(pod.metadata.labels.as_ref())) {
            protecting.push(budget);
        }
    }
    let [budget] = protecting.as_slice() else {
        if protecting.is_empty() {
            return Ok(Spent::Disruption);
        }
        return Err(ApiError::internal(
            "this pod has more than one PodDisruptionBudget, which the eviction subresource does not support",
        ));
    };
    if !is_ready(pod) && unready_may_go(budget) {
        return Ok(Spent::Nothing);
    }
    let target = Target {
        row: PodDisruptionBudget::ROW.into(),
        namespace: call.target.namespace.clone(),
        name: budget.metadata.name.clone().unwrap_or_default(),
        subresource: "status".to_owned(),
        subpath: String::new(),
    };
    let (name, now) = (call.target.name.clone(), call.now());
    swap_with(Call { target: &target, ..call }, |object, _| {
        let budget = object
            .downcast_ref::<PodDisruptionBudget>()
            .ok_or_else(|| ApiError::internal("not a budget"))?;
        let mut budget = budget.clone();
        take_one(&mut budget, &name, now)?;
        Ok(Box::new(budget) as Box<dyn Object>)
    })
    .await?;
    Ok(Spent::Disruption)
}

fn unready_may_go(budget: &PodDisruptionBudget) -> bool {
    let policy =
        budget.spec.as_ref().and_then(|spec| spec.unhealthy_pod_eviction_policy.as_deref());
    if policy == Some("AlwaysAllow") {
        return true;
    }
    let status = budget.status.clone().unwrap_or_default();
    let (healthy, desired) =
        (status.current_healthy.unwrap_or_default(), status.desired_healthy.unwrap_or_default());
    healthy >= desired && desired > 0
}

fn take_one(budget: &mut PodDisruptionBudget, pod: &str, now: Timestamp) -> Result<(), ApiError> {
    let name = budget.metadata.name.clone().unwrap_or_default();
    let generation = budget.metadata.generation.unwrap_or_default();
    let status = budget.status.get_or_insert_default();
    if status.observed_generation.unwrap_or_default() < generation {
        return Err(refusal(
            format!("The disruption budget {name} is still being processed by the server."),
            10,
        ));
    }
    let allowed = status.disruptions_allowed.unwrap_or_default();
    let disrupted = status.disrupted_pods.get_or_insert_default();
    if allowed < 0 {
        return Err(ApiError::forbidden(
            PodDisruptionBudget::ROW,
            &name,
            "pdb disruptions allowed is negative",
        ));
    }
    if disrupted.len() > MAX_DISRUPTED {
        return Err(ApiError::forbidden(
            PodDisruptionBudget::ROW,
            &name,
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if allowed == 0 {
        return Err(refusal(
            format!(
                "The disruption budget {name} needs {} healthy pods and has {} currently",
                status.desired_healthy.unwrap_or_default(),
                status.current_healthy.unwrap_or_default()
            ),
            0,
        ));
    }
    status.disruptions_allowed = Some(allowed - 1);
    disrupted.insert(pod.to_owned(), Time(crate::meta::whole_seconds(now)));
    Ok(())
}

fn refusal(cause: String, retry_after_seconds: i32) -> ApiError {
    let mut error = ApiError::too_many_requests(
        "Cannot evict pod as it would violate the pod's disruption budget.",
        retry_after_seconds,
    );
    error.status_mut().details.get_or_insert_default().causes = Some(vec![StatusCause {
        reason: Some("DisruptionBudget".to_owned()),
        message: Some(cause),
        field: None,
    }]);
    error
}
