//! Removes conntrack entries that keep UDP flows on stale destinations.
//!
//! TCP connections end when their endpoint goes away, but a UDP client that keeps its port would be
//! sent to a vanished endpoint, or past a Service that has gained endpoints, for as long as it
//! keeps sending. Stale entries are found by inspecting each entry, not by recording removals, so
//! that the next run makes up for a missed one.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::nft::{Attributes, Family, Message, NftError, Socket};
use crate::plan::{Changes, Desired, ElementId};
use crate::table::{Data, Endpoint, Frontend, Key, Protocol, Target};

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ZONE: u16 = 18;

/// One direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tuple {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    /// Zero for protocols without ports.
    pub source_port: u16,
    pub destination_port: u16,
}

/// A tracked flow.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub original: Tuple,
    pub reply: Tuple,
    /// The original direction as encoded by the kernel, which identifies the flow.
    bytes: Vec<u8>,
    zone: Option<Vec<u8>>,
}

/// The valid endpoints of UDP flows.
#[derive(Debug, Default)]
pub struct ValidFlows {
    frontends: HashMap<Frontend, HashSet<Endpoint>>,
    node_ports: HashMap<u16, HashSet<Endpoint>>,
}

impl ValidFlows {
    /// All UDP frontends of the family with their valid endpoints. Frontends that `changes` remove
    /// are included, without endpoints.
    pub fn of(family: Family, desired: &Desired, changes: &Changes) -> Self {
        let mut valid = Self::default();
        let gone = changes.iter().filter(|(_, change)| change.after.is_none());
        let gone = gone.map(|(id, _)| (*id, None));
        let present = desired.all().map(|(id, data)| (id, Some(data)));
        let mine = |(id, _): &(ElementId, Option<Data>)| id.family == family;
        for (id, data) in present.chain(gone).filter(mine) {
            let Key::Target(target) = id.key else {
                continue;
            };
            let to = match data {
                Some(Data::Endpoint(endpoint)) => vec![endpoint],
                Some(_) => desired.endpoints(family, target).collect(),
                None => Vec::new(),
            };
            let known = match target {
                Target::Frontend(frontend) if frontend.protocol != Protocol::Udp => continue,
                Target::Frontend(frontend) => valid.frontends.entry(frontend).or_default(),
                Target::NodePort(Protocol::Udp, port) => valid.node_ports.entry(port).or_default(),
                Target::NodePort(..) => continue,
            };
            known.extend(to);
        }
        valid
    }

    fn is_stale(&self, flow: &Flow) -> bool {
        let frontend = Frontend {
            ip: flow.original.destination,
            protocol: Protocol::Udp,
            port: flow.original.destination_port,
        };
        let endpoint = Endpoint { ip: flow.reply.source, port: flow.reply.source_port };
        if let Some(endpoints) = self.frontends.get(&frontend) {
            return !endpoints.contains(&endpoint);
        }
        // A node port exists only on this node's own addresses: a flow that was not translated is
        // not ours.
        let translated = endpoint.ip != frontend.ip || endpoint.port != frontend.port;
        match self.node_ports.get(&frontend.port) {
            Some(endpoints) => translated && !endpoints.contains(&endpoint),
            None => false,
        }
    }
}

/// Whether a change can leave stale UDP flows behind: an endpoint was removed, or a UDP frontend
/// was added or removed.
pub fn may_leave_stale_flows(changes: &Changes) -> bool {
    changes.iter().any(|(id, change)| match id.key {
        Key::Slot(target, _) => change.before.is_some() && is_udp(target),
        Key::Target(target) => is_udp(target),
        _ => false,
    })
}

fn is_udp(target: Target) -> bool {
    match target {
        Target::Frontend(frontend) => frontend.protocol == Protocol::Udp,
        Target::NodePort(protocol, _) => protocol == Protocol::Udp,
    }
}

/// Deletes the stale UDP flows of the family; returns their number.
pub fn clean(socket: &mut Socket, family: Family, valid: &ValidFlows) -> Result<usize, NftError> {
    if valid.frontends.is_empty() && valid.node_ports.is_empty() {
        return Ok(0);
    }
    let flows = list(socket, family, |flow| {
        flow.original.protocol == Protocol::Udp as u8 && valid.is_stale(flow)
    })?;
    for flow in &flows {
        delete(socket, family, flow)?;
    }
    Ok(flows.len())
}

/// All wanted flows of the family.
pub(crate) fn list(
    socket: &mut Socket,
    family: Family,
    wanted: impl Fn(&Flow) -> bool,
) -> Result<Vec<Flow>, NftError> {
    let collect = |found: &mut Vec<Flow>, attributes: Attributes<'_>| {
        found.extend(flow(&attributes).filter(&wanted));
    };
    socket.dump(GET, family.number(), |_| {}, collect)
}

/// Deletes a flow. It is not an error if it has expired in the meantime.
pub(crate) fn delete(socket: &mut Socket, family: Family, flow: &Flow) -> Result<(), NftError> {
    let named = |message: &mut Message| {
        message.nest(TUPLE_ORIGINAL, |message| message.raw(&flow.bytes));
        if let Some(zone) = &flow.zone {
            message.attr(ZONE, zone);
        }
    };
    match socket.request(DELETE, family.number(), named) {
        Err(NftError::Refused { source: nix::errno::Errno::ENOENT, .. }) => Ok(()),
        result => result,
    }
}

fn flow(attributes: &Attributes<'_>) -> Option<Flow> {
    Some(Flow {
        original: tuple(&attributes.nested(TUPLE_ORIGINAL))?,
        reply: tuple(&attributes.nested(TUPLE_REPLY))?,
        bytes: attributes.get(TUPLE_ORIGINAL)?.to_vec(),
        zone: attributes.get(ZONE).map(<[u8]>::to_vec),
    })
}

fn tuple(attributes: &Attributes<'_>) -> Option<Tuple> {
    let (addresses, protocol) = (attributes.nested(1), attributes.nested(2));
    let v4 = |kind| Some(Ipv4Addr::from(<[u8; 4]>::try_from(addresses.get(kind)?).ok()?).into());
    let v6 = |kind| Some(Ipv6Addr::from(<[u8; 16]>::try_from(addresses.get(kind)?).ok()?).into());
    let port = |kind| match protocol.get(kind) {
        Some(port) => Some(u16::from_be_bytes(port.try_into().ok()?)),
        None => Some(0),
    };
    Some(Tuple {
        source: v4(1).or_else(|| v6(3))?,
        destination: v4(2).or_else(|| v6(4))?,
        protocol: *protocol.get(1)?.first()?,
        source_port: port(2)?,
        destination_port: port(3)?,
    })
}
