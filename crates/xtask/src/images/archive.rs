//! An OCI image archive: a tar file with a layout, an index, a manifest, a configuration and
//! layers (<https://github.com/opencontainers/image-spec/blob/main/image-layout.md>). The same
//! content always yields the same bytes.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use tar::{Builder, EntryType, Header};

/// An image of one platform.
pub struct Archive {
    /// Its reference, such as `skiff.test/busybox:1`.
    pub name: String,
    /// Uncompressed tar files, lowest first.
    pub layers: Vec<Vec<u8>>,
    /// `NAME=VALUE` each.
    pub environment: Vec<String>,
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
}

impl Archive {
    /// The archive's bytes.
    pub fn to_tar(&self) -> anyhow::Result<Vec<u8>> {
        let mut blobs = BTreeMap::new();
        let mut add = |bytes: Vec<u8>, media_type: &str| {
            let digest = digest(&bytes);
            let size = bytes.len();
            blobs.insert(digest.clone(), bytes);
            json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size})
        };
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|layer| add(layer.clone(), "application/vnd.oci.image.layer.v1.tar"))
            .collect();
        let config =
            add(serde_json::to_vec(&self.config())?, "application/vnd.oci.image.config.v1+json");
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": layers,
        });
        let mut entry =
            add(serde_json::to_vec(&manifest)?, "application/vnd.oci.image.manifest.v1+json");
        let tag = self.name.rsplit(':').next().unwrap_or("latest");
        entry["annotations"] = json!({
            "io.containerd.image.name": self.name,
            "org.opencontainers.image.ref.name": tag,
        });
        let index = json!({"schemaVersion": 2, "manifests": [entry]});

        let mut tar = Layer::new();
        tar.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
        tar.file("index.json", &serde_json::to_vec(&index)?, 0o644)?;
        tar.folder("blobs", 0o755)?;
        tar.folder("blobs/sha256", 0o755)?;
        for (digest, bytes) in &blobs {
            tar.file(&format!("blobs/sha256/{digest}"), bytes, 0o644)?;
        }
        tar.finish()
    }

    fn config(&self) -> Value {
        let layers: Vec<String> =
            self.layers.iter().map(|layer| format!("sha256:{}", digest(layer))).collect();
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        json!({
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Env": self.environment,
                "Entrypoint": self.entrypoint,
                "Cmd": self.command,
            },
            "rootfs": {"type": "layers", "diff_ids": layers},
            "history": [{"created_by": "xtask images"}],
        })
    }
}

/// A tar file under construction, whose entries all belong to root and have no modification time.
pub struct Layer(Builder<Vec<u8>>);

impl Layer {
    pub fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    pub fn folder(&mut self, path: &str, mode: u32) -> std::io::Result<()> {
        let mut header = header(EntryType::Directory, 0, mode);
        self.0.append_data(&mut header, format!("{path}/"), std::io::empty())
    }

    pub fn file(&mut self, path: &str, content: &[u8], mode: u32) -> std::io::Result<()> {
        let mut header = header(EntryType::Regular, content.len() as u64, mode);
        self.0.append_data(&mut header, path, content)
    }

    pub fn link(&mut self, path: &str, target: &str) -> std::io::Result<()> {
        let mut header = header(EntryType::Symlink, 0, 0o777);
        self.0.append_link(&mut header, path, target)
    }

    /// The tar file's bytes.
    pub fn finish(self) -> anyhow::Result<Vec<u8>> {
        Ok(self.0.into_inner()?)
    }
}

fn header(kind: EntryType, size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn archive() -> Archive {
        let mut layer = Layer::new();
        layer.file("a", b"content", 0o644).unwrap();
        Archive {
            name: "skiff.test/a:1".to_owned(),
            layers: vec![layer.finish().unwrap()],
            environment: vec![],
            entrypoint: vec![],
            command: vec!["a".to_owned()],
        }
    }

    #[test]
    fn every_digest_matches_its_blob() {
        let bytes = archive().to_tar().unwrap();
        assert_eq!(bytes, archive().to_tar().unwrap(), "the same content, the same bytes");
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(path, content);
        }
        let blob = |value: &Value| {
            let digest = value["digest"].as_str().unwrap().replace("sha256:", "");
            let bytes = files[&format!("blobs/sha256/{digest}")].clone();
            assert_eq!(super::digest(&bytes), digest);
            bytes
        };
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let entry = &index["manifests"][0];
        assert_eq!(entry["annotations"]["io.containerd.image.name"], "skiff.test/a:1");
        let manifest: Value = serde_json::from_slice(&blob(entry)).unwrap();
        blob(&manifest["layers"][0]);
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        assert_eq!(config["config"]["Cmd"][0], "a");
    }
}
