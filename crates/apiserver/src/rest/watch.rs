//! Watches as chunked JSON or protobuf frames.

use api::{ApiError, KindRef};
use bytes::{Bytes, BytesMut};
use clock::SharedClock;
use futures::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use super::table::{IncludeObject, partial, table};
use super::{Accept, Body, BodyError, Representation};
use crate::cache::{Change, Version, WatchEvent, Watcher, frame};

/// Frames are joined into chunks of at least this many bytes while more are ready.
const CHUNK_BYTES: usize = 64 << 10;

struct State {
    watcher: Watcher,
    clock: SharedClock,
    representation: Representation,
    include: IncludeObject,
    protobuf: bool,
    /// Only the first table of a watch has column definitions.
    columns_sent: bool,
    ended: bool,
}

/// A response that lasts as long as the watch.
pub fn response(watcher: Watcher, accept: &Accept, clock: SharedClock) -> http::Response<Body> {
    // Custom resources have no protobuf form.
    let protobuf = accept.protobuf && watcher.row().custom.is_none();
    let state = State {
        watcher,
        clock,
        representation: accept.representation,
        include: accept.include,
        protobuf,
        columns_sent: false,
        ended: false,
    };
    let frames = stream::unfold(state, |mut state| async move {
        let chunk = next(&mut state).await?;
        Some((Ok::<_, BodyError>(Frame::data(chunk)), state))
    });
    let mut response = http::Response::new(StreamBody::new(frames).boxed_unsync());
    let headers = response.headers_mut();
    let content_type = if protobuf {
        "application/vnd.kubernetes.protobuf;stream=watch"
    } else {
        super::render::JSON
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

async fn next(state: &mut State) -> Option<Bytes> {
    if state.ended {
        return None;
    }
    match state.watcher.next().await? {
        Ok(mut events) if events.len() == 1 => {
            let event = events.pop()?;
            Some(encode(state, &event).unwrap_or_else(|error| refuse(state, &error)))
        }
        Ok(events) => {
            let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
            for event in &events {
                match encode(state, event) {
                    Ok(bytes) => chunk.extend_from_slice(&bytes),
                    Err(error) => {
                        chunk.extend_from_slice(&refuse(state, &error));
                        break;
                    }
                }
            }
            Some(chunk.freeze())
        }
        Err(error) => Some(refuse(state, &error)),
    }
}

/// The last frame of a watch that failed.
fn refuse(state: &mut State, error: &ApiError) -> Bytes {
    state.ended = true;
    if state.protobuf {
        return protobuf_frame("ERROR", &error.encode()).unwrap_or_default();
    }
    frame("ERROR", &error.encode())
}

/// An event as protobuf, preceded by its length in four bytes.
fn protobuf_frame(kind: &str, object: &[u8]) -> Result<Bytes, ApiError> {
    let value: serde_json::Value = serde_json::from_slice(object)
        .map_err(|error| ApiError::internal(format!("a stored object is not JSON: {error}")))?;
    let event = api::protobuf::watch_event_from_json(kind, &value)
        .map_err(|error| ApiError::not_acceptable(error.to_string()))?;
    let length = u32::try_from(event.len()).unwrap_or(u32::MAX);
    let mut framed = BytesMut::with_capacity(event.len() + 4);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(&event);
    Ok(framed.freeze())
}

fn encode(state: &mut State, event: &WatchEvent) -> Result<Bytes, ApiError> {
    let row = &state.watcher.row().clone();
    if state.protobuf {
        return match event {
            WatchEvent::Bookmark { revision, initial_end } => {
                let object = bookmark(row, *revision, *initial_end, Representation::Object);
                protobuf_frame("BOOKMARK", &object)
            }
            WatchEvent::Changed(change, event) => {
                protobuf_frame(change.as_str(), &event.object(*change).json)
            }
            WatchEvent::Initial(version) => protobuf_frame(Change::Added.as_str(), &version.json),
        };
    }
    match event {
        WatchEvent::Bookmark { revision, initial_end } => {
            Ok(frame("BOOKMARK", &bookmark(row, *revision, *initial_end, state.representation)))
        }
        WatchEvent::Changed(change, event) if state.representation == Representation::Object => {
            Ok(event.frame(*change))
        }
        WatchEvent::Changed(change, event) => {
            let object = represent(state, row, event.object(*change))?;
            Ok(frame(change.as_str(), &object))
        }
        WatchEvent::Initial(version) => {
            let object = represent(state, row, version)?;
            Ok(frame(Change::Added.as_str(), &object))
        }
    }
}

fn represent(
    state: &mut State,
    row: &KindRef,
    version: &std::sync::Arc<Version>,
) -> Result<Bytes, ApiError> {
    match state.representation {
        Representation::Object => Ok(version.json.clone()),
        Representation::PartialMetadata => Ok(partial(version)),
        Representation::Table => {
            let options = super::table::TableOptions {
                omit_columns: state.columns_sent,
                include: state.include,
            };
            state.columns_sent = true;
            table(row, version, &options, state.clock.now())
        }
    }
}

/// An object with nothing but the revision that the watch has reached.
pub fn bookmark(
    row: &KindRef,
    revision: u64,
    initial_end: bool,
    representation: Representation,
) -> Bytes {
    let annotations =
        if initial_end { ",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}" } else { "" };
    let metadata =
        format!("{{\"resourceVersion\":\"{revision}\",\"creationTimestamp\":null{annotations}}}");
    let text = match representation {
        Representation::Object => format!(
            "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{metadata}}}",
            row.kind,
            row.api_version()
        ),
        Representation::PartialMetadata => format!(
            "{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata}}}"
        ),
        Representation::Table => format!(
            "{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{{\"resourceVersion\":\"{revision}\"}},\
             \"columnDefinitions\":null,\"rows\":[{{\"cells\":[],\"object\":{{\"kind\":\"PartialObjectMetadata\",\
             \"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata}}}}}]}}"
        ),
    };
    text.into()
}
