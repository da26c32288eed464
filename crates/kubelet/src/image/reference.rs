//! Image references, normalised as docker does
//! (<https://github.com/distribution/reference>: `busybox` is `docker.io/library/busybox:latest`).

use oci_spec::distribution::{ParseError, Reference};

use super::error::{ImageError, Result};

/// Parses and normalises a reference. It then has a tag, a digest, or both.
pub(crate) fn parse(text: &str) -> Result<Reference> {
    let invalid = |message: String| ImageError::InvalidName { image: text.to_string(), message };
    if is_image_id(text) {
        return Err(invalid("an image id is not a reference".to_string()));
    }
    // The parser accepts letters of any script in tags.
    if !text.is_ascii() {
        return Err(invalid(ParseError::ReferenceInvalidFormat.to_string()));
    }
    parse_any_host(text).map_err(|error| {
        let lower_case = text.to_ascii_lowercase();
        invalid(match error {
            ParseError::ReferenceInvalidFormat if parse_any_host(&lower_case).is_ok() => {
                format!("{error}: {}", ParseError::NameContainsUppercase)
            }
            error => error.to_string(),
        })
    })
}

/// Parses a reference whose host may also be an IPv6 address, or contain capitals.
fn parse_any_host(text: &str) -> std::result::Result<Reference, ParseError> {
    if let Some((address, rest)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(ParseError::ReferenceInvalidFormat);
        }
        let reference: Reference = format!("localhost{rest}").parse()?;
        let port = reference.registry().strip_prefix("localhost");
        let port = port.ok_or(ParseError::ReferenceInvalidFormat)?;
        return Ok(at_host(&reference, &format!("[{address}]{port}"), reference.repository()));
    }
    let reference: Reference = text.parse()?;
    match reference.repository().split_once('/') {
        Some((host, repository)) if host.contains(|letter: char| letter.is_ascii_uppercase()) => {
            Ok(at_host(&reference, host, repository))
        }
        _ => Ok(reference),
    }
}

fn at_host(reference: &Reference, host: &str, repository: &str) -> Reference {
    let (host, repository) = (host.to_string(), repository.to_string());
    match (reference.tag().map(str::to_string), reference.digest().map(str::to_string)) {
        (tag, None) => Reference::with_tag(host, repository, tag.unwrap_or_default()),
        (None, Some(digest)) => Reference::with_digest(host, repository, digest),
        (Some(tag), Some(digest)) => Reference::with_tag_and_digest(host, repository, tag, digest),
    }
}

/// The name of the image in the image store: by digest if the reference has one, else by tag.
pub(crate) fn stored_name(reference: &Reference) -> String {
    match reference.digest() {
        Some(digest) => name_by_digest(reference, digest),
        None => reference.to_string(),
    }
}

/// `registry/repository@digest`.
pub(crate) fn name_by_digest(reference: &Reference, digest: &str) -> String {
    reference.clone_with_digest(digest.to_string()).to_string()
}

/// Whether `text` is an image's id: `sha256:<64 hex>`.
pub(crate) fn is_image_id(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises_as_docker_does() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, normal) in [
            ("busybox".to_string(), "docker.io/library/busybox:latest".to_string()),
            ("busybox:1.36".to_string(), "docker.io/library/busybox:1.36".to_string()),
            ("team/app".to_string(), "docker.io/team/app:latest".to_string()),
            ("index.docker.io/team/app".to_string(), "docker.io/team/app:latest".to_string()),
            ("localhost/app".to_string(), "localhost/app:latest".to_string()),
            ("localhost:5000/app:v1".to_string(), "localhost:5000/app:v1".to_string()),
            ("127.0.0.1:5000/a/b/c".to_string(), "127.0.0.1:5000/a/b/c:latest".to_string()),
            ("[::1]:5000/a".to_string(), "[::1]:5000/a:latest".to_string()),
            ("[::1]/a:v1".to_string(), "[::1]/a:v1".to_string()),
            ("Registry/a".to_string(), "Registry/a:latest".to_string()),
            (format!("busybox@{digest}"), format!("docker.io/library/busybox@{digest}")),
            (format!("r.io/a:1@{digest}"), format!("r.io/a:1@{digest}")),
        ] {
            assert_eq!(parse(&text).unwrap().to_string(), normal, "{text}");
        }
        assert_eq!(parse("Registry/a").unwrap().registry(), "Registry");
        assert_eq!(parse("[::1]:5000/a").unwrap().registry(), "[::1]:5000");
    }

    #[test]
    fn invalid_references_are_refused() {
        for text in [
            "",
            ":tag",
            "Busybox",
            "a b",
            "a:",
            "a:é",
            "a@sha256:short",
            "a//b",
            "-a",
            "a/-b",
            "foo:bar:baz",
            "http://r/a",
            "[::1]",
            "[::1]a/b",
            "[r]/a",
            &format!("sha256:{}", "a".repeat(64)),
            &"x/".repeat(200),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.waiting_reason(), "InvalidImageName", "{text}");
        }
        for (text, message) in [
            ("a b", "invalid reference format"),
            ("Busybox", "invalid reference format: repository name must be lowercase"),
            ("Not/An/Image", "invalid reference format: repository name must be lowercase"),
        ] {
            let expected = format!("couldn't parse image name {text:?}: {message}");
            assert_eq!(parse(text).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn names_of_the_image_store() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, name) in [
            ("busybox".to_string(), "docker.io/library/busybox:latest".to_string()),
            (format!("busybox:1@{digest}"), format!("docker.io/library/busybox@{digest}")),
        ] {
            assert_eq!(stored_name(&parse(&text).unwrap()), name);
        }
    }
}
