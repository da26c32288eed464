//! The form in which objects are stored: JSON with `apiVersion`, `kind` and `metadata` first and
//! without a resourceVersion.

use api::object::Object;
use bytes::Bytes;

use crate::scan;

/// Encodes an object for the store, once per version.
pub fn encode(object: &mut dyn Object) -> Bytes {
    object.metadata_mut().resource_version = None;
    metadata_first(object.encode()).into()
}

/// Moves the metadata before all but `apiVersion` and `kind`, so that it is found quickly.
fn metadata_first(json: Vec<u8>) -> Vec<u8> {
    let parts: Vec<_> = scan::members(&json).map(|(key, value)| (key, value.clone())).collect();
    let position = parts.iter().position(|(key, _)| *key == b"metadata");
    let leading = |key: &[u8]| matches!(key, b"apiVersion" | b"kind");
    let Some(position) = position else {
        return json;
    };
    if parts[..position].iter().all(|(key, _)| leading(key)) {
        return json;
    }
    let (first, rest): (Vec<_>, Vec<_>) =
        parts.iter().partition(|(key, _)| leading(key) || *key == b"metadata");
    let mut out = Vec::with_capacity(json.len());
    out.push(b'{');
    for (index, (key, value)) in first.into_iter().chain(rest).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(key);
        out.extend_from_slice(b"\":");
        out.extend_from_slice(&json[value.clone()]);
    }
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn metadata_comes_first() {
        let json = br#"{"apiVersion":"v1","kind":"K","data":{"metadata":{"a":1}},"metadata":{"name":"n"},"z":1}"#;
        let moved = super::metadata_first(json.to_vec());
        assert_eq!(
            String::from_utf8(moved).unwrap(),
            r#"{"apiVersion":"v1","kind":"K","metadata":{"name":"n"},"data":{"metadata":{"a":1}},"z":1}"#
        );
    }
}
