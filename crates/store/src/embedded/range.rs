//! Executes range requests.
//!
//! [`plan`] works on the index alone, under its lock; [`Selection::fetch`] reads the values without
//! a lock. A plan allocates one small row per selected key; a fetch copies each key and value once,
//! from the page to the response.

use std::cmp::Ordering;

use etcd_client::{
    SortOrder, SortTarget,
    proto::{PbKeyValue, PbRangeRequest, PbRangeResponse},
};
use redb::{Error, ReadableTable};
use tonic::Status;

use super::{
    index::{Index, NEWEST, Version},
    key_range::KeyRange,
    record::wire,
    refusal,
    tables::{self, HistoryKey},
};

/// The rows selected by a range request.
pub(super) struct Selection {
    rows: Vec<Row>,
    count: usize,
    /// Set if the rows have to be sorted by value before the limit is applied.
    by_value: Option<ValueSort>,
    keys_only: bool,
    truncated: bool,
}

struct Row {
    version: Version,
    /// Only set if the record is not read.
    key: Vec<u8>,
}

struct ValueSort {
    descending: bool,
    limit: usize,
}

/// The state to read at; `revision` is the newest one visible to the reader.
#[derive(Clone, Copy)]
pub(super) struct ReadPoint {
    pub(super) revision: u64,
    /// Whether the reader sees changes that are not durable yet (the writer does).
    pub(super) pending: bool,
}

/// Whether the revision in a request can be read.
pub(super) fn check_revision(index: &Index, requested: i64, at: ReadPoint) -> Result<(), Status> {
    match u64::try_from(requested) {
        Err(_) | Ok(0) => Ok(()),
        Ok(requested) if requested > at.revision => Err(refusal::future_revision()),
        Ok(requested) if requested < index.compacted => Err(refusal::compacted()),
        Ok(_) => Ok(()),
    }
}

/// Selects the keys of a range.
pub(super) fn plan(
    index: &Index,
    request: &PbRangeRequest,
    at: ReadPoint,
) -> Result<Selection, Status> {
    check_revision(index, request.revision, at)?;
    let revision = match u64::try_from(request.revision) {
        Ok(revision) if revision > 0 => revision,
        _ if at.pending => NEWEST,
        _ => at.revision,
    };
    let range = KeyRange::new(&request.key, &request.range_end);
    let found = index.range(&range, revision);
    let mut selection = Selection {
        rows: Vec::new(),
        count: 0,
        by_value: None,
        keys_only: request.keys_only,
        truncated: false,
    };
    if request.count_only {
        selection.count = found.count();
        return Ok(selection);
    }
    let limit =
        usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let order = Order::of(request);
    let filters = Filters::of(request);
    // As in etcd: without an explicit order the limit is applied before sorting, even if the sort
    // target is not the key.
    let unordered = request.sort_order == SortOrder::None as i32 && filters.is_none();
    for (key, version) in found {
        selection.count += 1;
        if (unordered && selection.rows.len() > limit) || !filters.pass(version) {
            continue;
        }
        let key = if request.keys_only { key.to_vec() } else { Vec::new() };
        selection.rows.push(Row { version: *version, key });
    }
    match order {
        Order::Index => {}
        Order::Reverse => selection.rows.reverse(),
        Order::Number { target, descending } => selection.rows.sort_by(|a, b| {
            let order = number(target, &a.version).cmp(&number(target, &b.version));
            if descending { order.reverse() } else { order }
        }),
        Order::Value { descending } => {
            selection.by_value = Some(ValueSort { descending, limit });
            return Ok(selection);
        }
    }
    selection.truncated = selection.rows.len() > limit;
    selection.rows.truncate(limit);
    Ok(selection)
}

impl Selection {
    /// The number of records that [`Selection::fetch`] reads.
    pub(super) fn reads(&self) -> usize {
        if self.keys_only && self.by_value.is_none() { 0 } else { self.rows.len() }
    }

    /// Reads the values. The response has no header.
    pub(super) fn fetch(
        mut self,
        history: &impl ReadableTable<HistoryKey, &'static [u8]>,
    ) -> Result<PbRangeResponse, Error> {
        let mut kvs = Vec::with_capacity(self.rows.len());
        if self.reads() == 0 {
            kvs.extend(self.rows.into_iter().map(Row::without_value));
        } else {
            for row in &self.rows {
                let position = row.version.position();
                kvs.push(tables::fetch(history, position, |record| {
                    record.to_key_value(position.main)
                })?);
            }
            if let Some(cut) = self.by_value.take() {
                kvs.sort_by(|a, b| cut.order(a, b));
                self.truncated = kvs.len() > cut.limit;
                kvs.truncate(cut.limit);
            }
            if self.keys_only {
                kvs.iter_mut().for_each(|kv| kv.value = Vec::new());
            }
        }
        let count = i64::try_from(self.count).unwrap_or(i64::MAX);
        Ok(PbRangeResponse { header: None, kvs, more: self.truncated, count })
    }
}

impl Row {
    fn without_value(self) -> PbKeyValue {
        PbKeyValue {
            key: self.key,
            create_revision: wire(self.version.create),
            mod_revision: wire(self.version.main),
            version: wire(self.version.version),
            value: Vec::new(),
            lease: self.version.lease,
        }
    }
}

impl ValueSort {
    fn order(&self, a: &PbKeyValue, b: &PbKeyValue) -> Ordering {
        let order = a.value.cmp(&b.value);
        if self.descending { order.reverse() } else { order }
    }
}

/// The order of the rows in a response.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Index,
    Reverse,
    Number { target: SortTarget, descending: bool },
    Value { descending: bool },
}

impl Order {
    /// Without an order, a target other than the key sorts ascending, as in etcd.
    fn of(request: &PbRangeRequest) -> Order {
        let descending = request.sort_order == SortOrder::Descend as i32;
        match SortTarget::try_from(request.sort_target) {
            Ok(SortTarget::Value) => Order::Value { descending },
            Ok(target @ (SortTarget::Version | SortTarget::Create | SortTarget::Mod)) => {
                Order::Number { target, descending }
            }
            _ if descending => Order::Reverse,
            _ => Order::Index,
        }
    }
}

fn number(target: SortTarget, version: &Version) -> u64 {
    match target {
        SortTarget::Version => version.version,
        SortTarget::Create => version.create,
        SortTarget::Mod | SortTarget::Key | SortTarget::Value => version.main,
    }
}

/// Bounds on revisions, inclusive. In requests zero means no bound, and nothing is below a negative
/// one.
struct Filters {
    modified: (u64, u64),
    created: (u64, u64),
}

const NO_BOUNDS: (u64, u64) = (0, u64::MAX);

impl Filters {
    fn of(request: &PbRangeRequest) -> Filters {
        let least = |revision: i64| u64::try_from(revision).unwrap_or(0);
        let most = |revision: i64| {
            if revision == 0 { u64::MAX } else { least(revision) }
        };
        Filters {
            modified: (least(request.min_mod_revision), most(request.max_mod_revision)),
            created: (least(request.min_create_revision), most(request.max_create_revision)),
        }
    }

    fn is_none(&self) -> bool {
        self.modified == NO_BOUNDS && self.created == NO_BOUNDS
    }

    fn pass(&self, version: &Version) -> bool {
        (self.modified.0..=self.modified.1).contains(&version.main)
            && (self.created.0..=self.created.1).contains(&version.create)
    }
}
