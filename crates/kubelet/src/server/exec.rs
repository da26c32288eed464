//! Exec.

use std::time::Duration;

use futures::{Stream, StreamExt, future, stream};
use rpc::api_v1::Channel;
use rpc::kubelet_v1::{ExecRequest as Message, exec_request::Kind};
use tokio::sync::watch;
use tonic::{Status, Streaming};

use super::frames::{Frames, Out, channel, copy, ended, input, size};
use super::service::Service;
use super::target::status;
use crate::containers::{ExecRequest, ExecSession, RuntimeError};

/// How long to wait for the terminal's size, which clients send at once, so that the command starts
/// with it.
const FIRST_SIZE: Duration = Duration::from_millis(200);

impl Service {
    pub(super) async fn run_exec(
        &self,
        mut incoming: Streaming<Message>,
    ) -> Result<Frames, Status> {
        let Some(Message { kind: Some(Kind::Open(open)) }) = incoming.message().await? else {
            return Err(Status::invalid_argument("the first message must be open"));
        };
        if open.command.is_empty() {
            return Err(Status::invalid_argument(
                "you must specify at least 1 command for the container",
            ));
        }
        let container = self.running(open.container).await?;
        let first = match open.tty {
            true => tokio::time::timeout(FIRST_SIZE, incoming.next()).await,
            false => Ok(None),
        };
        // Any other frame is handled once the command is running.
        let first = first.ok().flatten();
        let request = ExecRequest {
            command: open.command,
            stdin: open.stdin,
            stdout: open.stdout,
            stderr: open.stderr,
            tty: open.tty,
            size: first.as_ref().and_then(first_size),
        };
        let (out, frames) = channel();
        let session = self.context.runtime.exec(&container.id, request).await;
        let session = match session {
            Ok(session) => session,
            // In Kubernetes, the session is open already when starting the command fails.
            Err(error @ RuntimeError::Exec { .. }) => {
                let message = format!("error executing command in container: {error}");
                // The client may be gone.
                out.send(Ok(ended(Err(message)))).await.ok();
                return Ok(frames);
            }
            Err(error) => return Err(status(&error)),
        };
        let incoming = stream::iter(first).chain(incoming);
        tokio::spawn(run(session, incoming, out));
        Ok(frames)
    }
}

/// The terminal's size, if the frame has one.
fn first_size(message: &Result<Message, Status>) -> Option<(u16, u16)> {
    match message {
        Ok(Message { kind: Some(Kind::Frame(frame)) }) if frame.channel() == Channel::Resize => {
            size(&frame.data)
        }
        _ => None,
    }
}

/// Forwards all streams until the command has exited, or the client is gone, which kills the
/// command.
async fn run(
    session: ExecSession,
    incoming: impl Stream<Item = Result<Message, Status>> + Unpin,
    out: Out,
) {
    let ExecSession { stdin, stdout, stderr, mut control } = session;
    let output = async {
        let one = async {
            match stdout {
                Some(stdout) => copy(stdout, Channel::Stdout, &out).await,
                None => true,
            }
        };
        let two = async {
            match stderr {
                Some(stderr) => copy(stderr, Channel::Stderr, &out).await,
                None => true,
            }
        };
        let (one, two) = tokio::join!(one, two);
        one && two
    };
    let (resize, mut sizes) = watch::channel((0, 0));
    let frames = incoming.filter_map(|message| {
        future::ready(match message {
            Ok(Message { kind: Some(Kind::Frame(frame)) }) => Some(Ok(frame)),
            Ok(_) => None,
            Err(status) => Some(Err(status)),
        })
    });
    // A command that does not read its input until its output is read must not block that.
    let input = input(frames, stdin, resize);
    tokio::pin!(output, input);
    let mut output_done = false;
    let mut input_done = false;
    let mut code = None;
    while !output_done || code.is_none() {
        tokio::select! {
            done = &mut output, if !output_done => {
                if !done {
                    return;
                }
                output_done = true;
            }
            result = control.wait(), if code.is_none() => code = Some(result),
            heard = &mut input, if !input_done => {
                if !heard {
                    return;
                }
                input_done = true;
            }
            Ok(()) = sizes.changed() => {
                let (width, height) = *sizes.borrow_and_update();
                if let Err(error) = control.resize(width, height).await {
                    tracing::debug!(%error, "cannot resize the terminal");
                }
            }
            () = out.closed() => return,
        }
    }
    let result = match code {
        Some(Ok(code)) => Ok(code),
        Some(Err(error)) => Err(error.to_string()),
        None => return,
    };
    // The client may be gone.
    out.send(Ok(ended(result))).await.ok();
}
