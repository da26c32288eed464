//! Bindings, pipelined: many are in progress at once, and answered as they complete.

use std::sync::Arc;

use api::ApiError;
use bytes::Bytes;
use futures::StreamExt;
use rpc::api_v1 as pb;
use tonic::Streaming;
use tower::ServiceExt;

use super::service::ReplyStream;
use crate::pipeline::Pipeline;
use crate::request::{ClientInfo, Request, Subject, Target, Verb};
use crate::user::Credentials;

/// Bindings of one stream in progress at once.
const CONCURRENCY: usize = 128;

/// The answers to a stream of bindings.
pub fn answers(
    pipeline: Pipeline,
    credentials: Credentials,
    client: Arc<ClientInfo>,
    requests: Streaming<pb::BindRequest>,
) -> ReplyStream<pb::BindResponse> {
    let answers = requests
        .map(move |request| {
            let (pipeline, credentials) = (pipeline.clone(), credentials.clone());
            let client = client.clone();
            async move {
                let request = request?;
                let id = request.id;
                Ok(match bind(pipeline, credentials, client, request).await {
                    Ok(()) => pb::BindResponse { id, ..pb::BindResponse::default() },
                    Err(error) => pb::BindResponse {
                        id,
                        code: error.code().into(),
                        status_json: error.encode().into(),
                    },
                })
            }
        })
        .buffer_unordered(CONCURRENCY);
    Box::pin(answers)
}

async fn bind(
    pipeline: Pipeline,
    credentials: Credentials,
    client: Arc<ClientInfo>,
    request: pb::BindRequest,
) -> Result<(), ApiError> {
    let row = api::kind::by_resource("", "v1", "pods").ok_or_else(ApiError::no_such_resource)?;
    let mut metadata = serde_json::json!({"name": request.name, "namespace": request.namespace});
    if !request.uid.is_empty() {
        metadata["uid"] = request.uid.into();
    }
    let body = serde_json::json!({"apiVersion": "v1", "kind": "Binding", "metadata": metadata,
        "target": {"kind": "Node", "name": request.node}});
    let target = Target {
        row: row.into(),
        namespace: request.namespace,
        name: request.name,
        subresource: "binding".to_owned(),
        subpath: String::new(),
    };
    let subject = Subject::Resource { verb: Verb::Create, target };
    let request = Request {
        body: Bytes::from(body.to_string()),
        client,
        ..Request::new(subject, credentials)
    };
    pipeline.oneshot(request).await.map(|_| ())
}
