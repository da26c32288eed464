//! Requests to kinds that are stored as another one: writes are converted to that, and reads are
//! converted back. The stored kind itself pays nothing for this.

use std::sync::Arc;

use api::object::Object;
use api::{ApiError, KindRef};
use futures::FutureExt;
use serde_json::Value;

use super::apply::apply;
use super::handle;
use super::patch::{Patch, problems};
use super::update::update_with;
use crate::body;
use crate::cache::Version;
use crate::core::Call;
use crate::kinds::forms::Form;
use crate::meta;
use crate::request::{BodyFormat, Options, PatchType, Request, Target, Verb};
use crate::response::{ObjectAnswer, Response};

/// Handles an authorized request to a form of another kind.
///
/// # Errors
/// Those of the verbs.
pub async fn answer(
    form: &'static Form,
    call: Call<'_>,
    request: &Request,
) -> Result<Response, ApiError> {
    let served: KindRef = form.served.into();
    let target = Target { row: form.stored.into(), ..call.target.clone() };
    let named = Options { requested: Some(call.row().clone()), ..call.options.clone() };
    let stored = Call { target: &target, options: &named, ..call };
    let outcome = match call.verb {
        Verb::Create | Verb::Update => write(form, call, stored, request).await,
        Verb::Patch => patch(form, call, stored, request).await,
        _ => {
            call.options
                .fields
                .check(call.row())
                .map_err(|error| ApiError::bad_request(error.to_string()))?;
            let mut options = named.clone();
            for requirement in &mut options.fields.0 {
                requirement.field = (form.field_to_stored)(&requirement.field);
            }
            let request = Request { options: options.clone(), ..request.clone() };
            handle_stored(Call { options: &options, ..stored }, &request).await
        }
    };
    let response = outcome.map_err(|error| {
        if error.is_not_found() && !call.target.name.is_empty() { call.not_found() } else { error }
    })?;
    Ok(match response {
        Response::Object(answer) => Response::Object(ObjectAnswer {
            version: shown(form, &answer.version)?,
            row: served,
            ..answer
        }),
        Response::List(mut list) => {
            list.row = served;
            for item in &mut list.items {
                *item = shown(form, item)?;
            }
            Response::List(list)
        }
        Response::Watch(watcher) => Response::Watch(Box::new(watcher.converted(
            served,
            Arc::new(move |versions| {
                let shown = versions.iter().map(|version| shown(form, version)).collect();
                futures::future::ready(shown).boxed()
            }),
        ))),
        other => other,
    })
}

/// The verbs, for the stored kind.
fn handle_stored<'a>(
    stored: Call<'a>,
    request: &'a Request,
) -> futures::future::BoxFuture<'a, Result<Response, ApiError>> {
    Box::pin(handle(stored, request))
}

async fn write(
    form: &Form,
    call: Call<'_>,
    stored: Call<'_>,
    request: &Request,
) -> Result<Response, ApiError> {
    let served: KindRef = form.served.into();
    let json = body::object_json(&served.kind, &request.body, request.body_format)?;
    let decoded = body::decode(&served, &json, call.options.field_validation)?;
    let value = stored_value(form, &*decoded.object)?;
    if call.verb == Verb::Create {
        let errors = (form.check_new)(&value);
        if !errors.is_empty() {
            let name = decoded.object.metadata().name.as_deref().unwrap_or_default();
            return Err(ApiError::invalid(form.served, name, &errors));
        }
    }
    let request = Request {
        body: serde_json::to_vec(&value).map_err(ApiError::internal)?.into(),
        body_format: BodyFormat::Json,
        ..request.clone()
    };
    let mut response = handle_stored(stored, &request).await?;
    if let Response::Object(answer) = &mut response {
        answer.warnings.extend(decoded.warnings);
    }
    Ok(response)
}

async fn patch(
    form: &'static Form,
    call: Call<'_>,
    stored: Call<'_>,
    request: &Request,
) -> Result<Response, ApiError> {
    if call.options.patch_type == Some(PatchType::Apply) {
        return apply(call, stored, request).await;
    }
    let served: KindRef = form.served.into();
    let patch = Patch::read(call, request)?;
    let problems = problems(call, request)?;
    let mut warnings = Vec::new();
    let mut answer = update_with(stored, |_, version| {
        let json = patch.apply(form.served, &shown(form, version)?.json)?;
        let validation = call.options.field_validation;
        let decoded =
            body::decode_patched(&served, &json, validation, &problems, patch.strategic())?;
        warnings = decoded.warnings;
        let value = stored_value(form, &*decoded.object)?;
        let json = serde_json::to_vec(&value).map_err(ApiError::internal)?;
        let mut object = body::decode(form.stored, &json, Default::default())?.object;
        meta::place(object.metadata_mut(), stored.target)?;
        Ok(object)
    })
    .await?;
    answer.warnings.extend(warnings);
    Ok(Response::Object(answer))
}

/// An object of the form as JSON of the stored kind.
fn stored_value(form: &Form, object: &dyn Object) -> Result<Value, ApiError> {
    let value = serde_json::from_slice(&object.encode()).map_err(ApiError::internal)?;
    Ok((form.to_stored)(value))
}

/// A stored object in the form.
fn shown(form: &Form, version: &Version) -> Result<Arc<Version>, ApiError> {
    let value: Value = serde_json::from_slice(&version.json).map_err(ApiError::internal)?;
    let mut value = (form.from_stored)(value);
    let revision =
        value["metadata"].as_object_mut().and_then(|metadata| metadata.remove("resourceVersion"));
    let json = serde_json::to_vec(&value).map_err(ApiError::internal)?;
    let version = match revision {
        Some(_) => Version::from_stored(form.served, &version.key(), &json, version.revision),
        None => Version::unstored(form.served, &json),
    };
    version.map(Arc::new).map_err(ApiError::internal)
}
