//! Streaming subresources: log, exec, attach, port-forward. Both front ends open them through the
//! pipeline and then carry the same frames to the node's kubelet. Also proxy, which only REST has.

mod admit;
mod log;
mod open;
mod proxy;
mod spdy;
mod target;
mod upgrade;
mod websocket;

use api::{ApiError, Kind};
use hyper::upgrade::OnUpgrade;
use k8s_openapi::api::core::v1::Pod;
use rpc::api_v1::Frame;
use rpc::kubelet_v1::LogChunk;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::aggregation::Forward;
use crate::request::Target;
use crate::rest::{Accept, Body, empty, render_error};

pub use open::{Opening, open};
pub use proxy::{
    Destination, Io, PeerAddress, Pool, answered, destinations, dial, forwarded, is_ready,
    read_slices, slices, switch, unreachable, unverified,
};
pub use upgrade::wants_upgrade;

/// The streaming subresources of pods. Whatever is not one of them is never opened: the others are
/// authorized for what they do themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Log,
    Exec,
    Attach,
    PortForward,
}

impl Stream {
    /// The stream that a request's target names.
    pub fn of(target: &Target) -> Option<Self> {
        match target.subresource.as_str() {
            _ if target.row != Pod::ROW => None,
            "log" => Some(Self::Log),
            "exec" => Some(Self::Exec),
            "attach" => Some(Self::Attach),
            "portforward" => Some(Self::PortForward),
            _ => None,
        }
    }

    /// Whether a client acts in the pod by it, for which it needs the right to `create`, also over
    /// a WebSocket, whose GET is authorized as `get`.
    pub fn is_session(self) -> bool {
        self != Self::Log
    }
}

/// The standard streams that exec and attach carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// The protocol of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionKind {
    /// exec and attach.
    RemoteCommand(Streams),
    /// To the pod of that name.
    PortForward { pod: String, uid: String },
}

/// A bidirectional stream of frames to a kubelet.
pub struct Session {
    pub kind: SessionKind,
    pub input: mpsc::Sender<Frame>,
    pub output: Streaming<Frame>,
}

/// An authorized stream.
pub enum Connection {
    /// A container's log; `None`: there is nothing to read yet.
    Log(Option<Streaming<LogChunk>>),
    /// A session. Nothing has been connected to yet.
    Session(Opening),
    /// A request to be proxied. Nothing has been connected to yet.
    Proxy(Box<proxy::Proxy>),
    /// A request that another server answers. Nothing has been connected to yet.
    Delegated(Box<Forward>),
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Log(_) => f.write_str("Log"),
            Self::Session(opening) => write!(f, "{:?}", opening.kind),
            Self::Proxy(proxy) => write!(f, "{proxy:?}"),
            Self::Delegated(forward) => write!(f, "{forward:?}"),
        }
    }
}

impl Connection {
    /// Serves the stream over HTTP: logs as a body, sessions over WebSocket or SPDY. `body` is the
    /// client's, if it has not been read.
    pub async fn serve(
        self,
        parts: &http::request::Parts,
        body: Option<Body>,
        upgrade: OnUpgrade,
    ) -> http::Response<Body> {
        match self {
            Self::Log(chunks) if upgrade::is_websocket(&parts.headers) => {
                log::over_websocket(chunks, parts, upgrade)
            }
            Self::Log(chunks) => Ok(log::response(chunks)),
            Self::Session(opening) => upgrade::accept(opening, parts, upgrade).await,
            Self::Proxy(proxy) => {
                let body = body.unwrap_or_else(empty);
                return proxy.serve(parts, body, upgrade).await;
            }
            Self::Delegated(forward) => {
                let body = body.unwrap_or_else(empty);
                return forward.serve(parts, body, upgrade).await;
            }
        }
        .unwrap_or_else(|error| render_error(&error, &Accept::default()))
    }
}

/// The error that a kubelet's refusal becomes for the client.
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
