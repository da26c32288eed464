//! From an HTTP request to its subject: Kubernetes' paths and query parameters.

use api::ApiError;
use http::Method;
use http::request::Parts;

use super::{Accept, media_type};
use crate::aggregation::Aggregator;
use crate::connect::Stream;
use crate::options;
use crate::paths::discovery;
use crate::registry::Kinds;
use crate::request::{Head, Options, PatchType, Subject, Target, Verb};
use crate::request_info::{RequestInfo, verb_of};

/// Longest path and query that are accepted, in bytes.
const MAX_URI_BYTES: usize = 48 << 10;

/// Parses method, path and query. Refused are, with 404, a path without a resource, and others as
/// Kubernetes does.
pub fn route(kinds: &Kinds, parts: &Parts, accept: &Accept) -> Head {
    let parameters = parse_query(parts.uri.query().unwrap_or_default());
    let patch_type = match media_type(&parts.headers).as_str() {
        "application/json-patch+json" => Some(PatchType::Json),
        "application/merge-patch+json" => Some(PatchType::Merge),
        "application/strategic-merge-patch+json" => Some(PatchType::Strategic),
        "application/apply-patch+yaml" => Some(PatchType::Apply),
        _ => None,
    };
    let options = Options { parameters, patch_type, ..Options::default() };
    let path = parts.uri.path();
    let resource = match segments(path) {
        Some(segments) => resource(kinds, &parts.method, &segments, &options, parts),
        None => Ok(None),
    };
    let mut head = match resource {
        Ok(Some(subject)) => Head::new(subject, options),
        Ok(None) => {
            let (path, method) = (path.to_owned(), method_name(&parts.method));
            Head::new(Subject::Path { path, method, accept: accept.raw.clone() }, options)
        }
        Err(error) => {
            let info = RequestInfo::new(&parts.method, path, &options.parameters);
            let subject = Subject::Unserved(info);
            return Head { refused: Some(error), ..Head::new(subject, options) };
        }
    };
    head.refuse(check_length(parts));
    let parsed = match head.subject {
        Subject::Resource { verb, .. } => options::of_verb(verb, &mut head.options),
        _ => options::limit_time(&mut head.options),
    };
    head.refuse(parsed);
    head
}

/// A request that another server answers: its subject, and its time limit. Refused are one that
/// cannot be parsed, with 400, and the URIs that are of any request.
pub fn delegated(aggregator: &Aggregator, parts: &Parts) -> Option<Head> {
    let path = parts.uri.path();
    let parameters = parse_query(parts.uri.query().unwrap_or_default());
    let delegated = aggregator.delegated(&parts.method, path, &parameters, &parts.headers)?;
    let options = Options { parameters, ..Options::default() };
    let mut head = Head::new(Subject::Delegated(delegated), options);
    head.refuse(check_length(parts));
    let parsed = options::limit_time(&mut head.options);
    head.refuse(parsed);
    Some(head)
}

fn check_length(parts: &Parts) -> Result<(), ApiError> {
    let query = parts.uri.query().unwrap_or_default();
    if parts.uri.path().len() + query.len() > MAX_URI_BYTES {
        return Err(ApiError::new(414, "RequestURITooLong", "the request's URI is too long"));
    }
    Ok(())
}

/// The name of a method, in lower case.
pub fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "options",
    }
}

/// Group, version and the rest of a resource path.
struct Segments {
    group: String,
    version: String,
    rest: Vec<String>,
}

fn segments(path: &str) -> Option<Segments> {
    let mut parts = path.trim_start_matches('/').split('/').map(percent_decode);
    let (group, version) = match parts.next()?.as_str() {
        "api" => (String::new(), parts.next()?),
        "apis" => (parts.next()?, parts.next()?),
        _ => return None,
    };
    let mut rest: Vec<String> = parts.collect();
    // A trailing slash matters only after `proxy`.
    if rest.last().is_some_and(String::is_empty) && !rest.iter().any(|part| part == "proxy") {
        rest.pop();
    }
    (!rest.is_empty()).then_some(Segments { group, version, rest })
}

fn resource(
    kinds: &Kinds,
    method: &Method,
    segments: &Segments,
    options: &Options,
    parts: &Parts,
) -> Result<Option<Subject>, ApiError> {
    let mut rest: Vec<&str> = segments.rest.iter().map(String::as_str).collect();
    let watching = rest.first() == Some(&"watch");
    if watching {
        rest.remove(0);
    }
    let by_plural = |plural: &str| kinds.by_resource(&segments.group, &segments.version, plural);
    let (mut namespace, mut rest) = ("", rest);
    if rest.first() == Some(&"namespaces")
        && rest.len() >= 3
        && by_plural(rest[2]).is_some_and(|row| row.namespaced())
    {
        namespace = rest[1];
        if namespace.is_empty() {
            return Err(ApiError::no_such_resource());
        }
        rest.drain(..2);
    }
    let Some(plural) = rest.first() else {
        return Ok(None);
    };
    let Some(row) = by_plural(plural) else {
        return Err(ApiError::no_such_resource());
    };
    let name = rest.get(1).copied().unwrap_or_default();
    let subresource = rest.get(2).copied().unwrap_or_default();
    if row.namespaced() && namespace.is_empty() && !name.is_empty()
        || rest.iter().take(3).any(|part| part.is_empty())
        || (rest.len() > 3 && subresource != "proxy")
        // What is only created has no name.
        || (!name.is_empty() && discovery::verbs(&row) == discovery::ONLY_CREATE)
        || (!subresource.is_empty() && !row.has_subresource(subresource))
    {
        return Err(ApiError::no_such_resource());
    }
    let target = Target {
        row,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        subresource: subresource.to_owned(),
        subpath: subpath(parts.uri.path(), &segments.rest, rest.len()).to_owned(),
    };
    let verb = verb(method, &target, options, watching)?;
    Ok(Some(Subject::Resource { verb, target }))
}

/// What follows the subresource in a path, not decoded: empty, or starting with a slash. `whole`
/// are the segments after group and version, of which `rest` begin with the resource.
fn subpath<'a>(path: &'a str, whole: &[String], rest: usize) -> &'a str {
    // `/api/v1` or `/apis/GROUP/VERSION`, then up to resource, name and subresource.
    let before = path.split('/').count() - whole.len();
    let slashes = path.match_indices('/').map(|(at, _)| at);
    let mut ends = slashes.skip(before + whole.len() - rest + 2);
    ends.next().map_or("", |at| &path[at..])
}

fn verb(
    method: &Method,
    target: &Target,
    options: &Options,
    watching: bool,
) -> Result<Verb, ApiError> {
    if target.subresource == "proxy" || Stream::of(target).is_some() {
        if *method == Method::HEAD && target.subresource != "proxy" {
            return Err(ApiError::unknown_method());
        }
        let authorized_as = verb_of(method);
        return Ok(Verb::Connect { authorized_as });
    }
    let named = !target.name.is_empty();
    Ok(match (method, named) {
        (&Method::GET | &Method::HEAD, _) if watching || (!named && options.flag("watch")) => {
            Verb::Watch
        }
        (&Method::GET | &Method::HEAD, true) => Verb::Get,
        (&Method::GET | &Method::HEAD, false) => Verb::List,
        (&Method::POST, _) => Verb::Create,
        (&Method::PUT, true) => Verb::Update,
        (&Method::PATCH, true) => Verb::Patch,
        (&Method::DELETE, true) => Verb::Delete,
        (&Method::DELETE, false) => Verb::DeleteCollection,
        _ => return Err(ApiError::unknown_method()),
    })
}

/// Decodes `%41`; `+` is only decoded in a query.
pub fn percent_decode(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Encodes all but what is never reserved, and what `plain` says.
pub fn percent_encode(text: &str, plain: &[u8]) -> String {
    use std::fmt::Write;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || plain.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a string takes everything");
        }
    }
    encoded
}

/// The parameters of a query, decoded, in order.
pub fn parse_query(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let decode = |text: &str| percent_decode(&text.replace('+', " "));
            (decode(name), decode(value))
        })
        .collect()
}
