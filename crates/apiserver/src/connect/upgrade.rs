//! Negotiation of a session's protocol, and the answer that switches to it.

use api::{ApiError, Kind};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, HeaderName, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Method};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_util::codec::{BytesCodec, Framed};

use super::{Opening, Session, SessionKind, spdy, websocket};
use crate::rest::{Body, empty};

/// Largest WebSocket message from a client, in bytes.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
const WEBSOCKET: &str = "websocket";
const SPDY: &str = "SPDY/3.1";
const WEBSOCKET_PROTOCOL: HeaderName = HeaderName::from_static("sec-websocket-protocol");
const SPDY_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// Protocols of exec, attach and port-forward, in order of preference.
const COMMAND_WEBSOCKET: &[&str] = &["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"];
const COMMAND_SPDY: &[&str] = &["v4.channel.k8s.io"];
/// SPDY tunnelled through a WebSocket, as kubectl does it, and a pair of channels for each port.
const FORWARD_WEBSOCKET: &[&str] = &["SPDY/3.1+portforward.k8s.io", "v4.channel.k8s.io"];
const FORWARD_SPDY: &[&str] = &["portforward.k8s.io"];
const LOG_WEBSOCKET: &[&str] = &["binary.k8s.io"];

/// A WebSocket of a client.
pub type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Whether the client asks for any other protocol.
pub fn wants_upgrade(headers: &HeaderMap) -> bool {
    let connection = headers.get_all(CONNECTION).iter();
    !upgrade_header(headers).is_empty()
        && connection
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|word| word.trim().eq_ignore_ascii_case("upgrade"))
}

/// Whether the client asks for a WebSocket.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    upgrade_header(headers).eq_ignore_ascii_case(WEBSOCKET)
}

/// The protocol that a client's session will be carried by.
enum Protocol {
    Command(websocket::Version),
    /// SPDY within a WebSocket.
    Tunnel,
    /// Channels for each of these ports.
    Ports(Vec<u16>),
    Spdy,
}

/// Accepts the client's WebSocket or SPDY connection and carries frames until either side ends. The
/// kubelet is dialed only once the request is known to be acceptable.
///
/// # Errors
/// 400 for a request that asks for neither, or offers no protocol that is served, 405 for a method
/// that cannot be upgraded; those of the kubelet.
pub async fn accept(
    opening: Opening,
    parts: &Parts,
    upgrade: OnUpgrade,
) -> Result<http::Response<Body>, ApiError> {
    let (protocol, response) = negotiate(&opening.kind, parts)?;
    let session = opening.dial().await?;
    tokio::spawn(async move {
        let upgraded = match upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => return tracing::debug!(%error, "the client did not complete the upgrade"),
        };
        match (protocol, session.kind.clone()) {
            (Protocol::Spdy, _) => serve_spdy(upgraded, session).await,
            (Protocol::Command(version), _) => {
                websocket::command(socket(upgraded).await, session, version).await;
            }
            (Protocol::Ports(ports), _) => {
                websocket::forward(socket(upgraded).await, session, &ports).await;
            }
            (Protocol::Tunnel, SessionKind::PortForward { pod, uid }) => {
                let protocol = spdy::PortForward::new(&pod, &uid);
                websocket::tunnel(socket(upgraded).await, session, protocol).await;
            }
            (Protocol::Tunnel, SessionKind::RemoteCommand(_)) => {
                tracing::error!("only port forwarding is tunnelled");
            }
        }
    });
    Ok(response)
}

/// The protocol of a session, and the answer that switches to it.
fn negotiate(
    kind: &SessionKind,
    parts: &Parts,
) -> Result<(Protocol, http::Response<Body>), ApiError> {
    let forward = matches!(kind, SessionKind::PortForward { .. });
    let headers = &parts.headers;
    if !matches!(parts.method, Method::GET | Method::POST) {
        return Err(ApiError::method_not_allowed(Pod::ROW, parts.method.as_str()));
    }
    if !wants_upgrade(headers) {
        return Err(ApiError::bad_request("Upgrade request required"));
    }
    if is_websocket(headers) {
        let served = if forward { FORWARD_WEBSOCKET } else { COMMAND_WEBSOCKET };
        let name = choose(headers, &WEBSOCKET_PROTOCOL, served)?;
        let protocol = match name {
            _ if !forward => Protocol::Command(name.into()),
            "v4.channel.k8s.io" => Protocol::Ports(websocket::ports(parts)?),
            _ => Protocol::Tunnel,
        };
        return Ok((protocol, handshake(parts, name)?));
    }
    if !upgrade_header(headers).eq_ignore_ascii_case(SPDY) {
        return Err(ApiError::bad_request("Upgrade request required"));
    }
    let served = if forward { FORWARD_SPDY } else { COMMAND_SPDY };
    let name = choose(headers, &SPDY_PROTOCOL, served)?;
    Ok((Protocol::Spdy, switching(SPDY, SPDY_PROTOCOL, name)))
}

/// Accepts a WebSocket that a log will be sent over.
///
/// # Errors
/// As [`accept`].
pub fn accept_log(
    parts: &Parts,
    upgrade: OnUpgrade,
) -> Result<(http::Response<Body>, impl Future<Output = Option<Socket>> + use<>), ApiError> {
    let protocol = choose(&parts.headers, &WEBSOCKET_PROTOCOL, LOG_WEBSOCKET)?;
    let response = handshake(parts, protocol)?;
    let socket = async move {
        match upgrade.await {
            Ok(upgraded) => Some(socket(upgraded).await),
            Err(error) => {
                tracing::debug!(%error, "the client did not complete the upgrade");
                None
            }
        }
    };
    Ok((response, socket))
}

async fn serve_spdy(upgraded: Upgraded, session: Session) {
    let framed = Framed::new(TokioIo::new(upgraded), BytesCodec::new());
    let (mut sink, stream) = framed.split::<Bytes>();
    let stream = stream.map(|bytes| bytes.map(Into::into));
    match session.kind.clone() {
        SessionKind::RemoteCommand(streams) => {
            let protocol = spdy::RemoteCommand::new(streams);
            spdy::serve(protocol, session, stream, &mut sink).await;
        }
        SessionKind::PortForward { pod, uid } => {
            let protocol = spdy::PortForward::new(&pod, &uid);
            spdy::serve(protocol, session, stream, &mut sink).await;
        }
    }
    // The client may have disconnected already.
    sink.close().await.ok();
}

fn upgrade_header(headers: &HeaderMap) -> &str {
    headers.get(UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The first of the served protocols that the client offers; if it offers none, the oldest.
fn choose(
    headers: &HeaderMap,
    name: &HeaderName,
    served: &[&'static str],
) -> Result<&'static str, ApiError> {
    let offered: Vec<&str> = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|offer| !offer.is_empty() && !offer.starts_with("base64url.bearer."))
        .collect();
    if offered.is_empty() {
        return Ok(served[served.len() - 1]);
    }
    let mut served_here = served.iter().copied();
    served_here.find(|protocol| offered.contains(protocol)).ok_or_else(|| {
        ApiError::bad_request(format!(
            "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, \
                 server accepts {served:?}"
        ))
    })
}

/// The answer to a WebSocket handshake (RFC 6455, 4.2).
fn handshake(parts: &Parts, protocol: &'static str) -> Result<http::Response<Body>, ApiError> {
    if parts.method != Method::GET {
        return Err(ApiError::method_not_allowed(Pod::ROW, parts.method.as_str()));
    }
    let key = parts.headers.get("sec-websocket-key");
    let version = parts.headers.get("sec-websocket-version");
    let accept = key
        .filter(|_| version.is_some_and(|version| version == "13"))
        .map(|key| derive_accept_key(key.as_bytes()))
        .and_then(|accept| HeaderValue::from_str(&accept).ok())
        .ok_or_else(|| ApiError::bad_request("the request is not a WebSocket handshake"))?;
    let mut response = switching(WEBSOCKET, WEBSOCKET_PROTOCOL, protocol);
    if !parts.headers.contains_key(&WEBSOCKET_PROTOCOL) {
        response.headers_mut().remove(WEBSOCKET_PROTOCOL);
    }
    response.headers_mut().insert("sec-websocket-accept", accept);
    Ok(response)
}

async fn socket(upgraded: Upgraded) -> Socket {
    let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE_BYTES));
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await
}

fn switching(to: &'static str, name: HeaderName, protocol: &'static str) -> http::Response<Body> {
    let mut response = http::Response::new(empty());
    *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(to));
    headers.insert(name, HeaderValue::from_static(protocol));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(SPDY_PROTOCOL, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_best_common_protocol_is_taken() {
        let offered = |values: &[&str]| choose(&offers(values), &SPDY_PROTOCOL, COMMAND_WEBSOCKET);
        let both = offered(&["v4.channel.k8s.io, v5.channel.k8s.io"]);
        assert_eq!(both.unwrap(), "v5.channel.k8s.io");
        let two = offered(&["channel.k8s.io", "v4.channel.k8s.io"]);
        assert_eq!(two.unwrap(), "v4.channel.k8s.io");
        assert_eq!(offered(&[]).unwrap(), "channel.k8s.io");
        assert!(offered(&["v9.channel.k8s.io"]).is_err());
    }
}
