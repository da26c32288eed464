//! IPv6 neighbour discovery (RFC 4861): the resolution of addresses that this node announces.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::OwnedFd;

use socket2::{Domain, SockFilter, SockRef, Socket, Type};
use tokio::io::unix::AsyncFd;

use super::frame::Mac;

pub const IPV6: u16 = 0x86dd;

const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Neighbours are on the link: a packet with a lower limit was routed, hence forged.
const HOP_LIMIT: u8 = 255;
const ETHERNET_HEADER: usize = 14;
const IPV6_HEADER: usize = 40;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Flags of an advertisement: it answers a solicitation; it replaces what was known.
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// A question for the MAC address of `target`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Solicitation {
    pub from_mac: Mac,
    pub from: Ipv6Addr,
    pub target: Ipv6Addr,
}

/// A socket that receives solicitations.
pub struct Listener {
    socket: AsyncFd<OwnedFd>,
    /// Holds the memberships in multicast groups.
    groups: Socket,
    joined: BTreeSet<Ipv6Addr>,
}

impl Listener {
    /// `socket` is a packet socket for IPv6 on an interface.
    ///
    /// # Errors
    /// If the kernel refuses the filter or another socket.
    pub fn new(socket: AsyncFd<OwnedFd>) -> io::Result<Self> {
        SockRef::from(socket.get_ref()).attach_filter(&filter())?;
        let groups = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
        Ok(Self { socket, groups, joined: BTreeSet::new() })
    }

    pub fn socket(&self) -> &AsyncFd<OwnedFd> {
        &self.socket
    }

    /// Joins the groups in which these addresses are asked for, and leaves others.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn join(&mut self, addresses: &[Ipv6Addr], interface: u32) -> io::Result<()> {
        let wanted: BTreeSet<Ipv6Addr> = addresses.iter().map(|ip| group(*ip)).collect();
        for gone in self.joined.difference(&wanted) {
            self.groups.leave_multicast_v6(gone, interface)?;
        }
        for new in wanted.difference(&self.joined) {
            self.groups.join_multicast_v6(new, interface)?;
        }
        self.joined = wanted;
        Ok(())
    }
}

/// Accepts solicitations only, since the socket would receive all IPv6 traffic.
fn filter() -> [SockFilter; 6] {
    // Classic BPF: load a byte at an offset; jump if equal; return.
    const LOAD: u16 = 0x30;
    const EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let at = |offset: usize| {
        let offset = u32::try_from(offset).expect("a small literal");
        SockFilter::new(LOAD, 0, 0, offset)
    };
    let next_header = ETHERNET_HEADER + 6;
    let kind = ETHERNET_HEADER + IPV6_HEADER;
    [
        at(next_header),
        SockFilter::new(EQUAL, 0, 3, ICMPV6.into()),
        at(kind),
        SockFilter::new(EQUAL, 0, 1, SOLICITATION.into()),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// The group in which an address is asked for.
fn group(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = ip.octets();
    let high = 0xff00 | u16::from(a);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, high, u16::from_be_bytes([b, c]))
}

impl Solicitation {
    pub fn decode(frame: &[u8]) -> Option<Self> {
        let from_mac = frame.get(6..12)?.try_into().ok()?;
        let packet = frame.get(ETHERNET_HEADER..)?;
        let ip = |at: usize| {
            let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
            Some(Ipv6Addr::from(octets))
        };
        let valid = packet.get(6) == Some(&ICMPV6)
            && packet.get(7) == Some(&HOP_LIMIT)
            && packet.get(IPV6_HEADER..IPV6_HEADER + 2) == Some(&[SOLICITATION, 0]);
        valid.then_some(())?;
        Some(Self { from_mac, from: ip(8)?, target: ip(IPV6_HEADER + 8)? })
    }

    /// The frame that answers it.
    pub fn answer(&self, own: Mac) -> Vec<u8> {
        // An address that is being checked for duplicates has no source yet.
        if self.from.is_unspecified() {
            return advertisement(own, self.target);
        }
        let flags = SOLICITED | OVERRIDE;
        advertise(own, self.target, self.from_mac, self.from, flags)
    }
}

/// The frame that tells all nodes of the link where the address is.
pub fn advertisement(own: Mac, address: Ipv6Addr) -> Vec<u8> {
    advertise(own, address, [0x33, 0x33, 0, 0, 0, 1], ALL_NODES, OVERRIDE)
}

fn advertise(own: Mac, address: Ipv6Addr, to_mac: Mac, to: Ipv6Addr, flags: u8) -> Vec<u8> {
    // Type, code, checksum, flags; then the address, and the option with the MAC address.
    let mut message = vec![ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    message.extend(address.octets());
    message.extend([2, 1]);
    message.extend(own);
    let sum = checksum(address, to, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let length = u16::try_from(message.len()).expect("a short message").to_be_bytes();
    let header = [0x60, 0, 0, 0, length[0], length[1], ICMPV6, HOP_LIMIT];
    let (from, to) = (address.octets(), to.octets());
    [&to_mac[..], &own, &IPV6.to_be_bytes(), &header, &from, &to, &message].concat()
}

/// The Internet checksum of an ICMPv6 message.
fn checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).expect("a short message").to_be_bytes();
    let bytes = [&from.octets()[..], &to.octets(), &length, &[0, 0, 0, ICMPV6], message].concat();
    let words =
        bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let folded = (sum >> 16) + (sum & 0xffff);
    let folded = (folded >> 16) + (folded & 0xffff);
    !u16::try_from(folded).expect("the carry was added")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_solicitation_is_answered() {
        let own = [2, 0, 0, 0, 0, 1];
        let asker = [2, 0, 0, 0, 0, 9];
        let (from, target) = ("fd00::9".parse().unwrap(), "fd00::1:2:3".parse().unwrap());
        assert_eq!(group(target).to_string(), "ff02::1:ff02:3");
        let advertised = advertise(own, target, asker, from, SOLICITED);
        let ip = &advertised[ETHERNET_HEADER..];
        // With its checksum, the sum of a message is zero.
        assert_eq!(checksum(target, from, &ip[IPV6_HEADER..]), 0);
        let mut asked = advertised.clone();
        asked[ETHERNET_HEADER + IPV6_HEADER] = SOLICITATION;
        let decoded = Solicitation::decode(&asked).unwrap();
        assert_eq!(decoded, Solicitation { from_mac: own, from: target, target });
        assert_eq!(Solicitation::decode(&advertised), None);
        asked[ETHERNET_HEADER + 7] = 64;
        assert_eq!(Solicitation::decode(&asked), None, "it was routed");
        let question = Solicitation { from_mac: asker, from, target };
        let answer = question.answer(own);
        assert_eq!(answer[..6], asker);
        assert_eq!(answer[ETHERNET_HEADER + IPV6_HEADER + 4], SOLICITED | OVERRIDE);
    }
}
