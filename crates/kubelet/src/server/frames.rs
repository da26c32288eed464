//! Streams of frames to the apiserver.

use std::pin::Pin;

use api::ApiError;
use futures::{Stream, StreamExt};
use rpc::api_v1::{Channel, Frame};
use rpc::kubelet_v1::LogChunk;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::service::frame;

/// The response of exec, attach and port forwarding.
pub(super) type Frames = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;
/// The response of logs.
pub(super) type Bytes = Pin<Box<dyn Stream<Item = Result<LogChunk, Status>> + Send>>;
/// The sending side of a queue of frames.
pub(super) type Out = mpsc::Sender<Result<Frame, Status>>;

/// Frames queued for a slow client.
const QUEUE: usize = 16;
/// Bytes per frame.
pub(super) const CHUNK: usize = 32 * 1024;

/// A queue of frames and its response stream.
pub(super) fn channel() -> (Out, Frames) {
    let (out, frames) = mpsc::channel(QUEUE);
    (out, Box::pin(ReceiverStream::new(frames)))
}

/// Copies a stream into frames until it ends. Returns false if the client is gone.
pub(super) async fn copy(mut from: impl AsyncRead + Unpin, channel: Channel, out: &Out) -> bool {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return true,
            Ok(count) => {
                let data = frame(channel, buffer[..count].to_vec());
                if out.send(Ok(data)).await.is_err() {
                    return false;
                }
            }
        }
    }
}

/// Writes the client's input to standard input and forwards terminal sizes until the client closes
/// its side. Returns false if it is gone.
pub(super) async fn input(
    mut frames: impl Stream<Item = Result<Frame, Status>> + Unpin,
    mut stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    resize: watch::Sender<(u16, u16)>,
) -> bool {
    while let Some(frame) = frames.next().await {
        let Ok(frame) = frame else {
            return false;
        };
        match frame.channel() {
            Channel::Stdin => {
                let mut broken = false;
                if let Some(stdin) = &mut stdin {
                    broken =
                        stdin.write_all(&frame.data).await.is_err() || stdin.flush().await.is_err();
                }
                if broken || frame.end {
                    stdin = None;
                }
            }
            Channel::Resize => {
                if let Some(size) = size(&frame.data) {
                    resize.send_replace(size);
                }
            }
            _ => {}
        }
    }
    true
}

/// The last frame of exec and attach: a Status as Kubernetes sends it on the error channel.
pub(super) fn ended(result: Result<i32, String>) -> Frame {
    let json = match result {
        Ok(0) => json!({"metadata": {}, "status": "Success"}).to_string().into_bytes(),
        Ok(code) => json!({
            "metadata": {},
            "status": "Failure",
            "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        })
        .to_string()
        .into_bytes(),
        Err(message) => ApiError::internal(message).encode(),
    };
    frame(Channel::Status, json)
}

/// `{"Width": n, "Height": n}` of a resize frame.
pub(super) fn size(data: &[u8]) -> Option<(u16, u16)> {
    let value: serde_json::Value = serde_json::from_slice(data).ok()?;
    let number = |name: &str| u16::try_from(value.get(name)?.as_u64()?).ok();
    Some((number("Width")?, number("Height")?))
}
