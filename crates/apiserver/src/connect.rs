//! Streaming subresources: log, exec, attach, port-forward. Both doors open them through the
//! pipeline and then carry the same frames to the node's kubelet.

mod log;
mod open;
mod target;
mod websocket;

use api::ApiError;
use hyper::upgrade::OnUpgrade;
use rpc::api_v1::Frame;
use rpc::kubelet_v1::LogChunk;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::rest::{Accept, Body, render_error};

pub use open::open;

/// What kind of frames a session carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionKind {
    Exec,
    Attach,
    PortForward,
}

/// A stream of frames to and from a kubelet.
pub struct Session {
    pub kind: SessionKind,
    pub input: mpsc::Sender<Frame>,
    pub output: Streaming<Frame>,
}

/// An authorized stream that a kubelet has accepted.
pub enum Connection {
    /// A container's log; `None`: there is nothing to read yet.
    Log(Option<Streaming<LogChunk>>),
    Session(Session),
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Log(_) => f.write_str("Log"),
            Self::Session(session) => write!(f, "{:?}", session.kind),
        }
    }
}

impl Connection {
    /// Serves the stream over HTTP: logs as a body, sessions over WebSocket.
    pub async fn serve(
        self,
        parts: &http::request::Parts,
        upgrade: OnUpgrade,
    ) -> http::Response<Body> {
        match self {
            Self::Log(chunks) => log::response(chunks),
            Self::Session(session) => websocket::accept(session, parts, upgrade)
                .unwrap_or_else(|error| render_error(&error, &Accept::default())),
        }
    }
}

/// What a kubelet's refusal means to the client.
fn kubelet_error(status: &Status) -> ApiError {
    rpc::status::from_grpc(status).unwrap_or_else(|| match status.code() {
        tonic::Code::Unavailable => {
            ApiError::internal(format!("error dialing backend: {}", status.message()))
        }
        tonic::Code::NotFound => ApiError::new(404, "NotFound", status.message()),
        tonic::Code::InvalidArgument => ApiError::bad_request(status.message()),
        _ => ApiError::internal(status.message()),
    })
}
