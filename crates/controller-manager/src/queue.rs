//! The loop that every controller runs in: keys go in, each is reconciled, failures come back
//! later.
//!
//! The queue is `kube-runtime`'s scheduler: a key that waits is there once, one key is never
//! reconciled twice at a time, and a key that arrives during its own reconciliation comes again
//! after it. What is added here is keys instead of objects (so that the absence of an object is
//! reconciled like its presence) and a back-off per key.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use kube::runtime::scheduler::{ScheduleRequest, scheduler};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::cache::Key;

/// Keys on their way to a controller's loop, which takes them at once.
const CHANNEL: usize = 256;
/// First and longest pause before a key that failed is tried again.
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// When to look at a key again without a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Only when something changes.
    Change,
    After(Duration),
}

/// One controller.
pub trait Controller: Send + Sync + 'static {
    const NAME: &'static str;
    /// Reconciliations at a time.
    const CONCURRENCY: usize = 16;

    /// Brings the object at `key`, or its absence, nearer to what is wanted.
    fn reconcile(&self, key: &Key) -> impl Future<Output = Result<Next, Error>> + Send;
}

/// The entrance of a controller's queue.
#[derive(Clone, Debug)]
pub struct Trigger(mpsc::Sender<ScheduleRequest<Key>>);

impl Trigger {
    /// Asks for a reconciliation now.
    pub async fn send(&self, key: Key) {
        self.send_after(key, Duration::ZERO).await;
    }

    /// Asks for a reconciliation after `delay`.
    pub async fn send_after(&self, key: Key, delay: Duration) {
        let request = ScheduleRequest { message: key, run_at: Instant::now() + delay };
        if self.0.send(request).await.is_err() {
            tracing::trace!("a controller has ended");
        }
    }
}

/// The exit of a controller's queue.
#[derive(Debug)]
pub struct Requests(mpsc::Receiver<ScheduleRequest<Key>>);

/// A queue's two ends.
pub fn queue() -> (Trigger, Requests) {
    let (sender, receiver) = mpsc::channel(CHANNEL);
    (Trigger(sender), Requests(receiver))
}

/// Runs `controller` until `stop`; starts reconciling once `ready` is true. Reconciliations that
/// are under way at the stop are finished.
pub async fn run<C: Controller>(
    controller: Arc<C>,
    requests: Requests,
    mut ready: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    let (again, later) = mpsc::channel(CHANNEL.max(C::CONCURRENCY));
    let merged =
        futures::stream::select(ReceiverStream::new(requests.0), ReceiverStream::new(later));
    let mut queue = std::pin::pin!(scheduler(merged));
    let mut running: JoinSet<(Key, Result<Next, Error>)> = JoinSet::new();
    let mut busy: HashSet<Key> = HashSet::new();
    let mut failures: HashMap<Key, u32> = HashMap::new();
    let mut open = *ready.borrow();
    loop {
        let room = open && busy.len() < C::CONCURRENCY;
        let mut free = queue.as_mut().hold_unless(|key: &Key| room && !busy.contains(key));
        tokio::select! {
            () = stop.cancelled() => break,
            changed = ready.changed(), if !open => open = changed.is_err() || *ready.borrow(),
            Some(key) = free.next() => {
                busy.insert(key.clone());
                running.spawn(reconcile(controller.clone(), key));
            }
            Some(done) = running.join_next() => {
                let (key, outcome) = done.expect("panics are caught inside, and nothing aborts the tasks");
                busy.remove(&key);
                if let Some(delay) = delay::<C>(&key, outcome, &mut failures) {
                    let request = ScheduleRequest { message: key, run_at: Instant::now() + delay };
                    // One slot per reconciliation at least, and the loop drains it before the next.
                    if again.try_send(request).is_err() {
                        tracing::error!(controller = C::NAME, "a retry was lost");
                    }
                }
            }
        }
    }
    while let Some(done) = running.join_next().await {
        if let Ok((key, outcome)) = done {
            delay::<C>(&key, outcome, &mut failures);
        }
    }
}

async fn reconcile<C: Controller>(controller: Arc<C>, key: Key) -> (Key, Result<Next, Error>) {
    let reconciled = AssertUnwindSafe(controller.reconcile(&key)).catch_unwind();
    let outcome = reconciled
        .await
        .unwrap_or_else(|_| Err(Error::Invalid("the reconciliation panicked".into())));
    (key, outcome)
}

/// How long until `key` is looked at again, if it is; logs the failure.
fn delay<C: Controller>(
    key: &Key,
    outcome: Result<Next, Error>,
    failures: &mut HashMap<Key, u32>,
) -> Option<Duration> {
    let error = match outcome {
        Ok(next) => {
            failures.remove(key);
            return match next {
                Next::Change => None,
                Next::After(delay) => Some(delay),
            };
        }
        Err(error) => error,
    };
    let count = failures.entry(key.clone()).or_insert(0);
    *count += 1;
    let delay = RETRY_MIN.saturating_mul(2u32.saturating_pow(*count - 1)).min(RETRY_MAX);
    if error.is_race() {
        tracing::debug!(controller = C::NAME, %key, error = %error.chain(), "looking again");
    } else {
        tracing::warn!(controller = C::NAME, %key, error = %error.chain(), ?delay, "reconciliation failed");
    }
    Some(delay)
}

#[cfg(test)]
mod tests;
