//! Reading what a client sent: JSON or YAML, strictly or not.

mod duplicates;

use std::borrow::Cow;

use api::object::{Codec, Object};
use api::{ApiError, KindRow};

use crate::request::{BodyFormat, FieldValidation};
use crate::scan;

/// Largest body of a request, in bytes (`MaxRequestBodyBytes` upstream).
pub const MAX_BODY_BYTES: usize = 3 << 20;

/// A decoded body, and what is to be told about it.
#[derive(Debug)]
pub struct Decoded {
    pub object: Box<dyn Object>,
    pub warnings: Vec<String>,
}

/// The body as JSON.
///
/// # Errors
/// 400 when it is neither valid JSON nor, where YAML was announced, valid YAML.
pub fn as_json(body: &[u8], format: BodyFormat) -> Result<Cow<'_, [u8]>, ApiError> {
    match format {
        BodyFormat::Json => Ok(Cow::Borrowed(body)),
        BodyFormat::Protobuf => {
            let value = api::protobuf::to_json(body)
                .map_err(|error| ApiError::bad_request(error.to_string()))?;
            serde_json::to_vec(&value)
                .map(Cow::Owned)
                .map_err(ApiError::internal)
        }
        BodyFormat::Yaml => {
            let text = std::str::from_utf8(body).map_err(|error| {
                ApiError::bad_request(format!("error converting YAML to JSON: {error}"))
            })?;
            let options = serde_saphyr::options! {
                legacy_octal_numbers: true,
                duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins,
            };
            let value: serde_json::Value = serde_saphyr::from_str_with_options(text, options)
                .map_err(|error| {
                    ApiError::bad_request(format!("error converting YAML to JSON: yaml: {error}"))
                })?;
            serde_json::to_vec(&value).map(Cow::Owned).map_err(|error| {
                ApiError::bad_request(format!("error converting YAML to JSON: {error}"))
            })
        }
    }
}

/// Decodes a body as an object of `row`.
///
/// # Errors
/// 400 for what cannot be read, for another kind, and under `Strict` for unknown and duplicate
/// fields.
pub fn decode(
    row: &'static KindRow,
    json: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, ApiError> {
    let codec = api::kind::codec(row)
        .ok_or_else(|| ApiError::not_implemented(format!("{} has no codec", row.kind)))?;
    decode_with(row.kind, &row.api_version(), codec, json, validation)
}

/// Which value does not fit the kind, by the schema table.
fn misfit(kind: &str, api_version: &str, json: &[u8]) -> Option<String> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let value = serde_json::from_slice(json).ok()?;
    api::schema::mismatch::find(&value, api::schema::kind(group, version, kind)?)
}

/// Decodes a body with a codec; `kind` and `api_version` are what it must say it is, if it does.
///
/// # Errors
/// As [`decode`].
pub fn decode_with(
    kind: &str,
    api_version: &str,
    codec: &Codec,
    json: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, ApiError> {
    let version = api_version.rsplit('/').next().unwrap_or_default();
    let refuse = |why: &dyn std::fmt::Display| {
        ApiError::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"
        ))
    };
    // Where the error is, is looked for only now that there is one.
    let misfit = |error: &serde_json::Error| match misfit(kind, api_version, json) {
        Some(text) => refuse(&text),
        None => refuse(error),
    };
    check_type(kind, api_version, json)?;
    if validation == FieldValidation::Ignore {
        let object = (codec.decode)(json).map_err(|error| misfit(&error.source))?;
        return Ok(Decoded {
            object,
            warnings: Vec::new(),
        });
    }
    let (object, unknown) = (codec.decode_strict)(json).map_err(|error| misfit(&error.source))?;
    let mut problems: Vec<String> = unknown
        .into_iter()
        .filter(|field| !matches!(field.as_str(), "apiVersion" | "kind"))
        .map(|field| format!("unknown field \"{field}\""))
        .collect();
    problems.extend(
        duplicates::find(json)
            .into_iter()
            .map(|field| format!("duplicate field \"{field}\"")),
    );
    if validation == FieldValidation::Strict && !problems.is_empty() {
        return Err(refuse(&format!(
            "strict decoding error: {}",
            problems.join(", ")
        )));
    }
    Ok(Decoded {
        object,
        warnings: problems,
    })
}

fn check_type(kind: &str, api_version: &str, json: &[u8]) -> Result<(), ApiError> {
    if json.is_empty() {
        return Err(ApiError::bad_request(
            "unable to decode an empty request body",
        ));
    }
    let (found_kind, found_version) =
        (scan::string(json, "kind"), scan::string(json, "apiVersion"));
    if !found_version.is_empty() && found_version != api_version {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({found_version}) does not match the expected API version ({api_version})"
        )));
    }
    if !found_kind.is_empty() && found_kind != kind {
        return Err(ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): the kind in the data is {found_kind}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use api::Kind;
    use k8s_openapi::api::apps::v1::Deployment;

    use super::*;

    #[test]
    fn strictness_is_worded_as_kubernetes_words_it() {
        let json = br#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a","name":"b"},"spec":{"foo":1}}"#;
        let error = decode(Deployment::ROW, json, FieldValidation::Strict).unwrap_err();
        assert_eq!(
            error.message(),
            "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: \
             unknown field \"spec.foo\", duplicate field \"metadata.name\""
        );
    }

    #[test]
    fn yaml_is_read_as_kubernetes_reads_it() {
        let json = as_json(b"a: 0644\nb: on\nc: 'x'\n", BodyFormat::Yaml).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(value, serde_json::json!({"a": 420, "b": true, "c": "x"}));
        assert!(as_json(b"a: [", BodyFormat::Yaml).is_err());
        assert!(as_json(&[0xff, 0xfe], BodyFormat::Yaml).is_err());
    }

    #[test]
    fn hostile_bodies_are_errors() {
        let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
        for body in [
            &b""[..],
            b"null",
            b"[]",
            b"\xff",
            &deep,
            b"{\"metadata\":[]}",
            b"{\"spec\":",
        ] {
            decode(Deployment::ROW, body, FieldValidation::Strict).unwrap_err();
        }
    }
}
