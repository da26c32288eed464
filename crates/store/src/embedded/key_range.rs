//! Key ranges of requests.

use std::ops::Bound;

/// The range of keys that a request applies to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyRange {
    start: Vec<u8>,
    end: End,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// Only the start key.
    Same,
    /// All keys from the start key on.
    Open,
    /// Keys before this one.
    Before(Vec<u8>),
}

impl KeyRange {
    /// An empty end stands for the single start key, a single zero byte for no end:
    /// <https://etcd.io/docs/v3.5/learning/api/#key-ranges>.
    pub(super) fn new(start: &[u8], end: &[u8]) -> KeyRange {
        let end = match end {
            [] => End::Same,
            [0] => End::Open,
            end => End::Before(end.to_vec()),
        };
        KeyRange { start: start.to_vec(), end }
    }

    /// Whether the range contains no keys.
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

    /// The bounds of a range that is not empty.
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
    fn ends_follow_etcds_rules() {
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
