//! The most recent changes, kept in memory so that a watch that keeps up never reads from disk.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use etcd_client::proto::PbKeyValue;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

/// The amount of history kept. A watch that has fallen further behind reads the file.
const KEPT_BYTES: usize = 2 << 20;
/// How long it is kept: watches that keep up need it for a moment.
const KEPT_FOR: Duration = Duration::from_secs(1);
/// The amount kept whatever its age, so that little activity needs no timer.
const AGELESS_BYTES: usize = 256 << 10;
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
    at: Instant,
}

/// The most recent commits, and the newest durable revision.
#[derive(Debug)]
pub(super) struct Recent {
    commits: Mutex<Commits>,
    /// There is more than is kept whatever its age.
    ages: Notify,
    durable: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Commits {
    queue: VecDeque<Arc<Commit>>,
    bytes: usize,
}

impl Recent {
    pub(super) fn new(revision: u64) -> Recent {
        Recent {
            commits: Mutex::default(),
            ages: Notify::new(),
            durable: watch::Sender::new(revision),
        }
    }

    /// Adds changes that have become durable, and wakes the watches.
    pub(super) fn push(&self, changes: Vec<Change>, last: u64) {
        let Some(first) = changes.first().map(|change| change.main) else {
            return;
        };
        let bytes = changes.iter().map(Change::bytes).sum();
        {
            let mut commits = self.commits.lock();
            let at = clock::instant();
            commits.bytes += bytes;
            commits.queue.push_back(Arc::new(Commit { first, last, changes, bytes, at }));
            commits.trim(|kept, _| kept.queue.len() > KEPT_COMMITS || kept.bytes > KEPT_BYTES);
            if commits.bytes > AGELESS_BYTES {
                self.ages.notify_one();
            }
        }
        self.durable.send_replace(last);
    }

    /// Drops commits when they are old, until `stopped`.
    pub(super) async fn run(&self, stopped: CancellationToken) {
        let aging = async {
            loop {
                let oldest = {
                    let commits = self.commits.lock();
                    commits.queue.front().filter(|_| commits.bytes > AGELESS_BYTES).map(|c| c.at)
                };
                match oldest {
                    None => self.ages.notified().await,
                    Some(at) => time::sleep_until(at + KEPT_FOR).await,
                }
                let now = clock::instant();
                let mut commits = self.commits.lock();
                commits
                    .trim(|kept, oldest| kept.bytes > AGELESS_BYTES && oldest.at + KEPT_FOR <= now);
                if commits.queue.len() < commits.queue.capacity() / 4 {
                    commits.queue.shrink_to_fit();
                }
            }
        };
        tokio::select! {
            () = stopped.cancelled() => {}
            () = aging => {}
        }
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

impl Commits {
    /// Drops the oldest commits while `excess` says so.
    fn trim(&mut self, excess: impl Fn(&Commits, &Commit) -> bool) {
        while let Some(oldest) = self.queue.front()
            && excess(self, oldest)
        {
            self.bytes -= oldest.bytes;
            self.queue.pop_front();
        }
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

    #[tokio::test(start_paused = true)]
    async fn old_commits_are_dropped_but_for_a_few() {
        let recent = Arc::new(Recent::new(1));
        let (aging, stopped) = (recent.clone(), CancellationToken::new());
        let stop = stopped.clone();
        let running = tokio::spawn(async move { aging.run(stop).await });
        for main in 2..6 {
            recent.push(vec![change(main, AGELESS_BYTES / 2)], main);
        }
        time::sleep(KEPT_FOR / 2).await;
        assert_eq!(lasts(recent.since(2, 5, usize::MAX)), Some(vec![2, 3, 4, 5]));
        time::sleep(KEPT_FOR).await;
        assert_eq!(lasts(recent.since(5, 5, usize::MAX)), Some(vec![5]));
        assert_eq!(lasts(recent.since(4, 5, usize::MAX)), None);
        time::sleep(10 * KEPT_FOR).await;
        assert_eq!(lasts(recent.since(5, 5, usize::MAX)), Some(vec![5]));
        assert!(recent.commits.lock().queue.capacity() < 16);
        stopped.cancel();
        running.await.unwrap();
    }
}
