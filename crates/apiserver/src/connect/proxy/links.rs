//! Links within a proxied server, as its clients must follow them (`rewriteURL` of
//! `k8s.io/apimachinery/pkg/util/proxy`). Pure.

use http::Uri;
use http::uri::PathAndQuery;

/// What links are rewritten by.
#[derive(Clone, Debug)]
pub struct Links {
    /// The prefix of the server's paths at the apiserver.
    pub prefix: String,
    /// Names under which the server knows itself: its address, and the host that the client
    /// requested.
    pub hosts: Vec<String>,
}

impl Links {
    /// The link rewritten for the client; `None` if it needs no change: relative, to another
    /// server, or already rewritten.
    pub fn rewrite(&self, link: &str) -> Option<String> {
        let path =
            if link.starts_with('/') && !link.starts_with("//") { link } else { self.path(link)? };
        let inside = path
            .strip_prefix(&self.prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']));
        (!inside).then(|| format!("{}{path}", self.prefix))
    }

    /// The path of a link that names one of the hosts, with query and fragment.
    fn path<'a>(&self, link: &'a str) -> Option<&'a str> {
        let (_, rest) = link.split_once("//")?;
        // A link without a scheme cannot be parsed as a URI.
        let uri: Uri = format!("http://{rest}").parse().ok()?;
        let authority = uri.authority()?.as_str();
        if !self.hosts.iter().any(|host| host == authority) {
            return None;
        }
        match uri.path_and_query().map(PathAndQuery::as_str) {
            None | Some("/") if rest == authority => Some("/"),
            _ => rest.get(authority.len()..),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_within_the_proxy() {
        let links = Links {
            prefix: "/p".to_owned(),
            hosts: vec!["10.0.0.1:8080".to_owned(), "localhost:8001".to_owned()],
        };
        let table = [
            ("/login?x=1", Some("/p/login?x=1")),
            ("/", Some("/p/")),
            ("http://10.0.0.1:8080/b#c", Some("/p/b#c")),
            ("//10.0.0.1:8080/b", Some("/p/b")),
            ("http://10.0.0.1:8080", Some("/p/")),
            ("http://localhost:8001/b/", Some("/p/b/")),
            ("http://localhost:8001/p/b", None),
            ("/p/b", None),
            ("/p", None),
            ("/pb", Some("/p/pb")),
            ("https://elsewhere.test/b", None),
            ("//elsewhere.test/b", None),
            ("b/c", None),
            ("#top", None),
            ("mailto:a@b.test", None),
            ("", None),
        ];
        for (link, expected) in table {
            assert_eq!(links.rewrite(link).as_deref(), expected, "{link}");
        }
    }
}
