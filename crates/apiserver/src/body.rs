//! Decoding of request bodies: JSON, YAML or protobuf, strictly or not.

mod syntax;

use std::borrow::Cow;

use api::custom::{Custom, CustomObject};
use api::object::Object;
use api::schema::{self, strict, zero};
use api::status::FieldError;
use api::{ApiError, Kind, KindRef, KindRow};
use serde::de::DeserializeOwned;
use serde_saphyr::options::DuplicateKeyPolicy;

use crate::request::{BodyFormat, FieldValidation};
use crate::scan;

/// The definition of all objects' metadata.
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// Largest body of a request, in bytes (`MaxRequestBodyBytes` upstream).
pub const MAX_BODY_BYTES: usize = 3 << 20;
/// Unknown and duplicate fields reported at a time.
const MAX_PROBLEMS: usize = 500;
/// How much of an unreadable body its error shows, in bytes.
const SUMMARY_BYTES: usize = 30;

/// A decoded body, and its warnings.
#[derive(Debug)]
pub struct Decoded {
    pub object: Box<dyn Object>,
    pub warnings: Vec<String>,
}

/// The body of an object of a kind as JSON.
///
/// # Errors
/// 400 when the body is not the YAML or protobuf that it was announced as. JSON is not checked.
pub fn object_json<'a>(
    kind: &str,
    body: &'a [u8],
    format: BodyFormat,
) -> Result<Cow<'a, [u8]>, ApiError> {
    as_json(body, format).map_err(|error| unrecognized(kind, &error, body))
}

/// A body as JSON.
///
/// # Errors
/// 400 when the body is not the YAML or protobuf that it was announced as. JSON is not checked.
pub fn as_json(body: &[u8], format: BodyFormat) -> Result<Cow<'_, [u8]>, ApiError> {
    match format {
        BodyFormat::Json => Ok(Cow::Borrowed(body)),
        BodyFormat::Protobuf => {
            let value = api::protobuf::to_json(body)
                .map_err(|error| ApiError::bad_request(error.to_string()))?;
            serde_json::to_vec(&value).map(Cow::Owned).map_err(ApiError::internal)
        }
        // JSON is YAML, and what most clients send as such. It may nest deeper.
        BodyFormat::Yaml if is_json_object(body) => Ok(Cow::Borrowed(body)),
        BodyFormat::Yaml => {
            let text = std::str::from_utf8(body).map_err(|error| {
                ApiError::bad_request(format!("error converting YAML to JSON: {error}"))
            })?;
            let value: serde_json::Value =
                yaml(text, DuplicateKeyPolicy::LastWins).map_err(ApiError::bad_request)?;
            serde_json::to_vec(&value).map(Cow::Owned).map_err(|error| {
                ApiError::bad_request(format!("error converting YAML to JSON: {error}"))
            })
        }
    }
}

fn is_json_object(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"{")
        && serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok()
}

/// Parses YAML 1.1 as Kubernetes does.
fn yaml<T: DeserializeOwned>(text: &str, duplicate_keys: DuplicateKeyPolicy) -> Result<T, String> {
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        duplicate_keys: duplicate_keys,
    };
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| format!("error converting YAML to JSON: yaml: {error}"))
}

/// Reports duplicate keys in a mapping of YAML that has been parsed before.
pub fn yaml_duplicates(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let problem = yaml::<serde_json::Value>(text, DuplicateKeyPolicy::Error).err()?;
    let otherwise = yaml::<serde_json::Value>(text, DuplicateKeyPolicy::LastWins);
    otherwise.is_ok().then_some(problem)
}

/// Reports duplicate fields of a patch (JSON), in the form that decoding uses for objects.
pub fn json_duplicates(json: &[u8]) -> Vec<String> {
    duplicate_fields(strict::find(json, None)).collect()
}

fn duplicate_fields(found: strict::Problems) -> impl Iterator<Item = String> {
    found.duplicates.into_iter().map(|field| format!("duplicate field \"{field}\""))
}

/// Decodes a body as an object of `row`.
///
/// # Errors
/// 400 for an unreadable body, for another kind, and under `Strict` for unknown and duplicate
/// fields.
pub fn decode(
    kind: impl Into<KindRef>,
    json: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, ApiError> {
    let row = kind.into();
    // Go decodes null into any object, as if empty.
    let json = if json.trim_ascii() == b"null" { b"{}" } else { json };
    check_type(&row, json)?;
    read(&row, json, validation, &[]).map_err(|why| {
        let wrong = || wrong_kind(&row.kind, &row.api_version(), &row.kind, &why);
        unreadable(&row.kind, json).unwrap_or_else(wrong)
    })
}

/// The errors of validation; upstream's decoder would already have refused an invalid quantity.
pub fn invalid(row: &KindRow, name: &str, errors: &[FieldError]) -> ApiError {
    let unread = api::quantity::ParseQuantityError.to_string();
    if errors.iter().any(|error| error.detail == unread) {
        return wrong_kind(&row.kind, &row.api_version(), &row.kind, &unread);
    }
    ApiError::invalid(row, name, errors)
}

/// Decodes a JSON document that is not an object: a patch. `go_type` is the type that Go decodes it
/// into.
///
/// # Errors
/// 400 in Go's words.
pub fn decode_patch<T: DeserializeOwned>(
    json: &[u8],
    first: u8,
    go_type: &str,
) -> Result<T, ApiError> {
    let why = if let Some(why) = syntax::error(json) {
        why
    } else if json.trim_ascii().first() != Some(&first) {
        format!("json: cannot unmarshal {} into Go value of type {go_type}", json_type(json))
    } else {
        match serde_json::from_slice(json) {
            Ok(patch) => return Ok(patch),
            Err(error) => error.to_string(),
        }
    };
    Err(ApiError::bad_request(format!("error decoding patch: {why}")))
}

/// The value that does not fit the kind, by the schema table.
fn mismatch(row: &KindRow, json: &[u8]) -> Option<String> {
    let value = serde_json::from_slice(json).ok()?;
    schema::mismatch::find(&value, row.schema()?)
}

/// Decodes the result of a patch to an object of `row`; `problems` are those of the patch itself.
/// The error shows the result, or the strategic merge patch (`strategic`) that led to it.
///
/// # Errors
/// 422 when it is not an object of the kind, and under `Strict` for unknown and duplicate fields.
pub fn decode_patched(
    kind: impl Into<KindRef>,
    json: &[u8],
    validation: FieldValidation,
    problems: &[String],
    strategic: Option<&serde_json::Value>,
) -> Result<Decoded, ApiError> {
    let row = kind.into();
    check_type(&row, json)?;
    read(&row, json, validation, problems).map_err(|why| {
        let (shown, why) = match strategic {
            None => (String::from_utf8_lossy(json).into_owned(), why),
            Some(patch) => {
                let object = serde_json::from_slice(json).unwrap_or_default();
                let unconverted =
                    row.schema().and_then(|row| schema::mismatch::unconverted(&object, row));
                (schema::mismatch::printed(patch), unconverted.unwrap_or(why))
            }
        };
        ApiError::invalid_patch(&[FieldError::invalid("patch", shown, why)])
    })
}

/// Decodes a body as a type of a subresource: missing and null fields have Go's zero value.
///
/// # Errors
/// Why it cannot be decoded.
pub fn decode_as<K: Kind>(json: &[u8]) -> Result<K, String> {
    let schema = K::ROW.schema();
    let zeros = strict::find(json, schema).zeros;
    zero::read(json, schema, zeros, K::decode)
        .map_err(|error| mismatch(K::ROW, json).unwrap_or_else(|| error.source.to_string()))
}

/// Decodes a body as an object of a subresource. It may also be of the API version `older`, which has
/// the same fields.
///
/// # Errors
/// 400 for an unreadable body, and for another kind.
pub fn decode_subresource<K: Kind>(json: &[u8], older: Option<&str>) -> Result<K, ApiError> {
    let row = K::ROW;
    let mut json = Cow::Borrowed(json);
    if older == Some(&*scan::string(&json, "apiVersion"))
        && let Ok(mut members) = serde_json::from_slice::<serde_json::Map<_, _>>(&json)
    {
        members.insert("apiVersion".to_owned(), row.api_version().into());
        json = serde_json::to_vec(&members).map_err(ApiError::internal)?.into();
    }
    check_type(row, &json)?;
    decode_as(&json).map_err(|why| {
        let wrong = || wrong_kind(&row.kind, &row.api_version(), &row.kind, &why);
        unreadable(&row.kind, &json).unwrap_or_else(wrong)
    })
}

/// Decodes; on failure, reports why. `before` are problems that were already found.
fn read(
    row: &KindRef,
    json: &[u8],
    validation: FieldValidation,
    before: &[String],
) -> Result<Decoded, String> {
    if let Some(custom) = &row.custom {
        return read_custom(row, custom, json, validation, before);
    }
    // The position of an error is only looked for once there is one.
    let mismatch = |error: api::kind::DecodeError| {
        mismatch(row, json).unwrap_or_else(|| error.source.to_string())
    };
    let schema = row.schema();
    let found = strict::find(json, schema);
    let decode = |json: &[u8]| api::kind::decode(row, json);
    let object = zero::read(json, schema, found.zeros, decode).map_err(mismatch)?;
    let warnings = judged(found, validation, before)?;
    Ok(Decoded { object, warnings })
}

/// Decodes a custom resource, without the fields that its schema does not have.
fn read_custom(
    row: &KindRef,
    custom: &Custom,
    json: &[u8],
    validation: FieldValidation,
    before: &[String],
) -> Result<Decoded, String> {
    let text = |error: serde_json::Error| error.to_string();
    let mut value: serde_json::Value = serde_json::from_slice(json).map_err(text)?;
    let mut found = strict::find(json, None);
    let metadata = schema::definition(OBJECT_META);
    if let Some(range) = scan::member(json, "metadata") {
        let own = strict::find(&json[range], metadata);
        found.unknown = own.unknown.iter().map(|field| format!("metadata.{field}")).collect();
    }
    if let (Some(own), Some(definition)) = (value.get_mut("metadata"), metadata) {
        if let Some(why) = schema::mismatch::find(own, definition) {
            return Err(why);
        }
        zero::normalize(own, definition);
    }
    found.unknown.extend(custom.schema.prune(&mut value));
    let warnings = judged(found, validation, before)?;
    let serde_json::Value::Object(members) = value else {
        return Err("not an object".to_owned());
    };
    let object = CustomObject::of_members(row.clone(), members);
    let object = Box::new(object.map_err(|error| error.source.to_string())?);
    Ok(Decoded { object, warnings })
}

/// The warnings about unknown and duplicate fields.
///
/// # Errors
/// All of them, if they are not allowed.
fn judged(
    mut found: strict::Problems,
    validation: FieldValidation,
    before: &[String],
) -> Result<Vec<String>, String> {
    if validation == FieldValidation::Ignore {
        return Ok(Vec::new());
    }
    let unknown = std::mem::take(&mut found.unknown);
    let mut problems = before.to_vec();
    problems.extend(
        unknown
            .into_iter()
            .filter(|field| !matches!(field.as_str(), "apiVersion" | "kind"))
            .map(|field| format!("unknown field \"{field}\"")),
    );
    problems.extend(duplicate_fields(found));
    if validation == FieldValidation::Strict && !problems.is_empty() {
        let more = problems.len().saturating_sub(MAX_PROBLEMS);
        problems.truncate(MAX_PROBLEMS);
        if more > 0 {
            problems.push(format!("and {more} more"));
        }
        return Err(format!("strict decoding error: {}", problems.join(", ")));
    }
    Ok(problems)
}

/// The declared kind cannot be handled as the kind of the path.
fn wrong_kind(
    kind: &str,
    api_version: &str,
    wanted: &str,
    why: &dyn std::fmt::Display,
) -> ApiError {
    let version = api_version.rsplit('/').next().unwrap_or_default();
    ApiError::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {wanted}: {why}"
    ))
}

/// Refuses a body whose kind cannot even be determined.
///
/// # Errors
/// Always 400.
fn unrecognized(kind: &str, why: &dyn std::fmt::Display, body: &[u8]) -> ApiError {
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {why} ({})",
        summary(body)
    ))
}

/// The beginning of a body, as an error shows it.
fn summary(body: &[u8]) -> String {
    if body.is_empty() {
        return "<empty>".to_owned();
    }
    let shown = &body[..body.len().min(SUMMARY_BYTES)];
    let text = if body[0] == b'{' {
        String::from_utf8_lossy(shown).into_owned()
    } else {
        shown.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let rest = if shown.len() < body.len() { " ..." } else { "" };
    format!("{text}{rest}")
}

/// Checks that a body is of the path's kind, as far as it declares one.
fn check_type(row: &KindRow, json: &[u8]) -> Result<(), ApiError> {
    let (kind, api_version) = (&*row.kind, &*row.api_version());
    let or = |found: String, wanted: &str| {
        if found.is_empty() { wanted.to_owned() } else { found }
    };
    let found_kind = or(scan::string(json, "kind"), kind);
    let found_version = or(scan::string(json, "apiVersion"), api_version);
    if (found_kind.as_str(), found_version.as_str()) == (kind, api_version) {
        return Ok(());
    }
    if let Some(error) = unreadable(kind, json) {
        return Err(error);
    }
    if row.custom.is_some() {
        if found_version != api_version {
            return Err(ApiError::bad_request(format!(
                "the API version in the data ({found_version}) does not match the expected API version ({api_version})"
            )));
        }
        let error = FieldError::invalid("kind", &found_kind, format!("must be {kind}"));
        let name = scan::at_path(json, "metadata.name");
        let name: String = name.and_then(|it| serde_json::from_slice(it).ok()).unwrap_or_default();
        let qualified = format!("{found_kind}.{}", row.group);
        let mut error = ApiError::invalid_kind(&qualified, &name, &[error]).about(row, &name);
        error.status_mut().details.get_or_insert_default().kind = Some(found_kind);
        return Err(error);
    }
    let why = if api::kind::by_kind(&found_version, &found_kind).is_some() {
        let version = found_version.rsplit('/').next().unwrap_or_default();
        let group = api_version
            .split_once('/')
            .map_or("core", |(group, _)| group.split('.').next().unwrap_or_default());
        format!("converting ({version}.{found_kind}) to ({group}.{kind}): unknown conversion")
    } else {
        format!(
            "no kind {found_kind:?} is registered for version {found_version:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\""
        )
    };
    Err(wrong_kind(&found_kind, &found_version, kind, &why))
}

/// Why a body is not a JSON object, if it is not.
fn unreadable(kind: &str, json: &[u8]) -> Option<ApiError> {
    let why = if let Some(why) = syntax::error(json) {
        why
    } else if !json.trim_ascii().starts_with(b"{") {
        format!(
            "json: cannot unmarshal {} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; \
             Kind string \"json:\\\"kind,omitempty\\\"\" }}",
            json_type(json)
        )
    } else if std::str::from_utf8(json).is_err() {
        "invalid UTF-8".to_owned()
    } else {
        let error = serde_json::from_slice::<serde::de::IgnoredAny>(json).err()?;
        // Go accepts deeper nesting than we do, up to its own limit.
        if error.to_string().starts_with("recursion limit") {
            "exceeded max depth".to_owned()
        } else {
            error.to_string()
        }
    };
    let why = format!("couldn't get version/kind; json parse error: {why}");
    Some(unrecognized(kind, &why, json))
}

/// Go's name for the type of a JSON value.
fn json_type(json: &[u8]) -> &'static str {
    match json.trim_ascii().first() {
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "bool",
        Some(b'{') => "object",
        _ => "number",
    }
}

#[cfg(test)]
mod tests;
