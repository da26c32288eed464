//! Objects whose type is known only at run time.
//!
//! The apiserver's verbs are written once for all kinds. They hold a `Box<dyn Object>`, work on its
//! metadata, and pass it to the kind's strategy, which converts it to its type with `downcast_ref`.

use std::any::Any;
use std::fmt::Debug;

use serde_json::Value;

use crate::kind::{DecodeError, Kind, KindRef};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// An object of any kind.
pub trait Object: Any + Debug + Send + Sync {
    fn row(&self) -> KindRef;
    fn metadata(&self) -> &ObjectMeta;
    fn metadata_mut(&mut self) -> &mut ObjectMeta;
    /// JSON with `apiVersion` and `kind` first.
    fn encode(&self) -> Vec<u8>;
    /// The same as a tree.
    fn json(&self) -> Value;
    fn clone_object(&self) -> Box<dyn Object>;
    /// Whether both have the same type and are equal in every field.
    fn equals(&self, other: &dyn Object) -> bool;
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

impl<K: Kind> Object for K {
    fn row(&self) -> KindRef {
        K::ROW.into()
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

    fn json(&self) -> Value {
        serde_json::to_value(self).expect("Kubernetes types always serialize to JSON")
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
type Decode = fn(&[u8]) -> Result<Box<dyn Object>, DecodeError>;

/// The decoder of one kind.
pub struct Codec {
    decode: Decode,
}

impl Codec {
    pub(crate) const fn of<K: Kind>() -> Self {
        Self { decode: decode::<K> }
    }

    /// Decodes JSON; unknown fields are ignored, as in what the store holds.
    ///
    /// # Errors
    /// When the JSON does not fit the kind.
    pub fn decode(&self, json: &[u8]) -> Result<Box<dyn Object>, DecodeError> {
        (self.decode)(json)
    }
}

fn decode<K: Kind>(json: &[u8]) -> Result<Box<dyn Object>, DecodeError> {
    Ok(Box::new(K::decode(json)?))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_kind_survives_a_round_trip() {
        for (row, codec) in crate::kind::KINDS.iter().zip(crate::kind::CODECS) {
            let json = format!(
                r#"{{"apiVersion":"{}","kind":"{}","metadata":{{"name":"a"}}}}"#,
                row.api_version(),
                row.kind
            );
            let object =
                codec.decode(json.as_bytes()).unwrap_or_else(|error| panic!("{row}: {error:?}"));
            let again = codec.decode(&object.encode()).unwrap();
            assert!(object.equals(&*again), "{row}");
            assert_eq!(object.row(), *row);
        }
    }
}
