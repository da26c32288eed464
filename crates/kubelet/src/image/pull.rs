//! Pulls images: manifests and configuration first, then all layers at once into the content store,
//! each unpacked as soon as it and those below it are there.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use oci_client::client::{BlobResponse, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::content::{BlobWriter, write_small};
use super::error::{ImageError, Result};
use super::manifest::{ACCEPTED_MANIFESTS, Descriptor, Document, ImageDocument, Manifest};
use super::reference;
use super::service::ImageService;
use super::store::{Contents, contents_of};
use super::unpack::Lease;
use super::{RegistryCredential, credentials};
use crate::containers::Containerd;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// A registry that sends nothing for this long has failed.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest configuration accepted.
const MAX_CONFIG_BYTES: u64 = 8 << 20;
/// Attempts to fetch a layer, each resuming the previous one.
const TRIES: u32 = 3;

/// A pull in progress.
#[derive(Clone)]
struct Pull {
    service: ImageService,
    reference: Reference,
    client: Client,
    containerd: Containerd,
}

/// An image's manifest and configuration, fetched and stored.
struct Documents {
    target: Descriptor,
    contents: Contents,
    diff_ids: Vec<String>,
}

impl ImageService {
    /// Pulls an image with the first credentials that the registry accepts.
    pub(super) async fn pull_reference(
        &self,
        reference: &Reference,
        credentials: &[RegistryCredential],
    ) -> Result<Contents> {
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
    ) -> Result<Contents> {
        let mut tries: Vec<RegistryAuth> =
            credentials::fitting(reference, credentials).into_iter().map(to_auth).collect();
        if tries.is_empty() {
            tries.push(RegistryAuth::Anonymous);
        }
        let mut refused = None;
        for auth in tries {
            match self.pull_with(reference, &auth, lease).await {
                Err(error @ (ImageError::Unauthorized { .. } | ImageError::NotFound { .. })) => {
                    refused = Some(error)
                }
                other => return other,
            }
        }
        Err(refused.expect("there is at least one try"))
    }

    async fn pull_with(
        &self,
        reference: &Reference,
        auth: &RegistryAuth,
        lease: &Lease,
    ) -> Result<Contents> {
        let mut pull = self.open_pull(reference, lease, ClientProtocol::Https)?;
        let documents = match pull.documents(auth).await {
            // As in docker: an insecure registry is tried with TLS, with any certificate, then
            // without.
            Err(ImageError::RegistryUnavailable { .. })
                if self.is_insecure(reference.registry()) =>
            {
                pull = self.open_pull(reference, lease, ClientProtocol::Http)?;
                pull.documents(auth).await?
            }
            documents => documents?,
        };
        pull.layers(&documents).await?;
        pull.publish(documents).await
    }

    fn open_pull(
        &self,
        reference: &Reference,
        lease: &Lease,
        protocol: ClientProtocol,
    ) -> Result<Pull> {
        let config = ClientConfig {
            protocol,
            accept_invalid_certificates: self.is_insecure(reference.registry()),
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            user_agent: "skiff",
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|error| classify(reference, &error))?;
        Ok(Pull {
            service: self.clone(),
            reference: reference.clone(),
            client,
            containerd: lease.containerd().clone(),
        })
    }
}

impl Pull {
    fn failed(&self, message: impl Into<String>) -> ImageError {
        ImageError::Pull { image: self.reference.to_string(), message: message.into() }
    }

    /// Fetches index, manifest and configuration.
    async fn documents(&self, auth: &RegistryAuth) -> Result<Documents> {
        let (target, document) = self.manifest(&self.reference, auth).await?;
        let (manifest_digest, manifest) = match document {
            Document::Manifest(manifest) => (target.digest.clone(), manifest),
            Document::Index(index) => {
                let chosen = index.choose().ok_or_else(|| {
                    self.failed(format!(
                        "no match for platform linux/{} in manifest",
                        super::manifest::architecture()
                    ))
                })?;
                let name = self.reference.clone_with_digest(chosen.digest.clone());
                match self.manifest(&name, auth).await? {
                    (descriptor, Document::Manifest(manifest)) => (descriptor.digest, manifest),
                    (_, Document::Index(_)) => return Err(self.failed("an index of indexes")),
                }
            }
        };
        let config = self.config(&manifest).await?;
        let diff_ids = serde_json::from_slice::<ImageDocument>(&config)
            .map_err(|error| self.failed(format!("image configuration: {error}")))?
            .rootfs
            .diff_ids;
        let contents = contents_of(manifest_digest, manifest, &config)
            .map_err(|message| self.failed(message))?;
        Ok(Documents { target, contents, diff_ids })
    }

    /// Fetches a manifest or index and stores it.
    async fn manifest(
        &self,
        name: &Reference,
        auth: &RegistryAuth,
    ) -> Result<(Descriptor, Document)> {
        let pulled = self.client.pull_manifest_raw(name, auth, &ACCEPTED_MANIFESTS).await;
        let (bytes, digest) = pulled.map_err(|error| classify(&self.reference, &error))?;
        let document = Document::parse(&bytes).map_err(|message| self.failed(message))?;
        let descriptor = Descriptor {
            media_type: document.media_type().to_string(),
            digest,
            size: bytes.len() as u64,
            platform: None,
            annotations: Default::default(),
        };
        let lock = self.service.blob_lock(&descriptor.digest);
        let _only_writer = lock.lock().await;
        write_small(&self.containerd, &descriptor, bytes).await?;
        Ok((descriptor, document))
    }

    async fn config(&self, manifest: &Manifest) -> Result<Bytes> {
        let lock = self.service.blob_lock(&manifest.config.digest);
        let _only_writer = lock.lock().await;
        if let Some(bytes) = self.service.store().read(&manifest.config.digest).await? {
            let bytes = Bytes::from(bytes);
            // It is stored already: this only makes the lease hold it.
            write_small(&self.containerd, &manifest.config, bytes.clone()).await?;
            return Ok(bytes);
        }
        if manifest.config.size > MAX_CONFIG_BYTES {
            return Err(
                self.failed(format!("image configuration of {} bytes", manifest.config.size))
            );
        }
        let mut bytes = Vec::new();
        let pulled =
            self.client.pull_blob(&self.reference, &to_oci(&manifest.config), &mut bytes).await;
        pulled.map_err(|error| classify(&self.reference, &error))?;
        let bytes = Bytes::from(bytes);
        write_small(&self.containerd, &manifest.config, bytes.clone()).await?;
        Ok(bytes)
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
        let lock = self.service.blob_lock(&layer.digest);
        let _only_writer = lock.lock().await;
        let _slot = self.service.transfer_slot().await;
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_layer(layer).await {
                Err(error @ (ImageError::Io { .. } | ImageError::RegistryUnavailable { .. }))
                    if tries < TRIES =>
                {
                    tracing::info!(layer = %layer.digest, %error, "resuming the transfer of a layer");
                }
                Err(ImageError::Io { source, .. }) => {
                    return Err(self.failed(format!("layer {}: {source}", layer.digest)));
                }
                other => return other,
            }
        }
    }

    async fn try_layer(&self, layer: &Descriptor) -> Result<()> {
        let Some(mut writer) = BlobWriter::open(&self.containerd, layer).await? else {
            return Ok(());
        };
        let descriptor = to_oci(layer);
        let failed = |error: OciDistributionError| classify(&self.reference, &error);
        if writer.offset() == 0 {
            let stream =
                self.client.pull_blob_stream(&self.reference, &descriptor).await.map_err(failed)?;
            writer.write(stream.stream).await?;
        } else if writer.offset() < layer.size {
            let offset = writer.offset();
            match self
                .client
                .pull_blob_stream_partial(&self.reference, &descriptor, offset, None)
                .await
                .map_err(failed)?
            {
                BlobResponse::Partial(stream) => writer.write(stream.stream).await?,
                BlobResponse::Full(stream) => {
                    writer.restart();
                    writer.write(stream.stream).await?;
                }
            }
        }
        writer.commit(HashMap::new()).await
    }

    /// Names the image: by tag, by digest, and by id.
    async fn publish(&self, documents: Documents) -> Result<Contents> {
        let Documents { target, contents, .. } = documents;
        let store = self.service.store();
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

fn to_auth(credential: &RegistryCredential) -> RegistryAuth {
    if credential.username.is_empty() && !credential.token.is_empty() {
        return RegistryAuth::Bearer(credential.token.clone());
    }
    RegistryAuth::Basic(credential.username.clone(), credential.password.clone())
}

fn to_oci(descriptor: &Descriptor) -> OciDescriptor {
    OciDescriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.clone(),
        size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
        ..OciDescriptor::default()
    }
}

/// Maps an error of the registry.
fn classify(reference: &Reference, error: &OciDistributionError) -> ImageError {
    let image = reference.to_string();
    let message = error.to_string();
    match error {
        OciDistributionError::UnauthorizedError { .. }
        | OciDistributionError::AuthenticationFailure(_) => {
            ImageError::Unauthorized { image, message }
        }
        OciDistributionError::ServerError { code: 401 | 403, .. } => {
            ImageError::Unauthorized { image, message }
        }
        OciDistributionError::ImageManifestNotFoundError(_)
        | OciDistributionError::ServerError { code: 404, .. } => {
            ImageError::NotFound { image, message }
        }
        OciDistributionError::ServerError { code: 429 | 500..=599, .. } => {
            ImageError::RegistryUnavailable { image, message }
        }
        OciDistributionError::RegistryError { envelope, .. } => {
            let has = |wanted: &[OciErrorCode]| {
                envelope.errors.iter().any(|error| wanted.contains(&error.code))
            };
            if has(&[OciErrorCode::Unauthorized, OciErrorCode::Denied]) {
                ImageError::Unauthorized { image, message }
            } else if has(&[
                OciErrorCode::ManifestUnknown,
                OciErrorCode::NameUnknown,
                OciErrorCode::NotFound,
            ]) {
                ImageError::NotFound { image, message }
            } else if has(&[OciErrorCode::Toomanyrequests]) {
                ImageError::RegistryUnavailable { image, message }
            } else {
                ImageError::Pull { image, message }
            }
        }
        OciDistributionError::RequestError(cause) => {
            ImageError::RegistryUnavailable { image, message: runtime::errors::cause_chain(cause) }
        }
        _ => ImageError::Pull { image, message },
    }
}
