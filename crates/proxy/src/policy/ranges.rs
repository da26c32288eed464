//! Address ranges: blocks with exceptions, and disjoint segments of overlapping ranges.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::ports::PortSet;
use crate::nft::Family;

/// First and last address, as numbers.
pub type Range = (u128, u128);

/// A range of addresses with the ports that all of them may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub first: IpAddr,
    pub last: IpAddr,
    pub ports: PortSet,
}

pub fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => {
            let bits = u32::try_from(number).expect("numbers of IPv4 addresses have 32 bits");
            Ipv4Addr::from_bits(bits).into()
        }
        Family::V6 => Ipv6Addr::from_bits(number).into(),
    }
}

/// All addresses of a family.
pub fn whole(family: Family) -> Range {
    match family {
        Family::V4 => (0, u128::from(u32::MAX)),
        Family::V6 => (0, u128::MAX),
    }
}

/// The addresses of a block without those of its exceptions; sorted and disjoint.
pub fn without(block: IpNet, except: &[IpNet]) -> Vec<Range> {
    let bounds = |net: IpNet| (number(net.network()), number(net.broadcast()));
    let (mut from, end) = bounds(block);
    let mut ranges = Vec::new();
    let same_family = |net: &&IpNet| net.addr().is_ipv4() == block.addr().is_ipv4();
    let mut holes: Vec<Range> = except.iter().filter(same_family).map(|net| bounds(*net)).collect();
    holes.sort_unstable();
    for (first, last) in holes {
        if last < from || first > end {
            continue;
        }
        if first > from {
            ranges.push((from, first - 1));
        }
        match last.checked_add(1) {
            Some(next) if last < end => from = next,
            _ => return ranges,
        }
    }
    ranges.push((from, end));
    ranges
}

/// Splits overlapping ranges into disjoint segments. Each allows what at least one of the ranges
/// there allows; adjacent segments differ in that.
pub fn segments(family: Family, ranges: &[(Range, PortSet)]) -> Vec<Segment> {
    // Equal sets of ports are counted together: there are few different ones.
    let mut sets: Vec<&PortSet> = Vec::new();
    let mut known: HashMap<&PortSet, usize> = HashMap::new();
    let mut bounds: Vec<(u128, bool, usize)> = Vec::with_capacity(2 * ranges.len());
    for ((first, last), ports) in ranges.iter().filter(|(_, ports)| !ports.is_none()) {
        let set = *known.entry(ports).or_insert_with(|| {
            sets.push(ports);
            sets.len() - 1
        });
        bounds.push((*first, true, set));
        bounds.extend(last.checked_add(1).map(|after| (after, false, set)));
    }
    bounds.sort_unstable();
    let mut counts = vec![0_usize; sets.len()];
    let mut active: BTreeSet<usize> = BTreeSet::new();
    let mut unions: HashMap<Vec<usize>, PortSet> = HashMap::new();
    let mut segments: Vec<Segment> = Vec::new();
    let mut bounds = bounds.into_iter().peekable();
    while let Some((from, starts, set)) = bounds.next() {
        match starts {
            true => counts[set] += 1,
            false => counts[set] -= 1,
        }
        match counts[set] {
            0 => active.remove(&set),
            _ => active.insert(set),
        };
        let last = match bounds.peek() {
            Some((next, ..)) if *next == from => continue,
            Some((next, ..)) => next - 1,
            None => whole(family).1,
        };
        if active.is_empty() {
            continue;
        }
        let key: Vec<usize> = active.iter().copied().collect();
        let union = unions
            .entry(key)
            .or_insert_with_key(|key| PortSet::union(key.iter().map(|set| sets[*set])));
        match segments.last_mut() {
            Some(before)
                if before.ports == *union && number(before.last).checked_add(1) == Some(from) =>
            {
                before.last = address(family, last);
            }
            _ => segments.push(Segment {
                first: address(family, from),
                last: address(family, last),
                ports: union.clone(),
            }),
        }
    }
    segments
}

/// The ports of the segment that contains the address.
pub fn find(segments: &[Segment], ip: IpAddr) -> Option<&PortSet> {
    let after = segments.partition_point(|segment| number(segment.first) <= number(ip));
    let segment = segments.get(after.checked_sub(1)?)?;
    (number(ip) <= number(segment.last)).then_some(&segment.ports)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::ports::PortRange;
    use super::*;
    use crate::table::Protocol;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn exceptions_are_holes() {
        let shown = |block: &str, except: &[&str]| {
            let except: Vec<IpNet> = except.iter().map(|text| net(text)).collect();
            let family = if block.contains(':') { Family::V6 } else { Family::V4 };
            let line = |(first, last): &Range| {
                format!("{}-{}", address(family, *first), address(family, *last))
            };
            without(net(block), &except).iter().map(line).collect::<Vec<_>>()
        };
        assert_eq!(shown("10.0.0.0/30", &[]), ["10.0.0.0-10.0.0.3"]);
        assert_eq!(shown("10.0.0.0/30", &["10.0.0.0/32"]), ["10.0.0.1-10.0.0.3"]);
        assert_eq!(shown("10.0.0.0/30", &["10.0.0.3/32"]), ["10.0.0.0-10.0.0.2"]);
        assert_eq!(
            shown("10.0.0.0/29", &["10.0.0.4/31", "10.0.0.2/32", "10.0.0.4/32", "11.0.0.0/8"]),
            ["10.0.0.0-10.0.0.1", "10.0.0.3-10.0.0.3", "10.0.0.6-10.0.0.7"]
        );
        assert!(shown("0.0.0.0/0", &["0.0.0.0/1", "128.0.0.0/1"]).is_empty());
        assert_eq!(shown("::/0", &["8000::/1"]), ["::-7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]);
    }

    fn ports(mask: u8) -> PortSet {
        if mask == 7 {
            return PortSet::All;
        }
        let bits = (0..3).filter(|bit| mask & 1 << bit != 0);
        // Not adjacent: each bit stays a range of its own.
        PortSet::of(bits.map(|bit| PortRange {
            protocol: Protocol::Udp,
            first: 10 * bit,
            last: 10 * bit + 3,
        }))
    }

    proptest! {
        /// Every address is allowed exactly what the ranges that contain it allow.
        #[test]
        fn segments_allow_what_the_ranges_allow(
            ranges in prop::collection::vec((0u8..=255, 0u8..=255, 0u8..8), 0..12),
            top in any::<bool>(),
        ) {
            // At either end of the addresses.
            let base = if top { u128::from(u32::MAX) - 255 } else { 0 };
            let place = |n: u8| base + u128::from(n);
            let ranges: Vec<(Range, PortSet)> = ranges
                .into_iter()
                .map(|(a, b, mask)| ((place(a.min(b)), place(a.max(b))), ports(mask)))
                .collect();
            let segments = segments(Family::V4, &ranges);
            for pair in segments.windows(2) {
                prop_assert!(number(pair[0].last) < number(pair[1].first));
                let adjacent = number(pair[0].last) + 1 == number(pair[1].first);
                prop_assert!(!adjacent || pair[0].ports != pair[1].ports);
            }
            for n in 0..=255 {
                let here = |range: &&(Range, PortSet)| {
                    (range.0.0..=range.0.1).contains(&place(n))
                };
                let expected =
                    PortSet::union(ranges.iter().filter(here).map(|(_, ports)| ports));
                let found = find(&segments, address(Family::V4, place(n)));
                prop_assert_eq!(found.cloned().unwrap_or(PortSet::none()), expected);
            }
        }
    }
}
