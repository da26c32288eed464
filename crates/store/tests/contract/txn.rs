//! Transactions over the wire.

use etcd_client::{
    CompareOp,
    proto::{
        PbCompare, PbCompareTarget, PbDeleteRequest, PbPutRequest, PbRangeRequest, PbTargetUnion,
        PbTxnOpRequest, PbTxnRequest, PbTxnRequestOp,
    },
};

use crate::{
    pair::Pair,
    raw::{Call, compact, delete, put, range},
};

fn op(request: PbTxnOpRequest) -> PbTxnRequestOp {
    PbTxnRequestOp { request: Some(request) }
}

fn op_put(key: &str, value: &str) -> PbTxnRequestOp {
    op(PbTxnOpRequest::RequestPut(PbPutRequest { prev_kv: true, ..put(key, value) }))
}

fn op_range(key: &str, end: &str) -> PbTxnRequestOp {
    op(PbTxnOpRequest::RequestRange(range(key, end)))
}

fn op_delete(key: &str, end: &str) -> PbTxnRequestOp {
    op(PbTxnOpRequest::RequestDeleteRange(PbDeleteRequest { prev_kv: true, ..delete(key, end) }))
}

fn op_txn(txn: PbTxnRequest) -> PbTxnRequestOp {
    op(PbTxnOpRequest::RequestTxn(txn))
}

fn exists(key: &str) -> PbCompare {
    compare(key, "", CompareOp::Greater, PbTargetUnion::Version(0))
}

fn compare(key: &str, end: &str, result: CompareOp, union: PbTargetUnion) -> PbCompare {
    let target = match union {
        PbTargetUnion::Version(_) => PbCompareTarget::Version,
        PbTargetUnion::CreateRevision(_) => PbCompareTarget::Create,
        PbTargetUnion::ModRevision(_) => PbCompareTarget::Mod,
        PbTargetUnion::Value(_) => PbCompareTarget::Value,
        PbTargetUnion::Lease(_) => PbCompareTarget::Lease,
    };
    PbCompare {
        result: result as i32,
        target: target as i32,
        key: key.into(),
        range_end: end.into(),
        target_union: Some(union),
    }
}

fn txn(
    compare: impl Into<Vec<PbCompare>>,
    success: impl Into<Vec<PbTxnRequestOp>>,
    failure: impl Into<Vec<PbTxnRequestOp>>,
) -> PbTxnRequest {
    PbTxnRequest { compare: compare.into(), success: success.into(), failure: failure.into() }
}

async fn filled() -> Pair {
    let mut pair = Pair::start().await;
    for (key, value) in [("a", "1"), ("b", "2"), ("b", "3"), ("c", "4")] {
        pair.same(Call::Put(put(key, value))).await;
    }
    pair
}

#[tokio::test]
async fn comparisons() {
    let mut pair = filled().await;
    for result in [CompareOp::Equal, CompareOp::NotEqual, CompareOp::Greater, CompareOp::Less] {
        for (key, end) in
            [("a", ""), ("b", ""), ("x", ""), ("a", "c"), ("a", "\0"), ("x", "z"), ("c", "a")]
        {
            for number in [0, 1, 2, 3, 4] {
                for union in [
                    PbTargetUnion::Version(number),
                    PbTargetUnion::CreateRevision(number),
                    PbTargetUnion::ModRevision(number),
                    PbTargetUnion::Lease(number),
                    PbTargetUnion::Value(number.to_string().into_bytes()),
                ] {
                    let request = txn([compare(key, end, result, union)], [], []);
                    pair.same(Call::Txn(request)).await;
                }
            }
        }
        let mismatched = PbCompare {
            target: PbCompareTarget::Mod as i32,
            ..compare("a", "", result, PbTargetUnion::Version(1))
        };
        pair.same(Call::Txn(txn([mismatched], [], []))).await;
        let bare = PbCompare {
            target_union: None,
            ..compare("a", "", result, PbTargetUnion::Value(Vec::new()))
        };
        pair.same(Call::Txn(txn([bare], [], []))).await;
    }
}

#[tokio::test]
async fn branches_and_operations() {
    let mut pair = filled().await;
    pair.same(Call::Txn(txn([], [], []))).await;
    pair.same(Call::Txn(txn([], [op_range("a", "\0")], []))).await;
    pair.same(Call::Txn(txn([exists("a"), exists("x")], [op_put("x", "no")], [op_range("a", "")])))
        .await;
    pair.same(Call::Txn(txn(
        [exists("a")],
        [op_put("x", "yes"), op_put("a", "new"), op_range("a", "\0")],
        [],
    )))
    .await;
    pair.same(Call::Txn(txn(
        [],
        [op_range("a", "\0"), op_delete("a", "c"), op_range("a", "\0"), op_put("c", "5")],
        [],
    )))
    .await;
    pair.same(Call::Txn(txn([], [op_delete("nothing", "")], []))).await;
    pair.same(Call::Txn(txn([], [op_put("y", "1"), op_delete("nothing", "")], []))).await;
    pair.same(Call::Txn(txn([], [op_delete("x", ""), op_delete("x", "z")], []))).await;
    let old = op(PbTxnOpRequest::RequestRange(PbRangeRequest { revision: 3, ..range("a", "\0") }));
    pair.same(Call::Txn(txn([], [op_put("z", "1"), old.clone()], []))).await;
    pair.same(Call::Txn(txn([], [old], []))).await;
    pair.same(Call::Range(range("\0", "\0"))).await;
}

#[tokio::test]
async fn nested() {
    let mut pair = filled().await;
    // Nested comparisons see the state before the whole transaction.
    let inner =
        txn([exists("new")], [op_put("seen", "1")], [op_put("unseen", "1"), op_range("new", "")]);
    pair.same(Call::Txn(txn([exists("a")], [op_put("new", "1"), op_txn(inner.clone())], []))).await;
    pair.same(Call::Txn(txn([exists("x")], [], [op_txn(txn([], [op_txn(inner)], []))]))).await;
    pair.same(Call::Txn(txn([], [op_txn(txn([], [op_range("a", "\0")], []))], []))).await;
    let delete_within = txn([], [op_delete("a", "c")], []);
    pair.same(Call::Txn(txn([], [op_txn(delete_within), op_range("a", "\0")], []))).await;
    pair.same(Call::Range(range("\0", "\0"))).await;
}

#[tokio::test]
async fn rejected_transactions_change_nothing() {
    let mut pair = filled().await;
    let future =
        op(PbTxnOpRequest::RequestRange(PbRangeRequest { revision: 99, ..range("a", "") }));
    let absent =
        op(PbTxnOpRequest::RequestPut(PbPutRequest { ignore_value: true, ..put("x", "") }));
    let no_lease = op(PbTxnOpRequest::RequestPut(PbPutRequest { lease: 9, ..put("x", "1") }));
    pair.rejected(Call::Txn(txn([], [op_put("a", "lost"), future.clone()], [])), "future revision")
        .await;
    pair.rejected(Call::Txn(txn([], [future], [])), "future revision").await;
    pair.rejected(Call::Txn(txn([], [op_put("a", "lost"), absent.clone()], [])), "key not found")
        .await;
    pair.rejected(Call::Txn(txn([], [op_put("x", "lost"), op_txn(txn([], [absent], []))], [])), "")
        .await;
    pair.rejected(
        Call::Txn(txn([], [op_put("a", "lost"), no_lease.clone()], [])),
        "lease not found",
    )
    .await;
    // Operations on the other branch do not matter.
    pair.same(Call::Txn(txn([exists("a")], [op_put("ok", "1")], [no_lease]))).await;
    pair.rejected(Call::Txn(txn([], [op_put("", "1")], [])), "key is not provided").await;
    pair.rejected(Call::Txn(txn([], [], [op_range("", "")])), "key is not provided").await;
    pair.rejected(Call::Txn(txn([exists("")], [], [])), "key is not provided").await;
    pair.same(compact(4)).await;
    let compacted =
        op(PbTxnOpRequest::RequestRange(PbRangeRequest { revision: 2, ..range("a", "") }));
    pair.rejected(Call::Txn(txn([], [op_put("a", "lost"), compacted], [])), "has been compacted")
        .await;
    let many: Vec<_> = (0..129).map(|index| op_put(&format!("k{index}"), "1")).collect();
    pair.rejected(Call::Txn(txn([], many.clone(), [])), "too many operations").await;
    pair.same(Call::Txn(txn([], &many[..128], []))).await;
    pair.same(Call::Range(range("\0", "\0"))).await;
}

#[tokio::test]
async fn no_key_is_changed_twice() {
    let mut pair = filled().await;
    let nested = |success: Vec<_>, failure: Vec<_>| op_txn(txn([], success, failure));
    for twice in [
        vec![op_put("a", "1"), op_put("a", "2")],
        vec![op_put("a", "1"), op_delete("a", "")],
        vec![op_delete("a", "c"), op_put("b", "2")],
        vec![op_put("a", "1"), nested(vec![op_put("a", "2")], vec![])],
        vec![op_put("a", "1"), nested(vec![], vec![op_put("a", "2")])],
        vec![op_delete("a", "c"), nested(vec![op_put("b", "2")], vec![])],
        vec![nested(vec![op_delete("a", "c")], vec![]), op_put("b", "1")],
        vec![nested(vec![op_put("a", "1")], vec![]), nested(vec![op_put("a", "2")], vec![])],
    ] {
        pair.rejected(Call::Txn(txn([], twice.clone(), [])), "duplicate key").await;
        pair.rejected(Call::Txn(txn([], [], twice)), "duplicate key").await;
    }
    for once in [
        vec![op_put("a", "1"), op_put("b", "2")],
        vec![op_delete("a", "c"), op_delete("b", "d"), op_put("c", "1")],
        vec![nested(vec![op_put("a", "1")], vec![op_put("a", "2")])],
        vec![op_put("a", "1"), op_range("a", "c")],
    ] {
        pair.same(Call::Txn(txn([], once, []))).await;
    }
    pair.same(Call::Range(range("\0", "\0"))).await;
}
