//! Notifying a pod's worker. Reasons are bits, so nothing queues and nothing is lost.

use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::state::Eviction;

/// Why a worker should sync its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SyncReason {
    /// The pod was updated, deleted or evicted, or the pod network was opened.
    PodUpdated = 1,
    /// A container was started or has exited.
    ContainerChanged = 2,
    /// A ConfigMap or Secret that the pod refers to has changed.
    ReferencedObjectChanged = 4,
    /// containerd is back: what failed because it was away can be tried again.
    RuntimeReconnected = 8,
}

/// Wakes one pod's worker, and asks it to evict its pod.
#[derive(Debug, Default)]
pub struct WorkerHandle {
    reasons: AtomicU8,
    notify: Notify,
    eviction: Mutex<Option<Eviction>>,
}

/// The reasons since the worker's last sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncReasons(u8);

impl SyncReasons {
    pub fn has(self, reason: SyncReason) -> bool {
        self.0 & reason as u8 != 0
    }
}

impl WorkerHandle {
    pub fn notify(&self, reason: SyncReason) {
        self.reasons.fetch_or(reason as u8, Ordering::AcqRel);
        self.notify.notify_one();
    }

    /// Ends the pod as failed. The first eviction wins.
    pub fn evict(&self, eviction: Eviction) {
        self.eviction.lock().get_or_insert(eviction);
        self.notify(SyncReason::PodUpdated);
    }

    pub fn eviction(&self) -> Option<Eviction> {
        self.eviction.lock().clone()
    }

    /// Waits for a notification, unless there has been one since the last wait.
    pub async fn notified(&self) {
        self.notify.notified().await;
    }

    pub fn take_reasons(&self) -> SyncReasons {
        SyncReasons(self.reasons.swap(0, Ordering::AcqRel))
    }
}
