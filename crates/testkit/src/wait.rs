//! Waiting for the cluster to be as a test expects it, by watching, never by sleeping.

use anyhow::{anyhow, bail};
use api::Kind;
use client::Client;
use client::InformerOptions;
use client::mirror::{self, Mirror};
use futures::StreamExt;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

/// How long to wait for a state; generous, since test machines are slow and shared.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// Pause between attempts at something that cannot be watched.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// What is being waited for in this process.
static PENDING: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// What is being waited for now, for the report of a test that takes too long.
pub fn pending() -> Vec<String> {
    PENDING.lock().clone()
}

/// Keeps its description in [`pending`] until it is dropped.
struct Waiting(String);

impl Waiting {
    fn start(what: &str) -> Self {
        PENDING.lock().push(what.to_owned());
        Self(what.to_owned())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut pending = PENDING.lock();
        if let Some(index) = pending.iter().position(|what| *what == self.0) {
            pending.remove(index);
        }
    }
}

/// Which objects to wait for.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub namespace: String,
    pub labels: String,
    pub fields: String,
}

impl Selection {
    /// Objects of one namespace.
    pub fn namespace(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..Self::default() }
    }

    /// Only those with these labels.
    pub fn labels(mut self, labels: &str) -> Self {
        labels.clone_into(&mut self.labels);
        self
    }

    /// Only the one with this name.
    pub fn name(mut self, name: &str) -> Self {
        self.fields = format!("metadata.name={name}");
        self
    }
}

/// Waits until `holds` returns true for the selected objects, keyed by name; returns them.
///
/// # Errors
/// When that does not happen in time; the message lists the objects as they are.
pub async fn until<K>(
    client: &Client,
    selection: Selection,
    what: &str,
    mut holds: impl FnMut(&BTreeMap<String, K>) -> bool,
) -> anyhow::Result<BTreeMap<String, K>>
where
    K: Kind + Clone + 'static,
{
    let _waiting = Waiting::start(what);
    let options = InformerOptions {
        namespace: selection.namespace.clone(),
        label_selector: selection.labels.clone(),
        field_selector: selection.fields.clone(),
    };
    let mut objects = Mirror::<K, String>::default();
    let mut events = mirror::keyed(client, options, |object: K| (name(&object), object));
    let waiting = async {
        while let Some(event) = events.next().await {
            objects.take(event);
            if objects.is_synced() && holds(objects.objects()) {
                return Ok(());
            }
        }
        bail!("the watch has ended")
    };
    match tokio::time::timeout(TIMEOUT, waiting).await {
        Ok(Ok(())) => Ok(objects.objects().clone()),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            let state: Vec<String> = objects.objects().values().map(describe).collect();
            bail!(
                "timed out after {} s: {what}; the objects are:\n{}",
                TIMEOUT.as_secs(),
                state.join("\n")
            )
        }
    }
}

fn describe<K: Kind>(object: &K) -> String {
    let json: serde_json::Value = serde_json::from_slice(&object.encode()).unwrap_or_default();
    let name = json["metadata"]["name"].as_str().unwrap_or_default();
    format!("{name}: {}", json["status"])
}

/// Retries until an attempt succeeds: for what cannot be watched, such as a connection.
///
/// # Errors
/// The last attempt's error, when none succeeds in time.
pub async fn eventually<T, F>(what: &str, mut attempt: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let _waiting = Waiting::start(what);
    let mut last = anyhow!("never attempted");
    let trying = async {
        loop {
            match attempt().await {
                Ok(value) => return value,
                Err(error) => last = error,
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    };
    match tokio::time::timeout(TIMEOUT, trying).await {
        Ok(value) => Ok(value),
        Err(_) => Err(last.context(format!("timed out after {} s: {what}", TIMEOUT.as_secs()))),
    }
}

fn name<K: Kind>(object: &K) -> String {
    object.metadata().name.clone().unwrap_or_default()
}
