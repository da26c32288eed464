//! The log of one container, line by line.

use std::io::Write;

use client::Client;
use tokio::sync::mpsc;

use crate::request::stream::{open, pod_target};

/// Prints the log of a container and follows it until it ends.
pub async fn follow(client: &Client, pod: &str, container: &str) -> anyhow::Result<()> {
    let parameters = [("follow", "true".to_owned())];
    let mut out = std::io::stdout().lock();
    copy(client, pod, container, &parameters, None, &mut out).await
}

/// Receives whole lines.
pub trait Sink {
    async fn line(&mut self, line: &[u8]) -> anyhow::Result<()>;
}

impl Sink for std::io::StdoutLock<'_> {
    async fn line(&mut self, line: &[u8]) -> anyhow::Result<()> {
        Ok(self.write_all(line)?)
    }
}

/// Sends lines to whoever prints them.
/// Sends lines to whoever prints them.
pub struct Lines(pub mpsc::Sender<Vec<u8>>);

impl Sink for Lines {
    async fn line(&mut self, line: &[u8]) -> anyhow::Result<()> {
        Ok(self.0.send(line.to_vec()).await?)
    }
}

/// Copies one container's log, line by line, so that several do not mix within a line.
pub async fn copy(
    client: &Client,
    pod: &str,
    container: &str,
    parameters: &[(&str, String)],
    prefix: Option<String>,
    sink: &mut impl Sink,
) -> anyhow::Result<()> {
    let mut parameters = parameters.to_vec();
    parameters.push(("container", container.to_owned()));
    let mut session =
        open(client, pod_target(client.default_namespace(), pod, "log"), &parameters).await?;
    let mut partial = prefix.clone().unwrap_or_default().into_bytes();
    let begin = partial.len();
    while let Some(frame) = session.output.message().await.map_err(client::Error::from)? {
        for piece in frame.data.split_inclusive(|byte| *byte == b'\n') {
            partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                sink.line(&partial).await?;
                partial.truncate(begin);
            }
        }
    }
    if partial.len() > begin {
        sink.line(&partial).await?;
    }
    Ok(())
}
