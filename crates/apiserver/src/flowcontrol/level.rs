//! A priority level as requests meet it: its queues behind a lock, and the tickets of those let in.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Flow;
use super::metrics::Rejected;
use super::queue_set::{End, Estimate, Nanos, Policy, QueueSet, Queued, Rejection};
use super::retry_after::RetryAfter;
use crate::inflight;
use crate::request::{Request, Subject, Verb};
use crate::user::User;

const NANOS_PER_SECOND: Nanos = 1_000_000_000;

/// What is known of a request in a level.
#[derive(Debug)]
pub struct Details {
    pub flow: Arc<Flow>,
    pub user: Arc<User>,
    pub subject: Subject,
    pub arrived: Instant,
}

impl Details {
    pub fn new(flow: &Arc<Flow>, request: &Request) -> Self {
        let (user, subject) = (request.user.clone(), request.subject.clone());
        Self { flow: flow.clone(), user, subject, arrived: request.arrived }
    }
}

impl Queued for Details {
    fn found_no_room(&self) {
        self.flow.metrics.without_room.inc();
    }
}

/// A level.
#[derive(Debug)]
pub struct Level {
    pub name: String,
    epoch: Instant,
    set: Mutex<QueueSet<Details>>,
    retry_after: Mutex<RetryAfter>,
}

/// When a request that waits is woken, and how many wait in its queue.
pub type Waiting = (oneshot::Receiver<()>, usize);

impl Level {
    pub fn new(name: &str, epoch: Instant, policy: Policy, limit: u32) -> Self {
        let set = Mutex::new(QueueSet::new(policy, limit));
        Self { name: name.to_owned(), epoch, set, retry_after: Mutex::default() }
    }

    /// The time by which its queues are kept.
    pub fn now(&self) -> Nanos {
        self.at(clock::instant())
    }

    pub fn at(&self, instant: Instant) -> Nanos {
        since(self.epoch, instant)
    }

    pub fn set(&self) -> MutexGuard<'_, QueueSet<Details>> {
        self.set.lock()
    }

    /// Takes a request, at `now`; `Some`: it has to wait.
    ///
    /// # Errors
    /// When it is refused.
    pub fn start(
        &self,
        now: Instant,
        hash: u64,
        estimate: Estimate,
        details: Details,
    ) -> Result<(Ticket, Option<Waiting>), Rejection> {
        let flow = details.flow.clone();
        let watches = matches!(&details.subject, Subject::Resource { verb: Verb::Watch, .. });
        let mut set = self.set.lock();
        let writes = !inflight::is_read(&details.subject);
        let (id, executing) = set.start(self.at(now), hash, estimate, details)?;
        let waiting = (!executing).then(|| (set.wake(id), set.length_beside(id)));
        drop(set);
        let traffic = flow.traffic.of(writes);
        let gauge = if executing { &traffic.executing } else { &traffic.waiting };
        gauge.add(self.at(now), 1.0);
        let begun = executing.then_some(now);
        Ok((Ticket { flow, id, begun, watches, writes }, waiting))
    }

    /// Counts a refusal, and says after how many seconds the client should try again.
    pub fn refused(&self) -> i32 {
        let seconds = i64::try_from(self.now() / NANOS_PER_SECOND).unwrap_or(i64::MAX);
        self.retry_after.lock().refused(seconds)
    }
}

/// Nanoseconds since an epoch.
pub fn since(epoch: Instant, instant: Instant) -> Nanos {
    let since = instant.saturating_duration_since(epoch);
    since.as_secs().saturating_mul(NANOS_PER_SECOND).saturating_add(since.subsec_nanos().into())
}

/// The seats of a request, or its place in a queue. Dropping it gives them back.
#[derive(Debug)]
pub struct Ticket {
    flow: Arc<Flow>,
    id: u64,
    begun: Option<Instant>,
    watches: bool,
    writes: bool,
}

impl Ticket {
    /// The same ticket, whose request is now executed.
    pub fn begun(mut self) -> Self {
        let now = clock::instant();
        let (traffic, at) = (self.flow.traffic.of(self.writes), self.flow.level.at(now));
        traffic.waiting.add(at, -1.0);
        traffic.executing.add(at, 1.0);
        self.begun = Some(now);
        self
    }
}

#[cfg(test)]
impl Ticket {
    pub fn is_executed(&self) -> bool {
        let set = self.flow.level.set.lock();
        let waits = super::queue_set::Phase::Waiting;
        set.entry(self.id).is_some_and(|entry| entry.phase != waits)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let (level, id, now) = (&self.flow.level, self.id, clock::instant());
        let (traffic, at) = (self.flow.traffic.of(self.writes), level.at(now));
        if let Some(begun) = self.begun {
            self.flow.metrics.executed(now.saturating_duration_since(begun), self.watches);
            traffic.executing.add(at, -1.0);
        } else {
            traffic.waiting.add(at, -1.0);
        }
        let end = level.set.lock().end(at, id);
        match end {
            End::Finished => {}
            End::Cancelled => self.flow.metrics.rejected(Rejected::TimeOut),
            End::Lingers(time) => match tokio::runtime::Handle::try_current() {
                Ok(runtime) => {
                    let level = level.clone();
                    runtime.spawn(async move {
                        tokio::time::sleep(time).await;
                        level.set.lock().release(level.now(), id);
                    });
                }
                // The server is stopping.
                Err(_) => level.set.lock().release(level.now(), id),
            },
        }
    }
}
