//! Ranges of keys as requests name them.

use std::ops::Bound;

/// The keys that a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyRange {
    start: Vec<u8>,
    end: End,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// Only the start key.
    Same,
    /// Every key from the start on.
    Open,
    /// Keys before this one.
    Before(Vec<u8>),
}

impl KeyRange {
    /// The range of a request: no end means one key, an end of one zero byte means no end.
    /// Rule: <https://etcd.io/docs/v3.5/learning/api/#key-ranges>.
    pub(super) fn new(start: &[u8], end: &[u8]) -> KeyRange {
        let end = match end {
            [] => End::Same,
            [0] => End::Open,
            end => End::Before(end.to_vec()),
        };
        KeyRange { start: start.to_vec(), end }
    }

    /// Whether no key can be in it.
    pub(super) fn is_empty(&self) -> bool {
        matches!(&self.end, End::Before(end) if self.start >= *end)
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            End::Same => key == self.start,
            End::Open => key >= self.start.as_slice(),
            End::Before(end) => key >= self.start.as_slice() && key < end.as_slice(),
        }
    }

    /// The bounds, for a range that is not empty.
    pub(super) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let end = match &self.end {
            End::Same => Bound::Included(self.start.as_slice()),
            End::Open => Bound::Unbounded,
            End::Before(end) => Bound::Excluded(end.as_slice()),
        };
        (Bound::Included(self.start.as_slice()), end)
    }
}

#[cfg(test)]
mod tests {
    use super::KeyRange;

    #[test]
    fn ends_mean_what_etcd_says() {
        for (start, end, key, inside) in [
            ("a", "", "a", true),
            ("a", "", "aa", false),
            ("a", "\0", "zzz", true),
            ("b", "\0", "a", false),
            ("a", "c", "a", true),
            ("a", "c", "bzz", true),
            ("a", "c", "c", false),
            ("c", "a", "b", false),
        ] {
            let range = KeyRange::new(start.as_bytes(), end.as_bytes());
            assert_eq!(range.contains(key.as_bytes()), inside, "{key:?} in {range:?}");
        }
        assert!(KeyRange::new(b"c", b"a").is_empty() && !KeyRange::new(b"c", b"").is_empty());
    }
}
