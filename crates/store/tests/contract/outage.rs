//! etcd outages.

use std::time::Duration;

use bytes::Bytes;
use etcd_client::{AlarmAction, AlarmOptions, AlarmType, CompactionOptions};
use futures::StreamExt;
use store::{Error, EtcdConfig, Outcome, Revision, Store, WatchOptions};
use tokio::time::timeout;

use crate::backend::Etcd;

/// A refused connection must be reported immediately, not after the request's timeout.
const TIMEOUT: Duration = Duration::from_secs(10);

fn written(outcome: Outcome) -> Revision {
    match outcome {
        Outcome::Written(revision) => revision,
        conflict => panic!("{conflict:?}"),
    }
}

fn unavailable<T>(answer: Result<T, Error>) -> bool {
    matches!(answer, Err(Error::Unavailable(_)))
}

#[tokio::test]
async fn no_server() {
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let config = EtcdConfig::plain([format!("http://127.0.0.1:{port}")]);
    let store = Store::connect(&config).await.unwrap();
    let answer = timeout(TIMEOUT, store.current_revision()).await.expect("a prompt response");
    assert!(unavailable(answer));
}

#[tokio::test]
async fn outage_and_recovery() {
    let mut etcd = Etcd::start();
    let store = Store::connect(&EtcdConfig::plain([&etcd.url])).await.unwrap();
    let (key, prefix) = (Bytes::from_static(b"/a"), Bytes::from_static(b"/"));
    let first = written(store.create(key.clone(), "1".into()).await.unwrap());
    let from = first.next();
    let mut watch =
        store.watch(WatchOptions { prefix: prefix.clone(), from, previous: false }).await.unwrap();

    etcd.kill();
    let ended = timeout(TIMEOUT, async {
        // Periodic notifications may have arrived before.
        loop {
            match watch.next().await.expect("a watch ends with an error") {
                Ok(batch) => assert_eq!(batch.events, []),
                Err(error) => return error,
            }
        }
    });
    assert!(unavailable::<()>(Err(ended.await.expect("the watch ends promptly"))));
    assert!(watch.next().await.is_none());
    let update = timeout(TIMEOUT, store.update(key.clone(), "2".into(), first));
    assert!(unavailable(update.await.expect("a prompt response")));
    assert!(unavailable(
        timeout(TIMEOUT, store.get(key.clone())).await.expect("a prompt response")
    ));

    assert!(etcd.run(), "etcd restarts on its data");
    let back = timeout(TIMEOUT, async {
        loop {
            match store.get(key.clone()).await {
                Ok(fetched) => return fetched,
                Err(error) => assert!(matches!(error, Error::Unavailable(_)), "{error:?}"),
            }
        }
    });
    let entry = back.await.expect("the client reconnects").entry.unwrap();
    assert_eq!((entry.value, entry.mod_revision), (Bytes::from_static(b"1"), first));
    let second = written(store.update(key, "3".into(), first).await.unwrap());
    let mut watch = store.watch(WatchOptions { prefix, from, previous: false }).await.unwrap();
    let batch = watch.next().await.unwrap().unwrap();
    assert_eq!(batch.events.last().unwrap().entry.mod_revision, second);
}

/// etcd over its quota rejects requests that need space, with a specific error, until space is
/// freed and the alarm is disarmed (`etcdctl alarm disarm`); reads and deletions continue.
#[tokio::test]
async fn quota_exceeded_and_freed() {
    let quota = "--quota-backend-bytes=1000000".to_owned();
    let etcd = Etcd::start_with("http", &[quota]);
    let config = EtcdConfig::plain([&etcd.url]);
    let store = Store::connect(&config).await.unwrap();
    let value = Bytes::from(vec![b'x'; 50_000]);
    let key = |index: usize| Bytes::from(format!("/{index}"));
    let mut revisions = Vec::new();
    let refusal = loop {
        match store.create(key(revisions.len()), value.clone()).await {
            Ok(outcome) => revisions.push(written(outcome)),
            Err(error) => break error,
        }
        // etcd measures its file, which grows with the batches that it commits.
        assert!(revisions.len() < 2_000, "the quota is never exceeded");
    };
    assert!(matches!(refusal, Error::NoSpace) && refusal.is_ambiguous(), "{refusal:?}");
    let all = revisions.len();
    assert!(store.get(key(0)).await.unwrap().entry.is_some());

    for (index, revision) in revisions.into_iter().enumerate().take(all - 1) {
        written(store.delete(key(index), revision).await.unwrap());
    }
    let now = i64::try_from(store.current_revision().await.unwrap().get()).unwrap();
    let mut client = store.etcd();
    let physical = CompactionOptions::new().with_physical();
    client.compact(now, Some(physical)).await.unwrap();
    client.maintenance_client().defragment().await.unwrap();
    let mut maintenance = client.maintenance_client();
    let raised = maintenance.alarm(AlarmAction::Get, AlarmType::None, None).await.unwrap();
    for alarm in raised.alarms() {
        let mut of_member = AlarmOptions::new();
        of_member.with_member(alarm.member_id());
        maintenance.alarm(AlarmAction::Deactivate, alarm.alarm(), Some(of_member)).await.unwrap();
    }
    // The key that was refused may be there.
    written(store.create(key(all + 1), value).await.unwrap());
    assert!(store.get(key(all - 1)).await.unwrap().entry.is_some());
}
