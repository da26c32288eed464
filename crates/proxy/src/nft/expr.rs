//! The expressions of rules, and their encoding.

use super::batch::{Verdict, write_verdict};
use super::{Family, Message};

/// One of the sixteen 32-bit registers through which the expressions of a rule pass values. A value
/// longer than 4 bytes extends into the following registers; a shorter one is padded with zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg(pub u8);

impl Reg {
    /// `NFT_REG32_00` is 8.
    fn number(self) -> u32 {
        debug_assert!(self.0 < 16, "there are sixteen registers");
        u32::from(self.0) + 8
    }
}

/// `NFT_REG_VERDICT`: a verdict stored there ends the rule.
const VERDICT: u32 = 0;

#[derive(Clone, Debug)]
pub enum Expr {
    /// The packet's source or destination address.
    SourceAddress(Family, Reg),
    DestinationAddress(Family, Reg),
    /// The transport protocol's number, one byte.
    Protocol(Reg),
    /// The destination port, two bytes.
    DestinationPort(Reg),
    /// The flags of a TCP packet, one byte.
    TcpFlags(Reg),
    /// The network protocol as on Ethernet, two bytes.
    NetworkProtocol(Reg),
    /// The VNI of a VXLAN packet (RFC 7348), three bytes.
    VxlanNetwork(Reg),
    /// The index of the packet's input or output interface, in host byte order.
    InputInterface(Reg),
    OutputInterface(Reg),
    /// The name of the packet's input or output interface, 16 bytes.
    InputInterfaceName(Reg),
    OutputInterfaceName(Reg),
    /// The index of the interface through which the source address is reached, in host byte order;
    /// zero if that is not the input interface.
    ReversePath(Reg),
    /// The type of the destination address (`RTN_LOCAL` etc.), in host byte order.
    DestinationType(Reg),
    /// `ct state` and `ct mark`, in host byte order.
    ConntrackState(Reg),
    ConntrackMark(Reg),
    SetConntrackMark(Reg),
    /// `register = (register & mask) ^ xor`.
    Bitwise {
        reg: Reg,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    /// Continues only if the register equals (or does not equal) the value.
    Equal(Reg, Vec<u8>),
    NotEqual(Reg, Vec<u8>),
    /// Loads a constant into registers.
    Value(Reg, Vec<u8>),
    /// Ends the rule with a verdict.
    Verdict(Verdict),
    /// Continues only if the set contains (or does not contain) the key.
    InSet {
        set: &'static str,
        key: Reg,
    },
    NotInSet {
        set: &'static str,
        key: Reg,
    },
    /// Continues only if the map contains the key, with its data in `data`.
    Map {
        set: &'static str,
        key: Reg,
        data: Reg,
    },
    /// Applies the verdict of the map for the key; continues if there is none.
    VerdictMap {
        set: &'static str,
        key: Reg,
    },
    /// Adds the key to a dynamic set, or renews its timeout.
    Remember {
        set: &'static str,
        key: Reg,
        timeout_ms: u64,
    },
    /// A random number from `offset` to `offset + modulus - 1`, in host byte order.
    Random {
        reg: Reg,
        modulus: u32,
        offset: u32,
    },
    DestinationNat {
        family: Family,
        address: Reg,
        port: Reg,
    },
    SourceNat {
        family: Family,
        address: Reg,
    },
    Masquerade,
    /// Responds with a TCP reset.
    Reset,
    /// Responds with ICMP "port unreachable".
    Reject(Family),
}

// enum nft_*_attributes and their values, linux/netfilter/nf_tables.h.
const PAYLOAD_NETWORK: u32 = 1;
const PAYLOAD_TRANSPORT: u32 = 2;
const META_PROTOCOL: u32 = 1;
const META_IIF: u32 = 4;
const META_OIF: u32 = 5;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_MARK: u32 = 3;
const FIB_RESULT_OIF: u32 = 1;
const FIB_RESULT_ADDRTYPE: u32 = 3;
const FIB_SADDR: u32 = 1;
const FIB_DADDR: u32 = 2;
const FIB_IIF: u32 = 8;
/// After the UDP header: flags and reserved bits, then the VNI.
const VXLAN_NETWORK_OFFSET: u32 = 12;
const TCP_FLAGS_OFFSET: u32 = 13;
const LOOKUP_INVERT: u32 = 1;
const NUMGEN_RANDOM: u32 = 1;
const DYNSET_UPDATE: u32 = 1;
const NAT_SOURCE: u32 = 0;
const NAT_DESTINATION: u32 = 1;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`: avoids races between clients for the same translated port.
const RANDOM_PORT: u32 = 1 << 4;
const REJECT_ICMP_UNREACH: u32 = 0;
const REJECT_TCP_RESET: u32 = 1;
const ICMP_PORT_UNREACHABLE: u8 = 3;
const ICMPV6_PORT_UNREACHABLE: u8 = 4;

impl Expr {
    /// Writes the expression as an element of a rule's expression list.
    pub(super) fn write(&self, message: &mut Message) {
        message.nest(1, |message| {
            message.attr_str(1, self.name());
            message.nest(2, |message| self.write_data(message));
        });
    }

    fn name(&self) -> &'static str {
        match self {
            Expr::SourceAddress(..)
            | Expr::DestinationAddress(..)
            | Expr::DestinationPort(_)
            | Expr::TcpFlags(_)
            | Expr::VxlanNetwork(_) => "payload",
            Expr::Protocol(_)
            | Expr::NetworkProtocol(_)
            | Expr::InputInterface(_)
            | Expr::OutputInterface(_)
            | Expr::InputInterfaceName(_)
            | Expr::OutputInterfaceName(_) => "meta",
            Expr::DestinationType(_) | Expr::ReversePath(_) => "fib",
            Expr::ConntrackState(_) | Expr::ConntrackMark(_) | Expr::SetConntrackMark(_) => "ct",
            Expr::Bitwise { .. } => "bitwise",
            Expr::Equal(..) | Expr::NotEqual(..) => "cmp",
            Expr::Value(..) | Expr::Verdict(_) => "immediate",
            Expr::InSet { .. }
            | Expr::NotInSet { .. }
            | Expr::Map { .. }
            | Expr::VerdictMap { .. } => "lookup",
            Expr::Remember { .. } => "dynset",
            Expr::Random { .. } => "numgen",
            Expr::DestinationNat { .. } | Expr::SourceNat { .. } => "nat",
            Expr::Masquerade => "masq",
            Expr::Reset | Expr::Reject(_) => "reject",
        }
    }

    fn write_data(&self, message: &mut Message) {
        match self {
            Expr::SourceAddress(family, reg) => {
                let offset = match family {
                    Family::V4 => 12,
                    Family::V6 => 8,
                };
                payload(message, *reg, PAYLOAD_NETWORK, offset, family.address_len());
            }
            Expr::DestinationAddress(family, reg) => {
                let offset = match family {
                    Family::V4 => 16,
                    Family::V6 => 24,
                };
                payload(message, *reg, PAYLOAD_NETWORK, offset, family.address_len());
            }
            Expr::DestinationPort(reg) => payload(message, *reg, PAYLOAD_TRANSPORT, 2, 2),
            Expr::TcpFlags(reg) => payload(message, *reg, PAYLOAD_TRANSPORT, TCP_FLAGS_OFFSET, 1),
            Expr::VxlanNetwork(reg) => {
                payload(message, *reg, PAYLOAD_TRANSPORT, VXLAN_NETWORK_OFFSET, 3);
            }
            Expr::Protocol(reg) => load(message, *reg, META_L4PROTO),
            Expr::NetworkProtocol(reg) => load(message, *reg, META_PROTOCOL),
            Expr::InputInterface(reg) => load(message, *reg, META_IIF),
            Expr::OutputInterface(reg) => load(message, *reg, META_OIF),
            Expr::InputInterfaceName(reg) => load(message, *reg, META_IIFNAME),
            Expr::OutputInterfaceName(reg) => load(message, *reg, META_OIFNAME),
            Expr::ReversePath(reg) => {
                let flags = FIB_SADDR | FIB_IIF;
                numbers(message, &[(1, reg.number()), (2, FIB_RESULT_OIF), (3, flags)]);
            }
            Expr::DestinationType(reg) => {
                numbers(message, &[(1, reg.number()), (2, FIB_RESULT_ADDRTYPE), (3, FIB_DADDR)]);
            }
            Expr::ConntrackState(reg) => load(message, *reg, CT_STATE),
            Expr::ConntrackMark(reg) => load(message, *reg, CT_MARK),
            Expr::SetConntrackMark(reg) => numbers(message, &[(2, CT_MARK), (4, reg.number())]),
            Expr::Bitwise { reg, mask, xor } => {
                let length = u32::try_from(mask.len()).expect("a mask fits the registers");
                numbers(message, &[(1, reg.number()), (2, reg.number()), (3, length)]);
                message.nest(4, |message| message.attr(1, mask));
                message.nest(5, |message| message.attr(1, xor));
            }
            Expr::Equal(reg, value) => compare(message, *reg, 0, value),
            Expr::NotEqual(reg, value) => compare(message, *reg, 1, value),
            Expr::Value(reg, value) => {
                message.attr_u32(1, reg.number());
                message.nest(2, |message| message.attr(1, value));
            }
            Expr::Verdict(verdict) => {
                message.attr_u32(1, VERDICT);
                message.nest(2, |message| write_verdict(message, verdict));
            }
            Expr::InSet { set, key } => {
                message.attr_str(1, set);
                message.attr_u32(2, key.number());
            }
            Expr::NotInSet { set, key } => {
                message.attr_str(1, set);
                numbers(message, &[(2, key.number()), (5, LOOKUP_INVERT)]);
            }
            Expr::Map { set, key, data } => {
                message.attr_str(1, set);
                numbers(message, &[(2, key.number()), (3, data.number())]);
            }
            Expr::VerdictMap { set, key } => {
                message.attr_str(1, set);
                numbers(message, &[(2, key.number()), (3, VERDICT)]);
            }
            Expr::Remember { set, key, timeout_ms } => {
                message.attr_str(1, set);
                numbers(message, &[(3, DYNSET_UPDATE), (4, key.number())]);
                message.attr_u64(6, *timeout_ms);
            }
            Expr::Random { reg, modulus, offset } => {
                let random = [(1, reg.number()), (2, *modulus), (3, NUMGEN_RANDOM), (4, *offset)];
                numbers(message, &random);
            }
            Expr::DestinationNat { .. }
            | Expr::SourceNat { .. }
            | Expr::Masquerade
            | Expr::Reset
            | Expr::Reject(_) => self.write_action(message),
        }
    }

    /// The expressions that act on the packet.
    fn write_action(&self, message: &mut Message) {
        match self {
            Expr::DestinationNat { family, address, port } => {
                numbers(message, &[(1, NAT_DESTINATION), (2, u32::from(family.number()))]);
                numbers(message, &[(3, address.number()), (5, port.number())]);
            }
            Expr::SourceNat { family, address } => {
                numbers(message, &[(1, NAT_SOURCE), (2, u32::from(family.number()))]);
                numbers(message, &[(3, address.number()), (7, RANDOM_PORT)]);
            }
            Expr::Masquerade => message.attr_u32(1, RANDOM_PORT),
            Expr::Reset => message.attr_u32(1, REJECT_TCP_RESET),
            Expr::Reject(family) => {
                let code = match family {
                    Family::V4 => ICMP_PORT_UNREACHABLE,
                    Family::V6 => ICMPV6_PORT_UNREACHABLE,
                };
                message.attr_u32(1, REJECT_ICMP_UNREACH);
                message.attr(2, &[code]);
            }
            _ => {}
        }
    }
}

fn numbers(message: &mut Message, attributes: &[(u16, u32)]) {
    for (kind, value) in attributes {
        message.attr_u32(*kind, *value);
    }
}

/// `meta` and `ct` have the same attributes: destination register, key.
fn load(message: &mut Message, reg: Reg, key: u32) {
    numbers(message, &[(1, reg.number()), (2, key)]);
}

fn payload(message: &mut Message, reg: Reg, base: u32, offset: u32, length: usize) {
    let length = u32::try_from(length).expect("an address is short");
    numbers(message, &[(1, reg.number()), (2, base), (3, offset), (4, length)]);
}

fn compare(message: &mut Message, reg: Reg, operation: u32, value: &[u8]) {
    numbers(message, &[(1, reg.number()), (2, operation)]);
    message.nest(3, |message| message.attr(1, value));
}
