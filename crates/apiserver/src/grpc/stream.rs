//! Streaming subresources as gRPC frames.

use api::ApiError;
use futures::StreamExt;
use rpc::api_v1 as pb;
use tokio::sync::mpsc;
use tonic::Streaming;

use super::service::ReplyStream;
use crate::connect::Connection;
use crate::inflight::Seat;

/// The frames from a connection; the client's further frames are forwarded to it.
///
/// # Errors
/// The kubelet's refusal of a session.
pub async fn frames(
    connection: Connection,
    requests: Streaming<pb::StreamRequest>,
    seat: Seat,
) -> Result<ReplyStream<pb::Frame>, ApiError> {
    let frames = of_connection(connection, requests).await?;
    Ok(Box::pin(frames.map(move |frame| {
        let _until_the_end = &seat;
        frame
    })))
}

async fn of_connection(
    connection: Connection,
    requests: Streaming<pb::StreamRequest>,
) -> Result<ReplyStream<pb::Frame>, ApiError> {
    Ok(match connection {
        Connection::Log(None) => Box::pin(futures::stream::empty()),
        Connection::Log(Some(chunks)) => Box::pin(chunks.map(|chunk| {
            chunk.map(|chunk| pb::Frame {
                channel: pb::Channel::Stdout.into(),
                data: chunk.data,
                ..pb::Frame::default()
            })
        })),
        Connection::Proxy(_) | Connection::Delegated(_) => {
            return Err(ApiError::not_implemented("proxy is served over HTTP only"));
        }
        Connection::Session(opening) => {
            let session = opening.dial().await?;
            let inward = tokio::spawn(forward(requests, session.input));
            let guard = AbortOnDrop(inward);
            Box::pin(session.output.map(move |frame| {
                let _held = &guard;
                frame
            }))
        }
    })
}

/// Ends the inbound half together with the outbound one.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn forward(mut requests: Streaming<pb::StreamRequest>, input: mpsc::Sender<pb::Frame>) {
    while let Ok(Some(request)) = requests.message().await {
        if let Some(pb::stream_request::Kind::Frame(frame)) = request.kind
            && input.send(frame).await.is_err()
        {
            return;
        }
    }
}
