//! DaemonSets.

use super::check::{self, Errors};
use super::columns;
use super::path::Path;
use super::workload;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetUpdateStrategy};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::pod_spec::{defaults, warnings};
use super::rules::generation_of_spec;
use super::{Column, Context, Strategy, fill, status};

/// The strategy of DaemonSets.
pub struct Rules;

/// How often the template has changed: a field of former versions of the API, which `apps/v1` shows
/// as an annotation.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::integer("Desired", "Number of nodes that should run a pod."),
    columns::integer("Current", "Number of nodes that run a pod."),
    columns::integer("Ready", "Number of nodes with a ready pod."),
    columns::integer("Up-to-date", "Number of nodes with a pod of the latest template."),
    columns::integer("Available", "Number of nodes with an available pod."),
    columns::text("Node Selector", "Nodes that the pods may run on."),
    columns::AGE,
    columns::CONTAINERS,
    columns::IMAGES,
    columns::SELECTOR,
];

impl Strategy for Rules {
    type Object = DaemonSet;

    generation_of_spec!();

    fn prepare_create(&self, set: &mut DaemonSet, _: &Context<'_>) {
        set.status = Some(Default::default());
        let generation = template_generation(set).filter(|generation| *generation > 0);
        set_template_generation(set, Some(generation.unwrap_or(1)));
    }

    fn prepare_update(&self, new: &mut DaemonSet, old: &DaemonSet, _: &Context<'_>) {
        new.status.clone_from(&old.status);
        let before = template_generation(old);
        let generation = match new.spec.template == old.spec.template {
            true => before,
            false => Some(before.unwrap_or(0).saturating_add(1)),
        };
        set_template_generation(new, generation);
    }

    fn prepare_status_update(&self, new: &mut DaemonSet, old: &DaemonSet, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
        new.metadata.labels.clone_from(&old.metadata.labels);
        set_template_generation(new, template_generation(old));
    }

    fn default(&self, set: &mut DaemonSet) {
        let spec = &mut set.spec;
        defaults::template(&mut spec.template);
        let update = spec.update_strategy.get_or_insert_default();
        fill::text(&mut update.type_, "RollingUpdate");
        if update.type_.as_deref() == Some("RollingUpdate") {
            let rolling = update.rolling_update.get_or_insert_default();
            fill::missing(&mut rolling.max_unavailable, IntOrString::Int(1));
            fill::missing(&mut rolling.max_surge, IntOrString::Int(0));
        }
        fill::missing(&mut spec.revision_history_limit, 10);
    }

    fn validate_status_update(&self, new: &DaemonSet, old: &DaemonSet) -> Vec<FieldError> {
        let (now, before) =
            (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
        let counts = [
            ("currentNumberScheduled", Some(now.current_number_scheduled)),
            ("numberMisscheduled", Some(now.number_misscheduled)),
            ("desiredNumberScheduled", Some(now.desired_number_scheduled)),
            ("numberReady", Some(now.number_ready)),
            ("updatedNumberScheduled", now.updated_number_scheduled),
            ("numberAvailable", now.number_available),
            ("numberUnavailable", now.number_unavailable),
        ];
        let mut errors = status::not_negative(&counts, now.observed_generation);
        errors.extend(status::collisions(now.collision_count, before.collision_count));
        errors
    }

    fn warnings(&self, new: &DaemonSet, old: Option<&DaemonSet>) -> Vec<String> {
        if old.is_some_and(|old| old.spec == new.spec) {
            return Vec::new();
        }
        let mut all = Vec::new();
        all.extend(warnings::template(&new.spec.template));
        all
    }

    fn validate(&self, set: &DaemonSet) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (spec, path) = (&set.spec, Path::new("spec"));
        workload::selector(&spec.selector, "daemonset", &path.child("selector"), &mut errors);
        let own = path.child("template");
        workload::template(&spec.template, &spec.selector, &own, &mut errors);
        workload::runs_for_ever(&spec.template, "DaemonSet", &own, &mut errors);
        let numbers = [
            ("minReadySeconds", spec.min_ready_seconds),
            ("revisionHistoryLimit", spec.revision_history_limit),
        ];
        workload::not_negative(&numbers, &path, &mut errors);
        if let Some(strategy) = &spec.update_strategy {
            validate_strategy(strategy, &path.child("updateStrategy"), &mut errors);
        }
        errors
    }

    fn validate_update(&self, new: &DaemonSet, old: &DaemonSet) -> Vec<FieldError> {
        let mut errors = Vec::new();
        workload::immutable_selector(&new.spec.selector, &old.spec.selector, &mut errors);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, set: &DaemonSet, now: Timestamp) -> Vec<Value> {
        let status = set.status.clone().unwrap_or_default();
        let [names, images] = columns::template(Some(&set.spec.template));
        let nodes = set.spec.template.spec.as_ref().and_then(|spec| spec.node_selector.as_ref());
        vec![
            columns::name(&set.metadata),
            status.desired_number_scheduled.into(),
            status.current_number_scheduled.into(),
            status.number_ready.into(),
            status.updated_number_scheduled.unwrap_or(0).into(),
            status.number_available.unwrap_or(0).into(),
            columns::labels(nodes),
            columns::age(&set.metadata, now),
            names,
            images,
            columns::selector(Some(&set.spec.selector)),
        ]
    }
}

fn template_generation(set: &DaemonSet) -> Option<i64> {
    set.metadata.annotations.as_ref()?.get(TEMPLATE_GENERATION)?.parse().ok()
}

/// Clients cannot change it.
fn set_template_generation(set: &mut DaemonSet, generation: Option<i64>) {
    let annotations = &mut set.metadata.annotations;
    match generation {
        Some(generation) => {
            let annotations = annotations.get_or_insert_default();
            annotations.insert(TEMPLATE_GENERATION.to_owned(), generation.to_string());
        }
        None => {
            annotations.iter_mut().for_each(|all| drop(all.remove(TEMPLATE_GENERATION)));
        }
    }
}

fn validate_strategy(strategy: &DaemonSetUpdateStrategy, path: &Path, errors: &mut Errors) {
    let own = path.child("rollingUpdate");
    match (check::text(&strategy.type_), &strategy.rolling_update) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => errors.push(FieldError::required(own, "")),
        ("RollingUpdate", Some(rolling)) => {
            let (unavailable, surge) =
                (rolling.max_unavailable.as_ref(), rolling.max_surge.as_ref());
            for (field, amount) in [("maxUnavailable", unavailable), ("maxSurge", surge)] {
                if let Some(amount) = amount {
                    check::number_or_percent(amount, &own.child(field), errors);
                    check::not_more_than_all(amount, &own.child(field), errors);
                }
            }
            match (check::is_zero(unavailable), check::is_zero(surge)) {
                (false, false) => {
                    let value = surge.map(check::printed).unwrap_or_default();
                    let problem = "may not be set when maxUnavailable is non-zero";
                    errors.push(FieldError::invalid(own.child("maxSurge"), value, problem));
                }
                (true, true) => {
                    let problem = "cannot be 0 when maxSurge is 0";
                    errors.push(FieldError::required(own.child("maxUnavailable"), problem));
                }
                _ => {}
            }
        }
        (other, _) => {
            errors.push(FieldError::not_supported(path, other, &["OnDelete", "RollingUpdate"]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::tests::context;

    fn set(image: &str, generation: Option<&str>) -> DaemonSet {
        let mut set = DaemonSet::default();
        set.spec.template.spec.get_or_insert_default().node_name = Some(image.to_owned());
        let annotation = generation.map(|text| (TEMPLATE_GENERATION.to_owned(), text.to_owned()));
        set.metadata.annotations = annotation.map(|one| [one].into());
        set
    }

    #[test]
    fn the_generation_of_the_template_is_the_servers() {
        for (given, expected) in [(None, 1), (Some("0"), 1), (Some("7"), 7), (Some("x"), 1)] {
            let mut created = set("a", given);
            Rules.prepare_create(&mut created, &context());
            assert_eq!(template_generation(&created), Some(expected), "{given:?}");
        }
        for (old, new, expected) in [
            (set("a", Some("3")), set("a", None), Some(3)),
            (set("a", Some("3")), set("a", Some("9")), Some(3)),
            (set("a", Some("3")), set("b", Some("3")), Some(4)),
            // Stored by a version without it.
            (set("a", None), set("a", Some("9")), None),
            (set("a", None), set("b", None), Some(1)),
        ] {
            let mut updated = new.clone();
            Rules.prepare_update(&mut updated, &old, &context());
            assert_eq!(template_generation(&updated), expected, "{old:?} {new:?}");
        }
        let mut status = set("b", None);
        Rules.prepare_status_update(&mut status, &set("a", Some("3")), &context());
        assert_eq!(template_generation(&status), Some(3));
    }
}
