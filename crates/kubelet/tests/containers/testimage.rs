//! A busybox image built by the test: two layers, a user, an environment.

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::Write;

pub const IMAGE: &str = "docker.io/library/skiff-test:1";

pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Adds a file to a tar archive.
fn add(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    tar.append_data(&mut header, path, bytes).unwrap();
}

fn add_directory(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32) {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_size(0);
    header.set_mode(mode);
    tar.append_data(&mut header, path, &[][..]).unwrap();
}

/// The layers, lowest first, as plain tar files.
pub fn layers() -> Vec<Vec<u8>> {
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut lower = tar::Builder::new(Vec::new());
    for (path, mode) in
        [("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("root", 0o700), ("home/web", 0o755)]
    {
        add_directory(&mut lower, path, mode);
    }
    add(&mut lower, "bin/busybox", 0o755, &busybox);
    let names = [
        "sh", "echo", "cat", "sleep", "id", "ls", "ps", "head", "wc", "mkdir", "touch", "rm",
        "mount", "unshare", "hostname", "stty", "yes", "env", "pwd", "true", "false", "seq", "dd",
        "grep", "kill", "date", "tr", "stat", "readlink",
    ];
    for name in names {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        lower.append_link(&mut header, format!("bin/{name}"), "busybox").unwrap();
    }
    let mut upper = tar::Builder::new(Vec::new());
    add(
        &mut upper,
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/home/web:/bin/sh\n",
    );
    add(&mut upper, "etc/group", 0o644, b"root:x:0:\nweb:x:102:\nlog:x:7:web\n");
    vec![lower.into_inner().unwrap(), upper.into_inner().unwrap()]
}

pub fn config(layers: &[Vec<u8>]) -> Vec<u8> {
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {
            "Env": ["PATH=/bin", "FROM_IMAGE=yes"],
            "Entrypoint": ["/bin/echo"],
            "Cmd": ["hello", "from", "the", "image"],
            "WorkingDir": "/tmp",
        },
        "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|layer| digest(layer)).collect::<Vec<_>>() },
    });
    serde_json::to_vec(&config).unwrap()
}

/// The image in the format of `docker save`.
pub fn docker_archive() -> Vec<u8> {
    let layers = layers();
    let config = config(&layers);
    let name = format!("{}.json", digest(&config).trim_start_matches("sha256:"));
    let mut archive = tar::Builder::new(Vec::new());
    let mut paths = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let path = format!("layer{index}/layer.tar");
        add(&mut archive, &path, 0o644, layer);
        paths.push(path);
    }
    add(&mut archive, &name, 0o644, &config);
    let manifest = json!([{ "Config": name, "RepoTags": ["skiff-test:1"], "Layers": paths }]);
    add(&mut archive, "manifest.json", 0o644, &serde_json::to_vec(&manifest).unwrap());
    archive.into_inner().unwrap()
}

/// The image as stored in a registry: blobs and the manifest. Layers are gzipped.
pub struct RegistryImage {
    pub config: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
    pub manifest: Vec<u8>,
}

pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

pub fn registry_image() -> RegistryImage {
    let plain = layers();
    let config = config(&plain);
    let layers: Vec<Vec<u8>> = plain.iter().map(|layer| gzip(layer)).collect();
    let describe = |media_type: &str, bytes: &[u8]| json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": describe("application/vnd.oci.image.config.v1+json", &config),
        "layers": layers
            .iter()
            .map(|layer| describe("application/vnd.oci.image.layer.v1.tar+gzip", layer))
            .collect::<Vec<Value>>(),
    });
    let manifest = serde_json::to_vec(&manifest).unwrap();
    RegistryImage { config, layers, manifest }
}

/// An OCI layout as a gzipped archive, with an index that also holds an image for another platform.
pub fn oci_archive(name: &str) -> Vec<u8> {
    let image = registry_image();
    let mut archive = tar::Builder::new(Vec::new());
    for blob in image.layers.iter().chain([&image.config, &image.manifest]) {
        let path = format!("blobs/{}", digest(blob).replace(':', "/"));
        add(&mut archive, &path, 0o644, blob);
    }
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": MANIFEST_TYPE,
            "digest": digest(&image.manifest),
            "size": image.manifest.len(),
            "annotations": { "io.containerd.image.name": name },
        }],
    });
    add(&mut archive, "index.json", 0o644, &serde_json::to_vec(&index).unwrap());
    add(&mut archive, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
    gzip(&archive.into_inner().unwrap())
}
