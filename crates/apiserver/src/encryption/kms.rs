//! A plugin that holds keys (KMS v2): seeds are encrypted and decrypted by it, values here.
//!
//! One seed is in use for writing, as long as the plugin names the same key; it is asked every
//! minute. Reads need the seeds of what is stored, which the plugin decrypts once each. A plugin that
//! does not answer holds up only who reads or writes what it holds the key of: calls are bounded in
//! time, size and number, and after a failure the next ones fail at once for a moment.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rpc::kms_v2 as pb;
use rpc::kms_v2::key_management_service_client::KeyManagementServiceClient;
use store::{Opened, Unreadable};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint, Uri};

use super::chain::Closed;
use super::configuration::KmsConfiguration;
use super::envelope::{DataKey, DataKeyId, Envelope, SEED, SEEDED, check_key_id};
use super::metrics::EncryptionMetrics;
use crate::configuration::Unusable;

/// How long after its last good answer a plugin's key is used for writing.
const WRITE_LIFE: Duration = Duration::from_secs(180);
/// How often a plugin is asked, while it answers and otherwise.
const HEALTHY_INTERVAL: Duration = Duration::from_secs(60);
const UNHEALTHY_INTERVAL: Duration = Duration::from_secs(10);
/// How long an answer about its health is used again.
const HEALTHY_LIFE: Duration = Duration::from_secs(20);
const UNHEALTHY_LIFE: Duration = Duration::from_secs(3);
/// How long after a failure the next calls fail at once.
const FAILURE_LIFE: Duration = Duration::from_secs(1);
/// Decryptions that a plugin is asked for at once.
const CALLS: usize = 8;
/// Keys that are asked for in the background at once; the others are asked for later.
const BACKGROUND: usize = 64;
/// Keys that are kept, and for how long without use.
const KEYS: u64 = 10_000;
const KEY_LIFE: Duration = Duration::from_secs(24 * 3_600);
/// The largest answer of a plugin.
const ANSWER_BYTES: usize = 64 << 10;

/// The key that is used for writing.
struct Writing {
    key: Arc<DataKey>,
    id: DataKeyId,
    until: Instant,
}

struct Health {
    at: Instant,
    result: Result<(), String>,
}

/// A plugin.
pub struct Kms {
    name: String,
    timeout: Duration,
    client: KeyManagementServiceClient<Channel>,
    writing: ArcSwapOption<Writing>,
    keys: moka::sync::Cache<DataKeyId, Arc<DataKey>>,
    /// What the plugin has just refused.
    refused: moka::sync::Cache<DataKeyId, Unreadable>,
    /// Since when it does not answer, and why.
    silent: Mutex<Option<(Instant, Unreadable)>>,
    calls: Semaphore,
    background: Mutex<HashSet<DataKeyId>>,
    health: tokio::sync::Mutex<Option<Health>>,
    /// The version of the API that it first answered with.
    version: Mutex<String>,
    changes: watch::Sender<u64>,
    metrics: EncryptionMetrics,
    itself: Weak<Kms>,
}

/// gRPC's errors as Go prints them.
fn status_text(status: &tonic::Status) -> String {
    format!("rpc error: code = {:?} desc = {}", status.code(), status.message())
}

impl Kms {
    /// A plugin, to which it connects at the first call.
    ///
    /// # Errors
    /// When the configuration names no socket.
    pub fn new(
        configuration: &KmsConfiguration,
        changes: watch::Sender<u64>,
        metrics: EncryptionMetrics,
    ) -> Result<Arc<Self>, Unusable> {
        let socket = configuration.socket().to_owned();
        if socket.is_empty() {
            return Err(Unusable(format!(
                "could not configure KMSv2-Plugin's probe {:?}, error: remote address is empty",
                configuration.name
            )));
        }
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { connect(&socket).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://kms").connect_timeout(configuration.timeout());
        let channel = endpoint.connect_with_connector_lazy(connector);
        let client =
            KeyManagementServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES);
        Ok(Arc::new_cyclic(|itself| Self {
            name: configuration.name.clone(),
            timeout: configuration.timeout(),
            client,
            writing: ArcSwapOption::empty(),
            keys: moka::sync::Cache::builder().max_capacity(KEYS).time_to_idle(KEY_LIFE).build(),
            refused: moka::sync::Cache::builder()
                .max_capacity(KEYS)
                .time_to_live(FAILURE_LIFE)
                .build(),
            silent: Mutex::default(),
            calls: Semaphore::new(CALLS),
            background: Mutex::default(),
            health: tokio::sync::Mutex::default(),
            version: Mutex::default(),
            changes,
            metrics,
            itself: itself.clone(),
        }))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Asks for a key once, and keeps it current for as long as the plugin is configured.
    pub async fn prime(&self) {
        if let Err(error) = self.check().await {
            tracing::warn!(error, plugin = self.name, "a plugin with keys is not healthy");
        }
        let itself = self.itself.clone();
        tokio::spawn(async move {
            loop {
                let Some(plugin) = itself.upgrade() else { return };
                let healthy =
                    matches!(&*plugin.health.lock().await, Some(Health { result: Ok(()), .. }));
                drop(plugin);
                let pause = if healthy { HEALTHY_INTERVAL } else { UNHEALTHY_INTERVAL };
                tokio::time::sleep(pause).await;
                let Some(plugin) = itself.upgrade() else { return };
                if let Err(error) = plugin.check().await {
                    tracing::warn!(
                        error,
                        plugin = plugin.name,
                        "a plugin with keys is not healthy"
                    );
                }
            }
        });
    }

    /// Whether the plugin answers, and a key for writing is there. An answer is used again for a while.
    ///
    /// # Errors
    /// In upstream's words.
    pub async fn check(&self) -> Result<(), String> {
        let mut health = self.health.lock().await;
        if let Some(Health { at, result }) = &*health {
            let life = if result.is_ok() { HEALTHY_LIFE } else { UNHEALTHY_LIFE };
            if at.elapsed() < life {
                return result.clone();
            }
        }
        let result = self.ask().await;
        *health = Some(Health { at: clock::instant(), result: result.clone() });
        result
    }

    async fn ask(&self) -> Result<(), String> {
        // Counted from before the call, so that no key is used for longer.
        let until = clock::instant() + WRITE_LIFE;
        let mut client = self.client.clone();
        let status = self.bounded(client.status(pb::StatusRequest {})).await.map_err(|error| {
            format!(
                "failed to perform status section of the healthz check for KMS Provider {}, error: {error}",
                self.name
            )
        })?;
        let mut problems = Vec::new();
        if status.healthz != "ok" {
            problems.push(format!("got unexpected healthz status: {}", status.healthz));
        }
        problems.extend(self.version_problem(&status.version));
        match check_key_id(&status.key_id) {
            Err(problem) => problems.push(format!("got invalid KMSv2 KeyID hash \"\": {problem}")),
            Ok(()) => problems.extend(self.rotate(&status.key_id, until).await.err()),
        }
        let problems = match &problems[..] {
            [] => return Ok(()),
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        Err(format!("kmsv2 Provider {} is not healthy, error: {problems}", self.name))
    }

    fn version_problem(&self, version: &str) -> Option<String> {
        if !matches!(version, "v2" | "v2beta1") {
            return Some(format!("expected KMSv2 API version v2, got {version}"));
        }
        let mut first = self.version.lock();
        if first.is_empty() {
            version.clone_into(&mut first);
        }
        (*first != version).then(|| {
            format!("KMSv2 API version should not change after the initial status response version {first}, got {version}")
        })
    }

    /// Uses another seed for writing when the plugin has another key; keeps the one in use for longer
    /// otherwise.
    async fn rotate(&self, key_id: &str, until: Instant) -> Result<(), String> {
        let current = self.writing.load_full();
        if let Some(current) = current.filter(|current| current.id.key_id == key_id) {
            let (key, id) = (current.key.clone(), current.id.clone());
            self.writing.store(Some(Arc::new(Writing { key, id, until })));
            return Ok(());
        }
        let seed: [u8; SEED] = rand::random();
        let request =
            pb::EncryptRequest { plaintext: seed.to_vec(), uid: uuid::Uuid::new_v4().to_string() };
        let mut client = self.client.clone();
        let failed = |why: String| format!("failed to rotate DEK, error: {why}");
        let answer = self
            .bounded(client.encrypt(request))
            .await
            .map_err(|error| failed(format!("failed to encrypt DEK, error: {error}")))?;
        let id = DataKeyId {
            key_id: answer.key_id,
            source: answer.ciphertext,
            annotations: answer.annotations.into_iter().collect(),
            source_type: SEEDED,
        };
        id.check().map_err(|problem| failed(problem.to_string()))?;
        if id.key_id != key_id {
            return Err(failed("the key of the status is not the one that encrypts".to_owned()));
        }
        let key = DataKey::new(SEEDED, &seed).map_err(|problem| failed(problem.to_string()))?;
        let key = Arc::new(key);
        self.keys.insert(id.clone(), key.clone());
        self.writing.store(Some(Arc::new(Writing { key, id, until })));
        self.metrics.key_used("to_storage", &self.name, key_id);
        tracing::info!(plugin = self.name, "a new seed is used for encryption");
        Ok(())
    }

    /// Encrypts a value by the seed in use.
    ///
    /// # Errors
    /// When the plugin has not answered for too long.
    pub fn seal(&self, key: &[u8], value: &[u8]) -> Result<Envelope, Unreadable> {
        let writing = self.writing.load_full().ok_or("got unexpected nil transformer")?;
        if clock::instant() > writing.until {
            return Err("the key of the plugin has expired: it does not answer".into());
        }
        let data = writing.key.seal(key, value)?;
        Ok(Envelope { id: writing.id.clone(), data })
    }

    /// Decrypts a value, if its key is known.
    pub fn open(&self, key: &[u8], envelope: Envelope) -> Result<Opened, Closed> {
        let Some(own) = self.keys.get(&envelope.id) else {
            let itself = self.itself.upgrade().ok_or("the plugin is not configured any more")?;
            return Err(Closed::Until(itself, envelope.id));
        };
        let value = own.open(key, &envelope.data)?;
        let id = &envelope.id;
        let writing = self.writing.load();
        let stale = writing.as_ref().is_none_or(|writing| {
            writing.id.key_id != id.key_id || writing.id.source_type != id.source_type
        });
        Ok(Opened { value: Bytes::from(value), stale })
    }

    /// Asks the plugin for a key, unless it is known.
    ///
    /// # Errors
    /// When the plugin refuses or does not answer.
    pub async fn fetch(&self, id: &DataKeyId) -> Result<(), Unreadable> {
        let waited = tokio::time::timeout(self.timeout, self.calls.acquire()).await;
        let Ok(Ok(_call)) = waited else {
            return Err(failed_to_decrypt("too many keys are asked for"));
        };
        if self.keys.contains_key(id) {
            return Ok(());
        }
        if let Some(reason) = self.refused.get(id) {
            return Err(reason);
        }
        if let Some((since, reason)) = &*self.silent.lock()
            && since.elapsed() < FAILURE_LIFE
        {
            return Err(reason.clone());
        }
        let request = pb::DecryptRequest {
            ciphertext: id.source.clone(),
            uid: uuid::Uuid::new_v4().to_string(),
            key_id: id.key_id.clone(),
            annotations: id.annotations.clone().into_iter().collect(),
        };
        let mut client = self.client.clone();
        let answer = match self.bounded(client.decrypt(request)).await {
            Ok(answer) => answer,
            Err(failure) => {
                let reason = failed_to_decrypt(&failure.to_string());
                match failure {
                    Failure::Refused(_) => self.refused.insert(id.clone(), reason.clone()),
                    Failure::Silent(_) => {
                        *self.silent.lock() = Some((clock::instant(), reason.clone()));
                    }
                }
                return Err(reason);
            }
        };
        let key = DataKey::new(id.source_type, &answer.plaintext)?;
        self.keys.insert(id.clone(), Arc::new(key));
        self.metrics.key_used("from_storage", &self.name, &id.key_id);
        self.changes.send_modify(|changes| *changes += 1);
        Ok(())
    }

    /// Asks the plugin for a key in the background. What is to be said about the value until then.
    pub fn fetch_later(&self, id: DataKeyId) -> Unreadable {
        let Some(itself) = self.itself.upgrade() else {
            return "the plugin is not configured any more".into();
        };
        let mut background = self.background.lock();
        if background.len() < BACKGROUND && background.insert(id.clone()) {
            tokio::spawn(async move {
                if let Err(error) = itself.fetch(&id).await {
                    tracing::warn!(%error, plugin = itself.name, "a key is missing");
                }
                itself.background.lock().remove(&id);
            });
        }
        failed_to_decrypt("the plugin is being asked")
    }

    async fn bounded<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, Failure> {
        use tonic::Code::{Cancelled, DeadlineExceeded, Unavailable, Unknown};
        match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(match status.code() {
                Unavailable | DeadlineExceeded | Cancelled | Unknown => {
                    Failure::Silent(status_text(&status))
                }
                _ => Failure::Refused(status_text(&status)),
            }),
            Err(_) => {
                let text = "rpc error: code = DeadlineExceeded desc = context deadline exceeded";
                Err(Failure::Silent(text.to_owned()))
            }
        }
    }
}

/// Why a plugin has not done what it was asked for.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// For this request.
    #[error("{0}")]
    Refused(String),
    /// It would not have answered another one either.
    #[error("{0}")]
    Silent(String),
}

fn failed_to_decrypt(why: &str) -> Unreadable {
    format!("failed to decrypt DEK, error: {why}").into()
}

/// Connects to a socket; `@` is the beginning of an abstract one.
async fn connect(socket: &str) -> std::io::Result<tokio::net::UnixStream> {
    use std::os::linux::net::SocketAddrExt;
    let name = socket.strip_prefix("/@").or_else(|| socket.strip_prefix('@'));
    let Some(name) = name else {
        return tokio::net::UnixStream::connect(socket).await;
    };
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    let stream = std::os::unix::net::UnixStream::connect_addr(&address)?;
    stream.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(stream)
}
