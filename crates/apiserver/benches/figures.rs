//! Creates, gets, a list of 5,000 objects and watch fan-out of the whole apiserver over TLS,
//! compared with etcd's own put and range rate in the same run; the same of custom resources, and
//! what 500 definitions cost; what admission, and priority and fairness cost, and what the latter
//! does for heartbeats. `cargo bench --bench figures` measures all; parts can be named: `-- rates
//! definitions custom admission fairness heartbeats`.
//!
//! Load and server share this machine's cores, so ratios are more meaningful than absolute figures.

#![allow(clippy::unwrap_used)]

#[path = "../tests/contract/server.rs"]
#[allow(dead_code)]
mod server;

#[path = "figures/admission.rs"]
mod admission;
#[path = "figures/fairness.rs"]
mod fairness;
#[path = "figures/pairs.rs"]
mod pairs;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clock::monotonic;
use futures::future::join_all;
use serde_json::{Value, json};
use server::{Rest, Server};
use store::{EtcdConfig, ListOptions, Store};

const CONNECTIONS: usize = 64;
const OBJECTS: usize = 5_000;
const LISTS: usize = 9;
const WATCHERS: usize = 100;
const UPDATES: usize = 1_000;
const WRITERS: usize = 16;
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const DEFINED: usize = 500;

/// An etcd of its own, removed with its directory when dropped.
struct Etcd {
    child: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have exited by itself; either way it is stopped afterwards.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn etcd() -> Option<Etcd> {
    let folder = tempfile::tempdir().unwrap();
    let (url, peer) =
        (format!("http://127.0.0.1:{}", free_port()), format!("http://127.0.0.1:{}", free_port()));
    let child = Command::new("etcd")
        .arg("--data-dir")
        .arg(folder.path())
        .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    Some(Etcd { child, url, _folder: folder })
}

fn report(what: &str, count: usize, elapsed: Duration) {
    let rate = count as f64 / elapsed.as_secs_f64();
    println!("{what:<48} {rate:>10.0} /s  {:>9.1} ms", elapsed.as_secs_f64() * 1e3);
}

async fn etcd_itself(store: &Store) {
    let value = bytes::Bytes::from(vec![b'x'; 1_024]);
    let start = monotonic();
    join_all((0..CONNECTIONS).map(|lane| {
        let (store, value) = (store.clone(), value.clone());
        async move {
            for index in 0..OBJECTS / CONNECTIONS {
                let key = format!("/bench/{lane}/{index}").into();
                let _outcome = store.create(key, value.clone()).await.unwrap();
            }
        }
    }))
    .await;
    report("etcd: put 1 KB, 64 at once", OBJECTS, start.elapsed());
    let (mut times, mut count) = (Vec::new(), 0);
    for _ in 0..LISTS {
        let start = monotonic();
        let listing = store
            .list(ListOptions {
                prefix: bytes::Bytes::from_static(b"/bench/"),
                ..ListOptions::default()
            })
            .await
            .unwrap();
        times.push(start.elapsed());
        count = listing.entries.len();
    }
    report("etcd: range of all, objects", count, median(times));
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// A kind that objects of 1 KB are made of.
struct Sample {
    what: &'static str,
    path: &'static str,
    object: fn(String, &str) -> Value,
}

const CONFIG_MAPS: Sample = Sample {
    what: "",
    path: MAPS,
    object: |name, data| json!({"metadata": {"name": name}, "data": {"k": data}}),
};
const CUSTOM: Sample = Sample {
    what: " custom",
    path: "/apis/bench.example.com/v1/namespaces/default/kind0s",
    object: |name, data| {
        json!({"apiVersion": "bench.example.com/v1", "kind": "Kind0", "metadata": {"name": name},
            "data": {"k": data}})
    },
};

/// Creates, gets and lists.
async fn rates(name: &str, clients: &[Rest], sample: &Sample) {
    let Sample { what, path, object } = sample;
    let data = "x".repeat(700);
    let start = monotonic();
    join_all(clients.iter().enumerate().map(|(lane, rest)| {
        let data = data.clone();
        async move {
            for index in 0..OBJECTS / CONNECTIONS {
                let object = object(format!("m-{lane}-{index}"), &data);
                rest.post(path, &object).await.expect(201);
            }
        }
    }))
    .await;
    report(&format!("{name}: create{what} 1 KB, 64 connections"), OBJECTS, start.elapsed());
    let start = monotonic();
    join_all(clients.iter().enumerate().map(|(lane, rest)| async move {
        for index in 0..OBJECTS / CONNECTIONS {
            let path = format!("{path}/m-{lane}-{index}");
            rest.ask("GET", &path, &[], Vec::new()).await.expect(200);
        }
    }))
    .await;
    report(&format!("{name}: get{what}, 64 connections"), OBJECTS, start.elapsed());
    let (mut times, mut length) = (Vec::new(), 0);
    for _ in 0..LISTS {
        let start = monotonic();
        let (_, bytes) = clients[0].exchange("GET", path, &[], Vec::new()).await;
        times.push(start.elapsed());
        length = bytes.len();
    }
    let what = format!("{name}: list{what}, {:.1} MB, objects", length as f64 / 1e6);
    report(&what, OBJECTS, median(times));
}

fn definition(number: usize) -> Value {
    let text = json!({"type": "string"});
    let properties: serde_json::Map<_, _> =
        (0..40).map(|field| (format!("field{field}"), text.clone())).collect();
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("kind{number}s.bench.example.com")},
        "spec": {"group": "bench.example.com", "scope": "Namespaced",
            "names": {"plural": format!("kind{number}s"), "singular": format!("kind{number}"),
                "kind": format!("Kind{number}")},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": properties},
                    "data": {"type": "object", "additionalProperties": text}}}}}]}})
}

/// Creates a definition, and returns when its first list is answered.
async fn define(rest: &Rest, number: usize) {
    rest.post(DEFINITIONS, &definition(number)).await.expect(201);
    let path = format!("/apis/bench.example.com/v1/namespaces/default/kind{number}s");
    while rest.get(&path).await.code != 200 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Custom kinds: what they cost, and what their objects cost beside built-in ones.
async fn definitions() {
    let mut server = Server::spawn(&[]).await;
    let clients: Vec<Rest> = (0..CONNECTIONS).map(|_| server.admin()).collect();
    rates("no definitions", &clients, &CONFIG_MAPS).await;
    let before = server.allocated();
    let mut times = Vec::new();
    for number in 0..DEFINED {
        let start = monotonic();
        define(&clients[0], number).await;
        times.push(start.elapsed());
    }
    report("definition to first list, median of 500", 1, median(times));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let each = server.allocated().saturating_sub(before) / DEFINED;
    println!("{:<48} {each:>10} bytes", "memory of a definition with 41 fields");
    rates("500 definitions", &clients, &CUSTOM).await;
    let maps = Sample { path: "/api/v1/namespaces/kube-public/configmaps", ..CONFIG_MAPS };
    rates("500 definitions", &clients, &maps).await;
    let start = monotonic();
    server.restart().await;
    while server.admin().get(CUSTOM.path).await.code != 200 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    report("restart to first custom list", 1, start.elapsed());
    server.stop().await;
}

async fn apiserver(name: &str, server: &Server) {
    let clients: Vec<Rest> = (0..CONNECTIONS).map(|_| server.admin()).collect();
    rates(name, &clients, &CONFIG_MAPS).await;
    fan_out(name, server, &clients).await;
}

async fn fan_out(name: &str, server: &Server, clients: &[Rest]) {
    let maps = "/api/v1/namespaces/kube-public/configmaps";
    for writer in 0..WRITERS {
        let object = json!({"metadata": {"name": format!("w-{writer}")}});
        clients[0].post(maps, &object).await.expect(201);
    }
    let version = clients[0].get(maps).await.expect(200)["metadata"]["resourceVersion"].clone();
    let path = format!("{maps}?watch=1&resourceVersion={}", version.as_str().unwrap());
    let mut watches = Vec::new();
    for _ in 0..WATCHERS {
        watches.push(server.admin().watch(&path).await);
    }
    let total = UPDATES / WRITERS * WRITERS;
    let start = monotonic();
    let readers: Vec<_> = watches
        .into_iter()
        .map(|mut lines| {
            tokio::spawn(async move {
                for _ in 0..total {
                    lines.next().await.unwrap();
                }
            })
        })
        .collect();
    join_all((0..WRITERS).map(|writer| {
        let rest = &clients[writer];
        async move {
            for index in 0..UPDATES / WRITERS {
                let patch = json!({"data": {"n": index.to_string()}});
                rest.patch(&format!("{maps}/w-{writer}"), "merge", &patch).await.expect(200);
            }
        }
    }))
    .await;
    join_all(readers).await;
    let what = format!("{name}: {total} updates to {WATCHERS} watchers, events");
    report(&what, total * WATCHERS, start.elapsed());
}

/// Creates of custom objects beside those of ConfigMaps of the same size, on one server.
async fn custom() {
    let server = Server::spawn(&[]).await;
    define(&server.admin(), 0).await;
    let loads = [&CUSTOM, &CONFIG_MAPS].map(|sample| admission::creates(&server, sample));
    let [custom, maps] = pairs::alternate(loads).await;
    pairs::report("create custom 1 KB, compared with ConfigMaps", &custom, &maps);
    server.stop().await;
}

#[tokio::main]
async fn main() {
    let parts: Vec<_> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    let is_chosen = |part: &str| parts.is_empty() || parts.iter().any(|name| name == part);
    if is_chosen("rates") {
        against_etcd().await;
    }
    if is_chosen("definitions") {
        definitions().await;
    }
    if is_chosen("custom") {
        custom().await;
    }
    if is_chosen("admission") {
        admission::measure().await;
    }
    if is_chosen("fairness") {
        fairness::measure().await;
    }
    if is_chosen("heartbeats") {
        fairness::heartbeats().await;
    }
}

async fn against_etcd() {
    let embedded = Server::start().await;
    apiserver("embedded", &embedded).await;
    embedded.stop().await;
    let Some(etcd) = etcd() else {
        println!("etcd is not installed: no comparison");
        return;
    };
    let store = Store::connect(&EtcdConfig::plain([etcd.url.clone()])).await.unwrap();
    while store.current_revision().await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    etcd_itself(&store).await;
    let server = Server::start_with(&[&format!("--etcd-servers={}", etcd.url)]).await;
    apiserver("on etcd", &server).await;
    server.stop().await;
}
