//! Which credentials match an image: pure.
//!
//! An entry's key is a host, optionally with a scheme, a port and a path; `*` matches within a part
//! of the host's name. The longest match wins
//! (<https://kubernetes.io/docs/concepts/containers/images/#config-json>).

use oci_client::Reference;

use super::RegistryCredential;

/// The credentials that match an image, best match first, otherwise in their order.
pub(crate) fn fitting<'a>(
    reference: &Reference,
    credentials: &'a [RegistryCredential],
) -> Vec<&'a RegistryCredential> {
    let mut fitting: Vec<&RegistryCredential> =
        credentials.iter().filter(|credential| fits(&credential.registry, reference)).collect();
    fitting.sort_by_key(|credential| std::cmp::Reverse(path_of(&credential.registry).1.len()));
    fitting
}

/// Host and path of a key, without scheme, API version and slashes.
fn path_of(key: &str) -> (&str, &str) {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let path = path.trim_end_matches('/');
    (host, if matches!(path, "v1" | "v2") { "" } else { path })
}

fn fits(key: &str, reference: &Reference) -> bool {
    let (host, path) = path_of(key);
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    };
    let in_path = path.is_empty()
        || reference.repository() == path
        || reference.repository().strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
    in_path && host_fits(host, reference.registry())
}

fn host_fits(pattern: &str, host: &str) -> bool {
    let (pattern, pattern_port) = split_port(pattern);
    let (host, port) = split_port(host);
    if pattern_port.is_some() && pattern_port != port {
        return false;
    }
    let (pattern, host): (Vec<&str>, Vec<&str>) =
        (pattern.split('.').collect(), host.split('.').collect());
    pattern.len() == host.len()
        && pattern.iter().zip(host).all(|(pattern, part)| part_fits(pattern, part))
}

fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, Some(port)),
        _ => (host, None),
    }
}

/// Matches a part of a host's name against a pattern with `*`.
fn part_fits(pattern: &str, part: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == part,
        Some((before, after)) => part.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len())
                .filter(|at| rest.is_char_boundary(*at))
                .any(|at| part_fits(after, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::reference::parse;

    #[test]
    fn table() {
        for (key, image, expected) in [
            ("https://index.docker.io/v1/", "busybox", true),
            ("docker.io", "team/app", true),
            ("registry.example.com", "registry.example.com/a", true),
            ("registry.example.com", "registry.example.com:5000/a", true),
            ("registry.example.com:5000", "registry.example.com/a", false),
            ("registry.example.com/team", "registry.example.com/team/a", true),
            ("registry.example.com/team", "registry.example.com/teamster/a", false),
            ("*.example.com", "r.example.com/a", true),
            ("*.example.com", "a.b.example.com/a", false),
            ("reg*y.example.com", "registry.example.com/a", true),
            ("other.example.com", "r.example.com/a", false),
            ("http://127.0.0.1:5000", "127.0.0.1:5000/a", true),
        ] {
            let reference = parse(image).unwrap();
            assert_eq!(fits(key, &reference), expected, "{key} {image}");
        }
    }

    #[test]
    fn the_longest_path_comes_first() {
        let entry = |registry: &str| RegistryCredential {
            registry: registry.into(),
            ..RegistryCredential::default()
        };
        let credentials = [entry("r.io"), entry("r.io/team"), entry("x.io")];
        let reference = parse("r.io/team/app").unwrap();
        let found: Vec<_> =
            fitting(&reference, &credentials).iter().map(|found| found.registry.as_str()).collect();
        assert_eq!(found, ["r.io/team", "r.io"]);
    }
}
