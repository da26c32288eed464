//! Attach.

use futures::{StreamExt, future};
use rpc::api_v1::Channel;
use rpc::kubelet_v1::{AttachRequest as Message, attach_request::Kind};
use tokio::sync::watch;
use tonic::{Status, Streaming};

use super::frames::{Frames, Out, channel, ended, input};
use super::service::{Service, frame};
use super::target::status;
use crate::containers::{AttachRequest, AttachSession, ContainerId, Runtime};
use crate::logs::LogStream;

impl Service {
    pub(super) async fn run_attach(
        &self,
        mut incoming: Streaming<Message>,
    ) -> Result<Frames, Status> {
        let Some(Message { kind: Some(Kind::Open(open)) }) = incoming.message().await? else {
            return Err(Status::invalid_argument("the first message must be open"));
        };
        let container = self.running(open.container).await?;
        let request = AttachRequest { stdin: open.stdin, stdout: open.stdout, stderr: open.stderr };
        let session = self.context.runtime.attach(&container.id, request).await;
        let session = session.map_err(|error| status(&error))?;
        let (out, frames) = channel();
        tokio::spawn(run(self.context.runtime.clone(), container.id, session, incoming, out));
        Ok(frames)
    }
}

async fn run(
    runtime: Runtime,
    id: ContainerId,
    session: AttachSession,
    incoming: Streaming<Message>,
    out: Out,
) {
    let AttachSession { stdin, mut output } = session;
    let (resize, mut sizes) = watch::channel((0, 0));
    let frames = incoming.filter_map(|message| {
        future::ready(match message {
            Ok(Message { kind: Some(Kind::Frame(frame)) }) => Some(Ok(frame)),
            Ok(_) => None,
            Err(status) => Some(Err(status)),
        })
    });
    // A container that does not read its input until its output is read must not block that.
    let input = input(frames, stdin, resize);
    tokio::pin!(input);
    let mut input_done = false;
    loop {
        tokio::select! {
            chunk = output.next() => {
                let sent = match chunk {
                    Some(Ok((LogStream::Stdout, data))) => out.send(Ok(frame(Channel::Stdout, data))).await,
                    Some(Ok((LogStream::Stderr, data))) => out.send(Ok(frame(Channel::Stderr, data))).await,
                    // The client may be gone.
                    Some(Err(error)) => return drop(out.send(Ok(ended(Err(error.to_string())))).await),
                    None => return drop(out.send(Ok(ended(Ok(0)))).await),
                };
                if sent.is_err() {
                    return;
                }
            }
            heard = &mut input, if !input_done => {
                if !heard {
                    return;
                }
                input_done = true;
            }
            Ok(()) = sizes.changed() => {
                let (width, height) = *sizes.borrow_and_update();
                if let Err(error) = runtime.resize_tty(&id, width, height).await {
                    tracing::debug!(%error, "cannot resize the terminal");
                }
            }
            () = out.closed() => return,
        }
    }
}
