//! Validation of requests by themselves. The rules are etcd's (`api/v3rpc/key.go`).

use std::collections::HashSet;

use etcd_client::{
    SortOrder, SortTarget,
    proto::{
        PbDeleteRequest, PbPutRequest, PbRangeRequest, PbTxnOpRequest, PbTxnRequest, PbTxnRequestOp,
    },
};
use prost::Message;
use tonic::Status;

use super::{key_range::KeyRange, refusal};

/// The largest accepted request: etcd's default of `--max-request-bytes`.
pub(super) const REQUEST_MAX_BYTES: usize = 1536 * 1024;
/// The maximum number of comparisons or operations in a transaction: etcd's default of
/// `--max-txn-ops`.
const TXN_MAX_OPERATIONS: usize = 128;
/// The maximum nesting depth of transactions, so that a request cannot exhaust the stack.
const TXN_MAX_DEPTH: usize = 16;

/// Rejects requests that are too large.
pub(super) fn size(request: &impl Message) -> Result<(), Status> {
    if request.encoded_len() > REQUEST_MAX_BYTES {
        Err(refusal::request_too_large())
    } else {
        Ok(())
    }
}

pub(super) fn range(request: &PbRangeRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(refusal::empty_key());
    }
    if SortOrder::try_from(request.sort_order).is_err()
        || SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(refusal::invalid_sort_option());
    }
    Ok(())
}

pub(super) fn put(request: &PbPutRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(refusal::empty_key());
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(refusal::value_provided());
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(refusal::lease_provided());
    }
    Ok(())
}

pub(super) fn delete(request: &PbDeleteRequest) -> Result<(), Status> {
    if request.key.is_empty() { Err(refusal::empty_key()) } else { Ok(()) }
}

pub(super) fn txn(request: &PbTxnRequest) -> Result<(), Status> {
    txn_parts(request, 0)?;
    written(&request.success)?;
    written(&request.failure)?;
    Ok(())
}

fn txn_parts(request: &PbTxnRequest, depth: usize) -> Result<(), Status> {
    let most = request.compare.len().max(request.success.len()).max(request.failure.len());
    if most > TXN_MAX_OPERATIONS || depth > TXN_MAX_DEPTH {
        return Err(refusal::too_many_operations());
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(refusal::empty_key());
    }
    for operation in request.success.iter().chain(&request.failure) {
        match &operation.request {
            Some(PbTxnOpRequest::RequestRange(request)) => range(request)?,
            Some(PbTxnOpRequest::RequestPut(request)) => put(request)?,
            Some(PbTxnOpRequest::RequestDeleteRange(request)) => delete(request)?,
            Some(PbTxnOpRequest::RequestTxn(request)) => txn_parts(request, depth + 1)?,
            None => return Err(refusal::key_not_found()),
        }
    }
    Ok(())
}

/// The keys that a branch of a transaction puts, and the ranges that it deletes.
#[derive(Default)]
struct Written<'a> {
    puts: HashSet<&'a [u8]>,
    deletes: Vec<KeyRange>,
}

impl<'a> Written<'a> {
    fn put(&mut self, key: &'a [u8]) -> Result<(), Status> {
        if self.deletes.iter().any(|range| range.contains(key)) || !self.puts.insert(key) {
            return Err(refusal::duplicate_key());
        }
        Ok(())
    }
}

/// Checks that no key is changed twice in one revision: a key is put at most once and not also
/// deleted, including by nested transactions. The two branches of a nested transaction may put the
/// same key, since only one of them runs.
fn written(operations: &[PbTxnRequestOp]) -> Result<Written<'_>, Status> {
    let mut all = Written::default();
    for operation in operations {
        if let Some(PbTxnOpRequest::RequestDeleteRange(request)) = &operation.request {
            all.deletes.push(KeyRange::new(&request.key, &request.range_end));
        }
    }
    for operation in operations {
        if let Some(PbTxnOpRequest::RequestTxn(request)) = &operation.request {
            let success = written(&request.success)?;
            let failure = written(&request.failure)?;
            for key in success.puts.union(&failure.puts) {
                all.put(key)?;
            }
            all.deletes.extend(success.deletes);
            all.deletes.extend(failure.deletes);
        }
    }
    for operation in operations {
        if let Some(PbTxnOpRequest::RequestPut(request)) = &operation.request {
            all.put(&request.key)?;
        }
    }
    Ok(all)
}

/// Whether a transaction may put something.
pub(super) fn puts(request: &PbTxnRequest) -> bool {
    request.success.iter().chain(&request.failure).any(|operation| match &operation.request {
        Some(PbTxnOpRequest::RequestPut(_)) => true,
        Some(PbTxnOpRequest::RequestTxn(nested)) => puts(nested),
        _ => false,
    })
}
