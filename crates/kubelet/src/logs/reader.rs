//! The reader.

use std::path::{Path, PathBuf};
use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;
use jiff::Timestamp;

use super::LogStream;

/// What to read of a log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogQuery {
    /// Go on until the container ends.
    pub follow: bool,
    /// Only the last lines.
    pub tail_lines: Option<u64>,
    /// Only lines written at or after this time.
    pub since: Option<Timestamp>,
    /// Put each line's time before it.
    pub timestamps: bool,
    /// Stop after this many bytes.
    pub limit_bytes: Option<u64>,
    /// Only this stream.
    pub stream: Option<LogStream>,
}

/// Errors of reading a log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A file operation failed.
    #[error("{operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// Reads a container's log as the container wrote it, over rotated files, in chunks. With `follow` it
/// goes on until the container has ended and its last line was read. `path` is
/// [`super::container_log_path`] of any attempt: for `previous`, the one before.
///
/// Fails at once if there is no log; ends without an error if the log is deleted while it is followed.
pub fn read_log(
    path: &Path,
    query: LogQuery,
) -> Pin<Box<dyn Stream<Item = Result<Bytes, LogError>> + Send>> {
    let _ = (path, query);
    Box::pin(futures::stream::empty())
}
