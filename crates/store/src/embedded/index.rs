//! The in-memory index of keys and their versions.
//!
//! It holds everything about a version except the value, so that counts, filters, comparisons and
//! key-only ranges never access the disk. It includes versions that are not durable yet; readers do
//! not see them, because they read at a durable revision.

use std::{collections::BTreeMap, ops::Bound};

use super::key_range::KeyRange;

/// A position in history: the revision of a transaction, and the number of the change within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) main: u64,
    pub(super) sub: u32,
}

/// One version of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) main: u64,
    /// The revision at which the key was created.
    pub(super) create: u64,
    /// The number of writes since then; zero for a deletion.
    pub(super) version: u64,
    pub(super) lease: i64,
    pub(super) sub: u32,
    /// The length of the stored record, for space accounting.
    pub(super) record_bytes: u32,
}

impl Version {
    pub(super) fn position(&self) -> Position {
        Position { main: self.main, sub: self.sub }
    }

    fn is_deletion(&self) -> bool {
        self.version == 0
    }
}

/// The state of the newest revision, durable or not.
pub(super) const NEWEST: u64 = u64::MAX;

/// Up to so many versions of a key, each takes its own place only.
const FEW_VERSIONS: usize = 4;

/// All versions that are not compacted, by key, ordered by revision.
#[derive(Debug, Default)]
pub(super) struct Index {
    keys: BTreeMap<Box<[u8]>, Vec<Version>>,
    /// Reads before this revision are rejected.
    pub(super) compacted: u64,
    /// The total length of the stored records.
    pub(super) record_bytes: u64,
}

impl Index {
    /// Adds a version; revisions must not decrease.
    pub(super) fn insert(&mut self, key: &[u8], version: Version) {
        self.record_bytes += u64::from(version.record_bytes);
        match self.keys.get_mut(key) {
            Some(versions) => {
                // Most keys have few versions: no place for more is taken in advance.
                if versions.len() < FEW_VERSIONS {
                    versions.reserve_exact(1);
                }
                versions.push(version);
            }
            None => {
                self.keys.insert(key.into(), vec![version]);
            }
        }
    }

    /// The state of a key at a revision; `None` if it does not exist then.
    pub(super) fn get(&self, key: &[u8], at: u64) -> Option<&Version> {
        live(self.keys.get(key)?, at)
    }

    /// The keys in a range that exist at a revision, in order.
    pub(super) fn range<'a>(
        &'a self,
        range: &'a KeyRange,
        at: u64,
    ) -> impl Iterator<Item = (&'a [u8], &'a Version)> {
        let keys = (!range.is_empty()).then(|| self.keys.range::<[u8], _>(range.bounds()));
        keys.into_iter()
            .flatten()
            .filter_map(move |(key, versions)| Some((key.as_ref(), live(versions, at)?)))
    }

    /// The keys that are attached to a lease at a revision.
    pub(super) fn attached(&self, lease: i64, at: u64) -> impl Iterator<Item = &[u8]> {
        let attached =
            move |versions| live(versions, at).is_some_and(|version| version.lease == lease);
        self.keys
            .iter()
            .filter(move |(_, versions)| attached(versions))
            .map(|(key, _)| key.as_ref())
    }

    /// Removes the versions of a key after a revision.
    pub(super) fn rollback(&mut self, key: &[u8], after: u64) {
        let Some(versions) = self.keys.get_mut(key) else {
            return;
        };
        let kept = versions.partition_point(|version| version.main <= after);
        let dropped: u64 =
            versions.drain(kept..).map(|version| u64::from(version.record_bytes)).sum();
        self.record_bytes -= dropped;
        if versions.is_empty() {
            self.keys.remove(key);
        }
    }

    /// Drops the versions that are invisible to reads at `self.compacted` or later, for at most
    /// `keys` keys after `cursor`. Returns the positions of their records and, if there are more
    /// keys, the next cursor.
    ///
    /// A deletion at exactly the compacted revision is kept, since a watch may still start there.
    pub(super) fn prune(
        &mut self,
        cursor: Option<&[u8]>,
        keys: usize,
    ) -> (Vec<Position>, Option<Box<[u8]>>) {
        let start = cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let mut pruned = Vec::new();
        let mut gone = Vec::new();
        let mut last = None;
        for (key, versions) in self.keys.range_mut::<[u8], _>((start, Bound::Unbounded)).take(keys)
        {
            let visible = versions.partition_point(|version| version.main <= self.compacted);
            let mut drop = visible.saturating_sub(1);
            if visible > 0
                && versions[visible - 1].is_deletion()
                && versions[visible - 1].main < self.compacted
            {
                drop = visible;
            }
            pruned.extend(versions[..drop].iter().map(Version::position));
            let dropped: u64 =
                versions.drain(..drop).map(|version| u64::from(version.record_bytes)).sum();
            self.record_bytes -= dropped;
            if drop > 0 {
                versions.shrink_to_fit();
            }
            if versions.is_empty() {
                gone.push(key.clone());
            }
            last = Some(key.clone());
        }
        for key in &gone {
            self.keys.remove(key);
        }
        let more = last.filter(|last| {
            self.keys
                .range::<[u8], _>((Bound::Excluded(last.as_ref()), Bound::Unbounded))
                .next()
                .is_some()
        });
        (pruned, more)
    }
}

fn live(versions: &[Version], at: u64) -> Option<&Version> {
    let visible = versions.iter().rev().find(|version| version.main <= at)?;
    (!visible.is_deletion()).then_some(visible)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(main: u64, create: u64, version: u64) -> Version {
        Version { main, create, version, lease: 0, sub: 0, record_bytes: 10 }
    }

    fn index() -> Index {
        let mut index = Index::default();
        index.insert(b"a", put(2, 2, 1));
        index.insert(b"b", put(3, 3, 1));
        index.insert(b"a", put(4, 2, 2));
        index.insert(b"b", put(5, 0, 0));
        index.insert(b"a", put(6, 2, 3));
        index
    }

    #[test]
    fn a_read_sees_the_state_at_its_revision() {
        let index = index();
        let at = |key: &[u8], at| index.get(key, at).map(|version| version.main);
        assert_eq!(
            [1, 2, 3, 4, 5, 6, NEWEST].map(|r| at(b"a", r)),
            [None, Some(2), Some(2), Some(4), Some(4), Some(6), Some(6)]
        );
        assert_eq!([2, 3, 4, 5].map(|r| at(b"b", r)), [None, Some(3), Some(3), None]);
        let range = KeyRange::new(b"a", b"z");
        assert_eq!(index.range(&range, 4).count(), 2);
        assert_eq!(index.range(&range, 5).count(), 1);
    }

    #[test]
    fn rollback_restores_the_state_before() {
        let mut index = index();
        for key in [b"a", b"b"] {
            index.rollback(key, 2);
        }
        assert_eq!(index.get(b"a", NEWEST).map(|version| version.main), Some(2));
        assert_eq!(index.keys.len(), 1);
        assert_eq!(index.record_bytes, 10);
    }

    #[test]
    fn prune_keeps_what_reads_and_watches_can_still_see() {
        let mut at_deletion = index();
        at_deletion.compacted = 5;
        let (pruned, more) = at_deletion.prune(None, 10);
        let mains: Vec<u64> = pruned.iter().map(|position| position.main).collect();
        assert_eq!((mains, more), (vec![2, 3], None));
        assert_eq!(at_deletion.keys[b"b".as_slice()].len(), 1);

        let mut after = index();
        after.compacted = 6;
        let (first, more) = after.prune(None, 1);
        assert_eq!((first.len(), more.as_deref()), (2, Some(b"a".as_slice())));
        let (second, more) = after.prune(more.as_deref(), 1);
        assert_eq!((second.len(), more), (2, None));
        assert!(!after.keys.contains_key(b"b".as_slice()));
        assert_eq!(after.record_bytes, 10);
    }
}
