//! A container's log as an HTTP body.

use std::convert::Infallible;

use futures::StreamExt;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use rpc::kubelet_v1::LogChunk;
use tonic::Streaming;

use crate::rest::Body;

/// The chunks as they come.
pub fn response(chunks: Option<Streaming<LogChunk>>) -> http::Response<Body> {
    let body = match chunks {
        None => Empty::new().boxed_unsync(),
        Some(chunks) => {
            let frames = chunks
                .take_while(|chunk| {
                    if let Err(error) = chunk {
                        tracing::debug!(%error, "a log stream ended early");
                    }
                    std::future::ready(chunk.is_ok())
                })
                .filter_map(|chunk| async { chunk.ok() })
                .map(|chunk| Ok::<_, Infallible>(Frame::data(chunk.data)));
            StreamBody::new(frames).boxed_unsync()
        }
    };
    let mut response = http::Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}
