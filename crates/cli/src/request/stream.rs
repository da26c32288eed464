//! Streaming subresources: one gRPC stream that carries stdin, stdout, stderr, resizes and the
//! final status.

use std::io::Read;

use anyhow::{Context, bail};
use client::Client;
use rpc::api_v1::stream_request::Kind;
use rpc::api_v1::{Channel, Frame, Parameter, StreamOpen, StreamRequest, Target};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Frames queued for the server.
const QUEUE: usize = 64;
/// Bytes read at once, and chunks read ahead.
const CHUNK: usize = 64 << 10;
const CHUNK_QUEUE: usize = 4;

/// An open stream.
pub struct Session {
    pub input: Input,
    pub output: tonic::Streaming<Frame>,
}

/// The sending half; cheap to clone.
#[derive(Clone)]
pub struct Input(mpsc::Sender<StreamRequest>);

impl Input {
    /// Sends one frame; returns whether the stream is still open.
    pub async fn send(&self, frame: Frame) -> bool {
        self.0.send(StreamRequest { kind: Some(Kind::Frame(frame)) }).await.is_ok()
    }

    /// Forwards a reader to the process's standard input, in the background. The reader has a
    /// thread of its own: a blocked read must not keep the process alive.
    pub fn forward(self, mut reader: impl Read + Send + 'static) {
        let (chunks, mut queue) = mpsc::channel::<Vec<u8>>(CHUNK_QUEUE);
        std::thread::spawn(move || {
            let mut buffer = vec![0; CHUNK];
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                if chunks.blocking_send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        tokio::spawn(async move {
            let frame = |data: Vec<u8>, end| Frame {
                channel: Channel::Stdin.into(),
                data: data.into(),
                end,
                ..Default::default()
            };
            while let Some(data) = queue.recv().await {
                if !self.send(frame(data, false)).await {
                    return;
                }
            }
            self.send(frame(Vec::new(), true)).await;
        });
    }
}

/// Opens a streaming subresource of a pod.
pub async fn open(
    client: &Client,
    target: Target,
    parameters: &[(&str, String)],
) -> anyhow::Result<Session> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let parameters = parameters
        .iter()
        .map(|(name, value)| Parameter { name: (*name).to_owned(), value: value.clone() })
        .collect();
    let open = StreamOpen { target: Some(target), parameters };
    sender
        .send(StreamRequest { kind: Some(Kind::Open(open)) })
        .await
        .context("the stream closed before it was opened")?;
    let response = client
        .resources()
        .stream(ReceiverStream::new(receiver))
        .await
        .map_err(client::Error::from)?;
    Ok(Session { input: Input(sender), output: response.into_inner() })
}

/// The target of a pod's subresource.
pub fn pod_target(namespace: &str, name: &str, subresource: &str) -> Target {
    Target {
        version: "v1".to_owned(),
        resource: "pods".to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        subresource: subresource.to_owned(),
        ..Default::default()
    }
}

/// The exit code in the last frame of exec and attach.
///
/// # Errors
/// When the command could not be run at all.
pub fn exit_code(status: &Frame) -> anyhow::Result<u8> {
    debug_assert_eq!(status.channel(), Channel::Status);
    let status =
        api::status::decode_status(&status.data).context("the final frame is not a Status")?;
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.as_ref().and_then(|details| details.causes.as_ref());
    let code = causes
        .into_iter()
        .flatten()
        .find(|cause| cause.reason.as_deref() == Some("ExitCode"))
        .and_then(|cause| cause.message.as_deref()?.parse::<u8>().ok());
    match code {
        Some(code) => Ok(code),
        None => bail!("{}", status.message.unwrap_or_else(|| "the command failed".to_owned())),
    }
}
