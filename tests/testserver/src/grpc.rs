//! gRPC's health service, for probes: enough of HTTP/2 (RFC 9113) to answer every call with one
//! message. Requests are not decoded.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

const PREFACE_BYTES: usize = 24;
/// Largest frame that a client may send with the default settings, in bytes.
const FRAME_MAX: usize = 16 << 10;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

/// A flag of SETTINGS and PING.
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:status: 200` of the static table, and `content-type` as a literal.
const HEAD: &[u8] = b"\x88\x0f\x10\x10application/grpc";
/// `grpc-status: 0` as a literal.
const TRAILERS: &[u8] = b"\x00\x0bgrpc-status\x010";
/// `HealthCheckResponse`, after the five-byte prefix of every message: SERVING or NOT_SERVING.
const SERVING: &[u8] = b"\x00\x00\x00\x00\x02\x08\x01";
const NOT_SERVING: &[u8] = b"\x00\x00\x00\x00\x02\x08\x02";

/// Serves every connection in a thread of its own.
pub fn serve(listener: TcpListener, healthy: impl Fn() -> bool + Clone + Send + 'static) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let healthy = healthy.clone();
            std::thread::spawn(move || {
                // A client that disconnects is not an error of the server.
                connection(stream, &healthy).ok();
            });
        }
    });
}

fn connection(mut stream: TcpStream, healthy: &impl Fn() -> bool) -> io::Result<()> {
    stream.read_exact(&mut [0; PREFACE_BYTES])?;
    send(&mut stream, SETTINGS, 0, 0, &[])?;
    loop {
        let mut header = [0; 9];
        stream.read_exact(&mut header)?;
        let [high, middle, low, kind, flags, id @ ..] = header;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let id = u32::from_be_bytes(id);
        if length > FRAME_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload)?;
        match kind {
            SETTINGS if flags & ACK == 0 => send(&mut stream, SETTINGS, ACK, 0, &[])?,
            PING if flags & ACK == 0 => send(&mut stream, PING, ACK, 0, &payload)?,
            DATA | HEADERS if flags & END_STREAM != 0 => {
                let message = if healthy() { SERVING } else { NOT_SERVING };
                send(&mut stream, HEADERS, END_HEADERS, id, HEAD)?;
                send(&mut stream, DATA, 0, id, message)?;
                send(&mut stream, HEADERS, END_HEADERS | END_STREAM, id, TRAILERS)?;
            }
            GOAWAY => return Ok(()),
            _ => {}
        }
    }
}

fn send(stream: &mut TcpStream, kind: u8, flags: u8, id: u32, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(id.to_be_bytes());
    frame.extend(payload);
    stream.write_all(&frame)
}
