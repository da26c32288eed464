//! Deployments.

use super::columns;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::pod_spec::defaults;
use super::rules::status_apart;
use super::{Column, Strategy, fill};

/// The strategy of Deployments.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Ready", "Ready pods of wanted pods."),
    columns::integer("Up-to-date", "Number of pods of the latest template."),
    columns::integer(
        "Available",
        "Number of pods that have been ready for long enough.",
    ),
    columns::AGE,
    columns::CONTAINERS,
    columns::IMAGES,
    columns::SELECTOR,
];

impl Strategy for Rules {
    type Object = Deployment;

    status_apart!();

    fn default(&self, deployment: &mut Deployment) {
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
    }

    /// Annotations count as well: the deployment controller copies them to its ReplicaSets.
    fn generation_changes(&self, new: &Deployment, old: &Deployment) -> Option<bool> {
        Some(new.spec != old.spec || new.metadata.annotations != old.metadata.annotations)
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, deployment: &Deployment, now: Timestamp) -> Vec<Value> {
        let status = deployment.status.clone().unwrap_or_default();
        let [names, images] = columns::template(Some(&deployment.spec.template));
        vec![
            columns::name(&deployment.metadata),
            format!(
                "{}/{}",
                status.ready_replicas.unwrap_or(0),
                deployment.spec.replicas.unwrap_or(0)
            )
            .into(),
            status.updated_replicas.unwrap_or(0).into(),
            status.available_replicas.unwrap_or(0).into(),
            columns::age(&deployment.metadata, now),
            names,
            images,
            columns::selector(Some(&deployment.spec.selector)),
        ]
    }
}
