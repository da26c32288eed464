//! `AdmissionReview`: what is sent to a webhook, and what comes back
//! (`k8s.io/apiserver/pkg/admission/plugin/webhook/request`).

use std::collections::BTreeMap;

use api::ApiError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::verbs::patch::json;

/// The document that is sent.
pub fn body(
    version: &str,
    uid: &str,
    request: Map<String, Value>,
    new: &Value,
    old: &Value,
) -> Bytes {
    let encoded = |value: &Value| serde_json::to_vec(value).expect("JSON encodes to JSON");
    let head = encoded(&Value::Object(request));
    let (new, old) = (encoded(new), encoded(old));
    let mut body = Vec::with_capacity(head.len() + new.len() + old.len() + 256);
    let start = format!(
        r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/{version}","request":{{"uid":"{uid}","object":"#
    );
    body.extend_from_slice(start.as_bytes());
    body.extend_from_slice(&new);
    body.extend_from_slice(br#","oldObject":"#);
    body.extend_from_slice(&old);
    body.push(b',');
    // The members of the request, without its opening brace.
    body.extend_from_slice(&head[1..]);
    body.push(b'}');
    body.into()
}

/// The document that comes back.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    response: Option<Response>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    allowed: bool,
    status: Option<Box<RawValue>>,
    patch: Option<Octets>,
    patch_type: Option<String>,
    warnings: Option<Vec<String>>,
    audit_annotations: Option<BTreeMap<String, String>>,
}

/// Bytes as Go reads them: base64, or a list of numbers, which kube-rs writes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Octets {
    Base64(String),
    List(Vec<u8>),
}

impl Octets {
    fn is_empty(&self) -> bool {
        match self {
            Self::Base64(text) => text.is_empty(),
            Self::List(bytes) => bytes.is_empty(),
        }
    }

    fn decode(self) -> Result<Vec<u8>, String> {
        match self {
            Self::Base64(text) => BASE64.decode(text).map_err(|error| error.to_string()),
            Self::List(bytes) => Ok(bytes),
        }
    }
}

/// A well-formed answer.
#[derive(Debug, Default)]
pub struct Accepted {
    pub allowed: bool,
    /// A `Status` in JSON.
    pub status: Option<Box<RawValue>>,
    pub patch: Option<Vec<u8>>,
    pub patch_type: String,
    pub warnings: Vec<String>,
    pub audit_annotations: BTreeMap<String, String>,
}

impl Answer {
    /// # Errors
    /// When it is not JSON of the right form.
    pub fn read(json: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(json).map_err(|error| error.to_string())
    }

    /// Checks the answer to the review of this version and uid (`VerifyAdmissionResponse`).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn accept(self, version: &str, uid: &str, mutating: bool) -> Result<Accepted, String> {
        let response = self.response.ok_or("webhook response was absent")?;
        let mut accepted = Accepted {
            allowed: response.allowed,
            status: response.status,
            warnings: response.warnings.unwrap_or_default(),
            audit_annotations: response.audit_annotations.unwrap_or_default(),
            ..Accepted::default()
        };
        let patch = response.patch.filter(|patch| !patch.is_empty());
        // The older version was never checked.
        if version != "v1" {
            accepted.patch = patch.filter(|_| mutating).map(Octets::decode).transpose()?;
            accepted.patch_type = "JSONPatch".to_owned();
            return Ok(accepted);
        }
        if response.uid != uid {
            return Err(format!("expected response.uid={uid:?}, got {:?}", response.uid));
        }
        let (wanted, kind) = ("admission.k8s.io/v1", "AdmissionReview");
        if (self.api_version.as_str(), self.kind.as_str()) != (wanted, kind) {
            let version = match self.api_version.as_str() {
                "" => "/".to_owned(),
                version if version.contains('/') => version.to_owned(),
                version => format!("/{version}"),
            };
            return Err(format!(
                "expected webhook response of {wanted}, Kind={kind}, got {version}, Kind={}",
                self.kind
            ));
        }
        if !mutating {
            let what = match (patch.is_some(), response.patch_type.is_some()) {
                (true, _) => "patch",
                (false, true) => "patchType",
                (false, false) => return Ok(accepted),
            };
            return Err(format!("validating webhook may not return response.{what}"));
        }
        match (&patch, &response.patch_type) {
            (Some(_), None) => {
                Err("webhook returned response.patch but not response.patchType".to_owned())
            }
            (None, Some(_)) => {
                Err("webhook returned response.patchType but not response.patch".to_owned())
            }
            (Some(_), Some(kind)) if kind.is_empty() => {
                Err("webhook returned invalid response.patchType of \"\"".to_owned())
            }
            _ => {
                accepted.patch = patch.map(Octets::decode).transpose()?;
                accepted.patch_type = response.patch_type.unwrap_or_default();
                Ok(accepted)
            }
        }
    }
}

/// The error of a request that a webhook denies, with the webhook's own status (`ToStatusErr`).
pub fn denial(name: &str, status: Option<Box<RawValue>>) -> ApiError {
    const CODE_MIN: i32 = 400;
    let read = |json: Box<RawValue>| api::status::decode_status(json.get().as_bytes()).ok();
    let mut status = status.and_then(read).unwrap_or_default();
    status.code = Some(status.code.unwrap_or_default().max(CODE_MIN));
    if matches!(status.status.as_deref(), None | Some("" | "Success")) {
        status.status = Some("Failure".to_owned());
    }
    let own = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let denied = format!("admission webhook {name:?} denied the request");
    status.message = Some(match own(&status.message).or_else(|| own(&status.reason)) {
        Some(why) => format!("{denied}: {why}"),
        None => format!("{denied} without explanation"),
    });
    ApiError::from_status(status)
}

/// The operations of a patch.
///
/// # Errors
/// 500 when it is none.
pub fn operations(patch: &[u8]) -> Result<Vec<Value>, ApiError> {
    serde_json::from_slice(patch).map_err(ApiError::internal)
}

/// An object after a patch.
///
/// # Errors
/// 500 when the patch cannot be applied.
pub fn patched(object: &Value, operations: &[Value]) -> Result<Value, ApiError> {
    let patch = json::parse(operations).map_err(ApiError::internal)?;
    let mut patched = object.clone();
    json::apply(&mut patched, &patch).map_err(ApiError::internal)?;
    Ok(patched)
}
