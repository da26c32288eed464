//! Header blocks: pairs of names and values, compressed in one zlib stream per direction.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::SpdyError;
use super::dictionary::dictionary;

/// Longest block, decompressed, in bytes.
const MAX_BLOCK_BYTES: usize = 64 << 10;
/// Bytes decompressed at a time.
const STEP_BYTES: usize = 4 << 10;

/// The headers of a stream, names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.0.iter().filter(|(key, _)| key == name);
        found.next().map(|(_, value)| value.as_str())
    }
}

/// Decompresses and parses the blocks of one direction, in order.
pub struct HeaderReader(Decompress);

impl HeaderReader {
    pub fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// Reads the next block. Every block of a connection must pass through here, needed or not.
    ///
    /// # Errors
    /// When the block is malformed, compressed with another dictionary, or too long.
    pub fn read(&mut self, block: &[u8]) -> Result<Headers, SpdyError> {
        parse(&self.inflate(block)?)
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, SpdyError> {
        let mut out = Vec::with_capacity(STEP_BYTES);
        loop {
            let before = (self.0.total_in(), out.len());
            if out.capacity() == out.len() {
                out.reserve(STEP_BYTES);
            }
            let step = self.0.decompress_vec(block, &mut out, FlushDecompress::Sync);
            let taken = usize::try_from(self.0.total_in() - before.0)
                .map_err(|_| SpdyError::Headers("too long"))?;
            block = block.get(taken..).unwrap_or_default();
            match step {
                Ok(Status::StreamEnd) => return Err(SpdyError::Headers("the zlib stream ended")),
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0
                        .set_dictionary(&dictionary())
                        .map_err(|_| SpdyError::Headers("another dictionary is needed"))?;
                    continue;
                }
                Err(_) => return Err(SpdyError::Headers("the zlib stream is broken")),
            }
            if out.len() > MAX_BLOCK_BYTES {
                return Err(SpdyError::Headers("too long"));
            }
            let idle = taken == 0 && out.len() == before.1;
            if idle || (block.is_empty() && out.len() < out.capacity()) {
                return if block.is_empty() {
                    Ok(out)
                } else {
                    Err(SpdyError::Headers("the zlib stream is broken"))
                };
            }
        }
    }
}

/// Encodes and compresses the blocks of one direction.
pub struct HeaderWriter(Compress);

impl HeaderWriter {
    pub fn new() -> Self {
        let mut zlib = Compress::new(Compression::default(), true);
        zlib.set_dictionary(&dictionary()).expect("a new stream takes a dictionary");
        Self(zlib)
    }

    /// Encodes the next block.
    pub fn write(&mut self, headers: &Headers) -> Vec<u8> {
        let mut plain = Vec::new();
        let length =
            |length: usize| u32::try_from(length).expect("our own headers are short").to_be_bytes();
        plain.extend_from_slice(&length(headers.0.len()));
        for text in headers.0.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend_from_slice(&length(text.len()));
            plain.extend_from_slice(text.as_bytes());
        }
        let mut out = Vec::with_capacity(plain.len() + STEP_BYTES);
        let mut rest = plain.as_slice();
        loop {
            let before = self.0.total_in();
            self.0
                .compress_vec(rest, &mut out, FlushCompress::Sync)
                .expect("compressing into memory does not fail");
            let taken = usize::try_from(self.0.total_in() - before).unwrap_or(rest.len());
            rest = &rest[taken..];
            if rest.is_empty() && out.len() < out.capacity() {
                return out;
            }
            out.reserve(STEP_BYTES);
        }
    }
}

fn parse(block: &[u8]) -> Result<Headers, SpdyError> {
    let mut rest = block;
    let count = number(&mut rest)?;
    let mut headers = Vec::new();
    for _ in 0..count {
        let name = text(&mut rest)?.to_ascii_lowercase();
        let value = text(&mut rest)?;
        // Several values of a name are joined by NUL.
        headers.extend(value.split('\0').map(|value| (name.clone(), value.to_owned())));
    }
    Ok(Headers(headers))
}

fn number(rest: &mut &[u8]) -> Result<usize, SpdyError> {
    let (bytes, after) = rest.split_first_chunk::<4>().ok_or(SpdyError::Headers("cut off"))?;
    *rest = after;
    usize::try_from(u32::from_be_bytes(*bytes)).map_err(|_| SpdyError::Headers("too long"))
}

fn text(rest: &mut &[u8]) -> Result<String, SpdyError> {
    let length = number(rest)?;
    let (bytes, after) = rest.split_at_checked(length).ok_or(SpdyError::Headers("cut off"))?;
    *rest = after;
    String::from_utf8(bytes.to_vec()).map_err(|_| SpdyError::Headers("not UTF-8"))
}
