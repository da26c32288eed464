//! What a request is about in RBAC's terms, as far as its path says: as upstream's
//! `RequestInfoFactory` (`k8s.io/apiserver/pkg/endpoints/request`) reads any path, whoever answers
//! it, and if nobody does. Pure.

use api::fields;
use http::Method;
use rpc::api_v1 as pb;

use crate::request::Verb;
use crate::rest::{method_name, percent_decode};

/// Subresources whose requests last as long as the client wants.
const LASTING: [&str; 5] = ["attach", "exec", "log", "portforward", "proxy"];
/// What follows a namespace's name without being a resource of it.
const OF_NAMESPACES: [&str; 2] = ["finalize", "status"];

/// A path, and what it names.
#[derive(Clone, Debug)]
pub struct RequestInfo {
    /// Decoded.
    pub path: String,
    /// Lower case.
    pub method: &'static str,
    /// `None`: a document, such as discovery.
    pub resource: Option<Resource>,
}

impl RequestInfo {
    pub fn new(method: &Method, path: &str, parameters: &[(String, String)]) -> Self {
        let path = percent_decode(path);
        let resource = resource(method, &path, parameters);
        Self { path, method: method_name(method), resource }
    }

    /// What a call is about whose target is `path` over REST.
    pub fn of_call(verb: Verb, target: pb::Target, path: String) -> Self {
        let pb::Target { group, resource, namespace, name, subresource, .. } = target;
        let verb = verb.as_str();
        let resource = Resource { verb, group, namespace, resource, subresource, name };
        let method = match verb {
            "create" => "post",
            "update" => "put",
            "patch" => "patch",
            "delete" | "deletecollection" => "delete",
            _ => "get",
        };
        Self { path, method, resource: Some(resource) }
    }

    /// The version that its path names.
    pub fn version(&self) -> &str {
        let mut parts = self.path.trim_matches('/').split('/');
        let before = if parts.next() == Some("api") { 0 } else { 1 };
        parts.nth(before).unwrap_or_default()
    }

    /// Whether the answer takes as long as the client wants: by verb and subresource alone, which are
    /// authorized, and by nothing that a client adds.
    pub fn is_long_running(&self) -> bool {
        self.resource.as_ref().is_some_and(|resource| {
            matches!(resource.verb, "watch" | "proxy")
                || LASTING.contains(&resource.subresource.as_str())
        })
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

/// RBAC's verb of a method; empty, which only a rule for every verb allows, if there is none.
pub fn verb_of(method: &Method) -> &'static str {
    match *method {
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
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
    let mut verb = verb_of(method);
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
    fn verb_and_subresource_say_what_lasts() {
        for (method, path, lasts) in [
            ("GET", "/apis/g/v1/things?watch=1", true),
            ("GET", "/apis/g/v1/namespaces/n/things/a/log", true),
            ("POST", "/apis/g/v1/namespaces/n/things/a/exec", true),
            ("GET", "/apis/g/v1/namespaces/n/things/a/console", false),
            ("GET", "/apis/g/v1/things/a?watch=1", false),
            ("POST", "/apis/g/v1/things", false),
            ("GET", "/apis/g/v1", false),
        ] {
            let (path, query) = path.split_once('?').unwrap_or((path, ""));
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let info = RequestInfo::new(&method, path, &crate::rest::parse_query(query));
            assert_eq!((info.is_long_running(), info.version()), (lasts, "v1"), "{method} {path}");
        }
        assert_eq!(RequestInfo::new(&Method::GET, "/api/v1/pods", &[]).version(), "v1");
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
