//! A client of the bare protocol, for requests that a regular client would not send.

use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse, PbKeyValue,
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse,
    PbLeaseLeasesRequest, PbLeaseLeasesResponse, PbLeaseRevokeRequest, PbLeaseRevokeResponse,
    PbLeaseTimeToLiveRequest, PbLeaseTimeToLiveResponse, PbPutRequest, PbPutResponse,
    PbRangeRequest, PbRangeResponse, PbResponseHeader, PbTxnOpResponse, PbTxnRequest,
    PbTxnResponse, PbWatchRequest, PbWatchResponse,
};
use futures::Stream;
use prost::Message;
use tonic::{
    Request, Status, Streaming, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel,
};
use tonic_prost::ProstCodec;

/// Ranges of several large values exceed tonic's default.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// A request of the KV or Lease service.
#[derive(Debug, Clone)]
pub enum Call {
    Range(PbRangeRequest),
    Put(PbPutRequest),
    Delete(PbDeleteRequest),
    Txn(PbTxnRequest),
    Compact(PbCompactionRequest),
    Grant(PbLeaseGrantRequest),
    Revoke(PbLeaseRevokeRequest),
    TimeToLive(PbLeaseTimeToLiveRequest),
    Leases,
    KeepAlive(i64),
}

/// A response, without the parts that legitimately differ between servers.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Range(PbRangeResponse),
    Put(PbPutResponse),
    Delete(PbDeleteResponse),
    Txn(PbTxnResponse),
    Compact(PbCompactionResponse),
    Grant(PbLeaseGrantResponse),
    Revoke(PbLeaseRevokeResponse),
    TimeToLive(PbLeaseTimeToLiveResponse),
    Leases(PbLeaseLeasesResponse),
    KeepAlive(PbLeaseKeepAliveResponse),
    Rejected(i32, String),
}

#[derive(Clone)]
pub struct Raw {
    grpc: Grpc<Channel>,
}

impl Raw {
    pub async fn connect(url: &str) -> Raw {
        let channel = Channel::from_shared(url.to_owned()).unwrap().connect().await.unwrap();
        Raw { grpc: Grpc::new(channel).max_decoding_message_size(ANSWER_MAX_BYTES) }
    }

    pub async fn call(&mut self, call: Call) -> Answer {
        self.try_call(call).await.unwrap_or_else(|status| {
            Answer::Rejected(status.code() as i32, status.message().into())
        })
    }

    async fn try_call(&mut self, call: Call) -> Result<Answer, Status> {
        Ok(match call {
            Call::Range(request) => {
                let mut answer: PbRangeResponse =
                    self.unary("/etcdserverpb.KV/Range", request).await?;
                header(&mut answer.header);
                Answer::Range(answer)
            }
            Call::Put(request) => {
                let mut answer: PbPutResponse = self.unary("/etcdserverpb.KV/Put", request).await?;
                header(&mut answer.header);
                Answer::Put(answer)
            }
            Call::Delete(request) => {
                let mut answer: PbDeleteResponse =
                    self.unary("/etcdserverpb.KV/DeleteRange", request).await?;
                header(&mut answer.header);
                Answer::Delete(answer)
            }
            Call::Txn(request) => {
                let mut answer: PbTxnResponse = self.unary("/etcdserverpb.KV/Txn", request).await?;
                txn_headers(&mut answer);
                Answer::Txn(answer)
            }
            Call::Compact(request) => {
                let mut answer: PbCompactionResponse =
                    self.unary("/etcdserverpb.KV/Compact", request).await?;
                header(&mut answer.header);
                Answer::Compact(answer)
            }
            Call::Grant(request) => {
                let mut answer: PbLeaseGrantResponse =
                    self.unary("/etcdserverpb.Lease/LeaseGrant", request).await?;
                header(&mut answer.header);
                Answer::Grant(answer)
            }
            Call::Revoke(request) => {
                let mut answer: PbLeaseRevokeResponse =
                    self.unary("/etcdserverpb.Lease/LeaseRevoke", request).await?;
                header(&mut answer.header);
                Answer::Revoke(answer)
            }
            Call::TimeToLive(request) => {
                let path = "/etcdserverpb.Lease/LeaseTimeToLive";
                let mut answer: PbLeaseTimeToLiveResponse = self.unary(path, request).await?;
                header(&mut answer.header);
                // The remaining time varies, and etcd keeps the keys in a hash map.
                answer.ttl = answer.ttl.min(0);
                answer.keys.sort();
                Answer::TimeToLive(answer)
            }
            Call::Leases => {
                let path = "/etcdserverpb.Lease/LeaseLeases";
                let mut answer: PbLeaseLeasesResponse =
                    self.unary(path, PbLeaseLeasesRequest::default()).await?;
                header(&mut answer.header);
                answer.leases.sort_by_key(|lease| lease.id);
                Answer::Leases(answer)
            }
            Call::KeepAlive(id) => Answer::KeepAlive(self.keep_alive(id).await?),
        })
    }

    async fn keep_alive(&mut self, id: i64) -> Result<PbLeaseKeepAliveResponse, Status> {
        let requests = futures::stream::iter([PbLeaseKeepAliveRequest { id }]);
        let mut answers = self.streaming("/etcdserverpb.Lease/LeaseKeepAlive", requests).await?;
        let mut answer: PbLeaseKeepAliveResponse =
            answers.message().await?.expect("one response per request");
        header(&mut answer.header);
        Ok(answer)
    }

    pub async fn watch(
        &mut self,
        requests: impl Stream<Item = PbWatchRequest> + Send + 'static,
    ) -> Streaming<PbWatchResponse> {
        self.streaming("/etcdserverpb.Watch/Watch", requests).await.unwrap()
    }

    async fn unary<Q, A>(&mut self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + Send + 'static,
        A: Message + Default + Send + 'static,
    {
        self.ready().await;
        let path = PathAndQuery::from_static(path);
        let answer =
            self.grpc.unary(Request::new(request), path, ProstCodec::<Q, A>::default()).await?;
        Ok(answer.into_inner())
    }

    async fn streaming<Q, A>(
        &mut self,
        path: &'static str,
        requests: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<A>, Status>
    where
        Q: Message + Send + 'static,
        A: Message + Default + Send + 'static,
    {
        self.ready().await;
        let path = PathAndQuery::from_static(path);
        let answer = self
            .grpc
            .streaming(Request::new(requests), path, ProstCodec::<Q, A>::default())
            .await?;
        Ok(answer.into_inner())
    }

    async fn ready(&mut self) {
        self.grpc.ready().await.unwrap();
    }
}

/// Servers have different ids and terms; the revision must be the same.
pub fn header(header: &mut Option<PbResponseHeader>) {
    if let Some(header) = header {
        *header = PbResponseHeader { revision: header.revision, ..PbResponseHeader::default() };
    }
}

fn txn_headers(answer: &mut PbTxnResponse) {
    header(&mut answer.header);
    for response in answer.responses.iter_mut().filter_map(|response| response.response.as_mut()) {
        match response {
            PbTxnOpResponse::ResponseRange(answer) => header(&mut answer.header),
            PbTxnOpResponse::ResponsePut(answer) => header(&mut answer.header),
            PbTxnOpResponse::ResponseDeleteRange(answer) => header(&mut answer.header),
            PbTxnOpResponse::ResponseTxn(answer) => txn_headers(answer),
        }
    }
}

/// A range over `[key, end)`.
pub fn range(key: &str, end: &str) -> PbRangeRequest {
    PbRangeRequest { key: key.into(), range_end: end.into(), ..PbRangeRequest::default() }
}

pub fn put(key: &str, value: &str) -> PbPutRequest {
    PbPutRequest { key: key.into(), value: value.into(), ..PbPutRequest::default() }
}

pub fn delete(key: &str, end: &str) -> PbDeleteRequest {
    PbDeleteRequest { key: key.into(), range_end: end.into(), ..PbDeleteRequest::default() }
}

pub fn compact(revision: i64) -> Call {
    Call::Compact(PbCompactionRequest { revision, physical: true })
}

pub fn key_of(kv: &Option<PbKeyValue>) -> String {
    kv.as_ref().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).unwrap_or_default()
}
