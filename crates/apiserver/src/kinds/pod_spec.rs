//! Pod specs, alone and in templates: [`defaults`], [`validate`] by concept, and [`warnings`] about
//! what is valid but unlikely to be intended.

mod affinity;
mod containers;
pub mod defaults;
pub mod env;
mod handlers;
pub mod label_keys;
pub mod resources;
mod scheduling;
mod security;
pub mod validate;
pub mod warnings;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

pub use affinity::node_selector;
pub use scheduling::{TAINT_EFFECTS, only_added, only_deleted_gates};

/// A quantity of zero.
pub(crate) fn zero() -> Quantity {
    Quantity("0".to_owned())
}
