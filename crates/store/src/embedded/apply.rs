//! Applies requests, one after another, to a redb transaction that is committed as a whole.
//!
//! Each request sees the changes of its predecessors, durable or not. The index is updated along
//! the way; additions are rolled back if the transaction is not committed
//! ([`Applied::changed_keys`]). A put costs one reserved slot in the table, which the record is
//! encoded into, and one entry in the index; its key and value are moved into the event.

use std::collections::HashSet;

use etcd_client::proto::{
    PbDeleteRequest, PbDeleteResponse, PbKeyValue, PbLeaseGrantResponse, PbPutRequest,
    PbPutResponse, PbResponseHeader, PbTxnOpRequest, PbTxnOpResponse, PbTxnRequest, PbTxnResponse,
};
use redb::{Table, WriteTransaction};
use tonic::Status;

use super::{
    index::{NEWEST, Position, Version},
    key_range::KeyRange,
    range::{self, ReadPoint},
    recent::Change,
    record::{Record, wire},
    refusal,
    shared::Shared,
    tables::{self, HISTORY, HistoryKey, LEASES, META, META_COMPACTED, META_PRUNED},
    txn::{self, Executor},
};

/// The number of keys examined by one step of a compaction.
const PRUNE_KEYS: usize = 1_000;

/// A request that changes the store.
pub(super) enum Request {
    Put(PbPutRequest),
    Delete(PbDeleteRequest),
    Txn(PbTxnRequest),
    /// A lease with a time to live in seconds.
    Grant {
        id: i64,
        ttl: u64,
    },
    Revoke {
        id: i64,
    },
    Compact {
        revision: i64,
    },
}

/// The result of a request.
pub(super) enum Response {
    Put(PbPutResponse),
    Delete(PbDeleteResponse),
    Txn(PbTxnResponse),
    Grant(PbLeaseGrantResponse),
    Done(PbResponseHeader),
}

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The request is rejected; nothing was changed.
    Refused(Status),
    /// The file failed; the whole transaction is aborted.
    Storage(redb::Error),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        Failure::Refused(status)
    }
}

impl From<redb::Error> for Failure {
    fn from(error: redb::Error) -> Failure {
        Failure::Storage(error)
    }
}

impl From<redb::StorageError> for Failure {
    fn from(error: redb::StorageError) -> Failure {
        Failure::Storage(error.into())
    }
}

/// The effects of a transaction, to be published once it is durable, or rolled back.
#[derive(Default)]
pub(super) struct Applied {
    pub(super) revision: u64,
    pub(super) changes: Vec<Change>,
    pub(super) granted: Vec<(i64, u64)>,
    pub(super) revoked: HashSet<i64>,
    pub(super) compacted: Option<u64>,
    /// Whether there is anything to commit.
    pub(super) dirty: bool,
}

impl Applied {
    /// The keys to which the transaction added versions.
    pub(super) fn changed_keys(&self) -> impl Iterator<Item = &[u8]> {
        self.changes.iter().map(|change| change.kv.key.as_slice())
    }
}

/// A redb transaction to which requests are applied.
pub(super) struct Applier<'a> {
    shared: &'a Shared,
    history: Table<'a, HistoryKey, &'static [u8]>,
    leases: Table<'a, i64, u64>,
    meta: Table<'a, &'static str, u64>,
    applied: Applied,
    /// The number of changes so far at the revision after `applied.revision`.
    sub: u32,
}

impl<'a> Applier<'a> {
    pub(super) fn open(
        shared: &'a Shared,
        write: &'a WriteTransaction,
    ) -> Result<Applier<'a>, redb::Error> {
        let applied = Applied { revision: shared.revision(), ..Applied::default() };
        Ok(Applier {
            shared,
            history: write.open_table(HISTORY)?,
            leases: write.open_table(LEASES)?,
            meta: write.open_table(META)?,
            applied,
            sub: 0,
        })
    }

    pub(super) fn finish(self) -> Applied {
        self.applied
    }

    pub(super) fn apply(&mut self, request: Request) -> Result<Response, Failure> {
        let response = match request {
            Request::Put(request) => Response::Put(self.put_request(request)?),
            Request::Delete(request) => Response::Delete(self.delete_request(request)?),
            Request::Txn(request) => Response::Txn(self.txn_request(request)?),
            Request::Grant { id, ttl } => Response::Grant(self.grant(id, ttl)?),
            Request::Revoke { id } => Response::Done(self.revoke(id)?),
            Request::Compact { revision } => Response::Done(self.compact(revision)?),
        };
        Ok(response)
    }

    /// One step of deleting compacted records; returns the cursor for the next step.
    pub(super) fn prune(
        &mut self,
        cursor: Option<&[u8]>,
    ) -> Result<Option<Box<[u8]>>, redb::Error> {
        let (pruned, more, compacted) = {
            let mut state = self.shared.write();
            let (pruned, more) = state.index.prune(cursor, PRUNE_KEYS);
            (pruned, more, state.index.compacted)
        };
        for position in pruned {
            self.history.remove((position.main, position.sub))?;
            self.applied.dirty = true;
        }
        if more.is_none() {
            self.meta.insert(META_PRUNED, compacted)?;
            self.applied.dirty = true;
        }
        Ok(more)
    }

    fn header(&self) -> PbResponseHeader {
        self.shared.header(self.applied.revision)
    }

    fn at(&self) -> ReadPoint {
        ReadPoint { revision: self.applied.revision, pending: true }
    }

    /// The revision as seen by an operation within a request: incremented once the request has
    /// changed something.
    fn seen_revision(&self) -> i64 {
        wire(self.applied.revision + u64::from(self.sub > 0))
    }

    /// Ends a request: if it changed something, the revision is incremented.
    fn advance(&mut self) {
        if self.sub > 0 {
            self.applied.revision += 1;
            self.applied.dirty = true;
            self.sub = 0;
        }
    }

    fn lease_exists(&self, id: i64) -> bool {
        let granted = self.applied.granted.iter().any(|(granted, _)| *granted == id);
        (granted || self.shared.leases.contains(id)) && !self.applied.revoked.contains(&id)
    }

    fn put_request(&mut self, request: PbPutRequest) -> Result<PbPutResponse, Failure> {
        {
            let state = self.shared.read();
            let state = txn::State { index: &state.index, history: &self.history, at: self.at() };
            txn::check_lease(&request, &|id| self.lease_exists(id))?;
            state.check_present(&request)?;
        }
        let mut response = self.put(request)?;
        self.advance();
        response.header = Some(self.header());
        Ok(response)
    }

    fn delete_request(&mut self, request: PbDeleteRequest) -> Result<PbDeleteResponse, Failure> {
        let mut response = self.delete(&request)?;
        self.advance();
        response.header = Some(self.header());
        Ok(response)
    }

    fn txn_request(&mut self, request: PbTxnRequest) -> Result<PbTxnResponse, Failure> {
        let path = {
            let state = self.shared.read();
            let state = txn::State { index: &state.index, history: &self.history, at: self.at() };
            let path = state.path(&request)?;
            state.check(&request, &path, &|id| self.lease_exists(id))?;
            path
        };
        let mut response = txn::execute(self, request, path)?;
        self.advance();
        response.header = Some(self.header());
        Ok(response)
    }

    fn put(&mut self, request: PbPutRequest) -> Result<PbPutResponse, redb::Error> {
        let previous = self.shared.read().index.get(&request.key, NEWEST).copied();
        let (mut value, mut lease, mut prev_kv) = (request.value, request.lease, None);
        if let Some(previous) = previous {
            if request.ignore_lease {
                lease = previous.lease;
            }
            if request.ignore_value || request.prev_kv {
                let kv = self.fetch(&previous)?;
                if request.ignore_value {
                    value.clone_from(&kv.value);
                }
                prev_kv = request.prev_kv.then_some(kv);
            }
        }
        let main = self.applied.revision + 1;
        let (create, version) =
            previous.map_or((main, 1), |previous| (previous.create, previous.version + 1));
        self.insert(&Record { create, version, lease, key: &request.key, value: &value })?;
        let kv = PbKeyValue {
            key: request.key,
            create_revision: wire(create),
            mod_revision: wire(main),
            version: wire(version),
            value,
            lease,
        };
        self.applied.changes.push(Change { main, deletion: false, kv });
        let header = Some(PbResponseHeader { revision: wire(main), ..PbResponseHeader::default() });
        Ok(PbPutResponse { header, prev_kv })
    }

    fn delete(&mut self, request: &PbDeleteRequest) -> Result<PbDeleteResponse, redb::Error> {
        let range = KeyRange::new(&request.key, &request.range_end);
        let found: Vec<(Vec<u8>, Version)> = {
            let state = self.shared.read();
            state
                .index
                .range(&range, NEWEST)
                .map(|(key, version)| (key.to_vec(), *version))
                .collect()
        };
        let mut prev_kvs = Vec::new();
        let deleted = i64::try_from(found.len()).unwrap_or(i64::MAX);
        for (key, version) in found {
            if request.prev_kv {
                prev_kvs.push(self.fetch(&version)?);
            }
            self.delete_key(key)?;
        }
        let header =
            PbResponseHeader { revision: self.seen_revision(), ..PbResponseHeader::default() };
        Ok(PbDeleteResponse { header: Some(header), deleted, prev_kvs })
    }

    fn delete_key(&mut self, key: Vec<u8>) -> Result<(), redb::Error> {
        let main = self.applied.revision + 1;
        self.insert(&Record { create: 0, version: 0, lease: 0, key: &key, value: &[] })?;
        let kv = PbKeyValue { key, mod_revision: wire(main), ..PbKeyValue::default() };
        self.applied.changes.push(Change { main, deletion: true, kv });
        Ok(())
    }

    fn insert(&mut self, record: &Record<'_>) -> Result<(), redb::Error> {
        let position = Position { main: self.applied.revision + 1, sub: self.sub };
        self.sub += 1;
        {
            let mut slot =
                self.history.insert_reserve((position.main, position.sub), record.encoded_len())?;
            record.encode(slot.as_mut());
        }
        self.shared.write().index.insert(record.key, record.version_at(position));
        Ok(())
    }

    fn fetch(&self, version: &Version) -> Result<PbKeyValue, redb::Error> {
        tables::fetch(&self.history, version.position(), |record| record.to_key_value(version.main))
    }

    fn grant(&mut self, id: i64, ttl: u64) -> Result<PbLeaseGrantResponse, Failure> {
        if self.lease_exists(id) {
            return Err(refusal::lease_exists().into());
        }
        self.leases.insert(id, ttl)?;
        self.applied.revoked.remove(&id);
        self.applied.granted.push((id, ttl));
        self.applied.dirty = true;
        Ok(PbLeaseGrantResponse {
            header: Some(self.header()),
            id,
            ttl: wire(ttl),
            error: String::new(),
        })
    }

    fn revoke(&mut self, id: i64) -> Result<PbResponseHeader, Failure> {
        if !self.lease_exists(id) {
            return Err(refusal::lease_not_found().into());
        }
        let attached: Vec<Vec<u8>> =
            self.shared.read().index.attached(id, NEWEST).map(<[u8]>::to_vec).collect();
        for key in attached {
            self.delete_key(key)?;
        }
        self.leases.remove(id)?;
        self.applied.granted.retain(|(granted, _)| *granted != id);
        self.applied.revoked.insert(id);
        self.applied.dirty = true;
        self.advance();
        Ok(self.header())
    }

    fn compact(&mut self, revision: i64) -> Result<PbResponseHeader, Failure> {
        let before = self.applied.compacted.unwrap_or_else(|| self.shared.read().index.compacted);
        match u64::try_from(revision) {
            Ok(revision) if revision > self.applied.revision => {
                Err(refusal::future_revision().into())
            }
            Ok(revision) if revision > before => {
                self.meta.insert(META_COMPACTED, revision)?;
                self.applied.compacted = Some(revision);
                self.applied.dirty = true;
                Ok(self.header())
            }
            _ => Err(refusal::compacted().into()),
        }
    }
}

impl Executor for Applier<'_> {
    fn execute(&mut self, operation: PbTxnOpRequest) -> Result<PbTxnOpResponse, Failure> {
        match operation {
            PbTxnOpRequest::RequestRange(request) => {
                let selection = range::plan(&self.shared.read().index, &request, self.at())?;
                let mut response = selection.fetch(&self.history)?;
                let revision = self.seen_revision();
                response.header =
                    Some(PbResponseHeader { revision, ..PbResponseHeader::default() });
                Ok(PbTxnOpResponse::ResponseRange(response))
            }
            PbTxnOpRequest::RequestPut(request) => {
                Ok(PbTxnOpResponse::ResponsePut(self.put(request)?))
            }
            PbTxnOpRequest::RequestDeleteRange(request) => {
                Ok(PbTxnOpResponse::ResponseDeleteRange(self.delete(&request)?))
            }
            PbTxnOpRequest::RequestTxn(_) => {
                unreachable!("nested transactions are flattened by txn::execute")
            }
        }
    }
}
