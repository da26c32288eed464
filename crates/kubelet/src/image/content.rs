//! Writing to containerd's content store.

use std::collections::HashMap;

use bytes::Bytes;
use containerd_client::services::v1::{
    Info, UpdateRequest, WriteAction, WriteContentRequest, WriteContentResponse,
};
use futures::{Stream, StreamExt};
use prost_types::FieldMask;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::error::{ImageError, Result};
use super::manifest::Descriptor;
use crate::containers::Containerd;

/// Messages to containerd are at most 16 MiB.
const CHUNK_BYTES: usize = 1 << 20;

/// An open write, at an offset: what an earlier, interrupted attempt wrote is kept.
pub(crate) struct BlobWriter {
    requests: mpsc::Sender<WriteContentRequest>,
    responses: Streaming<WriteContentResponse>,
    digest: String,
    size: u64,
    offset: u64,
}

impl BlobWriter {
    /// Opens a write of a blob; `None` if the store has it already (the lease then holds it). The
    /// caller makes sure that there is one writer per digest at a time.
    pub(crate) async fn open(containerd: &Containerd, blob: &Descriptor) -> Result<Option<Self>> {
        let failed = |status: &Status| {
            ImageError::from_status(format!("write content {}", blob.digest), status)
        };
        let (requests, receiver) = mpsc::channel(2);
        let first = WriteContentRequest {
            action: WriteAction::Stat.into(),
            r#ref: format!("skiff-{}", blob.digest),
            total: to_i64(blob.size),
            expected: blob.digest.clone(),
            ..WriteContentRequest::default()
        };
        requests.send(first).await.expect("the receiver is held here");
        let mut responses = match containerd.content().write(ReceiverStream::new(receiver)).await {
            Ok(responses) => responses.into_inner(),
            Err(status) if status.code() == Code::AlreadyExists => return Ok(None),
            Err(status) => return Err(failed(&status)),
        };
        let offset = match responses.message().await {
            Ok(Some(response)) => u64::try_from(response.offset).unwrap_or(0),
            Ok(None) => return Err(failed(&Status::aborted("the stream ended"))),
            Err(status) if status.code() == Code::AlreadyExists => return Ok(None),
            Err(status) => return Err(failed(&status)),
        };
        Ok(Some(BlobWriter {
            requests,
            responses,
            digest: blob.digest.clone(),
            size: blob.size,
            offset,
        }))
    }

    /// The number of bytes already written.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Discards what is written and starts over.
    pub(crate) fn restart(&mut self) {
        self.offset = 0;
    }

    /// Writes the rest of the blob from a stream.
    pub(crate) async fn write<E: std::fmt::Display>(
        &mut self,
        mut source: impl Stream<Item = std::result::Result<Bytes, E>> + Unpin,
    ) -> Result<()> {
        while let Some(bytes) = source.next().await {
            let bytes = bytes.map_err(|error| ImageError::Io {
                operation: format!("read blob {}", self.digest),
                source: std::io::Error::other(error.to_string()),
            })?;
            self.write_bytes(bytes).await?;
        }
        Ok(())
    }

    pub(crate) async fn write_bytes(&mut self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            let data = bytes.split_to(bytes.len().min(CHUNK_BYTES));
            let length = data.len() as u64;
            let request = WriteContentRequest {
                action: WriteAction::Write.into(),
                offset: to_i64(self.offset),
                data: data.to_vec(),
                ..WriteContentRequest::default()
            };
            self.call(request).await?;
            self.offset += length;
        }
        Ok(())
    }

    /// Commits the blob to the store; fails if its digest or size is not the expected one.
    pub(crate) async fn commit(mut self, labels: HashMap<String, String>) -> Result<()> {
        let request = WriteContentRequest {
            action: WriteAction::Commit.into(),
            offset: to_i64(self.offset),
            total: to_i64(self.size),
            expected: self.digest.clone(),
            labels,
            ..WriteContentRequest::default()
        };
        self.call(request).await
    }

    async fn call(&mut self, request: WriteContentRequest) -> Result<()> {
        let operation = format!("write content {}", self.digest);
        if self.requests.send(request).await.is_err() {
            return match self.responses.message().await {
                Err(status) if status.code() == Code::AlreadyExists => Ok(()),
                Err(status) => Err(ImageError::from_status(operation, &status)),
                Ok(_) => {
                    Err(ImageError::from_status(operation, &Status::aborted("the stream ended")))
                }
            };
        }
        match self.responses.message().await {
            Ok(Some(_)) => Ok(()),
            Err(status) if status.code() == Code::AlreadyExists => Ok(()),
            Ok(None) => {
                Err(ImageError::from_status(operation, &Status::aborted("the stream ended")))
            }
            Err(status) => Err(ImageError::from_status(operation, &status)),
        }
    }
}

/// Writes a small blob that is in memory.
pub(crate) async fn write_small(
    containerd: &Containerd,
    blob: &Descriptor,
    bytes: Bytes,
) -> Result<()> {
    let Some(mut writer) = BlobWriter::open(containerd, blob).await? else {
        return Ok(());
    };
    writer.restart();
    writer.write_bytes(bytes).await?;
    writer.commit(HashMap::new()).await
}

/// Sets labels of a blob, through which the garbage collector finds what it refers to.
pub(crate) async fn set_labels(
    containerd: &Containerd,
    digest: &str,
    labels: HashMap<String, String>,
) -> Result<()> {
    let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
    let request = UpdateRequest {
        info: Some(Info { digest: digest.to_string(), labels, ..Info::default() }),
        update_mask: Some(FieldMask { paths }),
    };
    let response = containerd.content().update(request).await;
    response
        .map_err(|status| ImageError::from_status(format!("label content {digest}"), &status))?;
    Ok(())
}

fn to_i64(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
