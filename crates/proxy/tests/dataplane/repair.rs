//! The whole loop on its own node, fed with events: it converges, and repairs damage by others.

use std::time::{Duration, Instant};

use client::informer;
use client::mirror::Name;
use futures::StreamExt;
use futures::channel::mpsc;
use proxy::model::Node;
use proxy::monitor::Monitor;
use proxy::observe::Event;
use proxy::policy::observe as policy;
use proxy::policy::observe::Demand;
use proxy::routes;
use proxy::sync::{self, Settings};
use runtime::health::Health;
use tokio_util::sync::CancellationToken;

use crate::cluster::{service, tcp};
use crate::netns::Netns;

const TIMEOUT: Duration = Duration::from_secs(20);

fn node(cidr: &str, ip: &str) -> Node {
    Node {
        pod_cidrs: vec![cidr.parse().unwrap()],
        internal_ips: vec![ip.parse().unwrap()],
        ..Node::default()
    }
}

/// The initial events of a watch.
fn initial<T: Clone>(
    wrap: fn(informer::Event<(Name, T)>) -> Event,
    objects: &[(&str, T)],
) -> Vec<Event> {
    let apply =
        |(name, object): &(&str, T)| informer::Event::InitApply(((*name).into(), object.clone()));
    let start = std::iter::once(informer::Event::Init);
    let all = start.chain(objects.iter().map(apply)).chain([informer::Event::InitDone]);
    all.map(wrap).collect()
}

#[allow(clippy::disallowed_methods)]
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not after {TIMEOUT:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_loop_converges_and_repairs_damage() {
    let netns = Netns::new();
    netns.ip("link add up0 type veth peer name down0");
    netns.ip("address add 192.168.7.11/24 dev up0");
    netns.ip("link set up0 up");
    netns.ip("link set down0 up");
    netns.ip("route add 10.99.0.0/24 via 192.168.7.99 proto static");
    let (mut send, events) = mpsc::channel(64);
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let looping = netns.run(move || {
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            runtime.unwrap().block_on(async move {
                let settings = Settings {
                    node_name: "a".into(),
                    cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
                    cluster_dns: Vec::new(),
                    load_balancer_cidrs: Vec::new(),
                };
                let health = Health::new(&["synced"]);
                let (monitor, demand) = (Monitor::open().unwrap(), Demand::new(None));
                let announced = tokio::sync::watch::Sender::default();
                sync::run(settings, events.boxed(), demand, monitor, announced, health, stop).await
            })
        })
    });
    let slice = tcp(&["10.244.1.7"]).remove(0);
    let nodes = [
        ("a", node("10.244.0.0/24", "192.168.7.11")),
        ("b", node("10.244.1.0/24", "192.168.7.12")),
    ];
    let mut all = initial(Event::Service, &[("default/web", service("web"))]);
    all.extend(initial(Event::Slice, &[("default/web-1", Some(slice))]));
    all.extend(initial(Event::Node, &nodes));
    let mut complete = initial(Event::Pod, &[]);
    let none = [informer::Event::Init, informer::Event::InitDone].map(policy::Event::Policy);
    complete.extend(none.map(Event::Policy));
    for event in all {
        send.try_send(event).unwrap();
    }
    let tables = || netns.nft("list tables");
    eventually("the node is closed for pods", || {
        tables().contains("skiff-proxy")
            && netns.nft("list map ip skiff-proxy guard").contains("ip : drop")
    });
    let services = netns.nft("list map ip skiff-proxy services");
    assert!(!services.contains("10.96"), "nothing is applied before everything is synced");
    for event in complete {
        send.try_send(event).unwrap();
    }
    let has_element = || {
        tables().contains("skiff-proxy")
            && netns.nft("list map ip skiff-proxy endpoints").contains("10.244.1.7 . 8080")
    };
    let routes = || netns.ip("route show proto 173").trim().to_owned();
    let expected = "10.244.1.0/24 via 192.168.7.12 dev up0";
    eventually("the Service is there", has_element);
    let guard = netns.nft("list map ip skiff-proxy guard");
    assert!(!guard.contains("drop"), "no policies: {guard}");
    eventually("the route is there", || routes() == expected);
    netns.nft("flush ruleset");
    eventually("the Service is back", has_element);
    netns.nft("flush map ip skiff-proxy endpoints");
    eventually("the endpoint is back", has_element);
    netns.ip("route del 10.244.1.0/24");
    eventually("the route is back", || routes() == expected);
    netns.ip("link set up0 down");
    netns.ip("link set up0 up");
    eventually("the route is back after the interface", || routes() == expected);
    // An unreachable node does not block the Services.
    let lost = informer::Event::Apply(("c".into(), node("fd00:9::/64", "fd00:8::1")));
    send.try_send(Event::Node(lost)).unwrap();
    let mut other = service("other");
    other.cluster_ips = vec!["10.96.0.99".parse().unwrap()];
    let other = informer::Event::Apply(("default/other".into(), other));
    send.try_send(Event::Service(other)).unwrap();
    eventually("another Service is there", || {
        let elements = netns.nft("list map ip skiff-proxy no-endpoints");
        elements.contains("10.96.0.99")
    });
    assert_eq!(routes(), expected);
    let gone = informer::Event::Delete(("b".into(), nodes[1].1.clone()));
    send.try_send(Event::Node(gone)).unwrap();
    eventually("the route is gone with its node", || routes().is_empty());
    shutdown.cancel();
    looping.join().unwrap().unwrap();
    netns.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(routes::remove()).unwrap();
    });
    assert!(has_element(), "Services continue without the proxy");
}
