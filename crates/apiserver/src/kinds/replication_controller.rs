//! ReplicationControllers.

use k8s_openapi::api::core::v1::ReplicationController;

use super::pod_spec::defaults;
use super::rules::{generation_of_spec, status_apart};
use super::{Strategy, fill};

/// The strategy of ReplicationControllers.
pub struct Rules;

impl Strategy for Rules {
    type Object = ReplicationController;

    status_apart!();
    generation_of_spec!();

    fn default(&self, controller: &mut ReplicationController) {
        let spec = controller.spec.get_or_insert_default();
        fill::missing(&mut spec.replicas, 1);
        let Some(template) = &mut spec.template else {
            return;
        };
        defaults::template(template);
        let labels = template
            .metadata
            .as_ref()
            .and_then(|metadata| metadata.labels.clone());
        if let Some(labels) = labels {
            if spec
                .selector
                .as_ref()
                .is_none_or(|selector| selector.is_empty())
            {
                spec.selector = Some(labels.clone());
            }
            if controller
                .metadata
                .labels
                .as_ref()
                .is_none_or(|own| own.is_empty())
            {
                controller.metadata.labels = Some(labels);
            }
        }
    }
}
