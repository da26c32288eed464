//! `/debug/pprof`: what this process does with its time, for `go tool pprof`, as Go's
//! `net/http/pprof` serves it.
//!
//! One profile at a time is taken, of the whole process. A thread of its own takes it, which stops
//! when the client has gone: sampling is started, and the names of functions are looked up, with
//! more work than a request should do elsewhere.

pub mod profile;

use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use prost::Message;
use runtime::profile::Profiler;

/// The folder of all profiles.
pub const PREFIX: &str = "/debug/pprof";

/// How long a profile is without the parameter `seconds`, and at most.
const SECONDS: u64 = 30;
const MAX_SECONDS: u64 = 300;

/// What there is here, with what it is.
const PAGES: [(&str, &str); 2] = [
    ("cmdline", "the arguments of the program"),
    ("profile", "a profile of the processor's time, of ?seconds=30"),
];
/// What Go's runtime has beside it.
const OF_GO: [&str; 8] =
    ["allocs", "block", "goroutine", "heap", "mutex", "symbol", "threadcreate", "trace"];

/// Tells `go tool pprof` that an error's text is meant for people.
const GO_PPROF: HeaderName = HeaderName::from_static("x-go-pprof");
const NO_SNIFF: HeaderName = HeaderName::from_static("x-content-type-options");
const TEXT: &str = "text/plain; charset=utf-8";

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("Could not enable CPU profiling: {0}")]
    Start(#[source] runtime::profile::Error),
    #[error("cannot compress the profile")]
    Compress(#[source] std::io::Error),
    #[error("the task that took the profile has failed")]
    Task(#[source] tokio::task::JoinError),
}

/// Answers a path below [`PREFIX`].
pub async fn answer(path: &str, seconds: Option<&str>) -> Response<Bytes> {
    match path.strip_prefix(PREFIX).unwrap_or(path).trim_matches('/') {
        "" => page("text/html; charset=utf-8", index()),
        "cmdline" => {
            let arguments: Vec<_> = std::env::args_os().map(OsStringExt::into_vec).collect();
            page(TEXT, arguments.join(&0))
        }
        "profile" => match parse_seconds(seconds) {
            Some(seconds) => profiled(Duration::from_secs(seconds)).await,
            None => {
                let text = format!("seconds has to be a number from 1 to {MAX_SECONDS}");
                failure(StatusCode::BAD_REQUEST, &text)
            }
        },
        name if OF_GO.contains(&name) => {
            let text = format!("{name:?} describes Go's runtime, which this program does not have");
            failure(StatusCode::NOT_IMPLEMENTED, &text)
        }
        _ => failure(StatusCode::NOT_FOUND, "Unknown profile"),
    }
}

fn page(content_type: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(NO_SNIFF, HeaderValue::from_static("nosniff"));
    response
}

fn failure(code: StatusCode, text: &str) -> Response<Bytes> {
    let mut response = page(TEXT, format!("{text}\n"));
    response.headers_mut().insert(GO_PPROF, HeaderValue::from_static("1"));
    *response.status_mut() = code;
    response
}

fn index() -> String {
    let lines: String = PAGES
        .iter()
        .map(|(name, what)| format!("<li><a href=\"{PREFIX}/{name}\">{name}</a>: {what}</li>\n"))
        .collect();
    format!(
        "<html>\n<head><title>{PREFIX}/</title></head>\n<body>\n<ul>\n{lines}</ul>\n</body>\n</html>\n"
    )
}

fn parse_seconds(text: Option<&str>) -> Option<u64> {
    let seconds = match text.unwrap_or_default() {
        "" => SECONDS,
        text => text.parse().ok()?,
    };
    (1..=MAX_SECONDS).contains(&seconds).then_some(seconds)
}

async fn profiled(time: Duration) -> Response<Bytes> {
    // The client is there for as long as this call is: its end ends the waiting of the thread.
    let (client, ended) = mpsc::channel::<()>();
    let taken = tokio::task::spawn_blocking(move || {
        let taken = take(time, &ended);
        runtime::memory::return_memory();
        taken
    });
    let taken = taken.await;
    drop(client);
    match taken.map_err(Error::Task).and_then(|taken| taken) {
        Ok(profile) => {
            let mut response = page("application/octet-stream", profile);
            let value = HeaderValue::from_static("attachment; filename=\"profile\"");
            response.headers_mut().insert(CONTENT_DISPOSITION, value);
            response
        }
        Err(error) => {
            let cause = runtime::errors::cause_chain(&error);
            tracing::warn!(error = cause, "no profile was taken");
            failure(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())
        }
    }
}

/// Takes a profile, unless the client ends earlier: nothing then.
fn take(time: Duration, client: &Receiver<()>) -> Result<Vec<u8>, Error> {
    let profiler = Profiler::start().map_err(Error::Start)?;
    let (begun, since) = (clock::now(), clock::monotonic());
    if client.recv_timeout(time) != Err(RecvTimeoutError::Timeout) {
        return Ok(Vec::new());
    }
    let lasted = clock::monotonic().saturating_duration_since(since);
    let samples = profiler.finish();
    if samples.dropped > 0 {
        tracing::warn!(samples.dropped, "a profile is not complete");
    }
    let profile = profile::of(&samples, begun, lasted).encode_to_vec();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&profile).map_err(Error::Compress)?;
    encoder.finish().map_err(Error::Compress)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_profile_is_bounded() {
        assert_eq!(parse_seconds(None), Some(30));
        assert_eq!(parse_seconds(Some("")), Some(30));
        assert_eq!(parse_seconds(Some("300")), Some(300));
        for wrong in ["0", "-1", "301", "1.5", "ten", "99999999999999999999"] {
            assert_eq!(parse_seconds(Some(wrong)), None, "{wrong}");
        }
    }
}
