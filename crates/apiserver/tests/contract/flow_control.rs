//! Priority and fairness: the objects that configure it, and what floods do to others.

use std::time::Duration;

use rpc::api_v1 as pb;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::server::{Rest, Server};

const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DUMP: &str = "/debug/api_priority_and_fairness/dump_priority_levels";
const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// Asks until the answer is as it should be.
async fn until(rest: &Rest, path: &str, what: &str, good: impl Fn(u16, &Value) -> bool) -> Value {
    let mut last = Value::Null;
    // The status of a schema is written at most six times a minute.
    for _ in 0..400 {
        let answer = rest.get(path).await;
        let code = answer.code;
        last = serde_json::from_str(&answer.text).unwrap_or_default();
        if good(code, &last) {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}: {last}");
}

fn condition(schema: &Value) -> Option<(&str, &str)> {
    let conditions = schema["status"]["conditions"].as_array()?;
    let dangling = conditions.iter().find(|one| one["type"] == "Dangling")?;
    Some((dangling["status"].as_str()?, dangling["reason"].as_str()?))
}

fn own_schema(level: &str, user: &str) -> Value {
    json!({"metadata": {"name": "own"}, "spec": {"matchingPrecedence": 50,
        "priorityLevelConfiguration": {"name": level}, "rules": [{
        "subjects": [{"kind": "User", "user": {"name": user}}],
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}]}]}})
}

fn reject_level(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": 0, "borrowingLimitPercent": 0,
        "limitResponse": {"type": "Reject"}}}})
}

#[tokio::test]
async fn default_objects_are_kept() {
    let server = Server::start().await;
    let admin = server.admin();
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let levels = admin.get(LEVELS).await.expect(200);
    assert_eq!(
        names(&levels),
        [
            "catch-all",
            "exempt",
            "global-default",
            "leader-election",
            "node-high",
            "system",
            "workload-high",
            "workload-low"
        ]
    );
    let schemas = admin.get(SCHEMAS).await.expect(200);
    assert_eq!(names(&schemas).len(), 11, "{:?}", names(&schemas));
    for object in
        levels["items"].as_array().unwrap().iter().chain(schemas["items"].as_array().unwrap())
    {
        assert_eq!(object["metadata"]["annotations"][AUTOUPDATE], "true");
        assert_eq!(object["metadata"]["generation"], 1);
    }
    // What somebody deletes comes back.
    let probes = format!("{SCHEMAS}/probes");
    admin.delete(&probes).await.expect(200);
    until(&admin, &probes, "it comes back", |code, _| code == 200).await;
    // What nobody may change cannot be changed; what may be is brought back, unless it says no.
    let catch_all = json!({"spec": {"matchingPrecedence": 9_999}});
    let refused =
        admin.patch(&format!("{SCHEMAS}/catch-all"), "merge", &catch_all).await.expect(422);
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("spec of 'catch-all' must equal the fixed value"), "{message}");
    let low = format!("{LEVELS}/workload-low");
    let shares = |shares: i32| json!({"spec": {"limited": {"nominalConcurrencyShares": shares}}});
    admin.patch(&low, "merge", &shares(7)).await.expect(200);
    until(&admin, &low, "it is brought back", |_, level| {
        level["spec"]["limited"]["nominalConcurrencyShares"] == 100
    })
    .await;
    let mut keep = shares(8);
    keep["metadata"] = json!({"annotations": {AUTOUPDATE: "false"}});
    admin.patch(&low, "merge", &keep).await.expect(200);
    // Not a default: it goes, if it says that it may be updated.
    let mut obsolete = own_schema("exempt", "x");
    obsolete["metadata"] = json!({"name": "obsolete", "annotations": {AUTOUPDATE: "true"}});
    admin.post(SCHEMAS, &obsolete).await.expect(201);
    until(&admin, &format!("{SCHEMAS}/obsolete"), "it goes", |code, _| code == 404).await;
    let level = admin.get(&low).await.expect(200);
    assert_eq!(level["spec"]["limited"]["nominalConcurrencyShares"], 8);
    server.stop().await;
}

#[tokio::test]
async fn schemas_say_whether_their_level_is_missing() {
    let server = Server::start().await;
    let admin = server.admin();
    let path = format!("{SCHEMAS}/own");
    admin.post(SCHEMAS, &own_schema("tiny", "bob")).await.expect(201);
    let schema = until(&admin, &path, "it dangles", |_, schema| condition(schema).is_some()).await;
    assert_eq!(condition(&schema), Some(("True", "NotFound")));
    let message = &schema["status"]["conditions"][0]["message"];
    assert_eq!(
        message,
        "This FlowSchema references the PriorityLevelConfiguration object named \"tiny\" but there is no such object"
    );
    assert_eq!(schema["metadata"]["generation"], 1);
    admin.post(LEVELS, &reject_level("tiny")).await.expect(201);
    let found = |_: u16, schema: &Value| condition(schema) == Some(("False", "Found"));
    until(&admin, &path, "its level is there", found).await;
    let head = ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let (_, table) = admin.exchange("GET", &path, &[head], Vec::new()).await;
    let table: Value = serde_json::from_slice(&table).unwrap();
    let columns = table["columnDefinitions"].as_array().unwrap().iter();
    let columns: Vec<_> = columns.map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(
        columns,
        ["Name", "PriorityLevel", "MatchingPrecedence", "DistinguisherMethod", "Age", "MissingPL"]
    );
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(cells[..4], [json!("own"), json!("tiny"), json!(50), json!("<none>")]);
    assert_eq!(cells[5], "False");
    server.stop().await;
}

/// Requests of a level without seats are refused, through both front ends, and say how they were
/// classified.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_level_without_seats_refuses() {
    let server = Server::start().await;
    let admin = server.admin();
    let role = json!({"metadata": {"name": "bob"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bob"}]});
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    admin.post(bindings, &role).await.expect(201);
    let uid = |object: &Value| object["metadata"]["uid"].as_str().unwrap().to_owned();
    let level = uid(&admin.post(LEVELS, &reject_level("tiny")).await.expect(201));
    let schema = uid(&admin.post(SCHEMAS, &own_schema("tiny", "bob")).await.expect(201));
    let in_force = |_: u16, schema: &Value| condition(schema) == Some(("False", "Found"));
    until(&admin, &format!("{SCHEMAS}/own"), "it is in force", in_force).await;
    let bob = server.rest_as("bob", &[]);
    let answer = bob.get(MAPS).await;
    assert_eq!(answer.headers["x-kubernetes-pf-flowschema-uid"], schema.as_str());
    assert_eq!(answer.headers["x-kubernetes-pf-prioritylevel-uid"], level.as_str());
    answer.expect(200);
    // A half-sent body takes the only place; what is wider than its level runs alone.
    let head = format!("POST {MAPS} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{{");
    // The first may itself have met a place that was taken.
    let (mut streams, mut number) = (Vec::new(), 0);
    let refused = loop {
        if number % 20 == 0 {
            let mut stream = server.tls_as("bob", &[]).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            streams.push(stream);
        }
        number += 1;
        let answer = bob.get(MAPS).await;
        if answer.code != 200 {
            break answer;
        }
        // Between two requests of its own, the half-sent one gets the place.
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.headers["x-kubernetes-pf-flowschema-uid"], schema.as_str());
    let status = refused.expect(429);
    assert_eq!(status["message"], "Too many requests, please try again later.");
    let target = pb::Target {
        version: "v1".into(),
        resource: "configmaps".into(),
        namespace: "default".into(),
        name: "a".into(),
        ..pb::Target::default()
    };
    let get = pb::GetRequest { target: Some(target), ..pb::GetRequest::default() };
    let status = server.grpc_as("bob", &[]).get(get).await.unwrap_err();
    assert_eq!(rpc::status::from_grpc(&status).unwrap().code(), 429);
    let headers = status.metadata();
    assert_eq!(headers.get("x-kubernetes-pf-prioritylevel-uid").unwrap(), level.as_str());
    let text = admin.get("/metrics").await.text;
    let part = "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"own\",priority_level=\"tiny\",reason=\"concurrency-limit\"} ";
    assert!(text.contains(part), "{text}");
    for part in [
        "apiserver_flowcontrol_current_executing_requests{flow_schema=\"own\",priority_level=\"tiny\"} 1",
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"workload-low\"} 245",
        "apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"own\",priority_level=\"tiny\"} ",
        "apiserver_flowcontrol_request_dispatch_no_accommodation_total{flow_schema=\"own\",priority_level=\"tiny\"} 0",
        "apiserver_flowcontrol_priority_level_seat_utilization_bucket{le=\"1.0\",phase=\"executing\",priority_level=\"tiny\"} ",
        "apiserver_flowcontrol_priority_level_request_utilization_count{phase=\"waiting\",priority_level=\"tiny\"} ",
        "apiserver_flowcontrol_demand_seats_sum{priority_level=\"tiny\"} ",
        "apiserver_flowcontrol_read_vs_write_current_requests_count{phase=\"executing\",request_kind=\"readOnly\"} ",
        "apiserver_flowcontrol_read_vs_write_current_requests_count{phase=\"waiting\",request_kind=\"mutating\"} ",
        "apiserver_flowcontrol_dispatch_r{priority_level=\"tiny\"} ",
        "apiserver_flowcontrol_latest_s{priority_level=\"tiny\"} ",
        "apiserver_flowcontrol_next_s_bounds{bound=\"min\",priority_level=\"tiny\"} ",
        "apiserver_flowcontrol_next_discounted_s_bounds{bound=\"max\",priority_level=\"tiny\"} ",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    drop(streams);
    server.stop().await;
}

/// The row of a level in the dump, by column.
async fn row(admin: &Rest, level: &str) -> (usize, usize, usize) {
    let text = admin.get(DUMP).await.text;
    let mut rows = text.lines().map(|line| line.split(',').map(str::trim).collect::<Vec<_>>());
    let row = rows.find(|row| row[0] == level).unwrap_or_else(|| panic!("{text}"));
    let number = |column: usize| row[column].parse().unwrap();
    (number(4), number(5), number(7))
}

/// One account that lists everything in a loop, and a hundred that hold all the seats they can get,
/// let no node's heartbeat wait, nor a health check.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_do_not_reach_heartbeats() {
    const FLOOD: usize = 100;
    let seats = ["--max-requests-inflight=20", "--max-mutating-requests-inflight=10"];
    let server = Server::start_with(&seats).await;
    let admin = server.admin();
    let account = "system:serviceaccount:default:flood";
    let role = json!({"metadata": {"name": "flood"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:serviceaccounts"}]});
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    admin.post(bindings, &role).await.expect(201);
    let groups = ["system:serviceaccounts"];
    let node = server.rest_as("system:node:n", &["system:nodes"]);
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let lease = json!({"metadata": {"name": "n"}, "spec": {"holderIdentity": "n"}});
    node.post(leases, &lease).await.expect(201);

    let head = format!("POST {MAPS} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{{");
    let mut streams = Vec::new();
    for _ in 0..FLOOD {
        let mut stream = server.tls_as(account, &groups).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        streams.push(stream);
    }
    let lister = server.rest_as("system:serviceaccount:default:lister", &groups);
    let listing = tokio::spawn(async move {
        loop {
            lister.get("/api/v1/namespaces/default/pods").await;
        }
    });
    // Until the flood has all that it can have.
    let (mut waiting, mut executing) = (0, 0);
    for _ in 0..500 {
        (waiting, executing, _) = row(&admin, "workload-low").await;
        if waiting + executing >= FLOOD {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(waiting + executing >= FLOOD, "{waiting} wait, {executing} are executed");
    assert!(waiting > executing, "{waiting} wait, {executing} are executed");

    for transitions in 1..=20 {
        let mut lease = node.get(&format!("{leases}/n")).await.expect(200);
        lease["spec"]["leaseTransitions"] = transitions.into();
        node.send("PUT", &format!("{leases}/n"), &lease).await.expect(200);
        server.rest_anonymous().get("/livez").await.expect(200);
    }
    let (waiting, _, rejected) = row(&admin, "node-high").await;
    assert_eq!((waiting, rejected), (0, 0));
    let text = admin.get("/metrics").await.text;
    let bucket = "apiserver_flowcontrol_request_wait_duration_seconds_count{execute=\"false\",flow_schema=\"system-node-high\",priority_level=\"node-high\"} 0";
    assert!(text.contains(bucket), "{text}");
    // Others have their levels, too.
    server.rest_as("bob", &[]).get("/version").await.expect(200);
    listing.abort();
    // Who has gone waits no more.
    drop(streams);
    let mut left = usize::MAX;
    for _ in 0..500 {
        left = row(&admin, "workload-low").await.0;
        if left == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(left, 0);
    server.stop().await;
}

/// A watch has its seat until its initial state is sent, and no longer.
#[tokio::test]
async fn watches_give_their_seats_back() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut watches = Vec::new();
    let node = server.rest_as("system:node:n", &["system:nodes"]);
    for _ in 0..20 {
        let mut watch = node.watch("/api/v1/nodes?watch=1&fieldSelector=metadata.name%3Dn&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan").await;
        watch.next().await.unwrap();
        watches.push(watch);
    }
    let (waiting, executing, rejected) = row(&admin, "node-high").await;
    assert_eq!((waiting, executing, rejected), (0, 0, 0));
    drop(watches);
    server.stop().await;
}

#[tokio::test]
async fn wrong_totals_are_refused_at_start() {
    let limits = ["--max-requests-inflight=0", "--max-mutating-requests-inflight=0"];
    let error = Server::try_start(&limits).await.err().unwrap();
    assert_eq!(
        format!("{error:#}"),
        "invalid configuration: MaxRequestsInFlight=0 and MaxMutatingRequestsInFlight=0; they must add up to something positive"
    );
}
