//! Leases.

use k8s_openapi::api::coordination::v1::Lease;

use super::columns::text;
use super::table::{Rows, age, name};

pub static RULES: Rows<Lease> = Rows {
    any_finalizer: true,
    judge: |lease, at| {
        let Some(spec) = &lease.spec else { return };
        if let Some(seconds) = spec.lease_duration_seconds.filter(|seconds| *seconds <= 0) {
            at.child("spec.leaseDurationSeconds").invalid(seconds, "must be greater than 0");
        }
        at.child("spec.leaseTransitions").not_negative(spec.lease_transitions.unwrap_or(0));
    },
    unconditional: false,
    create_on_update: true,
    columns: &[name(), text("Holder", "Who holds the lease.").at("spec.holderIdentity"), age()],
    ..Rows::NEW
};
