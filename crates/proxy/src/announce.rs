//! Announces the addresses of load balancers on the links of this node, so that machines there send
//! their packets to it (`docs/adr/0026-addresses-are-announced-by-heartbeat.md`).
//!
//! The addresses are on no interface: questions for their MAC address (ARP, neighbour discovery)
//! are answered by this process, so an announcement ends with it and leaves nothing behind. Packets
//! that arrive are translated by the tables. Which node announces an address is decided by an
//! [`election`] among the nodes of a link, without the apiserver.
//!
//! It runs on a thread of its own: the main loop may be busy for longer than others wait for this
//! node's claims.

mod candidates;
mod election;
mod frame;
mod kubelet;
mod link;
mod neighbour;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

pub use self::candidates::{Candidates, Wanted};
use self::election::{Decision, Election, INTERVAL};
use self::frame::{Arp, BROADCAST, Claim, Mac, Operation, encode_claims, text};
use self::link::{Interface, Link, Received, interfaces};

/// How long an address that was taken, or kept, is announced unasked, in case a frame is lost.
const ANNOUNCE_FOR: Duration = Duration::from_secs(2);
/// The time between defences of an address that another machine uses (RFC 5227).
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// The delay before a link whose sockets failed is opened again.
const REOPEN: Duration = Duration::from_millis(500);

/// The settings of the announcer.
#[derive(Clone, Debug)]
pub struct Settings {
    pub node_name: String,
    /// Where the kubelet reports its health; `None` if it does not matter.
    pub kubelet: Option<SocketAddr>,
    /// Where to say which addresses this node announces.
    pub holds: watch::Sender<BTreeSet<IpAddr>>,
}

/// Records an event: about what, its type, reason and message.
pub type Record = Box<dyn Fn(ObjectReference, &'static str, &'static str, String) + Send>;

/// A link with what is announced on it.
struct Announced {
    link: Link,
    election: Election,
    /// Until when held addresses are announced unasked.
    unasked: BTreeMap<IpAddr, Instant>,
}

struct Announcer {
    node_name: String,
    record: Record,
    holds: watch::Sender<BTreeSet<IpAddr>>,
    wanted: Wanted,
    kubelet_runs: bool,
    links: Vec<Announced>,
    reopen: Option<Instant>,
    defended: BTreeMap<IpAddr, Instant>,
}

/// Starts announcing what `wanted` says, until `shutdown`. The receiver gets a value, or an error,
/// when it has ended.
///
/// # Errors
/// If the thread cannot be started.
pub fn start(
    settings: Settings,
    wanted: watch::Receiver<Wanted>,
    record: Record,
    shutdown: CancellationToken,
) -> io::Result<oneshot::Receiver<()>> {
    let (ended, has_ended) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let body = move || {
        runtime.block_on(run(settings, wanted, record, shutdown));
        if ended.send(()).is_err() {
            tracing::debug!("nobody waits for the announcer");
        }
    };
    std::thread::Builder::new().name("announcer".to_owned()).spawn(body)?;
    Ok(has_ended)
}

async fn run(
    settings: Settings,
    mut wanted: watch::Receiver<Wanted>,
    record: Record,
    shutdown: CancellationToken,
) {
    let (sender, mut kubelet) = watch::channel(settings.kubelet.is_none());
    // Keeps the channel open if nobody watches the kubelet.
    let _sender = sender.clone();
    if let Some(address) = settings.kubelet {
        tokio::spawn(kubelet::watch(address, sender));
    }
    let mut announcer = Announcer {
        node_name: settings.node_name,
        record,
        holds: settings.holds,
        wanted: Wanted::default(),
        kubelet_runs: *kubelet.borrow_and_update(),
        links: Vec::new(),
        reopen: None,
        defended: BTreeMap::new(),
    };
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let reopen = announcer.reopen;
        let active = !announcer.links.is_empty();
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = wanted.changed() => {
                if changed.is_err() {
                    break;
                }
                announcer.update(wanted.borrow_and_update().clone());
            }
            Ok(()) = kubelet.changed() => {
                announcer.kubelet_runs = *kubelet.borrow_and_update();
                announcer.update(announcer.wanted.clone());
            }
            (index, received) = receive(&announcer.links), if active => {
                announcer.received(index, received);
            }
            _ = interval.tick(), if active => announcer.tick(),
            () = at(reopen) => announcer.update(announcer.wanted.clone()),
        }
        announcer.publish();
    }
    announcer.wanted.addresses.clear();
    announcer.update(announcer.wanted.clone());
    announcer.publish();
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// The next frame of any link, and the link's position.
async fn receive(links: &[Announced]) -> (usize, io::Result<Received>) {
    let each = links.iter().map(|announced| Box::pin(announced.link.receive()));
    let (received, index, _) = futures::future::select_all(each).await;
    (index, received)
}

impl Announcer {
    /// Takes over what is to be announced, and what the interfaces are.
    fn update(&mut self, wanted: Wanted) {
        self.wanted = wanted;
        self.reopen = None;
        let none = BTreeMap::new();
        let addresses = if self.kubelet_runs { &self.wanted.addresses } else { &none };
        let found = match interfaces() {
            Ok(found) if !addresses.is_empty() => found,
            Ok(_) => Vec::new(),
            Err(error) => {
                tracing::error!(%error, "cannot list the interfaces");
                self.reopen = Some(clock::instant() + REOPEN);
                return;
            }
        };
        let on = |interface: &Interface| -> BTreeSet<IpAddr> {
            addresses.keys().copied().filter(|address| interface.has(*address)).collect()
        };
        let used: Vec<(Interface, BTreeSet<IpAddr>)> = found
            .into_iter()
            .map(|interface| (on(&interface), interface))
            .filter(|(addresses, _)| !addresses.is_empty())
            .map(|(addresses, interface)| (interface, addresses))
            .collect();
        let now = clock::instant();
        let (known, mut ended): (Vec<_>, Vec<_>) = std::mem::take(&mut self.links)
            .into_iter()
            .partition(|known| used.iter().any(|(used, _)| used.is(&known.link.interface)));
        for announced in &mut ended {
            announced.set_candidate(&BTreeSet::new(), now);
        }
        self.links = known;
        for (interface, addresses) in used {
            let known = self.links.iter_mut().find(|known| known.link.interface.is(&interface));
            match known {
                Some(known) => {
                    known.link.interface = interface;
                    known.set_candidate(&addresses, now);
                }
                None => self.open(interface, &addresses, now),
            }
        }
        self.decide(now);
    }

    fn open(&mut self, interface: Interface, addresses: &BTreeSet<IpAddr>, now: Instant) {
        let (name, mac) = (interface.name.clone(), interface.mac);
        match Link::open(interface) {
            Ok(link) => {
                let election = Election::new(mac);
                let mut announced = Announced { link, election, unasked: BTreeMap::new() };
                announced.set_candidate(addresses, now);
                self.links.push(announced);
            }
            Err(error) => {
                tracing::error!(interface = name, %error, "cannot announce addresses");
                self.reopen = Some(now + REOPEN);
            }
        }
    }

    /// Says which addresses this node announces.
    fn publish(&self) {
        let held = self.links.iter().flat_map(|announced| announced.election.held()).collect();
        self.holds.send_if_modified(|known| {
            let changed = *known != held;
            *known = held;
            changed
        });
    }

    fn tick(&mut self) {
        self.decide(clock::instant());
        let now = clock::instant();
        for announced in &mut self.links {
            announced.send_claims(&announced.election.claims(now));
            announced.unasked.retain(|_, until| *until > now);
            announced.announce_unasked();
        }
        self.defended.retain(|_, at| now.duration_since(*at) < DEFEND_INTERVAL);
    }

    fn received(&mut self, index: usize, received: io::Result<Received>) {
        let now = clock::instant();
        let announced = &mut self.links[index];
        match received {
            Ok(Received::Claims(from, claims)) => {
                if announced.election.heard(from, &claims, now) {
                    announced.send_claims(&announced.election.claims(now));
                }
                self.decide(now);
            }
            Ok(Received::Arp(arp)) => {
                let foreign = announced.answer(&arp);
                if let Some(mac) = foreign {
                    self.conflict(index, arp.sender.into(), mac, now);
                }
            }
            Ok(Received::Solicitation(asked)) => {
                if announced.election.holds(asked.target.into()) {
                    announced.send(&asked.answer(announced.link.interface.mac));
                }
            }
            Err(error) => {
                // The interface is gone or down; if it is there again, so are its addresses.
                let interface = &announced.link.interface.name;
                tracing::warn!(interface, %error, "cannot receive; reopening");
                self.links.remove(index);
                self.reopen = Some(now + REOPEN);
            }
        }
    }

    fn decide(&mut self, now: Instant) {
        for index in 0..self.links.len() {
            let announced = &mut self.links[index];
            let decisions = announced.election.decide(now);
            for address in announced.election.take_contested() {
                announced.unasked.insert(address, now + ANNOUNCE_FOR);
            }
            if decisions.is_empty() {
                continue;
            }
            announced.send_claims(&announced.election.claims(now));
            for decision in decisions {
                let interface = &announced.link.interface.name;
                match decision {
                    Decision::Take(address) => {
                        tracing::info!(%address, interface, "announcing an address");
                        announced.unasked.insert(address, now + ANNOUNCE_FOR);
                        let services = self.wanted.addresses.get(&address);
                        for service in services.into_iter().flatten() {
                            let message =
                                format!("announcing {address} from node {:?}", self.node_name);
                            let about = service.clone();
                            (self.record)(about, "Normal", "nodeAssigned", message);
                        }
                    }
                    Decision::Yield(address, to) => {
                        let to = text(to);
                        tracing::info!(%address, interface, to, "another node announces an address");
                        announced.unasked.remove(&address);
                    }
                }
            }
            announced.announce_unasked();
        }
    }

    /// A machine outside this cluster uses an address that this node announces.
    fn conflict(&mut self, index: usize, address: IpAddr, mac: Mac, now: Instant) {
        if self.defended.contains_key(&address) {
            return;
        }
        self.defended.insert(address, now);
        let announced = &mut self.links[index];
        announced.unasked.insert(address, now + INTERVAL);
        announced.announce_unasked();
        let mac = text(mac);
        tracing::warn!(%address, mac, "another machine uses an announced address");
        for service in self.wanted.addresses.get(&address).into_iter().flatten() {
            let message = format!("{address} is also used by the machine with MAC address {mac}");
            (self.record)(service.clone(), "Warning", "AddressConflict", message);
        }
    }
}

impl Announced {
    fn set_candidate(&mut self, addresses: &BTreeSet<IpAddr>, now: Instant) {
        let (withdrawn, more) = self.election.set_candidate(addresses, now);
        self.unasked.retain(|address, _| addresses.contains(address));
        self.send_claims(&withdrawn);
        if more {
            self.send_claims(&self.election.claims(now));
        }
        let v6: Vec<Ipv6Addr> = addresses
            .iter()
            .filter_map(|address| match address {
                IpAddr::V6(ip) => Some(*ip),
                IpAddr::V4(_) => None,
            })
            .collect();
        if let Err(error) = self.link.set_neighbours(&v6) {
            let interface = &self.link.interface.name;
            tracing::error!(interface, %error, "cannot answer for IPv6 addresses");
        }
    }

    /// Answers a question for an address that this node holds. Returns the MAC address of another
    /// machine that claims it for itself.
    fn answer(&self, arp: &Arp) -> Option<Mac> {
        let own = self.link.interface.mac;
        let sender = IpAddr::V4(arp.sender);
        if self.election.holds(sender) {
            let known = arp.sender_mac == own || self.election.is_peer(sender, arp.sender_mac);
            return (!known).then_some(arp.sender_mac);
        }
        if arp.operation == Operation::Request && self.election.holds(arp.target.into()) {
            let reply = Arp {
                operation: Operation::Reply,
                sender_mac: own,
                sender: arp.target,
                target_mac: arp.sender_mac,
                target: arp.sender,
            };
            self.send(&reply.encode(arp.sender_mac));
        }
        None
    }

    /// Tells the link about addresses that were taken.
    fn announce_unasked(&self) {
        let own = self.link.interface.mac;
        for address in self.unasked.keys() {
            match address {
                IpAddr::V4(ip) => {
                    // Some machines only learn from one kind.
                    for operation in [Operation::Request, Operation::Reply] {
                        let (sender, target) = (*ip, *ip);
                        let (sender_mac, target_mac) = (own, BROADCAST);
                        let arp = Arp { operation, sender_mac, sender, target_mac, target };
                        self.send(&arp.encode(BROADCAST));
                    }
                }
                IpAddr::V6(ip) => self.send(&neighbour::advertisement(own, *ip)),
            }
        }
    }

    fn send_claims(&self, claims: &[Claim]) {
        for frame in encode_claims(self.link.interface.mac, claims) {
            self.send(&frame);
        }
    }

    /// A frame that is lost is sent again, or asked for again.
    fn send(&self, frame: &[u8]) {
        if let Err(error) = self.link.send(frame) {
            let interface = &self.link.interface.name;
            tracing::debug!(interface, %error, "cannot send a frame");
        }
    }
}
