//! `events.k8s.io/v1`: the core group's Events with newer names for their fields.
//!
//! Events are stored in the core group's form only; writes through the newer group are converted to
//! it, and reads are converted back. The core group itself pays nothing for this.
//!
//! Upstream: `pkg/apis/core/v1/conversion.go` and `pkg/apis/events/v1/conversion.go`.

use std::sync::Arc;

use api::object::Object;
use api::schema::zero::is_zero_time;
use api::status::FieldError;
use api::{ApiError, Kind, KindRow};
use futures::FutureExt;
use k8s_openapi::api::core::v1::Event as CoreEvent;
use k8s_openapi::api::events::v1::Event;
use serde_json::Value;

use super::handle;
use super::patch::{Patch, problems};
use super::update::update_with;
use crate::body;
use crate::cache::Version;
use crate::core::Call;
use crate::kinds::event::conversion;
use crate::meta;
use crate::request::{BodyFormat, Options, PatchType, Request, Target, Verb};
use crate::response::{ObjectAnswer, Response};

/// Fields that must be unset: the newer group has `eventTime` and `series` instead.
const DEPRECATED: [&str; 4] = ["firstTimestamp", "lastTimestamp", "count", "source"];

/// Whether a request is about Events of the newer group.
pub fn is_events_v1(row: &KindRow) -> bool {
    row == Event::ROW
}

/// Handles an authorized request to Events of the newer group.
///
/// # Errors
/// Those of the verbs; 501 for server-side apply.
pub async fn answer(call: Call<'_>, request: &Request) -> Result<Response, ApiError> {
    let target = Target { row: CoreEvent::ROW.into(), ..call.target.clone() };
    let named = Options { requested: Some(call.row().clone()), ..call.options.clone() };
    let core = Call { target: &target, options: &named, ..call };
    let outcome = match call.verb {
        Verb::Create | Verb::Update => write(call, core, request).await,
        Verb::Patch => patch(call, core, request).await,
        _ => {
            call.options
                .fields
                .check(call.row())
                .map_err(|error| ApiError::bad_request(error.to_string()))?;
            let mut options = named.clone();
            for requirement in &mut options.fields.0 {
                requirement.field = conversion::field_to_core(&requirement.field);
            }
            let request = Request { options: options.clone(), ..request.clone() };
            handle_core(Call { options: &options, ..core }, &request).await
        }
    };
    let response = outcome.map_err(|error| {
        if error.is_not_found() && !call.target.name.is_empty() { call.not_found() } else { error }
    })?;
    Ok(match response {
        Response::Object(answer) => Response::Object(ObjectAnswer {
            row: Event::ROW.into(),
            version: newer(&answer.version)?,
            ..answer
        }),
        Response::List(mut list) => {
            list.row = Event::ROW.into();
            for item in &mut list.items {
                *item = newer(item)?;
            }
            Response::List(list)
        }
        Response::Watch(watcher) => Response::Watch(Box::new(watcher.converted(
            Event::ROW,
            Arc::new(|versions| {
                futures::future::ready(versions.iter().map(|version| newer(version)).collect())
                    .boxed()
            }),
        ))),
        other => other,
    })
}

/// The verbs, for the core group.
fn handle_core<'a>(
    core: Call<'a>,
    request: &'a Request,
) -> futures::future::BoxFuture<'a, Result<Response, ApiError>> {
    Box::pin(handle(core, request))
}

async fn write(call: Call<'_>, core: Call<'_>, request: &Request) -> Result<Response, ApiError> {
    let json = body::object_json(&Event::ROW.kind, &request.body, request.body_format)?;
    let decoded = body::decode(Event::ROW, &json, call.options.field_validation)?;
    let event = core_value(&*decoded.object)?;
    if call.verb == Verb::Create {
        check(&event, decoded.object.metadata().name.as_deref())?;
    }
    let request = Request {
        body: serde_json::to_vec(&event).map_err(ApiError::internal)?.into(),
        body_format: BodyFormat::Json,
        ..request.clone()
    };
    let mut response = handle_core(core, &request).await?;
    if let Response::Object(answer) = &mut response {
        answer.warnings.extend(decoded.warnings);
    }
    Ok(response)
}

async fn patch(call: Call<'_>, core: Call<'_>, request: &Request) -> Result<Response, ApiError> {
    if call.options.patch_type == Some(PatchType::Apply) {
        let problem = "server-side apply of events.k8s.io/v1 is not there; apply v1 Events";
        return Err(ApiError::not_implemented(problem));
    }
    let patch = Patch::read(call, request)?;
    let problems = problems(call, request)?;
    let mut warnings = Vec::new();
    let mut answer = update_with(core, |_, version| {
        let json = patch.apply(Event::ROW, &newer(version)?.json)?;
        let validation = call.options.field_validation;
        let decoded =
            body::decode_patched(Event::ROW, &json, validation, &problems, patch.strategic())?;
        warnings = decoded.warnings;
        let event = core_value(&*decoded.object)?;
        let json = serde_json::to_vec(&event).map_err(ApiError::internal)?;
        let mut object = body::decode(CoreEvent::ROW, &json, Default::default())?.object;
        meta::place(object.metadata_mut(), core.target)?;
        Ok(object)
    })
    .await?;
    answer.warnings.extend(warnings);
    Ok(Response::Object(answer))
}

/// An Event of the newer group as JSON of the core group.
fn core_value(object: &dyn Object) -> Result<Value, ApiError> {
    let value = serde_json::from_slice(&object.encode()).map_err(ApiError::internal)?;
    Ok(conversion::to_core(value))
}

/// A stored Event in the form of the newer group.
fn newer(version: &Version) -> Result<Arc<Version>, ApiError> {
    let value: Value = serde_json::from_slice(&version.json).map_err(ApiError::internal)?;
    let mut value = conversion::from_core(value);
    let revision =
        value["metadata"].as_object_mut().and_then(|metadata| metadata.remove("resourceVersion"));
    let json = serde_json::to_vec(&value).map_err(ApiError::internal)?;
    let version = match revision {
        Some(_) => Version::from_stored(Event::ROW, &version.key(), &json, version.revision),
        None => Version::unstored(Event::ROW, &json),
    };
    version.map(Arc::new).map_err(ApiError::internal)
}

/// What the newer group requires of a new Event (`ValidateEventCreate`).
fn check(event: &Value, name: Option<&str>) -> Result<(), ApiError> {
    let mut errors = Vec::new();
    if event["eventTime"].is_null() {
        errors.push(FieldError::required("eventTime", ""));
    }
    let kind = event["type"].as_str().unwrap_or_default();
    if !matches!(kind, "Normal" | "Warning") {
        let problem = format!("has invalid value: {kind}");
        errors.push(FieldError::invalid("type", "", problem));
    }
    if let Some(series) = event["series"].as_object() {
        if series.get("count").and_then(Value::as_i64).unwrap_or(0) < 2 {
            let problem = "should be at least 2";
            errors.push(FieldError::invalid("series.count", "", problem));
        }
        let observed = series.get("lastObservedTime").and_then(Value::as_str);
        if observed.is_none_or(is_zero_time) {
            errors.push(FieldError::required("series.lastObservedTime", ""));
        }
    }
    for field in DEPRECATED {
        let set = match &event[field] {
            Value::Null => false,
            Value::Object(parts) => !parts.is_empty(),
            Value::Number(number) => number.as_i64() != Some(0),
            _ => true,
        };
        if set {
            errors.push(FieldError::invalid(field, "", "needs to be unset"));
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(Event::ROW, name.unwrap_or_default(), &errors))
}
