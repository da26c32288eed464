//! Which Services have which addresses, and who may share one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::request::{Refusal, Request, Terms};
use crate::config::AddressSource;
use crate::machinery::cache::Key;

/// What a Service occupies ports of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    /// An address of the pool.
    Address(IpAddr),
    /// All nodes, under their own addresses.
    Nodes,
}

#[derive(Clone, Debug)]
struct Assignment {
    uid: String,
    terms: Terms,
    places: Vec<Place>,
}

/// The assigned addresses. Everything in it can be rebuilt from the Services.
#[derive(Debug)]
pub struct Allocations {
    ranges: Vec<IpNet>,
    /// Addresses of the ranges that nodes have.
    reserved: BTreeSet<IpAddr>,
    holders: HashMap<Place, BTreeSet<Key>>,
    assigned: BTreeMap<Key, Assignment>,
}

impl Allocations {
    /// Addresses come from `ranges`, which do not overlap.
    pub fn new(ranges: Vec<IpNet>) -> Self {
        Self {
            ranges,
            reserved: BTreeSet::new(),
            holders: HashMap::new(),
            assigned: BTreeMap::new(),
        }
    }

    /// Sets the nodes' own addresses, which no Service may have.
    pub fn reserve(&mut self, addresses: impl Iterator<Item = IpAddr>) {
        let ranges = &self.ranges;
        let pooled = addresses.filter(|ip| ranges.iter().any(|range| range.contains(ip)));
        self.reserved = pooled.collect();
    }

    /// Records addresses that a Service has been given earlier, unless it may no longer have them.
    pub fn adopt(&mut self, key: &Key, request: &Request, addresses: &[IpAddr]) {
        let places = match request.source {
            AddressSource::Pool => addresses.iter().map(|ip| Place::Address(*ip)).collect(),
            AddressSource::Nodes if addresses.is_empty() => Vec::new(),
            AddressSource::Nodes => vec![Place::Nodes],
        };
        self.occupy(key, request, places);
        if !self.is_valid(key, request) {
            self.release(key);
        }
    }

    /// The pool's addresses for a Service: those it has, if it may keep them, or others; none if
    /// the nodes' own are to be used.
    ///
    /// # Errors
    /// Why it gets none. It has none afterwards.
    pub fn allocate(&mut self, key: &Key, request: &Request) -> Result<Vec<IpAddr>, Refusal> {
        if !self.is_valid(key, request) {
            self.release(key);
            let places = self.choose(key, request)?;
            self.occupy(key, request, places);
        } else if let Some(assignment) = self.assigned.get_mut(key) {
            assignment.terms = request.terms.clone();
        }
        Ok(self.addresses(key))
    }

    /// Frees the addresses of a Service; returns whether it had any.
    pub fn release(&mut self, key: &Key) -> bool {
        let Some(assignment) = self.assigned.remove(key) else {
            return false;
        };
        for place in assignment.places {
            if let Some(holders) = self.holders.get_mut(&place) {
                holders.remove(key);
                if holders.is_empty() {
                    self.holders.remove(&place);
                }
            }
        }
        true
    }

    /// What a Service occupies, to compare before and after.
    pub fn occupied(&self, key: &Key) -> Option<(Vec<IpAddr>, Terms)> {
        let terms = self.assigned.get(key)?.terms.clone();
        Some((self.addresses(key), terms))
    }

    fn addresses(&self, key: &Key) -> Vec<IpAddr> {
        let places = self.assigned.get(key).map(|assignment| assignment.places.as_slice());
        let address = |place: &Place| match place {
            Place::Address(ip) => Some(*ip),
            Place::Nodes => None,
        };
        places.unwrap_or_default().iter().filter_map(address).collect()
    }

    fn occupy(&mut self, key: &Key, request: &Request, places: Vec<Place>) {
        self.release(key);
        for place in &places {
            self.holders.entry(*place).or_default().insert(key.clone());
        }
        let (uid, terms) = (request.uid.clone(), request.terms.clone());
        self.assigned.insert(key.clone(), Assignment { uid, terms, places });
    }

    /// Whether what the Service has is what it asks for, and does not collide with others.
    fn is_valid(&self, key: &Key, request: &Request) -> bool {
        let Some(assignment) = self.assigned.get(key).filter(|known| known.uid == request.uid)
        else {
            return false;
        };
        let free = assignment.places.iter().all(|place| self.usable(key, *place, request).is_ok());
        let addresses = self.addresses(key);
        let families_match = || {
            let has = |v4: bool| addresses.iter().any(|ip| ip.is_ipv4() == v4);
            let wanted = self.families(request);
            addresses.len() == wanted.len() && wanted.iter().all(|v4| has(*v4))
        };
        let as_requested = || match request.requested.as_slice() {
            [] => families_match(),
            requested => requested == addresses,
        };
        free && match request.source {
            AddressSource::Pool => !addresses.is_empty() && as_requested(),
            AddressSource::Nodes => assignment.places == [Place::Nodes],
        }
    }

    fn choose(&self, key: &Key, request: &Request) -> Result<Vec<Place>, Refusal> {
        if request.source == AddressSource::Nodes {
            self.usable(key, Place::Nodes, request)?;
            return Ok(vec![Place::Nodes]);
        }
        if !request.requested.is_empty() {
            let places = request.requested.iter().map(|ip| Place::Address(*ip));
            let usable = |place| self.usable(key, place, request).map(|()| place);
            return places.map(usable).collect();
        }
        let families = self.families(request);
        if families.is_empty() {
            return Err(Refusal::NoRange);
        }
        families.into_iter().map(|v4| self.free(key, v4, request).map(Place::Address)).collect()
    }

    /// The families (true for IPv4) that the Service wants and the pool has.
    fn families(&self, request: &Request) -> Vec<bool> {
        let has = |v4: &bool| self.ranges.iter().any(|range| range.addr().is_ipv4() == *v4);
        request.families_v4.iter().copied().filter(has).collect()
    }

    /// The address of those that it may share with, or else the lowest free one.
    fn free(&self, key: &Key, v4: bool, request: &Request) -> Result<IpAddr, Refusal> {
        let usable = |ip: &IpAddr| self.usable(key, Place::Address(*ip), request).is_ok();
        if request.terms.sharing.is_some() {
            let mut held: Vec<IpAddr> = self
                .holders
                .keys()
                .filter_map(|place| match place {
                    Place::Address(ip) if ip.is_ipv4() == v4 => Some(*ip),
                    _ => None,
                })
                .collect();
            held.sort_unstable();
            if let Some(ip) = held.into_iter().find(usable) {
                return Ok(ip);
            }
        }
        let ranges = self.ranges.iter().filter(|range| range.addr().is_ipv4() == v4);
        let free = |ip: &IpAddr| {
            !self.reserved.contains(ip) && !self.holders.contains_key(&Place::Address(*ip))
        };
        ranges.clone().flat_map(|range| hosts(*range)).find(free).ok_or_else(|| {
            Refusal::Exhausted(ranges.map(ToString::to_string).collect::<Vec<_>>().join(", "))
        })
    }

    /// Whether the Service can have the place beside those that have it.
    fn usable(&self, key: &Key, place: Place, request: &Request) -> Result<(), Refusal> {
        if let Place::Address(ip) = place
            && !self.ranges.iter().any(|range| is_host(*range, ip))
        {
            return Err(Refusal::NotInPool(ip));
        }
        if let Place::Address(ip) = place
            && self.reserved.contains(&ip)
        {
            return Err(Refusal::OfNode(ip));
        }
        let others = self.holders.get(&place).into_iter().flatten().filter(|other| *other != key);
        for other in others {
            let Some(theirs) = self.assigned.get(other).map(|assignment| &assignment.terms) else {
                continue;
            };
            match place {
                Place::Nodes => {
                    if let Some((protocol, port)) = request.terms.common_port(theirs) {
                        return Err(Refusal::PortInUse(protocol, port, other.clone()));
                    }
                }
                Place::Address(ip) if !request.terms.may_share(theirs) => {
                    return Err(Refusal::InUse(ip, other.clone()));
                }
                Place::Address(_) => {}
            }
        }
        Ok(())
    }
}

/// The addresses of a range, without its first and its last one: they name the network and all its
/// hosts if it is a subnet.
fn hosts(range: IpNet) -> impl Iterator<Item = IpAddr> {
    let bits = range.max_prefix_len() - range.prefix_len();
    let count = 1u128.checked_shl(u32::from(bits)).unwrap_or(u128::MAX);
    (0..count).map(move |at| nth(range, at)).filter(move |ip| is_host(range, *ip))
}

fn nth(range: IpNet, at: u128) -> IpAddr {
    match range.network() {
        IpAddr::V4(base) => {
            let at = u32::try_from(at).expect("a range has no more addresses than its family");
            Ipv4Addr::from(u32::from(base).wrapping_add(at)).into()
        }
        IpAddr::V6(base) => Ipv6Addr::from(u128::from(base).wrapping_add(at)).into(),
    }
}

fn is_host(range: IpNet, ip: IpAddr) -> bool {
    let small = range.max_prefix_len() - range.prefix_len() < 2;
    range.contains(&ip) && (small || (ip != range.network() && ip != range.broadcast()))
}
