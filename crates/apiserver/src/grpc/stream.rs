//! Streaming subresources as gRPC frames.

use futures::StreamExt;
use rpc::api_v1 as pb;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::service::ReplyStream;
use crate::connect::Connection;
use crate::inflight::Seat;

/// The frames from a connection; the client's further frames are forwarded to it.
pub fn frames(
    connection: Connection,
    requests: Streaming<pb::StreamRequest>,
    seat: Seat,
) -> ReplyStream<pb::Frame> {
    let frames = of_connection(connection, requests);
    Box::pin(frames.map(move |frame| {
        let _until_the_end = &seat;
        frame
    }))
}

fn of_connection(
    connection: Connection,
    requests: Streaming<pb::StreamRequest>,
) -> ReplyStream<pb::Frame> {
    match connection {
        Connection::Log(None) => Box::pin(futures::stream::empty()),
        Connection::Log(Some(chunks)) => Box::pin(chunks.map(|chunk| {
            chunk.map(|chunk| pb::Frame {
                channel: pb::Channel::Stdout.into(),
                data: chunk.data,
                ..pb::Frame::default()
            })
        })),
        Connection::Proxy(_) => {
            let refusal = Status::unimplemented("proxy is served over HTTP only");
            Box::pin(futures::stream::iter([Err(refusal)]))
        }
        Connection::Session(session) => {
            let inward = tokio::spawn(forward(requests, session.input));
            let guard = AbortOnDrop(inward);
            Box::pin(session.output.map(move |frame| {
                let _held = &guard;
                frame
            }))
        }
    }
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
