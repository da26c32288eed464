//! etcd's KV service.

use std::{pin::Pin, sync::Arc};

use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse, PbKvService,
    PbPutRequest, PbPutResponse, PbRangeRequest, PbRangeResponse, PbRangeStreamResponse,
    PbTxnRequest, PbTxnResponse,
};
use futures::{Stream, stream};
use tonic::{Request, Response, Status};

use super::engine::Engine;

/// The approximate size of a message of a streamed range; each has at least one entry.
const CHUNK_BYTES: usize = 1 << 20;

pub(super) struct KvService(pub(super) Arc<Engine>);

#[tonic::async_trait]
impl PbKvService for KvService {
    async fn range(
        &self,
        request: Request<PbRangeRequest>,
    ) -> Result<Response<PbRangeResponse>, Status> {
        self.0.range(request.into_inner()).await.map(Response::new)
    }

    type RangeStreamStream =
        Pin<Box<dyn Stream<Item = Result<PbRangeStreamResponse, Status>> + Send>>;

    async fn range_stream(
        &self,
        request: Request<PbRangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let whole = self.0.range(request.into_inner()).await?;
        let chunks = chunks(whole)
            .into_iter()
            .map(|chunk| Ok(PbRangeStreamResponse { range_response: Some(chunk) }));
        Ok(Response::new(Box::pin(stream::iter(chunks.collect::<Vec<_>>()))))
    }

    async fn put(&self, request: Request<PbPutRequest>) -> Result<Response<PbPutResponse>, Status> {
        self.0.put(request.into_inner()).await.map(Response::new)
    }

    async fn delete_range(
        &self,
        request: Request<PbDeleteRequest>,
    ) -> Result<Response<PbDeleteResponse>, Status> {
        self.0.delete(request.into_inner()).await.map(Response::new)
    }

    async fn txn(&self, request: Request<PbTxnRequest>) -> Result<Response<PbTxnResponse>, Status> {
        self.0.txn(request.into_inner()).await.map(Response::new)
    }

    async fn compact(
        &self,
        request: Request<PbCompactionRequest>,
    ) -> Result<Response<PbCompactionResponse>, Status> {
        let PbCompactionRequest { revision, physical } = request.into_inner();
        let header = self.0.compact(revision, physical).await?;
        Ok(Response::new(PbCompactionResponse { header: Some(header) }))
    }
}

/// Splits the response to a range into messages; the last one has the header, count and `more`.
fn chunks(mut whole: PbRangeResponse) -> Vec<PbRangeResponse> {
    let mut chunks = Vec::new();
    let mut bytes = 0;
    let mut chunk = PbRangeResponse::default();
    for kv in std::mem::take(&mut whole.kvs) {
        if bytes >= CHUNK_BYTES {
            chunks.push(std::mem::take(&mut chunk));
            bytes = 0;
        }
        bytes += kv.key.len() + kv.value.len();
        chunk.kvs.push(kv);
    }
    whole.kvs = chunk.kvs;
    chunks.push(whole);
    chunks
}
