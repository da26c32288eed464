//! Documents that clients cache: discovery and OpenAPI have their hash as an ETag, and are not sent
//! again to clients that have them.

use http::header::{CACHE_CONTROL, ETAG, HeaderValue, IF_NONE_MATCH, LOCATION, VARY};
use http::request::Parts;
use http::{Method, StatusCode};

use super::{Body, empty, parse_query};
use crate::openapi;
use crate::response::Response;

/// The hash of the document in an answer, if it is one that clients cache.
pub fn hash(parts: &Parts, response: &Response) -> Option<String> {
    let path = parts.uri.path();
    let kept = path.starts_with("/openapi/") || matches!(path, "/api" | "/apis");
    match response {
        Response::Raw { code: 200, body, .. }
            if kept && matches!(parts.method, Method::GET | Method::HEAD) =>
        {
            Some(openapi::hash(body))
        }
        _ => None,
    }
}

/// Sets the document's hash in `response`, and leaves the document out if the client has it. A URL
/// with another hash redirects to the right one; what is under its own never changes.
pub fn set_etag(
    parts: &Parts,
    hash: &str,
    mut response: http::Response<Body>,
) -> http::Response<Body> {
    let tag = format!("\"{hash}\"");
    let asked = parse_query(parts.uri.query().unwrap_or_default());
    let asked = asked.iter().find(|(name, _)| name == "hash");
    let of_group = parts.uri.path().starts_with("/openapi/v3/");
    let known = parts.headers.get(IF_NONE_MATCH);
    let known = known.and_then(|value| value.to_str().ok());
    let has = known.is_some_and(|tags| tags.split(',').any(|one| one.trim() == tag));
    if let Some((_, asked)) = asked.filter(|_| of_group) {
        if asked != hash {
            let right = format!("{}?hash={hash}", parts.uri.path());
            if let Ok(right) = HeaderValue::from_str(&right) {
                *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
                *response.body_mut() = empty();
                response.headers_mut().insert(LOCATION, right);
            }
            return response;
        }
        let forever = HeaderValue::from_static("public, immutable, max-age=31536000");
        response.headers_mut().insert(CACHE_CONTROL, forever);
    }
    if has {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = empty();
    }
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    headers.append(VARY, HeaderValue::from_static("Accept"));
    response
}
