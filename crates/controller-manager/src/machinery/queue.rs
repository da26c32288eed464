//! The loop that every controller runs in: keys go in, each is reconciled, failures come back
//! later.
//!
//! A key that waits is there once, at the earliest time that anybody asked for; one key is never
//! reconciled twice at a time, and a key that arrives during its own reconciliation comes again
//! after it. The absence of an object is reconciled like its presence.

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

/// Keys on their way to a controller's loop, which takes them at once.
const CHANNEL: usize = 256;
/// The longest pause before a key that failed is tried again, and all of them.
const RETRY_MAX: Duration = Duration::from_secs(60);
const RETRY: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(10))
    .with_max_delay(RETRY_MAX)
    .without_max_times();
/// The longest that a key waits, whatever it asked for: timers reach two years.
const DELAY_MAX: Duration = Duration::from_secs(365 * 86_400);

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
pub struct Trigger(mpsc::Sender<Key>);

impl Trigger {
    /// Asks for a reconciliation.
    pub async fn send(&self, key: Key) {
        if self.0.send(key).await.is_err() {
            tracing::trace!("a controller has ended");
        }
    }
}

/// The exit of a controller's queue.
#[derive(Debug)]
pub struct Requests(mpsc::Receiver<Key>);

/// A queue's two ends.
pub fn queue() -> (Trigger, Requests) {
    let (sender, receiver) = mpsc::channel(CHANNEL);
    (Trigger(sender), Requests(receiver))
}

/// Keys that wait for their reconciliation, each once.
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

    /// Waits for the next key whose delay is over, and makes it due; for ever, when there is none.
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

/// Runs `controller` until `stop`; starts reconciling once `ready` is true. Reconciliations that
/// are under way at the stop are finished.
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
        // What has arrived together is taken in together, so that equal keys become one.
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

/// How long until `key` is looked at again, if it is; logs the failure.
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
        tracing::debug!(controller = C::NAME, %key, error = cause_chain(&error), "looking again");
    } else {
        tracing::warn!(controller = C::NAME, %key, error = cause_chain(&error), ?delay, "reconciliation failed");
    }
    Some(delay)
}

#[cfg(test)]
mod tests;
