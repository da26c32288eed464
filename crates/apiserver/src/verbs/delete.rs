//! Delete: at once, after a grace period, or when the last finalizer is removed.

use std::sync::Arc;

use api::object::Object;
use api::status::FieldError;
use api::{ApiError, Kind};
use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Status, StatusDetails, Time};
use store::{Outcome, Revision};

use super::answer;
use super::current::{ATTEMPTS, Attempt, Current};
use crate::admission::Before;
use crate::body;
use crate::cache::Version;
use crate::core::{Call, decode, version_of};
use crate::definitions;
use crate::error::WriteError;
use crate::kinds::{Dependents, strategy};
use crate::meta;
use crate::options::{self, integer};
use crate::request::{Request, Verb};
use crate::response::{ObjectAnswer, Response};
use crate::{keys, scan, stored};

/// Parses `DeleteOptions` from the body and the query.
///
/// # Errors
/// 400 when they cannot be parsed, 422 when they are not valid.
pub fn options(verb: Verb, request: &Request) -> Result<DeleteOptions, ApiError> {
    let mut options: DeleteOptions = if request.body.is_empty() {
        DeleteOptions::default()
    } else {
        let json = body::as_json(&request.body, request.body_format)?;
        let kind = scan::string(&json, "kind");
        if !matches!(kind.as_str(), "" | "DeleteOptions") {
            return Err(ApiError::bad_request(
                "decoded object cannot be converted to DeleteOptions",
            ));
        }
        api::options::decode_delete_options(&json).map_err(|error| {
            ApiError::bad_request(format!("error decoding DeleteOptions: {error}"))
        })?
    };
    if let Some(text) = request.options.parameter("gracePeriodSeconds") {
        options.grace_period_seconds = Some(integer(text)?);
    }
    if let Some(policy) = request.options.parameter("propagationPolicy") {
        options.propagation_policy = Some(policy.to_owned());
    }
    if request.options.parameter("orphanDependents").is_some() {
        options.orphan_dependents = Some(request.options.flag("orphanDependents"));
    }
    check_options(verb, &options)?;
    if options.grace_period_seconds.is_some_and(|seconds| seconds < 0) {
        // As upstream, a negative grace period means the shortest.
        options.grace_period_seconds = Some(1);
    }
    Ok(options)
}

/// Unsupported or mutually exclusive values (`ValidateDeleteOptions`).
fn check_options(verb: Verb, options: &DeleteOptions) -> Result<(), ApiError> {
    let mut errors = Vec::new();
    let policy = options.propagation_policy.as_deref();
    if policy.is_some() && options.orphan_dependents.is_some() {
        let problem = "orphanDependents and deletionPropagation cannot be both set";
        errors.push(FieldError::invalid("propagationPolicy", policy, problem));
    }
    let supported = ["Foreground", "Background", "Orphan", "nil"];
    if policy.is_some_and(|policy| !supported[..3].contains(&policy)) {
        errors.push(FieldError::not_supported("propagationPolicy", policy, &supported));
    }
    let values: Vec<&str> = options.dry_run.iter().flatten().map(String::as_str).collect();
    options::dry_run(&values, &mut errors);
    options::refuse(verb, &errors)
}

/// Whether the options ask for a dry run.
pub fn is_dry_run(options: &DeleteOptions) -> bool {
    options.dry_run.as_ref().is_some_and(|values| values.iter().any(|value| value == "All"))
}

/// Deletes the target.
///
/// # Errors
/// 404, 409 and those of admission.
pub async fn delete(call: Call<'_>, request: &Request) -> Result<Response, ApiError> {
    let options = options(call.verb, request)?;
    let mut call_options = call.options.clone();
    call_options.dry_run |= is_dry_run(&options);
    let call = Call { options: &call_options, ..call };
    let deleted = delete_object(call, &options).await?;
    let warnings = warning(call.row(), &options).map(str::to_owned).into_iter().collect();
    Ok(match deleted {
        Deletion::Now(version) if call.row() != Pod::ROW => {
            Response::Json { code: 200, json: success(call, &version), warnings }
        }
        Deletion::Now(version) | Deletion::Later(version) => {
            Response::Object(ObjectAnswer { warnings, ..answer(call.row(), 200, version) })
        }
    })
}

/// What the client may not expect of the kind's default, if it named no policy itself.
fn warning(row: &api::KindRow, options: &DeleteOptions) -> Option<&'static str> {
    match strategy(row).dependents() {
        Dependents::Orphaned { warning }
            if options.propagation_policy.is_none() && options.orphan_dependents.is_none() =>
        {
            warning
        }
        _ => None,
    }
}

/// The result of a deletion.
pub enum Deletion {
    /// Deleted: its last state.
    Now(Arc<Version>),
    /// Terminating.
    Later(Arc<Version>),
}

fn success(call: Call<'_>, version: &Version) -> Bytes {
    let row = call.row();
    let status = Status {
        status: Some("Success".to_owned()),
        details: Some(StatusDetails {
            name: Some(version.name.to_string()),
            group: (!row.group.is_empty()).then(|| row.group.to_string()),
            kind: Some(row.plural.to_string()),
            uid: Some(version.uid.to_string()),
            ..StatusDetails::default()
        }),
        ..Status::default()
    };
    api::status::encode_status(&status).into()
}

/// Deletes the target with `options`.
///
/// # Errors
/// As [`delete`].
pub async fn delete_object(call: Call<'_>, options: &DeleteOptions) -> Result<Deletion, ApiError> {
    let mut current = Current::of(call).await?;
    for _ in 0..ATTEMPTS {
        let attempt = attempt(call, options, &current.version).await;
        if let Some(deleted) = current.settle(call, attempt).await? {
            return Ok(deleted);
        }
    }
    Err(ApiError::modified(call.row(), &call.target.name))
}

async fn attempt(
    call: Call<'_>,
    options: &DeleteOptions,
    current: &Arc<Version>,
) -> Result<Attempt<Deletion>, WriteError> {
    let row = call.row();
    let current = &call.core.converted(row, current).await?;
    let object = decode(row, current)?;
    check_preconditions(call, options, current)?;
    let before = Before { object: &*object, revision: current.revision };
    call.core.admission.delete(call, before, options).await?;
    let plan = plan(row, &*object, options, call.now());
    match plan {
        Plan::Remove => Ok(remove(call, current, &*object).await?.map(Deletion::Now)),
        Plan::Keep => Ok(Attempt::Decided(Deletion::Later(current.clone()))),
        Plan::Mark(mut marked) => {
            let marked = call.core.written(row, stored::encode(&mut *marked)).await?;
            let key = call.target.key();
            let later = |revision| marked.version(row, &key, revision).map(Deletion::Later);
            if call.options.dry_run {
                return Ok(Attempt::Decided(later(current.revision)?));
            }
            let expected = Revision::new(current.revision);
            let value = marked.stored.clone();
            Ok(match call.core.store.update(keys::object(row, &key), value, expected).await? {
                Outcome::Written(revision) => Attempt::Written(later(revision.get())?),
                Outcome::Conflict { current, .. } => {
                    Attempt::Lost(current.map(|entry| version_of(row, &key, &entry)).transpose()?)
                }
            })
        }
    }
}

/// Checks what the options require of the current version.
///
/// # Errors
/// 409 when it is another.
pub fn check_preconditions(
    call: Call<'_>,
    options: &DeleteOptions,
    current: &Version,
) -> Result<(), ApiError> {
    let Some(preconditions) = &options.preconditions else {
        return Ok(());
    };
    let failed = |message: String| {
        Err(ApiError::conflict(
            call.row(),
            &call.target.name,
            format!("Precondition failed: {message}"),
        ))
    };
    if let Some(uid) = &preconditions.uid
        && **uid != *current.uid
    {
        return failed(format!("UID in precondition: {uid}, UID in object meta: {}", current.uid));
    }
    if let Some(version) = &preconditions.resource_version
        && *version != current.revision.to_string()
    {
        return failed(format!(
            "ResourceVersion in precondition: {version}, ResourceVersion in object meta: {}",
            current.revision
        ));
    }
    Ok(())
}

/// What a deletion does to an object.
enum Plan {
    Remove,
    /// Store the object as terminating.
    Mark(Box<dyn Object>),
    /// It is already terminating, and nothing changes.
    Keep,
}

fn plan(row: &api::KindRow, object: &dyn Object, options: &DeleteOptions, now: Timestamp) -> Plan {
    let mut marked = object.clone_object();
    if object.metadata().deletion_timestamp.is_none() {
        definitions::mark_terminating(&mut *marked, now);
    }
    let finalizers_changed = propagate(marked.metadata_mut(), options, strategy(row).dependents());
    let grace = grace_seconds(row, object, options);
    let metadata = marked.metadata_mut();
    let pending = meta::has_finalizers(metadata) || namespace_is_in_use(object);
    let at = |start: Timestamp, seconds: i64| {
        Timestamp::from_second(start.as_second().saturating_add(seconds)).unwrap_or(start)
    };
    if let Some(terminating) = metadata.deletion_timestamp.clone() {
        let existing = metadata.deletion_grace_period_seconds.unwrap_or_default();
        let wanted = grace.unwrap_or_default();
        let shorter = options.grace_period_seconds.is_some() && wanted < existing;
        if !pending && (existing == 0 || (shorter && wanted == 0)) {
            return Plan::Remove;
        }
        if !shorter && !finalizers_changed {
            return Plan::Keep;
        }
        if shorter {
            let start = at(terminating.0, -existing);
            metadata.deletion_timestamp = Some(Time(at(start, wanted)));
            metadata.deletion_grace_period_seconds = Some(wanted);
        }
        return Plan::Mark(marked);
    }
    let seconds = grace.unwrap_or_default();
    if seconds == 0 && !pending {
        return Plan::Remove;
    }
    metadata.deletion_timestamp = Some(Time(meta::whole_seconds(at(now, seconds))));
    metadata.deletion_grace_period_seconds = Some(seconds);
    if let Some(generation) = metadata.generation.as_mut().filter(|generation| **generation > 0) {
        *generation += 1;
    }
    if let Some(namespace) = marked.downcast_mut::<Namespace>() {
        namespace.status.get_or_insert_default().phase = Some("Terminating".to_owned());
    }
    Plan::Mark(marked)
}

/// Sets the finalizers of the propagation policy. True: they changed.
fn propagate(
    metadata: &mut api::ObjectMeta,
    options: &DeleteOptions,
    dependents: Dependents,
) -> bool {
    let before = metadata.finalizers.clone();
    let mut finalizers = before.clone().unwrap_or_default();
    let asked = finalizers.iter().any(|name| name == meta::FOREGROUND || name == meta::ORPHAN);
    let policy = match (options.propagation_policy.as_deref(), options.orphan_dependents) {
        _ if dependents == Dependents::Unsupported => "Background",
        (Some(policy), _) => policy,
        (None, Some(true)) => "Orphan",
        (None, Some(false)) => "Background",
        (None, None) if asked => return false,
        (None, None) if matches!(dependents, Dependents::Orphaned { .. }) => "Orphan",
        (None, None) => return false,
    };
    finalizers.retain(|name| name != meta::FOREGROUND && name != meta::ORPHAN);
    match policy {
        "Foreground" => finalizers.push(meta::FOREGROUND.to_owned()),
        "Orphan" => finalizers.push(meta::ORPHAN.to_owned()),
        _ => {}
    }
    metadata.finalizers = (!finalizers.is_empty()).then_some(finalizers);
    metadata.finalizers != before
}

/// `None` or 0: at once. A pod that no kubelet runs needs no grace period.
fn grace_seconds(row: &api::KindRow, object: &dyn Object, options: &DeleteOptions) -> Option<i64> {
    let default = strategy(row).default_grace_seconds(object)?;
    if let Some(pod) = object.downcast_ref::<Pod>() {
        let assigned = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if assigned.unwrap_or_default().is_empty() || matches!(phase, Some("Succeeded" | "Failed"))
        {
            return Some(0);
        }
    }
    Some(options.grace_period_seconds.unwrap_or(default))
}

/// Whether a namespace still has finalizers in its spec.
pub fn namespace_is_in_use(object: &dyn Object) -> bool {
    object
        .downcast_ref::<Namespace>()
        .and_then(|namespace| namespace.spec.as_ref())
        .and_then(|spec| spec.finalizers.as_ref())
        .is_some_and(|finalizers| !finalizers.is_empty())
}

/// Removes `current`, which is `object`, from the store; returns its last state.
///
/// # Errors
/// When the store fails.
pub async fn remove(
    call: Call<'_>,
    current: &Arc<Version>,
    object: &dyn Object,
) -> Result<Attempt<Arc<Version>>, WriteError> {
    if call.options.dry_run {
        return Ok(Attempt::Decided(current.clone()));
    }
    let (row, key) = (call.row(), current.key());
    let expected = Revision::new(current.revision);
    Ok(match call.core.store.delete(keys::object(row, &key), expected).await? {
        Outcome::Written(revision) => {
            call.core.allocator.release_object(object).await;
            Attempt::Written(Arc::new(current.at_revision(revision.get())))
        }
        Outcome::Conflict { current, .. } => {
            Attempt::Lost(current.map(|entry| version_of(row, &key, &entry)).transpose()?)
        }
    })
}
