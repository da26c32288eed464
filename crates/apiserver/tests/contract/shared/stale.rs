//! Writes through an apiserver whose cache is behind: what it decides must be what the store says.

use serde_json::{Value, json};

use super::register::registers;
use super::{Loss, Pair};
use crate::server::Rest;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// Two apiservers, of which the second sees nothing of what `change` does through the first.
async fn behind(pair: &Pair, path: &str, change: impl AsyncFnOnce(&Rest)) -> (Rest, Rest) {
    let (ahead, behind) = (pair.first.admin(), pair.second.admin());
    // A consistent read waits for the cache.
    behind.get(path).await.expect(200);
    pair.proxy.hold(true);
    change(&ahead).await;
    (ahead, behind)
}

fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_changes_nothing_of_a_stale_version_is_written() {
    let pair = Pair::start(&[]).await;
    for register in registers() {
        pair.first.admin().delete(register.path).await;
        register.create(&pair.first.admin()).await;
        for way in &register.ways {
            way.write(&pair.first.admin(), 0).await.expect(200);
            let (ahead, behind) = behind(&pair, register.path, async |ahead| {
                way.write(ahead, 1).await.expect(200);
            })
            .await;
            way.write(&behind, 0).await.expect(200);
            let after = ahead.get(register.path).await.expect(200);
            assert_eq!(register.value(&after), 0, "{}", way.name());
            // And what really changes nothing writes nothing.
            way.write(&behind, 0).await.expect(200);
            let again = ahead.get(register.path).await.expect(200);
            assert_eq!(version(&again), version(&after), "{}", way.name());
            pair.proxy.hold(false);
        }
    }
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_does_not_answer_for_an_incarnation_that_is_gone() {
    let pair = Pair::start(&[]).await;
    let path = format!("{MAPS}/a");
    let held = json!({"metadata": {"name": "a", "finalizers": ["example.com/hold"]}});
    let plain = json!({"metadata": {"name": "a", "labels": {"of": "second"}}});
    for options in
        [json!({}), json!({"propagationPolicy": "Background"}), json!({"dryRun": ["All"]})]
    {
        pair.first.admin().post(MAPS, &held).await.expect(201);
        pair.first.admin().delete(&path).await.expect(200);
        let (ahead, behind) = behind(&pair, &path, async |ahead| {
            let none = json!({"metadata": {"finalizers": null}});
            ahead.patch(&path, "merge", &none).await.expect(200);
            ahead.post(MAPS, &plain).await.expect(201);
        })
        .await;
        let answer = behind.send("DELETE", &path, &options).await.expect(200);
        if options.get("dryRun").is_some() {
            ahead.get(&path).await.expect(200);
            ahead.delete(&path).await.expect(200);
        } else {
            assert_eq!(answer["status"], "Success", "{answer}");
            ahead.get(&path).await.expect(404);
        }
        // Now it is gone for both.
        behind.send("DELETE", &path, &options).await.expect(404);
        pair.proxy.hold(false);
    }

    // A collection as the cache has it: what was created since is not in it.
    let labelled = json!({"metadata": {"name": "b", "labels": {"of": "first"}}});
    pair.first.admin().post(MAPS, &labelled).await.expect(201);
    let (ahead, behind) = behind(&pair, &format!("{MAPS}/b"), async |ahead| {
        ahead.delete(&format!("{MAPS}/b")).await.expect(200);
        ahead.post(MAPS, &json!({"metadata": {"name": "b"}})).await.expect(201);
    })
    .await;
    let old = format!("{MAPS}?labelSelector=of%3Dfirst&resourceVersion=0");
    let deleted = behind.delete(&old).await.expect(200);
    assert_eq!(deleted["items"], json!([]));
    ahead.get(&format!("{MAPS}/b")).await.expect(200);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn preconditions_are_judged_by_the_store() {
    let pair = Pair::start(&[]).await;
    let path = format!("{MAPS}/a");
    let named = json!({"metadata": {"name": "a"}});
    let old = pair.first.admin().post(MAPS, &named).await.expect(201);
    let mut new = Value::Null;
    let (ahead, behind) = behind(&pair, &path, async |ahead| {
        ahead.delete(&path).await.expect(200);
        new = ahead.post(MAPS, &named).await.expect(201);
    })
    .await;
    let of = |object: &Value, field: &str| object["metadata"][field].clone();
    let with = |object: &Value, field: &str| json!({"metadata": {"name": "a", (field): of(object, field)}, "data": {"by": field}});
    for field in ["uid", "resourceVersion"] {
        for dry in ["", "?dryRun=All"] {
            let path = format!("{path}{dry}");
            behind.send("PUT", &path, &with(&old, field)).await.expect(409);
            // A patched uid is not a precondition but a change, which is refused.
            let code = if field == "uid" { 422 } else { 409 };
            behind.patch(&path, "merge", &with(&old, field)).await.expect(code);
            let options = json!({"preconditions": {(field): of(&old, field)}});
            behind.send("DELETE", &path, &options).await.expect(409);
        }
    }
    let written = behind.send("PUT", &path, &with(&new, "resourceVersion")).await.expect(200);
    assert_eq!(of(&written, "uid"), of(&new, "uid"));
    behind.patch(&path, "merge", &with(&new, "uid")).await.expect(200);
    let dry = format!("{path}?dryRun=All");
    let shown = behind.patch(&dry, "merge", &json!({"data": {"more": "y"}})).await.expect(200);
    assert_eq!(shown["data"], json!({"by": "uid", "more": "y"}));
    let options = json!({"preconditions": {"uid": of(&new, "uid")}});
    behind.send("DELETE", &path, &options).await.expect(200);
    ahead.get(&path).await.expect(404);
    // What the cache still has is neither found nor in the way.
    for dry in ["?dryRun=All", ""] {
        let path = format!("{path}{dry}");
        behind.patch(&path, "merge", &json!({"data": {"x": "y"}})).await.expect(404);
        behind.send("PUT", &path, &named).await.expect(404);
        behind.delete(&path).await.expect(404);
        behind.post(&format!("{MAPS}{dry}"), &named).await.expect(201);
    }
    behind.post(MAPS, &named).await.expect(409);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subresources_are_judged_by_the_store() {
    let pair = Pair::start(&[]).await;
    pair.first.default_account("default").await;
    let rest = pair.first.admin();
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    rest.post(PODS, &pod).await.expect(201);
    let path = format!("{PODS}/p");
    let bind = |node: &str| json!({"target": {"kind": "Node", "name": node}});
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"metadata": {"name": "robot"}});
    rest.post(accounts, &account).await.expect(201);
    let (ahead, behind) = behind(&pair, &path, async |ahead| {
        ahead.post(&format!("{path}/binding"), &bind("n1")).await.expect(201);
        ahead.delete(&format!("{accounts}/robot")).await.expect(200);
        ahead.post(accounts, &account).await.expect(201);
    })
    .await;
    behind.post(&format!("{path}/binding"), &bind("n2")).await.expect(409);
    let bound = ahead.get(&path).await.expect(200);
    assert_eq!(bound["spec"]["nodeName"], "n1");
    // These read what they answer from: they wait for the cache, and fail if it does not catch up.
    let request = json!({"spec": {"expirationSeconds": 3600}});
    behind.post(&format!("{accounts}/robot/token"), &request).await.expect(504);
    let eviction = json!({"metadata": {"name": "p", "namespace": "default"}});
    behind.post(&format!("{path}/eviction"), &eviction).await.expect(504);
    pair.proxy.hold(false);
    behind.post(&format!("{accounts}/robot/token"), &request).await.expect(201);
    behind.post(&format!("{path}/eviction"), &eviction).await.expect(201);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_created_in_a_namespace_that_is_gone() {
    let pair = Pair::start(&[]).await;
    let (namespaces, path) = ("/api/v1/namespaces", "/api/v1/namespaces/x");
    let (namespace, map) = (json!({"metadata": {"name": "x"}}), json!({"metadata": {"name": "a"}}));
    let finalize = async |rest: &Rest| {
        let mut going = rest.get(path).await.expect(200);
        going["spec"]["finalizers"] = json!([]);
        rest.send("PUT", &format!("{path}/finalize"), &going).await.expect(200);
        rest.get(path).await.expect(404);
    };
    pair.first.admin().post(namespaces, &namespace).await.expect(201);
    let (ahead, behind) = behind(&pair, path, async |ahead| {
        ahead.delete(path).await.expect(200);
    })
    .await;
    for dry in ["?dryRun=All", ""] {
        let refused = behind.post(&format!("{path}/configmaps{dry}"), &map).await.expect(403);
        assert_eq!(refused["details"]["causes"][0]["reason"], "NamespaceTerminating");
    }
    finalize(&ahead).await;
    for dry in ["?dryRun=All", ""] {
        behind.post(&format!("{path}/configmaps{dry}"), &map).await.expect(404);
    }
    // A change that does not matter, and a new namespace of the name.
    ahead.post(namespaces, &namespace).await.expect(201);
    behind.post(&format!("{path}/configmaps"), &map).await.expect(201);
    ahead.delete(path).await.expect(200);
    pair.proxy.hold(false);
    let terminating = behind.get(path).await.expect(200);
    assert_eq!(terminating["status"]["phase"], "Terminating");
    pair.proxy.hold(true);
    ahead.delete(&format!("{path}/configmaps/a")).await.expect(200);
    finalize(&ahead).await;
    ahead.post(namespaces, &namespace).await.expect(201);
    for dry in ["?dryRun=All", ""] {
        behind.post(&format!("{path}/configmaps{dry}"), &map).await.expect(201);
    }
    pair.stop().await;
}

/// A write whose answer is lost may have been applied: it is not applied again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ambiguous_write_is_not_repeated() {
    let pair = Pair::start(&[]).await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i", "args": []}]}}}});
    pair.first.admin().post(deployments, &deployment).await.expect(201);
    let path = format!("{deployments}/d");
    let rest = pair.second.admin();
    let args = "/spec/template/spec/containers/0/args";
    let first = json!([{"op": "add", "path": args, "value": ["a"]}]);
    rest.patch(&path, "json", &first).await.expect(200);
    let more = json!([{"op": "add", "path": format!("{args}/-"), "value": "b"}]);
    for (loss, expected) in [(Loss::Answer, json!(["a", "b"])), (Loss::Request, json!(["a", "b"]))]
    {
        // Behind, it would ask the store first.
        rest.get(&path).await.expect(200);
        pair.proxy.lose("deployments/default/d", loss);
        rest.patch(&path, "json", &more).await.expect(503);
        assert!(pair.proxy.has_lost());
        let after = pair.first.admin().get(&path).await.expect(200);
        assert_eq!(after.pointer(args), Some(&expected), "{loss:?}");
    }
    pair.stop().await;
}
