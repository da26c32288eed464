//! Keys of objects in the store: Kubernetes' layout, with the group as a segment of its own.

use api::KindRow;
use bytes::Bytes;

/// The prefix of everything that the apiserver stores.
pub const ROOT: &str = "/registry/";

/// `pods` or `apps/deployments`.
pub fn segment(row: &KindRow) -> String {
    if row.group.is_empty() {
        row.plural.to_string()
    } else {
        format!("{}/{}", row.group, row.plural)
    }
}

/// The prefix of a resource, or of one namespace of it.
pub fn prefix(row: &KindRow, namespace: &str) -> Bytes {
    let segment = segment(row);
    if namespace.is_empty() {
        format!("{ROOT}{segment}/").into()
    } else {
        format!("{ROOT}{segment}/{namespace}/").into()
    }
}

/// The key of an object, by its key within the resource.
pub fn object(row: &KindRow, key: &str) -> Bytes {
    format!("{ROOT}{}/{key}", segment(row)).into()
}
