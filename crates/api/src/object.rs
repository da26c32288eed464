//! Objects whose type is known only at run time.
//!
//! The apiserver's verbs are written once for all kinds. They hold a `Box<dyn Object>`, work on its
//! metadata, and pass it to the kind's strategy, which converts it to its type with `downcast_ref`.

use std::any::Any;
use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;

use crate::kind::{DecodeError, Kind, KindRow};

/// An object of any kind.
pub trait Object: Any + Debug + Send + Sync {
    fn row(&self) -> &'static KindRow;
    fn metadata(&self) -> &ObjectMeta;
    fn metadata_mut(&mut self) -> &mut ObjectMeta;
    /// JSON with `apiVersion` and `kind` first.
    fn encode(&self) -> Vec<u8>;
    fn clone_object(&self) -> Box<dyn Object>;
    /// Whether both have the same type and are equal in every field.
    fn equals(&self, other: &dyn Object) -> bool;
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

impl<K: Kind> Object for K {
    fn row(&self) -> &'static KindRow {
        K::ROW
    }

    fn metadata(&self) -> &ObjectMeta {
        k8s_openapi::Metadata::metadata(self)
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        k8s_openapi::Metadata::metadata_mut(self)
    }

    fn encode(&self) -> Vec<u8> {
        Kind::encode(self)
    }

    fn clone_object(&self) -> Box<dyn Object> {
        Box::new(self.clone())
    }

    fn equals(&self, other: &dyn Object) -> bool {
        other.as_any().downcast_ref::<K>().is_some_and(|other| self == other)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

impl dyn Object {
    pub fn downcast_ref<K: Kind>(&self) -> Option<&K> {
        self.as_any().downcast_ref()
    }

    pub fn downcast_mut<K: Kind>(&mut self) -> Option<&mut K> {
        self.as_any_mut().downcast_mut()
    }
}

/// Decodes an object of one kind.
pub type Decode = fn(&[u8]) -> Result<Box<dyn Object>, DecodeError>;
/// Decodes an object of one kind, and returns the paths of unknown fields.
pub type DecodeStrict = fn(&[u8]) -> Result<(Box<dyn Object>, Vec<String>), DecodeError>;

/// The decoders of one kind.
pub struct Codec {
    /// Ignores unknown fields: for stored objects.
    pub decode: Decode,
    /// Also returns the paths of unknown fields (`spec.foo`, `spec.containers[0].bar`): for what
    /// clients send.
    pub decode_strict: DecodeStrict,
}

impl Codec {
    pub(crate) const fn of<K: Kind>(decode_strict: DecodeStrict) -> Self {
        Self { decode: decode::<K>, decode_strict }
    }
}

fn decode<K: Kind>(json: &[u8]) -> Result<Box<dyn Object>, DecodeError> {
    Ok(Box::new(K::decode(json)?))
}

pub(crate) fn decode_strict<K: Kind + DeserializeOwned>(
    json: &[u8],
) -> Result<(Box<dyn Object>, Vec<String>), DecodeError> {
    let mut unknown = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let object: K =
        serde_ignored::deserialize(&mut deserializer, |path| unknown.push(field_path(&path)))
            .and_then(|object| deserializer.end().map(|()| object))
            .map_err(|source| DecodeError { kind: K::KIND, source })?;
    Ok((Box::new(object), unknown))
}

/// `spec.containers[0].foo`, in the format of Kubernetes' strict decoder.
fn field_path(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", field_path(parent)),
        Path::Map { parent, key } => match field_path(parent) {
            parent if parent.is_empty() => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => field_path(parent),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    #[test]
    fn unknown_fields_are_named_by_path() {
        let codec = crate::kind::codec(<Pod as crate::Kind>::ROW).unwrap();
        let json = br#"{"metadata":{"name":"a","x":1},"spec":{"containers":[{"name":"c","foo":{"a":1}}],"bar":[]}}"#;
        let (object, unknown) = (codec.decode_strict)(json).unwrap();
        assert_eq!(object.metadata().name.as_deref(), Some("a"));
        assert_eq!(unknown, ["metadata.x", "spec.containers[0].foo", "spec.bar"]);
    }

    #[test]
    fn every_kind_survives_a_round_trip() {
        for (row, codec) in crate::kind::KINDS.iter().zip(crate::kind::CODECS) {
            let json = format!(
                r#"{{"apiVersion":"{}","kind":"{}","metadata":{{"name":"a"}}}}"#,
                row.api_version(),
                row.kind
            );
            let object =
                (codec.decode)(json.as_bytes()).unwrap_or_else(|error| panic!("{row}: {error:?}"));
            let again = (codec.decode)(&object.encode()).unwrap();
            assert!(object.equals(&*again), "{row}");
            assert_eq!(object.row(), *row);
        }
    }
}
