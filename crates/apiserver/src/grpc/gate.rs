//! What a gRPC call shows before its message is received.
//!
//! A message is decoded when all of it is there, and only then says what the call is about. So the
//! gate looks at its beginning: small messages pass if their sender is known, large ones (writes)
//! must begin with their target, for which the sender needs the right and a seat. Calls without
//! credentials, such as health checks, have a few places, and each address a share of them.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use api::ApiError;
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message;
use rpc::api_v1 as pb;
use runtime::shares::{Place, Shares};
use tokio::time::Sleep;
use tonic::Status;
use tower::ServiceExt;

use super::elsewhere::Place as Elsewhere;
use super::{MAX_REQUEST_BYTES, convert};
use crate::authn;
use crate::connect::PeerAddress;
use crate::core::Core;
use crate::incoming::BODY_TIME;
use crate::inflight::Seat;
use crate::pipeline::Pipelines;
use crate::request::{Head, Options, Request, Subject, Verb};
use crate::rest::BodyError;
use crate::user::ClientCertificate;

/// How much of a message is received before it is known what it is about, and how long that may
/// take.
const HEAD_BYTES: usize = 16 << 10;
const HEAD_TIME: Duration = Duration::from_secs(10);
/// The largest message of a read: selectors may be long, as in a URI.
const READ_BYTES: usize = 64 << 10;
/// Messages of callers without credentials that are being received at once.
const ANONYMOUS_CALLS: usize = 64;
/// The share of one address in these.
const ANONYMOUS_SHARE: usize = 16;
/// The prefix of a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Lets calls in.
#[derive(Clone)]
pub struct Gate {
    pipelines: Pipelines,
    core: Arc<Core>,
    anonymous: Shares,
}

impl Gate {
    pub fn new(pipelines: Pipelines, core: Arc<Core>) -> Self {
        Self { pipelines, core, anonymous: Shares::new(ANONYMOUS_CALLS, ANONYMOUS_SHARE) }
    }

    /// The call with what has been received of its message, and limits for the rest.
    ///
    /// # Errors
    /// 401, 403 and 429 as for any request, 413 for a message that may not be so large.
    pub async fn admit(
        &self,
        request: http::Request<Incoming>,
    ) -> Result<http::Request<Messages>, ApiError> {
        let (mut parts, mut body) = request.into_parts();
        let method = Method::of(parts.uri.path());
        let credentials = authn::credentials(&parts.headers, &parts.extensions);
        let proven = matches!(credentials.certificate, ClientCertificate::Valid(_));
        let refused = matches!(credentials.certificate, ClientCertificate::Invalid(_));
        let known = proven || refused || credentials.bearer.is_some();
        let place = if known {
            None
        } else {
            let peer = parts.extensions.get::<PeerAddress>();
            let peer = peer.map_or(IpAddr::from([0; 4]), |peer| peer.0.ip().to_canonical());
            let place = self.anonymous.take(peer);
            Some(place.map_err(|_| {
                ApiError::too_many_requests("Too many requests, please try again later.", 1)
            })?)
        };
        if known && !proven {
            let path = parts.uri.path().to_owned();
            let subject = Subject::Path { path, method: "post", accept: String::new() };
            let client = parts.extensions.get().cloned().unwrap_or_default();
            let request = Request { client, ..Request::new(subject, credentials.clone()) };
            self.pipelines.identify.clone().oneshot(request).await?;
        }
        let seat = parts.extensions.get_or_insert_default::<Seat>().clone();
        let mut begun = Bytes::new();
        if !method.streams() {
            begun = tokio::time::timeout(HEAD_TIME, beginning(&mut body))
                .await
                .map_err(|_| ApiError::timeout("Timeout: the message did not arrive in time"))??;
            if let (Some(length), Method::Write(verb)) = (length(&begun), method)
                && length > HEAD_BYTES
            {
                let Head { subject, refused, .. } = self.head(verb, target(&begun)?).await?;
                let client = parts.extensions.get().cloned().unwrap_or_default();
                let request =
                    Request { refused, seat, client, ..Request::new(subject, credentials) };
                self.pipelines.admit.clone().oneshot(request).await?;
            }
        }
        let time = match (method.streams(), known) {
            (true, true) => None,
            (false, false) => Some(HEAD_TIME),
            _ => Some(BODY_TIME),
        };
        let messages = Messages {
            begun: Some(begun).filter(|begun| !begun.is_empty()),
            rest: body,
            limits: method.limits(),
            deadline: time.map(|time| Box::pin(tokio::time::sleep(time))),
            _place: place,
        };
        Ok(http::Request::from_parts(parts, messages))
    }
}

impl Gate {
    /// What a write is about, as far as its target says.
    async fn head(&self, verb: Verb, target: pb::Target) -> Result<Head, ApiError> {
        let target = if verb == Verb::Create { convert::of_creation(target) } else { target };
        match Elsewhere::of(&self.core, &target) {
            Some(place) => {
                let subject = place.subject(&self.core, &method_of(verb))?;
                Ok(Head::new(subject, Options::default()))
            }
            None => Ok(convert::head(&self.core, verb, Some(target), Ok(Options::default())).await),
        }
    }
}

/// A write's method of HTTP.
fn method_of(verb: Verb) -> http::Method {
    match verb {
        Verb::Create => http::Method::POST,
        Verb::Update => http::Method::PUT,
        Verb::Patch => http::Method::PATCH,
        _ => http::Method::DELETE,
    }
}

/// What messages a method has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    /// One small message.
    Read,
    /// One message, with an object.
    Write(Verb),
    /// Any number of small messages.
    Stream,
    /// A small message that opens a session, and any number of larger ones.
    Session,
}

impl Method {
    fn of(path: &str) -> Self {
        match path.strip_prefix("/skiff.api.v1.Resources/") {
            Some("Create") => Self::Write(Verb::Create),
            Some("Update") => Self::Write(Verb::Update),
            Some("Patch") => Self::Write(Verb::Patch),
            Some("Delete") => Self::Write(Verb::Delete),
            Some("DeleteCollection") => Self::Write(Verb::DeleteCollection),
            Some("Stream") => Self::Session,
            Some("Bind") => Self::Stream,
            Some(_) => Self::Read,
            // Health has a message, reflection a stream of them.
            None if path.starts_with("/grpc.health.") => Self::Read,
            None => Self::Stream,
        }
    }

    fn streams(self) -> bool {
        matches!(self, Self::Stream | Self::Session)
    }

    fn limits(self) -> Limits {
        let (first, later) = match self {
            Self::Read => (READ_BYTES, 0),
            Self::Write(_) => (MAX_REQUEST_BYTES, 0),
            Self::Stream => (HEAD_BYTES, HEAD_BYTES),
            Self::Session => (HEAD_BYTES, MAX_REQUEST_BYTES),
        };
        Limits { next: first, later, prefix: [0; PREFIX_BYTES], filled: 0, left: 0 }
    }
}

/// The beginning of a message: all of a small one.
async fn beginning(body: &mut Incoming) -> Result<Bytes, ApiError> {
    let mut begun = Bytes::new();
    loop {
        if let Some(length) = length(&begun)
            && begun.len() >= PREFIX_BYTES + length.min(HEAD_BYTES)
        {
            return Ok(begun);
        }
        let Some(frame) = body.frame().await else { return Ok(begun) };
        let frame = frame
            .map_err(|error| ApiError::bad_request(format!("cannot read the message: {error}")))?;
        let Ok(data) = frame.into_data() else { return Ok(begun) };
        begun = if begun.is_empty() {
            data
        } else {
            let mut joined = BytesMut::from(begun);
            joined.extend_from_slice(&data);
            joined.freeze()
        };
    }
}

/// The length of a message without its prefix, once that is there.
fn length(begun: &[u8]) -> Option<usize> {
    let length = begun.get(1..PREFIX_BYTES)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(length)).ok()
}

/// The target at the beginning of a write's message.
fn target(begun: &[u8]) -> Result<pb::Target, ApiError> {
    /// Of field 1, with a length.
    const TAG: u8 = 0x0a;
    let missing = || {
        ApiError::too_large(format!(
            "a message of more than {HEAD_BYTES} bytes begins with its target"
        ))
    };
    let mut message = begun.get(PREFIX_BYTES..).unwrap_or_default();
    if message.split_off_first() != Some(&TAG) {
        return Err(missing());
    }
    let length = prost::encoding::decode_varint(&mut message).map_err(|_| missing())?;
    let length = usize::try_from(length).map_err(|_| missing())?;
    let target = message.get(..length).ok_or_else(missing)?;
    pb::Target::decode(target)
        .map_err(|error| ApiError::bad_request(format!("the target cannot be decoded: {error}")))
}

/// How large the messages of a call may be.
struct Limits {
    next: usize,
    later: usize,
    prefix: [u8; PREFIX_BYTES],
    /// How much of the prefix is there.
    filled: usize,
    /// How much of the message is missing.
    left: usize,
}

impl Limits {
    /// Counts bytes that have arrived.
    fn count(&mut self, mut data: &[u8]) -> Result<(), Status> {
        while !data.is_empty() {
            let taken =
                data.len().min(if self.left > 0 { self.left } else { PREFIX_BYTES - self.filled });
            let (now, later) = data.split_at(taken);
            data = later;
            if self.left > 0 {
                self.left -= taken;
                continue;
            }
            self.prefix[self.filled..self.filled + taken].copy_from_slice(now);
            self.filled += taken;
            if self.filled == PREFIX_BYTES {
                self.filled = 0;
                self.left = length(&self.prefix).unwrap_or(usize::MAX);
                if self.left > self.next {
                    let limit = format!("Request entity too large: limit is {}", self.next);
                    return Err(rpc::status::to_grpc(&ApiError::too_large(limit)));
                }
                self.next = self.later;
            }
        }
        Ok(())
    }
}

/// The messages of a call that was let in.
pub struct Messages {
    begun: Option<Bytes>,
    rest: Incoming,
    limits: Limits,
    deadline: Option<Pin<Box<Sleep>>>,
    _place: Option<Place>,
}

impl Body for Messages {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let frame = match this.begun.take() {
            Some(begun) => Frame::data(begun),
            None => match Pin::new(&mut this.rest).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    let Some(deadline) = &mut this.deadline else { return Poll::Pending };
                    return deadline.as_mut().poll(context).map(|()| {
                        let late = Status::deadline_exceeded("the message did not arrive in time");
                        Some(Err(late.into()))
                    });
                }
            },
        };
        let counted = frame.data_ref().map_or(Ok(()), |data| this.limits.count(data));
        Poll::Ready(Some(counted.map(|()| frame).map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.begun.is_none() && self.rest.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixed(length: u32, message: &[u8]) -> Vec<u8> {
        [&[0][..], &length.to_be_bytes(), message].concat()
    }

    /// However the bytes are cut into frames, a message is refused by its prefix.
    #[test]
    fn messages_are_refused_by_their_length() {
        let method = |path: &str| Method::of(&format!("/skiff.api.v1.Resources/{path}"));
        let max = u32::try_from(MAX_REQUEST_BYTES).unwrap();
        for (method, lengths, refused) in [
            (method("Get"), &[65_536][..], None),
            (method("Get"), &[65_537], Some(0)),
            (method("Get"), &[1, 1], Some(1)),
            (method("GetPath"), &[u32::MAX], Some(0)),
            (method("Create"), &[max], None),
            (method("Create"), &[max + 1], Some(0)),
            (method("Bind"), &[100, 16_384, 16_385], Some(2)),
            (method("Stream"), &[16_384, max], None),
            (method("Stream"), &[16_385], Some(0)),
            (Method::of("/grpc.health.v1.Health/Check"), &[65_537], Some(0)),
            (Method::of("/grpc.reflection.v1.ServerReflection/X"), &[9, 16_385], Some(1)),
        ] {
            for cut in [1, 3, 4_096, usize::MAX] {
                let mut limits = method.limits();
                let mut stopped = None;
                for (number, length) in lengths.iter().enumerate() {
                    let size = usize::try_from(*length).unwrap().min(MAX_REQUEST_BYTES);
                    let bytes = prefixed(*length, &vec![0; size]);
                    let counted =
                        bytes.chunks(cut.min(bytes.len())).try_for_each(|c| limits.count(c));
                    if counted.is_err() {
                        stopped = Some(number);
                        break;
                    }
                }
                assert_eq!(stopped, refused, "{method:?} {lengths:?} in pieces of {cut}");
            }
        }
    }

    #[test]
    fn a_write_begins_with_its_target() {
        let message = pb::CreateRequest {
            target: Some(pb::Target {
                version: "v1".into(),
                resource: "configmaps".into(),
                namespace: "default".into(),
                name: "n".into(),
                ..Default::default()
            }),
            json: vec![b' '; 1 << 20].into(),
            options: None,
        };
        let encoded = message.encode_to_vec();
        let length = u32::try_from(encoded.len()).unwrap();
        let begun = prefixed(length, &encoded[..HEAD_BYTES]);
        assert_eq!(Some(target(&begun).unwrap()), message.target);
        let other = prefixed(length, &[0x12; HEAD_BYTES]);
        assert_eq!(target(&other).unwrap_err().code(), 413);
        // A target that does not end within the beginning.
        let endless = [&[0x0a, 0xff, 0xff, 0x7f][..], &[b'x'; HEAD_BYTES]].concat();
        assert_eq!(target(&prefixed(length, &endless)).unwrap_err().code(), 413);
    }
}
