//! The REST door: HTTP requests in, Kubernetes' wire formats out.

mod documents;
mod negotiate;
mod render;
mod route;
mod table;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, Kind};
use bytes::Bytes;
use clock::SharedClock;
use http::header::{CONTENT_TYPE, HeaderValue, WARNING};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Limited};
use k8s_openapi::api::core::v1::Endpoints;
use tower::ServiceExt;

pub use negotiate::{Accept, Representation};
pub use render::{error as render_error, full};
pub use route::{parse_query, percent_decode};
pub use table::{IncludeObject, partial, table};
pub use watch::bookmark;

use crate::authn;
use crate::body::MAX_BODY_BYTES;
use crate::pipeline::Pipeline;
use crate::request::{Request, Subject, Verb};
use crate::response::Response;
use crate::user::{ClientCertificate, User};

/// How long a request's body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(60);
const AUDIT_ID: http::HeaderName = http::HeaderName::from_static("audit-id");

/// Why a body ended early.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of every answer. An error in it closes the connection, so that the client notices that
/// the answer is incomplete.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body without content.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// The client certificate of a request's connection.
pub fn certificate(extensions: &http::Extensions) -> ClientCertificate {
    extensions.get::<ClientCertificate>().cloned().unwrap_or_default()
}

/// The REST door.
#[derive(Clone)]
pub struct Rest {
    pipeline: Pipeline,
    clock: SharedClock,
}

impl Rest {
    pub fn new(pipeline: Pipeline, clock: SharedClock) -> Self {
        Self { pipeline, clock }
    }

    /// Answers one HTTP request.
    pub async fn serve<B>(&self, mut request: http::Request<B>) -> http::Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let upgrade = hyper::upgrade::on(&mut request);
        let (parts, body) = request.into_parts();
        let mut response = self.respond(&parts, body, upgrade).await;
        let headers = response.headers_mut();
        headers.insert(AUDIT_ID, audit_id(&parts.headers));
        response
    }

    async fn respond<B>(
        &self,
        parts: &http::request::Parts,
        body: B,
        upgrade: hyper::upgrade::OnUpgrade,
    ) -> http::Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let query = parts.uri.query().unwrap_or_default();
        let accept = match Accept::parse(&parts.headers, query) {
            Ok(accept) => accept,
            Err(error) => return render::error(&error, &Accept::default()),
        };
        match self.answer(parts, body, &accept).await {
            Ok(Answer { response: Response::Connect(connection), body, .. }) => {
                connection.serve(parts, body, upgrade).await
            }
            Ok(Answer { response, verb, deprecated, .. }) => {
                let hash = documents::hash(parts, &response);
                let mut response = render::response(response, verb, &accept, &self.clock)
                    .unwrap_or_else(|error| render::error(&error, &accept));
                if let Some(hash) = hash {
                    response = documents::set_etag(parts, &hash, response);
                }
                if let Some(text) = deprecated {
                    let value = HeaderValue::from_static(text);
                    response.headers_mut().append(WARNING, value);
                }
                response
            }
            Err(error) => render::error(&error, &accept),
        }
    }

    async fn answer<B>(
        &self,
        parts: &http::request::Parts,
        body: B,
        accept: &Accept,
    ) -> Result<Answer, ApiError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut routed = route::route(parts, accept)?;
        routed.options.product = product(&parts.headers).to_owned();
        let deprecated = deprecation(&routed.subject);
        let (verb, proxied) = match &routed.subject {
            Subject::Resource { verb, target } => (Some(*verb), target.subresource == "proxy"),
            Subject::Path { .. } => (None, false),
        };
        // A proxied body is not for the pipeline to read.
        let (body, unread) = if proxied {
            let unread = body.map_err(Into::into).boxed_unsync();
            (Bytes::new(), Some(unread))
        } else {
            (read_body(body).await?, None)
        };
        let body_format = negotiate::body_format(parts, verb, &body)?;
        let request = Request {
            credentials: authn::credentials(&parts.headers, certificate(&parts.extensions))?,
            user: Arc::new(User::anonymous()),
            subject: routed.subject,
            options: routed.options,
            body,
            body_format,
        };
        let response = self.pipeline.clone().oneshot(request).await?;
        Ok(Answer { response, verb, body: unread, deprecated })
    }
}

/// The pipeline's answer.
struct Answer {
    response: Response,
    verb: Option<Verb>,
    /// The request's body, if it has not been read.
    body: Option<Body>,
    /// A warning about the kind, as a header.
    deprecated: Option<&'static str>,
}

/// Kubernetes' warning with every answer about a deprecated kind.
fn deprecation(subject: &Subject) -> Option<&'static str> {
    match subject {
        Subject::Resource { target, .. } if target.row == Endpoints::ROW => Some(
            "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"",
        ),
        _ => None,
    }
}

async fn read_body<B>(body: B) -> Result<Bytes, ApiError>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let whole = Limited::new(body, MAX_BODY_BYTES).collect();
    let Ok(whole) = tokio::time::timeout(BODY_TIME, whole).await else {
        return Err(ApiError::timeout(
            "Timeout: request did not complete within the allotted timeout",
        ));
    };
    match whole {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(ApiError::too_large(format!("Request entity too large: limit is {MAX_BODY_BYTES}")))
        }
        Err(error) => {
            Err(ApiError::bad_request(format!("cannot read the request's body: {error}")))
        }
    }
}

fn header<'a>(headers: &'a http::HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// `kubectl` of `kubectl/v1.32.4 (linux/amd64) kubernetes/59526cd`.
fn product(headers: &http::HeaderMap) -> &str {
    let agent = header(headers, "user-agent").unwrap_or_default();
    agent.split('/').next().unwrap_or_default()
}

/// The request's id in the logs of both sides: the client's, or a new one.
fn audit_id(headers: &http::HeaderMap) -> HeaderValue {
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
