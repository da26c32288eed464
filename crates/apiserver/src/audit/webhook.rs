//! The webhook: batches of events are posted to the server that a kubeconfig file names
//! (`k8s.io/apiserver/plugin/pkg/audit/webhook`).

use std::path::Path;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use crate::authn::{Client, Source};
use crate::configuration::Unusable;

/// How long one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Attempts, and how much longer each waits than the one before (upstream's).
const ATTEMPTS: u32 = 5;
const FACTOR: f64 = 1.5;
const JITTER: f64 = 0.2;

/// A webhook.
pub struct Webhook {
    client: Client,
    first_wait: Duration,
}

impl Webhook {
    /// # Errors
    /// When the file does not say whom to call, or how.
    pub fn load(path: &Path, first_wait: Duration) -> Result<Self, Unusable> {
        Ok(Self { client: Client::new(Source::load_any(path)?), first_wait })
    }

    /// Posts events, again and again if need be, whatever the failure.
    ///
    /// # Errors
    /// Why the last attempt failed.
    pub async fn send(&self, events: &[Bytes]) -> Result<(), String> {
        let body = list(events);
        let mut wait = self.first_wait;
        for attempt in 1.. {
            match self.client.post(body.clone(), TIMEOUT).await {
                Ok(_) => break,
                Err(failed) if attempt == ATTEMPTS => return Err(failed.why),
                Err(failed) => tracing::debug!(why = failed.why, "audit events are sent again"),
            }
            let jitter = 1.0 + JITTER * rand::random::<f64>();
            tokio::time::sleep(wait.mul_f64(jitter)).await;
            wait = wait.mul_f64(FACTOR);
        }
        Ok(())
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
