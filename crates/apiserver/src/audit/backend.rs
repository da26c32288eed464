//! Backends: where events go, and how long a request waits for that
//! (`k8s.io/apiserver/plugin/pkg/audit/{buffered,truncate}`).
//!
//! A task per backend takes events from a bounded queue, in batches. In blocking modes a request
//! waits until its event is delivered; in batch mode an event that finds the queue full is lost,
//! and counted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::event::Event;
use super::log::Log;
use super::metrics::AuditMetrics;
use super::webhook::Webhook;

/// Events that wait in blocking modes; further requests wait for a place.
const BLOCKING_QUEUE: usize = 1_024;
/// Batches that are being sent at once.
const SENDING: usize = 64;
/// How long a stopping server waits for what has been collected.
const STOP: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Batch,
    Blocking,
    /// A request whose first event is lost is refused.
    BlockingStrict,
}

/// How events are collected.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    pub mode: Mode,
    pub buffer: usize,
    pub size: usize,
    pub wait: Duration,
    /// Batches a second, and at once after a pause.
    pub throttle: Option<(f64, u32)>,
}

/// How large events and batches may be; `None`: any size.
#[derive(Clone, Copy, Debug)]
pub struct Truncation {
    pub event_bytes: usize,
    pub batch_bytes: usize,
}

/// What delivers events.
pub enum Delivery {
    Log { log: Arc<Mutex<Log>>, legacy: bool },
    Webhook(Arc<Webhook>),
}

/// An encoded event.
struct Item {
    bytes: Bytes,
    delivered: Option<oneshot::Sender<bool>>,
}

/// A backend.
pub struct Backend {
    mode: Mode,
    legacy: bool,
    truncation: Option<Truncation>,
    queue: Mutex<Option<mpsc::Sender<Item>>>,
    task: Mutex<Option<JoinHandle<()>>>,
    metrics: AuditMetrics,
}

impl Backend {
    pub fn start(
        delivery: Delivery,
        batching: Batching,
        truncation: Option<Truncation>,
        metrics: AuditMetrics,
    ) -> Self {
        let blocking = batching.mode != Mode::Batch;
        let length = if blocking { BLOCKING_QUEUE } else { batching.buffer };
        let (queue, events) = mpsc::channel(length);
        let legacy = matches!(delivery, Delivery::Log { legacy: true, .. });
        let worker = Worker {
            delivery,
            batching,
            batch_bytes: truncation.map_or(usize::MAX, |truncation| truncation.batch_bytes),
            metrics: metrics.clone(),
            sending: Arc::new(Semaphore::new(SENDING)),
        };
        Self {
            mode: batching.mode,
            legacy,
            truncation,
            queue: Mutex::new(Some(queue)),
            task: Mutex::new(Some(tokio::spawn(worker.run(events)))),
            metrics,
        }
    }

    /// Takes an event. False: it is lost, and must not be.
    pub async fn process(&self, event: &Event) -> bool {
        let Some(bytes) = self.encode(event) else { return true };
        let Some(queue) = self.queue.lock().clone() else { return true };
        if self.mode == Mode::Batch {
            if queue.try_send(Item { bytes, delivered: None }).is_err() {
                self.metrics.lost("buffered", 1, "audit buffer queue blocked");
            }
            return true;
        }
        let (delivered, outcome) = oneshot::channel();
        let sent = queue.send(Item { bytes, delivered: Some(delivered) }).await.is_ok();
        let kept = sent && outcome.await.unwrap_or(false);
        kept || self.mode == Mode::Blocking
    }

    /// `None`: it is too large, and lost.
    fn encode(&self, event: &Event) -> Option<Bytes> {
        if self.legacy {
            return Some((event.line() + "\n").into());
        }
        let mut json = event.json();
        if let Some(truncation) = self.truncation {
            if json.len() > truncation.event_bytes && event.has_objects() {
                json = event.truncated().json();
            }
            if json.len() > truncation.event_bytes {
                let why = "event is too large even after truncating";
                self.metrics.lost("truncate", 1, why);
                return None;
            }
        }
        json.push(b'\n');
        Some(json.into())
    }

    /// Delivers what has been collected.
    pub async fn stop(&self) {
        drop(self.queue.lock().take());
        let task = self.task.lock().take();
        if let Some(task) = task
            && timeout(STOP, task).await.is_err()
        {
            tracing::warn!("audit events are lost: the server stops");
        }
    }
}

/// The task of a backend.
struct Worker {
    delivery: Delivery,
    batching: Batching,
    batch_bytes: usize,
    metrics: AuditMetrics,
    /// Of batches that are sent beside one another.
    sending: Arc<Semaphore>,
}

impl Worker {
    async fn run(self, mut events: mpsc::Receiver<Item>) {
        let mut throttle = self.batching.throttle.map(|(rate, burst)| Throttle::new(rate, burst));
        let mut next = None;
        while let Some(first) = match next.take() {
            Some(item) => Some(item),
            None => events.recv().await,
        } {
            let batch = self.collect(first, &mut events, &mut next).await;
            if let Some(throttle) = &mut throttle {
                throttle.wait().await;
            }
            self.deliver(batch).await;
        }
        // All that are being sent have ended.
        let all = u32::try_from(SENDING).unwrap_or(u32::MAX);
        drop(self.sending.acquire_many(all).await);
    }

    async fn collect(
        &self,
        first: Item,
        events: &mut mpsc::Receiver<Item>,
        next: &mut Option<Item>,
    ) -> Vec<Item> {
        let batches = self.batching.mode == Mode::Batch;
        let size = if batches { self.batching.size } else { BLOCKING_QUEUE };
        let until = clock::instant() + self.batching.wait;
        let (mut bytes, mut batch) = (first.bytes.len(), vec![first]);
        // A webhook is told of each event of a request that waits by itself.
        let alone = !batches && matches!(self.delivery, Delivery::Webhook(_));
        while batch.len() < size && !alone {
            let more = if batches {
                timeout_at(until, events.recv()).await.ok().flatten()
            } else {
                events.try_recv().ok()
            };
            let Some(item) = more else { break };
            if bytes + item.bytes.len() > self.batch_bytes {
                *next = Some(item);
                break;
            }
            bytes += item.bytes.len();
            batch.push(item);
        }
        batch
    }

    async fn deliver(&self, batch: Vec<Item>) {
        let metrics = self.metrics.clone();
        match &self.delivery {
            Delivery::Log { log, .. } => {
                let log = log.clone();
                let writing = move || write(&log, batch, &metrics);
                if let Err(error) = tokio::task::spawn_blocking(writing).await {
                    tracing::error!(%error, "the writing of audit events failed");
                }
            }
            Delivery::Webhook(webhook) => {
                let webhook = webhook.clone();
                let Ok(permit) = self.sending.clone().acquire_owned().await else { return };
                tokio::spawn(async move {
                    let events: Vec<Bytes> = batch.iter().map(|item| item.bytes.clone()).collect();
                    let sent = webhook.send(&events).await;
                    if let Err(why) = &sent {
                        metrics.lost("webhook", batch.len(), why);
                    }
                    acknowledge(batch, sent.is_ok());
                    drop(permit);
                });
            }
        }
    }
}

fn write(log: &Mutex<Log>, batch: Vec<Item>, metrics: &AuditMetrics) {
    let mut log = log.lock();
    for item in batch {
        let written = log.write(&item.bytes);
        if let Err(error) = &written {
            metrics.lost("log", 1, &error.to_string());
        }
        acknowledge(vec![item], written.is_ok());
    }
}

fn acknowledge(batch: Vec<Item>, delivered: bool) {
    for sender in batch.into_iter().filter_map(|item| item.delivered) {
        // Whoever has gone does not wait for it.
        sender.send(delivered).ok();
    }
}

/// So many batches a second, and some at once after a pause.
struct Throttle {
    rate: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
}

impl Throttle {
    fn new(rate: f64, burst: u32) -> Self {
        Self { rate, burst: burst.into(), tokens: burst.into(), at: clock::instant() }
    }

    async fn wait(&mut self) {
        let now = clock::instant();
        let earned = (now - self.at).as_secs_f64() * self.rate;
        (self.tokens, self.at) = ((self.tokens + earned).min(self.burst) - 1.0, now);
        if self.tokens < 0.0 {
            tokio::time::sleep(Duration::from_secs_f64(-self.tokens / self.rate)).await;
        }
    }
}

#[cfg(test)]
mod tests;
