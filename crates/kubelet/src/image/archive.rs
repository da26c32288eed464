//! Loading archives: `docker save` (manifest.json) and OCI layouts (index.json), plain or gzipped.
//!
//! The archive is spooled to files first, since its parts come in any order. Then its blobs are
//! written to the content store, and its images are unpacked and named, as in a pull.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use flate2::read::GzDecoder;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::io::SyncIoBridge;

use super::content::{BlobWriter, ingest_name};
use super::error::{ImageError, Result};
use super::manifest::{
    Descriptor, Document, ImageDocument, Index, Manifest, OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP,
    OCI_MANIFEST, hex_digest, sha256_digest,
};
use super::reference;
use super::service::ImageService;
use super::store::contents_of;
use super::unpack::Lease;

/// Annotations that carry an image's name in an index.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
const OCI_NAME: &str = "org.opencontainers.image.ref.name";
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const READ_BYTES: usize = 1 << 20;
/// Largest document accepted in an archive.
const MAX_DOCUMENT_BYTES: u64 = 8 << 20;
/// Maximum number of links to a layer.
const MAX_LINKS: usize = 4;

/// One entry of docker's manifest.json.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// An archive's files, spooled.
struct Spooled {
    _directory: tempfile::TempDir,
    files: HashMap<PathBuf, PathBuf>,
    links: HashMap<PathBuf, PathBuf>,
}

/// An image found in an archive, with its blobs written.
struct ArchivedImage {
    target: Descriptor,
    manifest_digest: String,
    manifest: Manifest,
    names: Vec<String>,
}

fn bad(message: impl Into<String>) -> ImageError {
    ImageError::Archive { message: message.into() }
}

impl ImageService {
    /// Loads a docker-save or OCI archive, plain or gzipped, and returns the names of its images
    /// (an image's id where the archive names none).
    pub async fn load_archive(
        &self,
        archive: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<Vec<String>> {
        let scratch = self.scratch().to_path_buf();
        let bridge = SyncIoBridge::new(archive);
        let spooled = tokio::task::spawn_blocking(move || spool(bridge, &scratch)).await;
        let spooled = spooled.expect("reading an archive does not panic")?;
        let lease = Lease::take(&self.store().containerd).await?;
        let loaded = self.load_spooled(&spooled, &lease).await;
        lease.release().await;
        let names = loaded?;
        // There are many files: do not block this thread.
        tokio::task::spawn_blocking(move || drop(spooled))
            .await
            .expect("removing files does not panic");
        Ok(names)
    }

    async fn load_spooled(&self, archive: &Spooled, lease: &Lease) -> Result<Vec<String>> {
        let docker = match archive.document("manifest.json")? {
            Some(bytes) => serde_json::from_slice::<Vec<DockerImage>>(&bytes)
                .map_err(|error| bad(format!("manifest.json: {error}")))?,
            None => Vec::new(),
        };
        let found = match archive.document("index.json")? {
            Some(index) => self.load_layout(archive, lease, &index, &docker).await?,
            None if docker.is_empty() => {
                return Err(bad("it has neither index.json nor manifest.json"));
            }
            None => self.load_docker(archive, lease, &docker).await?,
        };
        let mut names = BTreeSet::new();
        for image in found {
            names.extend(self.publish(archive, lease, image).await?);
        }
        Ok(names.into_iter().collect())
    }

    /// Reads an OCI layout: blobs are files named by their digests.
    async fn load_layout(
        &self,
        archive: &Spooled,
        lease: &Lease,
        index: &[u8],
        docker: &[DockerImage],
    ) -> Result<Vec<ArchivedImage>> {
        let index: Index =
            serde_json::from_slice(index).map_err(|error| bad(format!("index.json: {error}")))?;
        let mut found = Vec::new();
        for target in index.manifests {
            let bytes = archive.blob_document(&target.digest)?;
            let (manifest_digest, manifest) = match Document::parse(&bytes).map_err(bad)? {
                Document::Manifest(manifest) => (target.digest.clone(), manifest),
                Document::Index(nested) => {
                    let Some(chosen) = nested.choose() else {
                        continue;
                    };
                    match Document::parse(&archive.blob_document(&chosen.digest)?).map_err(bad)? {
                        Document::Manifest(manifest) => (chosen.digest.clone(), manifest),
                        Document::Index(_) => return Err(bad("an index of indexes")),
                    }
                }
            };
            if !manifest.config.media_type.contains("image.config")
                && !manifest.config.media_type.contains("container.image")
            {
                // Attestations and other attachments are not images.
                continue;
            }
            for digest in BTreeSet::from([&target.digest, &manifest_digest]) {
                let path = archive.blob_path(digest)?;
                let size = path.metadata().map_err(io_error("inspect blob"))?.len();
                self.write_file(
                    lease,
                    &Descriptor { digest: digest.clone(), size, ..target.clone() },
                    &path,
                )
                .await?;
            }
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                self.write_file(lease, blob, &archive.blob_path(&blob.digest)?).await?;
            }
            let names = layout_names(&target, &manifest, docker);
            found.push(ArchivedImage { target, manifest_digest, manifest, names });
        }
        if found.is_empty() {
            return Err(bad(format!(
                "it has no image for linux/{}",
                super::manifest::architecture()
            )));
        }
        Ok(found)
    }

    /// Reads docker's own layout: layers are plain tar files, and the manifest is created here.
    async fn load_docker(
        &self,
        archive: &Spooled,
        lease: &Lease,
        images: &[DockerImage],
    ) -> Result<Vec<ArchivedImage>> {
        let mut found = Vec::new();
        for image in images {
            let config = archive.descriptor(&image.config, Some(OCI_CONFIG)).await?;
            self.write_file(lease, &config, &archive.path(&image.config)?).await?;
            let mut layers = Vec::new();
            for layer in &image.layers {
                let descriptor = archive.descriptor(layer, None).await?;
                self.write_file(lease, &descriptor, &archive.path(layer)?).await?;
                layers.push(descriptor);
            }
            let manifest = Manifest {
                schema_version: 2,
                media_type: OCI_MANIFEST.to_string(),
                config,
                layers,
            };
            let bytes = serde_json::to_vec(&manifest).expect("a manifest can be written as JSON");
            let target = Descriptor {
                media_type: OCI_MANIFEST.to_string(),
                digest: sha256_digest(&bytes),
                size: bytes.len() as u64,
                platform: None,
                annotations: Default::default(),
            };
            super::content::write_small(lease.containerd(), &target, bytes.into()).await?;
            let names = image.repo_tags.clone().unwrap_or_default();
            found.push(ArchivedImage {
                manifest_digest: target.digest.clone(),
                target,
                manifest,
                names,
            });
        }
        Ok(found)
    }

    /// Unpacks an image and names it.
    async fn publish(
        &self,
        archive: &Spooled,
        lease: &Lease,
        image: ArchivedImage,
    ) -> Result<Vec<String>> {
        let ArchivedImage { target, manifest_digest, manifest, names } = image;
        let config = match archive.blob_document(&manifest.config.digest) {
            Ok(bytes) => bytes,
            Err(_) => {
                let stored = self.store().read(&manifest.config.digest).await?;
                stored.ok_or_else(|| bad(format!("no configuration {}", manifest.config.digest)))?
            }
        };
        let document: ImageDocument = serde_json::from_slice(&config)
            .map_err(|error| bad(format!("image configuration: {error}")))?;
        let contents = contents_of(manifest_digest, manifest, &config).map_err(bad)?;
        let mut parent = String::new();
        for (index, layer) in contents.manifest.layers.iter().enumerate() {
            let (diff_id, chain_id) =
                (&document.rootfs.diff_ids[index], &contents.chain_ids[index]);
            self.store()
                .unpack_layer(lease.containerd(), layer, diff_id, &parent, chain_id)
                .await?;
            parent.clone_from(chain_id);
        }
        self.store().link(lease.containerd(), &contents, &target).await?;
        self.store().name(&contents.id, &target).await?;
        let mut known = Vec::new();
        for name in names {
            let stored_name = reference::stored_name(&reference::parse(&name)?);
            self.store().name(&stored_name, &target).await?;
            known.push(stored_name);
        }
        if known.is_empty() {
            known.push(contents.id);
        }
        Ok(known)
    }

    async fn write_file(&self, lease: &Lease, blob: &Descriptor, path: &Path) -> Result<()> {
        let lock = self.blob_lock(&ingest_name("", &blob.digest));
        let _only_writer = lock.lock().await;
        let Some(mut writer) = BlobWriter::open(lease.containerd(), "", blob).await? else {
            return Ok(());
        };
        writer.restart();
        let mut file = tokio::fs::File::open(path).await.map_err(io_error("open blob"))?;
        loop {
            let mut buffer = Vec::with_capacity(READ_BYTES);
            let mut part = (&mut file).take(READ_BYTES as u64);
            if part.read_to_end(&mut buffer).await.map_err(io_error("read blob"))? == 0 {
                break;
            }
            writer.write_bytes(Bytes::from(buffer)).await?;
        }
        writer.commit(HashMap::new()).await
    }
}

/// The names of an image in an OCI layout: full names, or tags that docker's own manifest
/// completes.
fn layout_names(target: &Descriptor, manifest: &Manifest, docker: &[DockerImage]) -> Vec<String> {
    let hex = manifest.config.digest.trim_start_matches("sha256:");
    let of_docker = docker.iter().filter(|image| image.config.contains(hex));
    let mut names: Vec<String> =
        of_docker.flat_map(|image| image.repo_tags.clone().unwrap_or_default()).collect();
    let annotation = |key: &str| target.annotations.get(key).cloned();
    names.extend(annotation(CONTAINERD_NAME));
    if names.is_empty() {
        // "name:tag", as skopeo writes it; a bare tag is not a name.
        names.extend(annotation(OCI_NAME).filter(|name| name.contains([':', '/'])));
    }
    names.sort();
    names.dedup();
    names
}

impl Spooled {
    /// The path of an entry of the archive, with links followed.
    fn path(&self, name: &str) -> Result<PathBuf> {
        let mut entry =
            normal(Path::new(name)).ok_or_else(|| bad(format!("{name} points outside of it")))?;
        for _ in 0..MAX_LINKS {
            if let Some(path) = self.files.get(&entry) {
                return Ok(path.clone());
            }
            match self.links.get(&entry) {
                Some(target) => entry.clone_from(target),
                None => break,
            }
        }
        Err(bad(format!("{name} is missing")))
    }

    fn blob_path(&self, digest: &str) -> Result<PathBuf> {
        self.path(&format!("blobs/{}", digest.replace(':', "/")))
    }

    fn document(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.path(name).ok().map(|path| read_document(&path)).transpose()
    }

    fn blob_document(&self, digest: &str) -> Result<Vec<u8>> {
        read_document(&self.blob_path(digest)?)
    }

    /// Describes an entry by its content; a layer's media type is detected from its first bytes.
    async fn descriptor(&self, name: &str, media_type: Option<&str>) -> Result<Descriptor> {
        let path = self.path(name)?;
        let work = move || -> io::Result<(String, u64, bool)> {
            let mut file = File::open(&path)?;
            let (mut hash, mut size, mut buffer) = (Sha256::new(), 0_u64, vec![0; READ_BYTES]);
            let mut gzipped = false;
            loop {
                let count = file.read(&mut buffer)?;
                if count == 0 {
                    return Ok((hex_digest(&hash.finalize()), size, gzipped));
                }
                gzipped |= size == 0 && buffer[..count].starts_with(&GZIP_MAGIC);
                hash.update(&buffer[..count]);
                size += count as u64;
            }
        };
        let described =
            tokio::task::spawn_blocking(work).await.expect("hashing a file does not panic");
        let (digest, size, gzipped) = described.map_err(io_error("read blob"))?;
        let layer_type = if gzipped { OCI_LAYER_GZIP } else { OCI_LAYER };
        let media_type = media_type.unwrap_or(layer_type).to_string();
        Ok(Descriptor { media_type, digest, size, platform: None, annotations: Default::default() })
    }
}

fn io_error(operation: &'static str) -> impl FnOnce(io::Error) -> ImageError {
    move |source| ImageError::Io { operation: format!("{operation} of an archive"), source }
}

fn read_document(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(io_error("open document"))?;
    file.take(MAX_DOCUMENT_BYTES).read_to_end(&mut bytes).map_err(io_error("read document"))?;
    Ok(bytes)
}

/// Writes an archive's regular files to a directory, named by number, so that their own names do
/// not matter.
fn spool(archive: impl Read, scratch: &Path) -> Result<Spooled> {
    let unreadable = |error: io::Error| bad(error.to_string());
    std::fs::create_dir_all(scratch).map_err(io_error("create scratch directory"))?;
    let directory = tempfile::Builder::new()
        .prefix("archive-")
        .tempdir_in(scratch)
        .map_err(io_error("create scratch directory"))?;
    let mut archive = BufReader::with_capacity(READ_BYTES, archive);
    let gzipped = io::BufRead::fill_buf(&mut archive).map_err(unreadable)?.starts_with(&GZIP_MAGIC);
    let source: Box<dyn Read> =
        if gzipped { Box::new(GzDecoder::new(archive)) } else { Box::new(archive) };
    let mut tar = tar::Archive::new(source);
    let mut spooled =
        Spooled { files: HashMap::new(), links: HashMap::new(), _directory: directory };
    for entry in tar.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let name = entry.path().map_err(unreadable)?.into_owned();
        let Some(name) = normal(&name) else {
            return Err(bad(format!("{} points outside of it", name.display())));
        };
        if let Some(target) = entry.link_name().map_err(unreadable)? {
            let base = if entry.header().entry_type().is_hard_link() {
                Path::new("")
            } else {
                name.parent().unwrap_or(Path::new(""))
            };
            if let Some(target) = normal(&base.join(target)) {
                spooled.links.insert(name, target);
            }
        } else if entry.header().entry_type().is_file() {
            let path = spooled._directory.path().join(spooled.files.len().to_string());
            let mut file = File::create(&path).map_err(io_error("write part"))?;
            io::copy(&mut entry, &mut file).map_err(unreadable)?;
            spooled.files.insert(name, path);
        }
    }
    Ok(spooled)
}

/// A path without `.` and `..`; `None` if it points outside.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => normal.push(part),
            Component::ParentDir if !normal.pop() => return None,
            Component::ParentDir
            | Component::CurDir
            | Component::RootDir
            | Component::Prefix(_) => {}
        }
    }
    Some(normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        assert_eq!(normal(Path::new("./a/../b")), Some("b".into()));
        assert_eq!(normal(Path::new("a/../../b")), None);
        assert_eq!(normal(Path::new("/etc/passwd")), Some("etc/passwd".into()));
    }

    #[test]
    fn garbage_is_not_an_archive() {
        let scratch = tempfile::tempdir().unwrap();
        assert!(spool(&b"this is not a tar file, however long it is"[..], scratch.path()).is_err());
        assert!(spool(&[0x1f, 0x8b, 1, 2, 3][..], scratch.path()).is_err());
        assert!(spool(&b""[..], scratch.path()).unwrap().document("index.json").unwrap().is_none());
    }

    #[test]
    fn names_come_from_annotations_or_docker() {
        let descriptor = |annotations: &[(&str, &str)]| Descriptor {
            media_type: String::new(),
            digest: "sha256:1".into(),
            size: 1,
            platform: None,
            annotations: annotations
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
        };
        let manifest = Manifest {
            schema_version: 2,
            media_type: String::new(),
            config: descriptor(&[]),
            layers: Vec::new(),
        };
        let docker = DockerImage {
            config: "blobs/sha256/1".into(),
            repo_tags: Some(vec!["a:1".into()]),
            layers: vec![],
        };
        let full = descriptor(&[(CONTAINERD_NAME, "docker.io/library/a:1"), (OCI_NAME, "1")]);
        assert_eq!(layout_names(&full, &manifest, &[]), ["docker.io/library/a:1"]);
        assert_eq!(layout_names(&descriptor(&[(OCI_NAME, "a:2")]), &manifest, &[]), ["a:2"]);
        assert_eq!(layout_names(&descriptor(&[(OCI_NAME, "2")]), &manifest, &[docker]), ["a:1"]);
        assert!(layout_names(&descriptor(&[(OCI_NAME, "2")]), &manifest, &[]).is_empty());
    }
}
