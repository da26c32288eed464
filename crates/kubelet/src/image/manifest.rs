//! Manifests, indexes and configurations, in their OCI and docker (schema 2) formats, to the extent
//! that running an image needs them.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha384, Sha512};

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// The media types that a registry is asked for.
pub(crate) const ACCEPTED_MANIFESTS: [&str; 4] =
    [OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST];

/// A reference to content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    #[serde(default)]
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub(crate) annotations: std::collections::BTreeMap<String, String>,
}

/// The platform of an image in an index.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) variant: String,
}

/// One image: its configuration, and its layers, lowest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// Images of several platforms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub(crate) schema_version: u32,
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) manifests: Vec<Descriptor>,
}

/// Either, distinguished by content, since registries may report wrong media types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Index),
}

impl Document {
    /// Parses a manifest or an index. A document that is both is refused: it means different images
    /// to different readers.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape {
            #[serde(default)]
            schema_version: u32,
            manifests: Option<serde::de::IgnoredAny>,
            config: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
        }
        let shape: Shape =
            serde_json::from_slice(bytes).map_err(|error| format!("not a manifest: {error}"))?;
        if shape.schema_version != 2 {
            return Err(format!("unsupported manifest schema version {}", shape.schema_version));
        }
        let is_image = shape.config.is_some() || shape.layers.is_some();
        match (shape.manifests.is_some(), is_image) {
            (true, true) => Err("ambiguous manifest: both an index and an image".to_string()),
            (true, false) => serde_json::from_slice(bytes)
                .map(Document::Index)
                .map_err(|error| error.to_string()),
            (false, true) => serde_json::from_slice(bytes)
                .map(Document::Manifest)
                .map_err(|error| error.to_string()),
            (false, false) => Err("neither an index nor an image".to_string()),
        }
    }

    pub(crate) fn media_type(&self) -> &str {
        let (own, default) = match self {
            Document::Manifest(manifest) => (&manifest.media_type, OCI_MANIFEST),
            Document::Index(index) => (&index.media_type, OCI_INDEX),
        };
        if own.is_empty() { default } else { own }
    }
}

impl Index {
    /// The image for this machine's platform; the first listed of equal matches.
    pub(crate) fn choose(&self) -> Option<&Descriptor> {
        let wanted = architecture();
        let fits = |platform: &Platform| platform.os == "linux" && platform.architecture == wanted;
        let by_platform =
            self.manifests.iter().find(|entry| entry.platform.as_ref().is_some_and(fits));
        // An archive's index names no platforms: take the first image.
        by_platform.or_else(|| self.manifests.iter().find(|entry| entry.platform.is_none()))
    }
}

/// This machine's architecture, as images name it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// An image's configuration: how to run it, and its layers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct ImageDocument {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) config: Option<ConfigDocument>,
    #[serde(default)]
    pub(crate) rootfs: RootFs,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct RootFs {
    #[serde(default)]
    pub(crate) diff_ids: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ConfigDocument {
    pub(crate) user: String,
    pub(crate) env: Option<Vec<String>>,
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) cmd: Option<Vec<String>>,
    pub(crate) working_dir: String,
    pub(crate) stop_signal: Option<String>,
}

/// How to run an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageConfig {
    /// ENTRYPOINT.
    pub entrypoint: Vec<String>,
    /// CMD.
    pub cmd: Vec<String>,
    /// ENV, as `NAME=value`.
    pub env: Vec<String>,
    /// USER, as written.
    pub user: String,
    /// WORKDIR.
    pub working_dir: String,
    /// STOPSIGNAL, as written.
    pub stop_signal: String,
}

impl From<ConfigDocument> for ImageConfig {
    fn from(document: ConfigDocument) -> Self {
        ImageConfig {
            entrypoint: document.entrypoint.unwrap_or_default(),
            cmd: document.cmd.unwrap_or_default(),
            env: document.env.unwrap_or_default(),
            user: document.user,
            working_dir: document.working_dir,
            stop_signal: document.stop_signal.unwrap_or_default(),
        }
    }
}

/// Chain ids of a stack of layers, lowest first: the name of each level's snapshot
/// (<https://github.com/opencontainers/image-spec/blob/main/config.md#layer-chainid>).
pub(crate) fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(below) => sha256_digest(format!("{below} {diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

/// Digest algorithms of the image specification, and the length of their hexadecimal form.
const ALGORITHMS: [(&str, usize); 3] = [("sha256", 64), ("sha384", 96), ("sha512", 128)];

/// Whether `text` is a digest of a known algorithm. What a manifest contains becomes part of URLs
/// and of names in the content store.
pub(crate) fn is_digest(text: &str) -> bool {
    let is_hex = |hex: &str| hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    text.split_once(':')
        .is_some_and(|(algorithm, hex)| is_hex(hex) && ALGORITHMS.contains(&(algorithm, hex.len())))
}

/// The digest of bytes by the algorithm of another digest; `None` if that is unknown.
pub(crate) fn digest_like(digest: &str, bytes: &[u8]) -> Option<String> {
    let (algorithm, _) = digest.split_once(':')?;
    match algorithm {
        "sha256" => Some(sha256_digest(bytes)),
        "sha384" => Some(format!("sha384:{}", hex(&Sha384::digest(bytes)))),
        "sha512" => Some(format!("sha512:{}", hex(&Sha512::digest(bytes)))),
        _ => None,
    }
}

/// `sha256:<hex>` of bytes.
pub(crate) fn sha256_digest(bytes: &[u8]) -> String {
    hex_digest(&Sha256::digest(bytes))
}

/// `sha256:<hex>` of a finished hash.
pub(crate) fn hex_digest(hash: &[u8]) -> String {
    format!("sha256:{}", hex(hash))
}

fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_distinguished_by_content() {
        let manifest =
            br#"{"schemaVersion":2,"config":{"digest":"sha256:1","size":1},"layers":[]}"#;
        assert!(matches!(Document::parse(manifest), Ok(Document::Manifest(_))));
        let index = br#"{"schemaVersion":2,"manifests":[{"digest":"sha256:1","size":3}]}"#;
        let Ok(Document::Index(index)) = Document::parse(index) else { panic!("an index") };
        assert_eq!(index.choose().unwrap().digest, "sha256:1");
        for bad in [
            &br#"{"schemaVersion":1}"#[..],
            br#"{"schemaVersion":2,"manifests":[],"layers":[]}"#,
            br#"{"schemaVersion":2}"#,
            b"[]",
        ] {
            assert!(Document::parse(bad).is_err());
        }
    }

    #[test]
    fn an_index_is_searched_for_this_platform() {
        let entry = |architecture: &str, os: &str, digest: &str| Descriptor {
            media_type: String::new(),
            digest: digest.to_string(),
            size: 0,
            platform: Some(Platform {
                architecture: architecture.into(),
                os: os.into(),
                variant: String::new(),
            }),
            annotations: Default::default(),
        };
        let index = |manifests| Index { schema_version: 2, media_type: String::new(), manifests };
        let both = index(vec![entry("mips", "linux", "a"), entry(architecture(), "linux", "b")]);
        assert_eq!(both.choose().unwrap().digest, "b");
        let none = index(vec![entry("mips", "linux", "a"), entry("unknown", "unknown", "c")]);
        assert_eq!(none.choose(), None);
    }

    #[test]
    fn digests() {
        let sha512 = digest_like("sha512:", b"x").unwrap();
        for (text, expected) in [
            (sha256_digest(b"x").as_str(), true),
            (sha512.as_str(), true),
            (&sha512[..100], false),
            ("sha256:../../x", false),
            (&sha256_digest(b"x").to_uppercase(), false),
            ("md5:d41d8cd98f00b204e9800998ecf8427e", false),
            ("", false),
        ] {
            assert_eq!(is_digest(text), expected, "{text}");
        }
        assert_eq!(digest_like("md5:", b"x"), None);
    }

    #[test]
    fn chain_ids_fold() {
        let ids = chain_ids(&["sha256:a".into(), "sha256:b".into()]);
        assert_eq!(ids[0], "sha256:a");
        assert_eq!(ids[1], sha256_digest(b"sha256:a sha256:b"));
    }
}
