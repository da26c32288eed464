//! Many policies, pods and address blocks; and what policies cost the traffic.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::mirror::Name;
use nix::time::{ClockId, clock_gettime};
use proxy::Family;
use proxy::apply::Applier;
use proxy::model::Pod;
use proxy::plan::{Changes, Desired};
use proxy::policy::Policies;
use proxy::policy::model::Policy;
use proxy::table::LinkName;
use serde_json::{Value, json};
use socket2::SockRef;

use crate::cluster::{Cluster, layouts};
use crate::netns::Netns;
use crate::reference::decode;

const NAMESPACES: u32 = 50;
const PODS_PER_NAMESPACE: u32 = 100;
const POLICIES_PER_NAMESPACE: u32 = 20;
/// Every one of so many pods is on this node: far more than a node usually has.
const LOCAL: u32 = 10;
/// Elements that a pod which becomes a peer, or no longer is one, changes; on average.
const CHANGED_MAX: usize = 8;
const BLOCKS: u32 = 10_000;
/// Policies for the same two pods.
const POLICIES: u32 = 1000;
const TRANSFER: Duration = Duration::from_millis(200);
/// Transfers in a row with the same policies.
const TRANSFERS: usize = 3;
/// Rounds with and without policies.
const ROUNDS: usize = 12;

/// The CPU time of this thread, in the kernel too: netlink requests are executed by their sender.
fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

struct Tables {
    policies: Policies,
    desired: Desired,
    applier: Applier,
}

impl Tables {
    /// A node with IPv4 only.
    fn new(node: &Netns) -> Self {
        let layouts = || layouts(0).into_iter().take(1).collect();
        let applier = node.run(move || Applier::open(layouts()).unwrap());
        Self { policies: Policies::default(), desired: Desired::default(), applier }
    }

    fn replan(&mut self) -> Changes {
        let mut changes = Changes::new();
        self.policies.replan(&[Family::V4], &mut self.desired, &mut changes);
        changes
    }

    fn apply(&mut self) -> usize {
        let changes = self.replan();
        self.applier.apply(&self.desired, &changes).unwrap();
        changes.len()
    }
}

fn name(namespace: u32, object: u32) -> Name {
    format!("ns-{namespace}/object-{object}").into()
}

fn pod(namespace: u32, number: u32, app: u32) -> Pod {
    let index = namespace * PODS_PER_NAMESPACE + number;
    let labels = [
        ("app".to_owned(), format!("app-{app}")),
        ("hash".to_owned(), format!("{:08x}", app * 7919)),
    ];
    Pod {
        link: Some(LinkName::new(&format!("veth{index}"))),
        ips: vec![Ipv4Addr::from_bits(Ipv4Addr::new(10, 244, 0, 0).to_bits() + index).into()],
        labels: Arc::new(BTreeMap::from(labels)),
        ..Pod::default()
    }
}

fn policy(spec: Value) -> Policy {
    Policy::from_object(&decode(json!({"metadata": {"name": "p"}, "spec": spec})))
}

/// The pods of an app accept the next app of their namespace, one app of all namespaces of their
/// team, and monitoring from a range.
fn nth_policy(number: u32) -> Policy {
    let next = format!("app-{}", (number + 1) % POLICIES_PER_NAMESPACE);
    let team = json!({"team": format!("team-{}", number % 10)});
    policy(json!({
        "podSelector": {"matchLabels": {"app": format!("app-{number}")}},
        "policyTypes": ["Ingress"],
        "ingress": [
            {
                "from": [{"podSelector": {"matchLabels": {"app": next}}}],
                "ports": [{"port": 80}, {"port": 443}, {"port": 8000 + number}]
            },
            {"from": [{
                "namespaceSelector": {"matchLabels": team},
                "podSelector": {"matchLabels": {"app": "app-0"}}
            }]},
            {"from": [{"ipBlock": {"cidr": "192.168.0.0/16"}}], "ports": [{"port": 9090}]}
        ]
    }))
}

#[test]
fn a_thousand_policies_over_five_thousand_pods() {
    let node = Netns::new();
    let mut tables = Tables::new(&node);
    tables.applier.resync(&tables.desired).unwrap();
    let start = cpu();
    for namespace in 0..NAMESPACES {
        let labels = BTreeMap::from([("team".to_owned(), format!("team-{}", namespace % 10))]);
        tables.policies.set_namespace(&format!("ns-{namespace}"), Some(Arc::new(labels)));
        for number in 0..PODS_PER_NAMESPACE {
            let pod = pod(namespace, number, number % POLICIES_PER_NAMESPACE);
            tables.policies.set_pod(&name(namespace, number), Some(&pod));
            if number % LOCAL == namespace % LOCAL {
                tables.policies.set_local(&name(namespace, number), Some(&pod));
            }
        }
        for number in 0..POLICIES_PER_NAMESPACE {
            tables.policies.set_policy(&name(namespace, number), Some(nth_policy(number)));
        }
    }
    let changes = tables.replan();
    let planned = cpu() - start;
    let start = cpu();
    tables.applier.apply(&tables.desired, &changes).unwrap();
    let loaded = cpu() - start;
    let start = cpu();
    assert!(tables.applier.resync(&tables.desired).unwrap().is_empty());
    let compared = cpu() - start;
    let mut times = Vec::new();
    let mut elements = 0;
    for n in 0..100 {
        let (namespace, number) = (n % NAMESPACES, n * 7 % PODS_PER_NAMESPACE);
        // It becomes a peer of a policy of pods on this node, or no longer is one.
        let app = (namespace % LOCAL + n % 2 * 2) % POLICIES_PER_NAMESPACE + 1;
        let start = cpu();
        tables.policies.set_pod(&name(namespace, number), Some(&pod(namespace, number, app)));
        elements += tables.apply();
        times.push(cpu() - start);
    }
    times.sort();
    let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "{} policies over {} pods, {} of them isolated on this node: {} elements; planned in \
         {planned:?}, loaded in {loaded:?}, read back and compared in {compared:?}; a pod that \
         changes: {:.1} elements, {median:?} of CPU (median), {most:?} at most",
        tables.policies.count(),
        NAMESPACES * PODS_PER_NAMESPACE,
        tables.policies.isolated_count(),
        tables.desired.element_count(),
        f64::from(u32::try_from(elements).unwrap()) / 100.0,
    );
    assert!(elements < 100 * CHANGED_MAX, "100 changes of a pod change {elements} elements");
}

#[test]
fn ten_thousand_address_blocks() {
    let node = Netns::new();
    let mut tables = Tables::new(&node);
    tables.applier.resync(&tables.desired).unwrap();
    // Blocks overlap their neighbours, and have an exception each.
    let block = |n: u32| {
        let base = Ipv4Addr::from_bits(Ipv4Addr::new(20, 0, 0, 0).to_bits() + n * 1024);
        let except = Ipv4Addr::from_bits(base.to_bits() + 512);
        let len = if n.is_multiple_of(4) { 20 } else { 22 };
        let base = Ipv4Addr::from_bits(base.to_bits() & (u32::MAX << (32 - len)));
        json!({"ipBlock": {"cidr": format!("{base}/{len}"), "except": [format!("{except}/28")]}})
    };
    let spec = |blocks: u32, port: u16| {
        let from: Vec<Value> = (0..blocks).map(block).collect();
        let odd: Vec<Value> = (0..blocks).filter(|n| n % 5 == 0).map(block).collect();
        policy(json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [
            {"from": from, "ports": [{"port": port}]}, {"from": odd, "ports": [{"port": 443}]}
        ]}))
    };
    tables.policies.set_local(&name(0, 0), Some(&pod(0, 0, 0)));
    let all = spec(BLOCKS, 80);
    let start = cpu();
    tables.policies.set_policy(&name(0, 0), Some(all));
    let changes = tables.replan();
    let planned = cpu() - start;
    let start = cpu();
    tables.applier.apply(&tables.desired, &changes).unwrap();
    let loaded = cpu() - start;
    let start = cpu();
    assert!(tables.applier.resync(&tables.desired).unwrap().is_empty());
    let compared = cpu() - start;
    // Another pod with the same policy, then another policy.
    let start = cpu();
    tables.policies.set_local(&name(0, 1), Some(&pod(0, 1, 0)));
    let shared = tables.apply();
    let joined = cpu() - start;
    let other = spec(BLOCKS, 81);
    let start = cpu();
    tables.policies.set_policy(&name(0, 0), Some(other));
    tables.apply();
    let replaced = cpu() - start;
    println!(
        "{BLOCKS} blocks with exceptions: {} elements; planned in {planned:?}, loaded in \
         {loaded:?}, read back and compared in {compared:?}; another pod in {joined:?}, another \
         policy in {replaced:?}",
        tables.desired.element_count(),
    );
    assert!(shared < CHANGED_MAX, "another pod with the same policy changes {shared} elements");
}

/// Bytes per second of CPU, from one pod to the other over one connection.
#[allow(clippy::disallowed_methods, clippy::cast_precision_loss)]
fn throughput(from: &Netns, to: &Netns, address: &'static str) -> f64 {
    let listener = to.run(move || TcpListener::bind(address).unwrap());
    let sink = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 1 << 18];
        let mut total = 0_u64;
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => return (total, cpu()),
                length => total += length as u64,
            }
        }
    });
    let sent = from.run(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        let buffer = vec![0; 1 << 18];
        let (start, used) = (Instant::now(), cpu());
        while start.elapsed() < TRANSFER {
            stream.write_all(&buffer).unwrap();
        }
        cpu() - used
    });
    let (total, received) = sink.join().unwrap();
    total as f64 / (sent + received).as_secs_f64()
}

/// Connections per second of CPU of the client, which sends their first packets.
#[allow(clippy::disallowed_methods)]
fn connections(from: &Netns, address: &'static str) -> f64 {
    from.run(move || {
        let (start, used) = (Instant::now(), cpu());
        let mut count = 0_u32;
        while start.elapsed() < TRANSFER {
            let stream = TcpStream::connect(address).unwrap();
            // Closed by a reset: connections in TIME_WAIT would use the ports up.
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            count += 1;
        }
        f64::from(count) / (cpu() - used).as_secs_f64()
    })
}

/// Gives pods `a` and `b` so many policies that let them talk, with four sets of ports, at most
/// [`POLICIES`].
fn set_policies(cluster: &mut Cluster, count: u32) {
    let local = |number: u32| {
        let mut pod = pod(0, number, 0);
        pod.link = Some(LinkName::new(&format!("veth{number}")));
        pod
    };
    cluster.nodes[0].proxy.change_policies(|policies| {
        for number in [1, 2] {
            policies.set_local(&name(0, number), Some(&local(number)));
            policies.set_pod(&name(0, number), Some(&local(number)));
        }
        for number in 0..POLICIES {
            let spec = json!({
                "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
                "egress": [{"to": [{"podSelector": {}}], "ports": [
                    {"port": 8080}, {"port": 9000}, {"port": 10_000 + number % 4}
                ]}],
                "ingress": [{"from": [{"podSelector": {}}, {"ipBlock": {
                    "cidr": format!("20.{}.{}.0/24", number / 250, number % 250)
                }}]}]
            });
            policies.set_policy(&name(0, number), (number < count).then(|| policy(spec)));
        }
    });
}

#[test]
fn rules_depend_on_sets_of_ports_and_not_on_policies() {
    let mut cluster = Cluster::new(&[("a", 0), ("b", 0)]);
    cluster.pod("b").serve("10.244.0.2:8080", "b");
    let mut lines = |count: u32| {
        set_policies(&mut cluster, count);
        let table = cluster.nodes[0].netns.nft("--terse list table ip skiff-proxy");
        assert_eq!(cluster.pod("a").who("10.244.0.2:8080"), "b");
        table.lines().count()
    };
    assert!(lines(4) > lines(0));
    assert_eq!(lines(POLICIES), lines(4));
}

/// What policies cost the traffic. Run with `cargo test --workspace --test dataplane -- --ignored
/// traffic --nocapture`.
#[test]
#[ignore = "prints figures, which mean nothing on a busy machine"]
fn traffic_with_and_without_policies() {
    let mut cluster = Cluster::new(&[("a", 0), ("b", 0)]);
    cluster.pod("b").serve("10.244.0.2:8080", "b");
    let mut measure = |with: bool| {
        set_policies(&mut cluster, if with { POLICIES } else { 0 });
        let (a, b) = (cluster.pod("a"), cluster.pod("b"));
        let bytes = (0..TRANSFERS).map(|_| throughput(a, b, "10.244.0.2:9000"));
        (bytes.fold(0.0, f64::max), connections(a, "10.244.0.2:8080"))
    };
    // Each round compares its own two measurements, and the median of the rounds counts: other work
    // on the machine changes some of them, in both directions.
    let mut ratios = [const { Vec::new() }; 2];
    for round in 0..ROUNDS {
        // The order alternates, so that neither always has the warmer caches.
        let first = round % 2 == 1;
        let (one, other) = (measure(first), measure(!first));
        let (plain, policed) = if first { (other, one) } else { (one, other) };
        ratios[0].push(policed.0 / plain.0);
        ratios[1].push(policed.1 / plain.1);
    }
    let [bytes, connects] = ratios.each_mut().map(|ratios| median(ratios));
    println!(
        "with {POLICIES} policies for both pods: {bytes:.3} of the throughput without, {connects:.3} of \
         the new connections; the medians of {ROUNDS} rounds"
    );
}

/// The lower of the middle two, of an even number.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}
