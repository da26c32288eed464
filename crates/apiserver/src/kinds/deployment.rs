//! Deployments.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStrategy};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::at::At;
use super::columns::{self, CONTAINERS, IMAGES, SELECTOR, integer, text};
use super::pod_spec::defaults;
use super::table::{Rows, age, name, status_apart};
use super::{check, fill, status, workload};

pub static RULES: Rows<Deployment> = Rows {
    default: |deployment| {
        let spec = &mut deployment.spec;
        defaults::template(&mut spec.template);
        fill::missing(&mut spec.replicas, 1);
        let strategy = spec.strategy.get_or_insert_default();
        fill::text(&mut strategy.type_, "RollingUpdate");
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            let rolling = strategy.rolling_update.get_or_insert_default();
            let quarter = || IntOrString::String("25%".to_owned());
            fill::missing(&mut rolling.max_unavailable, quarter());
            fill::missing(&mut rolling.max_surge, quarter());
        }
        fill::missing(&mut spec.revision_history_limit, 10);
        fill::missing(&mut spec.progress_deadline_seconds, 600);
    },
    parts: status_apart!(),
    judge: |deployment, at| {
        let (spec, at) = (&deployment.spec, at.child("spec"));
        at.none_negative(&[("replicas", spec.replicas)]);
        workload::selector(&spec.selector, "deployment", &at.child("selector"));
        let template = at.child("template");
        workload::template(&spec.template, &spec.selector, &template);
        workload::runs_for_ever(&spec.template, "ReplicaSet", &template);
        if let Some(strategy) = &spec.strategy {
            validate_strategy(strategy, &at.child("strategy"));
        }
        at.none_negative(&[
            ("minReadySeconds", spec.min_ready_seconds),
            ("revisionHistoryLimit", spec.revision_history_limit),
        ]);
        if let Some(deadline) = spec.progress_deadline_seconds {
            let at = at.child("progressDeadlineSeconds");
            at.not_negative(deadline);
            if deadline <= spec.min_ready_seconds.unwrap_or(0) {
                at.invalid(deadline, "must be greater than minReadySeconds");
            }
        }
    },
    update: |new, old, at| {
        workload::immutable_selector(&new.spec.selector, &old.spec.selector, at);
    },
    status_update: |new, old, _, at| {
        let counts = [
            "unavailableReplicas",
            "terminatingReplicas",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
        ];
        status::replicas(&new.status, &old.status, &counts, "readyReplicas", at);
    },
    // Annotations count as well: the deployment controller copies them to its ReplicaSets.
    generation: |new, old| {
        Some(new.spec != old.spec || new.metadata.annotations != old.metadata.annotations)
    },
    warnings: |new, old| {
        let same = old.is_some_and(|old| old.spec == new.spec);
        let template = Some(&new.spec.template).filter(|_| !same);
        workload::warnings(&new.metadata, template, old.is_none())
    },
    columns: &[
        name(),
        text("Ready", "Ready pods of wanted pods.").of(|it| {
            let ready = it.status.as_ref().and_then(|status| status.ready_replicas);
            format!("{}/{}", ready.unwrap_or(0), it.spec.replicas.unwrap_or(0)).into()
        }),
        integer("Up-to-date", "Number of pods of the latest template.")
            .number("status.updatedReplicas"),
        integer("Available", "Number of pods that have been ready for long enough.")
            .number("status.availableReplicas"),
        age(),
        CONTAINERS.of(|it| columns::container_names(Some(&it.spec.template))),
        IMAGES.of(|it| columns::images(Some(&it.spec.template))),
        SELECTOR.of(|it| columns::selector(Some(&it.spec.selector))),
    ],
    ..Rows::NEW
};

fn validate_strategy(strategy: &DeploymentStrategy, at: &At<'_>) {
    let own = at.child("rollingUpdate");
    match (check::text(&strategy.type_), &strategy.rolling_update) {
        ("Recreate", Some(_)) => {
            own.forbidden("may not be specified when strategy `type` is 'Recreate'")
        }
        ("Recreate", None) => {}
        ("RollingUpdate", None) => own.required("this should be defaulted and never be nil"),
        ("RollingUpdate", Some(rolling)) => {
            let (unavailable, surge) =
                (rolling.max_unavailable.as_ref(), rolling.max_surge.as_ref());
            if let Some(unavailable) = unavailable {
                own.child("maxUnavailable").number_or_percent(unavailable);
                own.child("maxUnavailable").not_more_than_all(unavailable);
            }
            if let Some(surge) = surge {
                own.child("maxSurge").number_or_percent(surge);
            }
            if check::is_zero(unavailable) && check::is_zero(surge) {
                let value = unavailable;
                own.child("maxUnavailable").invalid(value, "may not be 0 when `maxSurge` is 0");
            }
        }
        (other, _) => at.child("type").not_supported(other, &["Recreate", "RollingUpdate"]),
    }
}
