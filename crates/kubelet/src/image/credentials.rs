//! Which credentials match an image: pure.
//!
//! An entry's key is a host, optionally with a scheme, a port and a path. The host's parts may hold
//! wildcards, as in Go's `filepath.Match`; the port must be the same, also if there is none; the
//! path must be a prefix of the image's
//! (<https://kubernetes.io/docs/concepts/containers/images/#config-json>).

use oci_spec::distribution::Reference;

use super::RegistryCredential;

/// Docker Hub's host in images' names, and in keys.
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_KEY: &str = "index.docker.io";

/// Longest host of a key, in bytes: names are at most 255 bytes long.
const MAX_HOST_BYTES: usize = 1 << 10;

/// The places of the credentials that match an image, the most specific key first, otherwise in
/// their order. Those for Docker Hub under its other name are used if no others match.
pub(super) fn fitting(reference: &Reference, credentials: &[RegistryCredential]) -> Vec<usize> {
    let places = |fits: &dyn Fn(&Key<'_>) -> bool| {
        let keys = credentials.iter().map(|credential| Key::parse(&credential.registry));
        let mut found: Vec<(usize, Key<'_>)> =
            keys.enumerate().filter(|(_, key)| fits(key)).collect();
        // As text, in reverse: a longer key precedes its prefix.
        found.sort_by(|(_, one), (_, other)| other.cmp(one));
        found.into_iter().map(|(place, _)| place).collect::<Vec<_>>()
    };
    let found = places(&|key| key.fits(reference));
    if found.is_empty() && reference.registry() == DOCKER_HUB {
        return places(&|key| key.host == DOCKER_HUB_KEY && key.path.is_empty());
    }
    found
}

/// The key of an entry, in parts.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a> {
    host: &'a str,
    /// Begins with a slash, or is empty.
    path: &'a str,
}

impl<'a> Key<'a> {
    fn parse(key: &'a str) -> Self {
        let schemes = ["https://", "http://"];
        let key = schemes.iter().find_map(|scheme| key.strip_prefix(scheme)).unwrap_or(key);
        let (host, path) = key.split_at(key.find('/').unwrap_or(key.len()));
        // The API's version stands for the host.
        let path = if path.starts_with("/v1/") || path.starts_with("/v2/") || path == "/" {
            &path[path.len().min(3)..]
        } else {
            path
        };
        Key { host, path: if path == "/" { "" } else { path } }
    }

    fn fits(&self, reference: &Reference) -> bool {
        let image_path = format!("/{}", reference.repository());
        image_path.starts_with(self.path) && host_fits(self.host, reference.registry())
    }
}

fn host_fits(pattern: &str, host: &str) -> bool {
    let (pattern, pattern_port) = split_port(pattern);
    let (host, port) = split_port(host);
    if pattern_port != port {
        return false;
    }
    if pattern.len() > MAX_HOST_BYTES {
        return false;
    }
    // The brackets of an IPv6 address are not a wildcard.
    if host.starts_with('[') {
        return pattern == host;
    }
    let (patterns, parts) = (pattern.split('.'), host.split('.'));
    patterns.clone().count() == parts.clone().count()
        && patterns.zip(parts).all(|(pattern, part)| part_fits(pattern, part) == Some(true))
}

/// The port is empty if there is none.
fn split_port(host: &str) -> (&str, &str) {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, port),
        _ => (host, ""),
    }
}

/// Matches a part of a host's name against a pattern: `*` any text, `?` any letter, `[a-z]` and
/// `[^a-z]` a letter (not) of a class, `\\` the next letter itself. `None` if the pattern is
/// malformed: it matches nothing.
fn part_fits(pattern: &str, part: &str) -> Option<bool> {
    let letters: Vec<char> = part.chars().collect();
    // Which lengths of the part's beginning the pattern so far matches.
    let mut reached = vec![false; letters.len() + 1];
    reached[0] = true;
    let mut rest = pattern.chars();
    while let Some(first) = rest.next() {
        if first == '*' {
            if let Some(begin) = reached.iter().position(|reached| *reached) {
                reached[begin..].fill(true);
            }
            continue;
        }
        let one = match first {
            '?' => One::Any,
            '[' => class(&mut rest)?,
            '\\' => One::Letter(rest.next()?),
            first => One::Letter(first),
        };
        for end in (0..letters.len()).rev() {
            reached[end + 1] = reached[end] && one.fits(letters[end]);
        }
        reached[0] = false;
    }
    reached.last().copied()
}

/// What matches one letter.
enum One {
    Any,
    Letter(char),
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl One {
    fn fits(&self, letter: char) -> bool {
        match self {
            One::Any => true,
            One::Letter(own) => *own == letter,
            One::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (low..=high).contains(&&letter)) != *negated
            }
        }
    }
}

/// Reads a class, whose opening bracket has been read.
fn class(pattern: &mut std::str::Chars<'_>) -> Option<One> {
    let negated = pattern.as_str().starts_with('^');
    if negated {
        pattern.next();
    }
    let bound = |pattern: &mut std::str::Chars<'_>| match pattern.next()? {
        '\\' => pattern.next(),
        ']' | '-' => None,
        letter => Some(letter),
    };
    let mut ranges = Vec::new();
    while ranges.is_empty() || !pattern.as_str().starts_with(']') {
        let low = bound(pattern)?;
        let high = if pattern.as_str().starts_with('-') {
            pattern.next();
            bound(pattern)?
        } else {
            low
        };
        ranges.push((low, high));
    }
    pattern.next();
    Some(One::Class { negated, ranges })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::reference::parse;

    fn found(keys: &[&str], image: &str) -> Vec<String> {
        let entry = |registry: &&str| RegistryCredential {
            registry: (*registry).into(),
            ..RegistryCredential::default()
        };
        let credentials: Vec<RegistryCredential> = keys.iter().map(entry).collect();
        let places = fitting(&parse(image).unwrap(), &credentials);
        places.into_iter().map(|place| credentials[place].registry.clone()).collect()
    }

    /// Upstream's rules, one row per way in which a key and an image may differ.
    #[test]
    fn table() {
        for (key, image, expected) in [
            // Schemes and API versions do not matter.
            ("registry.example.com", "registry.example.com/a", true),
            ("https://registry.example.com", "registry.example.com/a", true),
            ("http://registry.example.com/", "registry.example.com/a", true),
            ("https://registry.example.com/v1/", "registry.example.com/a", true),
            ("https://registry.example.com/v2/", "registry.example.com/a", true),
            ("https://registry.example.com/v2/team", "registry.example.com/team/a", true),
            ("https://registry.example.com/v2", "registry.example.com/a", false),
            // Ports are equal, or both missing.
            ("registry.example.com", "registry.example.com:5000/a", false),
            ("registry.example.com", "registry.example.com:443/a", false),
            ("registry.example.com:443", "registry.example.com/a", false),
            ("registry.example.com:5000", "registry.example.com/a", false),
            ("registry.example.com:5000", "registry.example.com:5000/a", true),
            ("registry.example.com:5000", "registry.example.com:5001/a", false),
            ("registry.example.com:*", "registry.example.com:5000/a", false),
            ("*.example.com", "registry.example.com:5000/a", false),
            ("*.example.com:5000", "registry.example.com:5000/a", true),
            ("http://127.0.0.1:5000", "127.0.0.1:5000/a", true),
            ("[::1]:5000", "[::1]:5000/a", true),
            ("[::1]:5000", "[::1]:5001/a", false),
            ("[::1]", "[::1]:5000/a", false),
            // Wildcards stand for text within a part of the host's name.
            ("*.example.com", "r.example.com/a", true),
            ("*.example.com", "a.b.example.com/a", false),
            ("*.example.com", "example.com/a", false),
            ("*.*.example.com", "a.b.example.com/a", true),
            ("*", "localhost/a", true),
            ("*.com", "r.example.com/a", false),
            ("reg*y.example.com", "registry.example.com/a", true),
            ("registry?.example.com", "registry1.example.com/a", true),
            ("registry?.example.com", "registry.example.com/a", false),
            ("registry[0-9].example.com", "registry1.example.com/a", true),
            ("registry[0-9].example.com", "registryx.example.com/a", false),
            ("registry[^0-9].example.com", "registryx.example.com/a", true),
            ("registry[0-9.example.com", "registry1.example.com/a", false),
            (&("*a".repeat(300) + "b.io"), &("a".repeat(60) + ".io/a"), false),
            ("other.example.com", "r.example.com/a", false),
            ("r.example.com", "R.example.com/a", false),
            // Paths are prefixes, of text and not of whole parts, and take no wildcards.
            ("registry.example.com/team", "registry.example.com/team/a", true),
            ("registry.example.com/team", "registry.example.com/team", true),
            ("registry.example.com/team", "registry.example.com/teamster/a", true),
            ("registry.example.com/team/", "registry.example.com/teamster/a", false),
            ("registry.example.com/team", "registry.example.com/other/a", false),
            ("registry.example.com/*", "registry.example.com/team/a", false),
            // Docker Hub goes by several names.
            ("https://index.docker.io/v1/", "busybox", true),
            ("index.docker.io", "busybox", true),
            ("index.docker.io", "index.docker.io/library/busybox", true),
            ("docker.io", "team/app", true),
            ("docker.io/team", "team/app", true),
            ("registry-1.docker.io", "busybox", false),
            ("*.docker.io", "busybox", false),
            ("index.docker.io", "registry.example.com/a", false),
            ("", "busybox", false),
        ] {
            assert_eq!(!found(&[key], image).is_empty(), expected, "{key} {image}");
        }
    }

    #[test]
    fn the_most_specific_key_comes_first() {
        let keys = ["r.io", "https://r.io/team/app", "r.io/team", "x.io", "r.io"];
        let expected = ["https://r.io/team/app", "r.io/team", "r.io", "r.io"];
        assert_eq!(found(&keys, "r.io/team/app"), expected);
        let keys = ["https://index.docker.io/v1/", "docker.io"];
        assert_eq!(found(&keys, "team/app"), ["docker.io"]);
    }
}
