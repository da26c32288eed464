//! A ring of shared events with any number of readers, each with its own cursor.
//!
//! A resource has one bucket for all of its events, and one for each narrow scope that is being
//! watched (a namespace, a name, a node's pods), so that an event wakes only the watchers it
//! concerns.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::RwLock;
use tokio::sync::watch;

use super::Version;

/// What an event costs beside the bytes of its objects, about: its place in the buckets.
const EVENT_BYTES: usize = 256;

/// How an object has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Added,
    Modified,
    Deleted,
}

impl Change {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One change of one object, shared by all its watchers.
#[derive(Debug)]
pub struct Event {
    pub revision: u64,
    pub old: Option<Arc<Version>>,
    /// `None`: deleted.
    pub new: Option<Arc<Version>>,
    /// The last state, at the revision of the deletion: for deletions, and for objects that no
    /// longer match a selector.
    gone: OnceLock<Arc<Version>>,
    frames: [OnceLock<Bytes>; 3],
}

impl Event {
    pub fn new(revision: u64, old: Option<Arc<Version>>, new: Option<Arc<Version>>) -> Self {
        Self { revision, old, new, gone: OnceLock::new(), frames: Default::default() }
    }

    /// The object as a watcher sees it after `change`.
    pub fn object(&self, change: Change) -> &Arc<Version> {
        match (change, &self.new) {
            (Change::Added | Change::Modified, Some(new)) => new,
            _ => self.gone.get_or_init(|| {
                let last = self.old.as_ref().or(self.new.as_ref());
                let last = last.expect("an event has a state before or after it");
                Arc::new(last.at_revision(self.revision))
            }),
        }
    }

    /// The REST frame of the event, encoded once for all watchers.
    pub fn frame(&self, change: Change) -> Bytes {
        self.frames[change as usize]
            .get_or_init(|| frame(change.as_str(), &self.object(change).json))
            .clone()
    }

    /// What the event costs: the former object, which nothing else keeps, and the frame that is
    /// made of the new one; after a deletion, of the last state, which is kept too.
    pub fn bytes(&self) -> usize {
        let kept = self.old.as_ref().map_or(0, |old| old.bytes());
        let made = match (&self.old, &self.new) {
            (_, Some(new)) => new.json.len(),
            (Some(old), None) => old.bytes() + old.json.len(),
            (None, None) => 0,
        };
        EVENT_BYTES + kept + made
    }
}

/// `{"type":"ADDED","object":{...}}` and a line end.
pub fn frame(kind: &str, object: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(object.len() + kind.len() + 24);
    frame.put_slice(b"{\"type\":\"");
    frame.put_slice(kind.as_bytes());
    frame.put_slice(b"\",\"object\":");
    frame.put_slice(object);
    frame.put_slice(b"}\n");
    frame.freeze()
}

/// The reader has fallen behind the window, or the cache was reset.
#[derive(Debug, PartialEq, Eq)]
pub struct Lagged;

#[derive(Default)]
struct Ring {
    events: VecDeque<Arc<Event>>,
    /// Sequence number of the first event in `events`.
    first: u64,
}

/// The ring. Sequence numbers count its events from zero.
pub struct Bucket {
    ring: RwLock<Ring>,
    /// Sequence number after the last event.
    head: watch::Sender<u64>,
}

impl Default for Bucket {
    fn default() -> Self {
        Self { ring: RwLock::default(), head: watch::Sender::new(0) }
    }
}

impl Bucket {
    /// Adds an event and wakes the readers.
    pub fn push(&self, event: Arc<Event>) {
        let mut ring = self.ring.write();
        ring.events.push_back(event);
        let head = ring.first + ring.events.len() as u64;
        drop(ring);
        self.head.send_replace(head);
    }

    /// Drops the events up to `revision`; readers that have not read them find themselves behind.
    pub fn forget(&self, revision: u64) -> Vec<Arc<Event>> {
        let mut ring = self.ring.write();
        let count = ring.events.partition_point(|event| event.revision <= revision);
        let forgotten: Vec<_> = ring.events.drain(..count).collect();
        ring.first += forgotten.len() as u64;
        if ring.events.len() < ring.events.capacity() / 4 {
            ring.events.shrink_to_fit();
        }
        forgotten
    }

    /// The cursor of a reader that starts now.
    pub fn head(&self) -> u64 {
        *self.head.borrow()
    }

    /// A receiver that is notified whenever an event is added.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// How many watches read it.
    pub fn watchers(&self) -> usize {
        self.head.receiver_count()
    }

    /// Reads about `max` events from `cursor` on and moves it: all of a revision or none.
    pub fn read(&self, cursor: &mut u64, max: usize) -> Result<Vec<Arc<Event>>, Lagged> {
        let ring = self.ring.read();
        let skip = cursor.checked_sub(ring.first).ok_or(Lagged)?;
        let skip = usize::try_from(skip).map_err(|_| Lagged)?;
        let mut rest = ring.events.iter().skip(skip).peekable();
        let mut events: Vec<Arc<Event>> = Vec::new();
        while let Some(event) = rest.next_if(|event| {
            events.len() < max || events.last().is_some_and(|last| last.revision == event.revision)
        }) {
            events.push(event.clone());
        }
        *cursor += events.len() as u64;
        Ok(events)
    }

    /// The events after `revision`, for a watch that starts in the past.
    pub fn since(&self, revision: u64) -> Vec<Arc<Event>> {
        let ring = self.ring.read();
        let from = ring.events.partition_point(|event| event.revision <= revision);
        ring.events.iter().skip(from).cloned().collect()
    }

    /// Drops all events; readers find themselves behind.
    pub fn reset(&self) {
        let mut ring = self.ring.write();
        ring.first += ring.events.len() as u64 + 1;
        ring.events = VecDeque::new();
        let head = ring.first;
        drop(ring);
        self.head.send_replace(head);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(revision: u64) -> Arc<Event> {
        Arc::new(Event::new(revision, None, None))
    }

    #[test]
    fn readers_see_every_event_or_an_error_when_they_lag() {
        let bucket = Bucket::default();
        let (mut slow, mut fast) = (bucket.head(), bucket.head());
        for revision in 1..=100 {
            bucket.push(event(revision));
            assert_eq!(bucket.read(&mut fast, 10).unwrap().len(), 1);
        }
        assert_eq!(bucket.forget(40).len(), 40);
        assert_eq!(bucket.read(&mut slow, 10).unwrap_err(), Lagged);
        assert_eq!(bucket.since(40).len(), 60);
        bucket.push(event(101));
        assert_eq!(bucket.read(&mut fast, 10).unwrap()[0].revision, 101);
        assert_eq!(bucket.forget(1_000).len(), 61);
        assert!(bucket.read(&mut fast, 10).unwrap().is_empty(), "it has read them all");
        assert!(bucket.ring.read().events.capacity() < 10, "the memory is given back");
        bucket.reset();
        assert_eq!(bucket.read(&mut fast, 10).unwrap_err(), Lagged);
    }

    #[test]
    fn the_changes_of_a_revision_are_read_together() {
        let bucket = Bucket::default();
        let mut cursor = bucket.head();
        for revision in [1, 2, 2, 2, 3] {
            bucket.push(event(revision));
        }
        assert_eq!(bucket.read(&mut cursor, 2).unwrap().len(), 4);
        assert_eq!(bucket.read(&mut cursor, 2).unwrap().len(), 1);
    }
}
