//! Watches over the wire.

use etcd_client::{
    WatchFilterType,
    proto::{
        PbDeleteRequest, PbEvent, PbTxnOpRequest, PbTxnRequest, PbTxnRequestOp, PbWatchRequest,
        PbWatchRequestUnion, PbWatchResponse,
    },
};
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{
    pair::Pair,
    raw::{Call, Raw, compact, delete, header, key_of, put},
};

/// A watch create request, with defaults.
#[derive(Debug, Clone, Copy, Default)]
pub struct WatchSpec<'a> {
    pub key: &'a str,
    pub end: &'a str,
    pub from: i64,
    pub id: i64,
    pub prev_kv: bool,
    pub fragment: bool,
    pub progress_notify: bool,
    pub without: Option<WatchFilterType>,
}

/// A watch stream to one server.
struct Stream {
    requests: mpsc::Sender<PbWatchRequest>,
    answers: Streaming<PbWatchResponse>,
}

impl Stream {
    async fn open(raw: &mut Raw, first: WatchSpec<'_>) -> Stream {
        let (requests, receiver) = mpsc::channel(16);
        requests.send(create(first)).await.unwrap();
        Stream { requests, answers: raw.watch(ReceiverStream::new(receiver)).await }
    }

    async fn next(&mut self) -> PbWatchResponse {
        let mut answer = self.answers.message().await.unwrap().expect("the stream continues");
        header(&mut answer.header);
        answer
    }

    /// The next `count` events of one watch; servers may split them into messages differently.
    async fn events(&mut self, watch_id: i64, count: usize) -> Vec<PbEvent> {
        let mut events = Vec::new();
        while events.len() < count {
            let answer = self.next().await;
            assert!(!answer.canceled && !answer.created, "{answer:?}");
            assert_eq!(answer.watch_id, watch_id);
            let revision = answer.header.unwrap().revision;
            assert!(
                answer
                    .events
                    .iter()
                    .all(|event| event.kv.as_ref().unwrap().mod_revision <= revision)
            );
            events.extend(answer.events);
        }
        events
    }
}

fn create(spec: WatchSpec<'_>) -> PbWatchRequest {
    // The type of the request is not exported by its crate.
    let PbWatchRequestUnion::CreateRequest(mut create) =
        PbWatchRequestUnion::CreateRequest(Default::default())
    else {
        unreachable!()
    };
    (create.key, create.range_end) = (spec.key.into(), spec.end.into());
    (create.start_revision, create.watch_id) = (spec.from, spec.id);
    (create.prev_kv, create.fragment, create.progress_notify) =
        (spec.prev_kv, spec.fragment, spec.progress_notify);
    create.filters = spec.without.into_iter().map(|filter| filter as i32).collect();
    PbWatchRequest { request_union: Some(PbWatchRequestUnion::CreateRequest(create)) }
}

fn cancel(id: i64) -> PbWatchRequest {
    let PbWatchRequestUnion::CancelRequest(mut cancel) =
        PbWatchRequestUnion::CancelRequest(Default::default())
    else {
        unreachable!()
    };
    cancel.watch_id = id;
    PbWatchRequest { request_union: Some(PbWatchRequestUnion::CancelRequest(cancel)) }
}

fn progress() -> PbWatchRequest {
    PbWatchRequest { request_union: Some(PbWatchRequestUnion::ProgressRequest(Default::default())) }
}

/// A stream to each server.
struct Streams([Stream; 2]);

impl Streams {
    async fn open(pair: &mut Pair, first: WatchSpec<'_>) -> Streams {
        Streams([
            Stream::open(&mut pair.etcd, first).await,
            Stream::open(&mut pair.embedded, first).await,
        ])
    }

    async fn send(&self, request: PbWatchRequest) {
        for stream in &self.0 {
            stream.requests.send(request.clone()).await.unwrap();
        }
    }

    /// The next message, which must be the same from both.
    async fn same(&mut self) -> PbWatchResponse {
        let mut answers = join_all(self.0.iter_mut().map(Stream::next)).await;
        let (embedded, etcd) = (answers.pop().unwrap(), answers.pop().unwrap());
        assert_eq!(embedded, etcd, "embedded (left) and etcd (right) differ");
        etcd
    }

    async fn same_events(&mut self, watch_id: i64, count: usize) -> Vec<PbEvent> {
        let mut events =
            join_all(self.0.iter_mut().map(|stream| stream.events(watch_id, count))).await;
        let (embedded, etcd) = (events.pop().unwrap(), events.pop().unwrap());
        assert_eq!(embedded, etcd, "embedded (left) and etcd (right) differ");
        etcd
    }
}

/// Checks that the same watch delivers the same from both servers: its creation, then `count`
/// events.
pub async fn same_history(pair: &mut Pair, spec: WatchSpec<'_>, count: usize) {
    let mut streams = Streams::open(pair, spec).await;
    streams.same().await;
    streams.same_events(0, count).await;
}

async fn filled() -> Pair {
    let mut pair = Pair::start().await;
    for (key, value) in [("a", "1"), ("b", "2"), ("a", "3"), ("x", "4")] {
        pair.same(Call::Put(put(key, value))).await;
    }
    pair.same(Call::Delete(delete("a", "c"))).await;
    pair.same(Call::Put(put("a", "5"))).await;
    pair
}

#[tokio::test]
async fn history() {
    let mut pair = filled().await;
    let all = WatchSpec { key: "\0", end: "\0", ..WatchSpec::default() };
    same_history(&mut pair, WatchSpec { from: 1, ..all }, 7).await;
    same_history(&mut pair, WatchSpec { from: 4, prev_kv: true, ..all }, 5).await;
    same_history(&mut pair, WatchSpec { key: "a", from: 1, ..WatchSpec::default() }, 4).await;
    same_history(&mut pair, WatchSpec { key: "a", end: "b", from: 1, ..WatchSpec::default() }, 4)
        .await;
    same_history(&mut pair, WatchSpec { key: "b", end: "\0", from: 1, ..WatchSpec::default() }, 3)
        .await;
    same_history(&mut pair, WatchSpec { key: "", end: "\0", from: 1, ..WatchSpec::default() }, 7)
        .await;
    same_history(&mut pair, WatchSpec { from: 1, without: Some(WatchFilterType::NoPut), ..all }, 2)
        .await;
    same_history(
        &mut pair,
        WatchSpec { from: 1, without: Some(WatchFilterType::NoDelete), ..all },
        5,
    )
    .await;
}

#[tokio::test]
async fn present_and_future() {
    let mut pair = filled().await;
    let mut streams =
        Streams::open(&mut pair, WatchSpec { key: "a", end: "c", ..WatchSpec::default() }).await;
    assert_eq!(streams.same().await.watch_id, 0);
    streams
        .send(create(WatchSpec {
            key: "a",
            end: "c",
            from: 9,
            prev_kv: true,
            ..WatchSpec::default()
        }))
        .await;
    assert_eq!(streams.same().await.watch_id, 1);
    pair.same(Call::Put(put("a", "8"))).await;
    assert_eq!(streams.same().await.events.len(), 1);
    streams.send(cancel(0)).await;
    assert!(streams.same().await.canceled);
    pair.same(Call::Put(put("outside", "9"))).await;
    let operations =
        [put("b", "10"), put("a", "10"), put("c", "10")].map(PbTxnOpRequest::RequestPut);
    let success = operations.map(|put| PbTxnRequestOp { request: Some(put) }).to_vec();
    pair.same(Call::Txn(PbTxnRequest { success, ..PbTxnRequest::default() })).await;
    assert_eq!(streams.same().await.events.len(), 2);
    pair.same(Call::Delete(PbDeleteRequest { prev_kv: true, ..delete("a", "c") })).await;
    assert_eq!(streams.same().await.events.len(), 2);
}

#[tokio::test]
async fn ids_and_rejections() {
    let mut pair = filled().await;
    let mut streams =
        Streams::open(&mut pair, WatchSpec { key: "a", id: 1, ..WatchSpec::default() }).await;
    assert_eq!(streams.same().await.watch_id, 1);
    for spec in [
        WatchSpec { key: "a", id: 1, ..WatchSpec::default() },
        WatchSpec { key: "b", ..WatchSpec::default() },
        WatchSpec { key: "b", ..WatchSpec::default() },
        WatchSpec { key: "c", end: "a", ..WatchSpec::default() },
        WatchSpec { key: "b", id: 77, ..WatchSpec::default() },
    ] {
        streams.send(create(spec)).await;
        streams.same().await;
    }
    // Cancelling a watch that does not exist gets no response.
    streams.send(cancel(5)).await;
    streams.send(cancel(77)).await;
    let ended = streams.same().await;
    assert_eq!((ended.watch_id, ended.canceled), (77, true));
}

#[tokio::test]
async fn progress_on_request() {
    let mut pair = filled().await;
    let mut streams =
        Streams::open(&mut pair, WatchSpec { key: "a", ..WatchSpec::default() }).await;
    streams.same().await;
    pair.same(Call::Put(put("outside", "1"))).await;
    streams.send(progress()).await;
    let progress = streams.same().await;
    let revision = progress.header.unwrap().revision;
    assert_eq!((progress.watch_id, revision, progress.events.len()), (-1, 8, 0));
}

#[tokio::test]
async fn periodic_progress() {
    // Not a pair, whose interval is the default of ten minutes.
    for backend in
        [crate::backend::Backend::etcd().await, crate::backend::Backend::embedded().await]
    {
        let mut client = backend.store.etcd();
        let options = etcd_client::WatchOptions::new().with_progress_notify();
        let mut watch = client.watch("a", Some(options)).await.unwrap();
        assert!(watch.message().await.unwrap().unwrap().created());
        client.put("outside", "1", None).await.unwrap();
        // One may have been sent before the put.
        let mut revision = 0;
        while revision < 2 {
            let message = watch.message().await.unwrap().unwrap();
            assert_eq!((message.watch_id(), message.events().len()), (0, 0));
            revision = message.header().unwrap().revision();
        }
        assert_eq!(revision, 2);
    }
}

#[tokio::test]
async fn compacted() {
    let mut pair = filled().await;
    pair.same(compact(4)).await;
    for (from, gone) in [(1, true), (3, true), (4, false), (5, false)] {
        let spec = WatchSpec { key: "\0", end: "\0", from, prev_kv: true, ..WatchSpec::default() };
        let mut streams = Streams::open(&mut pair, spec).await;
        assert!(streams.same().await.created);
        if gone {
            let ended = streams.same().await;
            assert_eq!((ended.canceled, ended.compact_revision), (true, 4));
        } else {
            let count = if from == 4 { 5 } else { 4 };
            streams.same_events(0, count).await;
        }
    }
}

#[tokio::test]
async fn large_revisions_are_fragmented() {
    let mut pair = Pair::start().await;
    for part in ["a", "b", "c", "d"] {
        pair.same(Call::Put(put(part, &part.repeat(1 << 20)))).await;
    }
    pair.same(Call::Delete(delete("a", "d"))).await;
    let spec = WatchSpec {
        key: "\0",
        end: "\0",
        from: 6,
        prev_kv: true,
        fragment: true,
        ..WatchSpec::default()
    };
    let mut streams = Streams::open(&mut pair, spec).await;
    assert!(streams.same().await.created);
    for (last, fragment) in [("a", true), ("b", true), ("c", false)] {
        let piece = streams.same().await;
        assert_eq!((piece.events.len(), piece.fragment), (1, fragment));
        assert_eq!(key_of(&piece.events[0].kv), last);
    }
    streams.send(create(WatchSpec { fragment: false, ..spec })).await;
    streams.same().await;
    assert_eq!(streams.same().await.events.len(), 3);
}
