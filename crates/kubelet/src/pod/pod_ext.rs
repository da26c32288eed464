//! Accessors of a Pod object.

use std::sync::LazyLock;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus};

use super::static_pods::{FILE, SOURCE};
use crate::containers::PodRef;

static NO_SPEC: LazyLock<PodSpec> = LazyLock::new(PodSpec::default);
static NO_STATUS: LazyLock<PodStatus> = LazyLock::new(PodStatus::default);

/// The default of `terminationGracePeriodSeconds`.
pub const DEFAULT_GRACE_SECONDS: i64 = 30;

/// Accessors with Kubernetes' defaults.
pub trait PodExt {
    fn uid(&self) -> &str;
    fn pod_name(&self) -> &str;
    fn pod_namespace(&self) -> &str;
    fn spec_ref(&self) -> &PodSpec;
    fn status_ref(&self) -> &PodStatus;
    fn pod_ref(&self) -> PodRef;
    /// `spec.terminationGracePeriodSeconds`.
    fn spec_grace_seconds(&self) -> i64;
    fn host_network(&self) -> bool;
    /// Whether it comes from a file of the node. Only the apiserver's objects have a revision, so
    /// none of them can pass for one.
    fn is_static(&self) -> bool;
    fn restart_policy(&self) -> RestartPolicy;
    /// Whether its phase is Succeeded or Failed: nothing of it may run again.
    fn is_terminal(&self) -> bool;
    /// `metadata.deletionTimestamp`: the end of the grace period of a deleted pod.
    fn deletion_deadline(&self) -> Option<Timestamp>;
    fn deletion_grace_seconds(&self) -> Option<i64>;
}

impl PodExt for Pod {
    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    fn pod_name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    fn pod_namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn spec_ref(&self) -> &PodSpec {
        self.spec.as_ref().unwrap_or(&NO_SPEC)
    }

    fn status_ref(&self) -> &PodStatus {
        self.status.as_ref().unwrap_or(&NO_STATUS)
    }

    fn pod_ref(&self) -> PodRef {
        PodRef {
            uid: self.uid().to_owned(),
            namespace: self.pod_namespace().to_owned(),
            name: self.pod_name().to_owned(),
        }
    }

    fn spec_grace_seconds(&self) -> i64 {
        self.spec_ref().termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE_SECONDS)
    }

    fn host_network(&self) -> bool {
        self.spec_ref().host_network.unwrap_or(false)
    }

    fn is_static(&self) -> bool {
        let annotations = self.metadata.annotations.as_ref();
        self.metadata.resource_version.is_none()
            && annotations.and_then(|all| all.get(SOURCE)).is_some_and(|source| source == FILE)
    }

    fn restart_policy(&self) -> RestartPolicy {
        RestartPolicy::parse(self.spec_ref().restart_policy.as_deref())
    }

    fn is_terminal(&self) -> bool {
        matches!(self.status_ref().phase.as_deref(), Some("Succeeded" | "Failed"))
    }

    fn deletion_deadline(&self) -> Option<Timestamp> {
        self.metadata.deletion_timestamp.as_ref().map(|time| time.0)
    }

    fn deletion_grace_seconds(&self) -> Option<i64> {
        self.metadata.deletion_grace_period_seconds
    }
}

/// When an exited container is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    /// `Always` by default.
    pub fn parse(text: Option<&str>) -> Self {
        match text {
            Some("OnFailure") => Self::OnFailure,
            Some("Never") => Self::Never,
            _ => Self::Always,
        }
    }

    /// Whether a container that exited with `exit_code` is started again.
    pub fn restarts(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}
