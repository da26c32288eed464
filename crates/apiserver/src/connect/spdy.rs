//! SPDY/3.1 as Kubernetes' clients speak it: the framing, and the protocols on top.
//!
//! A client opens every stream; the server answers each with a SYN_REPLY and echoes pings. Neither
//! side uses flow control, priorities or server push (client-go's library, `spdystream`, has none),
//! so WINDOW_UPDATE and SETTINGS are ignored. [`frame`] and [`headers`] are the wire format, pure;
//! [`port_forward`] and [`remote_command`] interpret the frames; [`mod@serve`] transports them. The
//! same bytes come over an upgraded connection or tunnelled through a WebSocket. Nothing here knows
//! about pods: a session's frames go to the kubelet as they are.
//!
//! Sources: the SPDY protocol, draft 3.1; KEP 4006 (SPDY tunnelled through a WebSocket).

mod dictionary;
mod frame;
mod headers;
mod port_forward;
mod remote_command;
mod serve;
#[cfg(test)]
mod tests;

pub use frame::{Decoder, Encoder, Frame};
pub use headers::Headers;
pub use port_forward::PortForward;
pub use remote_command::RemoteCommand;
pub use serve::{Effects, Protocol, serve};

/// Bytes that are not SPDY/3.1.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpdyError {
    #[error("SPDY version {0} is not 3")]
    Version(u16),
    #[error("a control frame of {0} bytes is too long")]
    TooLong(usize),
    #[error("a control frame of type {0} is too short")]
    TooShort(u16),
    #[error("a header block cannot be read: {0}")]
    Headers(&'static str),
}
