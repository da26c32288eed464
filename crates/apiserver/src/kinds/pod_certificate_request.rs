//! PodCertificateRequests: a kubelet asks for a certificate of a pod, and a signer answers once
//! (`k8s.io/kubernetes/pkg/registry/certificates/podcertificaterequest`).

mod chain;
mod validate;

use api::certificates::pod::{DEFAULT_SECONDS, TERMINAL};
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{PodCertificateRequest, PodCertificateRequestStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::table::{Fixed, Parts, Rows};

pub static RULES: Rows<PodCertificateRequest> = Rows {
    default: |request| {
        request.spec.max_expiration_seconds.get_or_insert(DEFAULT_SECONDS);
    },
    parts: Parts {
        create: |request, _| request.status = Some(PodCertificateRequestStatus::default()),
        update: |new, old, _| new.status.clone_from(&old.status),
        status: |new, old, context| {
            new.spec.clone_from(&old.spec);
            new.metadata.labels.clone_from(&old.metadata.labels);
            new.metadata.annotations.clone_from(&old.metadata.annotations);
            new.metadata.finalizers.clone_from(&old.metadata.finalizers);
            new.metadata.owner_references.clone_from(&old.metadata.owner_references);
            TERMINAL.iter().for_each(|type_| keep_instances(new, old, type_));
            complete_times(new, old, context.now);
        },
    },
    create: |request, at| validate::spec(&request.spec, &at.child("spec")),
    fixed: &[("spec", Fixed::Whole("spec"))],
    status_update: |new, old, context, at| validate::status(new, old, context.now, at),
    unconditional: false,
    ..Rows::NEW
};

fn conditions(request: &PodCertificateRequest) -> &[Condition] {
    let status = request.status.as_ref();
    status.and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

/// Puts the old conditions of a type where the new ones are, if there are as many.
fn keep_instances(new: &mut PodCertificateRequest, old: &PodCertificateRequest, type_: &str) {
    let is = |condition: &&Condition| condition.type_ == type_;
    if conditions(new).iter().filter(is).count() != conditions(old).iter().filter(is).count() {
        return;
    }
    let now = new.status.as_mut().and_then(|status| status.conditions.as_mut());
    let now = now.into_iter().flatten().filter(|condition| condition.type_ == type_);
    for (condition, before) in now.zip(conditions(old).iter().filter(is)) {
        condition.clone_from(before);
    }
}

/// Fills the times of conditions that have none.
fn complete_times(new: &mut PodCertificateRequest, old: &PodCertificateRequest, now: Timestamp) {
    // What a missing time is decoded as.
    let missing = |time: &Time| time.0 == Timestamp::UNIX_EPOCH;
    let all = new.status.as_mut().and_then(|status| status.conditions.as_mut());
    for condition in all.into_iter().flatten() {
        if missing(&condition.last_transition_time) {
            let before = conditions(old).iter().find(|before| {
                before.type_ == condition.type_
                    && before.status == condition.status
                    && !missing(&before.last_transition_time)
            });
            let since = before.map_or(Time(now), |before| before.last_transition_time.clone());
            condition.last_transition_time = since;
        }
    }
}
