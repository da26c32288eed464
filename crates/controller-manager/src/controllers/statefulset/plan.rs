//! The next step of a StatefulSet: a pure function
//! (`k8s.io/kubernetes/pkg/controller/statefulset`).
//!
//! With ordered pod management a plan stops at the first pod that is not as it should be; with
//! parallel management it continues.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;

use super::identity::{self, ordinal, revision};
use crate::machinery::int_or_percent::{Round, scaled};
use crate::machinery::owner::is_deleting;
use crate::machinery::pod_state::{available_at, is_available, is_ready};

#[derive(Debug)]
pub struct Observed<'a> {
    pub set: &'a StatefulSet,
    /// The pods that the set controls.
    pub pods: Vec<Arc<Pod>>,
    /// Names of the revisions that the pods have and should have.
    pub current: String,
    pub update: String,
    pub collision_count: Option<i32>,
    /// Whether `pods` reflects everything that was written before.
    pub expectations_met: bool,
}

#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Ordinals of the pods to create, with the names of their revisions.
    pub create: Vec<(i32, String)>,
    pub delete: Vec<Arc<Pod>>,
    pub status: StatefulSetStatus,
    pub requeue_after: Option<Duration>,
}

struct Planner<'a> {
    observed: &'a Observed<'a>,
    by_ordinal: BTreeMap<i32, Arc<Pod>>,
    range: Range<i32>,
    ordered: bool,
    now: Timestamp,
}

pub fn plan(observed: &Observed<'_>, now: Timestamp) -> Plan {
    let set = observed.set;
    let planner = Planner {
        observed,
        by_ordinal: observed
            .pods
            .iter()
            .filter_map(|pod| Some((ordinal(set, pod)?, pod.clone())))
            .collect(),
        range: identity::range(set),
        ordered: set.spec.pod_management_policy.as_deref() != Some("Parallel"),
        now,
    };
    let mut plan = Plan {
        status: planner.status(),
        requeue_after: planner.next_availability(),
        ..Default::default()
    };
    if observed.expectations_met
        && !is_deleting(&set.metadata)
        && planner.fill(&mut plan).is_continue()
        && planner.shrink(&mut plan).is_continue()
    {
        planner.roll(&mut plan);
    }
    plan
}

impl Planner<'_> {
    fn min_ready(&self) -> i32 {
        self.observed.set.spec.min_ready_seconds.unwrap_or(0)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        api::pod::phase(pod) == "Running" && is_available(pod, self.min_ready(), self.now)
    }

    fn is_healthy(&self, pod: &Pod) -> bool {
        !is_deleting(&pod.metadata) && self.is_available(pod)
    }

    /// Pods with this ordinal and above are updated.
    fn partition(&self) -> i32 {
        let strategy = self.observed.set.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        self.range.start + rolling.and_then(|rolling| rolling.partition).unwrap_or(0)
    }

    fn is_on_delete(&self) -> bool {
        let strategy = self.observed.set.spec.update_strategy.as_ref();
        strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete")
    }

    /// The revision of a new pod with the ordinal.
    fn revision_for(&self, ordinal: i32) -> &str {
        if ordinal < self.partition() && !self.is_on_delete() {
            &self.observed.current
        } else {
            &self.observed.update
        }
    }

    /// Creates a pod for every ordinal of the range, in order.
    fn fill(&self, plan: &mut Plan) -> ControlFlow<()> {
        for ordinal in self.range.clone() {
            let stop = match self.by_ordinal.get(&ordinal) {
                None => {
                    let revision = self.revision_for(ordinal).to_owned();
                    plan.create.push((ordinal, revision));
                    true
                }
                Some(pod) if is_deleting(&pod.metadata) => true,
                Some(pod) if api::pod::is_terminal(pod) => {
                    plan.delete.push(pod.clone());
                    true
                }
                Some(pod) => !self.is_available(pod),
            };
            if stop && self.ordered {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Deletes pods with ordinals outside the range, the highest first.
    fn shrink(&self, plan: &mut Plan) -> ControlFlow<()> {
        let condemned: Vec<_> = self
            .by_ordinal
            .iter()
            .rev()
            .filter(|(ordinal, _)| !self.range.contains(ordinal))
            .collect();
        let first_unhealthy = condemned
            .iter()
            .rev()
            .find(|(_, pod)| !self.is_healthy(pod))
            .map(|(ordinal, _)| **ordinal);
        for (ordinal, pod) in &condemned {
            if !is_deleting(&pod.metadata) {
                // An unhealthy pod waits for the unhealthy pod with the lowest ordinal.
                let waits = !self.is_healthy(pod) && first_unhealthy != Some(**ordinal);
                if self.ordered && waits {
                    return ControlFlow::Break(());
                }
                plan.delete.push(Arc::clone(pod));
            }
            if self.ordered {
                return ControlFlow::Break(());
            }
        }
        if condemned.is_empty() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    /// Replaces pods of former revisions, from the highest ordinal down to the partition.
    fn roll(&self, plan: &mut Plan) {
        if self.is_on_delete() || !plan.create.is_empty() || !plan.delete.is_empty() {
            return;
        }
        let strategy = self.observed.set.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let most = rolling
            .and_then(|rolling| rolling.max_unavailable.as_ref())
            .map_or(1, |most| scaled(most, self.range.end - self.range.start, Round::Down).max(1));
        let unhealthy = self.range.clone().filter(|ordinal| {
            !self.by_ordinal.get(ordinal).is_some_and(|pod| self.is_healthy(pod))
        });
        let down = i32::try_from(unhealthy.count()).unwrap_or(i32::MAX);
        let mut room = most - down;
        for ordinal in (self.partition()..self.range.end).rev() {
            let Some(pod) = self.by_ordinal.get(&ordinal) else {
                continue;
            };
            let healthy = self.is_healthy(pod);
            if revision(pod) == self.observed.update {
                if !healthy && most == 1 {
                    return;
                }
                continue;
            }
            if is_deleting(&pod.metadata) {
                continue;
            }
            // An unhealthy pod can be replaced without making another one unavailable.
            if healthy {
                if room <= 0 {
                    return;
                }
                room -= 1;
            }
            plan.delete.push(pod.clone());
            if most == 1 {
                return;
            }
        }
    }

    fn status(&self) -> StatefulSetStatus {
        let observed = self.observed;
        let old = observed.set.status.clone().unwrap_or_default();
        // Pods that are scaled down count until they are gone.
        let count = |test: &dyn Fn(&Pod) -> bool| {
            let pods = self.by_ordinal.values();
            i32::try_from(pods.filter(|pod| test(pod)).count()).unwrap_or(i32::MAX)
        };
        let of = |name: &str| count(&|pod| !is_deleting(&pod.metadata) && revision(pod) == name);
        let all = i32::try_from(self.by_ordinal.len()).unwrap_or(i32::MAX);
        let running_ready = |pod: &Pod| api::pod::phase(pod) == "Running" && is_ready(pod);
        let ready = count(&running_ready);
        let mut status = StatefulSetStatus {
            observed_generation: observed.set.metadata.generation,
            replicas: all,
            ready_replicas: Some(ready),
            available_replicas: Some(count(&|pod| self.is_available(pod))),
            current_replicas: Some(of(&observed.current)),
            updated_replicas: Some(of(&observed.update)),
            current_revision: Some(observed.current.clone()),
            update_revision: Some(observed.update.clone()),
            collision_count: observed.collision_count,
            conditions: old.conditions,
        };
        // A completed update makes its revision the current one.
        let wanted = self.range.end - self.range.start;
        if !self.is_on_delete()
            && status.updated_replicas == Some(wanted)
            && all == wanted
            && ready == wanted
        {
            status.current_replicas = status.updated_replicas;
            status.current_revision = Some(observed.update.clone());
        }
        status
    }

    fn next_availability(&self) -> Option<Duration> {
        let pods = self.observed.pods.iter();
        let times = pods.filter_map(|pod| available_at(pod, self.min_ready()));
        let next = times.filter(|at| *at > self.now).min()?;
        Duration::try_from(next.duration_since(self.now)).ok()
    }
}
