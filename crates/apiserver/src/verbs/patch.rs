//! Patch: JSON patch, merge patch and strategic merge patch, applied to the current object.

pub mod json;

use api::object::Object;
use api::{ApiError, KindRow};
use serde_json::Value;

use super::update::update_with;
use crate::body;
use crate::cache::Version;
use crate::core::Call;
use crate::request::{FieldValidation, PatchType, Request};
use crate::response::Response;

/// Most operations of one JSON patch (upstream's limit).
const MAX_OPERATIONS: usize = 10_000;

/// Applies the request's body as a patch.
///
/// # Errors
/// As Kubernetes: 400 for a malformed patch, 422 for one that cannot be applied.
pub async fn patch(call: Call<'_>, request: &Request) -> Result<Response, ApiError> {
    if call.options.patch_type == Some(PatchType::Apply) {
        return super::apply::apply(call, call, request).await;
    }
    let patch = Patch::read(call, request)?;
    let problems = problems(call, request)?;
    let mut warnings = Vec::new();
    let row = call.row();
    let mut answer = update_with(call, |_, version: &Version| {
        let json = patch.apply(row, &version.json)?;
        let validation = call.options.field_validation;
        let decoded = body::decode_patched(row, &json, validation, &problems, patch.strategic())?;
        warnings = decoded.warnings;
        let mut object: Box<dyn Object> = decoded.object;
        crate::meta::place(object.metadata_mut(), call.target)?;
        Ok(object)
    })
    .await?;
    answer.warnings.extend(warnings);
    Ok(Response::Object(answer))
}

/// Unknown and duplicate fields of the patch itself, which strict validation refuses.
///
/// # Errors
/// 400 for a patch that cannot be parsed.
pub fn problems(call: Call<'_>, request: &Request) -> Result<Vec<String>, ApiError> {
    if call.options.field_validation == FieldValidation::Ignore {
        return Ok(Vec::new());
    }
    let json = body::as_json(&request.body, request.body_format)?;
    let mut problems = body::json_duplicates(&json);
    if call.options.patch_type == Some(PatchType::Json) {
        problems.extend(unknown_members(&json));
        for problem in &mut problems {
            problem.insert_str(0, "json patch ");
        }
    }
    Ok(problems)
}

/// Unknown members of a JSON patch's operations.
fn unknown_members(json: &[u8]) -> Vec<String> {
    let operations: Vec<serde_json::Map<String, Value>> =
        serde_json::from_slice(json).unwrap_or_default();
    let mut found = Vec::new();
    for (index, operation) in operations.iter().enumerate() {
        let known = ["op", "path", "from", "value"];
        for member in operation.keys().filter(|name| !known.contains(&name.as_str())) {
            found.push(format!("unknown field \"[{index}].{member}\""));
        }
    }
    found
}

/// A parsed patch.
pub enum Patch {
    Json(json_patch::Patch),
    Merge(Value),
    Strategic(Value),
}

impl Patch {
    /// A strategic merge patch, which errors show.
    pub fn strategic(&self) -> Option<&Value> {
        match self {
            Self::Strategic(patch) => Some(patch),
            _ => None,
        }
    }

    /// Parses the request's body as the patch type that it declares.
    ///
    /// # Errors
    /// 400 when it is malformed, 415 for server-side apply.
    pub fn read(call: Call<'_>, request: &Request) -> Result<Self, ApiError> {
        let document = || {
            let json = body::as_json(&request.body, request.body_format)?;
            body::decode_patch(&json, b'{', "map[string]interface {}")
        };
        match call.options.patch_type {
            Some(PatchType::Json) => {
                // Parsed as a value first: of duplicate members, the last one counts.
                let operations: Value =
                    body::decode_patch(&request.body, b'[', "[]handlers.jsonPatchOp")?;
                let operations = operations.as_array().map(Vec::as_slice).unwrap_or_default();
                if operations.len() > MAX_OPERATIONS {
                    return Err(ApiError::too_large(format!(
                        "Request entity too large: The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
                        operations.len()
                    )));
                }
                let patch = json::parse(operations).map_err(json::Unreadable::refusal)?;
                Ok(Self::Json(patch))
            }
            Some(PatchType::Merge) => Ok(Self::Merge(document()?)),
            // Its rules are those of Go types, which custom resources have not.
            Some(PatchType::Strategic) | None if call.row().custom.is_some() => {
                Err(ApiError::unsupported_media_type(
                    "the body of the request was in an unknown format - accepted media types include: \
                     application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
                ))
            }
            Some(PatchType::Strategic) => Ok(Self::Strategic(document()?)),
            Some(PatchType::Apply) | None => Err(ApiError::unsupported_media_type(
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml",
            )),
        }
    }

    /// The patched object as JSON.
    ///
    /// # Errors
    /// 422 when the patch cannot be applied to the object.
    pub fn apply(&self, row: &KindRow, json: &[u8]) -> Result<Vec<u8>, ApiError> {
        let mut value: Value = serde_json::from_slice(json).map_err(ApiError::internal)?;
        match self {
            Self::Json(patch) => {
                json::apply(&mut value, patch).map_err(|_| json::rejected())?;
            }
            Self::Merge(patch) => json_patch::merge(&mut value, patch),
            Self::Strategic(patch) => {
                let schema = row.schema();
                value = api::strategic::apply(value, patch.clone(), schema)
                    .map_err(|error| ApiError::bad_request(error.to_string()))?;
            }
        }
        serde_json::to_vec(&value).map_err(ApiError::internal)
    }
}
