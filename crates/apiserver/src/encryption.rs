//! Encryption at rest: what `--encryption-provider-config` says about how values are stored
//! (`kubernetes.io/docs/tasks/administer-cluster/encrypt-data`).
//!
//! The store asks [`Encryption`] in both directions, about every key that it covers. A row of the
//! configuration names resources and a chain of providers: the first one writes, all read. What is
//! stored begins with the provider's prefix (`k8s:enc:aesgcm:v1:NAME:`), as upstream has it, and is
//! bound to its key where the cipher can authenticate more than the value.

mod chain;
mod cipher;
pub mod configuration;
mod envelope;
mod kms;
mod metrics;
mod selection;

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use store::{Opened, Transformer, Unreadable};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::chain::{Chain, Closed};
use self::kms::Kms;
pub use self::metrics::EncryptionMetrics;
use self::selection::Selection;
use crate::configuration::{Unusable, follow, read};

/// What upstream's reader of plain values says about others.
pub const ENCRYPTED: &str = "identity transformer tried to read encrypted data";
/// The beginning of everything that is stored encrypted.
pub const PREFIX: &[u8] = b"k8s:enc:";

/// One configuration, ready for use.
#[derive(Default)]
struct Table {
    selection: Selection,
    plugins: Vec<Arc<Kms>>,
}

/// How values are stored now.
pub struct Encryption {
    table: ArcSwap<Table>,
    /// Rises when values may have become readable.
    changes: watch::Sender<u64>,
    reloads: bool,
    metrics: EncryptionMetrics,
}

impl Encryption {
    /// Reads the configuration, and if `reloads`, follows its file until `shutdown`.
    ///
    /// # Errors
    /// What is wrong with it, in upstream's words.
    pub async fn start(
        path: PathBuf,
        reloads: bool,
        metrics: EncryptionMetrics,
        shutdown: &CancellationToken,
    ) -> Result<Arc<Self>, Unusable> {
        let text = read(&path).map_err(|error| {
            format!(
                "error while parsing file: error while loading file: error reading encryption \
                 provider configuration file {path:?}: {error}"
            )
        })?;
        let own = Arc::new(Self {
            table: ArcSwap::default(),
            changes: watch::Sender::new(0),
            reloads,
            metrics,
        });
        let table = own.table(&path, &text).await?;
        own.table.store(Arc::new(table));
        own.metrics.configured(&text);
        if reloads {
            let (itself, shutdown) = (own.clone(), shutdown.clone());
            let loaded = text.clone();
            tokio::spawn(follow(path.clone(), loaded, shutdown, async move |text| {
                itself.reload(&path, text).await;
            }));
        }
        Ok(own)
    }

    async fn table(&self, path: &std::path::Path, text: &str) -> Result<Table, Unusable> {
        let parsed = configuration::parse(path, text, self.reloads)
            .map_err(|error| format!("error while parsing file: {error}"))?;
        let built = chain::build(&parsed, &self.changes, &self.metrics).await;
        let (selection, plugins) =
            built.map_err(|error| format!("error while building transformers: {error}"))?;
        Ok(Table { selection, plugins })
    }

    /// Uses changed contents, if they can be used and all their plugins answer.
    async fn reload(&self, path: &std::path::Path, text: std::io::Result<String>) {
        let table = async {
            let text = text.map_err(|error| Unusable(error.to_string()))?;
            let table = self.table(path, &text).await?;
            for plugin in &table.plugins {
                plugin.check().await.map_err(Unusable)?;
            }
            Ok::<_, Unusable>((table, text))
        };
        match table.await {
            Ok((table, text)) => {
                self.table.store(Arc::new(table));
                self.changes.send_modify(|changes| *changes += 1);
                self.metrics.configured(&text);
                self.metrics.reloaded(true);
                tracing::info!(path = %path.display(), "the configuration of encryption is used");
            }
            Err(error) => {
                self.metrics.reloaded(false);
                tracing::error!(%error, path = %path.display(), "the former configuration of encryption is kept");
            }
        }
    }

    /// Whether there is a check of plugins: with plugins, or as soon as there may be some.
    pub fn is_checked(&self) -> bool {
        self.reloads || !self.table.load().plugins.is_empty()
    }

    /// Whether all plugins answer and hold a key.
    pub async fn is_healthy(&self) -> bool {
        let table = self.table.load_full();
        for plugin in &table.plugins {
            if let Err(error) = plugin.check().await {
                tracing::warn!(plugin = plugin.name(), error, "a plugin with keys is not healthy");
                return false;
            }
        }
        true
    }

    fn chain(&self, key: &[u8]) -> Option<Arc<Chain>> {
        self.table.load().selection.chain(key).cloned()
    }
}

impl Transformer for Encryption {
    fn covers(&self, key: &[u8]) -> bool {
        self.table.load().selection.chain(key).is_some()
    }

    fn seal(&self, key: &[u8], value: &[u8]) -> Result<Bytes, Unreadable> {
        match self.chain(key) {
            Some(chain) => chain.seal(key, value),
            None => Ok(Bytes::copy_from_slice(value)),
        }
    }

    fn open<'a>(
        &'a self,
        key: &'a [u8],
        stored: &'a Bytes,
    ) -> BoxFuture<'a, Result<Opened, Unreadable>> {
        let Some(chain) = self.chain(key) else {
            return std::future::ready(Ok(Opened { value: stored.clone(), stale: false })).boxed();
        };
        async move {
            loop {
                match chain.open(key, stored) {
                    Ok(opened) => return Ok(opened),
                    Err(Closed::For(reason)) => return Err(reason),
                    Err(Closed::Until(plugin, wanted)) => plugin.fetch(&wanted).await?,
                }
            }
        }
        .boxed()
    }

    fn open_now(&self, key: &[u8], stored: &Bytes) -> Result<Opened, Unreadable> {
        let Some(chain) = self.chain(key) else {
            return Ok(Opened { value: stored.clone(), stale: false });
        };
        chain.open(key, stored).map_err(|closed| match closed {
            Closed::For(reason) => reason,
            Closed::Until(plugin, wanted) => plugin.fetch_later(wanted),
        })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
