//! Ranges, puts, deletions and compaction over the wire.

use etcd_client::{
    SortOrder, SortTarget,
    proto::{PbDeleteRequest, PbPutRequest, PbRangeRequest},
};

use crate::{
    pair::Pair,
    raw::{Call, compact, delete, put, range},
};

/// Keys with different versions, values, and orders of creation and modification; ends at revision
/// 12.
async fn filled() -> Pair {
    let mut pair = Pair::start().await;
    for (key, value) in [
        ("a", "5"),
        ("b", "4"),
        ("c", "3"),
        ("a", "9"),
        ("d", "2"),
        ("b", "8"),
        ("b", "7"),
        ("e", "1"),
    ] {
        pair.same(Call::Put(put(key, value))).await;
    }
    pair.same(Call::Delete(delete("c", ""))).await;
    pair.same(Call::Put(put("c", "6"))).await;
    pair.same(Call::Put(put("a/b", "inner"))).await;
    pair
}

#[tokio::test]
async fn range_bounds() {
    let mut pair = filled().await;
    for (key, end) in [
        ("a", ""),
        ("x", ""),
        ("a", "\0"),
        ("\0", "\0"),
        ("b", "\0"),
        ("a", "c"),
        ("a/", "a0"),
        ("c", "a"),
        ("c", "c"),
        ("z", "\0"),
    ] {
        pair.same(Call::Range(range(key, end))).await;
    }
    pair.rejected(Call::Range(range("", "")), "key is not provided").await;
    pair.rejected(Call::Range(range("", "\0")), "key is not provided").await;
}

#[tokio::test]
async fn range_options() {
    let mut pair = filled().await;
    for limit in [0, 1, 3, 6, 7, -1] {
        for (keys_only, count_only) in [(false, false), (true, false), (false, true), (true, true)]
        {
            pair.same(Call::Range(PbRangeRequest {
                limit,
                keys_only,
                count_only,
                ..range("a", "\0")
            }))
            .await;
        }
        for target in [
            SortTarget::Key,
            SortTarget::Version,
            SortTarget::Create,
            SortTarget::Mod,
            SortTarget::Value,
        ] {
            for order in [SortOrder::None, SortOrder::Ascend, SortOrder::Descend] {
                for keys_only in [false, true] {
                    let (sort_target, sort_order) = (target as i32, order as i32);
                    let request = PbRangeRequest {
                        limit,
                        keys_only,
                        sort_target,
                        sort_order,
                        ..range("a", "\0")
                    };
                    pair.same(Call::Range(request)).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn range_filters_by_revision() {
    let mut pair = filled().await;
    for bound in [0, 1, 3, 5, 8, 11, 12, 13, -1] {
        for limit in [0, 2] {
            for request in [
                PbRangeRequest { min_mod_revision: bound, limit, ..range("a", "\0") },
                PbRangeRequest { max_mod_revision: bound, limit, ..range("a", "\0") },
                PbRangeRequest { min_create_revision: bound, limit, ..range("a", "\0") },
                PbRangeRequest { max_create_revision: bound, limit, ..range("a", "\0") },
                PbRangeRequest {
                    min_mod_revision: bound,
                    max_create_revision: 9,
                    limit,
                    ..range("a", "\0")
                },
            ] {
                pair.same(Call::Range(request)).await;
            }
        }
    }
}

#[tokio::test]
async fn range_at_a_revision() {
    let mut pair = filled().await;
    for revision in -1..=12 {
        pair.same(Call::Range(PbRangeRequest { revision, ..range("a", "\0") })).await;
        pair.same(Call::Range(PbRangeRequest { revision, count_only: true, ..range("c", "") }))
            .await;
    }
    pair.rejected(
        Call::Range(PbRangeRequest { revision: 13, ..range("a", "") }),
        "future revision",
    )
    .await;
}

#[tokio::test]
async fn put_options() {
    let mut pair = Pair::start().await;
    let first = PbPutRequest { prev_kv: true, ..put("a", "1") };
    pair.all_same([Call::Put(first.clone()), Call::Put(first), Call::Put(put("empty", ""))]).await;
    pair.same(Call::Put(PbPutRequest { ignore_value: true, prev_kv: true, ..put("a", "") })).await;
    pair.same(Call::Put(PbPutRequest { ignore_lease: true, ..put("a", "2") })).await;
    pair.same(Call::Put(PbPutRequest { ignore_lease: true, ignore_value: true, ..put("a", "") }))
        .await;
    pair.same(Call::Range(range("\0", "\0"))).await;
    pair.rejected(Call::Put(put("", "1")), "key is not provided").await;
    pair.rejected(
        Call::Put(PbPutRequest { ignore_value: true, ..put("a", "1") }),
        "value is provided",
    )
    .await;
    pair.rejected(
        Call::Put(PbPutRequest { ignore_lease: true, lease: 7, ..put("a", "1") }),
        "lease is provided",
    )
    .await;
    pair.rejected(Call::Put(PbPutRequest { ignore_value: true, ..put("x", "") }), "key not found")
        .await;
    pair.rejected(Call::Put(PbPutRequest { ignore_lease: true, ..put("x", "1") }), "key not found")
        .await;
    pair.rejected(
        Call::Put(PbPutRequest { lease: 7, ..put("a", "1") }),
        "requested lease not found",
    )
    .await;
    let huge = "x".repeat(1536 * 1024);
    pair.rejected(Call::Put(put("a", &huge)), "request is too large").await;
    pair.same(Call::Range(range("\0", "\0"))).await;
}

#[tokio::test]
async fn deletions() {
    let mut pair = filled().await;
    pair.same(Call::Delete(delete("x", ""))).await;
    pair.same(Call::Delete(delete("c", "a"))).await;
    pair.same(Call::Delete(PbDeleteRequest { prev_kv: true, ..delete("a", "") })).await;
    pair.same(Call::Delete(delete("a", ""))).await;
    pair.same(Call::Delete(PbDeleteRequest { prev_kv: true, ..delete("a", "c") })).await;
    pair.same(Call::Range(range("\0", "\0"))).await;
    pair.same(Call::Put(put("a", "again"))).await;
    pair.same(Call::Delete(delete("\0", "\0"))).await;
    pair.same(Call::Range(range("\0", "\0"))).await;
    pair.rejected(Call::Delete(delete("", "")), "key is not provided").await;
    for revision in 1..=16 {
        pair.same(Call::Range(PbRangeRequest { revision, ..range("\0", "\0") })).await;
    }
}

#[tokio::test]
async fn compaction() {
    let mut pair = filled().await;
    pair.rejected(compact(13), "future revision").await;
    pair.same(compact(6)).await;
    pair.rejected(compact(6), "has been compacted").await;
    pair.rejected(compact(3), "has been compacted").await;
    for revision in 1..=12 {
        pair.same(Call::Range(PbRangeRequest { revision, ..range("a", "\0") })).await;
        pair.same(Call::Range(PbRangeRequest { revision, count_only: true, ..range("a", "\0") }))
            .await;
    }
    pair.same(compact(10)).await;
    pair.same(Call::Delete(delete("a", "d"))).await;
    pair.same(compact(13)).await;
    pair.same(Call::Range(PbRangeRequest { revision: 13, ..range("a", "\0") })).await;
    pair.rejected(
        Call::Range(PbRangeRequest { revision: 12, ..range("a", "\0") }),
        "has been compacted",
    )
    .await;
    pair.same(Call::Put(put("a", "after"))).await;
    pair.same(Call::Range(range("a", "\0"))).await;
}
