//! The loop that every controller runs in: it reconciles the keys that it receives and retries
//! failures with backoff.
//!
//! A key is queued once, at the earliest time requested. It is never reconciled twice at a time: a
//! key that arrives during its own reconciliation is reconciled again afterwards. A controller
//! reconciles the absence of an object like its presence.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::FutureExt;
use runtime::errors::cause_chain;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::time::{DelayQueue, delay_queue};

use crate::Error;
use crate::machinery::cache::Key;

/// Capacity of the channel to a controller's loop, which takes keys at once.
const CHANNEL: usize = 256;
/// Maximum delay before a failed key is retried.
const RETRY_MAX: Duration = Duration::from_secs(60);
const RETRY: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(10))
    .with_max_delay(RETRY_MAX)
    .without_max_times();
/// Maximum delay of a key: the timers reach two years.
const DELAY_MAX: Duration = Duration::from_secs(365 * 86_400);

/// When to reconcile a key again without a trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Only when something changes.
    Change,
    After(Duration),
}

impl From<Option<Duration>> for Next {
    /// `None`: only when something changes.
    fn from(requeue_after: Option<Duration>) -> Self {
        requeue_after.map_or(Self::Change, Self::After)
    }
}

/// One controller.
pub trait Controller: Send + Sync + 'static {
    const NAME: &'static str;
    /// Maximum number of concurrent reconciliations.
    const CONCURRENCY: usize = 16;

    /// Brings the actual state closer to the desired state of the object at `key`, which may be
    /// gone.
    fn reconcile(&self, key: &Key) -> impl Future<Output = Result<Next, Error>> + Send;
}

/// The sending end of a controller's queue.
#[derive(Clone, Debug)]
pub struct Trigger(mpsc::Sender<Key>);

impl Trigger {
    /// Requests a reconciliation.
    pub async fn send(&self, key: Key) {
        if self.0.send(key).await.is_err() {
            tracing::trace!("a controller has ended");
        }
    }
}

/// The receiving end of a controller's queue.
#[derive(Debug)]
pub struct Requests(mpsc::Receiver<Key>);

/// The two ends of a queue.
pub fn queue() -> (Trigger, Requests) {
    let (sender, receiver) = mpsc::channel(CHANNEL);
    (Trigger(sender), Requests(receiver))
}

/// Keys that wait for their reconciliation, each of them once.
#[derive(Default)]
struct Waiting {
    /// In the order in which they became due.
    due: VecDeque<Key>,
    is_due: HashSet<Key>,
    later: DelayQueue<Key>,
    timers: HashMap<Key, delay_queue::Key>,
}

impl Waiting {
    fn add(&mut self, key: Key, delay: Duration) {
        if self.is_due.contains(&key) {
            return;
        }
        if delay.is_zero() {
            if let Some(timer) = self.timers.remove(&key) {
                self.later.remove(&timer);
            }
            self.push_due(key);
            return;
        }
        let at = clock::instant() + delay.min(DELAY_MAX);
        match self.timers.get(&key) {
            Some(timer) if self.later.deadline(timer) <= at => {}
            Some(timer) => self.later.reset_at(timer, at),
            None => {
                let timer = self.later.insert_at(key.clone(), at);
                self.timers.insert(key, timer);
            }
        }
    }

    fn push_due(&mut self, key: Key) {
        self.is_due.insert(key.clone());
        self.due.push_back(key);
    }

    /// Waits for the next delay to expire, and makes its key due. Never returns if there is none.
    async fn expired(&mut self) {
        let Some(expired) = std::future::poll_fn(|context| self.later.poll_expired(context)).await
        else {
            return std::future::pending().await;
        };
        let key = expired.into_inner();
        self.timers.remove(&key);
        self.push_due(key);
    }

    /// The first key that is due and not `busy`.
    fn take(&mut self, busy: &HashSet<Key>) -> Option<Key> {
        let position = self.due.iter().position(|key| !busy.contains(key))?;
        let key = self.due.remove(position)?;
        self.is_due.remove(&key);
        Some(key)
    }
}

/// Runs `controller` until `stop`; starts reconciling once `ready` is true. Running reconciliations
/// are finished before it returns.
pub async fn run<C: Controller>(
    controller: Arc<C>,
    mut requests: Requests,
    mut ready: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    let mut waiting = Waiting::default();
    let mut running: JoinSet<(Key, Result<Next, Error>)> = JoinSet::new();
    let mut busy: HashSet<Key> = HashSet::new();
    let mut failures: HashMap<Key, ExponentialBackoff> = HashMap::new();
    let mut open = *ready.borrow();
    loop {
        // Everything that has arrived is queued before a key is taken, so that equal keys are
        // merged.
        for _ in 0..CHANNEL {
            let Ok(key) = requests.0.try_recv() else { break };
            waiting.add(key, Duration::ZERO);
        }
        while open
            && busy.len() < C::CONCURRENCY
            && let Some(key) = waiting.take(&busy)
        {
            busy.insert(key.clone());
            running.spawn(reconcile(controller.clone(), key));
        }
        tokio::select! {
            () = stop.cancelled() => break,
            changed = ready.changed(), if !open => open = changed.is_err() || *ready.borrow(),
            Some(key) = requests.0.recv() => waiting.add(key, Duration::ZERO),
            () = waiting.expired() => {}
            Some(done) = running.join_next() => {
                let (key, outcome) = done.expect("panics are caught inside, and nothing aborts the tasks");
                busy.remove(&key);
                if let Some(delay) = delay::<C>(&key, outcome, &mut failures) {
                    waiting.add(key, delay);
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

/// How long until `key` is reconciled again, if it is; logs the failure.
fn delay<C: Controller>(
    key: &Key,
    outcome: Result<Next, Error>,
    failures: &mut HashMap<Key, ExponentialBackoff>,
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
    let delays = failures.entry(key.clone()).or_insert_with(|| RETRY.build());
    let delay = delays.next().unwrap_or(RETRY_MAX);
    if error.is_race() {
        tracing::debug!(controller = C::NAME, %key, error = cause_chain(&error), "retrying");
    } else {
        tracing::warn!(controller = C::NAME, %key, error = cause_chain(&error), ?delay, "reconciliation failed");
    }
    Some(delay)
}

#[cfg(test)]
mod tests;
