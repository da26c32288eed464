//! A priority level as requests meet it: its queues behind a lock, and the tickets of those let in.

use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Flow;
use super::metrics::Rejected;
use super::queue_set::{End, Estimate, Nanos, Policy, QueueSet, Rejection};
use super::retry_after::RetryAfter;
use crate::request::{Request, Subject, Verb};
use crate::user::User;

/// What is known of a request in a level.
#[derive(Debug)]
pub struct Details {
    pub flow: Arc<Flow>,
    pub user: Arc<User>,
    pub subject: Subject,
    pub arrived: Timestamp,
}

impl Details {
    pub fn new(flow: &Arc<Flow>, request: &Request, arrived: Timestamp) -> Self {
        let (user, subject) = (request.user.clone(), request.subject.clone());
        Self { flow: flow.clone(), user, subject, arrived }
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
type Waiting = (oneshot::Receiver<()>, usize);

impl Level {
    pub fn new(name: &str, epoch: Instant, policy: Policy, limit: u32) -> Self {
        let set = Mutex::new(QueueSet::new(policy, limit));
        Self { name: name.to_owned(), epoch, set, retry_after: Mutex::default() }
    }

    /// The time by which its queues are kept.
    pub fn now(&self) -> Nanos {
        Nanos::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(Nanos::MAX)
    }

    pub fn set(&self) -> MutexGuard<'_, QueueSet<Details>> {
        self.set.lock()
    }

    /// Takes a request; `Some`: it has to wait.
    ///
    /// # Errors
    /// When it is refused.
    pub fn start(
        self: &Arc<Self>,
        hash: u64,
        estimate: Estimate,
        details: Details,
    ) -> Result<(Ticket, Option<Waiting>), Rejection> {
        let flow = details.flow.clone();
        let watches = matches!(&details.subject, Subject::Resource { verb: Verb::Watch, .. });
        let mut set = self.set.lock();
        let (id, executing) = set.start(self.now(), hash, estimate, details)?;
        let waiting = (!executing).then(|| (set.wake(id), set.length_beside(id)));
        drop(set);
        Ok((Ticket { flow, id, begun: None, watches }, waiting))
    }

    /// Counts a refusal, and says after how many seconds the client should try again.
    pub fn refused(&self, now_seconds: i64) -> i32 {
        self.retry_after.lock().refused(now_seconds)
    }
}

/// The seats of a request, or its place in a queue. Dropping it gives them back.
#[derive(Debug)]
pub struct Ticket {
    flow: Arc<Flow>,
    id: u64,
    begun: Option<Instant>,
    watches: bool,
}

impl Ticket {
    /// The same ticket, whose request is now executed.
    pub fn begun(mut self) -> Self {
        self.begun = Some(clock::instant());
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
        let (level, id) = (self.flow.level.clone(), self.id);
        if let Some(begun) = self.begun {
            self.flow.metrics.executed(begun.elapsed(), self.watches);
        }
        let end = level.set.lock().end(level.now(), id);
        match end {
            End::Finished => {}
            End::Cancelled => self.flow.metrics.rejected(Rejected::TimeOut),
            End::Lingers(time) => match tokio::runtime::Handle::try_current() {
                Ok(runtime) => {
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
