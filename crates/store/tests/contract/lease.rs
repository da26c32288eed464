//! Leases over the wire.

use etcd_client::proto::{
    PbLeaseGrantRequest, PbLeaseRevokeRequest, PbLeaseTimeToLiveRequest, PbPutRequest,
    PbWatchRequest, PbWatchRequestUnion,
};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    pair::Pair,
    raw::{Call, Raw, key_of, put, range},
};

fn grant(id: i64, ttl: i64) -> Call {
    Call::Grant(PbLeaseGrantRequest { ttl, id })
}

fn revoke(id: i64) -> Call {
    Call::Revoke(PbLeaseRevokeRequest { id })
}

fn attach(key: &str, lease: i64) -> Call {
    Call::Put(PbPutRequest { lease, ..put(key, "v") })
}

fn keys_of(id: i64) -> Call {
    Call::TimeToLive(PbLeaseTimeToLiveRequest { id, keys: true })
}

#[tokio::test]
async fn grant_attach_revoke() {
    let mut pair = Pair::start().await;
    pair.all_same([Call::Leases, grant(7, 100), grant(8, 200), Call::Leases]).await;
    pair.rejected(grant(7, 100), "lease already exists").await;
    pair.rejected(grant(9, 9_000_000_001), "too large lease TTL").await;
    pair.all_same([
        attach("a", 7),
        attach("b", 7),
        attach("c", 8),
        keys_of(7),
        keys_of(8),
        keys_of(99),
    ])
    .await;
    // A put without a lease detaches the key; one with another lease moves it.
    pair.all_same([Call::Put(put("a", "x")), attach("c", 7), keys_of(7), keys_of(8)]).await;
    pair.same(Call::Put(PbPutRequest { ignore_lease: true, ..put("c", "kept") })).await;
    pair.all_same([Call::Range(range("\0", "\0")), Call::KeepAlive(7), Call::KeepAlive(99)]).await;
    pair.all_same([revoke(7), Call::Range(range("\0", "\0")), keys_of(7), Call::Leases, revoke(8)])
        .await;
    pair.rejected(revoke(7), "requested lease not found").await;
    pair.rejected(attach("a", 7), "requested lease not found").await;
    pair.all_same([grant(7, 50), keys_of(7), Call::Range(range("\0", "\0"))]).await;
}

#[tokio::test]
async fn expiry_deletes_the_keys_at_once() {
    let mut pair = Pair::start().await;
    pair.all_same([grant(7, 1), grant(8, 100), attach("a", 7), attach("b", 7), attach("c", 8)])
        .await;
    let (etcd, embedded) = tokio::join!(deleted(&mut pair.etcd, 2), deleted(&mut pair.embedded, 2));
    assert_eq!(embedded, etcd);
    assert_eq!(etcd, [("a".to_owned(), 5), ("b".to_owned(), 5)]);
    pair.all_same([Call::Range(range("\0", "\0")), keys_of(7), Call::Leases]).await;
}

/// The first deletions seen by a watch of all keys, ordered by key (etcd does not order them within
/// a lease).
async fn deleted(raw: &mut Raw, count: usize) -> Vec<(String, i64)> {
    let create = PbWatchRequestUnion::CreateRequest(Default::default());
    let PbWatchRequestUnion::CreateRequest(mut create) = create else { unreachable!() };
    (create.key, create.range_end, create.start_revision) = (vec![0], vec![0], 2);
    let (sender, requests) = tokio::sync::mpsc::channel(1);
    let request =
        PbWatchRequest { request_union: Some(PbWatchRequestUnion::CreateRequest(create)) };
    sender.send(request).await.unwrap();
    let mut answers = raw.watch(ReceiverStream::new(requests)).await;
    let mut deleted = Vec::new();
    while deleted.len() < count {
        let answer = answers.message().await.unwrap().unwrap();
        let deletions = answer.events.iter().filter(|event| event.r#type == 1);
        deleted.extend(
            deletions.map(|event| (key_of(&event.kv), event.kv.as_ref().unwrap().mod_revision)),
        );
    }
    deleted.sort();
    deleted
}
