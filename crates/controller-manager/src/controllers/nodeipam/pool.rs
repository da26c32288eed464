//! Which node has which parts of the cluster's ranges.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::config::NodeRange;

/// The allocated parts of the cluster's ranges.
#[derive(Debug)]
pub struct Pool {
    ranges: Vec<NodeRange>,
    owner: HashMap<IpNet, String>,
    of_node: HashMap<String, Vec<IpNet>>,
    /// Where the search for the next free part of each range starts.
    next: Vec<u128>,
}

impl Pool {
    pub fn new(ranges: Vec<NodeRange>) -> Self {
        Self { next: vec![0; ranges.len()], ranges, owner: HashMap::new(), of_node: HashMap::new() }
    }

    /// Records the parts that a node has.
    pub fn occupy(&mut self, node: &str, parts: &[IpNet]) {
        if self.of_node.get(node).is_some_and(|own| own == parts) {
            return;
        }
        self.release(node);
        for part in parts {
            self.owner.insert(*part, node.to_owned());
        }
        if !parts.is_empty() {
            self.of_node.insert(node.to_owned(), parts.to_vec());
        }
    }

    /// Frees the parts of a node.
    pub fn release(&mut self, node: &str) {
        for part in self.of_node.remove(node).unwrap_or_default() {
            if self.owner.get(&part).is_some_and(|owner| owner == node) {
                self.owner.remove(&part);
            }
        }
    }

    /// One part of every range for a node: those it has already, or the next free ones. `None` when
    /// a range is exhausted.
    pub fn allocate(&mut self, node: &str) -> Option<Vec<IpNet>> {
        if let Some(own) = self.of_node.get(node) {
            return Some(own.clone());
        }
        let mut parts = Vec::new();
        for index in 0..self.ranges.len() {
            parts.push(self.free(index)?);
        }
        self.occupy(node, &parts);
        Some(parts)
    }

    fn free(&mut self, index: usize) -> Option<IpNet> {
        let range = self.ranges[index];
        let count = 1u128 << (range.node_prefix - range.cluster.prefix_len());
        for step in 0..count {
            let at = (self.next[index] + step) % count;
            let part = part(range, at);
            if !self.owner.keys().any(|taken| overlaps(taken, &part)) {
                self.next[index] = (at + 1) % count;
                return Some(part);
            }
        }
        None
    }
}

fn overlaps(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// The part number `at` of a range.
fn part(range: NodeRange, at: u128) -> IpNet {
    let bits = range.cluster.max_prefix_len();
    let offset = at << (bits - range.node_prefix);
    let address = match range.cluster.network() {
        IpAddr::V4(base) => {
            let offset = u32::try_from(offset).expect("the part lies inside the range");
            IpAddr::V4(Ipv4Addr::from(u32::from(base) | offset))
        }
        IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from(u128::from(base) | offset)),
    };
    IpNet::new(address, range.node_prefix).expect("the prefix was checked with the flags")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(ranges: &[(&str, u8)]) -> Pool {
        Pool::new(
            ranges
                .iter()
                .map(|(cluster, node_prefix)| NodeRange {
                    cluster: cluster.parse().unwrap(),
                    node_prefix: *node_prefix,
                })
                .collect(),
        )
    }

    fn allocate(pool: &mut Pool, node: &str) -> Option<String> {
        let parts = pool.allocate(node)?;
        Some(parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn each_node_gets_its_own_ranges_and_keeps_them() {
        let mut pool = pool(&[("10.244.0.0/22", 24), ("fd00::/56", 64)]);
        pool.occupy("old", &["10.244.1.0/24".parse().unwrap()]);
        assert_eq!(allocate(&mut pool, "a").unwrap(), "10.244.0.0/24 fd00::/64");
        assert_eq!(allocate(&mut pool, "b").unwrap(), "10.244.2.0/24 fd00:0:0:1::/64");
        assert_eq!(allocate(&mut pool, "a").unwrap(), "10.244.0.0/24 fd00::/64");
        assert!(allocate(&mut pool, "c").is_some());
        assert_eq!(allocate(&mut pool, "d"), None);
        pool.release("old");
        assert_eq!(allocate(&mut pool, "d").unwrap(), "10.244.1.0/24 fd00:0:0:3::/64");
    }

    #[test]
    fn a_foreign_range_that_overlaps_is_avoided() {
        let mut pool = pool(&[("10.0.0.0/22", 24)]);
        pool.occupy("odd", &["10.0.0.128/25".parse().unwrap()]);
        assert_eq!(allocate(&mut pool, "a").unwrap(), "10.0.1.0/24");
    }
}
