//! Protobuf's wire format: fields as number and payload
//! (<https://protobuf.dev/programming-guides/encoding/>).

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WireError {
    #[error("the message ends inside a field")]
    Truncated,
    #[error("a number is longer than 64 bits")]
    Varint,
    #[error("a field has wire type {0}, which is not used")]
    WireType(u8),
    #[error("a field has number {0}, which is not valid")]
    Number(u64),
}

/// The content of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// The fields of a message, in the order in which they are written.
///
/// # Errors
/// When the bytes are not a message.
pub fn fields(mut bytes: &[u8]) -> Result<Vec<(u16, Payload<'_>)>, WireError> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let number = u16::try_from(key >> 3).map_err(|_| WireError::Number(key >> 3))?;
        let payload = match key & 7 {
            0 => Payload::Varint(varint(&mut bytes)?),
            1 => Payload::Fixed64(u64::from_le_bytes(fixed(&mut bytes)?)),
            2 => {
                let length =
                    usize::try_from(varint(&mut bytes)?).map_err(|_| WireError::Truncated)?;
                let (payload, rest) = bytes.split_at_checked(length).ok_or(WireError::Truncated)?;
                bytes = rest;
                Payload::Bytes(payload)
            }
            5 => Payload::Fixed32(u32::from_le_bytes(fixed(&mut bytes)?)),
            other => return Err(WireError::WireType(other as u8)),
        };
        found.push((number, payload));
    }
    Ok(found)
}

/// Packed numbers, written one after the other without a field number.
///
/// # Errors
/// When the bytes are not packed numbers.
pub fn packed(mut bytes: &[u8]) -> Result<Vec<i64>, WireError> {
    let mut numbers = Vec::new();
    while !bytes.is_empty() {
        numbers.push(varint(&mut bytes)? as i64);
    }
    Ok(numbers)
}

fn varint(bytes: &mut &[u8]) -> Result<u64, WireError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or(WireError::Truncated)?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(WireError::Varint)
}

fn fixed<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], WireError> {
    let (first, rest) = bytes.split_first_chunk::<N>().ok_or(WireError::Truncated)?;
    *bytes = rest;
    Ok(*first)
}
