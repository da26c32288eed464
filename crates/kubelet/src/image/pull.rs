//! Pulls images: manifests and configuration first, then all layers at once into the content store,
//! each unpacked as soon as it and those below it are there.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use oci_spec::distribution::Reference;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use super::content::{BlobWriter, ingest_name, write_small};
use super::error::{ImageError, Result};
use super::manifest::{Descriptor, Document, ImageDocument, Manifest};
use super::reference;
use super::registry::{Fetched, Protocol, Registry};
use super::service::ImageService;
use super::store::{Contents, contents_of};
use super::unpack::Lease;
use super::{RegistryCredential, credentials};
use crate::containers::Containerd;

/// Attempts to fetch a layer, each resuming the previous one.
const TRIES: u32 = 3;
/// Concurrent transfers of layers per pull. Pulls do not share them: a slow registry must not keep
/// others from being pulled from.
const PARALLEL_TRANSFERS: usize = 3;
/// Most layers of an image: what overlayfs can stack.
const MAX_LAYERS: usize = 500;

/// A pull in progress.
#[derive(Clone)]
struct Pull {
    service: ImageService,
    reference: Reference,
    registry: Registry,
    transfers: Arc<Semaphore>,
    containerd: Containerd,
}

/// An image's manifest and configuration, fetched and stored.
struct Documents {
    target: Descriptor,
    contents: Contents,
    diff_ids: Vec<String>,
}

/// What a pull has brought.
pub(super) struct Pulled {
    pub(super) contents: Contents,
    /// The place of the credential that the registry accepted; `None` if the pull was anonymous.
    pub(super) credential: Option<usize>,
}

impl ImageService {
    /// Pulls an image with the first credentials that the registry accepts.
    pub(super) async fn pull_reference(
        &self,
        reference: &Reference,
        credentials: &[RegistryCredential],
    ) -> Result<Pulled> {
        let lease = Lease::take(&self.store().containerd).await?;
        let pulled = self.pull_with_any(reference, credentials, &lease).await;
        lease.release().await;
        pulled
    }

    async fn pull_with_any(
        &self,
        reference: &Reference,
        credentials: &[RegistryCredential],
        lease: &Lease,
    ) -> Result<Pulled> {
        let mut tries: Vec<Option<usize>> =
            credentials::fitting(reference, credentials).into_iter().map(Some).collect();
        if tries.is_empty() {
            tries.push(None);
        }
        let mut refused = None;
        for credential in tries {
            let used = credential.map(|index| &credentials[index]);
            match self.pull_with(reference, used, lease).await {
                Ok(contents) => return Ok(Pulled { contents, credential }),
                Err(error @ (ImageError::Unauthorized { .. } | ImageError::NotFound { .. })) => {
                    refused = Some(error)
                }
                Err(error) => return Err(error),
            }
        }
        Err(refused.expect("there is at least one try"))
    }

    async fn pull_with(
        &self,
        reference: &Reference,
        credential: Option<&RegistryCredential>,
        lease: &Lease,
    ) -> Result<Contents> {
        let pull = |protocol| -> Result<Pull> {
            Ok(Pull {
                service: self.clone(),
                reference: reference.clone(),
                registry: Registry::new(reference, credential, protocol)?,
                transfers: Arc::new(Semaphore::new(PARALLEL_TRANSFERS)),
                containerd: lease.containerd().clone(),
            })
        };
        let insecure = self.is_insecure(reference.registry());
        let mut running = pull(if insecure { Protocol::InsecureHttps } else { Protocol::Https })?;
        let documents = match running.documents().await {
            // As in docker: an insecure registry is tried with TLS, with any certificate, then
            // without.
            Err(ImageError::RegistryUnavailable { .. }) if insecure => {
                running = pull(Protocol::Http)?;
                running.documents().await?
            }
            documents => documents?,
        };
        running.layers(&documents).await?;
        running.publish(documents).await
    }
}

impl Pull {
    fn failed(&self, message: impl Into<String>) -> ImageError {
        ImageError::Pull { image: self.reference.to_string(), message: message.into() }
    }

    /// Fetches index, manifest and configuration.
    async fn documents(&self) -> Result<Documents> {
        let (target, document) = self.store_manifest(self.registry.target().await?).await?;
        let (manifest_digest, manifest) = match document {
            Document::Manifest(manifest) => (target.digest.clone(), manifest),
            Document::Index(index) => {
                let chosen = index.choose().ok_or_else(|| {
                    self.failed(format!(
                        "no match for platform linux/{} in manifest",
                        super::manifest::architecture()
                    ))
                })?;
                match self.store_manifest(self.registry.entry(chosen).await?).await? {
                    (descriptor, Document::Manifest(manifest)) => (descriptor.digest, manifest),
                    (_, Document::Index(_)) => return Err(self.failed("an index of indexes")),
                }
            }
        };
        if manifest.layers.len() > MAX_LAYERS {
            let count = manifest.layers.len();
            return Err(self.failed(format!("{count} layers, at most {MAX_LAYERS} are accepted")));
        }
        let config = self.config(&manifest).await?;
        let diff_ids = serde_json::from_slice::<ImageDocument>(&config)
            .map_err(|error| self.failed(format!("image configuration: {error}")))?
            .rootfs
            .diff_ids;
        let contents = contents_of(manifest_digest, manifest, &config)
            .map_err(|message| self.failed(message))?;
        Ok(Documents { target, contents, diff_ids })
    }

    /// Stores a manifest or index.
    async fn store_manifest(&self, fetched: Fetched) -> Result<(Descriptor, Document)> {
        let Fetched { bytes, digest } = fetched;
        let document = Document::parse(&bytes).map_err(|message| self.failed(message))?;
        let descriptor = Descriptor {
            media_type: document.media_type().to_string(),
            digest,
            size: bytes.len() as u64,
            platform: None,
            annotations: Default::default(),
        };
        self.store_small(&descriptor, bytes).await?;
        Ok((descriptor, document))
    }

    async fn config(&self, manifest: &Manifest) -> Result<Bytes> {
        let bytes = match self.service.store().read(&manifest.config.digest).await? {
            // Storing it again only makes the lease hold it.
            Some(bytes) => Bytes::from(bytes),
            None => self.registry.config(&manifest.config).await?,
        };
        self.store_small(&manifest.config, bytes.clone()).await?;
        Ok(bytes)
    }

    async fn store_small(&self, blob: &Descriptor, bytes: Bytes) -> Result<()> {
        let lock = self.service.blob_lock(&ingest_name("", &blob.digest));
        let _only_writer = lock.lock().await;
        write_small(&self.containerd, blob, bytes).await
    }

    /// Fetches all layers at once (as many as the service allows) and unpacks them in order, each
    /// while those above it are still being fetched.
    async fn layers(&self, documents: &Documents) -> Result<()> {
        let contents = &documents.contents;
        // Dropping it on an error aborts the fetches.
        let mut fetches = JoinSet::new();
        let mut fetched = Vec::new();
        for layer in &contents.manifest.layers {
            let (sender, receiver) = oneshot::channel();
            fetched.push(receiver);
            let (pull, layer) = (self.clone(), layer.clone());
            fetches.spawn(async move {
                // The receiver is gone if a layer below has failed.
                sender.send(pull.layer(&layer).await).ok();
            });
        }
        let mut parent = String::new();
        for (index, fetched) in fetched.into_iter().enumerate() {
            fetched.await.map_err(|_| self.failed("a layer's transfer was aborted"))??;
            let layer = &contents.manifest.layers[index];
            let chain_id = &contents.chain_ids[index];
            let store = self.service.store();
            store
                .unpack_layer(
                    &self.containerd,
                    layer,
                    &documents.diff_ids[index],
                    &parent,
                    chain_id,
                )
                .await?;
            parent.clone_from(chain_id);
        }
        Ok(())
    }

    /// Fetches one layer into the content store, resuming an earlier attempt.
    async fn layer(&self, layer: &Descriptor) -> Result<()> {
        let lock = self.service.blob_lock(&ingest_name(&self.source(), &layer.digest));
        let _only_writer = lock.lock().await;
        let _slot = self.transfers.acquire().await.expect("the semaphore is never closed");
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_layer(layer).await {
                Err(error @ ImageError::RegistryUnavailable { .. }) if tries < TRIES => {
                    tracing::info!(layer = %layer.digest, %error, "resuming the transfer of a layer");
                }
                other => return other,
            }
        }
    }

    /// Where layers come from: see [`BlobWriter::open`].
    fn source(&self) -> String {
        format!("{}/{}", self.reference.registry(), self.reference.repository())
    }

    async fn try_layer(&self, layer: &Descriptor) -> Result<()> {
        let opened = BlobWriter::open(&self.containerd, &self.source(), layer).await?;
        let Some(mut writer) = opened else {
            return Ok(());
        };
        if writer.offset() < layer.size {
            self.check_space(layer.size - writer.offset()).await?;
            if let Err(error) = self.transfer(layer, &mut writer).await {
                // What was refused is of no use to a later attempt.
                if !matches!(error, ImageError::RegistryUnavailable { .. }) {
                    writer.discard().await;
                }
                return Err(error);
            }
        }
        writer.commit(HashMap::new()).await
    }

    async fn transfer(&self, layer: &Descriptor, writer: &mut BlobWriter) -> Result<()> {
        let (begin, mut body) = self.registry.layer(layer, writer.offset()).await?;
        if begin == 0 {
            writer.restart();
        }
        while let Some(bytes) = body.next().await? {
            writer.write_bytes(bytes).await?;
        }
        Ok(())
    }

    /// Refuses a layer for which the disk has no room: whoever serves the image decides on its
    /// size.
    async fn check_space(&self, bytes: u64) -> Result<()> {
        let available = self.service.disk_usage().await?.available_bytes;
        if bytes > available {
            return Err(self.failed(format!(
                "no space left on device: a layer needs {bytes} bytes, {available} are available"
            )));
        }
        Ok(())
    }

    /// Names the image: by tag, by digest, and by id.
    async fn publish(&self, documents: Documents) -> Result<Contents> {
        let Documents { target, contents, .. } = documents;
        let store = self.service.store();
        // Before it has a name: from then on, whoever may use it is verified.
        self.service.records().add(&contents.id).await?;
        store.link(&self.containerd, &contents, &target).await?;
        let by_digest = reference::name_by_digest(&self.reference, &target.digest);
        let mut names = vec![by_digest, contents.id.clone()];
        if self.reference.digest().is_none() {
            names.push(self.reference.to_string());
        }
        for name in names {
            store.name(&name, &target).await?;
        }
        Ok(contents)
    }
}
