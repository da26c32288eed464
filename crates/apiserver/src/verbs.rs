//! The verbs, written once for all kinds.

pub mod apply;
pub mod create;
pub mod current;
pub mod delete;
pub mod delete_collection;
pub mod forms;
pub mod patch;
pub mod read;
pub mod update;

use std::sync::Arc;

use api::{ApiError, Kind, KindRef};
use k8s_openapi::api::core::v1::ComponentStatus;

use crate::cache::Version;
use crate::component_statuses;
use crate::core::Call;
use crate::kinds;
use crate::request::{Request, Verb};
use crate::resource_metrics;
use crate::response::{ObjectAnswer, Response};
use crate::subresources;

pub(crate) fn answer(row: &KindRef, code: u16, version: Arc<Version>) -> ObjectAnswer {
    let version = version.served(row);
    ObjectAnswer { code, row: row.clone(), version, warnings: Vec::new() }
}

/// Carries out an authorized request to a resource.
///
/// # Errors
/// Those of the verb.
pub async fn handle(call: Call<'_>, request: &Request) -> Result<Response, ApiError> {
    let row = call.row();
    // These are updates of the object, which the strategy restricts by subresource.
    let own_door = ["", "status", "finalize", "ephemeralcontainers", "resize", "approval"];
    if !own_door.contains(&call.target.subresource.as_str()) {
        return subresources::handle(call, request).await;
    }
    if let Some(form) = kinds::forms::of(row) {
        return forms::answer(form, call, request).await;
    }
    if *row == ComponentStatus::ROW {
        return component_statuses::answer(call).await;
    }
    if row.computed {
        return resource_metrics::answer(call).await;
    }
    if !row.stored {
        return subresources::answer_review(call, request).await;
    }
    let named = !call.target.name.is_empty();
    match (call.verb, named) {
        (Verb::Get, true) => read::get(call).await,
        (Verb::List, _) => read::list(call).await.map(Response::List),
        (Verb::Watch, _) => read::watch(call).await,
        (Verb::Create, false) => create::create(call, request).await,
        (Verb::Update, true) => update::update(call, request).await,
        (Verb::Patch, true) => patch::patch(call, request).await,
        (Verb::Delete, true) if call.target.subresource.is_empty() => {
            delete::delete(call, request).await
        }
        (Verb::DeleteCollection, false) => {
            delete_collection::delete_collection(call, request).await
        }
        (verb, _) => Err(ApiError::method_not_allowed(row, verb.as_str())),
    }
}
