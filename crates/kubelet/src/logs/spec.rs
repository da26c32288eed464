//! How a log writer is started: by the shim from a URI, or by us.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use runtime::program::Program;
use serde::{Deserialize, Serialize};

/// The first argument that makes our executable a log writer; the second is a [`LoggerSpec`].
pub(super) const LOGGER_ARGUMENT: &str = "container-log";

/// The configuration of a log writer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LoggerSpec {
    pub(crate) log_path: PathBuf,
    /// Socket for clients of `attach`.
    pub(crate) attach_socket: PathBuf,
    /// Of the writers of a log, the one with the highest number writes it: see [`writer_number`].
    #[serde(default)]
    pub(crate) number: u64,
    pub(crate) max_size_bytes: u64,
    pub(crate) max_files: u32,
    /// With a terminal there is no standard error.
    pub(crate) tty: bool,
    /// FIFOs of standard output and error; `None`: file descriptors 3 and 4, from the shim.
    pub(crate) fifos: Option<(PathBuf, PathBuf)>,
}

impl LoggerSpec {
    fn to_argument(&self) -> String {
        serde_json::to_string(self).expect("paths made by us are UTF-8")
    }
}

/// A number for a new log writer, higher than those before it: the nanoseconds since the machine
/// was booted.
pub(crate) fn writer_number() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
    let since_boot = Duration::from(now.expect("Linux has this clock"));
    u64::try_from(since_boot.as_nanos()).unwrap_or(u64::MAX)
}

/// The URI by which the shim starts the writer. It passes one argument pair per query parameter, in
/// undefined order, so there is only one.
pub(crate) fn logger_uri(logger: &Path, spec: &LoggerSpec) -> String {
    let path = percent_encode(&logger.to_string_lossy(), b"/");
    format!("binary://{path}?{LOGGER_ARGUMENT}={}", percent_encode(&spec.to_argument(), b""))
}

/// Starts the writer as a process that outlives us (it creates a session).
pub(crate) fn spawn_logger(logger: &Path, spec: &LoggerSpec) -> io::Result<()> {
    let mut command =
        Program::new(logger).option_with_value(LOGGER_ARGUMENT, spec.to_argument()).into_command();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = tokio::process::Command::from(command).spawn()?;
    // tokio reaps dropped children.
    drop(child);
    Ok(())
}

fn percent_encode(text: &str, keep: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || keep.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uri_holds_one_argument() {
        let spec = LoggerSpec {
            log_path: "/var/log/pods/a b/0.log".into(),
            attach_socket: "/run/attach".into(),
            number: 1,
            max_size_bytes: 10,
            max_files: 2,
            tty: false,
            fifos: None,
        };
        let uri = logger_uri(Path::new("/opt/my skiff/kubelet"), &spec);
        assert!(
            uri.starts_with("binary:///opt/my%20skiff/kubelet?container-log=%7B%22log_path%22"),
            "{uri}"
        );
        assert!(!uri.contains('&') && !uri.contains(' '));
    }
}
