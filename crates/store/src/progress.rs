//! Progress requests of a watch.
//!
//! etcd responds to a progress request in the watch's own stream: every change up to the revision
//! in the response has been sent. Before 3.4.31 and 3.5.13 this does not always hold: the response
//! may overtake changes that are still queued (<https://github.com/etcd-io/etcd/issues/15220>), and
//! a cache that relied on it would miss them. With such a server, progress is requested by writing
//! a marker, a key of ours under the watched prefix: once its event arrives, so has everything
//! before it. Watches and lists hide the key.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use etcd_client::proto::{PbWatchRequest, PbWatchRequestUnion};
use tokio::sync::mpsc;

use crate::{Error, Result, Revision, Store, watch::closed};

/// The suffix of a marker's key. No valid UTF-8 key ends in it.
const MARKER_SUFFIX: &[u8] = b"\xffprogress";

/// The first patch releases of 3.4 and 3.5 whose responses can be trusted, and the first minor
/// release of which all can.
const TRUSTED_3_4: u64 = 31;
const TRUSTED_3_5: u64 = 13;
const TRUSTED_LINE: (u64, u64) = (3, 6);

/// Requests progress from a running watch; the response is a [`crate::Batch`] without events in its
/// stream.
#[derive(Clone)]
pub struct ProgressRequester(Method);

#[derive(Clone)]
enum Method {
    Request(mpsc::Sender<PbWatchRequest>),
    Write { store: Store, marker: Arc<Marker> },
}

/// The marker of one watch.
#[derive(Debug)]
pub(crate) struct Marker {
    key: Bytes,
    /// Whether a marker has been written whose event has not arrived yet: it also serves requests
    /// made in the meantime.
    pending: AtomicBool,
}

impl ProgressRequester {
    pub(crate) fn new(
        store: &Store,
        requests: mpsc::Sender<PbWatchRequest>,
        marker: Option<Arc<Marker>>,
    ) -> Self {
        ProgressRequester(match marker {
            None => Method::Request(requests),
            Some(marker) => Method::Write { store: store.clone(), marker },
        })
    }

    /// Sends the request.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the watch has ended or the server is unreachable.
    pub async fn request(&self) -> Result<()> {
        match &self.0 {
            Method::Request(requests) => {
                let union = PbWatchRequestUnion::ProgressRequest(Default::default());
                let request = PbWatchRequest { request_union: Some(union) };
                requests.send(request).await.map_err(|_| closed())
            }
            Method::Write { store, marker } => {
                if marker.pending.swap(true, Ordering::SeqCst) {
                    return Ok(());
                }
                let written = store.kv().put(marker.key.clone(), Bytes::new(), None).await;
                written.map(drop).map_err(|error| {
                    marker.pending.store(false, Ordering::SeqCst);
                    Error::from_wire(error, Revision::NONE)
                })
            }
        }
    }
}

impl Marker {
    pub(crate) fn new(prefix: &[u8]) -> Arc<Marker> {
        let key = [prefix, MARKER_SUFFIX].concat().into();
        Arc::new(Marker { key, pending: AtomicBool::new(false) })
    }

    /// Called when the watch has delivered a marker, ours or another client's.
    pub(crate) fn arrived(&self) {
        self.pending.store(false, Ordering::SeqCst);
    }
}

/// Whether a key is a marker.
pub(crate) fn is_marker(key: &[u8]) -> bool {
    key.ends_with(MARKER_SUFFIX)
}

/// Whether progress responses of a server of this version can be trusted.
pub(crate) fn is_trusted(version: &str) -> bool {
    let mut numbers = version.split(['.', '-', '+']).map(|number| number.parse::<u64>().ok());
    let (Some(Some(major)), Some(Some(minor))) = (numbers.next(), numbers.next()) else {
        return false;
    };
    let patch = numbers.next().flatten().unwrap_or_default();
    match (major, minor) {
        (3, 4) => patch >= TRUSTED_3_4,
        (3, 5) => patch >= TRUSTED_3_5,
        line => line >= TRUSTED_LINE,
    }
}

#[cfg(test)]
mod tests {
    use super::is_trusted;

    #[test]
    fn old_servers_are_not_trusted() {
        for (version, trusted) in [
            ("3.3.27", false),
            ("3.4.23", false),
            ("3.4.31", true),
            ("3.5.12", false),
            ("3.5.13", true),
            ("3.5.21", true),
            ("3.6.0-rc.1", true),
            ("3.7.2", true),
            ("4.0.0", true),
            ("", false),
        ] {
            assert_eq!(is_trusted(version), trusted, "{version}");
        }
    }
}
