//! etcd's Lease service.

use std::{pin::Pin, sync::Arc};

use etcd_client::proto::{
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse,
    PbLeaseLeasesRequest, PbLeaseLeasesResponse, PbLeaseRevokeRequest, PbLeaseRevokeResponse,
    PbLeaseService, PbLeaseStatus, PbLeaseTimeToLiveRequest, PbLeaseTimeToLiveResponse,
};
use futures::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::{
    engine::Engine,
    leases::{TTL_MAX_SECONDS, TTL_MIN_SECONDS},
    record::wire,
    refusal,
};

pub(super) struct LeaseService(pub(super) Arc<Engine>);

#[tonic::async_trait]
impl PbLeaseService for LeaseService {
    async fn lease_grant(
        &self,
        request: Request<PbLeaseGrantRequest>,
    ) -> Result<Response<PbLeaseGrantResponse>, Status> {
        let PbLeaseGrantRequest { ttl, id } = request.into_inner();
        if ttl > TTL_MAX_SECONDS {
            return Err(refusal::lease_ttl_too_large());
        }
        let ttl =
            u64::try_from(ttl.max(TTL_MIN_SECONDS)).expect("the shortest time to live is positive");
        let id = if id == 0 { fresh_id() } else { id };
        self.0.grant(id, ttl).await.map(Response::new)
    }

    async fn lease_revoke(
        &self,
        request: Request<PbLeaseRevokeRequest>,
    ) -> Result<Response<PbLeaseRevokeResponse>, Status> {
        let header = self.0.revoke(request.into_inner().id).await?;
        Ok(Response::new(PbLeaseRevokeResponse { header: Some(header) }))
    }

    type LeaseKeepAliveStream =
        Pin<Box<dyn Stream<Item = Result<PbLeaseKeepAliveResponse, Status>> + Send>>;

    /// For a lease that does not exist the response has a time to live of zero, as in etcd.
    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<PbLeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let engine = self.0.clone();
        let stopped = engine.stopped.clone();
        let answers = request.into_inner().map(move |request| {
            let PbLeaseKeepAliveRequest { id } = request?;
            let ttl = engine.shared.leases.renew(id, clock::instant()).map_or(0, wire);
            Ok(PbLeaseKeepAliveResponse { header: Some(engine.header()), id, ttl })
        });
        Ok(Response::new(Box::pin(answers.take_until(stopped.cancelled_owned()))))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<PbLeaseTimeToLiveRequest>,
    ) -> Result<Response<PbLeaseTimeToLiveResponse>, Status> {
        let PbLeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let header = Some(self.0.header());
        let Some(remaining) = self.0.shared.leases.remaining(id, clock::instant()) else {
            let response = PbLeaseTimeToLiveResponse {
                header,
                id,
                ttl: -1,
                ..PbLeaseTimeToLiveResponse::default()
            };
            return Ok(Response::new(response));
        };
        let keys = if keys {
            let state = self.0.shared.read();
            state.index.attached(id, state.view().revision).map(<[u8]>::to_vec).collect()
        } else {
            Vec::new()
        };
        Ok(Response::new(PbLeaseTimeToLiveResponse {
            header,
            id,
            ttl: wire(remaining.left.as_secs()),
            granted_ttl: wire(remaining.granted_seconds),
            keys,
        }))
    }

    async fn lease_leases(
        &self,
        _request: Request<PbLeaseLeasesRequest>,
    ) -> Result<Response<PbLeaseLeasesResponse>, Status> {
        let leases =
            self.0.shared.leases.list().into_iter().map(|id| PbLeaseStatus { id }).collect();
        Ok(Response::new(PbLeaseLeasesResponse { header: Some(self.0.header()), leases }))
    }
}

/// A random positive id.
fn fresh_id() -> i64 {
    loop {
        let id = (rand::random::<u64>() >> 1).cast_signed();
        if id != 0 {
            return id;
        }
    }
}
