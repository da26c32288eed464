//! A container's log as an HTTP body, or as the messages of a WebSocket.

use api::ApiError;
use futures::{SinkExt, Stream, StreamExt};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::upgrade::OnUpgrade;
use rpc::kubelet_v1::LogChunk;
use tokio_tungstenite::tungstenite::Message;
use tonic::Streaming;

use super::{upgrade, websocket};
use crate::rest::{Body, BodyError, empty};

/// The chunks as they arrive.
pub fn response(chunks: Option<Streaming<LogChunk>>) -> http::Response<Body> {
    let body = match chunks {
        None => empty(),
        Some(chunks) => {
            let frames = whole(chunks).map(|chunk| Ok::<_, BodyError>(Frame::data(chunk.data)));
            StreamBody::new(frames).boxed_unsync()
        }
    };
    let mut response = http::Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Sends the chunks as binary messages, until they end or the client disconnects.
///
/// # Errors
/// 400 for a request that is not a WebSocket handshake, or offers no protocol that is served.
pub fn over_websocket(
    chunks: Option<Streaming<LogChunk>>,
    parts: &Parts,
    upgrade: OnUpgrade,
) -> Result<http::Response<Body>, ApiError> {
    let (response, socket) = upgrade::accept_log(parts, upgrade)?;
    tokio::spawn(async move {
        let Some(socket) = socket.await else { return };
        let (mut sink, mut stream) = socket.split();
        let sending = async {
            if let Some(chunks) = chunks {
                let mut chunks = std::pin::pin!(whole(chunks));
                while let Some(chunk) = chunks.next().await {
                    if sink.send(Message::Binary(chunk.data)).await.is_err() {
                        return;
                    }
                }
            }
            // The client may have disconnected already.
            sink.send(websocket::close()).await.ok();
        };
        // The client has nothing to send but a close.
        let gone = async { while let Some(Ok(_)) = stream.next().await {} };
        tokio::select! {
            () = sending => {}
            () = gone => {}
        }
    });
    Ok(response)
}

/// The chunks up to the first error.
fn whole(chunks: Streaming<LogChunk>) -> impl Stream<Item = LogChunk> {
    chunks
        .take_while(|chunk| {
            if let Err(error) = chunk {
                tracing::debug!(%error, "a log stream ended early");
            }
            std::future::ready(chunk.is_ok())
        })
        .filter_map(|chunk| std::future::ready(chunk.ok()))
}
