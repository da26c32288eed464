//! The rules for names, labels and annotations (`k8s.io/apimachinery/pkg/util/validation`). Every
//! function returns what is wrong, in Kubernetes' words, or nothing.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest DNS label, in bytes.
const DNS_LABEL_MAX: usize = 63;
/// Longest DNS subdomain, in bytes.
const DNS_SUBDOMAIN_MAX: usize = 253;
/// Maximum total size of an object's annotations, in bytes.
pub const ANNOTATIONS_MAX_BYTES: usize = 256 << 10;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn label_chars(text: &str) -> bool {
    let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !text.is_empty()
        && text.bytes().all(|byte| lower(byte) || byte == b'-')
        && text.bytes().next().is_some_and(lower)
        && text.bytes().last().is_some_and(lower)
}

/// RFC 1123 label.
pub fn dns_label(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name.len() > DNS_LABEL_MAX {
        errors.push(too_long(DNS_LABEL_MAX));
    }
    if !label_chars(name) {
        errors.push(LABEL.to_owned());
    }
    errors
}

/// RFC 1035 label: as [`dns_label`], and starts with a letter. Names of Services.
pub fn dns_1035_label(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name.len() > DNS_LABEL_MAX {
        errors.push(too_long(DNS_LABEL_MAX));
    }
    if !label_chars(name) || !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        errors.push(LABEL_1035.to_owned());
    }
    errors
}

/// A host name or an IP address, as a server outside of the cluster is addressed; IPv6 may be in
/// brackets. Laxer than [`dns_subdomain`]: hosts may have capitals, underscores and a final dot.
pub fn host(host: &str) -> Vec<String> {
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let (address, zone) = address.split_once('%').unwrap_or((address, "0"));
    let is_zone = !zone.is_empty() && zone.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is_v6 = is_zone && address.parse::<Ipv6Addr>().is_ok();
    if is_v6 || host.parse::<Ipv4Addr>().is_ok() {
        return Vec::new();
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        let within = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=DNS_LABEL_MAX).contains(&label.len())
            && label.bytes().all(within)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() <= DNS_SUBDOMAIN_MAX && name.split('.').all(is_label) {
        return Vec::new();
    }
    vec!["must be a host name or an IP address".to_owned()]
}

/// RFC 1123 subdomain: names of most objects.
pub fn dns_subdomain(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name.len() > DNS_SUBDOMAIN_MAX {
        errors.push(too_long(DNS_SUBDOMAIN_MAX));
    }
    if !name.split('.').all(label_chars) {
        errors.push(SUBDOMAIN.to_owned());
    }
    errors
}

/// A name that is one path segment: names of RBAC objects.
pub fn path_segment(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name == "." || name == ".." {
        errors.push(format!("may not be '{name}'"));
    }
    for illegal in ["/", "%"] {
        if name.contains(illegal) {
            errors.push(format!("may not contain '{illegal}'"));
        }
    }
    errors
}

fn qualified_chars(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().last().is_some_and(|byte| byte.is_ascii_alphanumeric())
}

/// `name` or `prefix/name`: keys of labels and annotations, names of resources.
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, rest)) if rest.contains('/') => {
            return vec![format!(
                "a qualified name {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                &QUALIFIED[10..]
            )];
        }
        Some((prefix, name)) => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                errors.extend(
                    dns_subdomain(prefix).into_iter().map(|error| format!("prefix part {error}")),
                );
            }
            name
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > DNS_LABEL_MAX {
        errors.push(format!("name part {}", too_long(DNS_LABEL_MAX)));
    }
    if !qualified_chars(name) {
        errors.push(QUALIFIED.to_owned());
    }
    errors
}

/// Values of labels.
pub fn label_value(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > DNS_LABEL_MAX {
        errors.push(too_long(DNS_LABEL_MAX));
    }
    if !value.is_empty() && !qualified_chars(value) {
        errors.push(LABEL_VALUE.to_owned());
    }
    errors
}

/// Keys of ConfigMaps and Secrets.
pub fn config_map_key(key: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if key.len() > DNS_SUBDOMAIN_MAX {
        errors.push(too_long(DNS_SUBDOMAIN_MAX));
    }
    if key.is_empty()
        || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    {
        errors.push(CONFIG_KEY.to_owned());
    } else if key == "." || key == ".." {
        errors.push(format!("must not be '{key}'"));
    } else if key.starts_with("..") {
        errors.push("must not start with '..'".to_owned());
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let ok = |errors: Vec<String>| errors.is_empty();
        assert!(
            ok(dns_label("a-1"))
                && !ok(dns_label("A"))
                && !ok(dns_label("-a"))
                && !ok(dns_label(""))
        );
        assert!(!ok(dns_label(&"a".repeat(64))));
        assert!(ok(dns_1035_label("a1")) && !ok(dns_1035_label("1a")));
        assert!(
            ok(dns_subdomain("a.b-c.d")) && !ok(dns_subdomain("a..b")) && !ok(dns_subdomain("a_b"))
        );
        assert!(
            ok(qualified_name("example.com/My_Name"))
                && !ok(qualified_name("/x"))
                && !ok(qualified_name("a/b/c"))
        );
        assert!(ok(label_value("")) && ok(label_value("a_B")) && !ok(label_value("a b")));
        assert!(
            ok(config_map_key(".bashrc"))
                && !ok(config_map_key("..x"))
                && !ok(config_map_key("a/b"))
        );
        assert!(ok(path_segment("system:node")) && !ok(path_segment("a/b")));
    }

    #[test]
    fn hosts() {
        for good in [
            "nfs.example.com",
            "NFS-1",
            "my_host.local.",
            "192.0.2.1",
            "2001:db8::1",
            "[2001:db8::1]",
            "fe80::1%eth0",
            "[fe80::1%eth0]",
        ] {
            assert_eq!(host(good), Vec::<String>::new(), "{good}");
        }
        for bad in [
            "",
            ".",
            "-iT/tmp/x",
            "--bind",
            "-",
            "a.-o",
            "a,bind",
            "a b",
            "a\n",
            "a\0b",
            "a/b",
            "a:b",
            "a..b",
            "[a]",
            "[192.0.2.1]",
            "[::1",
            "::1]",
            "fe80::1%",
            "fe80::1%-o",
            "a%b",
            "ä",
        ] {
            assert!(!host(bad).is_empty(), "{bad:?}");
        }
        assert!(!host(&"a".repeat(64)).is_empty());
        assert!(!host(&["a"; 128].join(".")).is_empty());
    }
}
