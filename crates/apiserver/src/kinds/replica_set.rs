//! ReplicaSets.

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::pod_spec::defaults;
use super::rules::{generation_of_spec, status_apart};
use super::{Strategy, fill};

/// The strategy of ReplicaSets.
pub struct Rules;

impl Strategy for Rules {
    type Object = ReplicaSet;

    status_apart!();
    generation_of_spec!();

    fn default(&self, set: &mut ReplicaSet) {
        let spec = &mut set.spec;
        fill::missing(&mut spec.replicas, 1);
        defaults::template(spec.template.get_or_insert_default());
    }
}
