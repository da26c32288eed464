//! Restarts, damage and ten thousand Services.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use proxy::apply::Applier;
use proxy::model::{EndpointSlice, Service};
use proxy::plan::{Changes, Desired, Owner};

use crate::cluster::{Proxy, layouts, port, service, slice, tcp};
use crate::netns::Netns;
use proxy::Family;
use proxy::table::Protocol;

const SERVICES: u32 = 10_000;

#[test]
fn a_resync_repairs_damage() {
    let node = Netns::new();
    let mut proxy = node.run(|| Proxy::start(0));
    let mut web = service("web");
    web.affinity_s = Some(5);
    web.ports[0].node_port = Some(30_080);
    web.load_balancer_ips = vec!["203.0.113.2".parse().unwrap()];
    web.source_ranges = vec!["198.51.100.0/24".parse().unwrap()];
    proxy.apply(&web, &tcp(&["10.244.0.1", "10.244.1.1"]));
    let whole = node.nft("list ruleset");
    assert!(proxy.applier.resync(&proxy.desired).unwrap().is_empty(), "a restart changes nothing");
    for damage in [
        "flush ruleset",
        "delete element ip skiff-proxy services { 10.96.0.10 . tcp . 80 }",
        "add element ip skiff-proxy cluster-ips { 10.96.0.99 }",
        "flush map ip skiff-proxy endpoints",
        "flush chain ip skiff-proxy cluster-2-affinity-5",
        "flush chain ip skiff-proxy prerouting",
        "add chain ip skiff-proxy stranger",
        "add chain ip skiff-proxy cluster-7",
    ] {
        node.nft(damage);
        proxy.applier.resync(&proxy.desired).unwrap();
        assert_eq!(sorted(&node.nft("list ruleset")), sorted(&whole), "after {damage}");
    }
    node.nft("add table ip docker-nat");
    node.run(|| Applier::cleanup().unwrap());
    node.run(|| Applier::cleanup().unwrap());
    assert_eq!(node.nft("list tables").trim(), "table ip docker-nat");
}

/// Elements are listed in arbitrary order over several lines, chains in order of creation.
fn sorted(listing: &str) -> Vec<String> {
    let mut words: Vec<String> =
        listing.split_whitespace().map(|word| word.trim_end_matches(',').to_owned()).collect();
    words.sort();
    words
}

fn nth(n: u32) -> (Service, EndpointSlice) {
    let name = format!("service-{n}");
    let mut web = service(&name);
    web.cluster_ips =
        vec![Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 0, 0).to_bits() + 100 + n).into()];
    web.ports = vec![port("http", Protocol::Tcp, 80)];
    let ip = |k: u32| {
        Ipv4Addr::from_bits(Ipv4Addr::new(10, 244, 0, 0).to_bits() + 3 * n + k).to_string()
    };
    let ips = [ip(1), ip(2), ip(3)];
    let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
    (web, slice(&name, "http", Protocol::Tcp, &ips))
}

#[test]
fn ten_thousand_services() {
    let node = Netns::new();
    let context = proxy::plan::Context { families: vec![Family::V4], ..Default::default() };
    #[allow(clippy::disallowed_methods)]
    let clock = Instant::now;
    let mut desired = Desired::default();
    let mut changes = Changes::new();
    let start = clock();
    for n in 0..SERVICES {
        let (web, slice) = nth(n);
        let elements = proxy::plan::service(&context, &web, &[&slice], &|_| None);
        desired.replace(
            &Owner::Service(format!("default/{}", web.name).into()),
            elements,
            &mut changes,
        );
    }
    let planned = start.elapsed();
    let mut applier = node.run(|| Applier::open(layouts(0)).unwrap());
    let start = clock();
    applier.resync(&desired).unwrap();
    let loaded = start.elapsed();
    let start = clock();
    assert!(applier.resync(&desired).unwrap().is_empty());
    let compared = start.elapsed();
    let mut times = Vec::new();
    for n in 0..20 {
        let (web, mut slice) = nth(n * 400);
        slice.endpoints.remove(1);
        let start = clock();
        let mut changes = Changes::new();
        let previous = |id: &_| desired.get(id);
        let elements = proxy::plan::service(&context, &web, &[&slice], &previous);
        desired.replace(
            &Owner::Service(format!("default/{}", web.name).into()),
            elements,
            &mut changes,
        );
        applier.apply(&desired, &changes).unwrap();
        times.push(start.elapsed());
    }
    times.sort();
    println!(
        "{SERVICES} services with 3 endpoints: {} elements; planned in {planned:?}, loaded in {loaded:?}, \
         read back and compared in {compared:?}, one endpoint removed in {:?} (median)",
        desired.element_count(),
        times[times.len() / 2],
    );
    assert!(loaded < Duration::from_secs(30), "loading does not take quadratic time");
}
