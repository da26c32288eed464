//! Encoding of netlink messages: `nlmsghdr`, `nfgenmsg`, then attributes aligned to 4 bytes.

/// The length of `struct nlmsghdr` and `struct nfgenmsg` together.
pub(crate) const HEADERS: usize = 16 + 4;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// A buffer of consecutive netfilter netlink messages.
#[derive(Default)]
pub struct Message {
    bytes: Vec<u8>,
    start: usize,
}

impl Message {
    /// Begins a message; `kind` is `subsystem << 8 | type`, `resource` is the header's `res_id`.
    pub fn begin(&mut self, kind: u16, flags: u16, sequence: u32, family: u8, resource: u16) {
        self.start = self.bytes.len();
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(sequence.to_ne_bytes());
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
    }

    /// Ends the current message.
    pub fn end(&mut self) {
        let length = u32::try_from(self.bytes.len() - self.start).expect("a message is below 4 GB");
        self.bytes[self.start..self.start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Sets a flag on the last message.
    pub fn flag_last(&mut self, flag: u16) {
        let at = self.start + 6;
        let flags = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]) | flag;
        self.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
    }

    /// The current length of the message being written.
    pub fn current_len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Appends attributes that are already encoded.
    pub fn raw(&mut self, attributes: &[u8]) {
        self.bytes.extend(attributes);
    }

    pub fn attr(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).expect("an attribute is below 64 KB");
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// A number in nf_tables' byte order: big endian.
    pub fn attr_u32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_be_bytes());
    }

    pub fn attr_u64(&mut self, kind: u16, value: u64) {
        self.attr(kind, &value.to_be_bytes());
    }

    pub fn attr_str(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes);
    }

    /// An attribute that contains those written by `content`.
    pub fn nest(&mut self, kind: u16, content: impl FnOnce(&mut Self)) {
        let start = self.open(kind);
        content(self);
        self.close(start);
    }

    /// Begins a nested attribute; the returned position is for [`Message::close`].
    pub fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend(0u16.to_ne_bytes());
        self.bytes.extend((kind | NESTED).to_ne_bytes());
        start
    }

    pub fn close(&mut self, start: usize) {
        let length = u16::try_from(self.bytes.len() - start).expect("a nest is below 64 KB");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Iterates over the attributes in a slice, yielding type (without flags) and value. Stops at the
/// first malformed one.
#[derive(Clone)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// The value of the first attribute of that type.
    pub fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// The attributes nested in the first attribute of that type; empty if there is none.
    pub fn nested(&self, kind: u16) -> Attributes<'a> {
        Attributes(self.get(kind).unwrap_or_default())
    }

    pub fn get_str(&self, kind: u16) -> Option<&'a str> {
        let value = self.get(kind)?;
        std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.0;
        let length = usize::from(u16::from_ne_bytes(bytes.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(4..length)?;
        self.0 = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & TYPE_MASK, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let mut message = Message::default();
        message.begin(0x0a00, 1, 7, 2, 0);
        message.attr_str(1, "skiff");
        message.nest(4, |inner| {
            inner.attr_u32(2, 9);
            inner.attr(3, &[1, 2, 3]);
        });
        message.attr_u64(5, 1);
        message.end();
        let bytes = message.bytes();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(bytes[0..4], (bytes.len() as u32).to_ne_bytes());
        let attributes = Attributes(&bytes[HEADERS..]);
        assert_eq!(attributes.get_str(1), Some("skiff"));
        assert_eq!(attributes.nested(4).get(2), Some(&[0u8, 0, 0, 9][..]));
        assert_eq!(attributes.nested(4).get(3), Some(&[1u8, 2, 3][..]));
        assert_eq!(attributes.get(6), None);
        assert_eq!(Attributes(&[9, 0, 1, 0, 1]).next(), None);
    }
}
