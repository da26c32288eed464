//! The gRPC service: each call is implemented in a file of its own.

use std::sync::Arc;

use crate::pod::context::Context;
use crate::pod::manager::PodManager;
use rpc::api_v1::Frame;
use rpc::kubelet_v1 as pb;
use tonic::{Request, Response, Status, Streaming};

use super::frames::{Bytes, Frames};
use super::service_proxy::ServiceProxy;

/// Serves the apiserver's calls.
pub(super) struct Service {
    pub(super) context: Arc<Context>,
    pub(super) pods: PodManager,
    /// The settings in force.
    pub(super) configuration: serde_json::Value,
    /// The service proxy of this node, if it is known.
    pub(super) service_proxy: Option<ServiceProxy>,
}

#[tonic::async_trait]
impl pb::kubelet_server::Kubelet for Service {
    type LogsStream = Bytes;
    type ExecStream = Frames;
    type AttachStream = Frames;
    type PortForwardStream = Frames;

    async fn logs(&self, request: Request<pb::LogsRequest>) -> Result<Response<Bytes>, Status> {
        self.read_logs(request.into_inner()).await.map(Response::new)
    }

    async fn exec(
        &self,
        request: Request<Streaming<pb::ExecRequest>>,
    ) -> Result<Response<Frames>, Status> {
        self.run_exec(request.into_inner()).await.map(Response::new)
    }

    async fn attach(
        &self,
        request: Request<Streaming<pb::AttachRequest>>,
    ) -> Result<Response<Frames>, Status> {
        self.run_attach(request.into_inner()).await.map(Response::new)
    }

    async fn port_forward(
        &self,
        request: Request<Streaming<pb::PortForwardRequest>>,
    ) -> Result<Response<Frames>, Status> {
        self.forward_ports(request.into_inner()).await.map(Response::new)
    }

    async fn stats(
        &self,
        _request: Request<pb::StatsRequest>,
    ) -> Result<Response<pb::StatsResponse>, Status> {
        let json = self.summary().await?;
        Ok(Response::new(pb::StatsResponse { json: json.into() }))
    }

    async fn metrics(
        &self,
        request: Request<pb::MetricsRequest>,
    ) -> Result<Response<pb::MetricsResponse>, Status> {
        let text = self.metrics_text(request.into_inner().page()).await?;
        Ok(Response::new(pb::MetricsResponse { text: text.into() }))
    }

    async fn load_image(
        &self,
        request: Request<Streaming<pb::LoadImageRequest>>,
    ) -> Result<Response<pb::LoadImageResponse>, Status> {
        let images = self.load(request.into_inner()).await?;
        Ok(Response::new(pb::LoadImageResponse { images }))
    }
}

/// A frame of a channel.
pub(super) fn frame(channel: rpc::api_v1::Channel, data: impl Into<bytes::Bytes>) -> Frame {
    Frame { channel: channel.into(), data: data.into(), ..Default::default() }
}
