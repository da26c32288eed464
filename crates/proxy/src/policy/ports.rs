//! Sets of protocols and ports, and ids in the tables.

use std::collections::HashMap;

use crate::table::Protocol;

/// Ids are below this, so that every key has a successor.
const ID_LIMIT: u32 = 1 << 31;

/// Consecutive ports of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    pub protocol: Protocol,
    pub first: u16,
    pub last: u16,
}

/// The protocols and ports that a connection may use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PortSet {
    /// All ports of all protocols, also of those without ports.
    All,
    /// Sorted, disjoint, not adjacent; empty for none.
    Ranges(Vec<PortRange>),
}

impl PortSet {
    pub fn none() -> Self {
        Self::Ranges(Vec::new())
    }

    pub fn is_none(&self) -> bool {
        matches!(self, Self::Ranges(ranges) if ranges.is_empty())
    }

    pub fn of(ranges: impl IntoIterator<Item = PortRange>) -> Self {
        let mut sorted: Vec<PortRange> = ranges.into_iter().collect();
        sorted.sort_unstable();
        let mut merged: Vec<PortRange> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match merged.last_mut() {
                Some(last)
                    if last.protocol == range.protocol
                        && u32::from(range.first) <= u32::from(last.last) + 1 =>
                {
                    last.last = last.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        Self::Ranges(merged)
    }

    /// What at least one of the sets contains.
    pub fn union<'a>(sets: impl IntoIterator<Item = &'a PortSet>) -> Self {
        let mut all = Vec::new();
        for set in sets {
            match set {
                Self::All => return Self::All,
                Self::Ranges(ranges) => all.extend(ranges.iter().copied()),
            }
        }
        Self::of(all)
    }

    /// Whether the set contains a port; `protocol` is a number of an IP header.
    pub fn contains(&self, protocol: u8, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Ranges(ranges) => ranges.iter().any(|range| {
                range.protocol as u8 == protocol && (range.first..=range.last).contains(&port)
            }),
        }
    }
}

/// Numbers for values that are the same after a restart, so that existing elements stay as they
/// are: derived from the value, and moved on if that number is taken.
#[derive(Debug)]
pub struct Ids<T> {
    values: HashMap<u32, T>,
}

impl<T> Default for Ids<T> {
    fn default() -> Self {
        Self { values: HashMap::new() }
    }
}

impl<T: PartialEq> Ids<T> {
    /// The id of the value, whose hash is `hash`, and whether it is new.
    pub fn id(&mut self, hash: u64, value: T) -> (u32, bool) {
        let folded = (hash ^ hash >> 32) & u64::from(ID_LIMIT - 1);
        let mut id = u32::try_from(folded).expect("masked to 31 bits");
        loop {
            match self.values.get(&id) {
                Some(taken) if *taken == value => return (id, false),
                Some(_) => id = (id + 1) % ID_LIMIT,
                None => {
                    self.values.insert(id, value);
                    return (id, true);
                }
            }
        }
    }

    pub fn remove(&mut self, id: u32) -> Option<T> {
        self.values.remove(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(first: u16, last: u16) -> PortRange {
        PortRange { protocol: Protocol::Tcp, first, last }
    }

    #[test]
    fn ranges_are_merged() {
        let udp = PortRange { protocol: Protocol::Udp, first: 81, last: 82 };
        let sets = [
            PortSet::of([tcp(90, 95), tcp(80, 80), tcp(81, 89)]),
            PortSet::of([udp, tcp(65_535, 65_535), tcp(85, 100)]),
        ];
        let union = PortSet::union(&sets);
        assert_eq!(union, PortSet::Ranges(vec![tcp(80, 100), tcp(65_535, 65_535), udp]));
        assert!(union.contains(6, 100) && union.contains(17, 82));
        assert!(!union.contains(6, 101) && !union.contains(132, 82));
        assert_eq!(PortSet::union([&union, &PortSet::All]), PortSet::All);
        assert!(PortSet::union([]).is_none());
    }

    #[test]
    fn a_taken_id_is_moved_on() {
        let mut ids = Ids::default();
        assert_eq!(ids.id(5, 'a'), (5, true));
        assert_eq!(ids.id(5, 'b'), (6, true));
        assert_eq!(ids.id(5, 'a'), (5, false));
        assert_eq!(ids.id(u64::from(ID_LIMIT - 1), 'c'), (ID_LIMIT - 1, true));
        assert_eq!(ids.id(u64::from(ID_LIMIT - 1), 'd'), (0, true));
        ids.remove(5);
        assert_eq!(ids.id(5, 'e'), (5, true));
    }
}
