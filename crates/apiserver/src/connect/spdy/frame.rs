//! Frames and their wire format.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::SpdyError;
use super::headers::{HeaderReader, HeaderWriter, Headers};

const VERSION: u16 = 3;
const CONTROL: u16 = 0x8000;
const FLAG_FIN: u8 = 1;
const FRAME_HEADER_BYTES: usize = 8;
/// Longest control frame that is accepted, in bytes.
const MAX_CONTROL_BYTES: usize = 64 << 10;
/// A length has three bytes.
const MAX_DATA_BYTES: usize = (1 << 24) - 1;
/// Stream ids have 31 bits.
const STREAM_MASK: u32 = 0x7fff_ffff;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream; `fin`: it is half-closed by the sender.
    SynStream {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    SynReply {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    /// Bytes of a stream. A long frame is delivered in pieces, `fin` with the last.
    Data {
        stream: u32,
        fin: bool,
        data: Bytes,
    },
    /// Closes a stream in both directions.
    RstStream {
        stream: u32,
        status: u32,
    },
    /// To be echoed.
    Ping(u32),
    /// No further streams will be opened.
    GoAway {
        last: u32,
        status: u32,
    },
}

/// A data frame being received.
struct PartialData {
    stream: u32,
    fin: bool,
    left: usize,
}

/// Decodes bytes to frames.
pub struct Decoder {
    buffer: BytesMut,
    headers: HeaderReader,
    data: Option<PartialData>,
}

impl Decoder {
    pub fn new() -> Self {
        Self { buffer: BytesMut::new(), headers: HeaderReader::new(), data: None }
    }

    /// Adds the next bytes of the connection. Call [`Decoder::next`] until it returns none before
    /// adding more: then no more than a control frame is ever buffered here.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, if it has arrived. Frames without a meaning here are skipped.
    ///
    /// # Errors
    /// When the bytes are not SPDY/3.1: the connection is unusable from then on.
    pub fn next(&mut self) -> Result<Option<Frame>, SpdyError> {
        loop {
            if let Some(partial) = self.data.take() {
                return Ok(self.partial(partial));
            }
            let Some(header) = self.buffer.get(..FRAME_HEADER_BYTES) else {
                return Ok(None);
            };
            let mut header = header;
            let first = header.get_u32();
            let second = header.get_u32();
            let flags = (second >> 24) as u8;
            let length = (second & 0x00ff_ffff) as usize;
            if first & !STREAM_MASK == 0 {
                self.buffer.advance(FRAME_HEADER_BYTES);
                self.data =
                    Some(PartialData { stream: first, fin: flags & FLAG_FIN != 0, left: length });
                continue;
            }
            let version = (first >> 16) as u16 & !CONTROL;
            if version != VERSION {
                return Err(SpdyError::Version(version));
            }
            if length > MAX_CONTROL_BYTES {
                return Err(SpdyError::TooLong(length));
            }
            if self.buffer.len() < FRAME_HEADER_BYTES + length {
                return Ok(None);
            }
            self.buffer.advance(FRAME_HEADER_BYTES);
            let body = self.buffer.split_to(length).freeze();
            if let Some(frame) = self.control((first & 0xffff) as u16, flags, body)? {
                return Ok(Some(frame));
            }
        }
    }

    /// As much of a data frame as has arrived.
    fn partial(&mut self, partial: PartialData) -> Option<Frame> {
        let take = partial.left.min(self.buffer.len());
        if take == 0 && partial.left > 0 {
            self.data = Some(partial);
            return None;
        }
        let data = self.buffer.split_to(take).freeze();
        let left = partial.left - take;
        if left > 0 {
            self.data = Some(PartialData { left, ..partial });
        }
        Some(Frame::Data { stream: partial.stream, fin: partial.fin && left == 0, data })
    }

    fn control(
        &mut self,
        kind: u16,
        flags: u8,
        mut body: Bytes,
    ) -> Result<Option<Frame>, SpdyError> {
        let fin = flags & FLAG_FIN != 0;
        let fixed = match kind {
            SYN_STREAM => 10,
            SYN_REPLY | HEADERS | PING => 4,
            RST_STREAM | GOAWAY => 8,
            _ => return Ok(None),
        };
        if body.len() < fixed {
            return Err(SpdyError::TooShort(kind));
        }
        let number = body.get_u32();
        let stream = number & STREAM_MASK;
        Ok(match kind {
            SYN_STREAM => {
                // The associated stream, the priority and the credential slot have no meaning here.
                body.advance(6);
                let headers = self.headers.read(&body)?;
                Some(Frame::SynStream { stream, fin, headers })
            }
            SYN_REPLY => {
                let headers = self.headers.read(&body)?;
                Some(Frame::SynReply { stream, fin, headers })
            }
            HEADERS => {
                self.headers.read(&body)?;
                fin.then_some(Frame::Data { stream, fin, data: Bytes::new() })
            }
            RST_STREAM => Some(Frame::RstStream { stream, status: body.get_u32() }),
            GOAWAY => Some(Frame::GoAway { last: stream, status: body.get_u32() }),
            _ => Some(Frame::Ping(number)),
        })
    }
}

/// Encodes frames to bytes, in the order in which they are sent.
pub struct Encoder {
    headers: HeaderWriter,
}

impl Encoder {
    pub fn new() -> Self {
        Self { headers: HeaderWriter::new() }
    }

    /// Appends a frame.
    pub fn encode(&mut self, frame: &Frame, out: &mut BytesMut) {
        match frame {
            Frame::SynStream { stream, fin, headers } => {
                let block = self.headers.write(headers);
                control(out, SYN_STREAM, *fin, 10 + block.len());
                out.put_u32(*stream);
                out.put_bytes(0, 6);
                out.put_slice(&block);
            }
            Frame::SynReply { stream, fin, headers } => {
                let block = self.headers.write(headers);
                control(out, SYN_REPLY, *fin, 4 + block.len());
                out.put_u32(*stream);
                out.put_slice(&block);
            }
            Frame::Data { stream, fin, data } => encode_data(*stream, *fin, data, out),
            Frame::RstStream { stream, status } => {
                control(out, RST_STREAM, false, 8);
                out.put_u32(*stream);
                out.put_u32(*status);
            }
            Frame::Ping(number) => {
                control(out, PING, false, 4);
                out.put_u32(*number);
            }
            Frame::GoAway { last, status } => {
                control(out, GOAWAY, false, 8);
                out.put_u32(*last);
                out.put_u32(*status);
            }
        }
    }
}

fn control(out: &mut BytesMut, kind: u16, fin: bool, length: usize) {
    out.put_u16(CONTROL | VERSION);
    out.put_u16(kind);
    flags_and_length(out, fin, length);
}

fn flags_and_length(out: &mut BytesMut, fin: bool, length: usize) {
    let length = u32::try_from(length).expect("a frame is shorter than 2^24 bytes");
    out.put_u32(u32::from(if fin { FLAG_FIN } else { 0 }) << 24 | length);
}

fn encode_data(stream: u32, fin: bool, data: &Bytes, out: &mut BytesMut) {
    let mut rest = data.clone();
    loop {
        let partial = rest.split_to(rest.len().min(MAX_DATA_BYTES));
        out.put_u32(stream);
        flags_and_length(out, fin && rest.is_empty(), partial.len());
        out.put_slice(&partial);
        if rest.is_empty() {
            return;
        }
    }
}
