//! What a Deployment reads from its ReplicaSets, and its surge and unavailability limits.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use crate::machinery::hash::equal_but_hash;
use crate::machinery::int_or_percent::{Round, scaled};

pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";

/// Maximum length of the list of former revisions on a set.
const REVISION_HISTORY_MAX_BYTES: usize = 2000;

pub fn size(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

pub fn available(set: &ReplicaSet) -> i32 {
    let status = set.status.as_ref();
    status.and_then(|status| status.available_replicas).unwrap_or(0)
}

pub fn actual(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

pub fn ready(set: &ReplicaSet) -> i32 {
    let status = set.status.as_ref();
    status.and_then(|status| status.ready_replicas).unwrap_or(0)
}

pub fn annotation<'a>(set: &'a ReplicaSet, key: &str) -> Option<&'a str> {
    let annotations = set.metadata.annotations.as_ref()?;
    annotations.get(key).map(String::as_str)
}

fn number(set: &ReplicaSet, key: &str) -> Option<i32> {
    annotation(set, key)?.parse().ok()
}

/// The size of the Deployment when it last scaled this set.
pub fn desired_when_scaled(set: &ReplicaSet) -> Option<i32> {
    number(set, DESIRED_REPLICAS)
}

/// The maximum number of pods of the Deployment when it last scaled this set.
pub fn max_when_scaled(set: &ReplicaSet) -> Option<i32> {
    number(set, MAX_REPLICAS)
}

pub fn revision(set: &ReplicaSet) -> i64 {
    annotation(set, REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

pub fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

pub fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.strategy.as_ref();
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

/// How many pods a rolling update may have above and below the desired number.
pub fn surge_and_unavailable(deployment: &Deployment) -> (i32, i32) {
    if is_recreate(deployment) {
        return (0, 0);
    }
    let total = replicas(deployment);
    let strategy = deployment.spec.strategy.as_ref();
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let resolve = |value: Option<&_>, round| value.map_or(0, |value| scaled(value, total, round));
    let surge = resolve(rolling.and_then(|rolling| rolling.max_surge.as_ref()), Round::Up);
    let unavailable =
        resolve(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), Round::Down);
    // Percentages of small numbers can both round to zero, which would block every update.
    if surge == 0 && unavailable == 0 {
        return (0, 1.min(total));
    }
    (surge, unavailable.min(total))
}

/// Oldest first; sets of the same age by name.
pub fn sort_by_age(sets: &mut [Arc<ReplicaSet>]) {
    sets.sort_by(|one, other| age_key(one).cmp(&age_key(other)));
}

pub fn age_key(set: &ReplicaSet) -> (Option<jiff::Timestamp>, Option<&str>) {
    let metadata = &set.metadata;
    (metadata.creation_timestamp.as_ref().map(|time| time.0), metadata.name.as_deref())
}

/// The set with the Deployment's template; the oldest if there are several.
pub fn find_new(deployment: &Deployment, sorted: &[Arc<ReplicaSet>]) -> Option<Arc<ReplicaSet>> {
    let same = |set: &&Arc<ReplicaSet>| {
        let template = set.spec.template.as_ref();
        template.is_some_and(|template| equal_but_hash(template, &deployment.spec.template))
    };
    sorted.iter().find(same).cloned()
}

/// The annotations of the set with the current template once it is revision `revision`.
pub fn annotations_for_new(
    deployment: &Deployment,
    existing: Option<&BTreeMap<String, String>>,
    revision: i64,
) -> BTreeMap<String, String> {
    let mut annotations = existing.cloned().unwrap_or_default();
    let own =
        [LAST_APPLIED, REVISION, REVISION_HISTORY, DESIRED_REPLICAS, MAX_REPLICAS, ROLLBACK_TO];
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !own.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    let before = annotations.get(REVISION).cloned();
    let before_number = before.as_deref().and_then(|text| text.parse().ok());
    if before_number.unwrap_or(0) < revision {
        annotations.insert(REVISION.into(), revision.to_string());
        if let Some(before) = before {
            let history = annotations.get(REVISION_HISTORY).map(String::as_str);
            annotations.insert(REVISION_HISTORY.into(), extended(history, &before));
        }
    }
    annotations
}

/// `history` with one more entry; the oldest are dropped if it gets too long.
fn extended(history: Option<&str>, revision: &str) -> String {
    let mut entries: Vec<&str> = history.into_iter().flat_map(|text| text.split(',')).collect();
    entries.push(revision);
    while entries.len() > 1 && entries.join(",").len() > REVISION_HISTORY_MAX_BYTES {
        entries.remove(0);
    }
    entries.join(",")
}

/// Sets the annotations that record the Deployment's size at the time the set was scaled.
pub fn set_scale_annotations(set: &mut ReplicaSet, desired: i32, max: i32) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(DESIRED_REPLICAS.into(), desired.to_string());
    annotations.insert(MAX_REPLICAS.into(), max.to_string());
}
