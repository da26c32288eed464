//! One version of one object, as the cache stores and serves it.
//!
//! Flow: the store's value comes without a resourceVersion; it is scanned once for what routing and
//! selectors need (name, uid, labels, selectable fields), the revision is spliced in, and from then
//! on the same `Bytes` serve every get, list and watch. Allocations: the bytes, the key, the
//! labels, the selectable fields.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::KindRow;
use api::structural::TooLarge;
use bytes::Bytes;

use super::selectable;
use crate::scan;

/// What a label costs beside its bytes: there are seldom many, and the smallest node of a map has
/// places for eleven.
const LABEL_BYTES: usize = 256;

/// Why a stored value cannot be read as an object.
#[derive(Debug, thiserror::Error)]
pub enum MalformedValue {
    #[error("the stored value of {key} is not an object with metadata")]
    NoMetadata { key: String },
    #[error("the stored value of {key} cannot be read: {source}")]
    TooLarge {
        key: String,
        #[source]
        source: TooLarge,
    },
}

/// An object at a revision: its encoded bytes and what selectors match.
#[derive(Debug)]
pub struct Version {
    pub namespace: Box<str>,
    pub name: Box<str>,
    pub uid: Box<str>,
    pub revision: u64,
    pub labels: Option<BTreeMap<String, String>>,
    /// Values of the row's selectable fields, in the row's order.
    pub fields: Box<[Box<str>]>,
    /// The object with its resourceVersion.
    pub json: Bytes,
    /// Position and length of `"resourceVersion":"N",` in `json`; (0, 0): not spliced.
    splice: (usize, usize),
    /// What is stored, if it is read as something else: pruned, with other defaults.
    stored: Option<Box<[u8]>>,
}

impl Version {
    /// Scans a value of the store.
    ///
    /// # Errors
    /// When the value has no metadata, or its defaults are too large.
    pub fn from_stored(
        row: &KindRow,
        key: &str,
        value: &[u8],
        revision: u64,
    ) -> Result<Self, MalformedValue> {
        let too_large = |source| MalformedValue::TooLarge { key: key.to_owned(), source };
        let read = row.read_stored(value).map_err(too_large)?;
        let stored = read.is_some().then(|| value.into());
        Self::from_read(row, key, read.as_deref().unwrap_or(value), stored, revision)
    }

    /// Scans an object as a row reads it; `stored`: what is stored, if that is something else.
    ///
    /// # Errors
    /// When the object has no metadata.
    pub fn from_read(
        row: &KindRow,
        key: &str,
        value: &[u8],
        stored: Option<Box<[u8]>>,
        revision: u64,
    ) -> Result<Self, MalformedValue> {
        let malformed = || MalformedValue::NoMetadata { key: key.to_owned() };
        let range = scan::member(value, "metadata").ok_or_else(malformed)?;
        let metadata = value.get(range.clone()).ok_or_else(malformed)?;
        if metadata.first() != Some(&b'{') {
            return Err(malformed());
        }
        let (mut namespace, mut name, mut uid, mut labels) = Default::default();
        for (member, range) in scan::members(metadata) {
            let text = &metadata[range];
            match member {
                b"namespace" => namespace = scan::scalar(text),
                b"name" => name = scan::scalar(text),
                b"uid" => uid = scan::scalar(text),
                b"labels" => labels = serde_json::from_slice(text).unwrap_or_default(),
                _ => {}
            }
        }
        let (json, splice) = splice(value, range.start + 1, 0, revision);
        Ok(Self {
            namespace: namespace.into(),
            name: name.into(),
            uid: uid.into(),
            revision,
            labels,
            fields: selectable::values(row, value),
            json,
            splice,
            stored,
        })
    }

    /// The same object at another revision: the last state of what was deleted then.
    pub fn at_revision(&self, revision: u64) -> Self {
        let (json, splice) = splice(&self.json, self.splice.0, self.splice.1, revision);
        Self {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            revision,
            labels: self.labels.clone(),
            fields: self.fields.clone(),
            json,
            splice,
            stored: self.stored.clone(),
        }
    }

    /// The same object as another row reads and selects it.
    ///
    /// # Errors
    /// As [`Self::from_stored`].
    pub fn reread(&self, row: &KindRow) -> Result<Self, MalformedValue> {
        let shown;
        let stored = match &self.stored {
            Some(stored) => stored,
            None => {
                shown = self.without_revision();
                &shown[..]
            }
        };
        Self::from_stored(row, &self.key(), stored, self.revision)
    }

    /// The object without its resourceVersion.
    pub fn without_revision(&self) -> Vec<u8> {
        [&self.json[..self.splice.0], &self.json[self.splice.0 + self.splice.1..]].concat()
    }

    /// Whether a write that changes nothing would store what is stored: in the storage version, and
    /// with what reading it in that version adds or prunes.
    pub fn is_stored_as_written(&self, row: &KindRow) -> bool {
        if row.custom.is_none() {
            return true;
        }
        let stored = self.stored.as_deref().unwrap_or(&self.json);
        let is_read_so = self.stored.is_none() || row.reads_converted();
        is_read_so && scan::string(stored, "apiVersion") == row.storage_api_version()
    }

    /// A custom resource in the version of a row, if nothing but its name differs.
    pub fn served(self: &Arc<Self>, row: &KindRow) -> Arc<Self> {
        let is_served = row.custom.is_none() || row.converter().is_some() || {
            let wanted = row.api_version();
            let found = scan::string(&self.json, "apiVersion");
            found == wanted
        };
        if is_served { self.clone() } else { self.reread(row).map_or(self.clone(), Arc::new) }
    }

    /// An answer that was never stored: a dry run.
    pub fn unstored(row: &KindRow, value: &[u8]) -> Result<Self, MalformedValue> {
        let mut version = Self::from_stored(row, "", value, 0)?;
        version.json = Bytes::copy_from_slice(value);
        version.splice = (0, 0);
        Ok(version)
    }

    /// The value of a field that a selector names; empty when the object lacks it.
    pub fn field(&self, row: &KindRow, path: &str) -> &str {
        match path {
            "metadata.name" => &self.name,
            "metadata.namespace" => &self.namespace,
            _ => row
                .selectable
                .iter()
                .position(|field| *field == path)
                .and_then(|index| self.fields.get(index))
                .map_or("", |value| value),
        }
    }

    /// What it occupies in memory, about.
    pub fn bytes(&self) -> usize {
        let texts = self.namespace.len() + self.name.len() + self.uid.len();
        let fields = self.fields.iter().map(|field| size_of::<Box<str>>() + field.len());
        let labels = self.labels.iter().flatten();
        let labels = labels.map(|(key, value)| LABEL_BYTES + key.len() + value.len());
        let stored = self.stored.as_ref().map_or(0, |stored| stored.len());
        size_of::<Self>()
            + texts
            + fields.sum::<usize>()
            + labels.sum::<usize>()
            + self.json.len()
            + stored
    }

    /// The key within the resource: `namespace/name` or `name`.
    pub fn key(&self) -> String {
        if self.namespace.is_empty() {
            self.name.to_string()
        } else {
            format!("{}/{}", self.namespace, self.name)
        }
    }
}

/// Replaces `length` bytes at `at` (just inside the metadata object) by the revision.
fn splice(value: &[u8], at: usize, length: usize, revision: u64) -> (Bytes, (usize, usize)) {
    let rest = &value[at + length..];
    let comma = if rest.first() == Some(&b'}') { "" } else { "," };
    let text = format!("\"resourceVersion\":\"{revision}\"{comma}");
    let mut json = Vec::with_capacity(at + text.len() + rest.len());
    json.extend_from_slice(&value[..at]);
    json.extend_from_slice(text.as_bytes());
    json.extend_from_slice(rest);
    (json.into(), (at, text.len()))
}

#[cfg(test)]
mod tests {
    use api::Kind;
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    #[test]
    fn the_revision_is_spliced_and_replaced() {
        let value = br#"{"apiVersion":"v1","kind":"Pod","metadata":{"labels":{"a":"b"},"name":"n","namespace":"ns","uid":"u"},"spec":{"nodeName":"x"}}"#;
        let version = Version::from_stored(Pod::ROW, "k", value, 7).unwrap();
        assert_eq!(version.key(), "ns/n");
        assert_eq!(version.field(Pod::ROW, "spec.nodeName"), "x");
        assert_eq!(version.field(Pod::ROW, "spec.hostNetwork"), "false");
        let pod = Pod::decode(&version.json).unwrap();
        assert_eq!(pod.metadata.resource_version.as_deref(), Some("7"));
        let later = version.at_revision(12345);
        let pod = Pod::decode(&later.json).unwrap();
        assert_eq!(pod.metadata.resource_version.as_deref(), Some("12345"));
        assert_eq!(pod.metadata.name.as_deref(), Some("n"));
        assert!(Version::from_stored(Pod::ROW, "k", b"[]", 1).is_err());
    }
}
