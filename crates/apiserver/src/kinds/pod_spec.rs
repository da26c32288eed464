//! Pod specs, alone and in templates: [`defaults`], [`validate`] by concept, and [`warnings`] about
//! what is valid but unlikely to be intended.

mod affinity;
mod containers;
pub mod env;
mod handlers;
pub mod label_keys;
pub mod resources;
mod scheduling;
mod security;
pub mod validate;
pub mod warnings;

pub use affinity::node_selector;
pub use api::defaults::pod_spec as defaults;
pub use scheduling::{TAINT_EFFECTS, only_added, only_deleted_gates, tolerations};
