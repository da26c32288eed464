//! Subresources with a type of their own, and the kinds that are never stored.
//!
//! `status`, `finalize`, `ephemeralcontainers` and `resize` are updates of the object itself and
//! not handled here.

pub mod binding;
mod eviction;
mod review;
pub mod scale;
mod token;

use api::{ApiError, Kind};
use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;

use crate::connect;
use crate::core::Call;
use crate::request::{Request, Verb};
use crate::response::Response;

pub use review::answer_review;

/// API versions that clients before 1.22 send, with the same fields. Of their group versions, only
/// these kinds are still accepted.
const OLDER: [(&str, &str); 1] = [("Eviction", "policy/v1beta1")];

/// Carries out a request to a subresource.
///
/// # Errors
/// Those of the subresource.
pub async fn handle(call: Call<'_>, request: &Request) -> Result<Response, ApiError> {
    match (call.target.subresource.as_str(), call.verb) {
        ("scale", Verb::Get) => scale::get(call).await,
        ("scale", Verb::Update) => scale::update(call, request).await,
        ("scale", Verb::Patch) => scale::patch(call, request).await,
        ("binding", Verb::Create) => binding::create(call, request).await,
        ("eviction", Verb::Create) => eviction::create(call, request).await,
        ("token", Verb::Create) => token::create(call, request).await,
        (_, Verb::Connect { .. }) => connect::open(call).await,
        (_, verb) => Err(ApiError::method_not_allowed(call.row(), verb.as_str())),
    }
}

/// Decodes the body as an object of a subresource.
fn decode<K: Kind>(request: &Request) -> Result<K, ApiError> {
    let json = crate::body::as_json(&request.body, request.body_format)?;
    if json.is_empty() {
        return Err(ApiError::bad_request("unable to decode an empty request body"));
    }
    let older = OLDER.iter().find(|(kind, _)| *kind == K::KIND).map(|(_, version)| *version);
    crate::body::decode_subresource(&json, older)
}

/// Decodes the body as an object of a subresource, or of a kind that is never stored, and admits
/// its creation.
async fn admitted<K: Kind>(call: Call<'_>, request: &Request) -> Result<K, ApiError> {
    let mut object: K = decode(request)?;
    call.core.admission.create(call, &mut object).await?;
    Ok(object)
}

/// An object that is answered without being stored.
fn json(code: u16, object: &impl Kind) -> Response {
    Response::Json { code, json: Bytes::from(object.encode()), warnings: Vec::new() }
}

/// `Status` Success with code 201.
fn created() -> Response {
    let status =
        Status { status: Some("Success".to_owned()), code: Some(201), ..Status::default() };
    Response::Json {
        code: 201,
        json: api::status::encode_status(&status).into(),
        warnings: Vec::new(),
    }
}
