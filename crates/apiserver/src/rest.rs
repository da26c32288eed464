//! The REST front end: HTTP requests in, Kubernetes' wire formats out.

mod documents;
mod list;
pub mod negotiate;
mod render;
mod route;
mod table;
mod watch;

use std::net::IpAddr;
use std::sync::Arc;

use api::{ApiError, Kind};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, WARNING};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use k8s_openapi::api::core::v1::{ComponentStatus, Endpoints};
use tower::ServiceExt;

pub use list::{PIECE_BYTES, Pieces};
pub use negotiate::{Accept, Representation};
pub use render::{Rendering, error as render_error, full};
pub use route::{method_name, parse_query, percent_decode, percent_encode};
pub use table::{IncludeObject, partial, scale_table, table};
pub use watch::bookmark;

use crate::answer::hold;
use crate::authn;
use crate::connect::PeerAddress;
use crate::core::Core;
use crate::flowcontrol::Flow;
use crate::incoming::{Slot, Unread, discard};
use crate::inflight::Seat;
use crate::pipeline::{Pipeline, Pipelines};
use crate::registry::Registry;
use crate::request::{ClientInfo, Head, Notes, Request, Subject, Verb};
use crate::response::Response;

pub const AUDIT_ID: http::HeaderName = http::HeaderName::from_static("audit-id");

/// Why a body ended early.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of every answer. An error in it closes the connection, so that the client notices that
/// the answer is incomplete.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body without content.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// The REST front end.
#[derive(Clone)]
pub struct Rest {
    pipeline: Pipeline,
    registry: Arc<Registry>,
    core: Arc<Core>,
    rendering: Arc<Rendering>,
}

impl Rest {
    pub fn new(pipelines: &Pipelines, core: Arc<Core>) -> Self {
        Self {
            pipeline: pipelines.whole.clone(),
            registry: pipelines.registry.clone(),
            rendering: Arc::new(Rendering::new(core.clock.clone())),
            core,
        }
    }

    /// Answers one HTTP request.
    pub async fn serve<B>(&self, mut request: http::Request<B>) -> http::Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let upgrade = hyper::upgrade::on(&mut request);
        let (parts, body) = request.into_parts();
        let id = audit_id(&parts.headers);
        let mut response = self.respond(&parts, &id, body, upgrade).await;
        let headers = response.headers_mut();
        headers.insert(AUDIT_ID, id);
        response
    }

    async fn respond<B>(
        &self,
        parts: &http::request::Parts,
        id: &HeaderValue,
        body: B,
        upgrade: hyper::upgrade::OnUpgrade,
    ) -> http::Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let query = parts.uri.query().unwrap_or_default();
        let body: Body = body.map_err(Into::into).boxed_unsync();
        let parsed = Accept::parse(&parts.headers, query);
        let accept = parsed.as_ref().map_or_else(|_| Accept::default(), Accept::clone);
        let accepted = parsed.map(|_| ());
        let unread = Slot::new(Unread { body, format: negotiate::body_format(parts) });
        let (seat, notes) = (Seat::default(), Notes::default());
        let mut kept = Kept {
            unread: unread.clone(),
            seat: seat.clone(),
            notes: notes.clone(),
            client: Arc::default(),
        };
        if self.core.audit.is_some() {
            kept.client = Arc::new(client_info(parts, id));
        }
        let answer = self.answer(parts, kept, &accept, accepted).await;
        let flow = seat.flow();
        let left = unread.take().map(|unread| unread.body);
        if let Ok(Answer { response: Response::Connect(connection), .. }) = answer {
            let mut response = connection.serve(parts, left, upgrade).await;
            seat.answered(response.status().as_u16());
            render::add_warnings(&mut response, &notes.all());
            add_flow(&mut response, flow.as_deref());
            return response.map(|body| hold(body, seat));
        }
        if let Some(body) = left {
            discard(parts, body).await;
        }
        let mut response = match answer {
            Ok(Answer { response, verb, deprecated }) => {
                let hash = documents::hash(parts, &response);
                let response = self.rendering.response(response, verb, &accept, seat).await;
                let mut response = response.unwrap_or_else(|error| render::error(&error, &accept));
                if let Some(hash) = hash {
                    response = documents::set_etag(parts, &hash, response);
                }
                if let Some(value) = deprecated {
                    response.headers_mut().append(WARNING, value);
                }
                response
            }
            Err(error) => render::error(&error, &accept),
        };
        render::add_warnings(&mut response, &notes.all());
        add_flow(&mut response, flow.as_deref());
        response
    }

    /// What the request is about, of what this server answers itself.
    async fn route(&self, parts: &http::request::Parts, accept: &Accept) -> Head {
        let head = route::route(&self.registry.kinds(), parts, accept);
        let is_unknown = head.refused.as_ref().is_some_and(|error| error.code() == 404);
        if !is_unknown || !parts.uri.path().starts_with("/apis/") {
            return head;
        }
        match self.core.learn_kinds().await {
            Ok(false) => head,
            Ok(true) => route::route(&self.registry.kinds(), parts, accept),
            Err(error) => Head { refused: Some(error), ..head },
        }
    }

    async fn answer(
        &self,
        parts: &http::request::Parts,
        kept: Kept,
        accept: &Accept,
        accepted: Result<(), ApiError>,
    ) -> Result<Answer, ApiError> {
        let mut head = match route::delegated(&self.core.aggregator, parts) {
            // What it accepts is for whoever answers to read.
            Some(delegated) => delegated,
            None => {
                let mut head = self.route(parts, accept).await;
                let is_served = !matches!(head.subject, Subject::Unserved(_));
                if is_served && let Err(error) = accepted {
                    head.refused = Some(error);
                }
                head
            }
        };
        head.options.product = product(&parts.headers).to_owned();
        head.options.notes = kept.notes;
        let deprecated = deprecation(&head.subject);
        let verb = match &head.subject {
            Subject::Resource { verb, .. } => Some(*verb),
            _ => None,
        };
        if let Subject::Resource { verb, target } = &head.subject
            && target.row.custom.is_some()
        {
            let known = negotiate::without_protobuf(parts, accept, *verb);
            head.refuse(known);
        }
        let request = Request {
            options: head.options,
            refused: head.refused,
            body_format: negotiate::patch_format(parts),
            unread: kept.unread,
            seat: kept.seat,
            client: kept.client,
            ..Request::new(head.subject, authn::credentials(&parts.headers, &parts.extensions))
        };
        let response = self.pipeline.clone().oneshot(request).await?;
        Ok(Answer { response, verb, deprecated })
    }
}

/// Tells the client how its request was classified.
pub fn add_flow(response: &mut http::Response<Body>, flow: Option<&Flow>) {
    for (name, value) in flow.into_iter().flat_map(Flow::headers) {
        response.headers_mut().insert(name, value.clone());
    }
}

/// What the front end shares with the request.
struct Kept {
    unread: Slot,
    seat: Seat,
    notes: Notes,
    client: Arc<ClientInfo>,
}

/// The pipeline's answer.
struct Answer {
    response: Response,
    verb: Option<Verb>,
    /// A warning about the kind, as a header.
    deprecated: Option<HeaderValue>,
}

/// Kubernetes' warning with every answer about a deprecated kind.
pub fn deprecation(subject: &Subject) -> Option<HeaderValue> {
    let Subject::Resource { target, .. } = subject else {
        return None;
    };
    if target.row == Endpoints::ROW {
        return Some(HeaderValue::from_static(
            "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"",
        ));
    }
    if target.row == ComponentStatus::ROW {
        let warning = "299 - \"v1 ComponentStatus is deprecated in v1.19+\"";
        return Some(HeaderValue::from_static(warning));
    }
    let text = target.row.custom.as_ref()?.deprecation.as_ref()?;
    HeaderValue::from_str(&format!("299 - {text:?}")).ok()
}

fn header<'a>(headers: &'a http::HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// `kubectl` of `kubectl/v1.32.4 (linux/amd64) kubernetes/59526cd`.
fn product(headers: &http::HeaderMap) -> &str {
    let agent = header(headers, "user-agent").unwrap_or_default();
    agent.split('/').next().unwrap_or_default()
}

/// Who has sent the request: for the audit log.
pub fn client_info(parts: &http::request::Parts, id: &HeaderValue) -> ClientInfo {
    let text = |name: &str| {
        let value = parts.headers.get(name);
        value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let forwarded = text("x-forwarded-for").unwrap_or_default();
    let forwarded = forwarded.split(',').map(str::trim).filter(|one| !one.is_empty());
    let mut addresses: Vec<String> =
        forwarded.filter(|one| one.parse::<IpAddr>().is_ok()).map(str::to_owned).collect();
    if addresses.is_empty() {
        let real = text("x-real-ip").filter(|one| one.parse::<IpAddr>().is_ok());
        addresses.extend(real);
    }
    let peer = parts.extensions.get::<PeerAddress>();
    let peer = peer.map(|peer| peer.0.ip().to_canonical().to_string());
    addresses.extend(peer.filter(|peer| addresses.last() != Some(peer)));
    let is_grpc = media_type(&parts.headers).starts_with("application/grpc");
    let uri = parts.uri.path_and_query().filter(|_| !is_grpc);
    ClientInfo {
        id: String::from_utf8_lossy(id.as_bytes()).into_owned(),
        uri: uri.map(ToString::to_string).unwrap_or_default(),
        agent: text("user-agent").unwrap_or_default(),
        addresses,
    }
}

/// The request's id in the logs of both sides: the client's, or a new one.
pub fn audit_id(headers: &http::HeaderMap) -> HeaderValue {
    let given = headers.get(AUDIT_ID).filter(|id| !id.is_empty());
    given.cloned().unwrap_or_else(|| {
        let id = uuid::Uuid::new_v4().to_string();
        HeaderValue::from_str(&id).expect("a uuid is made of visible characters")
    })
}

/// The media type of a header value, without parameters, in lower case.
fn media_type(headers: &http::HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}
