//! Bodies that have not arrived yet: nothing of a body is read before its sender is known and
//! allowed to do what the head of the request says, and then within limits of size and time.

use std::sync::Arc;
use std::time::Duration;

use api::ApiError;
use bytes::{Bytes, BytesMut};
use http::header::EXPECT;
use http::request::Parts;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::time::Instant;
use tower::Service;

use crate::body::MAX_BODY_BYTES;
use crate::core::Core;
use crate::deadline;
use crate::request::{BodyFormat, Request, Subject, Verb};
use crate::response::Response;
use crate::rest::Body;

/// How long a request's body may take to arrive, however steadily it does.
pub const BODY_TIME: Duration = Duration::from_secs(60);
/// How much of a body that nobody wants is received and dropped, and for how long.
const DISCARD_BYTES: usize = 8 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// A body, and the encoding that its sender claims.
pub struct Unread {
    pub body: Body,
    /// The error if its encoding is unknown.
    pub format: Result<BodyFormat, ApiError>,
}

/// Holds a body until it is read: the front end and the request share it.
#[derive(Clone, Default)]
pub struct Slot(Arc<Mutex<Option<Unread>>>);

impl Slot {
    pub fn new(unread: Unread) -> Self {
        Self(Arc::new(Mutex::new(Some(unread))))
    }

    /// The body, if it has not been read.
    pub fn take(&self) -> Option<Unread> {
        self.0.lock().take()
    }

    fn put_back(&self, unread: Unread) {
        *self.0.lock() = Some(unread);
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Slot")
    }
}

/// Reads the body of a request whose verb takes one: the step of the pipeline after authorization.
///
/// # Errors
/// 400, 413, 415 and 504 as Kubernetes.
pub async fn receive<S>(
    _core: Arc<Core>,
    mut request: Request,
    mut inner: S,
) -> Result<Response, ApiError>
where
    S: Service<Request, Response = Response, Error = ApiError>,
{
    if takes_body(&request.subject)
        && let Some(mut unread) = request.unread.take()
    {
        let due = deadline::of(&request).unwrap_or_else(|| clock::instant() + BODY_TIME);
        match read(&mut unread.body, due).await {
            Ok(body) => request.body = body,
            Err(error) => {
                request.unread.put_back(unread);
                return Err(error);
            }
        }
        if !request.body.is_empty() || !may_be_empty(&request.subject) {
            request.body_format = unread.format?;
        }
    }
    inner.call(request).await
}

/// A proxied body is for the backend to read; those of reads and of paths mean nothing.
fn takes_body(subject: &Subject) -> bool {
    match subject {
        Subject::Resource { verb, .. } => !verb.is_read() && !matches!(verb, Verb::Connect { .. }),
        Subject::Path { .. } | Subject::Delegated(_) | Subject::Unserved(_) => false,
    }
}

/// Deletions have options in their bodies, which may be left out.
fn may_be_empty(subject: &Subject) -> bool {
    let Subject::Resource { verb, .. } = subject else { return true };
    matches!(verb, Verb::Delete | Verb::DeleteCollection)
}

async fn read(body: &mut Body, due: Instant) -> Result<Bytes, ApiError> {
    tokio::time::timeout_at(due, whole(body)).await.unwrap_or_else(|_| Err(deadline::exceeded()))
}

async fn whole(body: &mut Body) -> Result<Bytes, ApiError> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            ApiError::bad_request(format!("cannot read the request's body: {error}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + rest.len() + data.len() > MAX_BODY_BYTES {
            let limit = format!("Request entity too large: limit is {MAX_BODY_BYTES}");
            return Err(ApiError::too_large(limit));
        }
        if first.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
    }
    if rest.is_empty() {
        return Ok(first);
    }
    Ok([first, rest.freeze()].concat().into())
}

/// Receives and drops what is left of a body that nobody reads, within limits. Otherwise HTTP/1.1
/// could only close the connection, and HTTP/2 reset the stream; a client that is still sending then
/// may take that for the answer.
pub async fn discard(parts: &Parts, mut body: Body) {
    // Who expects to be told to go on is not sending.
    if parts.headers.contains_key(EXPECT) || http_body::Body::is_end_stream(&body) {
        return;
    }
    let mut left = DISCARD_BYTES;
    let receiving = async {
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(length) {
                Some(less) => left = less,
                None => return,
            }
        }
    };
    // If there is more, the answer is sent all the same.
    tokio::time::timeout(DISCARD_TIME, receiving).await.ok();
}
