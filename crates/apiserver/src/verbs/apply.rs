//! Server-side apply: the body is a manager's configuration; the server merges it and tracks who
//! owns which field.

mod versions;

use std::collections::BTreeMap;

use api::apply::{Conflict, Refused, Schema, Sent, Versions, Writer};
use api::custom::CustomObject;
use api::object::Object;
use api::status::FieldError;
use api::{ApiError, KindRow};
use futures::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, StatusCause};
use serde_json::Value;
use serde_json::value::RawValue;

use super::create::create_object;
use super::current::ATTEMPTS;
use super::update::{Change, change_with};
use crate::authz::authorize_creation;
use crate::body;
use crate::cache::Version;
use crate::core::Call;
use crate::meta;
use crate::request::{FieldValidation, PatchType, Request};
use crate::response::{ObjectAnswer, Response};
use versions::KindVersions;

/// Longest name of a manager, in bytes.
const MANAGER_MAX: usize = 128;
/// Longest subresource that an entry of managed fields names, in bytes.
const SUBRESOURCE_MAX: usize = 256;
/// Manager of writes that name none.
const UNKNOWN_MANAGER: &str = "unknown";

/// Applies the request's body; creates the object if it does not exist. `stored` is the call as the
/// kind that is stored has it, which is another one only for a form of it.
///
/// # Errors
/// 409 with a cause per field when another manager owns fields with other values; otherwise as
/// create and update.
pub async fn apply(
    call: Call<'_>,
    stored: Call<'_>,
    request: &Request,
) -> Result<Response, ApiError> {
    let mut config = read(call, request)?;
    strip(&mut config, call);
    let stripped = serde_json::to_vec(&config).map_err(ApiError::internal)?;
    check_fields(call, &config, &stripped)?;
    let twice = match call.options.field_validation {
        FieldValidation::Ignore => None,
        FieldValidation::Warn | FieldValidation::Strict => body::yaml_duplicates(&request.body),
    };
    if let (FieldValidation::Strict, Some(twice)) = (call.options.field_validation, &twice) {
        return Err(ApiError::bad_request(format!("error strict decoding YAML: {twice}")));
    }
    let mut answer = apply_config(stored, request, &config, &call.target.subresource).await?;
    answer.warnings.extend(twice);
    Ok(Response::Object(answer))
}

/// Decodes the body of an apply.
///
/// # Errors
/// 400 for what is not an object or has managed fields, 422 without a manager.
pub fn read(call: Call<'_>, request: &Request) -> Result<Value, ApiError> {
    check_manager(&call.options.field_manager)?;
    let json = body::as_json(&request.body, request.body_format)?;
    let config: Value = serde_json::from_slice(&json)
        .map_err(|error| ApiError::bad_request(format!("error decoding YAML: {error}")))?;
    if !config.is_object() {
        return Err(ApiError::bad_request("error decoding YAML: not an object"));
    }
    if config["metadata"]["managedFields"].is_array() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    Ok(config)
}

/// Applies a configuration to the object or a subresource; only an apply to the object itself
/// (empty) creates it.
///
/// # Errors
/// As [`apply`].
pub async fn apply_config(
    call: Call<'_>,
    request: &Request,
    config: &Value,
    subresource: &str,
) -> Result<ObjectAnswer, ApiError> {
    let row = call.row();
    let api_version = version_of_request(call);
    let writer = Writer { subresource, ..writer(call, &api_version) };
    let mut change = Merge { call, config, writer };
    for _ in 0..ATTEMPTS {
        match change_with(call, &mut change).await {
            Err(error) if error.is_not_found() && subresource.is_empty() => {}
            outcome => return outcome,
        }
        if let Some(uid) = config["metadata"]["uid"].as_str().filter(|uid| !uid.is_empty()) {
            let problem = format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            );
            return Err(ApiError::conflict(row, &call.target.name, problem));
        }
        authorize_creation(call.core, request).await?;
        match create_object(call, change.merged(None, &[]).await?).await {
            // Somebody else was faster: the configuration is applied to what they created.
            Err(error) if error.is_already_exists() => {}
            outcome => return outcome,
        }
    }
    Err(ApiError::modified(row, &call.target.name))
}

/// What an apply makes of an object.
struct Merge<'a> {
    call: Call<'a>,
    /// In the version of the request.
    config: &'a Value,
    writer: Writer<'a>,
}

impl Merge<'_> {
    /// `live` is in the version of the call's kind, and so is the outcome.
    async fn merged(
        &self,
        mut live: Option<Value>,
        owners: &[ManagedFieldsEntry],
    ) -> Result<Box<dyn Object>, ApiError> {
        let (row, versions) = (self.call.row(), KindVersions::of(self.call));
        let is_form = row.custom.is_none() && row.api_version() != self.writer.api_version;
        if let Some(live) = live.as_mut().filter(|_| is_form) {
            *live = versions.convert(live, self.writer.api_version).await?;
        }
        let applied =
            api::apply::apply(live.as_ref(), owners, self.config, &versions, &self.writer).await;
        let applied = applied.map_err(|refused| match refused {
            Refused::Conflicts(conflicts) => conflict(self.call, &conflicts),
            Refused::Conversion(error) => error,
        })?;
        let mut object = applied.object;
        if is_form {
            object["apiVersion"] = self.writer.api_version.into();
            object = versions.convert(&object, &row.api_version()).await?;
        }
        object_of(self.call, &object, applied.owners)
    }
}

impl Change for Merge<'_> {
    fn make<'a>(
        &'a mut self,
        old: &'a dyn Object,
        version: &'a Version,
    ) -> BoxFuture<'a, Result<Box<dyn Object>, ApiError>> {
        Box::pin(async {
            let mut live: Value =
                serde_json::from_slice(&version.json).map_err(ApiError::internal)?;
            let owners = old.metadata().managed_fields.clone().unwrap_or_default();
            if let Some(metadata) = live["metadata"].as_object_mut() {
                metadata.remove("managedFields");
            }
            self.merged(Some(live), &owners).await
        })
    }
}

/// Whatever the field validation, nobody can own a field that the kind does not have.
fn check_fields(call: Call<'_>, config: &Value, json: &[u8]) -> Result<(), ApiError> {
    let row = call.row();
    let is = |member: &str, own: &str| config[member].as_str().is_none_or(|text| text == own);
    let mut problems = Vec::new();
    // Of another kind, types say nothing.
    if is("kind", &row.kind) && is("apiVersion", &row.api_version()) {
        problems = api::apply::mistyped(config, row.merge_schema());
    }
    if problems.is_empty() {
        let decoded = body::decode(row, json, FieldValidation::Warn)?;
        let unknown = decoded.warnings.iter().filter_map(|warning| {
            let field = warning.strip_prefix("unknown field \"")?.strip_suffix('"')?;
            Some(format!(".{field}: field not declared in schema"))
        });
        problems.extend(unknown);
        problems.extend(api::apply::duplicate(config, row.merge_schema()));
    }
    if problems.is_empty() {
        return Ok(());
    }
    let why = match problems.as_slice() {
        [only] => only.clone(),
        all => format!("errors:\n  {}", all.join("\n  ")),
    };
    Err(untyped(call, config, row, &why))
}

/// The error of a configuration that does not fit its kind. Upstream gives it neither a code nor a
/// reason of its own (`managedfields/internal/structuredmerge.go`).
pub fn untyped(call: Call<'_>, config: &Value, kind: &KindRow, why: &str) -> ApiError {
    let (KindRow { group, version, kind, .. }, target) = (kind, call.target);
    let name = config["metadata"]["name"].as_str().unwrap_or(&target.name);
    let at = format!("{}/{name}; {group}/{version}, Kind={kind}", target.namespace);
    ApiError::new(500, "", format!("failed to create typed patch object ({at}): {why}"))
}

/// Makes the writer the owner of a new object's fields. Called before admission, whose additions
/// nobody owns.
///
/// # Errors
/// 500 when the object cannot be converted to the version of the request.
pub async fn record(call: Call<'_>, new: &mut dyn Object) -> Result<(), ApiError> {
    if call.options.patch_type == Some(PatchType::Apply) {
        return Ok(());
    }
    new.metadata_mut().managed_fields = None;
    let row = call.row();
    let mut json = new.json();
    let (api_version, versions) = (version_of_request(call), KindVersions::of(call));
    if row.custom.is_none() && row.api_version() != api_version {
        json = versions.convert(&json, &api_version).await?;
    }
    let schema = versions.schema(&api_version).unwrap_or(Schema::Untyped);
    let has_status = row.has_subresource("status");
    let owners = api::apply::create(&json, schema, has_status, &writer(call, &api_version));
    new.metadata_mut().managed_fields = Some(owners).filter(|owners| !owners.is_empty());
    Ok(())
}

/// Tracks the owners of the fields that an update changed. Called with the object as it is about to
/// be stored, with the managed fields that the client sent.
///
/// # Errors
/// 422 for managed fields that are wrong. Where objects cannot be converted, they stay as they were.
pub async fn track(call: Call<'_>, new: &mut dyn Object, old: &dyn Object) -> Result<(), ApiError> {
    if call.options.patch_type == Some(PatchType::Apply) {
        return Ok(());
    }
    let sent = Sent::of(new.metadata_mut().managed_fields.take());
    let owners = match sent {
        // A subresource is not the place to change them.
        _ if !call.target.subresource.is_empty() => old.metadata().managed_fields.clone(),
        Sent::Cleared => None,
        Sent::Taken(owners) => {
            check_owners(call, &owners)?;
            Some(owners)
        }
        Sent::Ignored => old.metadata().managed_fields.clone(),
    };
    let Some(owners) = owners.filter(|owners| !owners.is_empty()) else {
        return Ok(());
    };
    let (base, api_version) = (call.row().api_version(), version_of_request(call));
    let is_base = |owner: &ManagedFieldsEntry| owner.api_version.as_deref() == Some(&*base);
    let (before, after) = if base == api_version && owners.iter().all(is_base) {
        differing(old, new)?
    } else {
        (whole(old)?, whole(new)?)
    };
    let (versions, writer) = (KindVersions::of(call), writer(call, &api_version));
    let tracked = api::apply::track(&before, &owners, &after, &base, &versions, &writer).await;
    let owners = tracked.unwrap_or_else(|error| {
        let (kind, key) = (&*call.row().kind, call.target.key());
        tracing::warn!(kind, key, %error, "managed fields are not updated");
        old.metadata().managed_fields.clone().unwrap_or_default()
    });
    new.metadata_mut().managed_fields = Some(owners).filter(|owners| !owners.is_empty());
    Ok(())
}

/// An object without its managed fields.
fn whole(object: &dyn Object) -> Result<Value, ApiError> {
    let mut value = value_of(object)?;
    if let Some(metadata) = value["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    Ok(value)
}

fn value_of(object: &dyn Object) -> Result<Value, ApiError> {
    match object.as_any().downcast_ref::<CustomObject>() {
        Some(custom) => Ok(custom.to_value()),
        None => serde_json::from_slice(&object.encode()).map_err(ApiError::internal),
    }
}

/// The version whose fields a request owns: that of the form it came in.
fn version_of_request(call: Call<'_>) -> String {
    call.options.requested.as_ref().unwrap_or(call.row()).api_version()
}

/// The members in which two versions of an object differ, usually few of a large object.
fn differing(old: &dyn Object, new: &dyn Object) -> Result<(Value, Value), ApiError> {
    type Members<'a> = BTreeMap<&'a str, &'a RawValue>;
    let (old, new) = (old.encode(), new.encode());
    let before: Members<'_> = serde_json::from_slice(&old).map_err(ApiError::internal)?;
    let after: Members<'_> = serde_json::from_slice(&new).map_err(ApiError::internal)?;
    let only = |own: &Members<'_>, other: &Members<'_>| {
        let differs = own.iter().filter(|(name, value)| {
            other.get(*name).is_none_or(|other| other.get() != value.get())
        });
        let parsed = differs
            .map(|(name, value)| Ok(((*name).to_owned(), serde_json::from_str(value.get())?)));
        let members: Result<serde_json::Map<_, _>, serde_json::Error> = parsed.collect();
        members.map(Value::Object).map_err(ApiError::internal)
    };
    Ok((only(&before, &after)?, only(&after, &before)?))
}

/// Checks the managed fields that webhooks have left.
///
/// # Errors
/// What is wrong with them.
pub fn check_admitted(call: Call<'_>, owners: Option<&[ManagedFieldsEntry]>) -> Result<(), String> {
    let Some(owners) = owners.filter(|owners| !owners.is_empty()) else {
        return Ok(());
    };
    match Sent::of(Some(owners.to_vec())) {
        Sent::Taken(owners) => check_owners(call, &owners).map_err(|error| error.to_string()),
        Sent::Cleared => Ok(()),
        Sent::Ignored => Err("an entry cannot be read".to_owned()),
    }
}

/// What is wrong with managed fields that a client sent (`ValidateManagedFields`).
fn check_owners(call: Call<'_>, owners: &[ManagedFieldsEntry]) -> Result<(), ApiError> {
    let mut errors = Vec::new();
    for (index, owner) in owners.iter().enumerate() {
        let path = format!("metadata.managedFields[{index}]");
        let manager = owner.manager.as_deref().unwrap_or_default();
        if manager.len() > MANAGER_MAX {
            errors.push(FieldError::too_long(format!("{path}.manager"), MANAGER_MAX));
        }
        if manager.chars().any(char::is_control) {
            let problem = "should only contain printable characters";
            errors.push(FieldError::invalid(format!("{path}.manager"), manager, problem));
        }
        let subresource = owner.subresource.as_deref().unwrap_or_default();
        if subresource.len() > SUBRESOURCE_MAX {
            errors.push(FieldError::too_long(format!("{path}.subresource"), SUBRESOURCE_MAX));
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(call.row(), &call.target.name, &errors))
}

fn writer<'a>(call: Call<'a>, api_version: &'a str) -> Writer<'a> {
    let candidates =
        [call.options.field_manager.as_str(), &call.options.product, component(&call.user.name)];
    Writer {
        manager: candidates.into_iter().find(|name| !name.is_empty()).unwrap_or(UNKNOWN_MANAGER),
        api_version,
        subresource: match call.target.subresource.as_str() {
            "" => call.options.written_through,
            own => own,
        },
        now: meta::whole_seconds(call.now()),
        force: call.options.force,
    }
}

/// The component behind a system user, which names no manager over gRPC.
fn component(user: &str) -> &str {
    match user.strip_prefix("system:") {
        Some(node) if node.starts_with("node:") => "kubelet",
        Some(account) if crate::bootstrap::is_controller(account) => "kube-controller-manager",
        Some(component) if !component.contains(':') => component,
        _ => "",
    }
}

fn check_manager(manager: &str) -> Result<(), ApiError> {
    let error = if manager.is_empty() {
        FieldError::required("fieldManager", "is required for apply patch")
    } else if manager.len() > MANAGER_MAX {
        FieldError::too_long("fieldManager", MANAGER_MAX)
    } else {
        return Ok(());
    };
    Err(ApiError::invalid_options("PatchOptions", &[error]))
}

/// The object itself is applied without status, and the status without anything else.
fn strip(config: &mut Value, call: Call<'_>) {
    let Some(config) = config.as_object_mut() else {
        return;
    };
    match call.target.subresource.as_str() {
        "" if call.row().has_subresource("status") => {
            config.remove("status");
        }
        "status" => {
            config.retain(|field, _| {
                matches!(field.as_str(), "apiVersion" | "kind" | "metadata" | "status")
            });
        }
        _ => {}
    }
    if let Some(metadata) = config.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        metadata.retain(|field, value| field != "creationTimestamp" || !value.is_null());
    }
}

fn object_of(
    call: Call<'_>,
    json: &Value,
    owners: Vec<ManagedFieldsEntry>,
) -> Result<Box<dyn Object>, ApiError> {
    let json = serde_json::to_vec(json).map_err(ApiError::internal)?;
    let mut object = body::decode(call.row(), &json, Default::default())?.object;
    meta::place(object.metadata_mut(), call.target)?;
    object.metadata_mut().managed_fields = Some(owners);
    Ok(object)
}

/// As `k8s.io/apimachinery/pkg/util/managedfields` words it; kubectl prints the causes.
fn conflict(call: Call<'_>, conflicts: &[Conflict]) -> ApiError {
    let message = match conflicts {
        [only] => {
            format!("Apply failed with 1 conflict: conflict with {}: {}", only.owner, only.field)
        }
        _ => {
            let mut text = format!("Apply failed with {} conflicts: ", conflicts.len());
            let mut owner = "";
            for conflict in conflicts {
                if conflict.owner != owner {
                    let break_line = if owner.is_empty() { "" } else { "\n" };
                    text.push_str(&format!("{break_line}conflicts with {}:", conflict.owner));
                    owner = &conflict.owner;
                }
                text.push_str(&format!("\n- {}", conflict.field));
            }
            text
        }
    };
    let causes = conflicts.iter().map(|conflict| StatusCause {
        reason: Some("FieldManagerConflict".to_owned()),
        message: Some(format!("conflict with {}", conflict.owner)),
        field: Some(conflict.field.clone()),
    });
    let mut error = ApiError::new(409, "Conflict", message).about(call.row(), &call.target.name);
    error.status_mut().details.get_or_insert_default().causes = Some(causes.collect());
    error
}

#[cfg(test)]
mod tests {
    use super::component;

    #[test]
    fn components_are_managers_under_their_own_names() {
        for (user, manager) in [
            ("system:kube-controller-manager", "kube-controller-manager"),
            ("system:node:n1", "kubelet"),
            ("system:serviceaccount:kube-system:job-controller", "kube-controller-manager"),
            ("system:serviceaccount:kube-system:b", ""),
            ("system:serviceaccount:a:job-controller", ""),
            ("bob", ""),
        ] {
            assert_eq!(component(user), manager, "{user}");
        }
    }
}
