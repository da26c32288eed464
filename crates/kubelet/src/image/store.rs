//! Reading images from containerd's stores.

use std::collections::HashMap;
use std::sync::Arc;

use containerd_client::services::v1::{
    GetImageRequest, Image as ImageRecord, ListImagesRequest, PluginsRequest, ReadContentRequest,
};
use containerd_client::types::Descriptor as ContainerdDescriptor;
use parking_lot::Mutex;
use tonic::Code;

use super::error::{ImageError, Result};
use super::manifest::{Document, ImageConfig, ImageDocument, Manifest, chain_ids};
use super::reference::{self, is_image_id};
use crate::containers::Containerd;

/// Largest manifest or configuration that is read.
const MAX_DOCUMENT_BYTES: usize = 8 << 20;
/// Maximum number of images in the cache. Content is immutable; the limit only saves memory.
const REMEMBERED_IMAGES: usize = 512;
/// Largest documents of an image in the cache, in bytes: few have more than some kilobytes.
const REMEMBERED_BYTES: usize = 256 << 10;

/// An image, as described by its manifest and configuration.
#[derive(Debug, PartialEq)]
pub(crate) struct Contents {
    /// Digest of the configuration: the image's id.
    pub(crate) id: String,
    pub(crate) manifest_digest: String,
    pub(crate) manifest: Manifest,
    pub(crate) config: ImageConfig,
    /// Snapshot names of the layers, lowest first.
    pub(crate) chain_ids: Vec<String>,
    pub(crate) size_bytes: u64,
}

/// An image under one of its names.
#[derive(Debug, Clone)]
pub(crate) struct StoredImage {
    pub(crate) contents: Arc<Contents>,
}

/// Reads images. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ImageStore {
    pub(crate) containerd: Containerd,
    pub(crate) snapshotter: String,
    remembered: Arc<Mutex<HashMap<String, Arc<Contents>>>>,
}

impl ImageStore {
    pub(crate) fn new(containerd: Containerd, snapshotter: &str) -> Self {
        ImageStore { containerd, snapshotter: snapshotter.to_string(), remembered: Arc::default() }
    }

    /// The image by id or reference; `None` unless all of it is here.
    pub(crate) async fn find(&self, image: &str) -> Result<Option<StoredImage>> {
        let name = if is_image_id(image) {
            image.to_string()
        } else {
            reference::stored_name(&reference::parse(image)?)
        };
        let Some(record) = self.record(&name).await? else {
            return Ok(None);
        };
        let Some(target) = record.target else {
            return Ok(None);
        };
        let Some(contents) = self.contents(&target).await? else {
            return Ok(None);
        };
        Ok(Some(StoredImage { contents }))
    }

    /// `name@digest` for an image given by reference, if the store has that name; else its id.
    pub(crate) async fn image_ref(&self, image: &str, contents: &Contents) -> Result<String> {
        if is_image_id(image) {
            return Ok(contents.id.clone());
        }
        let reference = reference::parse(image)?;
        let record = self.record(&reference::stored_name(&reference)).await?;
        let Some(target) = record.and_then(|record| record.target) else {
            return Ok(contents.id.clone());
        };
        let name = reference::name_by_digest(&reference, &target.digest);
        Ok(if self.record(&name).await?.is_some() { name } else { contents.id.clone() })
    }

    /// containerd's record of a name.
    pub(crate) async fn record(&self, name: &str) -> Result<Option<ImageRecord>> {
        match self.containerd.images().get(GetImageRequest { name: name.to_string() }).await {
            Ok(response) => Ok(response.into_inner().image),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(ImageError::from_status(format!("get image {name}"), &status)),
        }
    }

    /// All records.
    pub(crate) async fn records(&self) -> Result<Vec<ImageRecord>> {
        let response =
            self.containerd.images().list(ListImagesRequest { filters: Vec::new() }).await;
        Ok(response
            .map_err(|status| ImageError::from_status("list images", &status))?
            .into_inner()
            .images)
    }

    /// The image of a manifest or index for this machine; `None` if content is missing.
    pub(crate) async fn contents(
        &self,
        target: &ContainerdDescriptor,
    ) -> Result<Option<Arc<Contents>>> {
        if let Some(contents) = self.remembered.lock().get(&target.digest) {
            return Ok(Some(contents.clone()));
        }
        let Some((contents, bytes)) = self.load(&target.digest).await? else {
            return Ok(None);
        };
        let contents = Arc::new(contents);
        if bytes > REMEMBERED_BYTES {
            return Ok(Some(contents));
        }
        remember(&mut self.remembered.lock(), &target.digest, contents.clone());
        Ok(Some(contents))
    }

    /// The snapshotter's directory of layers, as exported by containerd's plugin.
    pub(crate) async fn snapshot_root(&self) -> Result<String> {
        let filter = format!("type==io.containerd.snapshotter.v1,id=={}", self.snapshotter);
        let response =
            self.containerd.introspection().plugins(PluginsRequest { filters: vec![filter] }).await;
        let plugins = response
            .map_err(|status| ImageError::from_status("list plugins", &status))?
            .into_inner()
            .plugins;
        let root = plugins.into_iter().find_map(|plugin| plugin.exports.get("root").cloned());
        root.ok_or_else(|| ImageError::Containerd {
            operation: format!("find snapshotter {}", self.snapshotter),
            message: "it is missing or exports no root directory".to_string(),
        })
    }

    /// Forgets an image that was removed.
    pub(crate) fn forget(&self, target_digest: &str) {
        self.remembered.lock().remove(target_digest);
    }

    /// An image, and the size of its documents.
    async fn load(&self, digest: &str) -> Result<Option<(Contents, usize)>> {
        let corrupt = |message: String| ImageError::Containerd {
            operation: format!("read image {digest}"),
            message,
        };
        let Some(bytes) = self.read(digest).await? else {
            return Ok(None);
        };
        let mut size = bytes.len();
        let (manifest_digest, manifest) = match Document::parse(&bytes).map_err(corrupt)? {
            Document::Manifest(manifest) => (digest.to_string(), manifest),
            Document::Index(index) => {
                let Some(chosen) = index.choose() else {
                    return Ok(None);
                };
                let Some(bytes) = self.read(&chosen.digest).await? else {
                    return Ok(None);
                };
                size = bytes.len();
                match Document::parse(&bytes).map_err(corrupt)? {
                    Document::Manifest(manifest) => (chosen.digest.clone(), manifest),
                    Document::Index(_) => return Err(corrupt("an index of indexes".to_string())),
                }
            }
        };
        let Some(bytes) = self.read(&manifest.config.digest).await? else {
            return Ok(None);
        };
        size += bytes.len();
        let contents = contents_of(manifest_digest, manifest, &bytes).map_err(corrupt)?;
        Ok(Some((contents, size)))
    }

    /// A small document; `None` if it is not in the content store.
    pub(crate) async fn read(&self, digest: &str) -> Result<Option<Vec<u8>>> {
        let failed = |status: &tonic::Status| {
            ImageError::from_status(format!("read content {digest}"), status)
        };
        let request = ReadContentRequest { digest: digest.to_string(), offset: 0, size: 0 };
        let mut stream = match self.containerd.content().read(request).await {
            Ok(response) => response.into_inner(),
            Err(status) if status.code() == Code::NotFound => return Ok(None),
            Err(status) => return Err(failed(&status)),
        };
        let mut bytes = Vec::new();
        loop {
            match stream.message().await {
                Ok(Some(part)) => bytes.extend_from_slice(&part.data),
                Ok(None) => return Ok(Some(bytes)),
                Err(status) if status.code() == Code::NotFound => return Ok(None),
                Err(status) => return Err(failed(&status)),
            }
            if bytes.len() > MAX_DOCUMENT_BYTES {
                return Err(ImageError::Containerd {
                    operation: format!("read content {digest}"),
                    message: format!("more than {MAX_DOCUMENT_BYTES} bytes"),
                });
            }
        }
    }
}

/// Combines a manifest and its configuration, checking that they match.
pub(crate) fn contents_of(
    manifest_digest: String,
    manifest: Manifest,
    config: &[u8],
) -> std::result::Result<Contents, String> {
    let document: ImageDocument =
        serde_json::from_slice(config).map_err(|error| format!("image configuration: {error}"))?;
    let diff_ids = &document.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        return Err(format!("{} layers but {} diff ids", manifest.layers.len(), diff_ids.len()));
    }
    if !document.os.is_empty() && document.os != "linux" {
        return Err(format!("image is for {}, not linux", document.os));
    }
    // Sizes are what the manifest says, which may be anything.
    let sizes = manifest.layers.iter().map(|layer| layer.size);
    let size_bytes = sizes.fold(manifest.config.size, u64::saturating_add);
    Ok(Contents {
        id: manifest.config.digest.clone(),
        manifest_digest,
        size_bytes,
        chain_ids: chain_ids(diff_ids),
        config: document.config.unwrap_or_default().into(),
        manifest,
    })
}

/// Adds an image to those that are remembered, of which there are never too many.
fn remember<T>(remembered: &mut HashMap<String, T>, digest: &str, contents: T) {
    if remembered.len() >= REMEMBERED_IMAGES {
        remembered.clear();
    }
    remembered.insert(digest.to_owned(), contents);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_images_are_remembered_than_the_bound() {
        let mut remembered = HashMap::new();
        for number in 0..3 * REMEMBERED_IMAGES {
            remember(&mut remembered, &format!("sha256:{number}"), number);
            assert!(remembered.len() <= REMEMBERED_IMAGES);
            assert_eq!(remembered[&format!("sha256:{number}")], number);
        }
    }
}
