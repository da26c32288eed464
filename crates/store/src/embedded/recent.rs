//! The most recent changes, kept in memory so that a watch that keeps up never reads from disk.

use std::{collections::VecDeque, sync::Arc};

use etcd_client::proto::PbKeyValue;
use parking_lot::Mutex;
use tokio::sync::watch;

/// The amount of history kept. A watch that has fallen further behind reads the file.
const KEPT_BYTES: usize = 2 << 20;
/// The maximum number of commits kept, whatever their size.
const KEPT_COMMITS: usize = 1_024;

/// One change of one key.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) main: u64,
    pub(super) deletion: bool,
    pub(super) kv: PbKeyValue,
}

impl Change {
    pub(super) fn bytes(&self) -> usize {
        self.kv.key.len() + self.kv.value.len() + size_of::<Change>()
    }
}

/// The changes that became durable together: those of all revisions after the previous commit's
/// last.
#[derive(Debug)]
pub(super) struct Commit {
    first: u64,
    pub(super) last: u64,
    pub(super) changes: Vec<Change>,
    bytes: usize,
}

/// The most recent commits, and the newest durable revision.
#[derive(Debug)]
pub(super) struct Recent {
    commits: Mutex<Commits>,
    durable: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Commits {
    queue: VecDeque<Arc<Commit>>,
    bytes: usize,
}

impl Recent {
    pub(super) fn new(revision: u64) -> Recent {
        Recent { commits: Mutex::default(), durable: watch::Sender::new(revision) }
    }

    /// Adds changes that have become durable, and wakes the watches.
    pub(super) fn push(&self, changes: Vec<Change>, last: u64) {
        let Some(first) = changes.first().map(|change| change.main) else {
            return;
        };
        let bytes = changes.iter().map(Change::bytes).sum();
        {
            let mut commits = self.commits.lock();
            commits.bytes += bytes;
            commits.queue.push_back(Arc::new(Commit { first, last, changes, bytes }));
            while commits.queue.len() > KEPT_COMMITS || commits.bytes > KEPT_BYTES {
                let Some(oldest) = commits.queue.pop_front() else {
                    break;
                };
                commits.bytes -= oldest.bytes;
            }
        }
        self.durable.send_replace(last);
    }

    /// A receiver of the durable revision, notified whenever it grows.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.durable.subscribe()
    }

    /// The commits from the one that contains `from` up to `to`, at most `bytes` but at least one
    /// commit; `None` if `from` is no longer kept. Changes before `from` may be included.
    pub(super) fn since(&self, from: u64, to: u64, bytes: usize) -> Option<Vec<Arc<Commit>>> {
        let commits = self.commits.lock();
        let first = commits.queue.partition_point(|commit| commit.last < from);
        if commits.queue.get(first)?.first > from {
            return None;
        }
        let mut taken = 0;
        let found = commits.queue.range(first..).take_while(|commit| {
            let fits = commit.first <= to && taken < bytes;
            taken += commit.bytes;
            fits
        });
        Some(found.cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(main: u64, bytes: usize) -> Change {
        let kv = PbKeyValue { value: vec![0; bytes], ..PbKeyValue::default() };
        Change { main, deletion: false, kv }
    }

    fn lasts(found: Option<Vec<Arc<Commit>>>) -> Option<Vec<u64>> {
        found.map(|commits| commits.iter().map(|commit| commit.last).collect())
    }

    #[test]
    fn since_returns_commits_only_if_none_is_missing() {
        let recent = Recent::new(1);
        assert_eq!(lasts(recent.since(2, 2, 1000)), None);
        recent.push(vec![change(2, 10), change(3, 10)], 3);
        recent.push(vec![change(4, 10)], 4);
        recent.push(vec![change(5, 10)], 5);
        assert_eq!(lasts(recent.since(2, 5, usize::MAX)), Some(vec![3, 4, 5]));
        assert_eq!(lasts(recent.since(3, 4, usize::MAX)), Some(vec![3, 4]));
        assert_eq!(lasts(recent.since(4, 5, 1)), Some(vec![4]));
        assert_eq!(lasts(recent.since(1, 5, usize::MAX)), None);
        assert_eq!(lasts(recent.since(6, 6, usize::MAX)), None);
    }

    #[test]
    fn the_kept_history_is_bounded() {
        let recent = Recent::new(1);
        for main in 2..12 {
            recent.push(vec![change(main, KEPT_BYTES / 4)], main);
        }
        assert_eq!(lasts(recent.since(2, 11, usize::MAX)), None);
        assert_eq!(lasts(recent.since(9, 11, usize::MAX)), Some(vec![9, 10, 11]));
        assert!(recent.commits.lock().bytes <= KEPT_BYTES);
    }
}
