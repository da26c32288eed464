//! Entries of the store, and the events of a watch.

use bytes::Bytes;
use etcd_client::proto::{PbEvent, PbKeyValue};

use crate::{LeaseId, Revision, Unreadable};

/// A key with its value and metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Bytes,
    /// The value; empty for a deletion, and if it is unreadable.
    pub value: Bytes,
    /// Why the stored value could not be transformed to the one that was written.
    pub unreadable: Option<Unreadable>,
    /// Whether the stored value is one that would be written differently now.
    pub stale: bool,
    /// The revision at which the key was last created.
    pub create_revision: Revision,
    /// The revision of the last write of this key (for a deletion: of the deletion).
    pub mod_revision: Revision,
    /// The number of writes of the key since its creation: 1 for a new key, 0 for a deletion.
    pub version: u64,
    /// The lease that the key is attached to.
    pub lease: Option<LeaseId>,
}

impl From<PbKeyValue> for Entry {
    fn from(kv: PbKeyValue) -> Entry {
        Entry {
            key: kv.key.into(),
            value: kv.value.into(),
            unreadable: None,
            stale: false,
            create_revision: Revision::from_wire(kv.create_revision),
            mod_revision: Revision::from_wire(kv.mod_revision),
            version: u64::try_from(kv.version).unwrap_or_default(),
            lease: LeaseId::from_wire(kv.lease),
        }
    }
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The key was written and did not exist before.
    Created,
    /// The key was written and existed before.
    Updated,
    /// The key was deleted, by a client or because its lease ended.
    Deleted,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The kind of change.
    pub kind: EventKind,
    /// The state after the change; for a deletion only `key` and `mod_revision` are set.
    pub entry: Entry,
    /// The state before the change, if the watch requested it and it is not compacted.
    pub previous: Option<Entry>,
}

impl Event {
    pub(crate) fn from_wire(event: PbEvent) -> Option<Event> {
        const DELETE: i32 = 1;
        let entry = Entry::from(event.kv?);
        let kind = if event.r#type == DELETE {
            EventKind::Deleted
        } else if entry.create_revision == entry.mod_revision {
            EventKind::Created
        } else {
            EventKind::Updated
        };
        Some(Event { kind, entry, previous: event.prev_kv.map(Entry::from) })
    }
}
