//! Container logs in CRI format: `<RFC 3339 time, nanoseconds> stdout|stderr F|P <text>`.
//!
//! The writer is one process per container: `skiff-log`, or the kubelet's executable where that is
//! not installed. The shim starts it (`binary://` log URI), so that it outlives the kubelet and
//! containerd and loses no line. It rotates the log and serves `attach`. [`run_logger_if_asked`] is
//! its entry point: `main` calls it before anything else. [`read_log`] is the reader behind the
//! `Logs` call. The writer holds a lock on the file it writes, by which a reader knows whether
//! there may be more.

mod attach;
mod format;
mod logger;
mod path;
mod reader;
mod rotate;
mod spec;
mod tail;

use std::path::PathBuf;

pub(crate) use attach::{attach_output, attach_socket};
pub use logger::run_logger_if_asked;
pub(crate) use path::remove_logs;
pub use path::{container_log_path, pod_log_directory};
pub(crate) use reader::log_is_complete;
pub use reader::{LogError, LogQuery, read_log};
pub(crate) use rotate::has_writer;
pub(crate) use spec::{LoggerSpec, logger_uri, spawn_logger, writer_number};

/// How logs are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// The executable that writes them: `std::env::current_exe()` of a program whose `main` calls
    /// [`run_logger_if_asked`].
    pub logger: PathBuf,
    /// `containerLogMaxSize` in bytes: a larger file is rotated.
    pub max_size_bytes: u64,
    /// `containerLogMaxFiles`: files kept per container, including the current one; at least 2.
    pub max_files: u32,
}

impl LogConfig {
    /// Kubernetes' defaults: 10 MiB, 5 files. The writer is `skiff-log` if it is installed beside
    /// `kubelet` (it takes a quarter of the memory, per container), else the kubelet itself.
    pub fn new(kubelet: PathBuf) -> Self {
        let beside = kubelet.with_file_name("skiff-log");
        LogConfig {
            logger: if beside.is_file() { beside } else { kubelet },
            max_size_bytes: 10 << 20,
            max_files: 5,
        }
    }
}

/// One of a container's two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogStream {
    /// Standard output (and everything, with a terminal).
    Stdout,
    /// Standard error.
    Stderr,
}

impl LogStream {
    /// As written in a log line.
    pub fn as_str(self) -> &'static str {
        match self {
            LogStream::Stdout => "stdout",
            LogStream::Stderr => "stderr",
        }
    }
}
