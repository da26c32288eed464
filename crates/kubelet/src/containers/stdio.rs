//! How a container's standard streams are connected: its log writer, and FIFOs for standard input.
//!
//! The shim starts the log writer itself (`binary://`), so that it lives as long as the shim. Such
//! containers get no standard input from the shim unless they have a terminal; a container with
//! `stdin` and without `tty` therefore writes into FIFOs, and we start a detached log writer that
//! reads them.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::Mode;

use super::namespaces::PodPaths;
use super::record::Record;
use super::{Inner, Result, RuntimeError};
use crate::logs::{LoggerSpec, attach_socket, has_writer, logger_uri, spawn_logger, writer_number};

/// The paths to create a task with; empty for none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TaskStdio {
    pub(super) stdin: String,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl PodPaths {
    /// Where a container's or exec's FIFOs are.
    pub(super) fn streams(&self, id: &str) -> PathBuf {
        self.io().join(id)
    }
}

/// The FIFO that feeds a container's standard input.
pub(super) fn stdin_fifo(directory: &Path) -> PathBuf {
    directory.join("stdin")
}

impl Inner {
    /// Removes a container's streams. It may be gone already.
    pub(super) async fn remove_streams(&self, id: &str, pod_uid: &str) -> Result<()> {
        let directory = self.pod_paths(pod_uid).streams(id);
        release_fifos(&directory);
        match tokio::fs::remove_dir_all(&directory).await {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(RuntimeError::Io { operation: "remove", path: directory, source })
            }
            _ => Ok(()),
        }
    }

    /// Prepares a container's streams and returns their paths. Each call creates new FIFOs: an
    /// aborted start may still be opening the previous ones.
    pub(super) async fn prepare_stdio(
        &self,
        id: &str,
        pod_uid: &str,
        record: &Record,
    ) -> Result<TaskStdio> {
        let directory = self.pod_paths(pod_uid).streams(id);
        let log_directory = record.log_path.parent().unwrap_or(Path::new("/")).to_path_buf();
        for path in [&directory, &log_directory] {
            tokio::fs::create_dir_all(path).await.map_err(RuntimeError::io("create", path))?;
        }
        let nonce = rand::random::<u32>();
        let fifo = |name: &str| make_fifo(&directory.join(format!("{name}-{nonce:08x}")));
        let stdin = if record.stdin { fifo("stdin")? } else { String::new() };
        let logger = &self.config.logs.logger;
        if record.has_output_fifos() {
            let stdio = TaskStdio { stdin, stdout: fifo("stdout")?, stderr: fifo("stderr")? };
            self.start_log_writer(id, pod_uid, record, &stdio)?;
            return Ok(stdio);
        }
        let uri = logger_uri(logger, &self.logger_spec(id, pod_uid, record, None));
        let stderr = if record.tty { String::new() } else { uri.clone() };
        Ok(TaskStdio { stdin, stdout: uri, stderr })
    }

    /// Restarts the log writer of a running container with FIFOs if it was killed. The shim keeps
    /// the FIFOs open, so nothing written meanwhile is lost.
    pub(super) fn ensure_log_writer(
        &self,
        id: &str,
        pod_uid: &str,
        record: &Record,
        stdio: &TaskStdio,
    ) -> Result<()> {
        if has_writer(&record.log_path)
            .map_err(RuntimeError::io("inspect log", &record.log_path))?
        {
            return Ok(());
        }
        tracing::warn!(container = %id, "the container's log writer was gone; starting another");
        self.start_log_writer(id, pod_uid, record, stdio)
    }

    /// Starts a log writer that reads a task's FIFOs. A running one gives way to it.
    pub(super) fn start_log_writer(
        &self,
        id: &str,
        pod_uid: &str,
        record: &Record,
        stdio: &TaskStdio,
    ) -> Result<()> {
        let logger = &self.config.logs.logger;
        let spec = self.logger_spec(id, pod_uid, record, Some(stdio));
        spawn_logger(logger, &spec).map_err(RuntimeError::io("start", logger))
    }

    fn logger_spec(
        &self,
        id: &str,
        pod_uid: &str,
        record: &Record,
        fifos: Option<&TaskStdio>,
    ) -> LoggerSpec {
        let logs = &self.config.logs;
        LoggerSpec {
            log_path: record.log_path.clone(),
            attach_socket: attach_socket(&self.pod_paths(pod_uid).streams(id)),
            number: writer_number(),
            max_size_bytes: logs.max_size_bytes,
            max_files: logs.max_files,
            tty: record.tty,
            fifos: fifos.map(|stdio| (PathBuf::from(&stdio.stdout), PathBuf::from(&stdio.stderr))),
        }
    }
}

/// Ends a log writer that waits at FIFOs that were never opened for writing, by opening and closing
/// them. Does nothing without such a writer or without FIFOs.
fn release_fifos(directory: &Path) {
    drop(open_fifos(directory, OpenOptions::new().write(true)));
}

/// Opens every FIFO in the directory for reading, for as long as the result is held: this unblocks
/// writers.
pub(super) fn read_waiting_fifos(directory: &Path) -> Vec<File> {
    open_fifos(directory, OpenOptions::new().read(true))
}

/// Opens the FIFOs in a directory without blocking. One that cannot be opened has no peer.
fn open_fifos(directory: &Path, open: &mut OpenOptions) -> Vec<File> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let open = open.custom_flags(nix::libc::O_NONBLOCK);
    let fifos =
        entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("std"));
    fifos.filter_map(|entry| open.open(entry.path()).ok()).collect()
}

/// Creates a FIFO unless it exists.
pub(super) fn make_fifo(path: &Path) -> Result<String> {
    match nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(()) | Err(Errno::EEXIST) => Ok(path.to_string_lossy().into_owned()),
        Err(errno) => Err(RuntimeError::Io {
            operation: "make FIFO",
            path: path.into(),
            source: errno.into(),
        }),
    }
}
