//! What a server may do wrong, and what becomes of requests to it, and of all others.

use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;
use testkit::extension::Reply;

use super::{NAME, PATH, SERVICES, Set, THINGS, until, until_condition};
use crate::server::Answer;

fn text(answer: &Answer) -> (u16, &str) {
    (answer.code, answer.text.as_str())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_holds_up_its_own_requests_alone() {
    let set = Set::start_with(|seen| match seen.path.contains("slow") {
        true => Reply::Hang,
        false => THINGS.answer(seen),
    })
    .await;
    let slow = format!("{PATH}/things/slow?timeout=1s");
    let late = set.rest.get(&slow);
    let others = async {
        for _ in 0..10 {
            set.rest.get(&format!("{PATH}/things/a")).await.expect(200);
            set.rest.get("/api/v1/namespaces").await.expect(200);
        }
    };
    let (late, ()) = tokio::join!(late, others);
    assert_eq!(late.code, 504, "{}", late.text);
    assert!(late.body["message"].as_str().unwrap().contains("within the allotted timeout"));
    // An answer that begins and does not end.
    set.extension.behave(|seen| match seen.path.contains("slow") {
        true => Reply::Lines(vec![json!({"kind": "Thing"})]),
        false => THINGS.answer(seen),
    });
    let mut lines = set.rest.watch(&format!("{PATH}/things/slow?timeout=1s")).await;
    assert_eq!(lines.next().await.unwrap()["kind"], "Thing");
    let waiting = tokio::spawn(async move { lines.next().await });
    let ended = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap();
    assert!(ended.is_err(), "the answer breaks off");
    set.rest.get(&format!("{PATH}/things?timeout=x")).await.expect(400);
    set.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_does_wrong_is_said() {
    let set = Set::start().await;
    let thing = format!("{PATH}/things/a");
    set.extension.behave(|seen| match seen.path.contains("/things") {
        true => Reply::Redirect,
        false => THINGS.answer(seen),
    });
    let redirected = set.rest.get(&thing).await;
    let said = "the backend attempted to redirect this request, which is not permitted\n";
    assert_eq!(text(&redirected), (502, said));
    // What it answers, even if it is a failure, is the client's.
    set.extension.behave(|seen| match seen.path.contains("/things") {
        true => Reply::Status(418, "short and stout"),
        false => THINGS.answer(seen),
    });
    assert_eq!(text(&set.rest.get(&thing).await), (418, "short and stout"));
    set.extension.behave(|seen| match seen.path.contains("/things") {
        true => Reply::Long(9 << 20),
        false => THINGS.answer(seen),
    });
    let long = set.rest.get(&thing).await;
    assert_eq!((long.code, long.text.len()), (200, (9 << 20) + 2));
    // How much is too much is for the server to say that reads it.
    let large = set.rest.ask("POST", &thing, &[], vec![b'x'; (3 << 20) + 1]).await;
    assert_eq!(large.code, 200, "{}", large.text);
    // No HTTP at all.
    set.extension.garbage.store(true, Ordering::Relaxed);
    let garbage = set.rest.ask("POST", &thing, &[], b"{}".to_vec()).await;
    assert_eq!(garbage.code, 503, "{}", garbage.text);
    let unreachable = "error trying to reach service: ";
    assert!(garbage.text.starts_with(unreachable), "{}", garbage.text);
    set.extension.garbage.store(false, Ordering::Relaxed);
    set.extension.behave(|seen| THINGS.answer(seen));
    let back = async |rest: &crate::server::Rest| {
        until(rest, &thing, |thing| thing["kind"] == "Thing").await
    };
    back(&set.rest).await;

    // Another authority than the one that has signed its certificate; then it counts no more.
    set.change(&json!({"caBundle": BASE64.encode(&set.server.ca_pem)})).await;
    until_condition(&set.rest, NAME, "True", "Passed").await;
    let foreign = until(&set.rest, &thing, |thing| thing["kind"] != "Thing").await;
    assert!(foreign.is_null(), "{foreign}");
    let foreign = set.rest.get(&thing).await;
    assert!(foreign.code == 503 && foreign.text.starts_with(unreachable), "{}", foreign.text);
    set.change(&json!({"caBundle": null, "insecureSkipTLSVerify": true})).await;
    back(&set.rest).await;
    // No authority.
    let bundle = json!({"caBundle": BASE64.encode("nonsense"), "insecureSkipTLSVerify": false});
    set.change(&bundle).await;
    until_condition(&set.rest, NAME, "True", "Passed").await;
    let said = "unable to load root certificates: unable to parse bytes as PEM block\n";
    let waiting = async {
        while text(&set.rest.get(&thing).await) != (500, said) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(super::SOON, waiting).await.expect("the bundle cannot be used");
    set.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_and_goes_is_asked_while_it_is_there() {
    let set = Set::start().await;
    let thing = format!("{PATH}/things/a");
    let added = "aggregator_openapi_v2_regeneration_count{apiservice=\"v1.things.example.com\",reason=\"add\"} ";
    let documented = async {
        while !set.rest.get("/metrics").await.text.contains(added) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(super::SOON, documented).await.expect("its document is read");
    for _ in 0..3 {
        // The condition is overwritten, so that the server is asked at once.
        set.extension.behave(|_| Reply::Status(500, "out of order"));
        let status = format!("{SERVICES}/{NAME}/status");
        let overwritten = json!({"status": {"conditions": [{"type": "Available",
            "status": "Unknown", "reason": "Me", "message": ""}]}});
        set.rest.patch(&status, "merge", &overwritten).await.expect(200);
        let gone = until_condition(&set.rest, NAME, "False", "FailedDiscoveryCheck").await;
        let message = super::condition(&gone)[2];
        let url = format!("https://extension.default.svc:{}{PATH}", set.extension.port);
        let wanted = format!("failing or missing response from {url}: bad status from {url}: 500");
        assert_eq!(message, wanted);
        let waiting = async {
            while set.rest.get(&thing).await.code != 503 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(super::SOON, waiting).await.unwrap();
        let answer = set.rest.get(&thing).await;
        assert_eq!(text(&answer), (503, "service unavailable\n"));
        let plain = answer.headers.get("content-type").unwrap();
        assert_eq!(plain, "text/plain; charset=utf-8");
        // Everything else goes on.
        set.rest.get("/apis").await.expect(200);
        set.rest.get("/api/v1/namespaces").await.expect(200);
        set.extension.behave(|seen| THINGS.answer(seen));
        until_condition(&set.rest, NAME, "True", "Passed").await;
        until(&set.rest, &thing, |thing| thing["kind"] == "Thing").await;
    }
    // It was overwritten before it was lost: only what was available becomes unavailable.
    set.extension.behave(|_| Reply::Status(500, "out of order"));
    let service = format!("{SERVICES}/{NAME}");
    let touched = json!({"spec": {"service": {"port": set.extension.port},
        "insecureSkipTLSVerify": true, "caBundle": null}});
    set.rest.patch(&service, "merge", &touched).await.expect(200);
    until_condition(&set.rest, NAME, "False", "FailedDiscoveryCheck").await;
    let text = set.rest.get("/metrics").await.text;
    for part in [
        "aggregator_unavailable_apiservice{name=\"v1.things.example.com\"} 1",
        "aggregator_unavailable_apiservice{name=\"v1.apps\"} 0",
        "aggregator_unavailable_apiservice_total{name=\"v1.things.example.com\",reason=\"FailedDiscoveryCheck\"} 1",
        "aggregator_openapi_v2_regeneration_count{apiservice=\"*\",reason=\"startup\"} 1",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    set.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_and_malformed_documents_are_refused() {
    let set = Set::start().await;
    type Fault = fn() -> Reply;
    let faults: [Fault; 5] = [
        || Reply::Long(64 << 20),
        || Reply::Json(200, json!({"resources": 1, "items": "x"})),
        || Reply::Status(200, "{"),
        || Reply::Redirect,
        || Reply::Hang,
    ];
    for (index, fault) in faults.into_iter().enumerate() {
        // Only its documents: it is available.
        set.extension.behave(move |seen| match seen.path.as_str() {
            PATH if seen.header("accept").is_empty() => THINGS.answer(seen),
            path if path.starts_with(PATH) && path != PATH => THINGS.answer(seen),
            _ => fault(),
        });
        // A change of the address forgets what was known.
        let skip = json!({"caBundle": null, "insecureSkipTLSVerify": true, "versionPriority": 1 + index,
            "service": {"name": if index % 2 == 0 { "other" } else { "extension" }}});
        let service = json!({"metadata": {"name": "other"},
            "spec": {"type": "ExternalName", "externalName": "127.0.0.1"}});
        set.rest.post("/api/v1/namespaces/default/services", &service).await;
        set.change(&skip).await;
        until_condition(&set.rest, NAME, "True", "Passed").await;
        let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        // The condition may still be that of the former address.
        let is_stale = async {
            loop {
                let all = set.rest.ask("GET", "/apis", &[("accept", accept)], Vec::new()).await;
                let all = all.expect(200);
                let mut groups = all["items"].as_array().unwrap().iter();
                let group = groups.find(|group| group["metadata"]["name"] == "things.example.com");
                if group.unwrap()["versions"] == json!([{"version": "v1", "freshness": "Stale"}]) {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(super::SOON, is_stale).await.unwrap_or_else(|_| panic!("{index}"));
        for path in ["/openapi/v2", "/openapi/v3"] {
            let document = set.rest.get(path).await.expect(200);
            let shows = document.to_string().contains("things.example.com");
            assert!(!shows, "{path} {index}");
        }
        set.rest.get(&format!("{PATH}/things/a")).await.expect(200);
    }
    set.server.stop().await;
}
