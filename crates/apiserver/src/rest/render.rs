//! Renders answers as HTTP responses.
//!
//! What takes a processor's time (compression, Tables, other formats of large answers) runs on
//! threads for blocking work, as many at once as there are processors.

use std::io::Write;
use std::sync::Arc;

use api::ApiError;
use bytes::Bytes;
use clock::SharedClock;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{Stream, StreamExt, stream};
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::list::{PIECE_BYTES, Pieces};
use super::table::{partial, scale_table, table};
use super::{Accept, Body, BodyError, Representation, watch};
use crate::answer::{hold, in_time};
use crate::inflight::Seat;
use crate::request::Verb;
use crate::response::{ListAnswer, Response, bounded};

const NOT_CACHED: HeaderValue = HeaderValue::from_static("no-cache, private");
/// The content type of JSON. Kubernetes adds no charset.
pub const JSON: &str = "application/json";
/// Answers smaller than this are not compressed (upstream's 128 KiB), and lists are sent whole.
const LARGE_BYTES: usize = 128 << 10;
/// Compressed lists that are being sent at once; others are sent as they are. Each holds a
/// compressor, of a quarter of a MiB, for as long as its client reads.
const COMPRESSORS: usize = 64;
/// Large answers in other formats than JSON that are being sent at once, in bytes: they are made as
/// a whole.
const CONVERTED_BYTES: usize = 64 << 20;

/// A body that is already complete.
pub fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// Renders answers, with what all of them share.
pub struct Rendering {
    clock: SharedClock,
    processors: Arc<Semaphore>,
    compressors: Arc<Semaphore>,
    /// Of [`CONVERTED_BYTES`], in KiB.
    converted: Arc<Semaphore>,
}

impl Rendering {
    pub fn new(clock: SharedClock) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            clock,
            processors: Arc::new(Semaphore::new(processors)),
            compressors: Arc::new(Semaphore::new(COMPRESSORS)),
            converted: Arc::new(Semaphore::new(CONVERTED_BYTES >> 10)),
        }
    }

    /// Renders an answer, whose seat is held until it has been sent.
    ///
    /// # Errors
    /// 406 when it cannot be rendered in the negotiated representation, 429 when it is large and
    /// too many others are being rendered.
    pub async fn response(
        &self,
        response: Response,
        verb: Option<Verb>,
        accept: &Accept,
        seat: Seat,
    ) -> Result<http::Response<Body>, ApiError> {
        match response {
            Response::Object(answer) => {
                let version = &answer.version;
                let json = match accept.representation {
                    Representation::Object => version.json.clone(),
                    Representation::Table => {
                        table(&answer.row, version, &accept.table_options(), self.clock.now())?
                    }
                    Representation::PartialMetadata => partial(version),
                };
                self.json(answer.code, json, &answer.warnings, accept, seat).await
            }
            Response::List(answer) => self.list(answer, accept, seat).await,
            Response::Watch(watcher) => {
                let response = watch::response(*watcher, accept, self.clock.clone());
                Ok(response.map(|body| hold(body, seat)))
            }
            Response::Json { code, json, warnings } => {
                if accept.representation == Representation::Table && verb == Some(Verb::Create) {
                    return Err(ApiError::not_acceptable(
                        "only the following media types are accepted: application/json, application/yaml",
                    ));
                }
                let table = (accept.representation == Representation::Table)
                    .then(|| scale_table(&json, &accept.table_options(), self.clock.now()));
                let json = table.flatten().unwrap_or(json);
                self.json(code, json, &warnings, accept, seat).await
            }
            Response::Raw { code, content_type, body } => {
                let value = HeaderValue::from_str(&content_type)
                    .unwrap_or(HeaderValue::from_static("application/octet-stream"));
                self.whole(code, body, value, accept, seat).await
            }
            Response::Http(response) => {
                let mut response = response.map(full);
                response.headers_mut().insert(CACHE_CONTROL, NOT_CACHED);
                Ok(response)
            }
            Response::Connect(_) => Err(ApiError::internal("a stream cannot be rendered")),
        }
    }

    /// A complete answer in the format that the client accepts.
    async fn json(
        &self,
        code: u16,
        json: Bytes,
        warnings: &[String],
        accept: &Accept,
        seat: Seat,
    ) -> Result<http::Response<Body>, ApiError> {
        let other = accept.protobuf || accept.yaml || accept.pretty;
        let (body, content_type) = if other && json.len() >= LARGE_BYTES {
            let accept = accept.clone();
            self.compute(move || convert(json, &accept)).await?
        } else {
            convert(json, accept)
        };
        let value = HeaderValue::from_static(content_type);
        let mut response = self.whole(code, body, value, accept, seat).await?;
        add_warnings(&mut response, warnings);
        Ok(response)
    }

    async fn whole(
        &self,
        code: u16,
        body: Bytes,
        content_type: HeaderValue,
        accept: &Accept,
        seat: Seat,
    ) -> Result<http::Response<Body>, ApiError> {
        if !accept.gzip || body.len() < LARGE_BYTES {
            return Ok(head(code, content_type, full(body)));
        }
        let body = self.compute(move || gzip(&body)).await??;
        let pieces = stream::iter(copies(body)).map(Ok);
        let mut response = head(code, content_type, sent_in_time(pieces, seat));
        set_compressed(response.headers_mut());
        Ok(response)
    }

    async fn list(
        &self,
        answer: ListAnswer,
        accept: &Accept,
        seat: Seat,
    ) -> Result<http::Response<Body>, ApiError> {
        let size: usize = answer.items.iter().map(|item| item.json.len()).sum();
        let pieces = Pieces::new(answer, accept, self.clock.now());
        if size < LARGE_BYTES {
            return self.json(200, pieces.whole()?, &[], accept, seat).await;
        }
        if accept.protobuf || accept.yaml || accept.pretty {
            return self.converted(size, pieces, accept, seat).await;
        }
        let compressor = accept.gzip.then(|| self.compressors.clone().try_acquire_owned().ok());
        let gzip = compressor.flatten().map(Gzip::new);
        let compressed = gzip.is_some();
        let body = sent_in_time(self.pieces(pieces, gzip), seat);
        let mut response = head(200, HeaderValue::from_static(JSON), body);
        if compressed {
            set_compressed(response.headers_mut());
        }
        Ok(response)
    }

    /// A large list in another format than JSON, which has to be made as a whole.
    async fn converted(
        &self,
        size: usize,
        pieces: Pieces,
        accept: &Accept,
        seat: Seat,
    ) -> Result<http::Response<Body>, ApiError> {
        let kib = u32::try_from((size >> 10).min(CONVERTED_BYTES >> 10)).unwrap_or(u32::MAX);
        let memory = self.converted.clone().try_acquire_many_owned(kib).map_err(|_| {
            ApiError::too_many_requests(
                "too many large lists are being converted to other formats than JSON",
                1,
            )
        })?;
        let accept = accept.clone();
        let converted = move || Ok::<_, ApiError>(convert(pieces.whole()?, &accept));
        let (body, content_type) = self.compute(converted).await??;
        let pieces = stream::iter(copies(body)).map(move |piece| {
            let _until_sent = &memory;
            Ok(piece)
        });
        Ok(head(200, HeaderValue::from_static(content_type), sent_in_time(pieces, seat)))
    }

    /// The pieces of a list, compressed if there is a compressor.
    fn pieces(
        &self,
        pieces: Pieces,
        gzip: Option<Gzip>,
    ) -> impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static {
        let processors = self.processors.clone();
        let state = Some((pieces, gzip, processors));
        stream::unfold(state, |state| async move {
            let (mut pieces, mut gzip, processors) = state?;
            let (piece, pieces, gzip) = if pieces.decodes() || gzip.is_some() {
                let step = move || (next(&mut pieces, &mut gzip), pieces, gzip);
                match compute(&processors, step).await {
                    Ok(done) => done,
                    Err(error) => return Some((Err(error.into()), None)),
                }
            } else {
                (next(&mut pieces, &mut gzip), pieces, gzip)
            };
            match piece {
                Ok(piece) => Some((Ok(piece?), Some((pieces, gzip, processors)))),
                Err(error) => Some((Err(error.into()), None)),
            }
        })
    }

    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        compute(&self.processors, work).await
    }
}

/// Runs `work` on a thread for blocking work once a processor is free for it.
async fn compute<T: Send + 'static>(
    processors: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let processor = processors.clone().acquire_owned().await.map_err(ApiError::internal)?;
    let done = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(processor);
        done
    });
    done.await.map_err(ApiError::internal)
}

/// A compressor, and its place among those that are allowed at once.
struct Gzip {
    /// `None` once it has ended.
    encoder: Option<GzEncoder<Vec<u8>>>,
    _place: OwnedSemaphorePermit,
}

impl Gzip {
    fn new(place: OwnedSemaphorePermit) -> Self {
        let encoder = GzEncoder::new(Vec::new(), Compression::fast());
        Self { encoder: Some(encoder), _place: place }
    }
}

/// The next piece of what is sent.
fn next(pieces: &mut Pieces, gzip: &mut Option<Gzip>) -> Result<Option<Bytes>, ApiError> {
    let Some(gzip) = gzip else { return pieces.next_piece() };
    while let Some(encoder) = &mut gzip.encoder {
        match pieces.next_piece()? {
            Some(piece) => {
                encoder.write_all(&piece).map_err(ApiError::internal)?;
                if encoder.get_ref().len() >= PIECE_BYTES {
                    return Ok(Some(std::mem::take(encoder.get_mut()).into()));
                }
            }
            None => {
                let end = gzip.encoder.take().map(GzEncoder::finish).transpose();
                return Ok(end.map_err(ApiError::internal)?.map(Bytes::from));
            }
        }
    }
    Ok(None)
}

/// A body of pieces that has to be read in time. The connection is closed otherwise.
fn sent_in_time(
    pieces: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static,
    seat: Seat,
) -> Body {
    let late = || Err(BodyError::from("the client did not read the answer in time"));
    let frames = in_time(pieces, seat, late).map(|piece| piece.map(Frame::data));
    StreamBody::new(frames).boxed_unsync()
}

/// The bytes in copied pieces, so that none of them keeps all.
fn copies(bytes: Bytes) -> impl Iterator<Item = Bytes> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let end = bytes.len().min(at + PIECE_BYTES);
        let piece = Bytes::copy_from_slice(&bytes[at..end]);
        at = end;
        (!piece.is_empty()).then_some(piece)
    })
}

/// An error as a Status.
pub fn error(error: &ApiError, accept: &Accept) -> http::Response<Body> {
    let (body, content_type) = convert(error.encode().into(), accept);
    let mut response = head(error.code(), HeaderValue::from_static(content_type), full(body));
    let retry = error.status().details.as_ref().and_then(|details| details.retry_after_seconds);
    if let Some(seconds) = retry {
        response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(seconds.max(0)));
    }
    if error.code() == 401 {
        response.headers_mut().remove(CACHE_CONTROL);
    }
    response
}

/// JSON in the format that the client accepts, and its media type.
fn convert(json: Bytes, accept: &Accept) -> (Bytes, &'static str) {
    let converted = if accept.protobuf {
        to_protobuf(&json).map(|message| (message, api::protobuf::MEDIA_TYPE))
    } else if accept.yaml {
        to_yaml(&json).map(|yaml| (yaml, "application/yaml"))
    } else if accept.pretty {
        Some((indented(&json), JSON))
    } else {
        None
    };
    converted.unwrap_or((json, JSON))
}

fn to_protobuf(json: &[u8]) -> Option<Bytes> {
    let value: serde_json::Value = serde_json::from_slice(json).ok()?;
    api::protobuf::from_json(&value).ok().map(Bytes::from)
}

fn to_yaml(json: &[u8]) -> Option<Bytes> {
    let value: serde_json::Value = serde_json::from_slice(json).ok()?;
    serde_saphyr::to_string(&value).ok().map(Bytes::from)
}

/// The JSON on lines of its own, indented by two spaces as Go does.
fn indented(json: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(json.len() * 2);
    let new_line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + 2 * depth, b' ');
    };
    let (mut depth, mut in_text, mut escaped, mut opened) = (0_usize, false, false, false);
    for &byte in json {
        if in_text {
            out.push(byte);
            in_text = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => continue,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if !opened {
                    new_line(&mut out, depth);
                }
            }
            _ if opened => new_line(&mut out, depth),
            _ => {}
        }
        out.push(byte);
        match byte {
            b'{' | b'[' => depth += 1,
            b',' => new_line(&mut out, depth),
            b':' => out.push(b' '),
            b'"' => in_text = true,
            _ => {}
        }
        opened = matches!(byte, b'{' | b'[');
    }
    out.into()
}

fn head(code: u16, content_type: HeaderValue, body: Body) -> http::Response<Body> {
    let mut response = http::Response::new(body);
    *response.status_mut() =
        http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, NOT_CACHED);
    headers.insert(CONTENT_TYPE, content_type);
    response
}

fn set_compressed(headers: &mut http::HeaderMap) {
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
}

pub fn add_warnings(response: &mut http::Response<Body>, warnings: &[String]) {
    for warning in bounded(warnings) {
        let text = warning.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
}

fn gzip(body: &[u8]) -> Result<Bytes, ApiError> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body).map_err(ApiError::internal)?;
    encoder.finish().map(Bytes::from).map_err(ApiError::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_as_go_does() {
        let json = br#"{"a":{},"b":[],"c":[1,{"d":"x\\\"}{,:","e":null}],"f":[[true]]}
"#;
        let expected = r#"{
  "a": {},
  "b": [],
  "c": [
    1,
    {
      "d": "x\\\"}{,:",
      "e": null
    }
  ],
  "f": [
    [
      true
    ]
  ]
}"#;
        assert_eq!(String::from_utf8(indented(json).to_vec()).unwrap(), expected);
        assert_eq!(indented(b"\"x\"\n"), &b"\"x\""[..]);
    }

    #[tokio::test]
    async fn large_lists_in_other_formats_and_compressors_are_bounded() {
        let rendering = Rendering::new(clock::system());
        let large = || super::super::list::tests::list(&[2 * LARGE_BYTES]);
        let accept = |raw: &str| {
            let mut headers = http::HeaderMap::new();
            headers.insert(http::header::ACCEPT, HeaderValue::from_str(raw).unwrap());
            headers.insert(http::header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
            Accept::parse(&headers, "").unwrap()
        };
        let ask = async |raw: &str| {
            rendering
                .list(large(), &accept(raw), Seat::default())
                .await
                .map(|answer| answer.headers().contains_key(http::header::CONTENT_ENCODING))
        };
        assert!(ask(JSON).await.unwrap(), "it is compressed");
        assert!(ask("application/yaml").await.is_ok());
        let all = u32::try_from(CONVERTED_BYTES >> 10).unwrap();
        let _converting = rendering.converted.clone().acquire_many_owned(all).await.unwrap();
        assert_eq!(ask("application/yaml").await.unwrap_err().code(), 429);
        let all = u32::try_from(COMPRESSORS).unwrap();
        let _compressing = rendering.compressors.clone().acquire_many_owned(all).await.unwrap();
        assert!(!ask(JSON).await.unwrap(), "it is sent as it is");
    }
}
