//! ReplicationControllers.

use k8s_openapi::api::core::v1::{PodTemplateSpec, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::columns::{self, CONTAINERS, IMAGES, SELECTOR, integer};
use super::pod_spec::defaults;
use super::table::{Rows, age, name, status_apart};
use super::{Dependents, fill, status, workload};

pub static RULES: Rows<ReplicationController> = Rows {
    default: |controller| {
        let spec = controller.spec.get_or_insert_default();
        fill::missing(&mut spec.replicas, 1);
        let Some(template) = &mut spec.template else {
            return;
        };
        defaults::template(template);
        let labels = template.metadata.as_ref().and_then(|metadata| metadata.labels.clone());
        if let Some(labels) = labels {
            if spec.selector.as_ref().is_none_or(|selector| selector.is_empty()) {
                spec.selector = Some(labels.clone());
            }
            if controller.metadata.labels.as_ref().is_none_or(|own| own.is_empty()) {
                controller.metadata.labels = Some(labels);
            }
        }
    },
    parts: status_apart!(),
    judge: |controller, at| {
        let at = at.child("spec");
        let Some(spec) = &controller.spec else {
            return;
        };
        at.none_negative(&[
            ("minReadySeconds", spec.min_ready_seconds),
            ("replicas", spec.replicas),
        ]);
        let selector =
            LabelSelector { match_labels: spec.selector.clone(), match_expressions: None };
        if spec.selector.as_ref().is_none_or(|selector| selector.is_empty()) {
            at.child("selector").required("");
        }
        let own = at.child("template");
        match &spec.template {
            None => own.required(""),
            Some(template) => {
                workload::template(template, &selector, &own);
                workload::runs_for_ever(template, "ReplicationController", &own);
            }
        }
    },
    status_update: |new, old, _, at| {
        let counts = ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
        status::replicas(&new.status, &old.status, &counts, "readyReplicas", at);
    },
    generation: |new, old| Some(new.spec != old.spec),
    warnings: |new, old| {
        let same = old.is_some_and(|old| old.spec == new.spec);
        workload::warnings(&new.metadata, template(new).filter(|_| !same), old.is_none())
    },
    dependents: Dependents::Orphaned { warning: None },
    columns: &[
        name(),
        integer("Desired", "Number of pods wanted.").number("spec.replicas"),
        integer("Current", "Number of pods there are.").number("status.replicas"),
        integer("Ready", "Number of pods that are ready.").number("status.readyReplicas"),
        age(),
        CONTAINERS.of(|it| columns::container_names(template(it))),
        IMAGES.of(|it| columns::images(template(it))),
        SELECTOR.of(|it| {
            let spec = it.spec.as_ref();
            columns::labels(spec.and_then(|spec| spec.selector.as_ref()))
        }),
    ],
    ..Rows::NEW
};

fn template(controller: &ReplicationController) -> Option<&PodTemplateSpec> {
    controller.spec.as_ref()?.template.as_ref()
}
