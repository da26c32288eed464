//! Clients of both apiservers create and delete the same names: what is acknowledged happens in one
//! order, which every watch shows completely.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};

use super::Pair;
use crate::server::{Lines, Rest};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const NAMES: [&str; 3] = ["a", "b", "c"];
const CLIENTS_PER_SERVER: usize = 3;
const OPERATIONS: usize = 60;
const LAST: &str = "last";

/// What has been acknowledged about an incarnation, from the request to the answer.
#[derive(Debug)]
struct Acknowledged {
    uid: String,
    created: bool,
    start: u64,
    end: u64,
}

/// A change as a watch shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    kind: String,
    name: String,
    uid: String,
    revision: u64,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

async fn operate(rest: Rest, now: &(impl Fn() -> u64 + Sync)) -> Vec<Acknowledged> {
    let mut done = Vec::new();
    let mut known = String::new();
    for _ in 0..OPERATIONS {
        let name = NAMES[rand::random_range(0..NAMES.len())];
        let path = format!("{MAPS}/{name}");
        let start = now();
        if rand::random() {
            let finalizers =
                if rand::random_ratio(1, 4) { json!(["example.com/hold"]) } else { json!([]) };
            let map = json!({"metadata": {"name": name, "labels": {"name": name}, "finalizers": finalizers}});
            let answer = rest.post(MAPS, &map).await;
            assert!([201, 409].contains(&answer.code), "{}", answer.text);
            known = text(&answer.body["metadata"]["uid"]);
            if answer.code == 201 {
                done.push(Acknowledged { uid: known.clone(), created: true, start, end: now() });
            }
            continue;
        }
        let answer = match rand::random_range(0..4) {
            0 => rest.delete(&path).await,
            1 => {
                let options = json!({"preconditions": {"uid": known}});
                rest.send("DELETE", &path, &options).await
            }
            2 => rest.delete(&format!("{MAPS}?labelSelector=name%3D{name}")).await,
            _ => {
                // The last finalizer of what is being deleted.
                let none = json!({"metadata": {"finalizers": null}});
                rest.patch(&path, "merge", &none).await
            }
        };
        assert!([200, 404, 409].contains(&answer.code), "{}", answer.text);
        // The answer to a deletion that has happened: everything else has only been changed.
        let gone = text(&answer.body["details"]["uid"]);
        if answer.code == 200 && !gone.is_empty() {
            done.push(Acknowledged { uid: gone, created: false, start, end: now() });
        }
    }
    done
}

/// The changes of a watch up to the creation of the last object.
async fn changes(mut lines: Lines) -> Vec<Change> {
    let mut changes = Vec::new();
    loop {
        let frame = lines.next().await.expect("the watch goes on");
        let metadata = &frame["object"]["metadata"];
        let change = Change {
            kind: text(&frame["type"]),
            name: text(&metadata["name"]),
            uid: text(&metadata["uid"]),
            revision: text(&metadata["resourceVersion"]).parse().unwrap(),
        };
        if change.name == LAST {
            return changes;
        }
        changes.push(change);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn incarnations_follow_one_another() {
    let pair = Pair::start(&[]).await;
    pair.proxy.delay(Duration::from_millis(5));
    let list = pair.first.admin().get(MAPS).await.expect(200);
    let from =
        format!("{MAPS}?watch=1&resourceVersion={}", text(&list["metadata"]["resourceVersion"]));
    let mut watches = Vec::new();
    for server in [&pair.first, &pair.second] {
        watches.push(tokio::spawn(changes(server.admin().watch(&from).await)));
    }
    let clock = AtomicU64::new(0);
    let now = || clock.fetch_add(1, Ordering::SeqCst);
    let servers = [&pair.first, &pair.second];
    let clients = servers.iter().flat_map(|server| [server; CLIENTS_PER_SERVER]);
    let clients = clients.map(|server| operate(server.admin(), &now));
    let acknowledged: Vec<_> = join_all(clients).await.into_iter().flatten().collect();
    pair.second.admin().post(MAPS, &json!({"metadata": {"name": LAST}})).await.expect(201);
    let seen = watches.remove(0).await.unwrap();
    assert_eq!(watches.remove(0).await.unwrap(), seen, "the watches differ");
    assert!(seen.is_sorted_by_key(|change| change.revision));

    // One incarnation of a name ends before the next begins.
    let mut living: HashMap<&str, &str> = HashMap::new();
    let mut revisions: HashMap<(&str, bool), u64> = HashMap::new();
    for change in &seen {
        let created = match change.kind.as_str() {
            "ADDED" => {
                let before = living.insert(&change.name, &change.uid);
                assert_eq!(before, None, "two live incarnations: {change:?}");
                true
            }
            "DELETED" => {
                let before = living.remove(&*change.name);
                assert_eq!(before, Some(&*change.uid), "{change:?}");
                false
            }
            _ => {
                assert_eq!(living.get(&*change.name), Some(&&*change.uid), "{change:?}");
                continue;
            }
        };
        let twice = revisions.insert((&change.uid, created), change.revision);
        assert_eq!(twice, None, "{change:?}");
    }
    // Everything acknowledged has been seen, and in the order in which it was acknowledged.
    let revision = |one: &Acknowledged| {
        let found = revisions.get(&(one.uid.as_str(), one.created));
        *found.unwrap_or_else(|| panic!("acknowledged and never seen: {one:?}"))
    };
    for one in &acknowledged {
        for other in acknowledged.iter().filter(|other| one.end < other.start) {
            assert!(revision(one) < revision(other), "{one:?} {other:?}");
        }
    }
    assert!(acknowledged.iter().filter(|one| !one.created).count() > OPERATIONS / 10);
    pair.stop().await;
}
