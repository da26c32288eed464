//! The store's logical clock.

use std::fmt;

/// A revision of the whole store, incremented by every transaction that changes something.
///
/// Zero means "none": a key that does not exist has modification revision zero, and a read at
/// revision zero reads the newest state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

impl Revision {
    /// No revision: the newest state in reads, an absent key in comparisons.
    pub const NONE: Revision = Revision(0);

    /// The revision with this number. Numbers above `i64::MAX` do not exist in etcd's API and are
    /// clamped.
    pub const fn new(number: u64) -> Revision {
        if number > i64::MAX as u64 { Revision(i64::MAX as u64) } else { Revision(number) }
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The revision after this one, from which a watch continues that has seen everything up to
    /// this one.
    pub const fn next(self) -> Revision {
        Revision::new(self.0 + 1)
    }

    /// Whether this is [`Revision::NONE`].
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    pub(crate) const fn from_wire(number: i64) -> Revision {
        if number < 0 { Revision(0) } else { Revision(number as u64) }
    }

    pub(crate) const fn to_wire(self) -> i64 {
        self.0 as i64
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u64> for Revision {
    fn from(number: u64) -> Revision {
        Revision::new(number)
    }
}
