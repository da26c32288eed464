//! What is stored in containerd with each container, so that everything can be found again.
//!
//! Identity and exit are labels (small, filterable, shown by `ctr`); the rest is one JSON
//! extension.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::container::ContainerUser;
use super::pod::PodRef;
use super::status::{ContainerExit, ExitReason};

pub(super) const POD_UID: &str = "io.kubernetes.pod.uid";
const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";
const ATTEMPT: &str = "skiff.io/attempt";
/// Set on the process that holds a shared PID namespace; such containers are not listed.
pub(super) const PAUSE: &str = "skiff.io/pause";
pub(super) const STARTED_AT: &str = "skiff.io/started-at";
pub(super) const EXIT: &str = "skiff.io/exit";
/// Key and type of the extension.
pub(super) const EXTENSION: &str = "skiff.io/record";
/// containerd refuses labels with more than 4096 bytes of key and value.
const MAX_MESSAGE_BYTES: usize = 2048;

/// A container's identity, as labels.
pub(super) struct Identity {
    pub(super) pod: PodRef,
    pub(super) name: String,
    pub(super) attempt: u32,
}

impl Identity {
    pub(super) fn to_labels(&self) -> HashMap<String, String> {
        HashMap::from([
            (POD_UID.to_string(), self.pod.uid.clone()),
            (POD_NAME.to_string(), self.pod.name.clone()),
            (POD_NAMESPACE.to_string(), self.pod.namespace.clone()),
            (CONTAINER_NAME.to_string(), self.name.clone()),
            (ATTEMPT.to_string(), self.attempt.to_string()),
        ])
    }

    /// `None` if the container is not ours.
    pub(super) fn from_labels(labels: &HashMap<String, String>) -> Option<Self> {
        let label = |key: &str| labels.get(key).cloned();
        Some(Identity {
            pod: PodRef {
                uid: label(POD_UID)?,
                namespace: label(POD_NAMESPACE)?,
                name: label(POD_NAME)?,
            },
            name: label(CONTAINER_NAME)?,
            attempt: label(ATTEMPT)?.parse().ok()?,
        })
    }
}

/// The extension: the parts of a container's configuration that `list` and `start` need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub(super) spec_hash: String,
    pub(super) image: String,
    pub(super) image_id: String,
    pub(super) image_ref: String,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) log_path: PathBuf,
    pub(super) cgroup: String,
    pub(super) user: ContainerUser,
    pub(super) tty: bool,
    pub(super) stdin: bool,
    pub(super) stdin_once: bool,
    pub(super) stop_signal: i32,
}

impl Record {
    /// Whether it writes into FIFOs read by a log writer that we start; the shim starts the others.
    pub(super) fn has_output_fifos(&self) -> bool {
        self.stdin && !self.tty
    }
}

/// A container's exit in its label.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExitLabel {
    code: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
    finished_at: Timestamp,
    reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    message: String,
}

/// Encodes an exit as a label's value.
pub(super) fn exit_to_label(exit: &ContainerExit) -> String {
    let mut message = exit.message.clone();
    if message.len() > MAX_MESSAGE_BYTES {
        let cut =
            (0..=MAX_MESSAGE_BYTES).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(cut);
    }
    let label = ExitLabel {
        code: exit.exit_code,
        started_at: exit.started_at,
        finished_at: exit.finished_at,
        reason: exit.reason.as_str().to_string(),
        message,
    };
    serde_json::to_string(&label).expect("numbers, times and strings can be written as JSON")
}

/// Decodes it; `None` if it is not one.
pub(super) fn exit_from_label(text: &str) -> Option<ContainerExit> {
    let label: ExitLabel = serde_json::from_str(text).ok()?;
    Some(ContainerExit {
        exit_code: label.code,
        started_at: label.started_at,
        finished_at: label.finished_at,
        reason: ExitReason::parse(&label.reason),
        message: label.message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_survives_its_label() {
        let exit = ContainerExit {
            exit_code: 137,
            started_at: Some("2026-01-02T03:04:05.000000006Z".parse().unwrap()),
            finished_at: "2026-01-02T03:04:07Z".parse().unwrap(),
            reason: ExitReason::OomKilled,
            message: String::new(),
        };
        assert_eq!(exit_from_label(&exit_to_label(&exit)), Some(exit.clone()));
        let long = ContainerExit { message: "ä".repeat(5000), ..exit };
        let text = exit_to_label(&long);
        assert!(text.len() < 4000, "{}", text.len());
        assert!(exit_from_label(&text).is_some());
        assert_eq!(exit_from_label("{"), None);
    }
}
