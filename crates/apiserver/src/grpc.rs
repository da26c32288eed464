//! The gRPC front end: `skiff.api.v1.Resources`, health and reflection, on REST's pipeline.

mod bind;
mod convert;
mod elsewhere;
mod gate;
mod service;
mod stream;

use std::sync::Arc;

use tonic::service::Routes;

pub use gate::Gate;
pub use service::Resources;

use crate::body::MAX_BODY_BYTES;
use crate::core::Core;
use crate::pipeline::Pipelines;

/// The largest message that is received, in bytes: the largest object and what is around it.
const MAX_REQUEST_BYTES: usize = MAX_BODY_BYTES + (1 << 20);

/// All gRPC services of the port.
pub type Grpc = Routes;

/// Builds the services.
pub fn routes(pipelines: &Pipelines, core: Arc<Core>) -> Grpc {
    let resources = Resources::new(pipelines, core);
    let resources = rpc::api_v1::resources_server::ResourcesServer::new(resources)
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(rpc::MAX_MESSAGE_BYTES);
    let (_, health) = tonic_health::server::health_reporter();
    let mut builder = Routes::builder();
    builder.add_service(resources).add_service(health);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(rpc::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1();
    match reflection {
        Ok(reflection) => {
            builder.add_service(reflection);
        }
        Err(error) => tracing::error!(%error, "gRPC reflection is unavailable"),
    }
    builder.routes().prepare()
}
