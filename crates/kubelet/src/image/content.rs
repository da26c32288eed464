//! Writing to containerd's content store.

use std::collections::HashMap;

use bytes::Bytes;
use containerd_client::services::v1::{
    AbortRequest, Info, UpdateRequest, WriteAction, WriteContentRequest, WriteContentResponse,
};
use prost_types::FieldMask;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::error::{ImageError, Result};
use super::manifest::{Descriptor, sha256_digest};
use crate::containers::Containerd;

/// Messages to containerd are at most 16 MiB.
const CHUNK_BYTES: usize = 1 << 20;

/// An open write, at an offset: what an earlier, interrupted attempt wrote is kept.
pub(crate) struct BlobWriter {
    containerd: Containerd,
    ingest: String,
    requests: mpsc::Sender<WriteContentRequest>,
    responses: Streaming<WriteContentResponse>,
    digest: String,
    size: u64,
    offset: u64,
}

impl BlobWriter {
    /// Opens a write of a blob; `None` if the store has it already (the lease then holds it). Only
    /// what the same source wrote is resumed: another one's bytes may be wrong. The caller makes
    /// sure that there is one writer per source and digest at a time.
    pub(crate) async fn open(
        containerd: &Containerd,
        source: &str,
        blob: &Descriptor,
    ) -> Result<Option<Self>> {
        let ingest = ingest_name(source, &blob.digest);
        let failed = |status: &Status| {
            ImageError::from_status(format!("write content {}", blob.digest), status)
        };
        let (requests, receiver) = mpsc::channel(2);
        let first = WriteContentRequest {
            action: WriteAction::Stat.into(),
            r#ref: ingest.clone(),
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
            containerd: containerd.clone(),
            ingest,
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

    /// Appends bytes; fails if they are more than the blob has.
    pub(crate) async fn write_bytes(&mut self, mut bytes: Bytes) -> Result<()> {
        if self.offset.saturating_add(bytes.len() as u64) > self.size {
            return Err(ImageError::Containerd {
                operation: format!("write content {}", self.digest),
                message: format!("it is larger than {} bytes", self.size),
            });
        }
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

    /// Commits the blob to the store; fails if its digest or size is not the expected one, and
    /// then discards it.
    pub(crate) async fn commit(mut self, labels: HashMap<String, String>) -> Result<()> {
        let request = WriteContentRequest {
            action: WriteAction::Commit.into(),
            offset: to_i64(self.offset),
            total: to_i64(self.size),
            expected: self.digest.clone(),
            labels,
            ..WriteContentRequest::default()
        };
        let committed = self.call(request).await;
        if let Err(ImageError::Containerd { .. }) = committed {
            self.discard().await;
        }
        committed
    }

    /// Discards what is written.
    pub(crate) async fn discard(self) {
        let request = AbortRequest { r#ref: self.ingest.clone() };
        drop(self.requests);
        drop(self.responses);
        if let Err(status) = self.containerd.content().abort(request).await {
            tracing::debug!(ingest = %self.ingest, message = status.message(), "incomplete content remains until its lease is released");
        }
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

/// The name of a blob's unfinished write, which is also the name of its lock.
pub(crate) fn ingest_name(source: &str, digest: &str) -> String {
    match source {
        "" => format!("skiff-{digest}"),
        source => format!("skiff-{:.16}-{digest}", &sha256_digest(source.as_bytes())[7..]),
    }
}

/// Writes a small blob that is in memory, and whose digest has been verified.
pub(crate) async fn write_small(
    containerd: &Containerd,
    blob: &Descriptor,
    bytes: Bytes,
) -> Result<()> {
    let Some(mut writer) = BlobWriter::open(containerd, "", blob).await? else {
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
