//! Asking a watch how far it has come.
//!
//! etcd answers a progress request in the watch's own stream: every change up to the revision that it names has been
//! sent. Before 3.4.31 and 3.5.13 that is not always true: the answer may overtake changes that wait to be sent
//! (<https://github.com/etcd-io/etcd/issues/15220>), and a cache that believed it would miss them. With such a server
//! the request is a marker instead: a write of a key of ours under the watched prefix. When its event comes, everything
//! before it has come. Neither watches nor lists show the key.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use etcd_client::proto::{PbWatchRequest, PbWatchRequestUnion};
use tokio::sync::mpsc;

use crate::{Error, Result, Revision, Store, watch::closed};

/// The end of the key of a marker. No text ends so, since the byte is none of UTF-8's.
const MARKER_SUFFIX: &[u8] = b"\xffprogress";

/// The first releases of their lines whose answers can be trusted, and the line from which on all can.
const TRUSTED_3_4: u64 = 31;
const TRUSTED_3_5: u64 = 13;
const TRUSTED_LINE: (u64, u64) = (3, 6);

/// Asks a running watch how far it has come; the answer is a [`crate::Batch`] without events in its stream.
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
    /// Whether one has been written whose event has not come yet: it answers whoever asks meanwhile.
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
    /// [`Error::Unavailable`] when the watch has ended or the server cannot be reached.
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

    /// The watch has delivered a marker, this one or another client's.
    pub(crate) fn arrived(&self) {
        self.pending.store(false, Ordering::SeqCst);
    }
}

/// Whether a key is a marker.
pub(crate) fn is_marker(key: &[u8]) -> bool {
    key.ends_with(MARKER_SUFFIX)
}

/// Whether a server of this version answers progress requests truthfully.
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
