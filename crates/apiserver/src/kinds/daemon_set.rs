//! DaemonSets.

use super::columns;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::pod_spec::defaults;
use super::rules::{generation_of_spec, status_apart};
use super::{Column, Strategy, fill};

/// The strategy of DaemonSets.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::integer("Desired", "Number of nodes that should run a pod."),
    columns::integer("Current", "Number of nodes that run a pod."),
    columns::integer("Ready", "Number of nodes with a ready pod."),
    columns::integer(
        "Up-to-date",
        "Number of nodes with a pod of the latest template.",
    ),
    columns::integer("Available", "Number of nodes with an available pod."),
    columns::text("Node Selector", "Nodes that the pods may run on."),
    columns::AGE,
    columns::CONTAINERS,
    columns::IMAGES,
    columns::SELECTOR,
];

impl Strategy for Rules {
    type Object = DaemonSet;

    status_apart!();
    generation_of_spec!();

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

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, set: &DaemonSet, now: Timestamp) -> Vec<Value> {
        let status = set.status.clone().unwrap_or_default();
        let [names, images] = columns::template(Some(&set.spec.template));
        let nodes = set
            .spec
            .template
            .spec
            .as_ref()
            .and_then(|spec| spec.node_selector.as_ref());
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
