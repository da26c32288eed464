//! The next step of a Deployment: a pure function of the Deployment, its ReplicaSets and the number
//! of their pods.
//!
//! One plan is one step (the new set up, or the old ones down); the change it makes triggers the
//! next. Every write carries the resource version that the plan saw, so a step planned on stale
//! state fails and is planned again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::scale::{self, Model};
use super::sets::{
    self, REVISION, actual, annotations_for_new, desired_when_scaled, find_new, is_recreate,
    replicas, set_scale_annotations, size, sort_by_age, surge_and_unavailable,
};
use super::status;
use crate::machinery::hash::{POD_TEMPLATE_HASH, template_hash, with_label};
use crate::machinery::owner;

#[derive(Debug)]
pub struct Observed<'a> {
    pub deployment: &'a Deployment,
    /// The sets that the Deployment controls.
    pub sets: Vec<Arc<ReplicaSet>>,
    /// Number of pods that run or may run, by the uid of their set; those being deleted count.
    pub pods: HashMap<String, usize>,
}

/// What to do, in this order.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    pub create: Option<Box<ReplicaSet>>,
    pub updates: Vec<Update>,
    pub delete: Vec<Arc<ReplicaSet>>,
    /// The revision to write on the Deployment.
    pub revision: Option<String>,
    pub status: DeploymentStatus,
    pub requeue_after: Option<Duration>,
}

/// A set as it is and as it should be.
#[derive(Debug, PartialEq)]
pub struct Update {
    pub before: Arc<ReplicaSet>,
    pub after: Box<ReplicaSet>,
}

pub fn plan(observed: &Observed<'_>, now: Timestamp) -> Plan {
    let deployment = observed.deployment;
    let mut all = observed.sets.clone();
    sort_by_age(&mut all);
    let new = find_new(deployment, &all);
    let mut plan = Plan {
        status: status::counts(deployment, &all, new.as_deref(), now),
        ..Default::default()
    };
    if owner::is_deleting(&deployment.metadata) {
        return plan;
    }
    status::mark_pause(deployment, &mut plan.status, now);
    let mut model = Model::new(deployment, &all, new.as_deref());
    let paused = deployment.spec.paused == Some(true);
    if paused || was_scaled(deployment, &all) {
        revise(&mut plan, &mut model, deployment, &all, new.as_deref(), now);
        scale::proportionally(&mut model);
        plan.updates = model.into_changes();
        if paused {
            clean_up(&mut plan, deployment, &all, new.as_deref());
        }
        return plan;
    }
    roll(&mut plan, &mut model, observed, &all, new.as_ref(), now);
    plan.updates = model.into_changes();
    let newest = plan.create.as_deref().or(new.as_deref());
    status::progress(deployment, &mut plan.status, newest, now);
    if plan.updates.is_empty()
        && plan.create.is_none()
        && status::is_complete(deployment, &plan.status)
    {
        clean_up(&mut plan, deployment, &all, new.as_deref());
    }
    plan.requeue_after = status::timeout_check(deployment, &plan.status, now);
    plan
}

/// Whether the Deployment's size changed since its sets were scaled. Recreate does not scale
/// proportionally: with several active sets it scales the old ones down instead.
fn was_scaled(deployment: &Deployment, all: &[Arc<ReplicaSet>]) -> bool {
    let active: Vec<_> = all.iter().filter(|set| size(set) > 0).collect();
    let changed = active
        .iter()
        .any(|set| desired_when_scaled(set).is_some_and(|desired| desired != replicas(deployment)));
    changed && (active.len() == 1 || !is_recreate(deployment))
}

/// One step of a rollout by the Deployment's strategy.
fn roll(
    plan: &mut Plan,
    model: &mut Model<'_>,
    observed: &Observed<'_>,
    all: &[Arc<ReplicaSet>],
    new: Option<&Arc<ReplicaSet>>,
    now: Timestamp,
) {
    let deployment = observed.deployment;
    if is_recreate(deployment) {
        if new.is_some() {
            revise(plan, model, deployment, all, new.map(|set| &**set), now);
        }
        if model.scale_old_to_zero() || old_pods_remain(observed, new) {
            return;
        }
    } else {
        revise(plan, model, deployment, all, new.map(|set| &**set), now);
    }
    if new.is_none() {
        plan.create = Some(Box::new(new_set(deployment, all, model.new_size())));
        let name = plan.create.as_ref().and_then(|set| set.metadata.name.clone());
        let message = format!("Created new replica set {:?}", name.unwrap_or_default());
        if status::deadline(deployment).is_some() {
            status::set_condition(
                &mut plan.status,
                status::PROGRESSING,
                "True",
                "NewReplicaSetCreated",
                message,
                now,
            );
        }
        return;
    }
    if !model.scale_new() && !is_recreate(deployment) {
        model.scale_old_down();
    }
}

/// Whether pods of former templates still run or may run.
fn old_pods_remain(observed: &Observed<'_>, new: Option<&Arc<ReplicaSet>>) -> bool {
    let new_uid = new.map(|set| owner::uid(&set.metadata));
    let mut pods = observed.pods.iter();
    pods.any(|(set, count)| *count > 0 && Some(set.as_str()) != new_uid)
}

/// Makes the set with the current template the newest revision.
fn revise(
    plan: &mut Plan,
    model: &mut Model<'_>,
    deployment: &Deployment,
    all: &[Arc<ReplicaSet>],
    new: Option<&ReplicaSet>,
    now: Timestamp,
) {
    let Some(new) = new else { return };
    let annotations = annotations_for_new(
        deployment,
        new.metadata.annotations.as_ref(),
        highest_other_revision(all, Some(new)) + 1,
    );
    let own = deployment.metadata.annotations.as_ref();
    let written = own.and_then(|annotations| annotations.get(REVISION));
    if written != annotations.get(REVISION) {
        plan.revision = annotations.get(REVISION).cloned();
    }
    model.change_new(|set| {
        set.metadata.annotations = Some(annotations);
        set.spec.min_ready_seconds = deployment.spec.min_ready_seconds;
    });
    if status::deadline(deployment).is_some()
        && status::find(&plan.status, status::PROGRESSING).is_none()
    {
        let name = new.metadata.name.as_deref().unwrap_or_default();
        let message = format!("Found new replica set {name:?}");
        status::set_condition(
            &mut plan.status,
            status::PROGRESSING,
            "True",
            "FoundNewReplicaSet",
            message,
            now,
        );
    }
}

fn highest_other_revision(all: &[Arc<ReplicaSet>], new: Option<&ReplicaSet>) -> i64 {
    let new_uid = new.map(|set| owner::uid(&set.metadata));
    let others = all.iter().filter(|set| Some(owner::uid(&set.metadata)) != new_uid);
    others.map(|set| sets::revision(set)).max().unwrap_or(0)
}

/// The set for the current template.
fn new_set(deployment: &Deployment, all: &[Arc<ReplicaSet>], replicas_now: i32) -> ReplicaSet {
    let spec = &deployment.spec;
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = template_hash(&spec.template, collisions);
    let mut template = spec.template.clone();
    let metadata = template.metadata.get_or_insert_default();
    let labels = with_label(metadata.labels.as_ref(), POD_TEMPLATE_HASH, &hash);
    metadata.labels = Some(labels.clone());
    let match_labels: BTreeMap<String, String> =
        with_label(spec.selector.match_labels.as_ref(), POD_TEMPLATE_HASH, &hash);
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let revision = highest_other_revision(all, None) + 1;
    let mut set = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{hash}")),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations_for_new(deployment, None, revision)),
            owner_references: Some(vec![owner::reference(deployment)]),
            ..Default::default()
        },
        spec: ReplicaSetSpec {
            replicas: Some(replicas_now),
            min_ready_seconds: spec.min_ready_seconds,
            selector: LabelSelector {
                match_labels: Some(match_labels),
                match_expressions: spec.selector.match_expressions.clone(),
            },
            template: Some(template),
        },
        status: None,
    };
    let (surge, _) = surge_and_unavailable(deployment);
    let wanted = replicas(deployment);
    set_scale_annotations(&mut set, wanted, wanted + surge);
    set
}

/// Plans to delete the oldest empty sets beyond the history limit.
fn clean_up(
    plan: &mut Plan,
    deployment: &Deployment,
    all: &[Arc<ReplicaSet>],
    new: Option<&ReplicaSet>,
) {
    let Some(limit) = deployment.spec.revision_history_limit.filter(|limit| *limit != i32::MAX)
    else {
        return;
    };
    let new_uid = new.map(|set| owner::uid(&set.metadata));
    let mut old: Vec<&Arc<ReplicaSet>> = all
        .iter()
        .filter(|set| Some(owner::uid(&set.metadata)) != new_uid)
        .filter(|set| !owner::is_deleting(&set.metadata))
        .collect();
    let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    old.sort_by_key(|set| sets::revision(set));
    let unused = |set: &&&Arc<ReplicaSet>| {
        let observed = set.status.as_ref().and_then(|status| status.observed_generation);
        actual(set) == 0 && size(set) == 0 && set.metadata.generation <= observed
    };
    let gone = old.iter().take(surplus).filter(unused);
    plan.delete = gone.map(|set| Arc::clone(set)).collect();
}
