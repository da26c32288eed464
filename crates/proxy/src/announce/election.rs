//! Decides which addresses this node announces. Pure: the time is passed in.
//!
//! Every candidate for an address says so on the link, several times a second, and whether it holds
//! the address. A candidate takes an address that nobody holds; the first in an order that differs
//! from address to address goes first, the others wait in case it does not. A holder keeps its
//! address as long as it is a candidate, so that an address moves only when it has to; one whose
//! process was restarted goes first.
//!
//! If a link was cut and is whole again, two may hold one. The one that has held it for longer keeps
//! it, which the numbers of the holdings tell without clocks. A node that heard nobody for a while
//! was the one that was cut off: the others on the link have found another holder meanwhile, so it
//! counts as if it had only just taken its addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::frame::{Claim, Mac, Standing};

/// How often claims are sent.
pub const INTERVAL: Duration = Duration::from_millis(200);
/// A candidate that was not heard for this long is gone.
pub const SILENCE: Duration = Duration::from_millis(900);
/// A node that heard no other one for this long may be cut off. It is so much shorter than
/// [`SILENCE`] that it knows so before others take its addresses.
const ALONE: Duration = Duration::from_millis(600);
/// The number of a holding that may have been interrupted. It loses to all others.
const DOUBTFUL: u32 = u32::MAX;
/// How long a new candidate listens for a holder before it takes an address.
const LISTEN: Duration = Duration::from_millis(500);
/// How long a candidate waits for each one that comes before it.
const TURN: Duration = Duration::from_millis(300);
/// How long one that held the address before, and is a candidate again, goes before all others: its
/// process was restarted, and a move would break connections.
const RETURN: Duration = Duration::from_millis(800);
/// Maximum number of other candidates whose turn is waited for.
const TURNS_MAX: u32 = 8;
/// Maximum number of other candidates that are remembered for an address.
const PEERS_MAX: usize = 1024;

/// What others have said about an address.
#[derive(Clone, Copy, Debug)]
struct Peer {
    heard: Instant,
    /// The number of its holding, if it holds the address.
    holds: Option<u32>,
}

/// An address that this node is a candidate for.
#[derive(Debug)]
struct Entry {
    since: Instant,
    /// The number of the holding, if this node holds it.
    held: Option<u32>,
    /// The highest number of a holding so far.
    known: u32,
    /// Since when nobody is known to hold it.
    vacant: Option<Instant>,
    peers: BTreeMap<Mac, Peer>,
    /// The other node that held it last.
    last_holder: Option<Mac>,
    /// Whether another one said that it holds it, too.
    contested: bool,
}

/// The state of one link.
#[derive(Debug)]
pub struct Election {
    own: Mac,
    /// When another node was heard last.
    heard: Option<Instant>,
    entries: BTreeMap<IpAddr, Entry>,
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Take(IpAddr),
    /// Another node, with this MAC address, holds it as well.
    Yield(IpAddr, Mac),
}

impl Election {
    pub fn new(own: Mac) -> Self {
        Self { own, heard: None, entries: BTreeMap::new() }
    }

    /// Sets the addresses that this node can announce. Returns what to tell the others about those
    /// that it no longer can, and whether there are new ones.
    pub fn set_candidate(
        &mut self,
        addresses: &BTreeSet<IpAddr>,
        now: Instant,
    ) -> (Vec<Claim>, bool) {
        let gone = self.entries.keys().filter(|address| !addresses.contains(address));
        let withdrawn = |address: &IpAddr| {
            let holding = self.entries[address].known;
            Claim { address: *address, standing: Standing::Withdrawn, holding }
        };
        let withdrawn: Vec<Claim> = gone.map(withdrawn).collect();
        self.entries.retain(|address, _| addresses.contains(address));
        let known = self.entries.len();
        for address in addresses {
            self.entries.entry(*address).or_insert_with(|| Entry {
                since: now,
                held: None,
                known: 0,
                vacant: None,
                peers: BTreeMap::new(),
                last_holder: None,
                contested: false,
            });
        }
        (withdrawn, self.entries.len() > known)
    }

    /// Records what another node says. Returns whether it should learn at once what this one says,
    /// because one of them is new or was cut off.
    pub fn heard(&mut self, from: Mac, claims: &[Claim], now: Instant) -> bool {
        let mut is_new = self.is_alone(now);
        if is_new {
            for held in self.entries.values_mut().filter_map(|entry| entry.held.as_mut()) {
                *held = DOUBTFUL;
            }
        }
        self.heard = Some(now);
        for claim in claims {
            let Some(entry) = self.entries.get_mut(&claim.address) else {
                continue;
            };
            entry.learn(claim.holding);
            if claim.standing == Standing::Withdrawn {
                entry.peers.remove(&from);
                continue;
            }
            let holds = (claim.standing == Standing::Holder).then_some(claim.holding);
            let peer = Peer { heard: now, holds };
            if holds.is_some() {
                entry.last_holder = Some(from);
                entry.contested = true;
            }
            if entry.peers.len() < PEERS_MAX || entry.peers.contains_key(&from) {
                is_new |= entry.peers.insert(from, peer).is_none();
            }
        }
        is_new
    }

    /// What is decided now.
    pub fn decide(&mut self, now: Instant) -> Vec<Decision> {
        let own = self.own;
        let decide = |(address, entry): (&IpAddr, &mut Entry)| entry.decide(own, *address, now);
        self.entries.iter_mut().filter_map(decide).collect()
    }

    /// The addresses that this node keeps although another one held them, too: machines on the
    /// link may have learned the other one's.
    pub fn take_contested(&mut self) -> Vec<IpAddr> {
        let contested = self.entries.iter_mut().filter_map(|(address, entry)| {
            let contested = std::mem::take(&mut entry.contested);
            (contested && entry.held.is_some()).then_some(*address)
        });
        contested.collect()
    }

    /// What this node says.
    pub fn claims(&self, now: Instant) -> Vec<Claim> {
        let is_alone = self.is_alone(now);
        let claim = |(address, entry): (&IpAddr, &Entry)| {
            let (standing, holding) = match entry.held {
                Some(_) if is_alone => (Standing::Holder, DOUBTFUL),
                Some(number) => (Standing::Holder, number),
                None => (Standing::Candidate, entry.known),
            };
            Claim { address: *address, standing, holding }
        };
        self.entries.iter().map(claim).collect()
    }

    pub fn holds(&self, address: IpAddr) -> bool {
        self.entries.get(&address).is_some_and(|entry| entry.held.is_some())
    }

    /// The addresses that this node holds.
    pub fn held(&self) -> impl Iterator<Item = IpAddr> {
        let held = self.entries.iter().filter(|(_, entry)| entry.held.is_some());
        held.map(|(address, _)| *address)
    }

    /// Whether nobody was heard for so long that this node may be cut off.
    fn is_alone(&self, now: Instant) -> bool {
        self.heard.is_none_or(|heard| now.duration_since(heard) >= ALONE)
    }

    /// Whether the MAC address is that of another candidate for the address.
    pub fn is_peer(&self, address: IpAddr, mac: Mac) -> bool {
        self.entries.get(&address).is_some_and(|entry| entry.peers.contains_key(&mac))
    }
}

impl Entry {
    /// Takes over the number of a holding that another node knows.
    fn learn(&mut self, holding: u32) {
        if holding != DOUBTFUL {
            self.known = self.known.max(holding);
        }
        if self.held == Some(DOUBTFUL) {
            self.held = Some(self.next());
        }
    }

    /// The number of a holding that begins now.
    fn next(&mut self) -> u32 {
        self.known = self.known.saturating_add(1).min(DOUBTFUL - 1);
        self.known
    }

    fn decide(&mut self, own: Mac, address: IpAddr, now: Instant) -> Option<Decision> {
        self.peers.retain(|_, peer| now.duration_since(peer.heard) < SILENCE);
        let holding = |(mac, peer): (&Mac, &Peer)| Some((peer.holds?, position(*mac, address)));
        let holder = self.peers.iter().filter_map(holding).min();
        match (self.held, holder) {
            (Some(number), Some(other)) if other < (number, position(own, address)) => {
                (self.held, self.vacant) = (None, None);
                let (_, (_, mac)) = other;
                Some(Decision::Yield(address, mac))
            }
            (Some(_), _) => None,
            (None, Some(_)) => {
                self.vacant = None;
                None
            }
            (None, None) => {
                let vacant = *self.vacant.get_or_insert(now);
                let own = position(own, address);
                let before = self.peers.keys().filter(|mac| position(**mac, address) < own).count();
                let turns = u32::try_from(before).unwrap_or(TURNS_MAX).min(TURNS_MAX);
                let returns = self.last_holder.is_some_and(|mac| self.peers.contains_key(&mac));
                let wait = TURN * turns + if returns { RETURN } else { Duration::ZERO };
                if now < vacant.max(self.since + LISTEN) + wait {
                    return None;
                }
                (self.held, self.vacant, self.last_holder) = (Some(self.next()), None, None);
                Some(Decision::Take(address))
            }
        }
    }
}

/// The place of a node among the candidates for an address: a hash, so that the addresses are
/// spread over the nodes.
fn position(mac: Mac, address: IpAddr) -> (u64, Mac) {
    let bytes = match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mixed = mac.iter().chain(&bytes).fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    // The last bytes differ least: spread them over all bits.
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (mixed ^ (mixed >> 33), mac)
}

#[cfg(test)]
mod tests;
