//! Leases.

use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::Value;

use super::{Column, Strategy, columns};

/// The strategy of Leases.
pub struct Rules;

static COLUMNS: &[Column] =
    &[columns::NAME, columns::text("Holder", "Who holds the lease."), columns::AGE];

impl Strategy for Rules {
    type Object = Lease;

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, lease: &Lease) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let Some(spec) = &lease.spec else {
            return errors;
        };
        if let Some(seconds) = spec.lease_duration_seconds.filter(|seconds| *seconds <= 0) {
            errors.push(FieldError::invalid(
                "spec.leaseDurationSeconds",
                seconds,
                "must be greater than 0",
            ));
        }
        if let Some(transitions) = spec.lease_transitions.filter(|transitions| *transitions < 0) {
            let problem = "must be greater than or equal to 0";
            errors.push(FieldError::invalid("spec.leaseTransitions", transitions, problem));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, lease: &Lease, now: Timestamp) -> Vec<Value> {
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
        vec![
            columns::name(&lease.metadata),
            holder.unwrap_or_default().into(),
            columns::age(&lease.metadata, now),
        ]
    }
}
