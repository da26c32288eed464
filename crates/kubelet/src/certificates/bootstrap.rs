//! The first certificate of a node that has only been given a bootstrap kubeconfig.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use client::{Client, Config};
use runtime::errors::cause_chain;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::request::{RequestError, Wanted, obtain};
use super::{CLIENT, client_pair, store, validity};
use crate::config::Flags;

/// The key of a request that is not answered yet: after a restart the same request is waited for.
const PENDING_KEY: &str = "kubelet-client.key.tmp";
/// Pause after a failure.
const PAUSE: Duration = Duration::from_secs(2);

/// Makes sure that there is a kubeconfig with a valid certificate, asking for one with the bootstrap
/// kubeconfig if there is none.
///
/// # Errors
/// When a file cannot be read or written, or `shutdown` comes first.
pub async fn ensure(flags: &Flags, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let Some(bootstrap) = &flags.bootstrap_kubeconfig else {
        return Ok(());
    };
    let now = clock::now();
    let current = client_pair(flags).as_ref().and_then(validity);
    if current.is_some_and(|(_, until)| now < until) {
        return Ok(());
    }
    let config = Config::from_file(bootstrap, None).context("read --bootstrap-kubeconfig")?;
    let client = Client::new(&config)?;
    let wanted = Wanted { node: flags.node_name.clone(), serving: None };
    loop {
        let key = pending_key(&flags.certificates())?;
        let digest = Sha256::digest(key.public_key_pem());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = format!("node-csr-{digest}");
        let obtained = tokio::select! {
            obtained = obtain(&client, &wanted, &key, &name) => obtained,
            () = shutdown.cancelled() => anyhow::bail!("stopped before there was a certificate"),
        };
        let pending = flags.certificates().join(PENDING_KEY);
        match obtained {
            Ok(pair) => {
                store(flags, CLIENT).replace(&pair, clock::now())?;
                write_kubeconfig(flags, &config)?;
                super::store::remove(&pending)?;
                return Ok(());
            }
            Err(error) => {
                tracing::warn!(error = cause_chain(&error), "there is no certificate yet");
                // These answers are final; the next request needs a key of its own.
                let is_final = matches!(
                    error,
                    RequestError::Denied(_) | RequestError::Failed(_) | RequestError::Foreign(_)
                );
                if is_final {
                    super::store::remove(&pending)?;
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = shutdown.cancelled() => anyhow::bail!("stopped before there was a certificate"),
        }
    }
}

fn pending_key(directory: &Path) -> anyhow::Result<rcgen::KeyPair> {
    let path = directory.join(PENDING_KEY);
    if let Ok(pem) = std::fs::read_to_string(&path)
        && let Ok(key) = rcgen::KeyPair::from_pem(&pem)
    {
        return Ok(key);
    }
    std::fs::create_dir_all(directory)?;
    let key = rcgen::KeyPair::generate()?;
    super::store::write(&path, key.serialize_pem().as_bytes())?;
    Ok(key)
}

/// A kubeconfig that refers to the current certificate, whichever it is.
fn write_kubeconfig(flags: &Flags, config: &Config) -> anyhow::Result<()> {
    let authority = config.dial.ca_pem.as_deref().map(|pem| BASE64.encode(pem));
    let current = store(flags, CLIENT).current_path();
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "default-context",
        "clusters": [{"name": "default-cluster", "cluster": {
            "server": config.dial.url, "certificate-authority-data": authority,
            "tls-server-name": config.dial.server_name}}],
        "users": [{"name": "default-auth",
            "user": {"client-certificate": current, "client-key": current}}],
        "contexts": [{"name": "default-context", "context": {
            "cluster": "default-cluster", "user": "default-auth", "namespace": "default"}}],
    });
    let mut temporary = flags.kubeconfig.clone().into_os_string();
    temporary.push(".tmp");
    super::store::write(Path::new(&temporary), kubeconfig.to_string().as_bytes())?;
    std::fs::rename(&temporary, &flags.kubeconfig).context("write --kubeconfig")
}
