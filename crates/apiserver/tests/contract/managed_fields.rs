//! Who owns which field of objects that are written in several versions.

use api::apply::Set;
use serde_json::{Value, json};
use testkit::webhook::Reply;

use crate::conversion;
use crate::custom::{DEFINITIONS, WIDGETS, define, definition};
use crate::server::{Answer, Rest, Server};

/// One write: of whom, how, in which version, what, and who owns what after it. An apply that
/// conflicts lists who owns what it disputes instead.
struct Step {
    manager: &'static str,
    how: How,
    path: &'static str,
    body: Value,
    expected: &'static [&'static str],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Create,
    Merge,
    Apply,
    Force,
}

use How::{Apply, Create, Force, Merge};

fn step(
    manager: &'static str,
    how: How,
    path: &'static str,
    body: Value,
    expected: &'static [&'static str],
) -> Step {
    Step { manager, how, path, body, expected }
}

/// `one apply v1: .spec.size`, by manager; versions of custom groups without the group.
fn owned(object: &Value) -> Vec<String> {
    let owners = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |owner: &Value| {
        let of = |field: &str| owner[field].as_str().unwrap_or_default();
        let paths = Set::from_json(&owner["fieldsV1"]).paths().join(" ");
        let version = of("apiVersion").trim_start_matches("example.com/");
        format!("{} {} {version}: {paths}", of("manager"), of("operation").to_lowercase())
    };
    let mut owned: Vec<_> = owners.iter().map(text).collect();
    owned.sort();
    owned
}

fn disputed(answer: &Value) -> Vec<String> {
    let causes = answer["details"]["causes"].as_array().cloned().unwrap_or_default();
    let text = |cause: &Value| {
        let message = cause["message"].as_str().unwrap();
        let owner = message.split(" at ").next().unwrap();
        format!("{owner}: {}", cause["field"].as_str().unwrap())
    };
    causes.iter().map(text).collect()
}

async fn write(rest: &Rest, api_version: &str, kind: &str, name: &str, step: &Step) -> Answer {
    let path = format!("{}/{name}?fieldManager={}", step.path, step.manager);
    let mut body = step.body.clone();
    body["apiVersion"] = api_version.into();
    body["kind"] = kind.into();
    body["metadata"]["name"] = name.into();
    match step.how {
        Create => {
            let path = format!("{}?fieldManager={}", step.path, step.manager);
            rest.post(&path, &body).await
        }
        Merge => rest.patch(&path, "merge", &step.body).await,
        Apply | Force => {
            let path = format!("{path}&force={}", step.how == Force);
            let headers = [("content-type", "application/apply-patch+yaml")];
            rest.ask("PATCH", &path, &headers, body.to_string().into_bytes()).await
        }
    }
}

async fn check(rest: &Rest, name: &str, kind: &str, steps: Vec<Step>) {
    for (number, step) in steps.into_iter().enumerate() {
        let at = format!("{name}, step {number}");
        let group = step.path.trim_start_matches("/apis/").trim_start_matches("/api/");
        let (api_version, _) = group.split_once("/namespaces/").unwrap();
        let answer = write(rest, api_version, kind, name, &step).await;
        let found = match answer.code {
            409 => disputed(&answer.expect(409)),
            200 | 201 => {
                let written: Value = serde_json::from_str(&answer.text).unwrap();
                assert_eq!(written["apiVersion"], api_version, "{at}");
                owned(&written)
            }
            _ => panic!("{at}: {}", answer.text),
        };
        assert_eq!(found, step.expected, "{at}");
    }
}

const V1: &str = WIDGETS;
const BETA: &str = "/apis/example.com/v1beta1/namespaces/default/widgets";
const V2: &str = "/apis/example.com/v2/namespaces/default/widgets";

#[tokio::test]
async fn without_a_converter_fields_have_the_same_names() {
    let server = Server::start().await;
    let rest = server.admin();
    define(&rest, &definition()).await;
    let spec = |spec: Value| json!({"spec": spec});
    check(
        &rest,
        "shared",
        "Widget",
        vec![
            step(
                "one",
                Apply,
                V1,
                spec(json!({"size": 3, "color": "blue"})),
                &["one apply v1: .spec.color .spec.size"],
            ),
            step(
                "two",
                Apply,
                BETA,
                spec(json!({"size": 5})),
                &["conflict with \"one\": .spec.size"],
            ),
            step(
                "two",
                Apply,
                BETA,
                spec(json!({"size": 3})),
                &["one apply v1: .spec.color .spec.size", "two apply v1beta1: .spec.size"],
            ),
            // What one manager leaves out the other still has, in its own version.
            step(
                "one",
                Apply,
                V1,
                spec(json!({"color": "blue"})),
                &["one apply v1: .spec.color", "two apply v1beta1: .spec.size"],
            ),
            // An applier has one entry, and goes on with it in another version.
            step(
                "one",
                Apply,
                BETA,
                spec(json!({"size": 3, "replicas": 2})),
                &["one apply v1beta1: .spec.replicas .spec.size", "two apply v1beta1: .spec.size"],
            ),
            // An updater has one for each version.
            step(
                "up",
                Merge,
                V1,
                spec(json!({"size": 4})),
                &["one apply v1beta1: .spec.replicas", "up update v1: .spec.size"],
            ),
            step(
                "up",
                Merge,
                BETA,
                spec(json!({"replicas": 3})),
                &["up update v1: .spec.size", "up update v1beta1: .spec.replicas"],
            ),
            step(
                "two",
                Apply,
                V1,
                spec(json!({"size": 3, "replicas": 2})),
                &[
                    "conflict with \"up\" using example.com/v1: .spec.size",
                    "conflict with \"up\" using example.com/v1beta1: .spec.replicas",
                ],
            ),
            step(
                "two",
                Force,
                V1,
                spec(json!({"size": 3, "replicas": 2})),
                &["two apply v1: .spec.replicas .spec.size"],
            ),
            step(
                "other",
                Apply,
                BETA,
                json!({"metadata": {"labels": {"a": "b"}}}),
                &[
                    "other apply v1beta1: .metadata.labels.a",
                    "two apply v1: .spec.replicas .spec.size",
                ],
            ),
        ],
    )
    .await;
    // The entries of a version that is still defined stay; those of one that is not go with the
    // next write, as do its fields' owners.
    let name = format!("{DEFINITIONS}/widgets.example.com");
    let unserved = json!([{"op": "replace", "path": "/spec/versions/1/served", "value": false}]);
    rest.patch(&name, "json", &unserved).await.expect(200);
    let label = |value: &str| json!({"metadata": {"labels": {"c": value}}});
    let kept = step(
        "two",
        Merge,
        V1,
        label("1"),
        &[
            "other apply v1beta1: .metadata.labels.a",
            "two apply v1: .spec.replicas .spec.size",
            "two update v1: .metadata.labels.c",
        ],
    );
    check(&rest, "shared", "Widget", vec![kept]).await;
    let gone = json!([{"op": "remove", "path": "/spec/versions/1"}]);
    rest.patch(&name, "json", &gone).await.expect(200);
    let dropped = step(
        "two",
        Merge,
        V1,
        label("2"),
        &["two apply v1: .spec.replicas .spec.size", "two update v1: .metadata.labels.c"],
    );
    check(&rest, "shared", "Widget", vec![dropped]).await;
    server.stop().await;
}

#[tokio::test]
async fn with_a_converter_fields_are_compared_in_the_owners_version() {
    let (server, rest, webhook) = conversion::start().await;
    let spec = |spec: Value| json!({"spec": spec});
    check(
        &rest,
        "shared",
        "Widget",
        vec![
            step(
                "one",
                Apply,
                V1,
                spec(json!({"size": 3, "color": "blue"})),
                &["one apply v1: .spec.color .spec.size"],
            ),
            step(
                "two",
                Apply,
                V2,
                spec(json!({"width": 50})),
                &["conflict with \"one\": .spec.size"],
            ),
            step(
                "two",
                Apply,
                V2,
                spec(json!({"width": 30})),
                &["one apply v1: .spec.color .spec.size", "two apply v2: .spec.width"],
            ),
            step(
                "up",
                Merge,
                V2,
                spec(json!({"width": 40})),
                &["one apply v1: .spec.color", "up update v2: .spec.width"],
            ),
            step(
                "one",
                Apply,
                V1,
                spec(json!({"size": 5, "color": "blue"})),
                &["conflict with \"up\" using example.com/v2: .spec.width"],
            ),
            // What it applied in one version goes when it leaves that out in the other.
            step(
                "one",
                Apply,
                V2,
                spec(json!({"width": 40, "replicas": 1})),
                &["one apply v2: .spec.replicas .spec.width", "up update v2: .spec.width"],
            ),
            step(
                "up",
                Merge,
                V1,
                spec(json!({"size": 6})),
                &["one apply v2: .spec.replicas", "up update v1: .spec.size"],
            ),
        ],
    )
    .await;
    let path = format!("{V1}/shared");
    let before = rest.get(&path).await.expect(200);
    assert_eq!(before["spec"], json!({"size": 6, "color": "red", "replicas": 1}));
    // Without the webhook an update in the stored version works, and leaves the owners alone; an
    // apply does not.
    webhook.behave(|_| Reply::Status(500, "out of order"));
    let change = spec(json!({"replicas": 2}));
    let after = rest.patch(&path, "merge", &change).await.expect(200);
    assert_eq!(after["spec"]["replicas"], 2);
    assert_eq!(owned(&after), owned(&before));
    let one = step("one", Force, V1, spec(json!({"size": 6})), &[]);
    let refused = write(&rest, "example.com/v1", "Widget", "shared", &one).await.expect(500);
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.contains("conversion webhook for example.com/v1, Kind=Widget failed"),
        "{message}"
    );
    assert_eq!(rest.get(&path).await.expect(200), after);
    server.stop().await;
}

#[tokio::test]
async fn built_in_kinds_are_owned_in_the_version_of_the_request() {
    const OLDER: &str = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    const NEWER: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    const CORE: &str = "/api/v1/namespaces/default/events";
    const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
    let server = Server::start().await;
    let rest = server.admin();
    let metrics = json!([{"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": 60}}}]);
    let scaled = json!({"spec": {"maxReplicas": 5, "metrics": metrics,
        "scaleTargetRef": {"kind": "Deployment", "name": "web"}}});
    let percentage =
        |percentage: i32| json!({"spec": {"targetCPUUtilizationPercentage": percentage}});
    check(
        &rest,
        "scaled",
        "HorizontalPodAutoscaler",
        vec![
            step(
                "one",
                Apply,
                NEWER,
                scaled,
                &["one apply autoscaling/v2: .spec.maxReplicas .spec.metrics .spec.scaleTargetRef.kind \
                   .spec.scaleTargetRef.name"],
            ),
            step(
                "two",
                Apply,
                OLDER,
                percentage(70),
                &["conflict with \"one\": .spec.metrics"],
            ),
            step(
                "up",
                Merge,
                OLDER,
                percentage(80),
                &[
                    "one apply autoscaling/v2: .spec.maxReplicas .spec.scaleTargetRef.kind \
                     .spec.scaleTargetRef.name",
                    "up update autoscaling/v1: .spec.targetCPUUtilizationPercentage",
                ],
            ),
            step(
                "two",
                Force,
                OLDER,
                percentage(70),
                &[
                    "one apply autoscaling/v2: .spec.maxReplicas .spec.scaleTargetRef.kind \
                     .spec.scaleTargetRef.name",
                    "two apply autoscaling/v1: .spec.targetCPUUtilizationPercentage",
                ],
            ),
        ],
    )
    .await;
    let newer = rest.get(&format!("{NEWER}/scaled")).await.expect(200);
    assert_eq!(newer["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 70);
    let time = "2026-01-02T03:04:05.123456Z";
    let event = json!({"regarding": {"kind": "Pod", "namespace": "default", "name": "p"},
        "reason": "Tested", "action": "Test", "type": "Normal", "eventTime": time, "note": "m",
        "reportingController": "example.com/tester", "reportingInstance": "tester-1"});
    let message = |text: &str| json!({"message": text});
    const REST: &str = ".action .eventTime .note .reason .regarding .reportingController \
                        .reportingInstance .type";
    let made =
        write(&rest, "events.k8s.io/v1", "Event", "e", &step("one", Create, EVENTS, event, &[]))
            .await
            .expect(201);
    assert!(owned(&made)[0].starts_with("one update events.k8s.io/v1: .action"), "{REST} {made}");
    assert!(owned(&made)[0].contains(" .note "), "{made}");
    let changed =
        write(&rest, "v1", "Event", "e", &step("up", Merge, CORE, message("n"), &[])).await;
    let changed = owned(&changed.expect(200));
    assert_eq!(changed[1], "up update v1: .message");
    assert!(!changed[0].contains(".note"), "{changed:?}");
    // The other group's name of the same field.
    let note = json!({"note": "other"});
    let refused =
        write(&rest, "events.k8s.io/v1", "Event", "e", &step("two", Apply, EVENTS, note, &[]))
            .await;
    assert_eq!(disputed(&refused.expect(409)), ["conflict with \"up\" using v1: .message"]);
    let note = json!({"note": "n"});
    let shared =
        write(&rest, "events.k8s.io/v1", "Event", "e", &step("two", Apply, EVENTS, note, &[]))
            .await;
    let shared = owned(&shared.expect(200));
    assert_eq!(shared[1..], ["two apply events.k8s.io/v1: .note", "up update v1: .message"]);
    server.stop().await;
}
