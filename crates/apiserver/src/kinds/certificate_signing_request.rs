//! CertificateSigningRequests: what is asked for and by whom never changes; approvers change
//! conditions through `approval`, and signers add the certificate through `status`.

mod validate;

use api::certificates::{APPROVED, DENIED, FAILED, has_condition, issued};
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use self::validate::Door;
use super::columns::{self, text};
use super::table::{Parts, Rows, age, name};
use super::{Context, human_duration};

pub static RULES: Rows<CertificateSigningRequest> = Rows {
    name: api::names::path_segment,
    parts: Parts {
        create: |request, context| {
            let (user, spec) = (context.user, &mut request.spec);
            spec.username = Some(user.name.clone());
            spec.uid = Some(user.uid.clone()).filter(|uid| !uid.is_empty());
            spec.groups = Some(user.groups.clone());
            spec.extra = Some(user.extra.clone()).filter(|extra| !extra.is_empty());
            request.status = Some(CertificateSigningRequestStatus::default());
        },
        update: |new, old, _| {
            new.spec.clone_from(&old.spec);
            new.status.clone_from(&old.status);
        },
        status: prepare_status,
    },
    judge: |request, at| validate::spec(&request.spec, &at.child("spec")),
    update: |new, old, at| validate::status(new, old, Door::Object, &at.child("status")),
    status_update: |new, old, context, at| {
        let door = if context.subresource == "approval" { Door::Approval } else { Door::Status };
        validate::status(new, old, door, &at.child("status"));
    },
    columns: &[
        name(),
        age(),
        text("SignerName", "The signer that is to issue the certificate.")
            .or("spec.signerName", columns::NONE),
        text("Requestor", "The user that created the request.").at("spec.username"),
        text("RequestedDuration", "How long the certificate is to be valid.").of(|request| {
            let seconds = request.spec.expiration_seconds;
            seconds.map_or(columns::NONE.to_owned(), |it| human_duration(it.into())).into()
        }),
        text("Condition", "Whether it is approved, denied, failed or issued.")
            .of(|request| condition(request).into()),
    ],
    ..Rows::NEW
};

fn prepare_status(
    new: &mut CertificateSigningRequest,
    old: &CertificateSigningRequest,
    context: &Context<'_>,
) {
    new.spec.clone_from(&old.spec);
    if context.subresource == "approval" {
        let conditions = new.status.take().and_then(|status| status.conditions);
        let status = old.status.clone().unwrap_or_default();
        new.status = Some(CertificateSigningRequestStatus { conditions, ..status });
    } else {
        // Whether it is approved is not the signer's to say.
        keep_instances(new, old, APPROVED);
        keep_instances(new, old, DENIED);
    }
    complete_times(new, old, context.now);
}

/// `Approved,Issued`
fn condition(request: &CertificateSigningRequest) -> String {
    let mut text = if has_condition(request, DENIED) {
        "Denied"
    } else if has_condition(request, APPROVED) {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if has_condition(request, FAILED) {
        text.push_str(",Failed");
    }
    if issued(request).is_some() {
        text.push_str(",Issued");
    }
    text
}

fn conditions(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    let status = request.status.as_ref();
    status.and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

/// Puts the old conditions of a type where the new ones are, one for one.
fn keep_instances(
    new: &mut CertificateSigningRequest,
    old: &CertificateSigningRequest,
    type_: &str,
) {
    let mut before = conditions(old).iter().filter(|condition| condition.type_ == type_);
    let now = new.status.as_mut().and_then(|status| status.conditions.as_mut());
    for condition in now.into_iter().flatten().filter(|condition| condition.type_ == type_) {
        match before.next() {
            Some(old) => condition.clone_from(old),
            None => return,
        }
    }
}

/// Fills the times of conditions that have none: since when it has its status, and now.
fn complete_times(
    new: &mut CertificateSigningRequest,
    old: &CertificateSigningRequest,
    now: Timestamp,
) {
    let all = new.status.as_mut().and_then(|status| status.conditions.as_mut());
    for condition in all.into_iter().flatten() {
        condition.last_update_time.get_or_insert(Time(now));
        if condition.last_transition_time.is_none() {
            let before = conditions(old).iter().find(|before| {
                before.type_ == condition.type_ && before.status == condition.status
            });
            let since = before.and_then(|before| before.last_transition_time.clone());
            condition.last_transition_time = Some(since.unwrap_or(Time(now)));
        }
    }
}
