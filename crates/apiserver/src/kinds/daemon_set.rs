//! DaemonSets.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::pod_spec::defaults;
use super::rules::{generation_of_spec, status_apart};
use super::{Strategy, fill};

/// The strategy of DaemonSets.
pub struct Rules;

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
}
