//! Reads and conditional writes.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, GetOptions, KvClient, PutOptions, Txn, TxnOp,
    proto::{PbResponseHeader, PbTxnOpResponse},
};

use crate::embedded::Pulse;
use crate::{
    Entry, Error, EtcdConfig, LeaseId, Result, Revision, Transformer, lease::SharedLeases, progress,
};

/// The store. Cheap to clone; clones share one connection.
#[derive(Clone)]
pub struct Store {
    pub(crate) client: Arc<ArcSwap<Client>>,
    pub(crate) leases: SharedLeases,
    /// The writer of an embedded store.
    pub(crate) pulse: Option<Pulse>,
    /// How values are stored, if not as they are.
    pub(crate) transformer: Option<Arc<dyn Transformer>>,
}

/// The result of a conditional write.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// The write was applied and is durable, at this revision.
    Written(Revision),
    /// The write was not applied, because the key is not in the expected state.
    Conflict {
        /// The current state of the key; `None` if it does not exist.
        current: Option<Entry>,
        /// The revision of the store at that time.
        revision: Revision,
    },
}

/// The result of reading a single key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The state of the key; `None` if it does not exist.
    pub entry: Option<Entry>,
    /// The revision of the store at that time.
    pub revision: Revision,
}

/// Options of a list.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Keys that begin with this.
    pub prefix: Bytes,
    /// The maximum number of entries; zero for no limit.
    pub limit: usize,
    /// The revision to read at; [`Revision::NONE`] for the newest.
    pub revision: Revision,
    /// Start at this key (inclusive) instead of at the prefix. See [`Listing::next_from`].
    pub from: Option<Bytes>,
    /// Whether nobody is waited for to read a value; see [`Transformer::open_now`].
    pub at_once: bool,
}

/// A page of a list, ordered by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The entries.
    pub entries: Vec<Entry>,
    /// The revision that was read at: the requested one, or the store's if none was requested.
    pub revision: Revision,
    /// The number of keys from the start of this page to the end of the prefix, including this
    /// page.
    pub count: u64,
    /// Whether more entries follow this page.
    pub more: bool,
    next: Option<Bytes>,
}

impl Listing {
    /// The start of the next page, if there is one.
    pub fn next_from(&self) -> Option<Bytes> {
        self.next.clone()
    }
}

impl Store {
    /// Creates a client of an etcd cluster. Returns immediately; the first request connects.
    ///
    /// # Errors
    /// [`Error::Configuration`] for unusable URLs or certificates.
    pub async fn connect(config: &EtcdConfig) -> Result<Store> {
        Ok(Store::from_client(config.client().await?))
    }

    /// Uses these settings from the next request on, in all clones. Watches stay where they are until
    /// their connection ends.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    pub async fn reconnect(&self, config: &EtcdConfig) -> Result<()> {
        self.client.store(Arc::new(config.client().await?));
        Ok(())
    }

    pub(crate) fn from_client(client: Client) -> Store {
        Store {
            client: Arc::new(ArcSwap::from_pointee(client)),
            leases: SharedLeases::default(),
            pulse: None,
            transformer: None,
        }
    }

    pub(crate) fn with_pulse(self, pulse: Pulse) -> Store {
        Store { pulse: Some(pulse), ..self }
    }

    /// Whether the store reads and writes: a linearizable read, and of an embedded store an answer
    /// of its writer. Changes nothing.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it does not. A store that hangs does not answer at all.
    pub async fn ping(&self) -> Result<()> {
        self.current_revision().await?;
        match &self.pulse {
            Some(pulse) => pulse.beat().await,
            None => Ok(()),
        }
    }

    /// The underlying client, for operations that this type does not offer (maintenance).
    pub fn etcd(&self) -> Client {
        Client::clone(&self.client.load())
    }

    pub(crate) fn kv(&self) -> KvClient {
        // etcd-client's default of 4 MiB is smaller than an ordinary list. Lists are bounded by
        // their limit.
        self.client.load().kv_client().max_decoding_message_size(usize::MAX)
    }

    /// Creates a key that must not exist yet.
    pub async fn create(&self, key: Bytes, value: Bytes) -> Result<Outcome> {
        self.create_with_lease(key, value, None).await
    }

    /// Creates a key that must not exist yet, attached to a lease.
    pub async fn create_with_lease(
        &self,
        key: Bytes,
        value: Bytes,
        lease: Option<LeaseId>,
    ) -> Result<Outcome> {
        let value = self.seal(&key, value)?;
        let put = TxnOp::put(key.clone(), value, Some(put_options(lease)));
        self.transact(key, Revision::NONE, Some(put), None).await
    }

    /// Creates a key that must not exist yet, while the last write of another key must be at a
    /// revision. A conflict without a current state means that the other key has changed.
    pub async fn create_while(
        &self,
        key: Bytes,
        value: Bytes,
        lease: Option<LeaseId>,
        unchanged: (Bytes, Revision),
    ) -> Result<Outcome> {
        let value = self.seal(&key, value)?;
        let put = TxnOp::put(key.clone(), value, Some(put_options(lease)));
        self.transact(key, Revision::NONE, Some(put), Some(unchanged)).await
    }

    /// Replaces the value of a key whose last write must be at `expected`.
    pub async fn update(&self, key: Bytes, value: Bytes, expected: Revision) -> Result<Outcome> {
        self.update_with_lease(key, value, expected, None).await
    }

    /// Replaces the value and the lease of a key whose last write must be at `expected`.
    pub async fn update_with_lease(
        &self,
        key: Bytes,
        value: Bytes,
        expected: Revision,
        lease: Option<LeaseId>,
    ) -> Result<Outcome> {
        let value = self.seal(&key, value)?;
        let put = TxnOp::put(key.clone(), value, Some(put_options(lease)));
        self.transact(key, expected, Some(put), None).await
    }

    /// Deletes a key whose last write must be at `expected`.
    pub async fn delete(&self, key: Bytes, expected: Revision) -> Result<Outcome> {
        let delete = TxnOp::delete(key.clone(), Some(DeleteOptions::new()));
        self.transact(key, expected, Some(delete), None).await
    }

    /// Reads one key unless its last write is at `known`; `None`: it is. Like [`Store::get`], the
    /// result reflects every write acknowledged before the call.
    pub async fn get_if_changed(&self, key: Bytes, known: Revision) -> Result<Option<Fetched>> {
        Ok(match self.transact(key, known, None, None).await? {
            Outcome::Written(_) => None,
            Outcome::Conflict { current, revision } => Some(Fetched { entry: current, revision }),
        })
    }

    /// Executes the operation if the last write of the key is at `expected`, and that of another key
    /// at its own revision; otherwise reads the key. etcd orders this read after all acknowledged writes, even without an operation.
    async fn transact(
        &self,
        key: Bytes,
        expected: Revision,
        operation: Option<TxnOp>,
        unchanged: Option<(Bytes, Revision)>,
    ) -> Result<Outcome> {
        let conditions = [(key.clone(), expected)].into_iter().chain(unchanged);
        let conditions = conditions.map(|(key, revision)| {
            Compare::mod_revision(key, CompareOp::Equal, revision.to_wire())
        });
        let txn = Txn::new()
            .when(conditions.collect::<Vec<_>>())
            .and_then(operation.into_iter().collect::<Vec<_>>())
            .or_else([TxnOp::get(key, None)]);
        let response =
            self.kv().txn(txn).await.map_err(|error| Error::from_wire(error, expected))?.0;
        let revision = header_revision("a transaction", response.header)?;
        if response.succeeded {
            return Ok(Outcome::Written(revision));
        }
        match response.responses.into_iter().next().and_then(|operation| operation.response) {
            Some(PbTxnOpResponse::ResponseRange(range)) => {
                let current = range.kvs.into_iter().next().map(Entry::from);
                Ok(Outcome::Conflict { current: self.open_some(current).await, revision })
            }
            _ => Err(Error::Malformed { operation: "a transaction", part: "current value" }),
        }
    }

    /// Reads one key; the result reflects every write acknowledged before the call.
    pub async fn get(&self, key: Bytes) -> Result<Fetched> {
        let response = self
            .kv()
            .get(key, None)
            .await
            .map_err(|error| Error::from_wire(error, Revision::NONE))?
            .0;
        let revision = header_revision("a get", response.header)?;
        let entry = response.kvs.into_iter().next().map(Entry::from);
        Ok(Fetched { entry: self.open_some(entry).await, revision })
    }

    async fn open_some(&self, entry: Option<Entry>) -> Option<Entry> {
        match entry {
            Some(entry) => Some(self.open(entry).await),
            None => None,
        }
    }

    /// Lists the keys with a prefix.
    ///
    /// # Errors
    /// [`Error::Compacted`] and [`Error::FutureRevision`] if `options.revision` is no longer, or
    /// not yet, available.
    pub async fn list(&self, options: ListOptions) -> Result<Listing> {
        let wire = GetOptions::new()
            .with_range(prefix_end(&options.prefix))
            .with_limit(i64::try_from(options.limit).unwrap_or(i64::MAX))
            .with_revision(options.revision.to_wire());
        let start = options.from.unwrap_or_else(|| first_key(&options.prefix));
        let response = self
            .kv()
            .get(start, Some(wire))
            .await
            .map_err(|error| Error::from_wire(error, options.revision))?
            .0;
        let now = header_revision("a list", response.header)?;
        let last = response.kvs.last().filter(|_| response.more);
        let next = last.map(|last| [last.key.as_slice(), &[0]].concat().into());
        let found = response.kvs.into_iter().filter(|kv| !progress::is_marker(&kv.key));
        let mut entries = Vec::with_capacity(found.size_hint().1.unwrap_or_default());
        for entry in found.map(Entry::from) {
            entries.push(match options.at_once {
                true => self.open_now(entry),
                false => self.open(entry).await,
            });
        }
        Ok(Listing {
            entries,
            revision: if options.revision.is_none() { now } else { options.revision },
            count: u64::try_from(response.count).unwrap_or_default(),
            more: response.more,
            next,
        })
    }

    /// The number of keys with a prefix.
    pub async fn count(&self, prefix: Bytes) -> Result<u64> {
        let wire = GetOptions::new().with_range(prefix_end(&prefix)).with_count_only();
        let response = self
            .kv()
            .get(first_key(&prefix), Some(wire))
            .await
            .map_err(|error| Error::from_wire(error, Revision::NONE))?;
        Ok(u64::try_from(response.count()).unwrap_or_default())
    }

    /// The revision of the store: at least that of every write acknowledged before the call.
    pub async fn current_revision(&self) -> Result<Revision> {
        if let Some(newest) = self.revision_at_once() {
            return newest;
        }
        // A linearizable read of a key that is never written is the cheapest way to get a reliable
        // header.
        let wire = GetOptions::new().with_count_only();
        let response = self
            .kv()
            .get([0], Some(wire))
            .await
            .map_err(|error| Error::from_wire(error, Revision::NONE))?
            .0;
        header_revision("a get", response.header)
    }

    /// The same of a store within this process; `None`: another one has to be asked.
    pub fn revision_at_once(&self) -> Option<Result<Revision>> {
        self.pulse.as_ref().map(Pulse::revision)
    }

    /// Compacts the history before a revision; reads at or after it remain possible.
    ///
    /// # Errors
    /// [`Error::Compacted`] if the revision is already compacted.
    pub async fn compact(&self, revision: Revision) -> Result<()> {
        self.kv()
            .compact(revision.to_wire(), None)
            .await
            .map_err(|error| Error::from_wire(error, revision))?;
        Ok(())
    }
}

fn put_options(lease: Option<LeaseId>) -> PutOptions {
    PutOptions::new().with_lease(lease.map_or(0, LeaseId::to_wire))
}

fn header_revision(operation: &'static str, header: Option<PbResponseHeader>) -> Result<Revision> {
    let header = header.ok_or(Error::Malformed { operation, part: "header" })?;
    Ok(Revision::from_wire(header.revision))
}

/// etcd rejects an empty key; a zero byte is the smallest key.
fn first_key(prefix: &Bytes) -> Bytes {
    if prefix.is_empty() { Bytes::from_static(&[0]) } else { prefix.clone() }
}

/// The end of the range of keys with `prefix`: the prefix with its last byte below 0xff
/// incremented. A single zero byte stands for the end of the key space.
fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    match prefix.iter().rposition(|byte| *byte < 0xff) {
        None => vec![0],
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end
        }
    }
}

#[cfg(test)]
mod tests {
    use super::prefix_end;

    #[test]
    fn prefix_end_is_the_first_key_after_the_prefix() {
        for (prefix, end) in [
            (b"/registry/".as_slice(), b"/registry0".as_slice()),
            (b"a\xff", b"b"),
            (b"\xff\xff", b"\0"),
            (b"", b"\0"),
        ] {
            assert_eq!(prefix_end(prefix), end, "{prefix:?}");
        }
    }
}
