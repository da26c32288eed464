//! Transports a session's frames over a SPDY connection.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{Sink, SinkExt, Stream, StreamExt};
use parking_lot::Mutex;
use rpc::api_v1 as pb;
use tokio::sync::{mpsc, watch};
use tonic::Streaming;

use super::{Decoder, Encoder, Frame, SpdyError};
use crate::connect::Session;

/// Frames queued for the client.
const QUEUE: usize = 32;

/// The effects of a frame.
#[derive(Debug, Default, PartialEq)]
pub struct Effects {
    pub to_client: Vec<Frame>,
    pub to_kubelet: Vec<pb::Frame>,
    /// The session is over once these are sent.
    pub done: bool,
}

/// What the streams of a connection mean. Pure.
pub trait Protocol: Send + 'static {
    /// A frame from the client, other than a ping.
    fn client(&mut self, frame: Frame) -> Effects;
    /// A frame from the kubelet.
    fn kubelet(&mut self, frame: pb::Frame) -> Effects;
    /// Whether the streams for the kubelet's frames have been opened.
    fn ready(&self) -> bool;
}

/// Why a connection ended, if that is worth logging.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error(transparent)]
    Spdy(#[from] SpdyError),
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
}

/// Transports frames until either side ends. `incoming` and `outgoing` are the connection's bytes;
/// the caller closes it.
pub async fn serve<P: Protocol>(
    protocol: P,
    session: Session,
    incoming: impl Stream<Item = io::Result<Bytes>> + Send + Unpin,
    outgoing: &mut (impl Sink<Bytes, Error = io::Error> + Send + Unpin),
) {
    let (ready, is_ready) = watch::channel(protocol.ready());
    let protocol = Arc::new(Mutex::new(protocol));
    let (replies, frames) = mpsc::channel(QUEUE);
    let inbound = inbound(&protocol, incoming, replies.clone(), session.input, ready);
    let outbound = outbound(&protocol, session.output, replies, is_ready);
    let ended = {
        let both = async {
            tokio::select! {
                ended = inbound => ended,
                () = outbound => Ok(()),
            }
        };
        let mut writing = std::pin::pin!(write(outgoing, frames));
        tokio::select! {
            // What is still queued is written: both halves have dropped their senders.
            ended = both => { writing.await.ok(); ended }
            written = &mut writing => written.map_err(ConnectionError::from),
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a SPDY connection ended");
    }
}

/// Client to kubelet. Answers the client independently of the kubelet's output, which has a loop of
/// its own: a pod that does not read its input must not block its output.
async fn inbound<P: Protocol>(
    protocol: &Mutex<P>,
    mut incoming: impl Stream<Item = io::Result<Bytes>> + Unpin,
    replies: mpsc::Sender<Frame>,
    input: mpsc::Sender<pb::Frame>,
    ready: watch::Sender<bool>,
) -> Result<(), ConnectionError> {
    let mut decoder = Decoder::new();
    while let Some(bytes) = incoming.next().await {
        decoder.push(&bytes?);
        while let Some(frame) = decoder.next()? {
            let effects = match frame {
                Frame::Ping(number) => {
                    Effects { to_client: vec![Frame::Ping(number)], ..Effects::default() }
                }
                frame => protocol.lock().client(frame),
            };
            ready.send_replace(protocol.lock().ready());
            for frame in effects.to_client {
                if replies.send(frame).await.is_err() {
                    return Ok(());
                }
            }
            for frame in effects.to_kubelet {
                // A command that has ended takes no input. Its output is still to come.
                input.send(frame).await.ok();
            }
            if effects.done {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Kubelet to client, once the client has opened its streams.
async fn outbound<P: Protocol>(
    protocol: &Mutex<P>,
    mut output: Streaming<pb::Frame>,
    replies: mpsc::Sender<Frame>,
    mut ready: watch::Receiver<bool>,
) {
    if ready.wait_for(|ready| *ready).await.is_err() {
        return;
    }
    loop {
        let frame = match output.message().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(status) => pb::Frame {
                channel: pb::Channel::Status.into(),
                data: crate::connect::kubelet_error(&status).encode().into(),
                ..pb::Frame::default()
            },
        };
        let effects = protocol.lock().kubelet(frame);
        for frame in effects.to_client {
            if replies.send(frame).await.is_err() {
                return;
            }
        }
        if effects.done {
            return;
        }
    }
}

async fn write(
    outgoing: &mut (impl Sink<Bytes, Error = io::Error> + Unpin),
    mut frames: mpsc::Receiver<Frame>,
) -> io::Result<()> {
    let mut encoder = Encoder::new();
    let mut buffer = BytesMut::new();
    while let Some(frame) = frames.recv().await {
        encoder.encode(&frame, &mut buffer);
        outgoing.send(buffer.split().freeze()).await?;
    }
    Ok(())
}
