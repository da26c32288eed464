//! Decodes keys and data by the types that a set states: `nft`'s types, 6 bits each in a
//! concatenation (`include/datatype.h` of nftables). A field takes a multiple of 4 bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::nft::{self, SetTypes};

const TYPE_BITS: u32 = 6;
/// `nft`'s numbers of the types that are decoded.
const IPV4: u32 = 7;
const IPV6: u32 = 8;
const PROTOCOL: u32 = 12;
const SERVICE: u32 = 13;
const MARK: u32 = 19;
const INTERFACE_INDEX: u32 = 20;
const INTERFACE_NAME: u32 = 41;

/// One field.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Field {
    Address(IpAddr),
    Port(u16),
    Link(String),
    Text(String),
}

impl Field {
    fn text(self) -> String {
        match self {
            Field::Address(ip) => ip.to_string(),
            Field::Port(port) => port.to_string(),
            Field::Link(text) | Field::Text(text) => text,
        }
    }
}

/// An element as text.
pub(super) fn element(set: &SetTypes, element: &nft::Element) -> super::Element {
    let texts = |kind, bytes: &[u8]| fields(kind, bytes).into_iter().map(Field::text).collect();
    let (value, verdict) = match &element.data {
        nft::Data::None => (Vec::new(), None),
        nft::Data::Value(bytes) => (texts(set.data_type.unwrap_or_default(), bytes), None),
        nft::Data::Verdict(code, chain) => (Vec::new(), Some(verdict(*code, chain.as_deref()))),
    };
    super::Element {
        key: texts(set.key_type, &element.key),
        key_end: element.key_end.as_deref().map(|end| texts(set.key_type, end)),
        value,
        verdict,
        expires_ms: Some(element.timing.expires_ms).filter(|left| *left > 0),
    }
}

/// The addresses in a key or value of that type.
pub(super) fn addresses(kind: u32, bytes: &[u8]) -> Vec<IpAddr> {
    let address = |field| match field {
        Field::Address(ip) => Some(ip),
        _ => None,
    };
    fields(kind, bytes).into_iter().filter_map(address).collect()
}

/// The ports in a key of that type.
pub(super) fn ports(kind: u32, bytes: &[u8]) -> Vec<u16> {
    let port = |field| match field {
        Field::Port(port) => Some(port),
        _ => None,
    };
    fields(kind, bytes).into_iter().filter_map(port).collect()
}

/// The names of links in a key of that type.
pub(super) fn links(kind: u32, bytes: &[u8]) -> Vec<String> {
    let link = |field| match field {
        Field::Link(name) => Some(name),
        _ => None,
    };
    fields(kind, bytes).into_iter().filter_map(link).collect()
}

/// The fields of a concatenation. What follows a field of an unknown type is shown together with
/// it, as hexadecimal digits, since its length is unknown.
fn fields(kind: u32, mut bytes: &[u8]) -> Vec<Field> {
    let mut kinds = Vec::new();
    let mut rest = kind;
    while rest != 0 {
        kinds.insert(0, rest & ((1 << TYPE_BITS) - 1));
        rest >>= TYPE_BITS;
    }
    let mut found = Vec::new();
    for kind in kinds {
        let Some(field) = field(kind, &mut bytes) else {
            break;
        };
        found.push(field);
    }
    // The kernel omits the padding of the last field of data.
    if bytes.iter().any(|byte| *byte != 0) || found.is_empty() {
        found.push(Field::Text(bytes.iter().map(|byte| format!("{byte:02x}")).collect()));
    }
    found
}

/// Takes a field, with its padding, from the front.
fn field(kind: u32, bytes: &mut &[u8]) -> Option<Field> {
    let length = match kind {
        IPV4 | MARK | INTERFACE_INDEX => 4,
        IPV6 | INTERFACE_NAME => 16,
        PROTOCOL => 1,
        SERVICE => 2,
        _ => return None,
    };
    let value = bytes.get(..length)?;
    let after: usize = length.next_multiple_of(4);
    *bytes = bytes.get(after..).unwrap_or_default();
    let native = || value.try_into().ok().map(u32::from_ne_bytes);
    Some(match kind {
        IPV4 => Field::Address(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
        IPV6 => Field::Address(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
        PROTOCOL => Field::Text(protocol(value[0])),
        SERVICE => Field::Port(u16::from_be_bytes(value.try_into().ok()?)),
        INTERFACE_NAME => {
            let name = value.split(|byte| *byte == 0).next().unwrap_or_default();
            Field::Link(String::from_utf8_lossy(name).into_owned())
        }
        _ => Field::Text(native()?.to_string()),
    })
}

fn protocol(number: u8) -> String {
    match number {
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        132 => "sctp".to_owned(),
        1 => "icmp".to_owned(),
        58 => "ipv6-icmp".to_owned(),
        other => other.to_string(),
    }
}

/// `linux/netfilter/nf_tables.h`, `enum nft_verdicts`, and netfilter's own.
fn verdict(code: i32, chain: Option<&str>) -> String {
    let name = match code {
        0 => "drop",
        1 => "accept",
        -1 => "continue",
        -2 => "break",
        -3 => "jump",
        -4 => "goto",
        -5 => "return",
        _ => return format!("verdict {code}"),
    };
    chain.map_or_else(|| name.to_owned(), |chain| format!("{name} {chain}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::{Data, KeyEnd};
    use crate::table::{Chain, Frontend, Key, Protocol, Source, Target};

    fn decode(
        key: &Key,
        key_type: u32,
        data: Data,
        data_type: Option<u32>,
    ) -> super::super::Element {
        let (bytes, end) = key.encode();
        let key_end = match end {
            KeyEnd::None => None,
            KeyEnd::Last(end) | KeyEnd::After(end) => Some(end),
        };
        let set = SetTypes { name: "x".into(), key_type, data_type };
        element(&set, &nft::Element { key: bytes, key_end, data, timing: Default::default() })
    }

    fn join(kinds: &[u32]) -> u32 {
        kinds.iter().fold(0, |joined, kind| joined << TYPE_BITS | kind)
    }

    #[test]
    fn what_the_proxy_writes_is_shown_as_text() {
        let frontend =
            Frontend { ip: "10.96.0.10".parse().unwrap(), protocol: Protocol::Tcp, port: 80 };
        let target = Target::Frontend(frontend);
        let services = join(&[IPV4, PROTOCOL, SERVICE]);
        let chain = Chain::Balance { source: Source::Cluster, count: 3, affinity_s: None };
        let shown = decode(
            &Key::Target(target),
            services,
            Data::Verdict(-4, Some(chain.to_string())),
            None,
        );
        assert_eq!(shown.key, ["10.96.0.10", "tcp", "80"]);
        assert_eq!(shown.verdict.as_deref(), Some("goto cluster-3"));

        // As the kernel returns it: without the padding at the end.
        let value = Data::Value(vec![10, 244, 0, 5, 0x1f, 0x90]);
        let endpoints = join(&[IPV4, PROTOCOL, SERVICE, MARK]);
        let data_type = Some(join(&[IPV4, SERVICE]));
        let shown = decode(&Key::Slot(target, 2), endpoints, value.clone(), data_type);
        assert_eq!(shown.key, ["10.96.0.10", "tcp", "80", "2"]);
        assert_eq!(shown.value, ["10.244.0.5", "8080"]);
        let Data::Value(bytes) = value else { unreachable!() };
        assert_eq!(addresses(join(&[IPV4, SERVICE]), &bytes).len(), 1);

        let range = Key::Range(frontend, "10.0.0.0/9".parse().unwrap());
        let shown = decode(&range, join(&[IPV4, PROTOCOL, SERVICE, IPV4]), Data::None, None);
        assert_eq!(shown.key[3], "10.0.0.0");
        assert_eq!(shown.key_end.unwrap()[3], "10.127.255.255");
    }

    #[test]
    fn unknown_types_are_shown_as_digits() {
        let element = |key_type| {
            let set = SetTypes { name: "x".into(), key_type, data_type: None };
            let key = vec![10, 0, 0, 1, 0xab, 0xcd, 0, 0];
            let found =
                nft::Element { key, key_end: None, data: Data::None, timing: Default::default() };
            super::element(&set, &found).key
        };
        assert_eq!(element(join(&[IPV4, 63])), ["10.0.0.1", "abcd0000"]);
        assert_eq!(element(join(&[IPV4])), ["10.0.0.1", "abcd0000"]);
        assert_eq!(element(0), ["0a000001abcd0000"]);
        let short = SetTypes { name: "x".into(), key_type: IPV6, data_type: None };
        let found = nft::Element {
            key: vec![1],
            key_end: None,
            data: Data::None,
            timing: Default::default(),
        };
        assert_eq!(super::element(&short, &found).key, ["01"]);
    }

    #[test]
    fn verdicts() {
        for (code, chain, expected) in [
            (0, None, "drop"),
            (1, None, "accept"),
            (-4, Some("refuse"), "goto refuse"),
            (9, None, "verdict 9"),
        ] {
            assert_eq!(verdict(code, chain), expected);
        }
    }
}
