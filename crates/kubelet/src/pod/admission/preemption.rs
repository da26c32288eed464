//! Which pods make room for a critical one that does not fit: pure
//! (`pkg/kubelet/preemption`).
//!
//! Best-effort pods go before burstable ones, and those before guaranteed ones; of each class as few
//! as possible, and then those that request least.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::pod::Side;
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::Pod;

use super::{Insufficient, Rejection, UNEXPECTED, is_critical, number};
use crate::cgroup::QosClass;
use crate::pod::pod_ext::PodExt;
use crate::pod::qos::qos_class;

/// Missing amounts by resource: thousandths of cores, or units. All are positive.
type Needs = BTreeMap<String, i64>;

struct Candidate {
    pod: Arc<Pod>,
    requests: BTreeMap<String, Quantity>,
}

impl Candidate {
    fn new(pod: &Arc<Pod>) -> Self {
        let mut requests = api::pod::resources(pod.spec_ref(), Side::Requests);
        requests.insert("pods".to_owned(), Quantity::from_units(1));
        Self { pod: Arc::clone(pod), requests }
    }

    fn request(&self, resource: &str) -> i64 {
        self.requests.get(resource).map_or(0, |amount| number(resource, *amount))
    }
}

/// Chooses among `pods`. Fails, with the pod's rejection, if all of them together do not suffice.
pub fn victims(
    preemptor: &Pod,
    pods: &[Arc<Pod>],
    missing: &[Insufficient],
) -> Result<Vec<Arc<Pod>>, Rejection> {
    let needs: Needs = missing
        .iter()
        .map(|one| (one.resource.clone(), one.requested - (one.capacity - one.used)))
        .collect();
    let of_class = |class: QosClass| -> Vec<Candidate> {
        let mut all = pods.iter().filter(|pod| is_preemptable(preemptor, pod));
        all.by_ref().filter(|pod| qos_class(pod) == class).map(Candidate::new).collect()
    };
    let best_effort = of_class(QosClass::BestEffort);
    let burstable = of_class(QosClass::Burstable);
    let guaranteed = of_class(QosClass::Guaranteed);
    let all = || best_effort.iter().chain(&burstable).chain(&guaranteed);
    let unmet = without(&needs, all());
    if !unmet.is_empty() {
        return Err(rejection(&unmet));
    }
    // What is left for each class once the ones before it have given everything.
    let of_guaranteed =
        nearest(&guaranteed, without(&needs, best_effort.iter().chain(&burstable)))?;
    let given = best_effort.iter().chain(of_guaranteed.iter().copied());
    let of_burstable = nearest(&burstable, without(&needs, given))?;
    let given = of_burstable.iter().chain(&of_guaranteed).copied();
    let of_best_effort = nearest(&best_effort, without(&needs, given))?;
    let chosen = of_best_effort.into_iter().chain(of_burstable).chain(of_guaranteed);
    Ok(chosen.map(|one| Arc::clone(&one.pod)).collect())
}

/// Critical pods may preempt others that are not, and pods of lower priority.
fn is_preemptable(preemptor: &Pod, pod: &Pod) -> bool {
    let priority = |pod: &Pod| pod.spec_ref().priority;
    if is_critical(preemptor) && !is_critical(pod) {
        return true;
    }
    matches!((priority(preemptor), priority(pod)), (Some(more), Some(less)) if more > less)
}

/// What is still missing once these pods are gone.
fn without<'a>(needs: &Needs, pods: impl Iterator<Item = &'a Candidate> + Clone) -> Needs {
    let left = |(resource, amount): (&String, &i64)| {
        let freed = pods.clone().map(|one| one.request(resource));
        let left = freed.fold(*amount, i64::saturating_sub);
        (left > 0).then(|| (resource.clone(), left))
    };
    needs.iter().filter_map(left).collect()
}

/// The pods that together request what is missing: the nearest to it first.
fn nearest(pods: &[Candidate], mut needs: Needs) -> Result<Vec<&Candidate>, Rejection> {
    let mut left: Vec<&Candidate> = pods.iter().collect();
    let mut chosen = Vec::new();
    while !needs.is_empty() {
        let mut best: Option<(f64, usize)> = None;
        for (index, one) in left.iter().enumerate() {
            let distance = distance(&needs, one);
            let nearer = best.is_none_or(|(nearest, at)| {
                distance < nearest || distance == nearest && is_smaller(one, left[at])
            });
            if nearer {
                best = Some((distance, index));
            }
        }
        let Some((_, index)) = best else {
            return Err(rejection(&needs));
        };
        let one = left.swap_remove(index);
        needs = without(&needs, std::iter::once(one));
        chosen.push(one);
    }
    Ok(chosen)
}

/// How much of the needs is left, each weighed alike.
#[allow(clippy::cast_precision_loss)]
fn distance(needs: &Needs, one: &Candidate) -> f64 {
    let left = |(resource, amount): (&String, &i64)| {
        let left = amount.saturating_sub(one.request(resource)).max(0);
        (left as f64 / *amount as f64).powi(2)
    };
    needs.iter().map(left).sum()
}

fn is_smaller(one: &Candidate, than: &Candidate) -> bool {
    let size = |one: &Candidate| ["memory", "cpu"].map(|resource| one.request(resource));
    size(one) <= size(than)
}

fn rejection(unmet: &Needs) -> Rejection {
    let unmet: String = unmet
        .iter()
        .map(|(resource, amount)| format!("(res: {resource}, q: {amount}), "))
        .collect();
    Rejection::new(
        UNEXPECTED,
        format!(
            "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to preempt: no set of running pods found to reclaim resources: [{unmet}]"
        ),
    )
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

    use super::super::CRITICAL_PRIORITY;
    use super::*;

    /// With a request, and a limit if it is guaranteed.
    fn pod(name: &str, priority: i32, cpu: &str, memory: &str, guaranteed: bool) -> Arc<Pod> {
        let amounts = || {
            let all = [("cpu", cpu), ("memory", memory)].into_iter();
            all.filter(|(_, amount)| *amount != "0")
                .map(|(name, amount)| (name.to_owned(), Text(amount.to_owned())))
                .collect()
        };
        let mut pod = Pod {
            spec: Some(PodSpec {
                priority: Some(priority),
                containers: vec![Container {
                    resources: Some(ResourceRequirements {
                        requests: Some(amounts()),
                        limits: guaranteed.then(amounts),
                        ..Default::default()
                    }),
                    ..Default::default()
                }],
                ..Default::default()
            }),
            ..Default::default()
        };
        pod.metadata.name = Some(name.to_owned());
        Arc::new(pod)
    }

    fn missing(resource: &str, amount: i64) -> Insufficient {
        Insufficient { resource: resource.to_owned(), requested: amount, used: 0, capacity: 0 }
    }

    #[test]
    fn few_small_and_unimportant_pods_go_first() {
        let pods = [
            pod("best-effort", 0, "0", "0", false),
            pod("burstable", 0, "100m", "100Mi", false),
            pod("burstable-big", 0, "300m", "300Mi", false),
            pod("guaranteed", 0, "100m", "100Mi", true),
            pod("guaranteed-big", 0, "300m", "300Mi", true),
            pod("critical", CRITICAL_PRIORITY, "900m", "900Mi", true),
        ];
        let critical = pod("new", CRITICAL_PRIORITY, "1", "1Gi", true);
        let mib = |count: i64| count << 20;
        let unmet = "no set of running pods found to reclaim resources: [(res: cpu, q: 100), ]";
        for (needs, expected) in [
            (vec![missing("pods", 1)], Ok(vec!["best-effort"])),
            (vec![missing("cpu", 50)], Ok(vec!["burstable"])),
            (vec![missing("cpu", 150)], Ok(vec!["burstable-big"])),
            (vec![missing("cpu", 100), missing("pods", 2)], Ok(vec!["best-effort", "burstable"])),
            (vec![missing("cpu", 500)], Ok(vec!["burstable-big", "burstable", "guaranteed"])),
            (vec![missing("memory", mib(550))], Ok(vec!["burstable-big", "guaranteed-big"])),
            (vec![missing("cpu", 900)], Err(unmet)),
        ] {
            let found = victims(&critical, &pods, &needs);
            let names = |pods: Vec<Arc<Pod>>| -> Vec<String> {
                pods.iter().map(|pod| pod.pod_name().to_owned()).collect()
            };
            match (found.map(names), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{needs:?}"),
                (Err(found), Err(expected)) => {
                    assert_eq!(found.reason, "UnexpectedAdmissionError");
                    assert!(found.message.ends_with(expected), "{}", found.message);
                }
                (found, expected) => panic!("{needs:?}: {found:?} {expected:?}"),
            }
        }
    }
}
