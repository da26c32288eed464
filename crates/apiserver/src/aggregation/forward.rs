//! One request, forwarded to the server behind an APIService (upstream's `handler_proxy.go`). Bodies
//! are streamed in both directions, and how large one may be is for that server to say; an `Upgrade` is passed through.
//!
//! A backend that hangs holds up this request alone, until it is due: one that does not last is due
//! as a whole, its answer included.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use api::ApiError;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue, LOCATION, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{Response, StatusCode, Uri, Version};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use hyper::upgrade::OnUpgrade;
use tokio::time::{Instant, Sleep};

use super::backend::{Answer, Asked, Backend, Document, Trust};
use super::identity;
use super::route::Delegated;
use crate::connect::{PeerAddress, answered, forwarded, switch, unreachable};
use crate::core::Core;
use crate::deadline;
use crate::incoming::discard;
use crate::rest::{Accept, Body, BodyError, full, render_error};
use crate::user::User;

/// Maximum size of an answer that is read as a whole, for clients of the other front end.
const WHOLE_BYTES: usize = 16 << 20;
/// The largest answer that says why a request is refused.
const REFUSAL_BYTES: usize = 1 << 20;
/// Upstream's words.
const UNAVAILABLE: &str = "service unavailable";
const REDIRECTED: &str = "the backend attempted to redirect this request, which is not permitted";

/// An authorized request, and whose it is.
#[derive(Clone)]
pub struct Forward {
    pub core: Arc<Core>,
    pub user: Arc<User>,
    pub delegated: Delegated,
    /// `None`: it lasts.
    pub due: Option<Instant>,
}

impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.delegated.info.method, self.delegated.info.path)
    }
}

impl Forward {
    /// The server, if it can be asked.
    ///
    /// # Errors
    /// 503 while it is not available, 500 when it could not be verified.
    fn backend(&self) -> Result<&Arc<Backend>, ApiError> {
        let service = &self.delegated.service;
        let backend = service.backend.as_ref().filter(|_| service.available);
        let backend = backend.ok_or_else(|| ApiError::service_unavailable(UNAVAILABLE))?;
        match backend.unusable() {
            Some(why) => Err(ApiError::new(500, "InternalError", why)),
            None => Ok(backend),
        }
    }

    /// Forwards the request, and returns the backend's answer.
    pub async fn serve(self, parts: &Parts, body: Body, client: OnUpgrade) -> Response<Body> {
        let known = self.backend().and_then(|backend| {
            let path = self.delegated.encoded_path()?;
            Ok((backend, target(&path, parts.uri.query())?))
        });
        let (backend, uri) = match known {
            Ok(known) => known,
            Err(error) => {
                discard(parts, body).await;
                return failed(&error);
            }
        };
        let exchange = self.exchange(backend, uri, parts, body, client);
        let outcome = match self.due {
            None => exchange.await,
            Some(due) => tokio::time::timeout_at(due, exchange)
                .await
                .unwrap_or_else(|_| Ok(render_error(&deadline::exceeded(), &Accept::default()))),
        };
        outcome.unwrap_or_else(|error| failed(&error))
    }

    async fn exchange(
        &self,
        backend: &Arc<Backend>,
        uri: Uri,
        parts: &Parts,
        body: Body,
        client: OnUpgrade,
    ) -> Result<Response<Body>, ApiError> {
        let upgrades = self.delegated.upgrades;
        let mut request = http::Request::new(body);
        *request.method_mut() = parts.method.clone();
        *request.version_mut() = Version::HTTP_11;
        *request.uri_mut() = uri;
        let peer = parts.extensions.get::<PeerAddress>().map(|peer| peer.0.ip());
        let headers = request.headers_mut();
        *headers = forwarded(parts, parts.uri.path(), peer, upgrades);
        if let Ok(host) = HeaderValue::from_str(&backend.address.authority()) {
            headers.insert(HOST, host);
        }
        identity::set(headers, &self.user).map_err(ApiError::internal)?;
        let sent = backend.send(&self.core, request, Trust::Verified).await;
        let mut response = sent.map_err(|error| unreachable(&*error))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            if !upgrades {
                return Err(ApiError::service_unavailable(
                    "error trying to reach service: it switched protocols unasked",
                ));
            }
            return Ok(switch(response.map(Answer::into_inner), client));
        }
        if response.status().is_redirection() && response.headers().contains_key(LOCATION) {
            return Ok(plain(StatusCode::BAD_GATEWAY, REDIRECTED));
        }
        answered(response.headers_mut());
        let due = self.due.map(|due| Box::pin(tokio::time::sleep_until(due)));
        Ok(response.map(|body| Timely { body, due }.boxed_unsync()))
    }

    /// The answer, as long as it lasts.
    ///
    /// # Errors
    /// That of the answer, if it is one.
    pub async fn open(self, asked: Asked<'_>) -> Result<Answer, ApiError> {
        let backend = self.backend()?;
        self.delegated.encoded_path()?;
        let due = clock::instant() + deadline::LIMIT;
        let opening = backend.open(&self.core, &self.user, asked);
        let opened = tokio::time::timeout_at(due, opening).await;
        let opened = opened.map_err(|_| deadline::exceeded())?;
        let (head, body) = opened.map_err(|error| unreachable(&*error))?.into_parts();
        if head.status.is_success() {
            return Ok(body);
        }
        let reading = Limited::new(body, REFUSAL_BYTES).collect();
        let read = tokio::time::timeout_at(due, reading).await;
        let read = read.map_err(|_| deadline::exceeded())?;
        let body = read.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Err(refusal(head.status.as_u16(), &body))
    }

    /// Reads the answer as a whole.
    ///
    /// # Errors
    /// That of the answer, if it is one.
    pub async fn fetch(self, asked: Asked<'_>) -> Result<Document, ApiError> {
        let backend = self.backend()?;
        self.delegated.encoded_path()?;
        let reading = backend.ask(&self.core, &self.user, asked, WHOLE_BYTES);
        let due = self.due.unwrap_or_else(|| clock::instant() + deadline::LIMIT);
        let read = tokio::time::timeout_at(due, reading).await;
        let document =
            read.map_err(|_| deadline::exceeded())?.map_err(|error| unreachable(&*error))?;
        match document.code {
            200..=299 => Ok(document),
            code => Err(refusal(code, &document.body)),
        }
    }
}

/// What a server that does not answer with success says, or what its code means.
fn refusal(code: u16, body: &[u8]) -> ApiError {
    match api::status::decode_status(body) {
        Ok(status) if status.code == Some(i32::from(code)) => ApiError::from_status(status),
        _ if code == 404 => ApiError::no_such_resource(),
        _ if code == 503 => {
            ApiError::service_unavailable("the server is currently unable to handle the request")
        }
        _ => ApiError::new(code, "", format!("the server responded with the status code {code}")),
    }
}

/// The answer about a server that cannot be asked.
fn failed(error: &ApiError) -> Response<Body> {
    let code = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    plain(code, error.message())
}

/// As Go's `http.Error`.
fn plain(code: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(full(Bytes::from(format!("{text}\n"))));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Path and query alone.
fn target(path: &str, query: Option<&str>) -> Result<Uri, ApiError> {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    Uri::try_from(format!("{path}{query}"))
        .map_err(|error| ApiError::bad_request(error.to_string()))
}

/// A body that ends with an error when the request is due.
struct Timely {
    body: Answer,
    due: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for Timely {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let Some(due) = &mut self.due else { return Poll::Pending };
        ready!(due.as_mut().poll(context));
        Poll::Ready(Some(Err("the backend did not finish its answer in time".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
