//! Ethernet frames: ARP, and the claims that nodes send to one another.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub type Mac = [u8; 6];

pub const BROADCAST: Mac = [0xff; 6];
pub const ARP: u16 = 0x0806;
/// IEEE 802's number for local experiments. Routers do not forward it, so claims come from the link.
pub const CLAIMS: u16 = 0x88b5;

const HEADER: usize = 14;
/// Ethernet (1) and IPv4 (0x0800), with addresses of 6 and 4 bytes.
const ARP_KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
/// Marks the claims of this version.
const MAGIC: &[u8; 8] = b"skifflb2";
/// The shortest payload of a frame; shorter ones are filled with zeros.
const PAYLOAD_MIN: usize = 46;
/// Claims in a frame of at most 1,280 bytes, which every link that carries IPv6 can transmit.
const CLAIMS_MAX: usize = 56;

/// An ARP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    pub operation: Operation,
    pub sender_mac: Mac,
    pub sender: Ipv4Addr,
    pub target_mac: Mac,
    pub target: Ipv4Addr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Request = 1,
    Reply = 2,
}

/// What a node says about an address that it can announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub address: IpAddr,
    pub standing: Standing,
    /// Which holding of the address this is: every new one gets a higher number. A candidate says
    /// the highest that it knows of.
    pub holding: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It no longer can.
    Withdrawn = 0,
    Candidate = 1,
    /// It does.
    Holder = 2,
}

fn frame(from: Mac, to: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&to[..], &from[..], &kind.to_be_bytes()[..], payload].concat();
    frame.resize(frame.len().max(HEADER + PAYLOAD_MIN), 0);
    frame
}

/// The sender, and the payload of a frame of this kind.
fn payload(frame: &[u8], kind: u16) -> Option<(Mac, &[u8])> {
    let (header, payload) = frame.split_at_checked(HEADER)?;
    let from = header[6..12].try_into().ok()?;
    (header[12..] == kind.to_be_bytes()).then_some((from, payload))
}

impl Arp {
    pub fn encode(&self, to: Mac) -> Vec<u8> {
        let operation = [0, self.operation as u8];
        let (sender, target) = (self.sender.octets(), self.target.octets());
        let parts: [&[u8]; 6] =
            [&ARP_KIND, &operation, &self.sender_mac, &sender, &self.target_mac, &target];
        frame(self.sender_mac, to, ARP, &parts.concat())
    }

    pub fn decode(frame: &[u8]) -> Option<Self> {
        let (_, payload) = payload(frame, ARP)?;
        let mac = |at: usize| payload.get(at..at + 6)?.try_into().ok();
        let ip = |at: usize| {
            let octets: [u8; 4] = payload.get(at..at + 4)?.try_into().ok()?;
            Some(Ipv4Addr::from(octets))
        };
        let operation = match payload.get(..8)?.strip_prefix(&ARP_KIND[..])? {
            [0, 1] => Operation::Request,
            [0, 2] => Operation::Reply,
            _ => return None,
        };
        Some(Self {
            operation,
            sender_mac: mac(8)?,
            sender: ip(14)?,
            target_mac: mac(18)?,
            target: ip(24)?,
        })
    }
}

/// The frames with a node's claims.
pub fn encode_claims(from: Mac, claims: &[Claim]) -> Vec<Vec<u8>> {
    let encode = |claims: &[Claim]| {
        let mut payload = MAGIC.to_vec();
        payload.push(u8::try_from(claims.len()).expect("a chunk has few claims"));
        for claim in claims {
            payload.push(claim.standing as u8);
            payload.extend(claim.holding.to_be_bytes());
            match claim.address {
                IpAddr::V4(ip) => payload.extend([&[4][..], &ip.octets()].concat()),
                IpAddr::V6(ip) => payload.extend([&[6][..], &ip.octets()].concat()),
            }
        }
        frame(from, BROADCAST, CLAIMS, &payload)
    };
    claims.chunks(CLAIMS_MAX).map(encode).collect()
}

/// The sender and its claims; `None` if the frame is not one of ours, or damaged.
pub fn decode_claims(frame: &[u8]) -> Option<(Mac, Vec<Claim>)> {
    let (from, payload) = payload(frame, CLAIMS)?;
    let (count, mut rest) = payload.strip_prefix(MAGIC)?.split_first()?;
    let mut claims = Vec::new();
    for _ in 0..*count {
        let ([standing, holding @ .., family], after) = rest.split_first_chunk::<6>()?;
        let holding = u32::from_be_bytes(*holding);
        let standing = match standing {
            0 => Standing::Withdrawn,
            1 => Standing::Candidate,
            2 => Standing::Holder,
            _ => return None,
        };
        let (address, after) = match family {
            4 => {
                let (octets, after) = after.split_first_chunk::<4>()?;
                (Ipv4Addr::from(*octets).into(), after)
            }
            6 => {
                let (octets, after) = after.split_first_chunk::<16>()?;
                (Ipv6Addr::from(*octets).into(), after)
            }
            _ => return None,
        };
        claims.push(Claim { address, standing, holding });
        rest = after;
    }
    Some((from, claims))
}

/// A MAC address as text.
pub fn text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWN: Mac = [2, 0, 0, 0, 0, 1];

    #[test]
    fn an_arp_message_as_on_the_wire() {
        let reply = Arp {
            operation: Operation::Reply,
            sender_mac: OWN,
            sender: "172.30.0.192".parse().unwrap(),
            target_mac: BROADCAST,
            target: "172.30.0.1".parse().unwrap(),
        };
        let bytes = reply.encode(BROADCAST);
        let expected = "ffffffffffff020000000001080600010800060400020200000000\
                        01ac1e00c0ffffffffffffac1e0001";
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, format!("{expected}{}", "00".repeat(18)));
        assert_eq!(Arp::decode(&bytes), Some(reply));
        assert_eq!(Arp::decode(&bytes[..40]), None);
    }

    proptest! {
        #[test]
        fn claims_arrive_as_sent(
            sent in prop::collection::vec((any::<IpAddr>(), 0u8..3, any::<u32>()), 0..150)
        ) {
            let standing = |number| match number {
                0 => Standing::Withdrawn,
                1 => Standing::Candidate,
                _ => Standing::Holder,
            };
            let claim = |(address, number, holding)| {
                Claim { address, standing: standing(number), holding }
            };
            let sent: Vec<Claim> = sent.into_iter().map(claim).collect();
            let frames = encode_claims(OWN, &sent);
            prop_assert!(frames.iter().all(|frame| (60..=1280).contains(&frame.len())));
            let decode = |frame: &Vec<u8>| decode_claims(frame).unwrap().1;
            let received: Vec<Claim> = frames.iter().flat_map(decode).collect();
            prop_assert_eq!(received, sent);
        }

        #[test]
        fn any_bytes_can_be_decoded(mut bytes in prop::collection::vec(any::<u8>(), 0..200), claims: bool) {
            if bytes.len() > 22 {
                bytes[12..14].copy_from_slice(&if claims { CLAIMS } else { ARP }.to_be_bytes());
                bytes[14..22].copy_from_slice(if claims { MAGIC } else { &[0, 1, 8, 0, 6, 4, 0, 1] });
            }
            decode_claims(&bytes);
            Arp::decode(&bytes);
        }
    }
}
