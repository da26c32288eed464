//! ResourceQuotas.

use k8s_openapi::api::core::v1::ResourceQuota;

use super::rules::status_apart;
use super::{Strategy, fill};

/// The strategy of ResourceQuotas.
pub struct Rules;

impl Strategy for Rules {
    type Object = ResourceQuota;

    status_apart!();

    fn default(&self, quota: &mut ResourceQuota) {
        fill::amounts(&mut quota.spec.get_or_insert_default().hard);
        if let Some(status) = &mut quota.status {
            fill::amounts(&mut status.hard);
            fill::amounts(&mut status.used);
        }
    }
}
