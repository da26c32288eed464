//! Queries over TCP, served as the server library does it, but no client can take more than its
//! share of the connections.

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode, SerialMessage};
use hickory_server::net::DnsStreamHandle;
use hickory_server::net::runtime::TokioTime;
use hickory_server::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_server::net::tcp::TcpStream;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler, ResponseHandle, TimeoutStream};
use runtime::shares::{Place, Shares};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::handler::Handler;

/// Connections at once; further ones are closed.
pub const CONNECTIONS_MAX: usize = 1024;
/// The share of one client in these.
pub const CLIENT_CONNECTIONS_MAX: usize = 64;
/// Connections that are idle for this long are closed.
const IDLE: Duration = Duration::from_secs(10);
/// The number of responses queued per connection.
const RESPONSES: usize = 64;
/// Before the next attempt to accept a connection after a failure, which is usually a lack of files.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves `handler` until `shutdown`.
pub async fn serve(listener: TcpListener, handler: Handler, shutdown: CancellationToken) {
    let shares = Shares::new(CONNECTIONS_MAX, CLIENT_CONNECTIONS_MAX);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, client)) => match shares.take(client.ip().to_canonical()) {
                    Ok(place) => {
                        connections.spawn(answer(stream, client, handler.clone(), place));
                    }
                    Err(full) => tracing::debug!(%client, ?full, "closed: too many connections"),
                },
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Answers the queries of a connection, one after the other.
async fn answer(stream: tokio::net::TcpStream, client: SocketAddr, handler: Handler, _: Place) {
    let (stream, mut responses) =
        TcpStream::from_stream_with_buffer_size(AsyncIoTokioAsStd(stream), client, RESPONSES);
    let mut messages = TimeoutStream::new(stream, IDLE);
    while let Some(Ok(message)) = messages.next().await {
        let (bytes, client) = message.into_parts();
        let id = bytes.first_chunk().map(|id| u16::from_be_bytes(*id));
        match Request::from_bytes(bytes, client, Protocol::Tcp) {
            Ok(request) if request.metadata.message_type == MessageType::Query => {
                let respond = ResponseHandle::new(client, responses.clone(), Protocol::Tcp);
                handler.handle_request::<_, TokioTime>(&request, respond).await;
            }
            // A response to a response would be answered in turn.
            Ok(_) => return,
            Err(error) => {
                tracing::debug!(%client, %error, "not a query");
                let Some(refusal) = id.and_then(malformed) else { return };
                if responses.send(SerialMessage::new(refusal, client)).is_err() {
                    return;
                }
            }
        }
    }
}

/// The response to what is not a query.
fn malformed(id: u16) -> Option<Vec<u8>> {
    let mut message = Message::new(id, MessageType::Response, OpCode::Query);
    message.metadata.response_code = ResponseCode::FormErr;
    message.to_vec().ok()
}
