//! Update and patch: a change computed from the current object and stored by compare-and-swap,
//! retried until it succeeds or a precondition fails.

use std::future::ready;
use std::sync::Arc;

use api::object::Object;
use api::status::FieldError;
use api::{ApiError, ObjectMeta};
use futures::FutureExt;
use futures::future::BoxFuture;
use store::{Outcome, Revision};

use super::current::{ATTEMPTS, Attempt, Current};
use super::delete::remove;
use super::{answer, create};
use crate::admission::{Admitted, Before};
use crate::authz::authorize_creation;
use crate::body;
use crate::cache::Version;
use crate::core::{Call, decode, version_of};
use crate::error::{WriteError, store_error};
use crate::kinds::{Context, strategy};
use crate::meta;
use crate::request::{Request, Verb};
use crate::response::{ObjectAnswer, Response};
use crate::{keys, stored};

/// Replaces the object with the request's body.
///
/// # Errors
/// As Kubernetes.
pub async fn update(call: Call<'_>, request: &Request) -> Result<Response, ApiError> {
    let json = body::object_json(&call.row().kind, &request.body, request.body_format)?;
    let decoded = body::decode(call.row(), &json, call.options.field_validation)?;
    let mut object = decoded.object;
    if object.metadata().name.as_deref().unwrap_or_default().is_empty() {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            call.target.name
        )));
    }
    meta::place(object.metadata_mut(), call.target)?;
    let strategy = strategy(call.row());
    meta::deduplicate_owners(call, object.metadata_mut(), false);
    let unconditional = is_unconditional(object.metadata());
    let outcome = update_with(call, |_, _| Ok(object.clone_object())).await;
    let mut answer = match outcome {
        Err(error)
            if error.is_not_found()
                && strategy.allow_create_on_update()
                && call.target.subresource.is_empty()
                && unconditional =>
        {
            authorize_creation(call.core, request).await?;
            create::create_object(call, object).await?
        }
        outcome => outcome?,
    };
    answer.warnings.extend(decoded.warnings);
    Ok(Response::Object(answer))
}

/// What a write makes of the current object, of which it also gets the bytes.
pub trait Change: Send {
    fn make<'a>(
        &'a mut self,
        old: &'a dyn Object,
        version: &'a Version,
    ) -> BoxFuture<'a, Result<Box<dyn Object>, ApiError>>;
}

/// A change that waits for nobody.
struct Computed<F>(F);

impl<F> Change for Computed<F>
where
    F: FnMut(&dyn Object, &Version) -> Result<Box<dyn Object>, ApiError> + Send,
{
    fn make<'a>(
        &'a mut self,
        old: &'a dyn Object,
        version: &'a Version,
    ) -> BoxFuture<'a, Result<Box<dyn Object>, ApiError>> {
        ready((self.0)(old, version)).boxed()
    }
}

/// How a change is processed before it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Defaults, admission, the kind's strategy, validation.
    Ruled,
    /// None: a change that the apiserver itself computed.
    Plain,
}

/// Stores a change that the apiserver itself computed, without admission or the kind's strategy.
///
/// # Errors
/// 404, 409 and those of `change`.
pub async fn swap_with(
    call: Call<'_>,
    change: impl FnMut(&dyn Object, &Version) -> Result<Box<dyn Object>, ApiError> + Send,
) -> Result<ObjectAnswer, ApiError> {
    write_with(call, Mode::Plain, &mut Computed(change)).await
}

/// Stores what `change` makes of the target: given the current object and its bytes, it returns the
/// new object. A resourceVersion or uid in the new object is a precondition.
///
/// # Errors
/// 404, 409, 422 and those of `change` and admission.
pub async fn update_with(
    call: Call<'_>,
    change: impl FnMut(&dyn Object, &Version) -> Result<Box<dyn Object>, ApiError> + Send,
) -> Result<ObjectAnswer, ApiError> {
    change_with(call, &mut Computed(change)).await
}

/// As [`update_with`], with a change that may have to wait.
///
/// # Errors
/// As [`update_with`].
pub async fn change_with(
    call: Call<'_>,
    change: &mut dyn Change,
) -> Result<ObjectAnswer, ApiError> {
    write_with(call, Mode::Ruled, change).await
}

async fn write_with(
    call: Call<'_>,
    mode: Mode,
    change: &mut dyn Change,
) -> Result<ObjectAnswer, ApiError> {
    let mut current = Current::of(call).await?;
    for _ in 0..ATTEMPTS {
        let attempt = attempt(call, mode, &current.version, change).await;
        if let Some(answer) = current.settle(call, attempt).await? {
            return Ok(answer);
        }
    }
    Err(ApiError::modified(call.row(), &call.target.name))
}

async fn attempt(
    call: Call<'_>,
    mode: Mode,
    current: &Arc<Version>,
    change: &mut dyn Change,
) -> Result<Attempt<ObjectAnswer>, WriteError> {
    let row = call.row();
    // What is stored in another form than it would be now is written anew.
    let is_stored_so = current.is_stored_as_written(row);
    let current = &call.core.converted(row, current).await?;
    let mut old = decode(row, current)?;
    let mut new = change.make(&*old, current).await?;
    expected(call, &*new, current)?;
    old.metadata_mut().resource_version = None;
    new.metadata_mut().resource_version = None;
    let before = Before { object: &*old, revision: current.revision };
    if mode == Mode::Ruled {
        prepare(call, &mut new, before).await?;
    }
    let is_last = finished(&*new);
    let allocation = match mode {
        Mode::Ruled if !is_last => {
            call.core.allocator.allocate_update(call, &mut *new, &*old).await?
        }
        _ => None,
    };
    // Plugins judge what has been allocated as well, and also what changes nothing.
    let admitted = match mode {
        Mode::Plain => Ok(Admitted::default()),
        Mode::Ruled => call.core.admission.validate(call, &*new, Some(before)).await,
    };
    if is_last {
        admitted?.charges.refund(call).await;
        let removed = remove(call, current, &*old).await?;
        return Ok(removed.map(|gone| answer(row, 200, gone)));
    }
    if let Ok(admitted) = &admitted
        && is_stored_so
        && is_unchanged(&mut *new, &*old)
        && !is_stale(call, current).await?
    {
        let mut same = answer(row, 200, current.clone());
        same.warnings.clone_from(&admitted.warnings);
        return Ok(Attempt::Decided(same));
    }
    let mut warnings = Vec::new();
    let outcome = match admitted {
        Ok(Admitted { warnings: own, charges }) => {
            warnings = own;
            let outcome = store(call, current, &mut *new).await;
            let kept = matches!(&outcome, Ok(Attempt::Written(_)))
                || outcome.as_ref().is_err_and(|failed| failed.ambiguous);
            if !kept {
                charges.refund(call).await;
            }
            outcome
        }
        Err(error) => Err(error.into()),
    };
    match &outcome {
        Ok(Attempt::Written(_)) => call.core.allocator.release_replaced(&*new, &*old).await,
        // The object may have what it had before, or what it was to get.
        Err(failed) if failed.ambiguous => {}
        _ => call.core.allocator.release(allocation).await,
    }
    let mut outcome = outcome;
    if let Ok(Attempt::Written(answer) | Attempt::Decided(answer)) = &mut outcome {
        if mode == Mode::Ruled && call.target.subresource.is_empty() {
            answer.warnings = strategy(row).warnings(&*new, Some(&*old));
        }
        answer.warnings.extend(warnings);
    }
    outcome
}

/// Whether a write changes nothing. That an apply repeats what its manager has is no change either,
/// although the time of its entry is another (`IgnoreManagedFieldsTimestampsTransformer`).
fn is_unchanged(new: &mut dyn Object, old: &dyn Object) -> bool {
    let timeless = |object: &dyn Object| {
        let mut owners = object.metadata().managed_fields.clone();
        owners.iter_mut().flatten().for_each(|owner| owner.time = None);
        owners
    };
    if new.equals(old) || timeless(new) != timeless(old) {
        return new.equals(old);
    }
    let owners = old.metadata().managed_fields.clone();
    let fresh = std::mem::replace(&mut new.metadata_mut().managed_fields, owners);
    let unchanged = new.equals(old);
    if !unchanged {
        new.metadata_mut().managed_fields = fresh;
    }
    unchanged
}

/// Whether the current version is stored in a form that it would not be written in now: by a former
/// key. A write that changes nothing brings it up to date.
async fn is_stale(call: Call<'_>, current: &Version) -> Result<bool, ApiError> {
    let (store, key) = (&call.core.store, keys::object(call.row(), &call.target.key()));
    if call.options.dry_run || !store.transforms(&key) {
        return Ok(false);
    }
    let found = store.get(key).await.map_err(|error| store_error(&error))?.entry;
    Ok(found.is_some_and(|entry| entry.stale && entry.mod_revision.get() == current.revision))
}

/// Replaces the current version, unless the call is a dry run.
async fn store(
    call: Call<'_>,
    current: &Version,
    new: &mut dyn Object,
) -> Result<Attempt<ObjectAnswer>, WriteError> {
    let row = call.row();
    let written = call.core.written(row, stored::encode(new)).await?;
    let answered = |revision| -> Result<ObjectAnswer, ApiError> {
        Ok(answer(row, 200, written.version(row, &call.target.key(), revision)?))
    };
    if call.options.dry_run {
        return Ok(Attempt::Decided(answered(current.revision)?));
    }
    let key = call.target.key();
    let outcome = call
        .core
        .store
        .update_with_lease(
            keys::object(row, &key),
            written.stored.clone(),
            Revision::new(current.revision),
            create::lease(call).await?,
        )
        .await?;
    Ok(match outcome {
        Outcome::Written(revision) => Attempt::Written(answered(revision.get())?),
        Outcome::Conflict { current, .. } => {
            Attempt::Lost(current.map(|entry| version_of(row, &key, &entry)).transpose()?)
        }
    })
}

/// Whether a client says nothing of what it changes.
fn is_unconditional(metadata: &ObjectMeta) -> bool {
    matches!(metadata.resource_version.as_deref().unwrap_or_default(), "" | "0")
}

/// Checks the preconditions in the new object's metadata.
fn expected(call: Call<'_>, new: &dyn Object, current: &Version) -> Result<(), ApiError> {
    let (row, name, metadata) = (call.row(), &call.target.name, new.metadata());
    // To a patch the uid is a field like others, which may not be changed.
    if call.verb != Verb::Patch
        && let Some(uid) = metadata.uid.as_deref().filter(|uid| !uid.is_empty())
        && *uid != *current.uid
    {
        return Err(ApiError::conflict(
            row,
            name,
            format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                current.uid
            ),
        ));
    }
    match metadata.resource_version.as_deref().unwrap_or_default() {
        _ if is_unconditional(metadata) => {
            let needed = call.verb == Verb::Update || call.verb == Verb::Patch;
            if !needed || strategy(row).allow_unconditional_update() {
                return Ok(());
            }
            let problem = "must be specified for an update";
            let error = FieldError::invalid("metadata.resourceVersion", 0, problem);
            Err(ApiError::invalid(row, name, &[error]))
        }
        version if version.parse() == Ok(current.revision) => Ok(()),
        version if version.parse::<u64>().is_err() => {
            let error = FieldError::invalid(
                "metadata.resourceVersion",
                version,
                "must be a valid resource version",
            );
            Err(ApiError::invalid(row, name, &[error]))
        }
        _ => Err(ApiError::modified(row, name)),
    }
}

/// Defaults an update, runs the mutating plugins, prepares and validates it.
async fn prepare(
    call: Call<'_>,
    new: &mut Box<dyn Object>,
    before: Before<'_>,
) -> Result<(), ApiError> {
    let old = before.object;
    let strategy = strategy(call.row());
    let subresource = call.target.subresource.as_str();
    let context = Context { now: call.now(), user: call.user, subresource };
    meta::carry_over(new.metadata_mut(), old.metadata());
    strategy.default(&mut **new);
    track(call, &mut **new, old, &context).await?;
    call.core.admission.mutate(call, new, Some(before)).await?;
    let new = &mut **new;
    meta::deduplicate_owners(call, new.metadata_mut(), true);
    meta::carry_over(new.metadata_mut(), old.metadata());
    let mut errors;
    if subresource.is_empty() {
        strategy.prepare_update(new, old, &context);
        errors = meta::validate(call.row(), strategy, new.metadata());
        errors.extend(meta::validate_update(new.metadata(), old.metadata()));
        errors.extend(strategy.validate(new));
        errors.extend(strategy.validate_update(new, old));
    } else {
        strategy.prepare_status_update(new, old, &context);
        errors = meta::validate(call.row(), strategy, new.metadata());
        errors.extend(meta::validate_update(new.metadata(), old.metadata()));
        errors.extend(strategy.validate_subresource_update(new, old, &context));
        if subresource != "status" {
            errors.extend(strategy.validate(new));
        }
    }
    // A resize or an ephemeral container changes the spec as well.
    if subresource != "status" && strategy.generation_changes(new, old) == Some(true) {
        let generation = old.metadata().generation.unwrap_or_default() + 1;
        new.metadata_mut().generation = Some(generation);
    }
    if !errors.is_empty() {
        return Err(body::invalid(call.row(), &call.target.name, &errors));
    }
    Ok(())
}

/// Tracks who owns the fields that the client changes, before plugins and webhooks change others:
/// those stay with nobody. What this write cannot change is not looked at.
async fn track(
    call: Call<'_>,
    new: &mut dyn Object,
    old: &dyn Object,
    context: &Context<'_>,
) -> Result<(), ApiError> {
    let (strategy, mut written) = (strategy(call.row()), new.clone_object());
    if context.subresource.is_empty() {
        strategy.prepare_update(&mut *written, old, context);
    } else {
        strategy.prepare_status_update(&mut *written, old, context);
    }
    super::apply::track(call, &mut *written, old).await?;
    new.metadata_mut().managed_fields = written.metadata_mut().managed_fields.take();
    Ok(())
}

/// Whether the object was only waiting for its last finalizer.
fn finished(new: &dyn Object) -> bool {
    let metadata = new.metadata();
    metadata.deletion_timestamp.is_some()
        && metadata.deletion_grace_period_seconds.unwrap_or_default() == 0
        && !meta::has_finalizers(metadata)
        && !super::delete::namespace_is_in_use(new)
}

#[cfg(test)]
mod tests {
    use api::Kind;
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::{Value, json};

    use super::*;

    fn object(json: &Value) -> Box<dyn Object> {
        api::kind::decode(&ConfigMap::ROW.into(), json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_later_time_alone_is_no_change() {
        let config = |value: &str, field: &str, time: &str| -> Value {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": value}, "metadata": {
                "name": "c", "managedFields": [{"manager": "me", "operation": "Apply",
                    "apiVersion": "v1", "fieldsType": "FieldsV1", "time": time,
                    "fieldsV1": {"f:data": {field: {}}}}]}})
        };
        let (first, second) = ("2026-01-02T03:04:05Z", "2026-01-02T03:04:06Z");
        let old = object(&config("x", "f:a", first));
        for (value, field, time, expected) in [
            ("x", "f:a", first, true),
            ("x", "f:a", second, true),
            ("y", "f:a", second, false),
            ("x", "f:b", second, false),
        ] {
            let mut new = object(&config(value, field, time));
            assert_eq!(is_unchanged(&mut *new, &*old), expected, "{value} {field} {time}");
            // A change has its own time.
            let owners = new.metadata().managed_fields.as_ref().unwrap();
            let kept = if expected { first } else { time };
            assert_eq!(owners[0].time.as_ref().unwrap().0, kept.parse().unwrap());
        }
    }
}
