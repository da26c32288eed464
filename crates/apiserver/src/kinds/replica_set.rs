//! ReplicaSets.

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::columns::{self, CONTAINERS, IMAGES, SELECTOR, integer};
use super::pod_spec::defaults;
use super::table::{Rows, age, name, status_apart};
use super::{fill, status, workload};

pub static RULES: Rows<ReplicaSet> = Rows {
    default: |set| {
        let spec = &mut set.spec;
        fill::missing(&mut spec.replicas, 1);
        defaults::template(spec.template.get_or_insert_default());
    },
    parts: status_apart!(),
    judge: |set, at| {
        let (spec, at) = (&set.spec, at.child("spec"));
        at.none_negative(&[
            ("replicas", spec.replicas),
            ("minReadySeconds", spec.min_ready_seconds),
        ]);
        workload::selector(&spec.selector, "deployment", &at.child("selector"));
        let own = at.child("template");
        match &spec.template {
            None => own.required(""),
            Some(template) => {
                workload::template(template, &spec.selector, &own);
                workload::runs_for_ever(template, "ReplicaSet", &own);
            }
        }
    },
    update: |new, old, at| {
        workload::immutable_selector(&new.spec.selector, &old.spec.selector, at);
    },
    status_update: |new, old, _, at| {
        let counts = ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
        status::replicas(&new.status, &old.status, &counts, "readyReplicas", at);
    },
    generation: |new, old| Some(new.spec != old.spec),
    warnings: |new, old| {
        let same = old.is_some_and(|old| old.spec == new.spec);
        let template = new.spec.template.as_ref().filter(|_| !same);
        workload::warnings(&new.metadata, template, old.is_none())
    },
    columns: &[
        name(),
        integer("Desired", "Number of pods wanted.").number("spec.replicas"),
        integer("Current", "Number of pods there are.").number("status.replicas"),
        integer("Ready", "Number of pods that are ready.").number("status.readyReplicas"),
        age(),
        CONTAINERS.of(|it| columns::container_names(it.spec.template.as_ref())),
        IMAGES.of(|it| columns::images(it.spec.template.as_ref())),
        SELECTOR.of(|it| columns::selector(Some(&it.spec.selector))),
    ],
    ..Rows::NEW
};
