//! The image service: upstream's image manager.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use containerd_client::services::v1::DeleteImageRequest;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use oci_spec::distribution::Reference;
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;
use tonic::Code;

use super::error::{ImageError, Result};
use super::pull::Pulled;
use super::pull_records::{PullRecords, Verification};
use super::reference::{self, is_image_id};
use super::store::{Contents, ImageStore};
use super::{Image, RegistryCredential};
use crate::containers::Runtime;

/// A pull that several callers may wait for; they share its result: the image, and the place of the
/// credential that was used.
type SharedPull =
    Shared<BoxFuture<'static, std::result::Result<(Image, Option<usize>), Arc<ImageError>>>>;

/// Identifies equal pulls: the image, and for each credential its registry, user and secret.
type PullKey = (String, Vec<(String, String, String)>);

/// Images of this node. Cheap to clone.
#[derive(Clone)]
pub struct ImageService {
    inner: Arc<Inner>,
}

struct Inner {
    store: ImageStore,
    insecure_registries: Vec<String>,
    records: PullRecords,
    scratch: PathBuf,
    pulls: Mutex<HashMap<PullKey, SharedPull>>,
    /// Locks by name of an unfinished write: containerd refuses a second writer of it.
    blobs: Mutex<HashMap<String, Arc<AsyncMutex<()>>>>,
    pub(super) usage: super::gc::UsageLog,
}

impl ImageService {
    /// An image service over the runtime's containerd. `insecure_registries` (`host:port`) may have
    /// any certificate, or no TLS. `verification` says which pods' credentials are verified. Only
    /// one service may use a root directory at a time.
    pub fn new(
        runtime: &Runtime,
        insecure_registries: &[String],
        verification: Verification,
    ) -> Result<Self> {
        let records = runtime.root_dir().join("image_manager/pulled");
        let records = PullRecords::open(&records, verification)?;
        let scratch = runtime.root_dir().join("tmp");
        // What a killed process has left behind.
        match std::fs::remove_dir_all(&scratch) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(ImageError::Io {
                    operation: format!("empty {}", scratch.display()),
                    source,
                });
            }
            _ => {}
        }
        Ok(ImageService {
            inner: Arc::new(Inner {
                store: runtime.image_store(),
                insecure_registries: insecure_registries.to_vec(),
                records,
                scratch,
                pulls: Mutex::default(),
                blobs: Mutex::default(),
                usage: super::gc::UsageLog::default(),
            }),
        })
    }

    /// Fails if `image` is neither a reference nor an image's id.
    pub fn check_name(image: &str) -> Result<()> {
        if is_image_id(image) {
            return Ok(());
        }
        reference::parse(image).map(drop)
    }

    /// Pulls and unpacks an image, whether or not it is here; layers that are here are not fetched
    /// again. Concurrent pulls of the same image are shared. Credentials that match the image's
    /// registry are tried in order; without any, the pull is anonymous.
    /// Records which one the registry accepted: see [`Self::must_pull`].
    pub async fn pull(&self, image: &str, credentials: &[RegistryCredential]) -> Result<Image> {
        let reference = reference::parse(image)?;
        let key = (reference.to_string(), fingerprint(credentials));
        let shared = {
            let mut pulls = self.inner.pulls.lock();
            let start = || self.start_pull(reference, credentials.to_vec(), key.clone());
            pulls.entry(key.clone()).or_insert_with(start).clone()
        };
        let (found, used) = shared.await.map_err(|error| error.repeat())?;
        // Callers that share a pull may have their equal credentials from different Secrets.
        let used = used.and_then(|place| credentials.get(place));
        if let Err(error) = self.records().add_credential(image, &found.id, used).await {
            // It is here all the same; the next pod's credentials are verified by a pull.
            tracing::error!(%error, image, "cannot record how an image was pulled");
        }
        Ok(found)
    }

    /// Whether an image that is here must be pulled once more before a pod with these credentials
    /// may use it, since it was pulled with others only.
    pub async fn must_pull(
        &self,
        image: &str,
        found: &Image,
        credentials: &[RegistryCredential],
    ) -> bool {
        self.records().must_pull(image, &found.id, credentials).await
    }

    /// Starts a pull as a task of its own, which continues if the caller goes away.
    fn start_pull(
        &self,
        reference: Reference,
        credentials: Vec<RegistryCredential>,
        key: PullKey,
    ) -> SharedPull {
        let service = self.clone();
        let image = reference.to_string();
        let task = tokio::spawn(async move {
            let pulled = service.pull_reference(&reference, &credentials).await;
            service.inner.pulls.lock().remove(&key);
            let Pulled { contents, credential } = pulled.map_err(Arc::new)?;
            let found = service.status(&contents.id).await.map_err(Arc::new)?;
            let found = found.ok_or_else(|| {
                let message = "it was removed while it was pulled".to_string();
                Arc::new(ImageError::Pull { image: reference.to_string(), message })
            })?;
            Ok((found, credential))
        });
        let outcome = task.map(move |joined| {
            joined.unwrap_or_else(|error| {
                Err(Arc::new(ImageError::Pull { image, message: error.to_string() }))
            })
        });
        outcome.boxed().shared()
    }

    /// The image by reference or id, if it is here.
    pub async fn status(&self, image: &str) -> Result<Option<Image>> {
        let Some(found) = self.store().find(image).await? else {
            return Ok(None);
        };
        if let Some(top) = found.contents.chain_ids.last()
            && !self.store().has_snapshot(top).await?
        {
            return Ok(None);
        }
        let id = found.contents.id.clone();
        let image = self.list().await?.into_iter().find(|image| image.id == id);
        Ok(image.or_else(|| Some(describe(&found.contents))))
    }

    /// Every image here.
    pub async fn list(&self) -> Result<Vec<Image>> {
        let mut images: BTreeMap<String, Image> = BTreeMap::new();
        for record in self.store().records().await? {
            let Some(target) = &record.target else {
                continue;
            };
            let Some(contents) = self.store().contents(target).await? else {
                continue;
            };
            let image = images.entry(contents.id.clone()).or_insert_with(|| describe(&contents));
            if is_image_id(&record.name) {
                continue;
            }
            let names = if record.name.contains('@') {
                &mut image.repo_digests
            } else {
                &mut image.repo_tags
            };
            names.push(record.name);
        }
        Ok(images.into_values().collect())
    }

    /// Removes an image by id, with all its names. It need not be here.
    pub async fn remove(&self, image_id: &str) -> Result<()> {
        for record in self.store().records().await? {
            let Some(target) = &record.target else {
                continue;
            };
            let Some(contents) = self.store().contents(target).await? else {
                continue;
            };
            if contents.id != image_id {
                continue;
            }
            self.store().forget(&target.digest);
            // Runs containerd's garbage collector synchronously, so that the space is free on
            // return.
            let request =
                DeleteImageRequest { name: record.name.clone(), sync: true, target: None };
            match self.store().containerd.images().delete(request).await {
                Ok(_) => {}
                Err(status) if status.code() == Code::NotFound => {}
                Err(status) => {
                    return Err(ImageError::from_status(
                        format!("remove image {}", record.name),
                        &status,
                    ));
                }
            }
        }
        self.records().remove(image_id).await
    }

    pub(super) fn records(&self) -> &PullRecords {
        &self.inner.records
    }

    pub(super) fn store(&self) -> &ImageStore {
        &self.inner.store
    }

    pub(super) fn usage(&self) -> &super::gc::UsageLog {
        &self.inner.usage
    }

    pub(super) fn is_insecure(&self, registry: &str) -> bool {
        self.inner.insecure_registries.iter().any(|insecure| insecure == registry)
    }

    pub(super) fn scratch(&self) -> &Path {
        &self.inner.scratch
    }

    pub(super) fn blob_lock(&self, ingest: &str) -> Arc<AsyncMutex<()>> {
        let mut blobs = self.inner.blobs.lock();
        blobs.retain(|_, lock| Arc::strong_count(lock) > 1);
        blobs.entry(ingest.to_string()).or_default().clone()
    }
}

fn describe(contents: &Contents) -> Image {
    Image {
        id: contents.id.clone(),
        size_bytes: contents.size_bytes,
        user: contents.config.user.clone(),
        ..Image::default()
    }
}

/// Pulls with different credentials are not shared: one user's access must not become another's.
fn fingerprint(credentials: &[RegistryCredential]) -> Vec<(String, String, String)> {
    let secret =
        |credential: &RegistryCredential| format!("{}\0{}", credential.password, credential.token);
    credentials
        .iter()
        .map(|credential| {
            (credential.registry.clone(), credential.username.clone(), secret(credential))
        })
        .collect()
}
