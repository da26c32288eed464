//! DaemonSets.

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetUpdateStrategy};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::at::At;
use super::columns::{self, CONTAINERS, IMAGES, SELECTOR, integer, text};
use super::pod_spec::{defaults, warnings};
use super::table::{Parts, Rows, age, name};
use super::{check, fill, status, workload};

/// How often the template has changed: a field of former versions of the API, which `apps/v1` shows
/// as an annotation.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

pub static RULES: Rows<DaemonSet> = Rows {
    default: |set| {
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
    },
    parts: Parts {
        create: |set, _| {
            set.status = Some(Default::default());
            let generation = template_generation(set).filter(|generation| *generation > 0);
            set_template_generation(set, Some(generation.unwrap_or(1)));
        },
        update: |new, old, _| {
            new.status.clone_from(&old.status);
            let before = template_generation(old);
            let generation = match new.spec.template == old.spec.template {
                true => before,
                false => Some(before.unwrap_or(0).saturating_add(1)),
            };
            set_template_generation(new, generation);
        },
        status: |new, old, _| {
            new.spec.clone_from(&old.spec);
            new.metadata.labels.clone_from(&old.metadata.labels);
            set_template_generation(new, template_generation(old));
        },
    },
    judge: |set, at| {
        let (spec, at) = (&set.spec, at.child("spec"));
        workload::selector(&spec.selector, "daemonset", &at.child("selector"));
        let own = at.child("template");
        workload::template(&spec.template, &spec.selector, &own);
        workload::runs_for_ever(&spec.template, "DaemonSet", &own);
        at.none_negative(&[
            ("minReadySeconds", spec.min_ready_seconds),
            ("revisionHistoryLimit", spec.revision_history_limit),
        ]);
        if let Some(strategy) = &spec.update_strategy {
            validate_strategy(strategy, &at.child("updateStrategy"));
        }
    },
    update: |new, old, at| {
        workload::immutable_selector(&new.spec.selector, &old.spec.selector, at);
    },
    status_update: |new, old, _, at| {
        let counts = [
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
        ];
        status::counts(&new.status, &old.status, &counts, at);
    },
    generation: |new, old| Some(new.spec != old.spec),
    warnings: |new, old| {
        let same = old.is_some_and(|old| old.spec == new.spec);
        let template = Some(&new.spec.template).filter(|_| !same);
        template.map(warnings::template).unwrap_or_default()
    },
    columns: &[
        name(),
        integer("Desired", "Number of nodes that should run a pod.")
            .number("status.desiredNumberScheduled"),
        integer("Current", "Number of nodes that run a pod.")
            .number("status.currentNumberScheduled"),
        integer("Ready", "Number of nodes with a ready pod.").number("status.numberReady"),
        integer("Up-to-date", "Number of nodes with a pod of the latest template.")
            .number("status.updatedNumberScheduled"),
        integer("Available", "Number of nodes with an available pod.")
            .number("status.numberAvailable"),
        text("Node Selector", "Nodes that the pods may run on.").of(|it| {
            let pod = it.spec.template.spec.as_ref();
            columns::labels(pod.and_then(|pod| pod.node_selector.as_ref()))
        }),
        age(),
        CONTAINERS.of(|it| columns::container_names(Some(&it.spec.template))),
        IMAGES.of(|it| columns::images(Some(&it.spec.template))),
        SELECTOR.of(|it| columns::selector(Some(&it.spec.selector))),
    ],
    ..Rows::NEW
};

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

fn validate_strategy(strategy: &DaemonSetUpdateStrategy, at: &At<'_>) {
    let own = at.child("rollingUpdate");
    match (check::text(&strategy.type_), &strategy.rolling_update) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => own.required(""),
        ("RollingUpdate", Some(rolling)) => {
            let (unavailable, surge) =
                (rolling.max_unavailable.as_ref(), rolling.max_surge.as_ref());
            for (field, amount) in [("maxUnavailable", unavailable), ("maxSurge", surge)] {
                if let Some(amount) = amount {
                    own.child(field).number_or_percent(amount);
                    own.child(field).not_more_than_all(amount);
                }
            }
            match (check::is_zero(unavailable), check::is_zero(surge)) {
                (false, false) => {
                    let value = surge;
                    own.child("maxSurge")
                        .invalid(value, "may not be set when maxUnavailable is non-zero");
                }
                (true, true) => {
                    own.child("maxUnavailable").required("cannot be 0 when maxSurge is 0")
                }
                _ => {}
            }
        }
        (other, _) => at.not_supported(other, &["OnDelete", "RollingUpdate"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Strategy;
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
            RULES.prepare_create(&mut created, &context());
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
            RULES.prepare_update(&mut updated, &old, &context());
            assert_eq!(template_generation(&updated), expected, "{old:?} {new:?}");
        }
        let mut status = set("b", None);
        RULES.prepare_status_update(&mut status, &set("a", Some("3")), &context());
        assert_eq!(template_generation(&status), Some(3));
    }
}
