//! The on-disk layout of a version of a key.
//!
//! `create: u64 | version: u64 | lease: i64 | key length: u32 | key | value`, little endian; the
//! position in history is the key of the record in the table. A deletion has version zero and no
//! value.

use etcd_client::proto::PbKeyValue;
use redb::Error;

use super::index::{Position, Version};

const HEADER_BYTES: usize = 28;

/// A record in the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'a> {
    pub(super) create: u64,
    pub(super) version: u64,
    pub(super) lease: i64,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

impl<'a> Record<'a> {
    pub(super) fn encoded_len(&self) -> usize {
        HEADER_BYTES + self.key.len() + self.value.len()
    }

    /// Encodes the record into a buffer of exactly [`Record::encoded_len`] bytes.
    pub(super) fn encode(&self, buffer: &mut [u8]) {
        let key_end = HEADER_BYTES + self.key.len();
        let key_len = u32::try_from(self.key.len()).expect("a request is far smaller than 4 GiB");
        buffer[0..8].copy_from_slice(&self.create.to_le_bytes());
        buffer[8..16].copy_from_slice(&self.version.to_le_bytes());
        buffer[16..24].copy_from_slice(&self.lease.to_le_bytes());
        buffer[24..28].copy_from_slice(&key_len.to_le_bytes());
        buffer[HEADER_BYTES..key_end].copy_from_slice(self.key);
        buffer[key_end..].copy_from_slice(self.value);
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Record<'a>, Error> {
        Record::try_decode(bytes)
            .ok_or_else(|| Error::Corrupted("a record is truncated".to_owned()))
    }

    fn try_decode(bytes: &'a [u8]) -> Option<Record<'a>> {
        let (create, rest) = bytes.split_first_chunk()?;
        let (version, rest) = rest.split_first_chunk()?;
        let (lease, rest) = rest.split_first_chunk()?;
        let (key_len, rest) = rest.split_first_chunk()?;
        let (key, value) = rest.split_at_checked(u32::from_le_bytes(*key_len) as usize)?;
        Some(Record {
            create: u64::from_le_bytes(*create),
            version: u64::from_le_bytes(*version),
            lease: i64::from_le_bytes(*lease),
            key,
            value,
        })
    }

    /// The index entry of this record.
    pub(super) fn version_at(&self, position: Position) -> Version {
        Version {
            main: position.main,
            create: self.create,
            version: self.version,
            lease: self.lease,
            sub: position.sub,
            record_bytes: u32::try_from(self.encoded_len()).unwrap_or(u32::MAX),
        }
    }

    /// The record in the API's form.
    pub(super) fn to_key_value(self, main: u64) -> PbKeyValue {
        PbKeyValue {
            key: self.key.to_vec(),
            create_revision: wire(self.create),
            mod_revision: wire(main),
            version: wire(self.version),
            value: self.value.to_vec(),
            lease: self.lease,
        }
    }
}

/// A revision or version as a signed number of the API.
pub(super) fn wire(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::Record;

    #[test]
    fn decode_reverses_encode_and_rejects_short_input() {
        let record = Record { create: 7, version: 3, lease: -5, key: b"/registry/a", value: b"{}" };
        let mut buffer = vec![0; record.encoded_len()];
        record.encode(&mut buffer);
        let back = Record::decode(&buffer).unwrap();
        assert_eq!((back.create, back.version, back.lease), (7, 3, -5));
        assert_eq!((back.key, back.value), (b"/registry/a".as_slice(), b"{}".as_slice()));
        for cut in 0..buffer.len() - 2 {
            assert!(Record::decode(&buffer[..cut]).is_err(), "{cut}");
        }
    }
}
