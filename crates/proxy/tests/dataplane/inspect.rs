//! What the proxy shows of the tables is what is in them, whoever wrote it.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, service, tcp};
use crate::netns::Netns;

/// The status line and the body of a request to the proxy of a network namespace.
fn ask(netns: &Netns, query: &str) -> (String, Value) {
    let request = format!("GET /tables?{query} HTTP/1.0\r\n\r\n");
    netns.run(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/proxy.sock");
        let ignored = vec!["10.96.0.2".parse().unwrap()];
        let _context = runtime.enter();
        // The second one takes the place of one that was killed.
        for _ in 0..2 {
            let held = "10.96.0.10,10.96.0.11".split(',').map(|ip| ip.parse().unwrap()).collect();
            let (_, held) = watch::channel(held);
            proxy::inspect::serve(&path, ignored.clone(), held, CancellationToken::new()).unwrap();
        }
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let body = serde_json::from_str(body).unwrap_or(Value::String(body.to_owned()));
        (head.lines().next().unwrap().to_owned(), body)
    })
}

/// The elements of a map in the tables of a namespace; null if it has none.
fn elements(netns: &Netns, query: &str, table: &str, map: &str) -> Value {
    let (status, answer) = ask(netns, query);
    assert!(status.contains("200"), "{status}: {answer}");
    let tables = answer["tables"].as_array().unwrap();
    let found = tables.iter().find(|one| one["name"] == table && one["family"] == "ip").unwrap();
    let maps = found["maps"].as_array().unwrap();
    let map = maps.iter().find(|one| one["name"] == map);
    map.map(|map| map["elements"].clone()).unwrap_or_default()
}

#[test]
fn the_tables_are_shown_as_they_are() {
    let mut cluster = Cluster::new(&[("a", 0), ("b", 1)]);
    cluster.apply(&service("web"), &tcp(&["10.244.0.1", "10.244.1.1"]));
    let node = &cluster.nodes[0].netns;
    let query = "addresses=10.96.0.10";
    assert_eq!(
        elements(node, query, "skiff-proxy", "services"),
        json!([{"key": ["10.96.0.10", "tcp", "80"], "verdict": "goto cluster-2"}])
    );
    let slot = |slot: &str, ip: &str| json!({"key": ["10.96.0.10", "tcp", "80", slot], "value": [ip, "8080"]});
    let endpoints = || {
        let mut found = elements(node, query, "skiff-proxy", "endpoints");
        found.as_array_mut().unwrap().sort_by_key(|one| one["key"][3].to_string());
        found
    };
    assert_eq!(endpoints(), json!([slot("0", "10.244.0.1"), slot("1", "10.244.1.1")]));
    // Behind the proxy's back.
    node.nft("delete element ip skiff-proxy endpoints { 10.96.0.10 . tcp . 80 . 0x00000001 }");
    assert_eq!(endpoints(), json!([slot("0", "10.244.0.1")]));

    // An element about the link of a pod, which has no address in it.
    node.nft("add table ip skiff-links");
    node.nft("add set ip skiff-links pods { type ifname ; elements = { veth1, veth2 } }");
    let (_, answer) = ask(node, "addresses=10.244.0.1,10.244.1.1");
    assert_eq!(answer["links"], json!({"10.244.0.1": "veth1"}));
    assert_eq!(answer["announced"], json!([]));
    assert_eq!(ask(node, query).1["announced"], json!(["10.96.0.10"]), "of what was asked for");
    let found = elements(node, "addresses=10.244.0.1", "skiff-links", "pods");
    assert_eq!(found, json!([{"key": ["veth1"]}]));

    // By an endpoint's address, and not by others.
    let found = elements(node, "addresses=10.244.0.1", "skiff-proxy", "endpoints");
    assert_eq!(found, json!([slot("0", "10.244.0.1")]));
    assert_eq!(elements(node, "addresses=10.244.0.9", "skiff-proxy", "endpoints"), Value::Null);
    let (_, answer) = ask(node, query);
    assert_eq!(answer["ignored"], json!(["10.96.0.2"]));
    assert_eq!(answer["truncated"], false);
}

/// Maps that the proxy does not know, in tables that it does not know.
#[test]
fn other_tables_of_ours_are_shown_too() {
    let netns = Netns::new();
    netns.nft("add table ip skiff-other");
    netns.nft("add table ip foreign");
    netns.nft("add set ip foreign a { type ipv4_addr ; elements = { 10.244.0.1 } }");
    netns.nft("add chain ip skiff-other deny");
    netns.nft(
        "add map ip skiff-other rules { type ipv4_addr . inet_proto . inet_service : verdict ; flags interval ; }",
    );
    netns.nft("add element ip skiff-other rules { 10.244.0.0/24 . tcp . 80 : goto deny }");
    netns.nft("add set ip skiff-other ports { type inet_proto . inet_service ; elements = { udp . 30080 } }");
    let found = elements(&netns, "addresses=10.244.0.1&ports=30080", "skiff-other", "rules");
    assert_eq!(
        found,
        json!([{
            "key": ["10.244.0.0", "tcp", "80"], "keyEnd": ["10.244.0.255", "tcp", "80"],
            "verdict": "goto deny",
        }])
    );
    let ports = |query: &str| elements(&netns, query, "skiff-other", "ports");
    assert_eq!(ports("ports=30080"), json!([{"key": ["udp", "30080"]}]));
    assert_eq!(ports("ports=30081"), Value::Null);
    let (_, answer) = ask(&netns, "addresses=10.244.0.1");
    assert!(!answer.to_string().contains("foreign"), "{answer}");
}

#[test]
fn malformed_queries_are_refused() {
    let netns = Netns::new();
    for query in ["", "addresses=web", "all=1"] {
        let (status, body) = ask(&netns, query);
        assert!(status.contains("400"), "{query}: {status} {body}");
    }
}
