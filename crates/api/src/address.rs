//! What IP addresses mean: the one place that classifies them.
//!
//! An address is first made canonical. `::ffff:127.0.0.1` and `::127.0.0.1` carry an IPv4 address
//! and reach the same server as `127.0.0.1`, but every test of `Ipv6Addr` says that they are
//! ordinary.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address does not mean the same machine to everybody who reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    Unspecified,
    Loopback,
    LinkLocal,
    /// Multicast that no router forwards.
    LinkLocalMulticast,
    /// Any other multicast.
    Multicast,
}

impl Special {
    /// What is special about `ip`; `None`: it is an ordinary unicast address.
    pub fn of(ip: IpAddr) -> Option<Self> {
        match canonical(ip) {
            IpAddr::V4(ip) => Self::of_v4(ip),
            IpAddr::V6(ip) => Self::of_v6(ip),
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Option<Self> {
        match ip.octets() {
            [0, 0, 0, 0] => Some(Self::Unspecified),
            [127, ..] => Some(Self::Loopback),
            [169, 254, ..] => Some(Self::LinkLocal),
            [224, 0, 0, _] => Some(Self::LinkLocalMulticast),
            _ if ip.is_multicast() => Some(Self::Multicast),
            _ => None,
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Option<Self> {
        match ip.segments()[0] {
            _ if ip.is_unspecified() => Some(Self::Unspecified),
            _ if ip.is_loopback() => Some(Self::Loopback),
            _ if ip.is_unicast_link_local() => Some(Self::LinkLocal),
            first if first & 0xff0f == 0xff02 => Some(Self::LinkLocalMulticast),
            _ if ip.is_multicast() => Some(Self::Multicast),
            _ => None,
        }
    }

    /// Kubernetes' message about a field with such an address (`ValidateNonSpecialIP`), which
    /// allows multicast beyond the link.
    pub fn problem(self) -> Option<&'static str> {
        match self {
            Self::Unspecified => Some("may not be unspecified (0.0.0.0 or ::)"),
            Self::Loopback => Some("may not be in the loopback range (127.0.0.0/8, ::1/128)"),
            Self::LinkLocal => {
                Some("may not be in the link-local range (169.254.0.0/16, fe80::/10)")
            }
            Self::LinkLocalMulticast => {
                Some("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
            }
            Self::Multicast => None,
        }
    }
}

/// The IPv4 address that an IPv6 address carries, mapped or compatible; any other address itself.
pub fn canonical(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(six) if !six.is_loopback() && !six.is_unspecified() => {
            six.to_ipv4().map_or(ip, IpAddr::V4)
        }
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_as_special_as_the_one_it_carries() {
        let table = [
            ("0.0.0.0", Some(Special::Unspecified)),
            ("127.0.0.1", Some(Special::Loopback)),
            ("127.255.0.9", Some(Special::Loopback)),
            ("169.254.169.254", Some(Special::LinkLocal)),
            ("224.0.0.251", Some(Special::LinkLocalMulticast)),
            ("239.1.2.3", Some(Special::Multicast)),
            ("10.0.0.1", None),
            ("192.0.2.1", None),
            ("169.253.0.1", None),
        ];
        for (text, expected) in table {
            for text in [text.to_owned(), format!("::ffff:{text}"), format!("::{text}")] {
                let ip: IpAddr = text.parse().unwrap();
                assert_eq!(Special::of(ip), expected, "{text}");
            }
        }
        let six = [
            ("::", Some(Special::Unspecified)),
            ("::1", Some(Special::Loopback)),
            ("fe80::1", Some(Special::LinkLocal)),
            ("febf::1", Some(Special::LinkLocal)),
            ("ff02::1", Some(Special::LinkLocalMulticast)),
            ("ff0e::1", Some(Special::Multicast)),
            ("fd00::1", None),
            ("2001:db8::7f00:1", None),
        ];
        for (text, expected) in six {
            assert_eq!(Special::of(text.parse().unwrap()), expected, "{text}");
        }
    }
}
