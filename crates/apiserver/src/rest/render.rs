//! Renders answers as HTTP responses.

use std::io::Write;

use api::ApiError;
use bytes::{BufMut, Bytes, BytesMut};
use clock::SharedClock;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY};
use http_body_util::{BodyExt, Full};
use jiff::Timestamp;

use super::table::{partial, partial_list, table};
use super::{Accept, Body, Representation, watch};
use crate::request::Verb;
use crate::response::{ListAnswer, ObjectAnswer, Response, bounded};

/// The content type of JSON. Kubernetes adds no charset.
pub const JSON: &str = "application/json";
/// Answers smaller than this are not compressed (upstream's 128 KiB).
const GZIP_FROM_BYTES: usize = 128 << 10;

/// A body that is already complete.
pub fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// Renders an answer.
///
/// # Errors
/// 406 when it cannot be rendered in the negotiated representation.
pub fn response(
    response: Response,
    verb: Option<Verb>,
    accept: &Accept,
    clock: &SharedClock,
) -> Result<http::Response<Body>, ApiError> {
    match response {
        Response::Object(answer) => object(answer, accept, clock.now()),
        Response::List(answer) => {
            let json = match accept.representation {
                Representation::Object => list_json(&answer),
                Representation::Table => {
                    let options = accept.table_options();
                    table(answer.row, &answer.items, Some(&answer), &options, clock.now())?
                }
                Representation::PartialMetadata => partial_list(&answer),
            };
            Ok(json_response(200, json, &[], accept))
        }
        Response::Watch(watcher) => Ok(watch::response(*watcher, accept, clock.clone())),
        Response::Json { code, json, warnings } => {
            if accept.representation == Representation::Table && verb == Some(Verb::Create) {
                return Err(ApiError::not_acceptable(
                    "only the following media types are accepted: application/json, application/yaml",
                ));
            }
            Ok(json_response(code, json, &warnings, accept))
        }
        Response::Raw { code, content_type, body } => {
            let mut response = finish(code, body, accept);
            let value = HeaderValue::from_str(&content_type)
                .unwrap_or(HeaderValue::from_static("application/octet-stream"));
            response.headers_mut().insert(CONTENT_TYPE, value);
            Ok(response)
        }
        Response::Connect(_) => Err(ApiError::internal("a stream cannot be rendered")),
    }
}

/// An error as a Status.
pub fn error(error: &ApiError, accept: &Accept) -> http::Response<Body> {
    let mut response = json_response(error.code(), error.encode().into(), &[], accept);
    let retry = error.status().details.as_ref().and_then(|details| details.retry_after_seconds);
    if let Some(seconds) = retry {
        response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(seconds.max(0)));
    }
    if error.code() == 401 {
        response.headers_mut().remove(CACHE_CONTROL);
    }
    response
}

fn object(
    answer: ObjectAnswer,
    accept: &Accept,
    now: Timestamp,
) -> Result<http::Response<Body>, ApiError> {
    let json = match accept.representation {
        Representation::Object => answer.version.json.clone(),
        Representation::Table => {
            let items = [answer.version.clone()];
            table(answer.row, &items, None, &accept.table_options(), now)?
        }
        Representation::PartialMetadata => partial(&answer.version),
    };
    Ok(json_response(answer.code, json, &answer.warnings, accept))
}

/// The list around the encoded bytes of its items.
pub fn list_json(list: &ListAnswer) -> Bytes {
    let size: usize = list.items.iter().map(|item| item.json.len() + 1).sum();
    let mut out = BytesMut::with_capacity(size + 512);
    list_head(&mut out, &list.row.list_kind(), &list.row.api_version(), list);
    for (index, item) in list.items.iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        out.put_slice(&item.json);
    }
    out.put_slice(b"]}\n");
    out.freeze()
}

/// Everything of a list before the first item.
pub fn list_head(out: &mut BytesMut, kind: &str, api_version: &str, list: &ListAnswer) {
    out.put_slice(format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{{\"resourceVersion\":\"{}\"", list.revision).as_bytes());
    if !list.continue_token.is_empty() {
        out.put_slice(format!(",\"continue\":\"{}\"", list.continue_token).as_bytes());
    }
    if let Some(remaining) = list.remaining.filter(|remaining| *remaining > 0) {
        out.put_slice(format!(",\"remainingItemCount\":{remaining}").as_bytes());
    }
    out.put_slice(b"},\"items\":[");
}

fn json_response(
    code: u16,
    json: Bytes,
    warnings: &[String],
    accept: &Accept,
) -> http::Response<Body> {
    let (body, content_type) = if accept.protobuf {
        match to_protobuf(&json) {
            Some(message) => (message, api::protobuf::MEDIA_TYPE),
            None => (json, JSON),
        }
    } else if accept.yaml {
        match to_yaml(&json) {
            Some(yaml) => (yaml, "application/yaml"),
            None => (json, JSON),
        }
    } else {
        (json, JSON)
    };
    let mut response = finish(code, body, accept);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    for warning in bounded(warnings) {
        let text = warning.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
    response
}

fn to_protobuf(json: &[u8]) -> Option<Bytes> {
    let value: serde_json::Value = serde_json::from_slice(json).ok()?;
    api::protobuf::from_json(&value).ok().map(Bytes::from)
}

fn to_yaml(json: &[u8]) -> Option<Bytes> {
    let value: serde_json::Value = serde_json::from_slice(json).ok()?;
    serde_saphyr::to_string(&value).ok().map(Bytes::from)
}

fn finish(code: u16, body: Bytes, accept: &Accept) -> http::Response<Body> {
    let compressed = (accept.gzip && body.len() >= GZIP_FROM_BYTES).then(|| gzip(&body)).flatten();
    let zipped = compressed.is_some();
    let mut response = http::Response::new(full(compressed.unwrap_or(body)));
    *response.status_mut() =
        http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if zipped {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    response
}

fn gzip(body: &[u8]) -> Option<Bytes> {
    let mut encoder = flate2::write::GzEncoder::new(
        Vec::with_capacity(body.len() / 4),
        flate2::Compression::fast(),
    );
    encoder.write_all(body).ok()?;
    encoder.finish().ok().map(Bytes::from)
}
