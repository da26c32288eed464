//! Writing DER (X.690): what certificates consist of.

use jiff::Timestamp;
use jiff::tz::TimeZone;

pub const INTEGER: u8 = 0x02;
pub const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;

/// An element: its tag, length and content.
pub fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut der = vec![tag];
    match u8::try_from(content.len()) {
        Ok(length) if length < 0x80 => der.push(length),
        _ => {
            let bytes = content.len().to_be_bytes();
            let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1);
            let significant = &bytes[start..];
            // A length has eight bytes at most.
            der.push(0x80 | significant.len() as u8);
            der.extend(significant);
        }
    }
    der.extend(content);
    der
}

pub fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    element(SEQUENCE, &parts.concat())
}

pub fn octets(content: &[u8]) -> Vec<u8> {
    element(OCTET_STRING, content)
}

/// Bits in whole bytes.
pub fn bit_string(bytes: &[u8]) -> Vec<u8> {
    element(BIT_STRING, &[&[0], bytes].concat())
}

/// Named bits, of which trailing zeros are left out.
pub fn named_bits(bits: &[u8]) -> Vec<u8> {
    let Some(highest) = bits.iter().max().copied() else {
        return element(BIT_STRING, &[0]);
    };
    let mut bytes = vec![0_u8; usize::from(highest / 8) + 1];
    for bit in bits {
        bytes[usize::from(bit / 8)] |= 0x80 >> (bit % 8);
    }
    element(BIT_STRING, &[&[7 - highest % 8], bytes.as_slice()].concat())
}

pub fn object_identifier(arcs: &[u64]) -> Vec<u8> {
    let (first, rest) = arcs.split_at(arcs.len().min(2));
    let mut content = Vec::new();
    let start = first.iter().fold(0, |sum, arc| sum * 40 + arc);
    for arc in std::iter::once(&start).chain(rest) {
        let mut digits = vec![(arc & 0x7f) as u8];
        let mut left = arc >> 7;
        while left > 0 {
            digits.push(0x80 | (left & 0x7f) as u8);
            left >>= 7;
        }
        content.extend(digits.iter().rev());
    }
    element(OBJECT_IDENTIFIER, &content)
}

/// As RFC 5280 4.1.2.5 demands: two digits of the year before 2050.
pub fn time(at: Timestamp) -> Vec<u8> {
    let at = at.to_zoned(TimeZone::UTC);
    if (1950..2050).contains(&at.year()) {
        element(UTC_TIME, at.strftime("%y%m%d%H%M%SZ").to_string().as_bytes())
    } else {
        element(GENERALIZED_TIME, at.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_as_others_encode_them() {
        assert_eq!(element(4, &[]), [4, 0]);
        assert_eq!(element(4, &[0; 127])[..2], [4, 127]);
        assert_eq!(element(4, &[0; 128])[..3], [4, 0x81, 128]);
        assert_eq!(element(4, &[0; 300])[..4], [4, 0x82, 1, 44]);
        assert_eq!(named_bits(&[0, 2]), [3, 2, 5, 0xa0]);
        assert_eq!(named_bits(&[8]), [3, 3, 7, 0, 0x80]);
        assert_eq!(named_bits(&[]), [3, 1, 0]);
        assert_eq!(
            object_identifier(&[1, 2, 840, 113_549]),
            [6, 6, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d]
        );
        assert_eq!(object_identifier(&[2, 5, 29, 15]), [6, 3, 0x55, 0x1d, 0x0f]);
        let second = |text: &str| time(text.parse().unwrap());
        assert_eq!(&second("2049-12-31T23:59:59Z")[2..], b"491231235959Z");
        assert_eq!(&second("2050-01-01T00:00:00Z")[2..], b"20500101000000Z");
    }
}
