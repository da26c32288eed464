//! Watching a prefix.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use etcd_client::{
    WatchOptions as WireOptions, WatchResponse, WatchResponseStream, proto::PbWatchRequest,
};
use futures::Stream;
use tokio::sync::mpsc;

use crate::{
    Error, Event, EventKind, ProgressRequester, Result, Revision, Store,
    progress::{self, Marker},
};

/// Options of a watch.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    /// Keys that begin with this.
    pub prefix: Bytes,
    /// The first revision to deliver; [`Revision::NONE`] for changes from now on.
    pub from: Revision,
    /// Whether events include the state before the change.
    pub previous: bool,
}

/// Changes, in order, and the progress of the watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Changes ordered by revision. Empty in the response to a progress request and in a periodic
    /// notification.
    pub events: Vec<Event>,
    /// All changes of the watched keys up to and including this revision have been delivered,
    /// counting this batch.
    pub revision: Revision,
}

/// A running watch: a stream of [`Batch`]es that ends with an error, never silently. Dropping it
/// cancels the watch.
///
/// After [`Error::Compacted`] the caller has to list again; after [`Error::Unavailable`] it can
/// watch again from the revision after the last batch.
pub struct Watch {
    responses: WatchResponseStream,
    requests: mpsc::Sender<PbWatchRequest>,
    store: Store,
    /// Set if the server's progress responses cannot be trusted.
    marker: Option<Arc<Marker>>,
    from: Revision,
    seen: Revision,
    ended: bool,
}

pub(crate) fn closed() -> Error {
    Error::Unavailable(Box::new(etcd_client::Error::WatchError("the watch has ended".to_owned())))
}

impl Store {
    /// Watches a prefix, starting at a revision. The watch is established when this returns.
    ///
    /// # Errors
    /// [`Error::Compacted`] if `from` has been compacted: here or as the stream's first item.
    pub async fn watch(&self, options: WatchOptions) -> Result<Watch> {
        let version = self.etcd().maintenance_client().status().await;
        let version = version.map_err(|error| Error::from_wire(error, options.from))?;
        let trusted = progress::is_trusted(version.version());
        let marker = (!trusted).then(|| Marker::new(&options.prefix));
        let mut wire = WireOptions::new()
            .with_prefix()
            .with_start_revision(options.from.to_wire())
            .with_progress_notify();
        if options.previous {
            wire = wire.with_prev_key();
        }
        let stream = self
            .etcd()
            .watch_client()
            .max_decoding_message_size(usize::MAX)
            .watch(options.prefix, Some(wire))
            .await
            .map_err(|error| Error::from_wire(error, options.from))?;
        let mut watch = Watch {
            responses: stream.response_stream,
            requests: stream.request_sender.0,
            store: self.clone(),
            marker,
            from: options.from,
            seen: Revision::NONE,
            ended: false,
        };
        watch.established().await?;
        Ok(watch)
    }
}

impl Watch {
    /// A handle to request progress while the stream is being read.
    pub fn progress_requester(&self) -> ProgressRequester {
        ProgressRequester::new(&self.store, self.requests.clone(), self.marker.clone())
    }

    async fn established(&mut self) -> Result<()> {
        let response =
            self.responses.message().await.map_err(|error| Error::from_wire(error, self.from))?;
        let response = response.ok_or_else(closed)?;
        if response.canceled() {
            return Err(self.cancelled(&response));
        }
        let now = response.header().map(|header| Revision::from_wire(header.revision()));
        let now = now.ok_or(Error::Malformed { operation: "a watch", part: "header" })?;
        if self.from.is_none() {
            self.from = now.next();
        }
        self.seen = Revision::new(self.from.get() - 1);
        Ok(())
    }

    fn cancelled(&self, response: &WatchResponse) -> Error {
        if response.compact_revision() > 0 {
            let oldest = Some(Revision::from_wire(response.compact_revision()));
            return Error::Compacted { requested: self.from, oldest };
        }
        let reason = match response.cancel_reason() {
            "" => "the server cancelled the watch",
            reason => reason,
        };
        if reason.contains("has been compacted") {
            return Error::Compacted { requested: self.from, oldest: None };
        }
        Error::Unavailable(Box::new(etcd_client::Error::WatchError(reason.to_owned())))
    }

    fn batch(&mut self, response: WatchResponse) -> Result<Batch> {
        if response.canceled() {
            return Err(self.cancelled(&response));
        }
        let header = response.header().map(|header| Revision::from_wire(header.revision()));
        let events: Option<Vec<Event>> =
            response.0.events.into_iter().map(Event::from_wire).collect();
        let mut events =
            events.ok_or(Error::Malformed { operation: "a watch", part: "key and value" })?;
        // While a watch is catching up, the revision in the header is ahead of the events in the
        // same message.
        let revision = match events.last() {
            Some(event) => event.entry.mod_revision,
            None => header.ok_or(Error::Malformed { operation: "a watch", part: "header" })?,
        };
        let all = events.len();
        events.retain(|event| !progress::is_marker(&event.entry.key));
        if let Some(marker) = self.marker.as_ref().filter(|_| events.len() < all) {
            marker.arrived();
        }
        // One value whose key is held by others must not hold up the changes of all others.
        if self.store.transformer.is_some() {
            let open = |mut event: Event| {
                if event.kind != EventKind::Deleted {
                    event.entry = self.store.open_now(event.entry);
                }
                event.previous = event.previous.map(|previous| self.store.open_now(previous));
                event
            };
            events = events.into_iter().map(open).collect();
        }
        self.seen = self.seen.max(revision);
        Ok(Batch { events, revision: self.seen })
    }
}

impl Stream for Watch {
    type Item = Result<Batch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        loop {
            let item = match ready!(Pin::new(&mut self.responses).poll_next(cx)) {
                Some(Ok(response)) if response.created() && !response.canceled() => continue,
                Some(Ok(response)) => self.batch(response),
                Some(Err(error)) => Err(Error::from_wire(error, self.from)),
                None => Err(closed()),
            };
            self.ended = item.is_err();
            return Poll::Ready(Some(item));
        }
    }
}
