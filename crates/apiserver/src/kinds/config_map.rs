//! ConfigMaps.

use k8s_openapi::api::core::v1::ConfigMap;

use super::Strategy;

/// The strategy of ConfigMaps.
pub struct Rules;

impl Strategy for Rules {
    type Object = ConfigMap;
}
