//! etcd's Cluster service, for a cluster of exactly one member.

use std::sync::Arc;

use etcd_client::proto::{
    PbClusterService, PbMember, PbMemberAddRequest, PbMemberAddResponse, PbMemberListRequest,
    PbMemberListResponse, PbMemberPromoteRequest, PbMemberPromoteResponse, PbMemberRemoveRequest,
    PbMemberRemoveResponse, PbMemberUpdateRequest, PbMemberUpdateResponse,
};
use parking_lot::Mutex;
use tonic::{Request, Response, Status};

use super::{engine::Engine, refusal};

const MEMBER_NAME: &str = "embedded";

pub(super) struct ClusterService {
    pub(super) engine: Arc<Engine>,
    /// The URLs of the sockets being served.
    pub(super) urls: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl PbClusterService for ClusterService {
    async fn member_list(
        &self,
        _request: Request<PbMemberListRequest>,
    ) -> Result<Response<PbMemberListResponse>, Status> {
        let member = PbMember {
            id: self.engine.shared.member_id,
            name: MEMBER_NAME.to_owned(),
            client_ur_ls: self.urls.lock().clone(),
            ..PbMember::default()
        };
        Ok(Response::new(PbMemberListResponse {
            header: Some(self.engine.header()),
            members: vec![member],
        }))
    }

    async fn member_add(
        &self,
        _request: Request<PbMemberAddRequest>,
    ) -> Result<Response<PbMemberAddResponse>, Status> {
        Err(refusal::single_member())
    }

    async fn member_remove(
        &self,
        _request: Request<PbMemberRemoveRequest>,
    ) -> Result<Response<PbMemberRemoveResponse>, Status> {
        Err(refusal::single_member())
    }

    async fn member_update(
        &self,
        _request: Request<PbMemberUpdateRequest>,
    ) -> Result<Response<PbMemberUpdateResponse>, Status> {
        Err(refusal::single_member())
    }

    async fn member_promote(
        &self,
        _request: Request<PbMemberPromoteRequest>,
    ) -> Result<Response<PbMemberPromoteResponse>, Status> {
        Err(refusal::single_member())
    }
}
