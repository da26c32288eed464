//! How long events are kept for watches that resume or are slow: one budget for all resources, the
//! oldest first, and not longer than anybody may reasonably be away.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::ResourceCache;

/// How long an event is kept (upstream's `eventFreshDuration`).
const AGE: Duration = Duration::from_secs(75);
/// Events of so many bytes are kept whatever their age: where little happens, a watch can resume
/// after hours.
const AGELESS_BYTES: usize = 1 << 20;

/// An event that is kept by a resource.
#[derive(Clone)]
pub struct Kept {
    pub resource: Weak<ResourceCache>,
    pub revision: u64,
    bytes: usize,
    since: Instant,
}

/// All events that are kept, in the order of their revisions.
pub struct Window {
    budget_bytes: usize,
    kept: Mutex<Events>,
    /// The first event that has to end by its age was added.
    added: Notify,
}

#[derive(Default)]
struct Events {
    queue: VecDeque<Kept>,
    bytes: usize,
}

impl Window {
    pub fn new(budget_bytes: usize) -> Self {
        Self { budget_bytes, kept: Mutex::default(), added: Notify::new() }
    }

    /// Adds an event, and returns those that have to go for it. One event larger than the window
    /// still reaches watches that are not behind.
    pub fn add(&self, resource: &Arc<ResourceCache>, revision: u64, bytes: usize) -> Vec<Kept> {
        let resource = Arc::downgrade(resource);
        let mut kept = self.kept.lock();
        let ages = kept.bytes > AGELESS_BYTES;
        kept.queue.push_back(Kept { resource, revision, bytes, since: clock::instant() });
        kept.bytes += bytes;
        if !ages && kept.bytes > AGELESS_BYTES {
            self.added.notify_one();
        }
        let mut gone = Vec::new();
        while kept.bytes > self.budget_bytes && kept.queue.len() > 1 {
            gone.extend(kept.pop());
        }
        gone
    }

    /// Waits until events have to go because of their age, and returns them.
    pub async fn aged(&self) -> Vec<Kept> {
        loop {
            let oldest = {
                let kept = self.kept.lock();
                let ages = kept.bytes > AGELESS_BYTES;
                kept.queue.front().filter(|_| ages).map(|oldest| oldest.since)
            };
            match oldest {
                None => self.added.notified().await,
                Some(since) => tokio::time::sleep_until(since + AGE).await,
            }
            let gone = self.take_aged();
            if !gone.is_empty() {
                return gone;
            }
        }
    }

    fn take_aged(&self) -> Vec<Kept> {
        let now = clock::instant();
        let mut kept = self.kept.lock();
        let mut gone = Vec::new();
        while kept.bytes > AGELESS_BYTES
            && kept.queue.front().is_some_and(|oldest| oldest.since + AGE <= now)
        {
            gone.extend(kept.pop());
        }
        if kept.queue.len() < kept.queue.capacity() / 4 {
            kept.queue.shrink_to_fit();
        }
        gone
    }

    /// The caches have been reset: nothing is kept any more.
    pub fn clear(&self) {
        *self.kept.lock() = Events::default();
    }
}

impl Events {
    fn pop(&mut self) -> Option<Kept> {
        let oldest = self.queue.pop_front()?;
        self.bytes -= oldest.bytes;
        Some(oldest)
    }
}

#[cfg(test)]
mod tests {
    use api::Kind;
    use k8s_openapi::api::core::v1::{Pod, Secret};

    use super::*;

    fn revisions(events: &[Kept]) -> Vec<u64> {
        events.iter().map(|event| event.revision).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_is_shared_and_the_oldest_go_first() {
        let window = Window::new(10 << 20);
        let resources = [Pod::ROW, Secret::ROW].map(|row| Arc::new(ResourceCache::new(row)));
        let [pods, secrets] = &resources;
        for revision in 0..10 {
            let resource = if revision % 2 == 0 { pods } else { secrets };
            assert!(window.add(resource, revision, 1 << 20).is_empty());
        }
        let gone = window.add(pods, 10, 3 << 20);
        assert_eq!(revisions(&gone), [0, 1, 2]);
        assert_eq!(gone[1].resource.upgrade().unwrap().row, *Secret::ROW);
        // One that is larger than the budget takes all of it.
        assert_eq!(window.add(pods, 11, 30 << 20).len(), 8);
        assert_eq!(revisions(&window.add(pods, 12, 1)), [11]);
        let kept = window.kept.lock();
        assert_eq!((kept.bytes, kept.queue.len()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn events_end_by_age_but_for_a_few() {
        let window = Window::new(10 << 20);
        let pods = Arc::new(ResourceCache::new(Pod::ROW));
        window.add(&pods, 1, AGELESS_BYTES / 2);
        let none = tokio::time::timeout(10 * AGE, window.aged()).await;
        assert!(none.is_err(), "little is kept for ever");
        for revision in 2..6 {
            window.add(&pods, revision, AGELESS_BYTES / 2);
            tokio::time::advance(Duration::from_secs(10)).await;
        }
        // The first is old enough by now; the second not yet.
        assert_eq!(revisions(&window.aged().await), [1]);
        assert_eq!(revisions(&window.aged().await), [2]);
        assert_eq!(revisions(&window.aged().await), [3]);
        assert!(tokio::time::timeout(10 * AGE, window.aged()).await.is_err());
        assert!(window.kept.lock().bytes <= AGELESS_BYTES);
    }
}
