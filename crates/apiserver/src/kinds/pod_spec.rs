//! Pod specs, alone and in templates: [`defaults`] and validation by concept.

pub mod defaults;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The amount of nothing.
pub(crate) fn zero() -> Quantity {
    Quantity("0".to_owned())
}
