//! Attach.

use futures::StreamExt;
use rpc::api_v1::Channel;
use rpc::kubelet_v1::{AttachRequest as Message, attach_request::Kind};
use tokio::io::AsyncWriteExt;
use tonic::{Status, Streaming};

use super::frames::{Frames, Out, channel, ended, size};
use super::service::{Service, frame};
use super::target::status;
use crate::logs::LogStream;
use crate::runtime::{AttachRequest, AttachSession, ContainerId, Runtime};

impl Service {
    pub(super) async fn run_attach(
        &self,
        mut incoming: Streaming<Message>,
    ) -> Result<Frames, Status> {
        let Some(Message {
            kind: Some(Kind::Open(open)),
        }) = incoming.message().await?
        else {
            return Err(Status::invalid_argument("the first message must be open"));
        };
        let container = self.running(open.container).await?;
        let request = AttachRequest {
            stdin: open.stdin,
            stdout: open.stdout,
            stderr: open.stderr,
        };
        let session = self.context.runtime.attach(&container.id, request).await;
        let session = session.map_err(|error| status(&error))?;
        let (out, frames) = channel();
        tokio::spawn(run(
            self.context.runtime.clone(),
            container.id,
            session,
            incoming,
            out,
        ));
        Ok(frames)
    }
}

async fn run(
    runtime: Runtime,
    id: ContainerId,
    session: AttachSession,
    mut incoming: Streaming<Message>,
    out: Out,
) {
    let AttachSession {
        mut stdin,
        mut output,
    } = session;
    let mut input_done = false;
    loop {
        tokio::select! {
            chunk = output.next() => {
                let sent = match chunk {
                    Some(Ok((LogStream::Stdout, data))) => out.send(Ok(frame(Channel::Stdout, data))).await,
                    Some(Ok((LogStream::Stderr, data))) => out.send(Ok(frame(Channel::Stderr, data))).await,
                    // A client that has gone wants no status.
                    Some(Err(error)) => return drop(out.send(Ok(ended(Err(error.to_string())))).await),
                    None => return drop(out.send(Ok(ended(Ok(0)))).await),
                };
                if sent.is_err() {
                    return;
                }
            }
            message = incoming.message(), if !input_done => match message {
                Ok(Some(Message { kind: Some(Kind::Frame(frame)) })) => match frame.channel() {
                    Channel::Stdin => {
                        let broken = match &mut stdin {
                            Some(stdin) => stdin.write_all(&frame.data).await.is_err() || stdin.flush().await.is_err(),
                            None => false,
                        };
                        if broken || frame.end {
                            stdin = None;
                        }
                    }
                    Channel::Resize => {
                        if let Some((width, height)) = size(&frame.data)
                            && let Err(error) = runtime.resize_tty(&id, width, height).await
                        {
                            tracing::debug!(%error, "resize");
                        }
                    }
                    _ => {}
                },
                Ok(Some(_)) => {}
                Ok(None) => {
                    input_done = true;
                    stdin = None;
                }
                Err(_) => return,
            },
            () = out.closed() => return,
        }
    }
}
