//! The paths of logs. The time of its rotation is appended to a rotated file's name, so that names
//! sort by time: `0.log.20260102-030405.000000006`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::containers::PodRef;

/// `<log_dir>/<namespace>_<name>_<uid>`, for `log_dir` = `/var/log/pods`: all logs of a pod.
pub fn pod_log_directory(log_dir: &Path, pod: &PodRef) -> PathBuf {
    log_dir.join(format!("{}_{}_{}", pod.namespace, pod.name, pod.uid))
}

/// `<pod log directory>/<container>/<attempt>.log`.
pub fn container_log_path(log_dir: &Path, pod: &PodRef, container: &str, attempt: u32) -> PathBuf {
    pod_log_directory(log_dir, pod).join(container).join(format!("{attempt}.log"))
}

/// The name of a log file once it is rotated.
pub(super) fn rotated_path(path: &Path, now: Timestamp) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(format!(".{}.{:09}", now.strftime("%Y%m%d-%H%M%S"), now.subsec_nanosecond()));
    PathBuf::from(name)
}

/// Where the next file of a log is created before it becomes visible.
pub(super) fn unfinished_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.next"))
}

/// The rotated files of a log, oldest first.
pub(super) fn rotated_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(directory), Some(name)) =
        (path.parent(), path.file_name().and_then(|name| name.to_str()))
    else {
        return Ok(Vec::new());
    };
    let prefix = format!("{name}.");
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Removes a log and its rotated files, and the directory if it becomes empty. It may be gone
/// already.
pub(crate) fn remove_logs(path: &Path) -> io::Result<()> {
    let rotated = match rotated_files(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        files => files?,
    };
    let unfinished = unfinished_path(path);
    for file in rotated.iter().map(PathBuf::as_path).chain([&unfinished, path]) {
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let Some(directory) = path.parent() else {
        return Ok(());
    };
    match fs::remove_dir(directory) {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound
            ) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}
