//! Transactions: evaluates the comparisons, and validates and executes the branch taken.
//!
//! As in etcd, all comparisons, including those of nested transactions, refer to the state before
//! the transaction, and everything that can be rejected is rejected before anything is changed.

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

/// The path through a transaction: the branch taken, and the paths through its nested transactions.
pub(super) struct Path {
    pub(super) succeeded: bool,
    nested: Vec<Path>,
}

/// The state against which a transaction is evaluated: the index and the records that belong to it.
pub(super) struct State<'a, T> {
    pub(super) index: &'a Index,
    pub(super) history: &'a T,
    pub(super) at: ReadPoint,
}

impl<T: ReadableTable<HistoryKey, &'static [u8]>> State<'_, T> {
    fn revision(&self) -> u64 {
        if self.at.pending { NEWEST } else { self.at.revision }
    }

    /// Evaluates all comparisons.
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

    /// A comparison holds if it holds for every key in its range. An absent key counts as one whose
    /// numbers are all zero, and has no value to compare.
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

    /// Checks all operations on the path: the puts first, then the ranges, as in etcd.
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

    /// Checks that the key exists if a put keeps its value or lease.
    pub(super) fn check_present(&self, request: &PbPutRequest) -> Result<(), Status> {
        let needs_present = request.ignore_value || request.ignore_lease;
        if needs_present && self.index.get(&request.key, self.revision()).is_none() {
            return Err(refusal::key_not_found());
        }
        Ok(())
    }
}

/// Checks that the lease exists to which a put attaches its key.
pub(super) fn check_lease(
    request: &PbPutRequest,
    lease_exists: &impl Fn(i64) -> bool,
) -> Result<(), Status> {
    if request.lease != 0 && !lease_exists(request.lease) {
        return Err(refusal::lease_not_found());
    }
    Ok(())
}

/// Whether all operations on the path are reads.
pub(super) fn only_reads(request: &PbTxnRequest, path: &Path) -> bool {
    let mut operations = Vec::new();
    taken(request, path, &mut operations);
    operations.iter().all(|operation| matches!(operation, PbTxnOpRequest::RequestRange(_)))
}

/// The operations on the path, in order, with nested transactions flattened.
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
            // Values are compared by the caller; an unknown target compares as equal.
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

/// Executes single operations of a transaction.
pub(super) trait Executor {
    fn execute(&mut self, operation: PbTxnOpRequest) -> Result<PbTxnOpResponse, Failure>;
}

/// Executes the operations on the path, in order. The header of the response is empty; the caller
/// sets the outermost one.
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
