//! An object as a register: whatever way it is written in and through whichever apiserver, reads
//! and writes must be linearizable. Values repeat, so that writes often change nothing of a version
//! that is out of date.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};

use super::Pair;
use crate::server::{Answer, Rest, Server};

const MAP: &str = "/api/v1/namespaces/default/configmaps/register";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/default/deployments/register";

/// A way to write a number to an object.
pub struct Way {
    method: &'static str,
    path: String,
    content: &'static str,
    body: fn(u8) -> Value,
}

/// An object, the field that is the register, and the ways to write it.
pub struct Register {
    collection: &'static str,
    pub path: &'static str,
    field: &'static str,
    pub ways: Vec<Way>,
}

fn way(method: &'static str, path: &str, content: &'static str, body: fn(u8) -> Value) -> Way {
    Way { method, path: path.to_owned(), content, body }
}

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

fn map(value: u8) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "register"},
        "data": {"x": value.to_string()}})
}

fn deployment(value: u8) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "register"},
        "spec": {"replicas": value, "selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
        "status": {"replicas": value}})
}

fn scale(value: u8) -> Value {
    json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "register"},
        "spec": {"replicas": value}})
}

fn replicas(value: u8) -> Value {
    json!({"spec": {"replicas": value}})
}

fn status(value: u8) -> Value {
    json!({"status": {"replicas": value}})
}

/// All ways to write, by what they write.
pub fn registers() -> [Register; 3] {
    let applied = |path: &str| format!("{path}?fieldManager=test&force=true");
    let (scaled, reported) = (format!("{DEPLOYMENT}/scale"), format!("{DEPLOYMENT}/status"));
    [
        Register {
            collection: MAPS,
            path: MAP,
            field: "/data/x",
            ways: vec![
                way("PUT", MAP, JSON, map),
                way("PATCH", MAP, MERGE, map),
                way("PATCH", MAP, STRATEGIC, map),
                way(
                    "PATCH",
                    MAP,
                    JSON_PATCH,
                    |value| json!([{"op": "add", "path": "/data/x", "value": value.to_string()}]),
                ),
                way("PATCH", &applied(MAP), APPLY, map),
            ],
        },
        Register {
            collection: DEPLOYMENTS,
            path: DEPLOYMENT,
            field: "/spec/replicas",
            ways: vec![
                way("PUT", DEPLOYMENT, JSON, deployment),
                way("PATCH", DEPLOYMENT, STRATEGIC, replicas),
                way("PUT", &scaled, JSON, scale),
                way("PATCH", &scaled, MERGE, replicas),
                way("PATCH", &applied(&scaled), APPLY, scale),
            ],
        },
        Register {
            collection: DEPLOYMENTS,
            path: DEPLOYMENT,
            field: "/status/replicas",
            ways: vec![
                way("PUT", &reported, JSON, deployment),
                way("PATCH", &reported, MERGE, status),
                way("PATCH", &reported, STRATEGIC, status),
            ],
        },
    ]
}

impl Way {
    pub async fn write(&self, rest: &Rest, value: u8) -> Answer {
        let body = (self.body)(value).to_string().into_bytes();
        rest.ask(self.method, &self.path, &[("content-type", self.content)], body).await
    }

    pub fn name(&self) -> String {
        format!("{} {} {}", self.method, self.path, self.content)
    }
}

impl Register {
    pub async fn create(&self, rest: &Rest) {
        let body = if self.collection == MAPS { map(0) } else { deployment(0) };
        rest.post(self.collection, &body).await.expect(201);
        self.ways[self.ways.len() - 1].write(rest, 0).await.expect(200);
    }

    pub fn value(&self, object: &Value) -> u8 {
        match object.pointer(self.field) {
            Some(Value::String(text)) => text.parse().unwrap(),
            Some(number) => u8::try_from(number.as_u64().unwrap()).unwrap(),
            None => 0,
        }
    }
}

/// A read or write, from its request to its answer.
#[derive(Clone, Copy, Debug)]
struct Operation {
    start: u64,
    end: u64,
    write: bool,
    value: u8,
}

/// Whether the operations can have happened one after another, each between its start and its end,
/// on a register that is 0 at first: a search over the states that are reachable.
fn is_linearizable(operations: &[Operation]) -> bool {
    let mut seen: HashSet<(Vec<bool>, u8)> = HashSet::new();
    let mut open = vec![(vec![false; operations.len()], 0_u8)];
    while let Some((done, value)) = open.pop() {
        let left = || operations.iter().enumerate().filter(|(index, _)| !done[*index]);
        let Some(first_end) = left().map(|(_, operation)| operation.end).min() else {
            return true;
        };
        for (index, operation) in left() {
            if operation.start > first_end || (!operation.write && operation.value != value) {
                continue;
            }
            let mut next = done.clone();
            next[index] = true;
            if seen.insert((next.clone(), operation.value)) {
                open.push((next, operation.value));
            }
        }
    }
    false
}

#[test]
fn a_lost_write_is_not_linearizable() {
    let operation = |start, end, write, value| Operation { start, end, write, value };
    let history = [
        operation(0, 1, true, 1),
        operation(2, 5, true, 0),
        operation(3, 4, false, 1),
        operation(6, 7, false, 0),
    ];
    assert!(is_linearizable(&history));
    let mut lost = history;
    lost[3].value = 1;
    assert!(!is_linearizable(&lost));
    let mut early = history;
    early[3].end = 20;
    assert!(is_linearizable(&early));
}

/// Clients of each server read and write at random.
async fn operate(register: &Register, servers: &[&Server], each: usize) -> Vec<Operation> {
    let clock = AtomicU64::new(0);
    let now = || clock.fetch_add(1, Ordering::SeqCst);
    let clients = servers.iter().flat_map(|server| [server.admin(), server.admin()]);
    let clients = clients.map(|rest| {
        let now = &now;
        async move {
            let mut done = Vec::new();
            for _ in 0..each {
                let (write, wanted) = (rand::random_ratio(2, 3), rand::random_range(0..2));
                let start = now();
                let value = if write {
                    let way = &register.ways[rand::random_range(0..register.ways.len())];
                    let answer = way.write(&rest, wanted).await;
                    assert_eq!(answer.code, 200, "{}: {}", way.name(), answer.text);
                    wanted
                } else {
                    register.value(&rest.get(register.path).await.expect(200))
                };
                done.push(Operation { start, end: now(), write, value });
            }
            done
        }
    });
    join_all(clients).await.into_iter().flatten().collect()
}

async fn check(servers: &[&Server], each: usize) {
    for register in registers() {
        servers[0].admin().delete(register.path).await;
        register.create(&servers[0].admin()).await;
        let operations = operate(&register, servers, each).await;
        assert!(is_linearizable(&operations), "{}: {operations:#?}", register.field);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_is_a_linearizable_register() {
    let server = Server::start().await;
    check(&[&server], 150).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_is_a_linearizable_register_of_two_apiservers() {
    let pair = Pair::start(&[]).await;
    pair.proxy.delay(Duration::from_millis(10));
    check(&[&pair.first, &pair.second], 60).await;
    pair.stop().await;
}
