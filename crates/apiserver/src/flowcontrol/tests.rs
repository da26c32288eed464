use api::Kind;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::*;
use crate::request::{Target, Verb};

fn control(total: u32) -> FlowControl {
    FlowControl::new(total, FlowControlMetrics::default())
}

/// With all default objects.
fn configured(total: u32) -> FlowControl {
    let control = control(total);
    let levels: Vec<_> =
        objects::LEVEL_OBJECTS.iter().map(|default| default.object.clone()).collect();
    let schemas: Vec<_> =
        objects::SCHEMA_OBJECTS.iter().map(|default| default.object.clone()).collect();
    let dangling = control.digest(&levels, &schemas);
    assert!(dangling.values().all(|dangling| !dangling), "{dangling:?}");
    control
}

fn request(user: &str, groups: &[&str], row: &'static api::KindRow, verb: Verb) -> Request {
    let target = Target {
        row: row.into(),
        namespace: "default".to_owned(),
        name: String::new(),
        subresource: String::new(),
        subpath: String::new(),
    };
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    Request {
        user: Arc::new(User::authenticated(user, groups)),
        ..Request::new(Subject::Resource { verb, target }, Default::default())
    }
}

fn start(control: &FlowControl, request: &Request) -> (Ticket, bool) {
    let flow = control.snapshot.load().classify(request).clone();
    let (hash, details) = (flow.hash(request), Details::new(&flow, request));
    let (estimate, now) = (queue_set::Estimate::seats(1), clock::instant());
    let (ticket, waiting) = flow.level.start(now, hash, estimate, details).unwrap();
    (ticket, waiting.is_none())
}

/// Who floods their level keeps neither nodes nor others of the same level from being served.
#[test]
fn a_flood_stays_in_its_own_queues() {
    let control = configured(100);
    let flood =
        request("system:serviceaccount:a:flood", &["system:serviceaccounts"], Pod::ROW, Verb::List);
    let taken: Vec<_> = (0..140).map(|_| start(&control, &flood)).collect();
    let executed = taken.iter().filter(|(_, executed)| *executed).count();
    let states = control.levels.lock();
    let low = states["workload-low"].current;
    drop(states);
    assert_eq!(executed, low as usize);
    // Every other level has seats.
    let node = request("system:node:n", &["system:nodes"], Lease::ROW, Verb::Update);
    let scheduler = request("system:kube-scheduler", &[], Lease::ROW, Verb::Update);
    let bob = request("bob", &[], Pod::ROW, Verb::Get);
    for other in [&node, &scheduler, &bob] {
        assert!(start(&control, other).1, "{other:?}");
    }
    // Another account waits, but for less than those before it: most are behind it.
    let other =
        request("system:serviceaccount:a:other", &["system:serviceaccounts"], Pod::ROW, Verb::List);
    let (ticket, executed) = start(&control, &other);
    assert!(!executed);
    let mut freed = 0;
    let is_executed = |ticket: &Ticket| ticket.is_executed();
    let mut taken = taken.into_iter();
    while !is_executed(&ticket) {
        drop(taken.next());
        freed += 1;
    }
    assert!(freed <= 2 * low, "{freed} of 140 had to end first");
}

/// Levels that could use more get what others do not, and give it back.
#[tokio::test(start_paused = true)]
async fn seats_are_lent_while_there_is_demand() {
    let control = configured(100);
    let current = |name: &str| control.levels.lock()[name].current;
    let idle = current("workload-low");
    let flood =
        request("system:serviceaccount:a:flood", &["system:serviceaccounts"], Pod::ROW, Verb::List);
    let taken: Vec<_> = (0..150).map(|_| start(&control, &flood)).collect();
    tokio::time::advance(Duration::from_secs(10)).await;
    assert!(control.adjust());
    let busy = current("workload-low");
    assert!(busy > idle, "{busy} of {idle}");
    assert_eq!(taken.iter().filter(|(ticket, _)| ticket.is_executed()).count(), busy as usize);
    // Leader elections lend nothing.
    assert!(current("leader-election") >= 5);
    drop(taken);
    for _ in 0..400 {
        tokio::time::advance(Duration::from_secs(10)).await;
        control.adjust();
    }
    assert!(current("workload-low") <= idle + 1);
    control.busy.store(false, Ordering::Relaxed);
    assert!(!control.adjust(), "nothing is divided when nothing happens");
}

/// Requests that are in a level which has gone are finished there.
#[test]
fn a_level_goes_when_its_requests_have_ended() {
    let control = control(100);
    let level = |name: &str| {
        let spec = json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 5,
            "limitResponse": {"type": "Reject"}}});
        serde_json::from_value(json!({"metadata": {"name": name, "uid": "u1"}, "spec": spec}))
            .unwrap()
    };
    let rules = json!([{"subjects": [{"kind": "User", "user": {"name": "bob"}}],
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}]}]);
    let schema = serde_json::from_value(json!({"metadata": {"name": "own", "uid": "u2"},
        "spec": {"matchingPrecedence": 50, "priorityLevelConfiguration": {"name": "own"}, "rules": rules}}))
    .unwrap();
    let schemas = [schema];
    assert!(!control.digest(&[level("own")], &schemas)["own"]);
    let bob = request("bob", &[], Pod::ROW, Verb::Get);
    let (ticket, _) = start(&control, &bob);
    let flow = control.snapshot.load().classify(&bob).clone();
    assert_eq!((flow.schema.as_str(), flow.level()), ("own", "own"));
    let uids: Vec<_> = flow.headers().iter().map(|(_, value)| value.to_str().unwrap()).collect();
    assert_eq!(uids, ["u2", "u1"]);
    // The schema is of no use without its level, but the request goes on.
    assert!(control.digest(&[], &schemas)["own"]);
    assert_eq!(control.snapshot.load().classify(&bob).schema, "catch-all");
    assert!(control.levels.lock()["own"].quiescing);
    drop((ticket, flow));
    control.adjust();
    assert!(!control.levels.lock().contains_key("own"));
}

#[test]
fn a_request_waits_a_quarter_of_its_time() {
    let mut get = request("bob", &[], Pod::ROW, Verb::Get);
    let waits = |request: &Request| wait_until(request) - request.arrived;
    assert_eq!(waits(&get), Duration::from_secs(15));
    get.options.time_limit = Some(Duration::from_secs(8));
    assert_eq!(waits(&get), Duration::from_secs(2));
    assert_eq!(waits(&request("bob", &[], Pod::ROW, Verb::Watch)), Duration::from_secs(15));
}

#[test]
fn dumps_show_what_waits_where() {
    let control = configured(10);
    let bob = request("bob", &[], Pod::ROW, Verb::List);
    let held: Vec<_> = (0..5).map(|_| start(&control, &bob)).collect();
    let page = |name: &str, details| dump::page(&control, name, details).unwrap();
    let cells = |line: &str| line.split(',').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let levels = page("dump_priority_levels", false);
    let row = levels.lines().map(cells).find(|row| row[0] == "global-default").unwrap();
    let executing: usize = row[5].parse().unwrap();
    assert_eq!(row[4], (5 - executing).to_string(), "{levels}");
    let requests = page("dump_requests", true);
    let rows: Vec<_> = requests.lines().map(cells).collect();
    assert_eq!(rows.len(), 1 + 5, "{requests}");
    assert_eq!(rows[0].last().unwrap(), "SubResource");
    assert_eq!(rows[1][10..15], ["bob", "list", "/api/v1/namespaces/default/pods", "default", ""]);
    let queues = page("dump_queues", false);
    let waiting: usize = queues
        .lines()
        .map(cells)
        .filter(|row| row[0] == "global-default")
        .map(|row| row[2].parse::<usize>().unwrap())
        .sum();
    assert_eq!(waiting, 5 - executing, "{queues}");
    assert!(dump::page(&control, "dump_nothing", false).is_none());
    drop(held);
}

/// What it costs to let a request in and out, with all default schemas: microseconds. Run it with
/// `--release` and `--nocapture` for figures.
#[test]
fn letting_a_request_in_is_cheap() {
    const TIMES: u32 = 20_000;
    let control = configured(600);
    let bob = request("bob", &["dev"], Pod::ROW, Verb::Get);
    let begun = clock::instant();
    for _ in 0..TIMES {
        assert!(start(&control, &bob).1);
    }
    let each = begun.elapsed() / TIMES;
    eprintln!("{each:?} a request");
    assert!(each < Duration::from_millis(1), "{each:?}");
}
