//! Converts between the messages of `skiff.api.v1` and the pipeline's requests and answers.

use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, fields, labels};
use bytes::Bytes;
use jiff::Timestamp;
use rpc::api_v1 as pb;

use super::elsewhere::Place;
use crate::cache::Version;
use crate::core::Core;
use crate::options::{self, version_match};
use crate::registry::Registry;
use crate::request::{Head, Options, PatchType, Subject, Target, Verb};
use crate::request_info::RequestInfo;
use crate::response::Response;
use crate::rest::percent_decode;
use crate::rest::{Accept, IncludeObject, Representation};

/// The target of a message.
///
/// # Errors
/// 404 for a resource or subresource that does not exist, 400 without a target.
fn target(registry: &Registry, message: Option<pb::Target>) -> Result<Target, ApiError> {
    let message = message.ok_or_else(|| ApiError::bad_request("the request has no target"))?;
    let row = registry
        .by_resource(&message.group, &message.version, &message.resource)
        .ok_or_else(ApiError::no_such_resource)?;
    if !message.subresource.is_empty() && !row.has_subresource(&message.subresource) {
        return Err(ApiError::no_such_resource());
    }
    if row.namespaced() && !message.name.is_empty() && message.namespace.is_empty() {
        return Err(ApiError::bad_request("an object of a namespaced kind needs a namespace"));
    }
    Ok(Target {
        namespace: if row.namespaced() { message.namespace } else { String::new() },
        row,
        name: message.name,
        subresource: message.subresource,
        subpath: String::new(),
    })
}

/// The head of a call: what it is about, of kinds that this server may not have heard of yet, and its
/// options. Refused is a target as [`target`] says, and what is wrong with the options.
pub async fn head(
    core: &Core,
    verb: Verb,
    message: Option<pb::Target>,
    options: Result<Options, ApiError>,
) -> Head {
    let (options, wrong) = match options {
        Ok(options) => (options, Ok(())),
        Err(error) => (Options::default(), Err(error)),
    };
    let mut head = match target_of_any_kind(core, message.clone()).await {
        Ok(target) => Head::new(Subject::Resource { verb, target }, options),
        Err(error) => {
            let message = message.unwrap_or_default();
            let path = percent_decode(&Place::new(&message).url());
            let info = RequestInfo::of_call(verb, message, path);
            Head { refused: Some(error), ..Head::new(Subject::Unserved(info), options) }
        }
    };
    head.refuse(wrong);
    head
}

async fn target_of_any_kind(core: &Core, message: Option<pb::Target>) -> Result<Target, ApiError> {
    let registry = &core.cache.registry;
    match target(registry, message.clone()) {
        Err(error) if error.code() == 404 => {
            core.learn_kinds().await?;
            target(registry, message)
        }
        target => target,
    }
}

/// The target of a creation: of objects, clients that know the name send it, but the body decides.
pub fn of_creation(mut target: pb::Target) -> pb::Target {
    if target.subresource.is_empty() {
        target.name.clear();
    }
    target
}

/// Parses both selectors.
///
/// # Errors
/// 400 for an invalid selector.
pub fn selectors(options: &mut Options, label: &str, field: &str) -> Result<(), ApiError> {
    let refuse = |error: labels::SelectorError| ApiError::bad_request(error.to_string());
    options.labels = labels::Selector::parse(label).map_err(refuse)?;
    options.fields = fields::Selector::parse(field).map_err(refuse)?;
    Ok(())
}

/// Options of a list.
///
/// # Errors
/// 400 and 422 for invalid values.
pub fn list_options(message: &pb::ListRequest) -> Result<Options, ApiError> {
    let mut options = Options {
        resource_version: message.resource_version.clone(),
        version_match: version_match(&message.resource_version_match)?,
        limit: message.limit,
        continue_token: message.continue_token.clone(),
        ..Options::default()
    };
    selectors(&mut options, &message.label_selector, &message.field_selector)?;
    Ok(options)
}

/// Options of a watch.
///
/// # Errors
/// As [`list_options`].
pub fn watch_options(message: &pb::WatchRequest) -> Result<Options, ApiError> {
    let timeout = message.timeout_seconds;
    let mut matching = version_match(&message.resource_version_match)?;
    if message.send_initial_events && matching.is_none() {
        matching = Some(crate::request::VersionMatch::NotOlderThan);
    }
    let mut options = Options {
        resource_version: message.resource_version.clone(),
        version_match: matching,
        allow_bookmarks: message.allow_watch_bookmarks,
        send_initial_events: message.send_initial_events.then_some(true),
        timeout: (timeout > 0).then(|| Duration::from_secs(timeout)),
        ..Options::default()
    };
    selectors(&mut options, &message.label_selector, &message.field_selector)?;
    Ok(options)
}

/// Options of a write.
///
/// # Errors
/// 422 for invalid values.
pub fn write_options(verb: Verb, message: Option<pb::WriteOptions>) -> Result<Options, ApiError> {
    let message = message.unwrap_or_default();
    let mut errors = Vec::new();
    let field_validation = options::field_validation(&message.field_validation, &mut errors);
    options::field_manager(&message.field_manager, &mut errors);
    options::refuse(verb, &errors)?;
    Ok(Options {
        dry_run: message.dry_run,
        field_validation,
        field_manager: message.field_manager,
        force: message.force,
        ..Options::default()
    })
}

/// The type of a patch.
pub fn patch_type(message: pb::PatchType) -> Option<PatchType> {
    match message {
        pb::PatchType::PatchUnspecified => None,
        pb::PatchType::JsonPatch => Some(PatchType::Json),
        pb::PatchType::MergePatch => Some(PatchType::Merge),
        pb::PatchType::StrategicMergePatch => Some(PatchType::Strategic),
        pb::PatchType::ApplyPatch => Some(PatchType::Apply),
    }
}

/// The representation that the client requests.
pub fn accept(message: i32) -> Accept {
    let representation = match pb::Representation::try_from(message) {
        Ok(pb::Representation::Table | pb::Representation::TableWithObjects) => {
            Representation::Table
        }
        Ok(pb::Representation::PartialMetadata) => Representation::PartialMetadata,
        _ => Representation::Object,
    };
    let include = if message == i32::from(pb::Representation::TableWithObjects) {
        IncludeObject::Object
    } else {
        IncludeObject::default()
    };
    Accept { representation, include, ..Accept::default() }
}

/// A version in its envelope, with `json` in place of its own bytes.
pub fn envelope(version: &Version, json: Bytes) -> pb::Object {
    pb::Object {
        namespace: version.namespace.to_string(),
        name: version.name.to_string(),
        uid: version.uid.to_string(),
        revision: version.revision,
        json,
    }
}

/// A version in the representation that the client requests.
///
/// # Errors
/// 500 when a Table needs an object that cannot be decoded.
pub fn represent(
    row: &api::KindRef,
    version: &Arc<Version>,
    accept: &Accept,
    now: Timestamp,
) -> Result<pb::Object, ApiError> {
    let json = match accept.representation {
        Representation::Object => version.json.clone(),
        Representation::PartialMetadata => crate::rest::partial(version),
        Representation::Table => crate::rest::table(row, version, &accept.table_options(), now)?,
    };
    Ok(envelope(version, json))
}

/// An answer that is one object.
///
/// # Errors
/// 500 for any other answer.
pub fn object(response: Response, accept: &Accept, now: Timestamp) -> Result<pb::Object, ApiError> {
    match response {
        Response::Object(answer) => represent(&answer.row, &answer.version, accept, now),
        Response::Json { json, .. } => {
            let table = (accept.representation == Representation::Table)
                .then(|| crate::rest::scale_table(&json, &accept.table_options(), now));
            let json = table.flatten().unwrap_or(json);
            Ok(pb::Object { json, ..pb::Object::default() })
        }
        _ => Err(ApiError::internal("the answer is not an object")),
    }
}
