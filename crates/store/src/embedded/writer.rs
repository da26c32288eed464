//! The writer: a thread that owns the file.
//!
//! Flow of a write: it waits in a bounded queue; the writer takes everything that has accumulated
//! there during the previous flush, applies it in order to one redb transaction, commits with one
//! flush, publishes the new view, passes the changes to the watches, and only then responds.
//! Responses and events thus always reflect durable state, and the cost of a flush is shared by all
//! writes that waited for it. Requests that change nothing (a failed comparison) are answered
//! together with the batch they arrived in.
//!
//! If the file fails, the whole transaction is rolled back, its requests fail, and the file is
//! reopened.

use std::{path::Path, sync::Arc, thread, time::Duration};

use redb::Database;
use tempfile::NamedTempFile;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use super::{
    apply::{Applied, Applier, Failure, Request, Response},
    refusal,
    shared::Shared,
    sync_directory,
    tables::{self, Place, View},
};

/// The capacity of the queue of writes; further callers wait for capacity.
pub(super) const QUEUE_LENGTH: usize = 4_096;
/// The maximum number of writes that share a flush.
const BATCH_COMMANDS: usize = 2_048;
/// How long to wait for a batch as large as the last one; a fraction of a flush.
const GATHER_TIME: Duration = Duration::from_micros(100);

pub(super) type Reply<T> = oneshot::Sender<Result<T, Status>>;

pub(super) enum Command {
    Apply {
        request: Request,
        reply: Reply<Response>,
    },
    /// Answered once the records of compacted versions have been deleted.
    Pruned(Reply<()>),
    /// Rewrites the file to reclaim unused space.
    Defragment(Reply<()>),
    /// Answered after the writes before it.
    Ping(Reply<()>),
    /// Closes the file. Later commands fail.
    Stop(Reply<()>),
}

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) place: Place,
    /// Absent if the file has failed and could not be reopened.
    pub(super) database: Option<Database>,
    pub(super) pruning: Option<Pruning>,
    /// The size of the last batch, which predicts the next one.
    pub(super) expected: usize,
}

/// A compaction whose records are being deleted.
#[derive(Default)]
pub(super) struct Pruning {
    cursor: Option<Box<[u8]>>,
    waiting: Vec<Reply<()>>,
}

/// A batch of writes, and the one command that has to run by itself after them.
#[derive(Default)]
struct Batch {
    writes: Vec<(Request, Reply<Response>)>,
    then: Option<Command>,
}

impl Writer {
    /// Runs until it is stopped or all senders are gone.
    pub(super) fn run(mut self) {
        while let Some(batch) = self.gather() {
            if !batch.writes.is_empty() || self.pruning.is_some() {
                self.write(batch.writes);
            }
            match batch.then {
                None | Some(Command::Apply { .. }) => {}
                Some(Command::Pruned(reply)) => self.pruned(reply),
                Some(Command::Ping(reply)) => answer(reply, self.check()),
                Some(Command::Defragment(reply)) => answer(reply, self.defragment()),
                Some(Command::Stop(reply)) => {
                    self.close();
                    answer(reply, Ok(()));
                    return;
                }
            }
        }
        self.close();
    }

    /// Collects a batch. Clients that were answered together return one after another: without a
    /// short wait, the first of them would get a flush of its own and the others would wait for the
    /// next.
    fn gather(&mut self) -> Option<Batch> {
        let mut batch = Batch::default();
        if self.pruning.is_none() {
            batch.add(self.commands.blocking_recv()?);
        }
        let deadline = clock::instant() + GATHER_TIME;
        while batch.then.is_none() && batch.writes.len() < BATCH_COMMANDS {
            match self.commands.try_recv() {
                Ok(command) => batch.add(command),
                Err(mpsc::error::TryRecvError::Disconnected) if batch.writes.is_empty() => {
                    return None;
                }
                Err(_) if batch.writes.len() >= self.expected || clock::instant() >= deadline => {
                    break;
                }
                Err(_) => thread::yield_now(),
            }
        }
        self.expected = batch.writes.len();
        Some(batch)
    }

    fn write(&mut self, writes: Vec<(Request, Reply<Response>)>) {
        let mut replies = Vec::with_capacity(writes.len());
        let mut requests = Vec::with_capacity(writes.len());
        for (request, reply) in writes {
            requests.push(request);
            replies.push(reply);
        }
        match self.try_write(requests) {
            Ok(results) => {
                replies.into_iter().zip(results).for_each(|(reply, result)| answer(reply, result))
            }
            Err(error) => {
                tracing::error!(%error, path = %self.place.path.display(), "the store's file failed; reopening it");
                self.reopen();
                let status = refusal::storage(&error);
                replies.into_iter().for_each(|reply| answer(reply, Err(status.clone())));
            }
        }
    }

    fn try_write(
        &mut self,
        requests: Vec<Request>,
    ) -> Result<Vec<Result<Response, Status>>, redb::Error> {
        let Some(database) = &self.database else {
            return Err(redb::Error::DatabaseClosed);
        };
        let transaction = database.begin_write()?;
        let mut results = Vec::with_capacity(requests.len());
        let mut applier = Applier::open(&self.shared, &transaction)?;
        let mut failure = None;
        for request in requests {
            match applier.apply(request) {
                Ok(response) => results.push(Ok(response)),
                Err(Failure::Refused(status)) => results.push(Err(status)),
                Err(Failure::Storage(error)) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        let mut pruned = None;
        if let (None, Some(pruning)) = (&failure, &self.pruning) {
            match applier.prune(pruning.cursor.as_deref()) {
                Ok(cursor) => pruned = Some(cursor),
                Err(error) => failure = Some(error),
            }
        }
        let applied = applier.finish();
        // A compaction requested in this transaction starts over at the first key.
        let pruned = pruned.filter(|_| applied.compacted.is_none());
        let done = match failure {
            Some(error) => Err(error),
            None if !applied.dirty => transaction.abort().map_err(redb::Error::from).map(|()| None),
            None => transaction
                .commit()
                .map_err(redb::Error::from)
                .and_then(|()| View::open(database, applied.revision).map(Some)),
        };
        match done {
            Ok(view) => self.publish(applied, view),
            Err(error) => {
                self.roll_back(&applied);
                return Err(error);
            }
        }
        if let Some(cursor) = pruned {
            self.advance_pruning(cursor);
        }
        Ok(results)
    }

    /// Makes durable changes visible: to reads, to leases, to watches, in this order.
    fn publish(&mut self, applied: Applied, view: Option<View>) {
        let Some(view) = view else { return };
        {
            let mut state = self.shared.write();
            state.set_view(view);
            if let Some(compacted) = applied.compacted {
                state.index.compacted = compacted;
            }
        }
        if applied.compacted.is_some() {
            let waiting = self.pruning.take().map(|pruning| pruning.waiting).unwrap_or_default();
            self.pruning = Some(Pruning { cursor: None, waiting });
        }
        let now = clock::instant();
        applied.granted.iter().for_each(|(id, ttl)| self.shared.leases.grant(*id, *ttl, now));
        applied.revoked.iter().for_each(|id| self.shared.leases.remove(*id));
        self.shared.recent.push(applied.changes, applied.revision);
    }

    fn roll_back(&self, applied: &Applied) {
        let mut state = self.shared.write();
        let durable = state.view().revision;
        applied.changed_keys().for_each(|key| state.index.rollback(key, durable));
    }

    /// Called when a step of deleting compacted records is durable.
    fn advance_pruning(&mut self, cursor: Option<Box<[u8]>>) {
        let Some(pruning) = &mut self.pruning else {
            return;
        };
        match cursor {
            Some(cursor) => pruning.cursor = Some(cursor),
            None => {
                let pruning = self.pruning.take().unwrap_or_default();
                pruning.waiting.into_iter().for_each(|reply| answer(reply, Ok(())));
            }
        }
    }

    fn pruned(&mut self, reply: Reply<()>) {
        match &mut self.pruning {
            Some(pruning) => pruning.waiting.push(reply),
            None => answer(reply, Ok(())),
        }
    }

    /// Whether the file is open.
    fn check(&self) -> Result<(), Status> {
        match &self.database {
            Some(_) => Ok(()),
            None => Err(refusal::storage(&redb::Error::DatabaseClosed)),
        }
    }

    /// Copies what is in use to a new file, which takes the place of the old one. Reads continue on
    /// the old one meanwhile; writes wait, as in etcd.
    fn defragment(&mut self) -> Result<(), Status> {
        self.check()?;
        if self.place.device.is_some() {
            return Err(Status::unimplemented("only a file is rewritten, not a device"));
        }
        let (view, database) = self.rewrite().map_err(|error| self.not_rewritten(&error))?;
        // From now on the file's name is the new one's, and no write may go to the old one. If the
        // name is not durable, none may be acknowledged: the next one opens the file again.
        self.database = None;
        sync_directory(self.directory()).map_err(|error| self.not_rewritten(&error.into()))?;
        // Reads that are in progress keep the old file until they end.
        self.shared.write().set_view(view);
        self.database = Some(database);
        Ok(())
    }

    fn not_rewritten(&self, error: &redb::Error) -> Status {
        tracing::error!(%error, path = %self.place.path.display(), "cannot rewrite the store's file");
        refusal::storage(error)
    }

    fn directory(&self) -> &Path {
        self.place.path.parent().expect("the store's file is in a directory")
    }

    fn rewrite(&self) -> Result<(View, Database), redb::Error> {
        let (view, compacted) = {
            let state = self.shared.read();
            (state.view(), state.index.compacted)
        };
        let file = NamedTempFile::new_in(self.directory())?;
        let ids = (self.shared.cluster_id, self.shared.member_id);
        tables::copy(file.path(), &view, compacted, &self.shared.leases.granted(), ids)?;
        let mut database = tables::open_file(file.path(), self.place.cache_bytes)?;
        database.compact()?;
        let copied = View::open(&database, view.revision)?;
        file.persist(&self.place.path).map_err(|error| error.error)?;
        Ok((copied, database))
    }

    /// Reopens the file after a failure. Reads wait meanwhile; if it cannot be opened, they
    /// continue on the old view as far as possible, and the next write tries again.
    fn reopen(&mut self) {
        let mut state = self.shared.write();
        let revision = state.view().revision;
        self.database = None;
        let durable = match self.place.device {
            None => sync_directory(self.directory()),
            Some(_) => Ok(()),
        };
        let opened = durable
            .map_err(redb::Error::from)
            .and_then(|()| tables::open_at(&self.place, revision))
            .and_then(|database| Ok((View::open(&database, revision)?, database)));
        match opened {
            Ok((view, database)) => {
                state.set_view(view);
                self.database = Some(database);
            }
            Err(error) => {
                tracing::error!(%error, path = %self.place.path.display(), "cannot open the store's file")
            }
        }
    }

    fn close(&mut self) {
        self.commands.close();
        if let Some(database) = self.database.take()
            && let Err(error) = database.close()
        {
            tracing::error!(%error, path = %self.place.path.display(), "cannot close the store's file");
        }
    }
}

impl Batch {
    fn add(&mut self, command: Command) {
        match command {
            Command::Apply { request, reply } => self.writes.push((request, reply)),
            other => self.then = Some(other),
        }
    }
}

/// The client may have disconnected; its response is dropped then.
fn answer<T>(reply: Reply<T>, result: Result<T, Status>) {
    drop(reply.send(result));
}
