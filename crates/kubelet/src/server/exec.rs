//! Exec.

use rpc::api_v1::{Channel, Frame};
use rpc::kubelet_v1::{ExecRequest as Message, exec_request::Kind};
use tokio::io::AsyncWriteExt;
use tonic::{Status, Streaming};

use super::frames::{Frames, Out, channel, copy, ended, size};
use super::service::Service;
use super::target::status;
use crate::runtime::{ExecControl, ExecRequest, ExecSession};

impl Service {
    pub(super) async fn run_exec(
        &self,
        mut incoming: Streaming<Message>,
    ) -> Result<Frames, Status> {
        let Some(Message {
            kind: Some(Kind::Open(open)),
        }) = incoming.message().await?
        else {
            return Err(Status::invalid_argument("the first message must be open"));
        };
        if open.command.is_empty() {
            return Err(Status::invalid_argument(
                "you must specify at least 1 command for the container",
            ));
        }
        let container = self.running(open.container).await?;
        let request = ExecRequest {
            command: open.command,
            stdin: open.stdin,
            stdout: open.stdout,
            stderr: open.stderr,
            tty: open.tty,
        };
        let (out, frames) = channel();
        let session = self.context.runtime.exec(&container.id, request).await;
        let session = session.map_err(|error| status(&error))?;
        tokio::spawn(run(session, incoming, out));
        Ok(frames)
    }
}

/// Passes everything on until the command has ended or the client has gone, which kills it.
async fn run(session: ExecSession, mut incoming: Streaming<Message>, out: Out) {
    let ExecSession {
        mut stdin,
        stdout,
        stderr,
        mut control,
    } = session;
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
    tokio::pin!(output);
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
            message = incoming.message(), if !input_done => match message {
                Ok(Some(Message { kind: Some(Kind::Frame(frame)) })) => {
                    input(frame, &mut stdin, &control).await;
                }
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
    let result = match code {
        Some(Ok(code)) => Ok(code),
        Some(Err(error)) => Err(error.to_string()),
        None => return,
    };
    // A client that has gone wants no status.
    out.send(Ok(ended(result))).await.ok();
}

async fn input(
    frame: Frame,
    stdin: &mut Option<Box<dyn tokio::io::AsyncWrite + Send + Unpin>>,
    control: &ExecControl,
) {
    match frame.channel() {
        Channel::Stdin => {
            let mut broken = false;
            if let Some(stdin) = stdin {
                broken =
                    stdin.write_all(&frame.data).await.is_err() || stdin.flush().await.is_err();
            }
            if broken || frame.end {
                *stdin = None;
            }
        }
        Channel::Resize => {
            if let Some((width, height)) = size(&frame.data)
                && let Err(error) = control.resize(width, height).await
            {
                tracing::debug!(%error, "resize");
            }
        }
        _ => {}
    }
}
