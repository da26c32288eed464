//! What a request is about that another server answers: its path in RBAC's terms, as upstream's
//! `RequestInfoFactory` (`k8s.io/apiserver/pkg/endpoints/request`) reads any path. Pure.

use std::sync::Arc;

use api::{ApiError, fields};
use http::{HeaderMap, Method};

use super::snapshot::Registered;
use crate::connect::wants_upgrade;
use crate::rest::{percent_decode, percent_encode};

/// Subresources whose requests last as long as the client wants.
const LASTING: [&str; 5] = ["attach", "exec", "log", "portforward", "proxy"];
/// What is not encoded in a path, besides what is never reserved (Go's `EscapedPath`).
const PLAIN: &[u8] = b"$&+,/:;=@";
/// What follows a namespace's name without being a resource of it.
const OF_NAMESPACES: [&str; 2] = ["finalize", "status"];

/// A request to a group version that another server answers.
#[derive(Clone, Debug)]
pub struct Delegated {
    pub service: Arc<Registered>,
    /// Decoded: what is authorized, and what the other server is asked for.
    pub path: String,
    /// Lower case.
    pub method: &'static str,
    /// `None`: a document, such as discovery.
    pub resource: Option<Resource>,
    pub upgrades: bool,
}

impl Delegated {
    pub fn new(
        service: Arc<Registered>,
        method: &Method,
        (path, parameters): (&str, &[(String, String)]),
        headers: &HeaderMap,
    ) -> Self {
        let path = percent_decode(path);
        Self {
            service,
            method: crate::rest::method_name(method),
            resource: resource(method, &path, parameters),
            path,
            upgrades: wants_upgrade(headers),
        }
    }

    /// The path in a URL. It means what has been authorized to every server, whatever the client's
    /// encoding of it might have meant.
    ///
    /// # Errors
    /// 400 when it has segments that servers may read as steps to another path.
    pub fn encoded_path(&self) -> Result<String, ApiError> {
        if self.path.split('/').any(|part| matches!(part, "." | "..")) {
            return Err(ApiError::bad_request("the path must not have dot segments"));
        }
        Ok(percent_encode(&self.path, PLAIN))
    }

    /// The version that its path names.
    pub fn version(&self) -> &str {
        self.path.trim_matches('/').split('/').nth(2).unwrap_or_default()
    }

    pub fn is_long_running(&self) -> bool {
        let lasts = |resource: &Resource| {
            matches!(resource.verb, "watch" | "proxy")
                || LASTING.contains(&resource.subresource.as_str())
        };
        self.upgrades || self.resource.as_ref().is_some_and(lasts)
    }

    pub fn is_read(&self) -> bool {
        matches!(self.method, "get" | "head")
    }
}

/// A resource, or one object of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Empty: of no method that RBAC knows.
    pub verb: &'static str,
    pub group: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
}

/// The resource that a decoded path names.
fn resource(method: &Method, path: &str, parameters: &[(String, String)]) -> Option<Resource> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, mut rest) = match parts[..] {
        ["api", _, ref rest @ ..] => ("", rest),
        ["apis", group, _, ref rest @ ..] => (group, rest),
        _ => return None,
    };
    if rest.is_empty() {
        return None;
    }
    let mut verb = match *method {
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    };
    let prefixed = match rest.first() {
        Some(&"watch") => Some("watch"),
        Some(&"proxy") => Some("proxy"),
        _ => None,
    };
    if let Some(special) = prefixed.filter(|_| rest.len() > 1) {
        (verb, rest) = (special, &rest[1..]);
    }
    let mut namespace = "";
    if let ["namespaces", named, ..] = rest {
        namespace = named;
        if rest.len() > 2 && !OF_NAMESPACES.contains(&rest[2]) {
            rest = &rest[2..];
        }
    }
    let part = |index: usize| rest.get(index).copied().unwrap_or_default();
    let mut name = part(1).to_owned();
    if name.is_empty() {
        let value = |key: &str| {
            let found = parameters.iter().find(|(name, _)| name == key);
            found.map(|(_, value)| value.as_str())
        };
        let watches = value("watch")
            .is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"));
        verb = match verb {
            "get" if watches => "watch",
            "get" => "list",
            "delete" => "deletecollection",
            other => other,
        };
        if matches!(verb, "list" | "watch")
            && let Some(Ok(selector)) = value("fieldSelector").map(fields::Selector::parse)
            && let Some(only) = selector.exact("metadata.name")
            && api::names::path_segment(only).is_empty()
        {
            only.clone_into(&mut name);
        }
    }
    Some(Resource {
        verb,
        group: group.to_owned(),
        namespace: namespace.to_owned(),
        resource: part(0).to_owned(),
        subresource: if prefixed.is_some() { String::new() } else { part(2).to_owned() },
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Verb, group, namespace, resource, subresource, name.
    fn parsed(method: &str, path: &str) -> Option<[String; 6]> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let found = resource(&method, &percent_decode(path), &crate::rest::parse_query(query))?;
        let Resource { verb, group, namespace, resource, subresource, name } = found;
        Some([verb.to_owned(), group, namespace, resource, subresource, name])
    }

    #[test]
    fn paths_are_read_as_upstream_reads_them() {
        let table = [
            ("GET", "/apis/g/v1/things", Some(["list", "g", "", "things", "", ""])),
            ("HEAD", "/apis/g/v1/things/", Some(["list", "g", "", "things", "", ""])),
            ("GET", "/apis/g/v1/things?watch=1", Some(["watch", "g", "", "things", "", ""])),
            ("GET", "/apis/g/v1/things?watch=false", Some(["list", "g", "", "things", "", ""])),
            ("GET", "/apis/g/v1/things/a?watch=1", Some(["get", "g", "", "things", "", "a"])),
            ("GET", "/apis/g/v1/watch/things/a", Some(["watch", "g", "", "things", "", "a"])),
            (
                "POST",
                "/apis/g/v1/namespaces/n/things",
                Some(["create", "g", "n", "things", "", ""]),
            ),
            (
                "PUT",
                "/apis/g/v1/namespaces/n/things/a/status",
                Some(["update", "g", "n", "things", "status", "a"]),
            ),
            (
                "GET",
                "/apis/custom.metrics.k8s.io/v1beta2/namespaces/n/pods/*/qps",
                Some(["get", "custom.metrics.k8s.io", "n", "pods", "qps", "*"]),
            ),
            ("PATCH", "/apis/g/v1/things/a%2Fb", Some(["patch", "g", "", "things", "b", "a"])),
            ("GET", "/apis/g/v1/things/%61%25", Some(["get", "g", "", "things", "", "a%"])),
            (
                "PUT",
                "/apis%2Fg/v1/namespaces%2fn/things/a%2Fstatus",
                Some(["update", "g", "n", "things", "status", "a"]),
            ),
            ("DELETE", "/apis/g/v1/things/a", Some(["delete", "g", "", "things", "", "a"])),
            ("DELETE", "/apis/g/v1/things", Some(["deletecollection", "g", "", "things", "", ""])),
            ("OPTIONS", "/apis/g/v1/things", Some(["", "g", "", "things", "", ""])),
            ("GET", "/apis/g/v1/namespaces/n", Some(["get", "g", "n", "namespaces", "", "n"])),
            (
                "PUT",
                "/api/v1/namespaces/n/finalize",
                Some(["update", "", "n", "namespaces", "finalize", "n"]),
            ),
            (
                "GET",
                "/apis/g/v1/things?fieldSelector=metadata.name%3Da",
                Some(["list", "g", "", "things", "", "a"]),
            ),
            // Not a document, which everybody may read.
            ("GET", "/apis/g/v1//things", Some(["get", "g", "", "", "", "things"])),
            ("GET", "/apis/g/v1", None),
            ("GET", "/apis/g/v1/", None),
            ("GET", "/apis/g", None),
        ];
        for (method, path, expected) in table {
            let expected = expected.map(|texts| texts.map(str::to_owned));
            assert_eq!(parsed(method, path), expected, "{method} {path}");
        }
    }
}
