//! Waking a pod's worker: reasons are bits, so nothing queues and nothing is lost.

use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::memory::Doom;

/// Why a worker is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// The object has changed (or there is something else new; look).
    Look = 1,
    /// The runtime says that something happened to a container.
    Runtime = 2,
    /// A ConfigMap or Secret that the pod refers to has changed.
    Objects = 4,
    /// containerd is back: what failed for want of it can be tried again.
    Resync = 8,
}

/// The doorbell of one worker.
#[derive(Debug, Default)]
pub struct Wake {
    reasons: AtomicU8,
    notify: Notify,
    doom: Mutex<Option<Doom>>,
}

/// The reasons since the worker looked last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reasons(u8);

impl Reasons {
    pub fn has(self, reason: Reason) -> bool {
        self.0 & reason as u8 != 0
    }
}

impl Wake {
    pub fn wake(&self, reason: Reason) {
        self.reasons.fetch_or(reason as u8, Ordering::AcqRel);
        self.notify.notify_one();
    }

    /// Ends the pod though nobody deleted it; the first reason stays.
    pub fn doom(&self, doom: Doom) {
        self.doom.lock().get_or_insert(doom);
        self.wake(Reason::Look);
    }

    /// What [`Self::doom`] was told.
    pub fn doomed(&self) -> Option<Doom> {
        self.doom.lock().clone()
    }

    /// Waits for a reason, if there is none yet.
    pub async fn rung(&self) {
        self.notify.notified().await;
    }

    /// Takes the reasons.
    pub fn take(&self) -> Reasons {
        Reasons(self.reasons.swap(0, Ordering::AcqRel))
    }
}
