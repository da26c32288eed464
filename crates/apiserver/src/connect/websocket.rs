//! Sessions over WebSocket. exec and attach: each message is a channel number and data
//! (`k8s.io/apimachinery/pkg/util/remotecommand`); under v5, 255 and a channel number closes that
//! channel. Port forwarding: channels too, or tunnelled SPDY.

mod forward;

use std::io;
use std::time::Duration;

use api::status;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt, future};
use rpc::api_v1::{Channel, Frame};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tonic::Streaming;

use super::upgrade::Socket;
use super::{Session, spdy};

pub use forward::{forward, ports};

/// Under v5: the message that closes a channel.
const CLOSE: u8 = 255;

/// Versions of the channel protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The result is plain text, and only sent for failures.
    V1,
    /// The result is a Status.
    V4,
    /// The client can close standard input.
    V5,
}

impl From<&str> for Version {
    fn from(protocol: &str) -> Self {
        match protocol {
            "v5.channel.k8s.io" => Self::V5,
            "v4.channel.k8s.io" => Self::V4,
            _ => Self::V1,
        }
    }
}

/// How often a client whose input is blocked is sent a pong.
const STILL_HERE: Duration = Duration::from_secs(5);

/// Carries exec or attach until either side ends.
pub async fn command(socket: Socket, session: Session, version: Version) {
    let (mut sink, stream) = socket.split();
    // A command that does not read its input keeps us from reading the client's messages, pings
    // included; unsolicited pongs keep the client from timing out.
    let (waits, waiting) = watch::channel(false);
    tokio::select! {
        () = to_kubelet(stream, session.input, version, waits) => {}
        () = to_client(&mut sink, session.output, version, waiting) => {}
    }
    // The client may have disconnected already.
    sink.send(close()).await.ok();
    sink.close().await.ok();
}

/// Transports SPDY tunnelled through a WebSocket.
pub async fn tunnel<P: spdy::Protocol>(socket: Socket, session: Session, protocol: P) {
    let (sink, stream) = socket.split();
    let stream = stream
        .take_while(|message| future::ready(!matches!(message, Ok(Message::Close(_)))))
        .filter_map(|message| {
            future::ready(match message {
                Ok(Message::Binary(data)) => Some(Ok(data)),
                Ok(_) => None,
                Err(error) => Some(Err(io::Error::other(error))),
            })
        });
    let mut bytes = sink
        .sink_map_err(io::Error::other)
        .with(|data: Bytes| future::ok::<_, io::Error>(Message::Binary(data)));
    spdy::serve(protocol, session, stream, &mut bytes).await;
    // The client may have disconnected already.
    let mut sink = bytes.into_inner();
    sink.send(close()).await.ok();
    sink.close().await.ok();
}

/// Forwards the client's messages until it disconnects.
async fn to_kubelet(
    mut stream: SplitStream<Socket>,
    input: mpsc::Sender<Frame>,
    version: Version,
    waits: watch::Sender<bool>,
) {
    while let Some(Ok(message)) = stream.next().await {
        let Some((channel, rest)) = split(message) else {
            return;
        };
        let frame = match channel {
            Some(0) => Frame { channel: Channel::Stdin.into(), data: rest, ..Frame::default() },
            Some(4) => Frame { channel: Channel::Resize.into(), data: rest, ..Frame::default() },
            Some(CLOSE) if version == Version::V5 && rest.first() == Some(&0) => {
                Frame { channel: Channel::Stdin.into(), end: true, ..Frame::default() }
            }
            _ => continue,
        };
        // A command that has ended takes no input. Its output is still to come.
        if let Err(TrySendError::Full(frame)) = input.try_send(frame) {
            waits.send_replace(true);
            input.send(frame).await.ok();
            waits.send_replace(false);
        }
    }
}

async fn to_client(
    sink: &mut SplitSink<Socket, Message>,
    mut output: Streaming<Frame>,
    version: Version,
    mut waiting: watch::Receiver<bool>,
) {
    let mut pongs = tokio::time::interval(STILL_HERE);
    pongs.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut input_open = true;
    loop {
        let received = tokio::select! {
            received = output.message() => received,
            changed = waiting.changed(), if input_open => {
                input_open = changed.is_ok();
                continue;
            }
            _ = pongs.tick(), if *waiting.borrow() => {
                if sink.send(Message::Pong(Bytes::new())).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let frame = match received {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(status) => Frame {
                channel: Channel::Status.into(),
                data: super::kubelet_error(&status).encode().into(),
                ..Frame::default()
            },
        };
        let (number, data) = match frame.channel() {
            Channel::Stdout => (1, frame.data),
            Channel::Stderr => (2, frame.data),
            Channel::Status if version == Version::V1 => (3, failure_text(&frame.data)),
            Channel::Status => (3, frame.data),
            _ => continue,
        };
        if !data.is_empty() && sink.send(message(number, &data)).await.is_err() {
            return;
        }
        if frame.end
            && version == Version::V5
            && sink.send(message(CLOSE, &[number])).await.is_err()
        {
            return;
        }
        if number == 3 {
            return;
        }
    }
}

/// The failure that a Status reports; empty for success.
fn failure_text(json: &[u8]) -> Bytes {
    match status::decode_status(json) {
        Ok(status) if status.status.as_deref() == Some("Success") => Bytes::new(),
        Ok(status) => status.message.unwrap_or_default().into(),
        Err(_) => Bytes::copy_from_slice(json),
    }
}

/// Channel and data of a message; no channel for messages without a meaning; `None` at the end.
fn split(message: Message) -> Option<(Option<u8>, Bytes)> {
    let mut data: Bytes = match message {
        Message::Binary(data) => data,
        Message::Text(text) => text.into(),
        Message::Close(_) => return None,
        _ => Bytes::new(),
    };
    if data.is_empty() {
        return Some((None, data));
    }
    let channel = data.split_to(1)[0];
    Some((Some(channel), data))
}

fn message(channel: u8, data: &[u8]) -> Message {
    let mut bytes = BytesMut::with_capacity(data.len() + 1);
    bytes.put_u8(channel);
    bytes.put_slice(data);
    Message::Binary(bytes.freeze())
}

/// client-go treats a close without a code as an error.
pub fn close() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() }))
}
