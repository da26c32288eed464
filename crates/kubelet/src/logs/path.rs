//! Where logs are.

use std::path::{Path, PathBuf};

use crate::runtime::PodRef;

/// `<log_dir>/<namespace>_<name>_<uid>`, for `log_dir` = `/var/log/pods`: all logs of a pod.
pub fn pod_log_directory(log_dir: &Path, pod: &PodRef) -> PathBuf {
    log_dir.join(format!("{}_{}_{}", pod.namespace, pod.name, pod.uid))
}

/// `<pod log directory>/<container>/<attempt>.log`.
pub fn container_log_path(log_dir: &Path, pod: &PodRef, container: &str, attempt: u32) -> PathBuf {
    pod_log_directory(log_dir, pod)
        .join(container)
        .join(format!("{attempt}.log"))
}
