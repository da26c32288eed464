//! StatefulSets.

use super::columns;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use serde_json::Value;

use super::pod_spec::defaults;
use super::rules::{generation_of_spec, status_apart};
use super::{Column, Strategy, fill, persistent_volume_claim};

/// The strategy of StatefulSets.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Ready", "Ready pods of wanted pods."),
    columns::AGE,
    columns::CONTAINERS,
    columns::IMAGES,
];

impl Strategy for Rules {
    type Object = StatefulSet;

    status_apart!();
    generation_of_spec!();

    fn default(&self, set: &mut StatefulSet) {
        let spec = &mut set.spec;
        defaults::template(&mut spec.template);
        fill::text(&mut spec.pod_management_policy, "OrderedReady");
        let update = spec.update_strategy.get_or_insert_default();
        if update.type_.as_deref().unwrap_or_default().is_empty() {
            fill::text(&mut update.type_, "RollingUpdate");
            update.rolling_update.get_or_insert_default();
        }
        if let Some(rolling) = &mut update.rolling_update
            && update.type_.as_deref() == Some("RollingUpdate")
        {
            fill::missing(&mut rolling.partition, 0);
        }
        let retention = spec
            .persistent_volume_claim_retention_policy
            .get_or_insert_default();
        fill::text(&mut retention.when_deleted, "Retain");
        fill::text(&mut retention.when_scaled, "Retain");
        fill::missing(&mut spec.replicas, 1);
        fill::missing(&mut spec.revision_history_limit, 10);
        for claim in spec.volume_claim_templates.iter_mut().flatten() {
            persistent_volume_claim::default(claim);
        }
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, set: &StatefulSet, now: Timestamp) -> Vec<Value> {
        let ready = set
            .status
            .as_ref()
            .and_then(|status| status.ready_replicas)
            .unwrap_or(0);
        let [names, images] = columns::template(Some(&set.spec.template));
        vec![
            columns::name(&set.metadata),
            format!("{ready}/{}", set.spec.replicas.unwrap_or(0)).into(),
            columns::age(&set.metadata, now),
            names,
            images,
        ]
    }
}
