//! Which credentials images were pulled with, as upstream's image pull manager records it: a
//! private image that is on the node is only for pods that could pull it themselves
//! (<https://kubernetes.io/docs/concepts/containers/images/#ensureimagepullcredentialverification>).
//!
//! There is one file per image, in upstream's format, read at start. An image gets its record
//! before it gets its name, so none is ever taken for a preloaded one because this process was
//! killed in between.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;
use jiff::Timestamp;
use oci_spec::distribution::Reference;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex as AsyncMutex;

use super::RegistryCredential;
use super::error::{ImageError, Result};
use super::manifest::sha256_digest;
use super::reference;

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const KIND: &str = "ImagePulledRecord";
/// Secrets remembered per image and repository; the oldest is forgotten for a new one.
const MAX_SECRETS: usize = 100;

/// `imagePullCredentialsVerificationPolicy`: for which images that are on the node a pod's
/// credentials are verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum VerificationPolicy {
    /// For none.
    NeverVerify,
    /// For those that the kubelet has pulled.
    #[default]
    NeverVerifyPreloadedImages,
    /// For all but those of a list.
    NeverVerifyAllowlistedImages,
    /// For all.
    AlwaysVerify,
}

/// The policy with its list: images without tag or digest, or prefixes that end in `/*`.
#[derive(Clone, Debug, Default)]
pub struct Verification {
    /// The policy.
    pub policy: VerificationPolicy,
    /// `preloadedImagesVerificationAllowlist`.
    pub allowlist: Vec<String>,
}

impl Verification {
    fn is_required(&self, image: &str, pulled_by_kubelet: bool) -> bool {
        match self.policy {
            VerificationPolicy::NeverVerify => false,
            VerificationPolicy::NeverVerifyPreloadedImages => pulled_by_kubelet,
            VerificationPolicy::NeverVerifyAllowlistedImages => !self.is_allowed(image),
            VerificationPolicy::AlwaysVerify => true,
        }
    }

    /// Whether the list has the image: by its normalised repository.
    fn is_allowed(&self, image: &str) -> bool {
        let Ok(reference) = reference::parse(image) else {
            return false;
        };
        let repository = repository(&reference);
        self.allowlist.iter().any(|entry| match entry.strip_suffix('*') {
            Some(prefix) => repository.starts_with(prefix),
            None => {
                reference::parse(entry).is_ok_and(|entry| self::repository(&entry) == repository)
            }
        })
    }
}

/// The Secret that a credential is from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct SecretSource {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid: a Secret of the same name may be another one.
    pub uid: String,
}

/// What is recorded of an image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    kind: String,
    api_version: String,
    last_updated_time: String,
    image_ref: String,
    /// By repository.
    #[serde(default)]
    credential_mapping: BTreeMap<String, Credentials>,
}

/// The credentials with which an image of a repository was pulled.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Credentials {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kubernetes_secrets: Vec<RecordedSecret>,
    /// None were needed, or they are the node's own: every pod of the node may use the image.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    node_pods_accessible: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordedSecret {
    uid: String,
    namespace: String,
    name: String,
    credential_hash: String,
}

impl RecordedSecret {
    fn is_from(&self, source: &SecretSource) -> bool {
        (&self.uid, &self.namespace, &self.name) == (&source.uid, &source.namespace, &source.name)
    }
}

/// The records of this node. Cheap to clone.
#[derive(Clone)]
pub(super) struct PullRecords {
    inner: Arc<Inner>,
}

struct Inner {
    directory: PathBuf,
    verification: Verification,
    /// By image id.
    records: Mutex<HashMap<String, Record>>,
    /// Held while a file is written, so that the last state is the last written.
    writing: AsyncMutex<()>,
}

impl PullRecords {
    /// Reads the records in a directory, which need not exist.
    pub(super) fn open(directory: &Path, verification: Verification) -> Result<Self> {
        let failed = |source| ImageError::Io {
            operation: format!("read image pull records in {}", directory.display()),
            source,
        };
        std::fs::create_dir_all(directory).map_err(failed)?;
        let mut records = HashMap::new();
        for entry in std::fs::read_dir(directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let bytes = std::fs::read(&path).map_err(failed)?;
            match serde_json::from_slice::<Record>(&bytes) {
                Ok(record) => drop(records.insert(record.image_ref.clone(), record)),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "skipping an image pull record that cannot be read");
                }
            }
        }
        let directory = directory.to_path_buf();
        let (records, writing) = (Mutex::new(records), AsyncMutex::default());
        Ok(PullRecords { inner: Arc::new(Inner { directory, verification, records, writing }) })
    }

    /// Whether a pod with these credentials must pull an image that is on the node: none that it
    /// was pulled with is among them. Remembers a Secret that has changed, or has the same content.
    pub(super) async fn must_pull(
        &self,
        image: &str,
        image_id: &str,
        credentials: &[RegistryCredential],
    ) -> bool {
        let repository = reference::parse(image).map(|reference| repository(&reference));
        let known = self.inner.records.lock().get(image_id).map(|record| {
            let of = repository.as_ref().ok();
            of.and_then(|repository| record.credential_mapping.get(repository).cloned())
        });
        if !self.inner.verification.is_required(image, known.is_some()) {
            return false;
        }
        let Some(known) = known.flatten() else {
            return true;
        };
        if known.node_pods_accessible {
            return false;
        }
        for credential in credentials {
            let Some(source) = &credential.source else {
                continue;
            };
            let hash = credential_hash(credential);
            let same =
                |secret: &&RecordedSecret| secret.credential_hash == hash || secret.is_from(source);
            let Some(secret) = known.kubernetes_secrets.iter().find(same) else {
                continue;
            };
            if !(secret.credential_hash == hash && secret.is_from(source))
                && let Err(error) = self.add_credential(image, image_id, Some(credential)).await
            {
                tracing::warn!(%error, image, "cannot record a credential");
            }
            return false;
        }
        true
    }

    /// Records that the kubelet has pulled an image, before anybody can use it.
    pub(super) async fn add(&self, image_id: &str) -> Result<()> {
        // A new time keeps `prune` from it.
        self.change(image_id, |record| record.last_updated_time.clear()).await
    }

    /// Records the credential with which an image was pulled; `None` if none was needed.
    pub(super) async fn add_credential(
        &self,
        image: &str,
        image_id: &str,
        credential: Option<&RegistryCredential>,
    ) -> Result<()> {
        let repository = repository(&reference::parse(image)?);
        self.change(image_id, |record| {
            let known = record.credential_mapping.entry(repository).or_default();
            let source = credential.and_then(|one| Some((one, one.source.as_ref()?)));
            let Some((credential, source)) = source else {
                // Once it is for everybody, Secrets do not matter.
                *known = Credentials { node_pods_accessible: true, ..Credentials::default() };
                return;
            };
            if known.node_pods_accessible {
                return;
            }
            known.kubernetes_secrets.retain(|secret| !secret.is_from(source));
            if known.kubernetes_secrets.len() >= MAX_SECRETS {
                known.kubernetes_secrets.remove(0);
            }
            known.kubernetes_secrets.push(RecordedSecret {
                uid: source.uid.clone(),
                namespace: source.namespace.clone(),
                name: source.name.clone(),
                credential_hash: credential_hash(credential),
            });
        })
        .await
    }

    /// Forgets images that are not among these, unless recorded since: they were removed behind our
    /// back.
    pub(super) async fn prune(&self, here: &BTreeSet<&str>, since: Timestamp) -> Result<()> {
        let is_old = |record: &Record| {
            record.last_updated_time.parse::<Timestamp>().is_ok_and(|time| time < since)
        };
        let gone: Vec<String> = {
            let records = self.inner.records.lock();
            let gone =
                records.iter().filter(|(id, record)| !here.contains(id.as_str()) && is_old(record));
            gone.map(|(id, _)| id.clone()).collect()
        };
        for id in gone {
            self.remove(&id).await?;
        }
        Ok(())
    }

    /// Forgets an image that is no longer here.
    pub(super) async fn remove(&self, image_id: &str) -> Result<()> {
        let _only_writer = self.inner.writing.lock().await;
        if self.inner.records.lock().remove(image_id).is_none() {
            return Ok(());
        }
        let path = self.path(image_id);
        let operation = format!("remove {}", path.display());
        write_blocking(operation, move || match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await
    }

    /// Changes a record, which need not exist yet, and writes it if it is then another.
    async fn change(&self, image_id: &str, change: impl FnOnce(&mut Record)) -> Result<()> {
        let _only_writer = self.inner.writing.lock().await;
        let bytes = {
            let mut records = self.inner.records.lock();
            let known = records.get(image_id);
            let mut record = known.cloned().unwrap_or_else(|| Record {
                kind: KIND.to_owned(),
                api_version: API_VERSION.to_owned(),
                image_ref: image_id.to_owned(),
                ..Record::default()
            });
            change(&mut record);
            if known == Some(&record) {
                return Ok(());
            }
            record.last_updated_time = clock::now().to_string();
            let bytes = serde_json::to_vec(&record).expect("a record can be written as JSON");
            records.insert(image_id.to_owned(), record);
            bytes
        };
        let path = self.path(image_id);
        let operation = format!("write {}", path.display());
        let directory = self.inner.directory.clone();
        write_blocking(operation, move || {
            use std::io::Write;
            // With mode 0600: the hashes are of passwords.
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            file.write_all(&bytes)?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|error| error.error)?;
            Ok(())
        })
        .await
    }

    fn path(&self, image_id: &str) -> PathBuf {
        self.inner.directory.join(sha256_digest(image_id.as_bytes()).replace(':', "-"))
    }
}

async fn write_blocking(
    operation: String,
    work: impl FnOnce() -> std::io::Result<()> + Send + 'static,
) -> Result<()> {
    let done = tokio::task::spawn_blocking(work).await.expect("writing a file does not panic");
    done.map_err(|source| ImageError::Io { operation, source })
}

/// `registry/repository`.
fn repository(reference: &Reference) -> String {
    format!("{}/{}", reference.registry(), reference.repository())
}

/// Identifies what a Secret holds for a registry.
fn credential_hash(credential: &RegistryCredential) -> String {
    let RegistryCredential { username, password, token, .. } = credential;
    let parts = serde_json::json!([username, password, token]);
    sha256_digest(parts.to_string().as_bytes())["sha256:".len()..].to_owned()
}

#[cfg(test)]
mod tests;
