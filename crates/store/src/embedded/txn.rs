//! Transactions: which branch is taken, and whether its operations can be done at all.
//!
//! As in etcd, all comparisons, those of nested transactions included, are about the state before the transaction, and
//! everything that can be refused is refused before anything is changed.

use std::cmp::Ordering;

use etcd_client::{
    CompareOp,
    proto::{
        PbCompare, PbCompareTarget, PbPutRequest, PbResponseHeader, PbResponseOp, PbTargetUnion,
        PbTxnOpRequest, PbTxnOpResponse, PbTxnRequest, PbTxnRequestOp, PbTxnResponse,
    },
};
use redb::ReadableTable;
use tonic::Status;

use super::{
    apply::Failure,
    index::{Index, NEWEST, Version},
    key_range::KeyRange,
    range::{self, ReadPoint},
    record::wire,
    refusal,
    tables::{self, HistoryKey},
};

/// The way through a transaction: which branch is taken, and the ways through the branch's nested transactions.
pub(super) struct Path {
    pub(super) succeeded: bool,
    nested: Vec<Path>,
}

/// A state in which a transaction is judged: the index and the records that belong to it.
pub(super) struct State<'a, T> {
    pub(super) index: &'a Index,
    pub(super) history: &'a T,
    pub(super) at: ReadPoint,
}

impl<T: ReadableTable<HistoryKey, &'static [u8]>> State<'_, T> {
    fn revision(&self) -> u64 {
        if self.at.pending { NEWEST } else { self.at.revision }
    }

    /// Decides all comparisons.
    pub(super) fn path(&self, request: &PbTxnRequest) -> Result<Path, redb::Error> {
        let mut succeeded = true;
        for compare in &request.compare {
            if !self.holds(compare)? {
                succeeded = false;
                break;
            }
        }
        let mut nested = Vec::new();
        for operation in branch(request, succeeded) {
            if let Some(PbTxnOpRequest::RequestTxn(request)) = &operation.request {
                nested.push(self.path(request)?);
            }
        }
        Ok(Path { succeeded, nested })
    }

    /// A comparison holds when it holds for every key of its range. An absent key counts as one whose numbers are all
    /// zero; it has no value to compare.
    fn holds(&self, compare: &PbCompare) -> Result<bool, redb::Error> {
        let range = KeyRange::new(&compare.key, &compare.range_end);
        let by_value = compare.target == PbCompareTarget::Value as i32;
        let mut found = false;
        for (_, version) in self.index.range(&range, self.revision()) {
            found = true;
            let order = if by_value {
                let expected = match &compare.target_union {
                    Some(PbTargetUnion::Value(value)) => value.as_slice(),
                    _ => &[],
                };
                tables::fetch(self.history, version.position(), |record| {
                    record.value.cmp(expected)
                })?
            } else {
                compare_number(compare, Some(version))
            };
            if !accepts(compare, order) {
                return Ok(false);
            }
        }
        Ok(found || (!by_value && accepts(compare, compare_number(compare, None))))
    }

    /// Whether every operation on the path can be done: the puts first, then the ranges, as in etcd.
    pub(super) fn check(
        &self,
        request: &PbTxnRequest,
        path: &Path,
        lease_exists: &impl Fn(i64) -> bool,
    ) -> Result<(), Status> {
        let mut operations = Vec::new();
        taken(request, path, &mut operations);
        for operation in &operations {
            if let PbTxnOpRequest::RequestPut(request) = operation {
                self.check_present(request)?;
                check_lease(request, lease_exists)?;
            }
        }
        for operation in &operations {
            if let PbTxnOpRequest::RequestRange(request) = operation {
                range::check_revision(self.index, request.revision, self.at)?;
            }
        }
        Ok(())
    }

    /// Whether the key exists that a put takes something over from.
    pub(super) fn check_present(&self, request: &PbPutRequest) -> Result<(), Status> {
        let needs_present = request.ignore_value || request.ignore_lease;
        if needs_present && self.index.get(&request.key, self.revision()).is_none() {
            return Err(refusal::key_not_found());
        }
        Ok(())
    }
}

/// Whether the lease exists that a put attaches its key to.
pub(super) fn check_lease(
    request: &PbPutRequest,
    lease_exists: &impl Fn(i64) -> bool,
) -> Result<(), Status> {
    if request.lease != 0 && !lease_exists(request.lease) {
        return Err(refusal::lease_not_found());
    }
    Ok(())
}

/// Whether nothing on the path changes anything.
pub(super) fn only_reads(request: &PbTxnRequest, path: &Path) -> bool {
    let mut operations = Vec::new();
    taken(request, path, &mut operations);
    operations.iter().all(|operation| matches!(operation, PbTxnOpRequest::RequestRange(_)))
}

/// The operations on the path, in order, nested transactions taken apart.
fn taken<'a>(request: &'a PbTxnRequest, path: &Path, operations: &mut Vec<&'a PbTxnOpRequest>) {
    let mut nested = path.nested.iter();
    for operation in branch(request, path.succeeded) {
        match &operation.request {
            Some(PbTxnOpRequest::RequestTxn(request)) => {
                let path =
                    nested.next().expect("a path has an element for each nested transaction");
                taken(request, path, operations);
            }
            Some(operation) => operations.push(operation),
            None => {}
        }
    }
}

fn compare_number(compare: &PbCompare, version: Option<&Version>) -> Ordering {
    let number = |select: fn(&Version) -> i64| version.map_or(0, select);
    let (actual, expected) =
        match (PbCompareTarget::try_from(compare.target), &compare.target_union) {
            (Ok(PbCompareTarget::Version), union) => (
                number(|version| wire(version.version)),
                if let Some(PbTargetUnion::Version(expected)) = union { *expected } else { 0 },
            ),
            (Ok(PbCompareTarget::Create), union) => (
                number(|version| wire(version.create)),
                if let Some(PbTargetUnion::CreateRevision(expected)) = union {
                    *expected
                } else {
                    0
                },
            ),
            (Ok(PbCompareTarget::Mod), union) => (
                number(|version| wire(version.main)),
                if let Some(PbTargetUnion::ModRevision(expected)) = union { *expected } else { 0 },
            ),
            (Ok(PbCompareTarget::Lease), union) => (
                number(|version| version.lease),
                if let Some(PbTargetUnion::Lease(expected)) = union { *expected } else { 0 },
            ),
            // A value is compared elsewhere; an unknown target compares nothing with nothing.
            (Ok(PbCompareTarget::Value) | Err(_), _) => (0, 0),
        };
    actual.cmp(&expected)
}

fn accepts(compare: &PbCompare, order: Ordering) -> bool {
    match CompareOp::try_from(compare.result) {
        Ok(CompareOp::Equal) => order == Ordering::Equal,
        Ok(CompareOp::NotEqual) => order != Ordering::Equal,
        Ok(CompareOp::Greater) => order == Ordering::Greater,
        Ok(CompareOp::Less) => order == Ordering::Less,
        Err(_) => true,
    }
}

fn branch(request: &PbTxnRequest, succeeded: bool) -> &[PbTxnRequestOp] {
    if succeeded { &request.success } else { &request.failure }
}

/// What does the operations of a transaction once its way is known.
pub(super) trait Executor {
    fn execute(&mut self, operation: PbTxnOpRequest) -> Result<PbTxnOpResponse, Failure>;
}

/// Does the operations on the path, in order. The answer's header is empty; the caller fills the outermost one.
pub(super) fn execute(
    executor: &mut impl Executor,
    request: PbTxnRequest,
    path: Path,
) -> Result<PbTxnResponse, Failure> {
    let operations = if path.succeeded { request.success } else { request.failure };
    let mut nested = path.nested.into_iter();
    let mut responses = Vec::with_capacity(operations.len());
    for operation in operations {
        let response = match operation.request {
            Some(PbTxnOpRequest::RequestTxn(request)) => {
                let path =
                    nested.next().expect("a path has an element for each nested transaction");
                PbTxnOpResponse::ResponseTxn(execute(executor, request, path)?)
            }
            Some(operation) => executor.execute(operation)?,
            None => return Err(Failure::Refused(refusal::key_not_found())),
        };
        responses.push(PbResponseOp { response: Some(response) });
    }
    Ok(PbTxnResponse {
        header: Some(PbResponseHeader::default()),
        succeeded: path.succeeded,
        responses,
    })
}
