//! Address ranges: blocks with exceptions, and unions of overlapping ranges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::nft::Family;

/// First and last address, as numbers.
pub type Range = (u128, u128);

pub fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

pub fn address(family: Family, number: u128) -> IpAddr {
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

/// The same addresses as sorted ranges that neither overlap nor touch.
pub fn merged(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut merged: Vec<Range> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if before.1.checked_add(1).is_none_or(|next| first <= next) => {
                before.1 = before.1.max(last);
            }
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// Whether merged ranges contain the address.
pub fn contain(ranges: &[Range], ip: IpAddr) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= number(ip));
    let range = after.checked_sub(1).and_then(|at| ranges.get(at));
    range.is_some_and(|(_, last)| number(ip) <= *last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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

    proptest! {
        #[test]
        fn merged_ranges_contain_the_same_addresses(
            ranges in prop::collection::vec((0u8..=255, 0u8..=255), 0..12),
            top in any::<bool>(),
        ) {
            // At either end of the addresses.
            let (base, family) = match top {
                true => (u128::MAX - 255, Family::V6),
                false => (0, Family::V4),
            };
            let place = |n: u8| base + u128::from(n);
            let ranges: Vec<Range> =
                ranges.into_iter().map(|(a, b)| (place(a.min(b)), place(a.max(b)))).collect();
            let merged = merged(ranges.clone());
            for pair in merged.windows(2) {
                prop_assert!(pair[0].1 + 1 < pair[1].0);
            }
            for n in 0..=255 {
                let expected =
                    ranges.iter().any(|(first, last)| (*first..=*last).contains(&place(n)));
                prop_assert_eq!(contain(&merged, address(family, place(n))), expected);
            }
        }
    }
}
