//! PriorityClasses.

use k8s_openapi::api::scheduling::v1::PriorityClass;

use super::{Strategy, fill};

/// The strategy of PriorityClasses.
pub struct Rules;

impl Strategy for Rules {
    type Object = PriorityClass;

    fn default(&self, class: &mut PriorityClass) {
        fill::text(&mut class.preemption_policy, "PreemptLowerPriority");
    }

    /// A class has a generation that never rises, since only its description can change.
    fn generation_changes(&self, _: &PriorityClass, _: &PriorityClass) -> Option<bool> {
        Some(false)
    }
}
