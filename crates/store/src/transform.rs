//! Values that are stored in another form: the one place where they are converted, in both
//! directions. Keys that are not covered cost one question.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::{Entry, Error, Result, Store};

/// Why a stored value cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub Arc<str>);

impl From<String> for Unreadable {
    fn from(reason: String) -> Self {
        Self(reason.into())
    }
}

impl From<&str> for Unreadable {
    fn from(reason: &str) -> Self {
        Self(reason.into())
    }
}

/// A value as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    pub value: Bytes,
    /// Whether it would be stored differently if it were written now.
    pub stale: bool,
}

/// Converts between what is written and what is stored.
pub trait Transformer: Send + Sync + 'static {
    /// Whether values of this key are converted.
    fn covers(&self, key: &[u8]) -> bool;

    /// What is stored for a value.
    ///
    /// # Errors
    /// When it cannot be converted; nothing is written then.
    fn seal(&self, key: &[u8], value: &[u8]) -> Result<Bytes, Unreadable>;

    /// The value that was written. May ask others for it.
    fn open<'a>(
        &'a self,
        key: &'a [u8],
        stored: &'a Bytes,
    ) -> BoxFuture<'a, Result<Opened, Unreadable>>;

    /// The same without waiting for anybody: what others have to be asked for is unreadable, and
    /// asked for in the background.
    fn open_now(&self, key: &[u8], stored: &Bytes) -> Result<Opened, Unreadable>;

    /// Changes when values may have become readable.
    fn changes(&self) -> watch::Receiver<u64>;
}

impl Store {
    /// The same store, with values that are converted on their way.
    #[must_use]
    pub fn transformed(self, transformer: Arc<dyn Transformer>) -> Store {
        Store { transformer: Some(transformer), ..self }
    }

    /// Whether values of this key are stored in another form.
    pub fn transforms(&self, key: &[u8]) -> bool {
        self.covering(key).is_some()
    }

    /// Changes when values may have become readable; `None`: they are stored as they are.
    pub fn readable(&self) -> Option<watch::Receiver<u64>> {
        self.transformer.as_ref().map(|transformer| transformer.changes())
    }

    fn covering(&self, key: &[u8]) -> Option<&dyn Transformer> {
        self.transformer.as_deref().filter(|transformer| transformer.covers(key))
    }

    pub(crate) fn seal(&self, key: &[u8], value: Bytes) -> Result<Bytes> {
        let Some(transformer) = self.covering(key) else { return Ok(value) };
        transformer.seal(key, &value).map_err(|reason| Error::Sealing {
            key: String::from_utf8_lossy(key).into_owned(),
            reason,
        })
    }

    pub(crate) async fn open(&self, entry: Entry) -> Entry {
        match self.covering(&entry.key) {
            Some(transformer) => {
                let opened = transformer.open(&entry.key, &entry.value).await;
                entry.opened(opened)
            }
            None => entry,
        }
    }

    pub(crate) fn open_now(&self, entry: Entry) -> Entry {
        match self.covering(&entry.key) {
            Some(transformer) => {
                let opened = transformer.open_now(&entry.key, &entry.value);
                entry.opened(opened)
            }
            None => entry,
        }
    }
}

impl Entry {
    fn opened(self, opened: Result<Opened, Unreadable>) -> Entry {
        match opened {
            Ok(Opened { value, stale }) => Entry { value, stale, ..self },
            Err(reason) => Entry { value: Bytes::new(), unreadable: Some(reason), ..self },
        }
    }
}
