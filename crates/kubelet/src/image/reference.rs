//! Image references, normalised as docker does
//! (<https://github.com/distribution/reference>: `busybox` is `docker.io/library/busybox:latest`).

use std::fmt;
use std::sync::LazyLock;

use regex::Regex;

use super::error::{ImageError, Result};

const MAX_NAME_LENGTH: usize = 255;
const DEFAULT_REGISTRY: &str = "docker.io";

static COMPONENT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$").expect("the pattern is valid")
});
static REGISTRY: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?$")
        .expect("the pattern is valid")
});
static TAG: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$").expect("the pattern is valid")
});
static DIGEST: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$").expect("the pattern is valid")
});

/// A normalised reference. It has a tag, a digest, or both.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageReference {
    /// `docker.io`, `localhost:5000`.
    pub registry: String,
    /// `library/busybox`.
    pub repository: String,
    /// `latest`; `None` only if there is a digest.
    pub tag: Option<String>,
    /// `sha256:...`.
    pub digest: Option<String>,
}

impl ImageReference {
    /// Parses and normalises a reference.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |message: &str| ImageError::InvalidName {
            image: text.to_string(),
            message: message.to_string(),
        };
        if is_image_id(text) {
            return Err(invalid("an image id is not a reference"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        if digest.is_some_and(|digest| !DIGEST.is_match(digest)) {
            return Err(invalid("invalid digest format"));
        }
        let (name, tag) = split_tag(rest);
        if tag.is_some_and(|tag| !TAG.is_match(tag)) {
            return Err(invalid("invalid reference format"));
        }
        let (registry, repository) = split_registry(name);
        if !REGISTRY.is_match(&registry) {
            return Err(invalid("invalid reference format"));
        }
        if repository.chars().any(|letter| letter.is_ascii_uppercase()) {
            return Err(invalid("invalid reference format: repository name must be lowercase"));
        }
        if !repository.split('/').all(|component| COMPONENT.is_match(component)) {
            return Err(invalid("invalid reference format"));
        }
        if registry.len() + 1 + repository.len() > MAX_NAME_LENGTH {
            return Err(invalid("repository name must not be more than 255 characters"));
        }
        let tag = match (tag, digest) {
            (Some(tag), _) => Some(tag.to_string()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_string()),
        };
        Ok(ImageReference { registry, repository, tag, digest: digest.map(str::to_string) })
    }

    /// `registry/repository`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// `registry/repository:tag`, if there is a tag.
    pub fn tagged(&self) -> Option<String> {
        self.tag.as_ref().map(|tag| format!("{}:{tag}", self.name()))
    }

    /// `registry/repository@digest` for a digest.
    pub fn with_digest(&self, digest: &str) -> String {
        format!("{}@{digest}", self.name())
    }

    /// The name under which the image store knows it: by digest if it has one, else by tag.
    pub fn stored_name(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => self.with_digest(digest),
            (None, Some(tag)) => format!("{}:{tag}", self.name()),
            (None, None) => self.name(),
        }
    }

    /// The host to speak to: docker.io's registry has another name.
    pub fn host(&self) -> &str {
        if self.registry == DEFAULT_REGISTRY { "registry-1.docker.io" } else { &self.registry }
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name())?;
        if let Some(tag) = &self.tag {
            write!(formatter, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(formatter, "@{digest}")?;
        }
        Ok(())
    }
}

/// True for `sha256:<64 hex>`, an image's id.
pub fn is_image_id(text: &str) -> bool {
    text.starts_with("sha256:") && DIGEST.is_match(text)
}

fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rfind(':') {
        Some(at) if !text[at..].contains('/') => (&text[..at], Some(&text[at + 1..])),
        _ => (text, None),
    }
}

fn split_registry(name: &str) -> (String, String) {
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if looks_like_host(first) => (first, rest),
        _ => (DEFAULT_REGISTRY, name),
    };
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    if registry == DEFAULT_REGISTRY && !repository.contains('/') {
        return (registry.to_string(), format!("library/{repository}"));
    }
    (registry.to_string(), repository.to_string())
}

fn looks_like_host(text: &str) -> bool {
    text.contains('.')
        || text.contains(':')
        || text == "localhost"
        || text.chars().any(|letter| letter.is_ascii_uppercase())
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
            (format!("busybox@{digest}"), format!("docker.io/library/busybox@{digest}")),
            (format!("r.io/a:1@{digest}"), format!("r.io/a:1@{digest}")),
        ] {
            assert_eq!(ImageReference::parse(&text).unwrap().to_string(), normal, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_reference() {
        for text in [
            "",
            ":tag",
            "Busybox",
            "a b",
            "a:",
            "a@sha256:short",
            "a//b",
            "-a",
            "a/-b",
            "foo:bar:baz",
            "http://r/a",
            &format!("sha256:{}", "a".repeat(64)),
            &"x/".repeat(200),
        ] {
            let error = ImageReference::parse(text).unwrap_err();
            assert_eq!(error.waiting_reason(), "InvalidImageName", "{text}");
        }
    }

    #[test]
    fn names() {
        let reference = ImageReference::parse("busybox").unwrap();
        assert_eq!(reference.host(), "registry-1.docker.io");
        assert_eq!(reference.stored_name(), "docker.io/library/busybox:latest");
        assert_eq!(reference.with_digest("sha256:00"), "docker.io/library/busybox@sha256:00");
    }
}
