//! etcd's Watch service: one task per stream, with any number of watches.
//!
//! A watch is a position in history. The task waits until history grows or a request arrives, then
//! advances each watch to the durable revision, reading the recent changes in memory or, further
//! back, the file. A slow client thus blocks no one and costs no memory. A commit costs a wake-up
//! per stream and, per watch, a comparison for each changed key and a copy of each selected change.
//! Events are durable, in order and without gaps, and a progress message holds for all watches of
//! its stream.

use std::{sync::Arc, time::Duration};

use etcd_client::proto::{PbWatchRequest, PbWatchRequestUnion, PbWatchResponse, PbWatchService};
use tokio::{
    sync::mpsc,
    task,
    time::{self, Interval, MissedTickBehavior},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{
    engine::Engine,
    record::wire,
    refusal,
    shared::Shared,
    watcher::{self, NewWatch, Step, Watcher, empty_response},
};

/// How many messages are buffered for a slow client.
const SENT_AHEAD: usize = 16;
/// The watch id in responses that concern no particular watch.
const NO_WATCH: i64 = -1;

/// The service.
pub(super) struct WatchService {
    pub(super) engine: Arc<Engine>,
    /// The interval of progress notifications to idle watches that requested them.
    pub(super) progress_interval: Duration,
}

#[tonic::async_trait]
impl PbWatchService for WatchService {
    type WatchStream = ReceiverStream<Result<PbWatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<PbWatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (sender, receiver) = mpsc::channel(SENT_AHEAD);
        let mut ticks =
            time::interval_at(clock::instant() + self.progress_interval, self.progress_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stream = Stream {
            shared: self.engine.shared.clone(),
            stopped: self.engine.stopped.clone(),
            sender,
            watchers: Vec::new(),
            next_id: 0,
            progress_requested: false,
        };
        task::spawn(stream.run(request.into_inner(), ticks));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

struct Stream {
    shared: Arc<Shared>,
    stopped: CancellationToken,
    sender: mpsc::Sender<Result<PbWatchResponse, Status>>,
    watchers: Vec<Watcher>,
    next_id: i64,
    progress_requested: bool,
}

/// The client has disconnected, or the stream has been ended with an error.
struct Ended;

impl Stream {
    async fn run(mut self, mut requests: Streaming<PbWatchRequest>, mut ticks: Interval) {
        let mut durable = self.shared.recent.subscribe();
        loop {
            let current = *durable.borrow_and_update();
            let Ok(behind) = self.advance(current).await else {
                return;
            };
            if !behind && std::mem::take(&mut self.progress_requested) {
                let progress = empty_response(self.shared.header(current), NO_WATCH);
                if self.send(progress).await.is_err() {
                    return;
                }
            }
            let notify = self.watchers.iter().any(|watcher| watcher.progress_notify);
            let stopped = self.stopped.clone();
            let handled = tokio::select! {
                biased;
                () = stopped.cancelled() => {
                    self.sender.send(Err(refusal::stopped())).await.ok();
                    return;
                }
                () = self.sender.closed() => return,
                request = requests.message() => match request {
                    Ok(Some(PbWatchRequest { request_union: Some(request) })) => self.handle(request).await,
                    Ok(Some(_)) => Ok(()),
                    Ok(None) | Err(_) => return,
                },
                () = std::future::ready(()), if behind => Ok(()),
                // Cannot fail: the sender lives in `shared`.
                _ = durable.changed() => Ok(()),
                _ = ticks.tick(), if notify => self.notify(current).await,
            };
            if handled.is_err() {
                return;
            }
        }
    }

    /// Advances each watch by one step; returns whether any is still behind `current`.
    async fn advance(&mut self, current: u64) -> Result<bool, Ended> {
        let mut index = 0;
        let mut behind = false;
        while let Some(watcher) = self.watchers.get(index) {
            if watcher.next > current {
                index += 1;
                continue;
            }
            let step = match watcher.step_in_memory(&self.shared, current) {
                Some(step) => step,
                None => self.step_in_file(index, current).await?,
            };
            match step {
                Ok(Step::Events(events, next)) => {
                    let watcher = &mut self.watchers[index];
                    watcher.next = next;
                    behind |= next <= current;
                    if !events.is_empty() {
                        watcher.active = true;
                        for message in watcher.messages(self.shared.header(next - 1), events) {
                            self.send(message).await?;
                        }
                    }
                    index += 1;
                }
                Ok(Step::Compacted(compacted)) => {
                    let watcher = self.watchers.remove(index);
                    self.send_compacted(watcher.id, compacted).await?;
                }
                Err(error) => return self.fail(refusal::storage(&error)).await,
            }
        }
        Ok(behind)
    }

    /// Reads history on a blocking thread. The watch is put back at its index.
    async fn step_in_file(
        &mut self,
        index: usize,
        current: u64,
    ) -> Result<Result<Step, redb::Error>, Ended> {
        let watcher = self.watchers.remove(index);
        let shared = self.shared.clone();
        let read = task::spawn_blocking(move || {
            let step = watcher.step_in_file(&shared, current);
            (watcher, step)
        });
        match read.await {
            Ok((watcher, step)) => {
                self.watchers.insert(index, watcher);
                Ok(step)
            }
            Err(error) => self.fail(Status::internal(error.to_string())).await,
        }
    }

    async fn handle(&mut self, request: PbWatchRequestUnion) -> Result<(), Ended> {
        match request {
            PbWatchRequestUnion::CancelRequest(request) => self.cancel(request.watch_id).await,
            PbWatchRequestUnion::ProgressRequest(_) => {
                self.progress_requested = true;
                Ok(())
            }
            create => match watcher::from_request(create) {
                Some(requested) => self.create(requested).await,
                None => Ok(()),
            },
        }
    }

    async fn create(&mut self, requested: NewWatch) -> Result<(), Ended> {
        let NewWatch { start, id, mut watcher } = requested;
        let refused = if watcher.range.is_empty() {
            Some("mvcc: watcher range is empty")
        } else if id != 0 && self.watchers.iter().any(|watcher| watcher.id == id) {
            Some("mvcc: duplicate watch ID provided on the WatchStream")
        } else {
            None
        };
        let (current, compacted) = {
            let state = self.shared.read();
            (state.view().revision, state.index.compacted)
        };
        let header = self.shared.header(current);
        if let Some(reason) = refused {
            let refusal = PbWatchResponse {
                created: true,
                canceled: true,
                cancel_reason: reason.to_owned(),
                ..empty_response(header, NO_WATCH)
            };
            return self.send(refusal).await;
        }
        watcher.id = if id == 0 { self.fresh_id() } else { id };
        watcher.next = if start == 0 { current + 1 } else { start };
        self.send(PbWatchResponse { created: true, ..empty_response(header, watcher.id) }).await?;
        if watcher.next < compacted {
            return self.send_compacted(watcher.id, compacted).await;
        }
        self.watchers.push(watcher);
        Ok(())
    }

    fn fresh_id(&mut self) -> i64 {
        while self.watchers.iter().any(|watcher| watcher.id == self.next_id) {
            self.next_id += 1;
        }
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    async fn cancel(&mut self, id: i64) -> Result<(), Ended> {
        let Some(index) = self.watchers.iter().position(|watcher| watcher.id == id) else {
            return Ok(());
        };
        self.watchers.remove(index);
        let header = self.shared.header(self.shared.revision());
        self.send(PbWatchResponse { canceled: true, ..empty_response(header, id) }).await
    }

    /// Sends progress notifications to the idle watches that are up to date.
    async fn notify(&mut self, current: u64) -> Result<(), Ended> {
        let header = self.shared.header(current);
        let mut quiet = Vec::new();
        for watcher in self.watchers.iter_mut().filter(|watcher| watcher.progress_notify) {
            if !std::mem::take(&mut watcher.active) && watcher.next > current {
                quiet.push(watcher.id);
            }
        }
        for id in quiet {
            self.send(empty_response(header, id)).await?;
        }
        Ok(())
    }

    /// As in etcd, the header of this message has no revision.
    async fn send_compacted(&self, id: i64, compacted: u64) -> Result<(), Ended> {
        let response = PbWatchResponse {
            canceled: true,
            compact_revision: wire(compacted),
            ..empty_response(self.shared.header(0), id)
        };
        self.send(response).await
    }

    async fn send(&self, response: PbWatchResponse) -> Result<(), Ended> {
        self.sender.send(Ok(response)).await.map_err(|_| Ended)
    }

    async fn fail<T>(&self, status: Status) -> Result<T, Ended> {
        tracing::error!(%status, "a watch stream failed");
        self.sender.send(Err(status)).await.ok();
        Err(Ended)
    }
}
