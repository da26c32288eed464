//! Kinds that are defined through one apiserver and used through another.

use std::time::Duration;

use serde_json::json;

use super::Pair;
use crate::custom::{DEFINITIONS, WIDGETS, define, definition, widget};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_holds_on_every_apiserver_once_it_was_seen_on_one() {
    let pair = Pair::start(&[]).await;
    let (first, second) = (pair.first.admin(), pair.second.admin());
    let definition = definition();
    for _ in 0..5 {
        define(&first, &definition).await;
        // At once, through the apiserver that has not been notified.
        second.post(WIDGETS, &widget("a", json!({"size": 10}))).await.expect(201);
        // A stricter schema holds for the next write.
        let name = format!("{DEFINITIONS}/widgets.example.com");
        let limit = "schema/openAPIV3Schema/properties/spec/properties/size/maximum";
        let lower = |version: usize| {
            let path = format!("/spec/versions/{version}/{limit}");
            json!({"op": "replace", "path": path, "value": 9})
        };
        first.patch(&name, "json", &json!([lower(0), lower(1)])).await.expect(200);
        second.post(WIDGETS, &widget("b", json!({"size": 10}))).await.expect(422);
        let mut gone = first.watch(&format!("{DEFINITIONS}?watch=1&resourceVersion=0")).await;
        second.delete(&name).await.expect(200);
        while gone.next().await.unwrap()["type"] != "DELETED" {}
        // The other one learns of it by its own watch.
        let until = clock::instant() + Duration::from_secs(5);
        while second.get(WIDGETS).await.code != 404 {
            assert!(clock::instant() < until, "the kind is still served");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    pair.stop().await;
}

/// How long after its event in the store a kind is served and discovered by every apiserver, at most
/// in half of the cases.
const SERVED_WITHIN: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_is_served_everywhere_shortly_after_its_event() {
    const KINDS: usize = 15;
    let pair = Pair::start(&[]).await;
    let (first, second) = (pair.first.admin(), pair.second.admin());
    let mut times = Vec::new();
    for number in 0..KINDS {
        let (plural, group) = (format!("kinds{number}"), format!("g{number}.example.com"));
        let mut definition = definition();
        definition["metadata"]["name"] = format!("{plural}.{group}").into();
        definition["spec"]["group"] = group.clone().into();
        definition["spec"]["names"] = json!({"plural": plural, "kind": format!("Kind{number}")});
        define(&first, &definition).await;
        let start = clock::instant();
        let until = start + Duration::from_secs(5);
        let list = format!("/apis/{group}/v1/namespaces/default/{plural}");
        let names = |document: &str| document.contains(&plural);
        while second.get(&list).await.code != 200
            || !names(&second.get(&format!("/apis/{group}/v1")).await.text)
        {
            assert!(clock::instant() < until, "{plural} is not served");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        times.push(start.elapsed());
        let name = format!("{DEFINITIONS}/{plural}.{group}");
        second.delete(&name).await.expect(200);
    }
    times.sort_unstable();
    assert!(times[KINDS / 2] < SERVED_WITHIN, "{times:?}");
    pair.stop().await;
}
