//! Deployments.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::pod_spec::defaults;
use super::rules::status_apart;
use super::{Strategy, fill};

/// The strategy of Deployments.
pub struct Rules;

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
}
