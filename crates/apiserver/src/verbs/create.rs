//! Create: decode, default, admit, prepare, validate, store if absent.

use std::time::Duration;

use api::object::Object;
use api::{ApiError, Kind};
use k8s_openapi::api::core::v1::{Event, Namespace};
use store::{LeaseId, Outcome, Revision};

use super::answer;
use super::current::ATTEMPTS;
use crate::admission::{Admitted, lifecycle};
use crate::body;
use crate::core::Call;
use crate::error::{WriteError, store_error};
use crate::kinds::{Context, strategy};
use crate::meta;
use crate::request::Request;
use crate::response::{ObjectAnswer, Response};
use crate::{keys, stored};

/// How long Events are kept.
const EVENT_LIFE: Duration = Duration::from_secs(3_600);
/// How often a generated name that is taken is regenerated.
const NAME_ATTEMPTS: usize = 8;

/// Creates the object in the request's body.
///
/// # Errors
/// 400, 403, 409 and 422 as Kubernetes.
pub async fn create(call: Call<'_>, request: &Request) -> Result<Response, ApiError> {
    let json = body::object_json(&call.row().kind, &request.body, request.body_format)?;
    let decoded = body::decode(call.row(), &json, call.options.field_validation)?;
    let mut answer = create_object(call, decoded.object).await?;
    answer.warnings.extend(decoded.warnings);
    Ok(Response::Object(answer))
}

/// Creates `object`.
///
/// # Errors
/// As [`create`].
pub async fn create_object(
    call: Call<'_>,
    mut object: Box<dyn Object>,
) -> Result<ObjectAnswer, ApiError> {
    if call.row().custom.as_ref().is_some_and(|custom| custom.terminating) {
        let message = "create not allowed while custom resource definition is terminating";
        let name = object.metadata().name.as_deref().unwrap_or_default();
        return Err(ApiError::forbidden(call.row(), name, message));
    }
    if call.row().namespaced() && call.target.namespace.is_empty() {
        return Err(ApiError::bad_request("an empty namespace may not be set during creation"));
    }
    meta::place(object.metadata_mut(), call.target)?;
    if !object.metadata().name.as_deref().unwrap_or_default().is_empty() {
        return create_once(call, object).await;
    }
    for _ in 0..NAME_ATTEMPTS {
        match create_once(call, object.clone_object()).await {
            Err(error) if error.is_already_exists() => {}
            outcome => return outcome,
        }
    }
    let mut error = ApiError::already_exists(
        call.row(),
        object.metadata().generate_name.as_deref().unwrap_or_default(),
    );
    error.status_mut().details.get_or_insert_default().retry_after_seconds = Some(1);
    Err(error)
}

async fn create_once(
    call: Call<'_>,
    mut object: Box<dyn Object>,
) -> Result<ObjectAnswer, ApiError> {
    let strategy = strategy(call.row());
    meta::clear_new(object.metadata_mut())?;
    strategy.default(&mut *object);
    meta::deduplicate_owners(call, object.metadata_mut(), false);
    super::apply::record(call, &mut *object).await?;
    call.core.admission.mutate(call, &mut object, None).await?;
    meta::deduplicate_owners(call, object.metadata_mut(), true);
    meta::fill_new(object.metadata_mut(), call.now());
    let context = Context { now: call.now(), user: call.user, subresource: "" };
    strategy.prepare_create(&mut *object, &context);
    if strategy.generation_changes(&*object, &*object).is_some() {
        object.metadata_mut().generation = Some(1);
    }
    let mut errors = meta::validate(call.row(), strategy, object.metadata());
    errors.extend(strategy.validate(&*object));
    errors.extend(strategy.validate_create(&*object));
    let name = object.metadata().name.clone().unwrap_or_default();
    if !errors.is_empty() {
        let shown = object.metadata().name.as_deref().unwrap_or_default();
        return Err(body::invalid(call.row(), shown, &errors));
    }
    // Plugins judge what has been allocated as well.
    let allocation = call.core.allocator.allocate(call, &mut *object).await?;
    let outcome = match call.core.admission.validate(call, &*object, None).await {
        Ok(Admitted { warnings, charges }) => {
            let outcome = write(call, &name, &mut *object).await;
            if outcome.as_ref().is_err_and(|failed| !failed.ambiguous) {
                charges.refund(call).await;
            }
            outcome.map(|answer| (answer, warnings))
        }
        Err(error) => Err(error.into()),
    };
    // After an ambiguous failure the object may exist and need what it was allocated.
    if outcome.as_ref().is_err_and(|failed| !failed.ambiguous) {
        call.core.allocator.release(allocation).await;
    }
    let (mut answer, admitted) = outcome.map_err(|failed| failed.error)?;
    answer.warnings = strategy.warnings(&*object, None);
    answer.warnings.extend(admitted);
    Ok(answer)
}

/// The lease that objects of the target's kind expire with: Events last an hour.
///
/// # Errors
/// When the store fails.
pub async fn lease(call: Call<'_>) -> Result<Option<LeaseId>, ApiError> {
    if call.row() != Event::ROW {
        return Ok(None);
    }
    let lease = call.core.store.lease(EVENT_LIFE).await;
    lease.map(Some).map_err(|error| store_error(&error))
}

async fn write(
    call: Call<'_>,
    name: &str,
    object: &mut dyn Object,
) -> Result<ObjectAnswer, WriteError> {
    let row = call.row();
    let namespace = object.metadata().namespace.clone().unwrap_or_default();
    let key = crate::request::object_key(row, &namespace, name);
    let written = call.core.written(row, stored::encode(object)).await?;
    let guarded = row.namespaced() && call.core.admission.has(lifecycle::NAME);
    if call.options.dry_run {
        if guarded {
            let found = call.core.stored(Namespace::ROW, &namespace).await?;
            lifecycle::judge_stored(call, object, &namespace, found.as_deref())?;
        }
        if call.core.stored(row, &key).await?.is_some() {
            return Err(ApiError::already_exists(row, name).into());
        }
        return Ok(answer(row, 201, written.unstored(row)?));
    }
    let lease = lease(call).await?;
    let key_in_store = keys::object(row, &key);
    let mut within = None;
    if guarded {
        let found = call.core.find(Namespace::ROW, &namespace).await?;
        within = Some(found.ok_or_else(|| ApiError::not_found(Namespace::ROW, &namespace))?);
    }
    for _ in 0..ATTEMPTS {
        let (key_in_store, value) = (key_in_store.clone(), written.stored.clone());
        let outcome = match &within {
            None => call.core.store.create_with_lease(key_in_store, value, lease).await?,
            Some(version) => {
                let unchanged =
                    (keys::object(Namespace::ROW, &namespace), Revision::new(version.revision));
                call.core.store.create_while(key_in_store, value, lease, unchanged).await?
            }
        };
        match outcome {
            Outcome::Written(revision) => {
                return Ok(answer(row, 201, written.created(row, &key, revision.get())?));
            }
            Outcome::Conflict { current: Some(_), .. } => break,
            Outcome::Conflict { current: None, .. } => {
                within = call.core.stored(Namespace::ROW, &namespace).await?;
                lifecycle::judge_stored(call, object, &namespace, within.as_deref())?;
            }
        }
    }
    Err(ApiError::already_exists(row, name).into())
}
