//! What is stored of a value whose key is held by a plugin: the value, encrypted by a key of its
//! own, and what the plugin needs to find the seed of that key
//! (`k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2`).

use std::collections::BTreeMap;

use prost::Message;
use ring::hkdf::{HKDF_SHA256, Prk};
use store::Unreadable;

use super::cipher::{Gcm, TOO_SHORT};

/// Upper bounds of what plugins may return, in bytes.
const SOURCE_BYTES: usize = 1 << 10;
const KEY_ID_BYTES: usize = 1 << 10;
const ANNOTATION_BYTES: usize = 32 << 10;
/// Bytes of a seed, of a derived key, and of what it is derived with.
pub const SEED: usize = 32;

/// The type of keys whose values carry what their own key is derived with.
pub const SEEDED: i32 = 1;
const PLAIN: i32 = 0;

/// The stored message: upstream's `EncryptedObject`.
#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
    #[prost(string, tag = "2")]
    key_id: String,
    #[prost(bytes = "vec", tag = "3")]
    source: Vec<u8>,
    #[prost(btree_map = "string, bytes", tag = "4")]
    annotations: BTreeMap<String, Vec<u8>>,
    #[prost(int32, tag = "5")]
    source_type: i32,
}

/// What a plugin needs to find a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DataKeyId {
    pub key_id: String,
    /// The key, encrypted by the plugin.
    pub source: Vec<u8>,
    pub annotations: BTreeMap<String, Vec<u8>>,
    pub source_type: i32,
}

impl DataKeyId {
    /// # Errors
    /// When a plugin must not have returned it.
    pub fn check(&self) -> Result<(), Unreadable> {
        if !matches!(self.source_type, PLAIN | SEEDED) {
            return Err(format!("unknown encryptedDEKSourceType: {}", self.source_type).into());
        }
        let source = "failed to validate encrypted DEK source: encrypted DEK source is";
        match self.source.len() {
            0 => return Err(format!("{source} empty").into()),
            1..=SOURCE_BYTES => {}
            size => {
                let problem = format!("{size} bytes, which exceeds the max size of {SOURCE_BYTES}");
                return Err(format!("{source} {problem}").into());
            }
        }
        check_key_id(&self.key_id)
            .map_err(|problem| Unreadable::from(format!("failed to validate key id: {problem}")))?;
        let mut size = 0;
        for (name, value) in &self.annotations {
            let problems = api::names::dns_subdomain(name);
            if !name.contains('.') || !problems.is_empty() {
                let problem = format!(
                    "failed to validate annotations: annotations: Invalid value: {name:?}: should be a domain with at least two segments separated by dots"
                );
                return Err(problem.into());
            }
            size += name.len() + value.len();
        }
        if size > ANNOTATION_BYTES {
            return Err(format!("failed to validate annotations: total size of annotations is {size}, which exceeds the max size of {ANNOTATION_BYTES}").into());
        }
        Ok(())
    }
}

/// # Errors
/// When the id is none.
pub fn check_key_id(id: &str) -> Result<(), String> {
    match id.len() {
        0 => Err("keyID is empty".to_owned()),
        1..=KEY_ID_BYTES => Ok(()),
        size => Err(format!("keyID is {size} bytes, which exceeds the max size of {KEY_ID_BYTES}")),
    }
}

/// An encrypted value.
pub struct Envelope {
    pub id: DataKeyId,
    pub data: Vec<u8>,
}

impl Envelope {
    pub fn encode(self) -> Vec<u8> {
        let DataKeyId { key_id, source, annotations, source_type } = self.id;
        Stored { data: self.data, key_id, source, annotations, source_type }.encode_to_vec()
    }

    /// # Errors
    /// When it is not complete.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let stored =
            Stored::decode(bytes).map_err(|_| "proto: cannot parse invalid wire-format data")?;
        let Stored { data, key_id, source, annotations, source_type } = stored;
        if data.is_empty() {
            return Err("encrypted data is empty".into());
        }
        let id = DataKeyId { key_id, source, annotations, source_type };
        id.check()?;
        Ok(Self { id, data })
    }
}

/// A key in plain form.
pub enum DataKey {
    /// The key of each value is derived from the seed.
    Seed(Box<Prk>),
    /// Of former versions, for reading.
    Key(Gcm),
}

impl DataKey {
    /// # Errors
    /// When the plugin has returned what is no key.
    pub fn new(source_type: i32, plain: &[u8]) -> Result<Self, Unreadable> {
        if source_type == PLAIN {
            return Gcm::new(plain).map(Self::Key).map_err(Unreadable::from);
        }
        if plain.len() < SEED {
            let size = plain.len();
            return Err(format!("invalid seed length {size} used for key generation").into());
        }
        Ok(Self::Seed(Box::new(Prk::new_less_safe(HKDF_SHA256, plain))))
    }

    pub fn seal(&self, key: &[u8], value: &[u8]) -> Result<Vec<u8>, &'static str> {
        match self {
            Self::Seed(seed) => {
                let info: [u8; SEED] = rand::random();
                Ok([&info[..], &derived(seed, &info)?.seal(key, value)?].concat())
            }
            Self::Key(cipher) => cipher.seal(key, value),
        }
    }

    pub fn open(&self, key: &[u8], stored: &[u8]) -> Result<Vec<u8>, &'static str> {
        match self {
            Self::Seed(seed) => {
                let (info, sealed) = stored.split_at_checked(SEED).ok_or(TOO_SHORT)?;
                derived(seed, info)?.open(key, sealed)
            }
            Self::Key(cipher) => cipher.open(key, stored),
        }
    }
}

/// The key that is derived from a seed.
fn derived(seed: &Prk, info: &[u8]) -> Result<Gcm, &'static str> {
    let mut key = [0; SEED];
    let parts = [info];
    let filled = seed.expand(&parts, HKDF_SHA256).and_then(|derived| derived.fill(&mut key));
    filled.map_err(|_| "failed to read a derived key from KDF")?;
    Gcm::new(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> DataKeyId {
        DataKeyId {
            key_id: "1".to_owned(),
            source: vec![1, 2],
            annotations: BTreeMap::from([("a.example.com".to_owned(), vec![3])]),
            source_type: SEEDED,
        }
    }

    #[test]
    fn envelopes_are_read_as_they_are_written() {
        let bytes = Envelope { id: id(), data: vec![9; 40] }.encode();
        let read = Envelope::decode(&bytes).ok().unwrap();
        assert_eq!((read.id, read.data), (id(), vec![9; 40]));
        assert!(Envelope::decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(Envelope::decode(b"").is_err());
    }

    #[test]
    fn plugins_return_bounded_parts() {
        let refused = |change: fn(&mut DataKeyId)| {
            let mut id = id();
            change(&mut id);
            id.check().is_err()
        };
        assert!(!refused(|_| ()));
        assert!(refused(|id| id.source.clear()));
        assert!(refused(|id| id.source = vec![0; SOURCE_BYTES + 1]));
        assert!(refused(|id| id.key_id.clear()));
        assert!(refused(|id| id.key_id = "a".repeat(KEY_ID_BYTES + 1)));
        assert!(refused(|id| id.source_type = 2));
        assert!(refused(|id| id.annotations = BTreeMap::from([("short".to_owned(), Vec::new())])));
        assert!(refused(|id| {
            id.annotations = BTreeMap::from([("a.b".to_owned(), vec![0; ANNOTATION_BYTES])]);
        }));
    }

    /// RFC 5869, test case 1: the expansion step alone.
    #[test]
    fn keys_are_derived_by_expansion() {
        let bytes = |hex: &str| -> Vec<u8> {
            let pair = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            (0..hex.len()).step_by(2).map(pair).collect()
        };
        let seed = bytes("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5");
        let seed = Prk::new_less_safe(HKDF_SHA256, &seed);
        let info = bytes("f0f1f2f3f4f5f6f7f8f9");
        let key = bytes("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf");
        let sealed = derived(&seed, &info).unwrap().seal(b"k", b"value").unwrap();
        assert_eq!(Gcm::new(&key).unwrap().open(b"k", &sealed).unwrap(), b"value");
    }
}
