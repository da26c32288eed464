//! Validates requests and routes them: reads to the durable view, writes to the writer.

use std::sync::Arc;

use etcd_client::proto::{
    PbDeleteRequest, PbDeleteResponse, PbLeaseGrantResponse, PbPutRequest, PbPutResponse,
    PbRangeRequest, PbRangeResponse, PbResponseHeader, PbTxnOpRequest, PbTxnOpResponse,
    PbTxnRequest, PbTxnResponse,
};
use tokio::{
    sync::{mpsc, oneshot},
    task,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;

use super::{
    apply::{Failure, Request, Response},
    check,
    range::{self, ReadPoint},
    record::wire,
    refusal,
    shared::{Shared, State},
    tables::{Place, View},
    txn::{self, Executor},
    writer::{Command, Reply},
};

/// A range of more records than this is read on a blocking thread.
const INLINE_READS: usize = 64;

/// The store behind all services.
pub(super) struct Engine {
    pub(super) shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    pub(super) place: Place,
    quota_bytes: u64,
    /// Cancelled when the store stops; this ends the watches and the lease task.
    pub(super) stopped: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl Engine {
    pub(super) fn new(
        shared: Arc<Shared>,
        commands: mpsc::Sender<Command>,
        place: Place,
        quota_bytes: u64,
    ) -> Engine {
        let stopped = CancellationToken::new();
        let guard = stopped.clone().drop_guard();
        Engine { shared, commands, place, quota_bytes, stopped, _stop_on_drop: guard }
    }

    /// The header of a response about the current state.
    pub(super) fn header(&self) -> PbResponseHeader {
        self.shared.header(self.shared.revision())
    }

    /// Whether the records exceed the quota. Deleting keys and compacting frees space.
    pub(super) fn is_full(&self) -> bool {
        self.shared.read().index.record_bytes > self.quota_bytes
    }

    pub(super) async fn range(&self, request: PbRangeRequest) -> Result<PbRangeResponse, Status> {
        self.check_running()?;
        check::range(&request)?;
        let (view, selection) = {
            let state = self.shared.read();
            let view = state.view();
            let selection = range::plan(&state.index, &request, durable(&view))?;
            (view, selection)
        };
        let revision = view.revision;
        let response = if selection.reads() > INLINE_READS {
            let read = task::spawn_blocking(move || selection.fetch(&view.history));
            read.await.map_err(|error| Status::internal(error.to_string()))?
        } else {
            selection.fetch(&view.history)
        };
        let mut response = response.map_err(|error| refusal::storage(&error))?;
        response.header = Some(self.shared.header(revision));
        Ok(response)
    }

    pub(super) async fn put(&self, request: PbPutRequest) -> Result<PbPutResponse, Status> {
        check::put(&request)?;
        check::size(&request)?;
        self.check_space()?;
        match self.apply(Request::Put(request)).await? {
            Response::Put(response) => Ok(response),
            _ => unreachable!("a put is answered as a put"),
        }
    }

    pub(super) async fn delete(
        &self,
        request: PbDeleteRequest,
    ) -> Result<PbDeleteResponse, Status> {
        check::delete(&request)?;
        check::size(&request)?;
        match self.apply(Request::Delete(request)).await? {
            Response::Delete(response) => Ok(response),
            _ => unreachable!("a deletion is answered as a deletion"),
        }
    }

    pub(super) async fn txn(&self, request: PbTxnRequest) -> Result<PbTxnResponse, Status> {
        self.check_running()?;
        check::txn(&request)?;
        check::size(&request)?;
        let request = match self.read_only_txn(request)? {
            ReadOnly::Done(response) => return Ok(response),
            ReadOnly::Writes(request) => request,
        };
        if check::puts(&request) {
            self.check_space()?;
        }
        match self.apply(Request::Txn(request)).await? {
            Response::Txn(response) => Ok(response),
            _ => unreachable!("a transaction is answered as a transaction"),
        }
    }

    /// Executes a transaction against the durable state if the branch taken there only reads.
    /// Queued writes are not acknowledged yet, so they may be ordered after it.
    fn read_only_txn(&self, request: PbTxnRequest) -> Result<ReadOnly, Status> {
        let state = self.shared.read();
        let view = state.view();
        let judged = txn::State { index: &state.index, history: &view.history, at: durable(&view) };
        let path = judged.path(&request).map_err(|error| refusal::storage(&error))?;
        if !txn::only_reads(&request, &path) {
            return Ok(ReadOnly::Writes(request));
        }
        judged.check(&request, &path, &|id| self.shared.leases.contains(id))?;
        let mut reader = Reader { state: &state, view: &view };
        let mut response =
            txn::execute(&mut reader, request, path).map_err(|failure| match failure {
                Failure::Refused(status) => status,
                Failure::Storage(error) => refusal::storage(&error),
            })?;
        response.header = Some(self.shared.header(view.revision));
        Ok(ReadOnly::Done(response))
    }

    pub(super) async fn compact(
        &self,
        revision: i64,
        physical: bool,
    ) -> Result<PbResponseHeader, Status> {
        let header = self.apply_plain(Request::Compact { revision }).await?;
        if physical {
            self.command(Command::Pruned).await?;
        }
        Ok(header)
    }

    pub(super) async fn grant(&self, id: i64, ttl: u64) -> Result<PbLeaseGrantResponse, Status> {
        self.check_space()?;
        match self.apply(Request::Grant { id, ttl }).await? {
            Response::Grant(response) => Ok(response),
            _ => unreachable!("a grant is answered as a grant"),
        }
    }

    pub(super) async fn revoke(&self, id: i64) -> Result<PbResponseHeader, Status> {
        self.apply_plain(Request::Revoke { id }).await
    }

    /// Returns when the writer has answered.
    pub(super) async fn ping(&self) -> Result<(), Status> {
        self.command(Command::Ping).await
    }

    pub(super) async fn defragment(&self) -> Result<(), Status> {
        self.command(Command::Defragment).await
    }

    /// Ends the watches, finishes the writes that have been accepted, and closes the file.
    pub(super) async fn stop(&self) -> Result<(), Status> {
        self.stopped.cancel();
        self.command(Command::Stop).await
    }

    /// The newest durable revision.
    pub(super) fn newest(&self) -> Result<u64, Status> {
        self.check_running()?;
        Ok(self.shared.revision())
    }

    fn check_running(&self) -> Result<(), Status> {
        if self.stopped.is_cancelled() { Err(refusal::stopped()) } else { Ok(()) }
    }

    fn check_space(&self) -> Result<(), Status> {
        if self.is_full() { Err(refusal::no_space()) } else { Ok(()) }
    }

    async fn apply_plain(&self, request: Request) -> Result<PbResponseHeader, Status> {
        match self.apply(request).await? {
            Response::Done(header) => Ok(header),
            _ => unreachable!("the other requests are answered with a header"),
        }
    }

    async fn apply(&self, request: Request) -> Result<Response, Status> {
        self.command(|reply| Command::Apply { request, reply }).await
    }

    async fn command<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Status> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| refusal::stopped())?;
        answer.await.map_err(|_| refusal::stopped())?
    }
}

fn durable(view: &View) -> ReadPoint {
    ReadPoint { revision: view.revision, pending: false }
}

/// The result of trying a transaction against the durable state.
enum ReadOnly {
    Done(PbTxnResponse),
    /// The transaction writes, so the writer has to execute it.
    Writes(PbTxnRequest),
}

/// Executes the ranges of a read-only transaction.
struct Reader<'a> {
    state: &'a State,
    view: &'a View,
}

impl Executor for Reader<'_> {
    fn execute(&mut self, operation: PbTxnOpRequest) -> Result<PbTxnOpResponse, Failure> {
        let PbTxnOpRequest::RequestRange(request) = operation else {
            unreachable!("a transaction that only reads has only ranges");
        };
        let selection = range::plan(&self.state.index, &request, durable(self.view))?;
        let mut response = selection.fetch(&self.view.history)?;
        let revision = wire(self.view.revision);
        response.header = Some(PbResponseHeader { revision, ..PbResponseHeader::default() });
        Ok(PbTxnOpResponse::ResponseRange(response))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tempfile::TempDir;

    use super::*;
    use crate::embedded::writer::QUEUE_LENGTH;
    use crate::embedded::{Embedded, EmbeddedConfig};
    use crate::{Outcome, Revision, Store};

    async fn open(folder: &TempDir) -> (Embedded, Store) {
        let embedded = Embedded::open(EmbeddedConfig::new(folder.path())).await.unwrap();
        let store = embedded.store().await.unwrap();
        (embedded, store)
    }

    async fn create(store: &Store, key: &'static str) -> Revision {
        match store.create(Bytes::from(key), Bytes::from("value")).await.unwrap() {
            Outcome::Written(revision) => revision,
            conflict => panic!("{conflict:?}"),
        }
    }

    /// Reads alone do not notice that nothing can be written any more.
    #[tokio::test]
    async fn a_ping_notices_that_the_writer_has_ended() {
        let folder = TempDir::new().unwrap();
        let (embedded, store) = open(&folder).await;
        store.ping().await.unwrap();
        embedded.engine.command(Command::Stop).await.unwrap();
        store.current_revision().await.unwrap();
        assert!(store.ping().await.is_err());
    }

    /// While the writer is busy, as many commands as the queue holds are accepted; others wait, and
    /// all are executed.
    #[tokio::test]
    async fn no_more_writes_wait_for_the_disk_than_the_bound() {
        let folder = TempDir::new().unwrap();
        let (embedded, store) = open(&folder).await;
        let engine = embedded.engine.clone();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let shared = engine.shared.clone();
        let (held, holds) = oneshot::channel();
        // The writer makes nothing visible while someone reads.
        let reader = std::thread::spawn(move || {
            let _state = shared.read();
            held.send(()).unwrap();
            released.recv().unwrap();
        });
        holds.await.unwrap();
        let mut commands = Vec::new();
        commands.push(tokio::spawn(async move {
            create(&store, "/a").await;
        }));
        for _ in 0..2 * QUEUE_LENGTH {
            let engine = engine.clone();
            commands
                .push(tokio::spawn(async move { engine.command(Command::Ping).await.unwrap() }));
        }
        while engine.commands.capacity() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(commands.iter().all(|command| !command.is_finished()));
        release.send(()).unwrap();
        for command in commands {
            command.await.unwrap();
        }
        assert_eq!(engine.commands.capacity(), QUEUE_LENGTH);
        reader.join().unwrap();
    }

    /// A read that is in progress neither delays a defragmentation nor is disturbed by it, and
    /// other reads go on; what is written afterwards is in the new file.
    #[tokio::test]
    async fn reads_continue_while_the_file_is_rewritten() {
        let folder = TempDir::new().unwrap();
        let (embedded, store) = open(&folder).await;
        let first = create(&store, "/a").await;
        let (view, position) = {
            let state = embedded.engine.shared.read();
            let version = *state.index.get(b"/a", first.get()).unwrap();
            (state.view(), version.position())
        };
        embedded.engine.defragment().await.unwrap();
        let read = || crate::embedded::tables::fetch(&view.history, position, |r| r.key.to_vec());
        assert_eq!(read().unwrap(), b"/a");
        assert!(store.get(Bytes::from("/a")).await.unwrap().entry.is_some());
        create(&store, "/b").await;
        embedded.engine.defragment().await.unwrap();
        assert_eq!(read().unwrap(), b"/a");
        embedded.stop().await.unwrap();
        let (_embedded, store) = open(&folder).await;
        for key in ["/a", "/b"] {
            assert!(store.get(Bytes::from(key)).await.unwrap().entry.is_some(), "{key}");
        }
        let files = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(files, 1, "nothing but the file is left");
    }
}
