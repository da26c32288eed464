//! The webhook: batches of events are posted to the server that a kubeconfig file names
//! (`k8s.io/apiserver/plugin/pkg/audit/webhook`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::Value;

/// How long one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Attempts, and how much longer each waits than the one before (upstream's).
const ATTEMPTS: u32 = 5;
const FACTOR: f64 = 1.5;
const JITTER: f64 = 0.2;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    current_context: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: Credentials,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: ContextEntry,
}

#[derive(Deserialize)]
struct ContextEntry {
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Credentials {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    username: Option<String>,
    password: Option<String>,
}

/// A webhook.
pub struct Webhook {
    client: reqwest::Client,
    url: String,
    credentials: Credentials,
    first_wait: Duration,
}

impl Webhook {
    /// # Errors
    /// When the file does not say whom to call, or how.
    pub fn load(path: &Path, first_wait: Duration) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let config: Value = serde_saphyr::from_str(&text)?;
        let Kubeconfig { clusters, users, contexts, current_context } =
            serde_json::from_value(config)?;
        let current = contexts.into_iter().find(|one| one.name == current_context);
        let current =
            current.context("invalid configuration: no configuration has been provided")?;
        let cluster = clusters.into_iter().find(|one| one.name == current.context.cluster);
        let cluster = cluster.context("invalid configuration: the cluster is not there")?.cluster;
        let user = users.into_iter().find(|one| one.name == current.context.user);
        let user = user.map(|named| named.user).unwrap_or_default();
        let folder = path.parent().unwrap_or(Path::new(""));
        let read = |file: &Option<PathBuf>, data: &Option<String>| {
            Ok::<_, anyhow::Error>(match (data, file) {
                (Some(data), _) => Some(BASE64.decode(data)?),
                (None, Some(file)) => {
                    let file = folder.join(file);
                    let bytes = std::fs::read(&file);
                    Some(bytes.with_context(|| format!("cannot read {}", file.display()))?)
                }
                (None, None) => None,
            })
        };
        let mut client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent("skiff-apiserver");
        if cluster.insecure_skip_tls_verify {
            client = client.danger_accept_invalid_certs(true);
        }
        let authority = &cluster.certificate_authority;
        if let Some(pem) = read(authority, &cluster.certificate_authority_data)? {
            client = client.tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem)?);
        }
        let certificate = read(&user.client_certificate, &user.client_certificate_data)?;
        let key = read(&user.client_key, &user.client_key_data)?;
        if let (Some(certificate), Some(key)) = (certificate, key) {
            let pem = [key, b"\n".to_vec(), certificate].concat();
            client = client.identity(reqwest::Identity::from_pem(&pem)?);
        }
        let mut credentials = user;
        credentials.token_file = credentials.token_file.map(|file| folder.join(file));
        let client = client.build()?;
        Ok(Self { client, url: cluster.server, credentials, first_wait })
    }

    /// Posts events, again and again if need be.
    ///
    /// # Errors
    /// Why the last attempt failed.
    pub async fn send(&self, events: &[Bytes]) -> Result<(), String> {
        let body = list(events);
        let mut wait = self.first_wait;
        for attempt in 1.. {
            match self.post(body.clone()).await {
                Ok(()) => break,
                Err(why) if attempt == ATTEMPTS => return Err(why),
                Err(why) => tracing::debug!(why, "audit events are sent again"),
            }
            let jitter = 1.0 + JITTER * rand::random::<f64>();
            tokio::time::sleep(wait.mul_f64(jitter)).await;
            wait = wait.mul_f64(FACTOR);
        }
        Ok(())
    }

    async fn post(&self, body: Bytes) -> Result<(), String> {
        let mut request =
            self.client.post(&self.url).header("content-type", "application/json").body(body);
        let Credentials { token, token_file, username, password, .. } = &self.credentials;
        let read = token_file.as_ref().map(tokio::fs::read_to_string);
        let read = match read {
            Some(reading) => Some(reading.await.map_err(|error| error.to_string())?),
            None => None,
        };
        if let Some(token) = read.as_deref().map(str::trim).or(token.as_deref()) {
            request = request.bearer_auth(token);
        } else if let Some(username) = username {
            request = request.basic_auth(username, password.as_ref());
        }
        let answer = request.send().await.map_err(|error| {
            let cause = runtime::errors::root_cause(&error);
            format!("Post {:?}: {cause}", self.url)
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        Err(format!("the server responded with the status code {}", status.as_u16()))
    }
}

/// An `EventList`.
fn list(events: &[Bytes]) -> Bytes {
    let length: usize = events.iter().map(Bytes::len).sum();
    let mut body = BytesMut::with_capacity(length + 128);
    body.put_slice(
        b"{\"kind\":\"EventList\",\"apiVersion\":\"audit.k8s.io/v1\",\"metadata\":{},\"items\":[",
    );
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            body.put_u8(b',');
        }
        body.put_slice(event.trim_ascii_end());
    }
    body.put_slice(b"]}");
    body.freeze()
}
