//! exec and attach over WebSocket: `v5.channel.k8s.io` and `v4.channel.k8s.io`
//! (`k8s.io/apimachinery/pkg/util/remotecommand`). Each message is a channel's number and data;
//! under v5, 255 and a channel's number closes that channel.

use api::ApiError;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http_body_util::{BodyExt, Empty};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use rpc::api_v1::{Channel, Frame};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tonic::Streaming;

use super::{Session, SessionKind};
use crate::rest::Body;

/// Protocols in order of preference.
const PROTOCOLS: &[&str] = &["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// Under v5: the message that closes a channel.
const CLOSE: u8 = 255;
/// Largest message of a client, in bytes.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Accepts the client's WebSocket and carries frames until either side ends.
///
/// # Errors
/// 400 for a request that is no WebSocket handshake or offers no protocol of ours.
pub fn accept(
    session: Session,
    parts: &http::request::Parts,
    upgrade: OnUpgrade,
) -> Result<http::Response<Body>, ApiError> {
    let header = |name: &str| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    if !header("upgrade").eq_ignore_ascii_case("websocket") {
        return Err(ApiError::bad_request(
            "Upgrade request required: this stream is served over WebSocket (and over gRPC), not SPDY",
        ));
    }
    if session.kind == SessionKind::PortForward {
        return Err(ApiError::not_implemented(
            "port forwarding is served over gRPC (skiff port-forward), not over WebSocket",
        ));
    }
    let key = header("sec-websocket-key");
    if key.is_empty() {
        return Err(ApiError::bad_request(
            "the request is not a WebSocket handshake",
        ));
    }
    let offered: Vec<&str> = header("sec-websocket-protocol")
        .split(',')
        .map(str::trim)
        .collect();
    let protocol = PROTOCOLS
        .iter()
        .find(|protocol| offered.contains(protocol))
        .ok_or_else(|| {
            ApiError::bad_request(format!(
                "none of the offered WebSocket protocols is served: {PROTOCOLS:?} are"
            ))
        })?;
    let closes = *protocol == PROTOCOLS[0];
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => {
                let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE_BYTES));
                let io = TokioIo::new(upgraded);
                let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
                carry(socket, session, closes).await;
            }
            Err(error) => tracing::debug!(%error, "the client did not go on with its WebSocket"),
        }
    });
    let mut response = http::Response::new(Empty::new().boxed_unsync());
    *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert("sec-websocket-accept", accept);
    }
    headers.insert("sec-websocket-protocol", HeaderValue::from_static(protocol));
    Ok(response)
}

async fn carry(socket: Socket, session: Session, closes: bool) {
    let (sink, stream) = socket.split();
    let inward = tokio::spawn(to_kubelet(stream, session.input, closes));
    to_client(sink, session.output, closes).await;
    inward.abort();
}

async fn to_kubelet(mut stream: SplitStream<Socket>, input: mpsc::Sender<Frame>, closes: bool) {
    while let Some(Ok(message)) = stream.next().await {
        let data: Bytes = match message {
            Message::Binary(data) => data,
            Message::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
            Message::Close(_) => return,
            _ => continue,
        };
        let Some(&channel) = data.first() else {
            continue;
        };
        let rest = data.slice(1..);
        let frame = match channel {
            0 => Frame {
                channel: Channel::Stdin.into(),
                data: rest,
                ..Frame::default()
            },
            4 => Frame {
                channel: Channel::Resize.into(),
                data: rest,
                ..Frame::default()
            },
            CLOSE if closes && rest.first() == Some(&0) => Frame {
                channel: Channel::Stdin.into(),
                end: true,
                ..Frame::default()
            },
            _ => continue,
        };
        if input.send(frame).await.is_err() {
            return;
        }
    }
}

async fn to_client(
    mut sink: SplitSink<Socket, Message>,
    mut output: Streaming<Frame>,
    closes: bool,
) {
    loop {
        let frame = match output.message().await {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(status) => Frame {
                channel: Channel::Status.into(),
                data: super::kubelet_error(&status).encode().into(),
                ..Frame::default()
            },
        };
        let number = match frame.channel() {
            Channel::Stdout => 1,
            Channel::Stderr => 2,
            Channel::Status => 3,
            _ => continue,
        };
        if !frame.data.is_empty() && sink.send(message(number, &frame.data)).await.is_err() {
            return;
        }
        if frame.end && closes && sink.send(message(CLOSE, &[number])).await.is_err() {
            return;
        }
        if number == 3 {
            break;
        }
    }
    // A close without a code is an error to client-go. The client may have gone already.
    let close = CloseFrame {
        code: CloseCode::Normal,
        reason: Utf8Bytes::default(),
    };
    sink.send(Message::Close(Some(close))).await.ok();
    sink.close().await.ok();
}

fn message(channel: u8, data: &[u8]) -> Message {
    let mut bytes = BytesMut::with_capacity(data.len() + 1);
    bytes.put_u8(channel);
    bytes.put_slice(data);
    Message::Binary(bytes.freeze())
}
