//! Content negotiation: what a client sends and what it accepts.

use api::ApiError;
use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, USER_AGENT};

use super::table::{IncludeObject, TableOptions};
use super::{media_type, parse_query};
use crate::request::{BodyFormat, Verb};

/// The representation of an object in an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Representation {
    /// The object or list itself.
    #[default]
    Object,
    Table,
    PartialMetadata,
}

/// What the client accepts.
#[derive(Clone, Debug, Default)]
pub struct Accept {
    pub representation: Representation,
    pub yaml: bool,
    /// Only for clients that accept nothing else: the cache holds JSON.
    pub protobuf: bool,
    pub gzip: bool,
    /// JSON on lines of its own, for people.
    pub pretty: bool,
    /// What the rows of a Table include.
    pub include: IncludeObject,
    /// The elements of the header, the most preferred first, for paths that negotiate by themselves.
    pub raw: String,
}

impl Accept {
    /// How a Table is rendered for this client.
    pub fn table_options(&self) -> TableOptions {
        TableOptions { include: self.include, ..TableOptions::default() }
    }

    /// Chooses the most preferred media type that can be served. `query` has the options of a Table.
    ///
    /// # Errors
    /// 406 when none can, 400 for invalid options of a Table.
    pub fn parse(headers: &HeaderMap, query: &str) -> Result<Self, ApiError> {
        let parameters = parse_query(query);
        let parameter = |wanted: &str| {
            let found = parameters.iter().find(|(name, _)| name == wanted);
            found.map_or("", |(_, value)| value.as_str())
        };
        let pretty = is_pretty(headers, parameter("pretty"));
        let mut accept = Self { pretty, ..Self::of_headers(headers)? };
        if accept.representation == Representation::Table {
            accept.include = IncludeObject::parse(parameter("includeObject"))?;
        }
        Ok(accept)
    }

    fn of_headers(headers: &HeaderMap) -> Result<Self, ApiError> {
        let raw = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let gzip = headers
            .get(ACCEPT_ENCODING)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.contains("gzip"));
        let ranges = media_ranges(raw);
        let texts: Vec<&str> = ranges.iter().map(|range| range.text).collect();
        let base = Self { gzip, raw: texts.join(","), ..Self::default() };
        if raw.trim().is_empty() {
            return Ok(base);
        }
        let mut takes_protobuf = false;
        for MediaRange { kind, parameter, .. } in ranges {
            let representation = match parameter {
                ("", _, _) => Representation::Object,
                ("Table", "meta.k8s.io", "v1" | "v1beta1") => Representation::Table,
                (
                    "PartialObjectMetadata" | "PartialObjectMetadataList",
                    "meta.k8s.io",
                    "v1" | "v1beta1",
                ) => Representation::PartialMetadata,
                // Discovery documents and the pages of the process negotiate by the raw header.
                (_, "apidiscovery.k8s.io" | "config.k8s.io", _) => Representation::Object,
                _ => continue,
            };
            match kind.as_str() {
                "application/json"
                | "*/*"
                | "application/*"
                | "text/*"
                | "text/plain"
                | "text/html"
                | "application/openmetrics-text"
                | "application/octet-stream" => {
                    return Ok(Self { representation, ..base });
                }
                "application/yaml" => {
                    return Ok(Self { representation, yaml: true, ..base });
                }
                api::protobuf::MEDIA_TYPE => {
                    takes_protobuf |= representation == Representation::Object
                }
                // OpenAPI documents negotiate by the raw header.
                kind if kind.starts_with("application/com.github.proto-openapi") => {
                    return Ok(base);
                }
                _ => {}
            }
        }
        if takes_protobuf {
            return Ok(Self { protobuf: true, ..base });
        }
        Err(ApiError::not_acceptable(
            "only the following media types are accepted: application/json, application/yaml, \
             application/vnd.kubernetes.protobuf",
        ))
    }
}

/// Which of these texts the most preferred element contains that contains any. `accept`: as
/// [`Accept::raw`].
pub fn first_of(accept: &str, texts: &[&str]) -> Option<usize> {
    accept.split(',').find_map(|range| texts.iter().position(|text| range.contains(text)))
}

/// One element of an Accept header.
struct MediaRange<'a> {
    text: &'a str,
    kind: String,
    /// `as`, `g` and `v`: what to make of the object.
    parameter: (&'a str, &'a str, &'a str),
    quality: f64,
}

/// The elements of an Accept header, the most preferred first: by quality, then wildcards last, then
/// in their order (`github.com/munnerz/goautoneg`).
fn media_ranges(raw: &str) -> Vec<MediaRange<'_>> {
    let mut ranges: Vec<_> = raw.split(',').map(media_range).collect();
    let wildcards = |range: &MediaRange<'_>| range.kind.matches('*').count();
    ranges.sort_by(|a, b| {
        b.quality.total_cmp(&a.quality).then_with(|| wildcards(a).cmp(&wildcards(b)))
    });
    ranges
}

fn media_range(text: &str) -> MediaRange<'_> {
    let mut parts = text.split(';').map(str::trim);
    let kind = match parts.next().unwrap_or_default() {
        "*" => "*/*".to_owned(),
        kind => kind.to_ascii_lowercase(),
    };
    let mut range = MediaRange { text: text.trim(), kind, parameter: ("", "", ""), quality: 1.0 };
    for part in parts {
        match part.split_once('=') {
            Some(("as", value)) => range.parameter.0 = value,
            Some(("g", value)) => range.parameter.1 = value,
            Some(("v", value)) => range.parameter.2 = value,
            // As upstream: what is not a number counts as 0, and even that is accepted.
            Some(("q", value)) => range.quality = value.parse().unwrap_or_default(),
            _ => {}
        }
    }
    range
}

/// Whether the client asked for readable JSON, or is a person's tool as far as upstream knows.
fn is_pretty(headers: &HeaderMap, asked: &str) -> bool {
    if !asked.is_empty() {
        return matches!(asked, "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|tool| agent.starts_with(tool))
}

/// Custom resources have no protobuf form: clients get and send JSON or YAML.
///
/// # Errors
/// 406 for a client that takes nothing else, 415 for an object in it.
pub fn without_protobuf(
    parts: &http::request::Parts,
    accept: &Accept,
    verb: Verb,
) -> Result<(), ApiError> {
    let others = ["json", "yaml", "*/*", "application/*"];
    if accept.protobuf && !others.iter().any(|other| accept.raw.contains(other)) {
        return Err(ApiError::not_acceptable(
            "only the following media types are accepted: application/json, application/yaml",
        ));
    }
    let takes_object = !verb.is_read() && verb != Verb::Patch;
    if takes_object && media_type(&parts.headers) == api::protobuf::MEDIA_TYPE {
        return Err(ApiError::unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: \
             application/json, application/yaml",
        ));
    }
    Ok(())
}

/// The encoding of a body that is a patch, or empty.
pub fn patch_format(parts: &http::request::Parts) -> BodyFormat {
    match media_type(&parts.headers).as_str() {
        "application/apply-patch+yaml" => BodyFormat::Yaml,
        _ => BodyFormat::Json,
    }
}

/// The encoding of the body.
///
/// # Errors
/// 415 when it is neither JSON, YAML nor Kubernetes' protobuf, nor the body a patch.
pub fn body_format(parts: &http::request::Parts) -> Result<BodyFormat, ApiError> {
    if parts.method == http::Method::PATCH {
        return Ok(patch_format(parts));
    }
    match media_type(&parts.headers).as_str() {
        "" | "application/json" => Ok(BodyFormat::Json),
        "application/yaml" => Ok(BodyFormat::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(BodyFormat::Protobuf),
        _ => Err(ApiError::unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: \
             application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(accept: &str, query: &str) -> Result<Accept, ApiError> {
        Accept::parse(&HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]), query)
    }

    #[test]
    fn the_most_preferred_media_type_is_chosen() {
        use Representation::{Object, PartialMetadata, Table};
        const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
        const PARTIAL: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
        for (accept, representation, yaml) in [
            ("".to_owned(), Object, false),
            ("*".to_owned(), Object, false),
            ("application/json, application/yaml".to_owned(), Object, false),
            ("application/json;q=0.5, application/yaml".to_owned(), Object, true),
            ("application/json;q=0.5, application/yaml;q=0.4".to_owned(), Object, false),
            ("*/*, application/yaml".to_owned(), Object, true),
            ("application/yaml;q=none, */*;q=0.1".to_owned(), Object, false),
            ("application/yaml;q=0".to_owned(), Object, true),
            (format!("{TABLE}, application/json"), Table, false),
            (format!("application/json;q=0.8, {TABLE}"), Table, false),
            (format!("{TABLE};q=0.2, {PARTIAL};q=0.3, */*;q=0.1"), PartialMetadata, false),
        ] {
            let chosen = parse(&accept, "").unwrap();
            assert_eq!((chosen.representation, chosen.yaml), (representation, yaml), "{accept}");
        }
        assert_eq!(parse("image/png, json", "").unwrap_err().code(), 406);
    }

    /// Paths that negotiate by themselves take the first element that they have something for.
    #[test]
    fn the_elements_are_sorted_by_preference() {
        let raw = |accept: &str| parse(accept, "").unwrap().raw;
        assert_eq!(
            raw("a/b;q=0.1, text/plain;q=0.2,text/html"),
            "text/html,text/plain;q=0.2,a/b;q=0.1"
        );
        let prometheus =
            raw("text/plain;q=0.5, application/openmetrics-text;version=1.0.0;q=0.9, */*;q=0.1");
        assert_eq!(first_of(&prometheus, &["text/plain", "openmetrics"]), Some(1));
        assert_eq!(first_of("", &["text/plain"]), None);
    }

    #[test]
    fn parameters_of_the_query_are_decoded() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        for (query, expected) in [
            ("", IncludeObject::Metadata),
            ("includeObject=", IncludeObject::Metadata),
            ("limit=1&includeObject=Object", IncludeObject::Object),
            ("include%4fbject=%4eone", IncludeObject::None),
        ] {
            assert_eq!(parse(table, query).unwrap().include, expected, "{query}");
        }
        assert_eq!(parse(table, "includeObject=All").unwrap_err().code(), 400);
        assert!(parse("", "pretty=tru%65").unwrap().pretty);
    }
}
