//! One call of one webhook.

use std::time::Duration;

use api::ApiError;
use serde_json::Value;

use super::asked::Asked;
use super::review;
use super::select::Invocation;
use crate::webhook::Post;

/// Longest answer of a webhook: a patch may replace a whole object, in base64.
pub const ANSWER_BYTES: usize = 8 << 20;

/// What a webhook that allows the request wants changed.
#[derive(Debug)]
pub struct Outcome {
    /// The operations of a JSON patch.
    pub patch: Option<Vec<Value>>,
}

/// Why a webhook has not admitted the request.
#[derive(Debug)]
pub enum Failure {
    /// It could not be asked, or its answer is none. The policy for failures decides.
    Calling { why: String, code: u16 },
    /// It says no.
    Denied(ApiError),
    /// The server itself cannot go on.
    Refused(ApiError),
}

impl Failure {
    pub fn calling(why: impl Into<String>) -> Self {
        Self::Calling { why: why.into(), code: 503 }
    }

    /// The kind of error and the code that the metric of rejections has.
    pub fn kind(&self) -> (&'static str, u16) {
        match self {
            Self::Calling { code, .. } => ("calling_webhook_error", *code),
            Self::Denied(error) => ("no_error", error.code()),
            Self::Refused(_) => ("apiserver_internal_error", 0),
        }
    }
}

/// The error of a request whose own time is over.
pub fn out_of_time() -> ApiError {
    ApiError::timeout("Timeout: request did not complete within requested timeout")
}

/// Asks a webhook.
///
/// # Errors
/// When it does not allow the request.
pub async fn call(
    asked: &Asked<'_>,
    invocation: Invocation<'_>,
    new: &Value,
    old: &Value,
) -> Result<Outcome, Failure> {
    let (hook, options) = (invocation.hook, asked.call.options);
    if options.dry_run && !hook.dry_runs {
        let why = format!("admission webhook {:?} does not support dry run", hook.name);
        return Err(Failure::Refused(ApiError::bad_request(why)));
    }
    let Some(version) = hook.review_version else {
        let why = "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)";
        return Err(Failure::Calling { why: why.to_owned(), code: 400 });
    };
    let left = options.due.map(|due| due.saturating_duration_since(clock::instant()));
    if left == Some(Duration::ZERO) {
        return Err(Failure::Refused(out_of_time()));
    }
    let timeout = left.map_or(hook.timeout, |left| left.min(hook.timeout));
    let uid = uuid::Uuid::new_v4().to_string();
    let body = review::body(version, &uid, asked.request(invocation.resource), new, old);
    let post = Post { body, timeout, answer_bytes: ANSWER_BYTES };
    let core = asked.call.core;
    let answer = core.webhooks.post(core, &hook.client, post).await;
    let answer = answer.map_err(|error| Failure::Calling {
        why: format!("failed to call webhook: {error}"),
        code: error.code().unwrap_or(503),
    })?;
    let answer = review::Answer::read(&answer)
        .map_err(|why| Failure::calling(format!("failed to call webhook: {why}")))?;
    let accepted = answer
        .accept(version, &uid, invocation.hook.is_mutating)
        .map_err(|why| Failure::calling(format!("received invalid webhook response: {why}")))?;
    for warning in accepted.warnings {
        options.notes.add(warning);
    }
    for (key, value) in accepted.audit_annotations {
        options.trail.annotate(&format!("{}/{key}", hook.name), value);
    }
    if !accepted.allowed {
        return Err(Failure::Denied(review::denial(&hook.name, accepted.status)));
    }
    let patch = accepted.patch.map(|patch| review::operations(&patch)).transpose();
    let patch = patch.map_err(Failure::Refused)?.filter(|operations| !operations.is_empty());
    match (&patch, accepted.patch_type.as_str()) {
        (None, _) | (Some(_), "JSONPatch") => Ok(Outcome { patch }),
        (Some(_), other) => Err(Failure::calling(format!("unsupported patch type {other:?}"))),
    }
}
