//! Addresses of load balancers, as other machines on the link find them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use proxy::announce::{Settings, Wanted, start};
use proxy::table::Protocol;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, MACHINE, service, slice};
use crate::netns::Netns;

const ADDRESSES: [&str; 2] = ["192.168.7.100", "fd00:7::100"];
/// By then another node has to have an address whose node is gone.
const MOVED: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(10);

/// A running announcer.
struct Announcer {
    wanted: watch::Sender<Wanted>,
    stop: CancellationToken,
    ended: oneshot::Receiver<()>,
    /// Reason and message.
    events: Receiver<(&'static str, String)>,
    holds: watch::Receiver<BTreeSet<IpAddr>>,
}

impl Announcer {
    fn start(node: &Netns, name: &str) -> Self {
        let reference = ObjectReference { name: Some("web".into()), ..Default::default() };
        let address = |ip: &&str| (ip.parse::<IpAddr>().unwrap(), vec![reference.clone()]);
        let addresses: BTreeMap<_, _> = ADDRESSES.iter().map(address).collect();
        let (wanted, receiver) = watch::channel(Wanted::default());
        let (sent, events) = channel();
        let stop = CancellationToken::new();
        let shutdown = stop.clone();
        let (sender, holds) = watch::channel(BTreeSet::new());
        let settings = Settings { node_name: name.to_owned(), kubelet: None, holds: sender };
        let record = Box::new(move |_, _, reason, message| sent.send((reason, message)).unwrap());
        let ended = node.run(move || start(settings, receiver, record, shutdown).unwrap());
        wanted.send_replace(Wanted { addresses, links: 0 });
        Self { wanted, stop, ended, events, holds }
    }

    fn event(&self, expected: &str) -> String {
        loop {
            let (reason, message) = self.events.recv_timeout(TIMEOUT).expect(expected);
            if reason == expected {
                return message;
            }
        }
    }
}

/// A pod on each node, behind a Service whose traffic stays on the node it arrives at: who answers
/// tells which node has an address.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new(&[("a", 0), ("b", 1)]);
    cluster.machine.ip("address add fd00:7::1/64 dev br0 nodad");
    for (index, node) in cluster.nodes.iter().enumerate() {
        node.netns.ip(&format!("address add fd00:7::1{}/64 dev up0 nodad", index + 1));
        node.netns.sysctl("ipv6/conf/all/forwarding", "1");
    }
    for name in ["a", "b"] {
        cluster.pod(name).serve("[::]:8080", name);
    }
    let mut web = service("web");
    web.external_local = true;
    web.load_balancer_ips = ADDRESSES.iter().map(|ip| ip.parse().unwrap()).collect();
    let of = |ips: &[&str]| slice("web", "", Protocol::Tcp, ips);
    let v6 = of(&["fd00:244::0:1", "fd00:244::1:1"]);
    cluster.apply(&web, &[of(&["10.244.0.1", "10.244.1.1"]), v6]);
    cluster
}

/// Who answers at the address, or nothing. The patience is short, unlike TCP's.
fn who(from: &Netns, ip: &str) -> Option<String> {
    let address = SocketAddr::new(ip.parse().unwrap(), 80);
    let connects = move || TcpStream::connect_timeout(&address, Duration::from_millis(100)).is_ok();
    let text = address.to_string();
    // The address may move between the two connections.
    let answer = from.run(connects).then(|| from.ask(&text).ok()).flatten()?;
    answer.split(' ').next().map(str::to_owned)
}

#[allow(clippy::disallowed_methods)]
fn eventually<T>(what: &str, within: Duration, attempt: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not after {within:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn node_of(pod: &str) -> usize {
    usize::from(pod == "b")
}

#[test]
fn an_announced_address_is_found_and_moves_when_its_node_is_cut_off() {
    let cluster = cluster();
    let machine = &cluster.machine;
    let announcers =
        [0, 1].map(|index| Announcer::start(&cluster.nodes[index].netns, &format!("node-{index}")));
    for ip in ADDRESSES {
        let pod = eventually("the address is found", TIMEOUT, || who(machine, ip));
        let node = node_of(&pod);
        let message = announcers[node].event("nodeAssigned");
        assert!(message.ends_with(&format!("from node \"node-{node}\"")), "{message}");
        let text = SocketAddr::new(ip.parse().unwrap(), 80).to_string();
        let answer = machine.ask(&text).unwrap();
        let client = if ip.contains(':') { "fd00:7::1" } else { MACHINE };
        assert!(answer.ends_with(client), "the client's address is kept: {answer}");

        machine.ip(&format!("link set node{node} down"));
        let other = if pod == "a" { "b" } else { "a" };
        let moved = || who(machine, ip).filter(|pod| pod == other);
        eventually("another node has it", MOVED, moved);
        // Now both have it, until they hear one another again.
        machine.ip(&format!("link set node{node} up"));
        let neighbour = || machine.ip(&format!("neighbour show {ip}"));
        let holders = || -> usize {
            machine.ip(&format!("neighbour flush to {ip}"));
            (0..5).filter_map(|_| who(machine, ip)).collect::<BTreeSet<_>>().len()
        };
        eventually("one has it", TIMEOUT, || (holders() == 1).then_some(()));
        // And this one says so.
        let address = ip.parse().unwrap();
        let says = || announcers.each_ref().map(|one| one.holds.borrow().contains(&address));
        eventually("it says so", TIMEOUT, || {
            let pod = who(machine, ip)?;
            let expected = [0, 1].map(|node| node == node_of(&pod));
            (says() == expected).then_some(())
        });
        assert!(!neighbour().contains("FAILED"), "{}", neighbour());
    }
    // A node that ends in order leaves its addresses to the other one.
    let [first, second] = announcers;
    first.stop.cancel();
    first.ended.blocking_recv().unwrap();
    for ip in ADDRESSES {
        eventually("the other node has it", TIMEOUT, || who(machine, ip).filter(|pod| pod == "b"));
    }
    second.wanted.send_replace(Wanted::default());
    eventually("nobody has it", TIMEOUT, || {
        machine.ip(&format!("neighbour flush to {}", ADDRESSES[0]));
        who(machine, ADDRESSES[0]).is_none().then_some(())
    });
    second.stop.cancel();
    second.ended.blocking_recv().unwrap();
}

#[test]
fn another_machine_with_an_announced_address_is_reported() {
    let cluster = cluster();
    let machine = &cluster.machine;
    let announcer = Announcer::start(&cluster.nodes[0].netns, "node-0");
    let ip = ADDRESSES[0];
    eventually("the address is found", TIMEOUT, || who(machine, ip));
    let other = Netns::new();
    other.ip(&format!("link add up0 type veth peer name other netns {}", machine.tid()));
    machine.ip("link set other master br0 up");
    other.ip(&format!("address add {ip}/24 dev up0"));
    other.ip("link set up0 up");
    // It asks for the machine, and says where it is by that.
    let message = eventually("the conflict is reported", TIMEOUT, || {
        assert_eq!(who(&other, MACHINE), None, "nothing is served there");
        let mut events = announcer.events.try_iter();
        events.find(|(reason, _)| *reason == "AddressConflict").map(|(_, message)| message)
    });
    assert!(message.starts_with(&format!("{ip} is also used by the machine with ")), "{message}");
    other.ip("link set up0 down");
    eventually("the address is found again", TIMEOUT, || who(machine, ip));
    announcer.stop.cancel();
    announcer.ended.blocking_recv().unwrap();
}
