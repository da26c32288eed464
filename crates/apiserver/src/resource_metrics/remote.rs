//! Figures of the server that an APIService names.

use std::fmt::Write;
use std::sync::Arc;

use api::ApiError;
use http::{HeaderMap, Method};
use serde_json::Value;

use super::version;
use crate::aggregation::{Asked, Delegated, Forward, Registered};
use crate::core::Call;
use crate::request::Verb;
use crate::response::{ListAnswer, ObjectAnswer, Response};
use crate::rest::percent_encode;

/// Reads one object, or a list.
///
/// # Errors
/// Those of the server, 405 for all that is not a read.
pub async fn answer(call: Call<'_>, service: &Arc<Registered>) -> Result<Response, ApiError> {
    let (row, target) = (call.row(), call.target);
    let named = !target.name.is_empty();
    if !matches!((call.verb, named), (Verb::Get, true) | (Verb::List, false)) {
        return Err(ApiError::method_not_allowed(row, call.verb.as_str()));
    }
    let core = call.core.itself.upgrade();
    let core = core.ok_or_else(|| ApiError::service_unavailable("the server is shutting down"))?;
    let mut path = format!("/apis/{}", row.api_version());
    for (word, part) in [("/namespaces/", &target.namespace), ("/", &row.plural.to_string())] {
        if !part.is_empty() {
            write!(path, "{word}{part}").map_err(ApiError::internal)?;
        }
    }
    if named {
        write!(path, "/{}", target.name).map_err(ApiError::internal)?;
    }
    if !call.options.labels.is_everything() {
        let selector = percent_encode(&call.options.labels.to_string(), b"");
        write!(path, "?labelSelector={selector}").map_err(ApiError::internal)?;
    }
    let delegated = Delegated::new(service.clone(), &Method::GET, (&path, &[]), &HeaderMap::new());
    let user = Arc::new(call.user.clone());
    let forward = Forward { core, user, delegated, due: call.options.due };
    let document = forward.fetch(Asked::document(&path, "application/json", "")).await?;
    let mut value: Value = serde_json::from_slice(&document.body).map_err(ApiError::internal)?;
    if named {
        let version = version(row, &value)?;
        return Ok(Response::Object(ObjectAnswer {
            code: 200,
            row: row.clone(),
            version,
            warnings: Vec::new(),
        }));
    }
    let items = value["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let items = items.iter().map(|item| version(row, item)).collect::<Result<_, _>>()?;
    Ok(Response::List(ListAnswer {
        row: row.clone(),
        items,
        revision: 0,
        continue_token: String::new(),
        remaining: None,
    }))
}
