//! Finds members of a JSON object without decoding it.
//!
//! Works on JSON that serde_json wrote or accepted; on anything else it ends early and never
//! panics. Hot path: one pass over the bytes, no allocation.

use std::ops::Range;

/// The members of the object that starts at the first byte of `json`, in order.
pub struct Members<'a> {
    json: &'a [u8],
    at: usize,
}

/// Iterates over the members of a JSON object: the key without quotes (escapes left as they are)
/// and the range of the value within `json`.
pub fn members(json: &[u8]) -> Members<'_> {
    let start = skip_space(json, 0);
    let at = if json.get(start) == Some(&b'{') { start + 1 } else { json.len() };
    Members { json, at }
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a [u8], Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        let mut at = skip_space(self.json, self.at);
        if self.json.get(at) == Some(&b',') {
            at = skip_space(self.json, at + 1);
        }
        if self.json.get(at) != Some(&b'"') {
            return None;
        }
        let key_end = skip_string(self.json, at)?;
        let key = self.json.get(at + 1..key_end - 1)?;
        at = skip_space(self.json, key_end);
        if self.json.get(at) != Some(&b':') {
            return None;
        }
        let start = skip_space(self.json, at + 1);
        let end = skip_value(self.json, start)?;
        self.at = end;
        Some((key, start..end))
    }
}

/// The range of the value of `key` in the object `json`.
pub fn member(json: &[u8], key: &str) -> Option<Range<usize>> {
    members(json).find(|(name, _)| *name == key.as_bytes()).map(|(_, range)| range)
}

/// The bytes of the value at a dotted path: `spec.nodeName`.
pub fn at_path<'a>(json: &'a [u8], path: &str) -> Option<&'a [u8]> {
    path.split('.').try_fold(json, |json, key| {
        let range = member(json, key)?;
        json.get(range)
    })
}

/// A JSON scalar as text: strings without quotes and escapes, the rest as written.
pub fn scalar(value: &[u8]) -> String {
    match value {
        [b'"', inner @ .., b'"'] if !inner.contains(&b'\\') => {
            String::from_utf8_lossy(inner).into_owned()
        }
        [b'"', ..] => serde_json::from_slice(value).unwrap_or_default(),
        b"null" => String::new(),
        other => String::from_utf8_lossy(other).into_owned(),
    }
}

/// The string at a top-level key; empty when it is absent.
pub fn string(json: &[u8], key: &str) -> String {
    member(json, key).and_then(|range| json.get(range)).map(scalar).unwrap_or_default()
}

fn skip_space(json: &[u8], mut at: usize) -> usize {
    while matches!(json.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at += 1;
    }
    at
}

/// From an opening quote to after the closing one.
fn skip_string(json: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match json.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn skip_value(json: &[u8], start: usize) -> Option<usize> {
    match json.get(start)? {
        b'"' => skip_string(json, start),
        b'{' | b'[' => skip_nested(json, start),
        _ => {
            let rest = json.get(start..)?;
            let length = rest
                .iter()
                .position(|byte| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t'))
                .unwrap_or(rest.len());
            Some(start + length)
        }
    }
}

fn skip_nested(json: &[u8], start: usize) -> Option<usize> {
    let (mut at, mut depth) = (start, 0usize);
    loop {
        match json.get(at)? {
            b'"' => {
                at = skip_string(json, at)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_at_their_level() {
        let json = br#" {"a":{"metadata":{"x":1}}, "b\"c": "}\"{" ,"metadata":{"name":"n","labels":{}},"n":12,"t":true}"#;
        let keys: Vec<_> =
            members(json).map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect();
        assert_eq!(keys, ["a", "b\\\"c", "metadata", "n", "t"]);
        assert_eq!(at_path(json, "metadata.name").map(scalar).as_deref(), Some("n"));
        assert_eq!(at_path(json, "n").map(scalar).as_deref(), Some("12"));
        assert_eq!(at_path(json, "metadata.missing"), None);
    }

    #[test]
    fn broken_json_ends_early() {
        for json in [&b"{"[..], b"{\"a", b"{\"a\":", b"{\"a\":{", b"[1]", b"", b"{\"a\":\"\\"] {
            assert!(members(json).count() <= 1, "{json:?}");
            assert_eq!(member(json, "zz"), None);
        }
    }
}
