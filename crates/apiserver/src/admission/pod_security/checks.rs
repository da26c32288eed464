//! The checks of the Pod Security Standards with the versions they came with: pure functions of a
//! pod's annotations and spec (`k8s.io/pod-security-admission/policy`).

mod baseline;
mod restricted;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EphemeralContainer, Lifecycle, PodSpec, Probe, SecurityContext,
};

use super::policy::{Level, LevelVersion, Version};

/// What a check looks at.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    pub annotations: Option<&'a BTreeMap<String, String>>,
    pub spec: &'a PodSpec,
}

/// The parts of a container of any kind that checks look at.
#[derive(Clone, Copy)]
struct ContainerView<'a> {
    name: &'a str,
    security: Option<&'a SecurityContext>,
    ports: Option<&'a Vec<ContainerPort>>,
    probes: [Option<&'a Probe>; 3],
    lifecycle: Option<&'a Lifecycle>,
}

impl<'a> From<&'a Container> for ContainerView<'a> {
    fn from(container: &'a Container) -> Self {
        Self {
            name: &container.name,
            security: container.security_context.as_ref(),
            ports: container.ports.as_ref(),
            probes: [
                container.liveness_probe.as_ref(),
                container.readiness_probe.as_ref(),
                container.startup_probe.as_ref(),
            ],
            lifecycle: container.lifecycle.as_ref(),
        }
    }
}

impl<'a> From<&'a EphemeralContainer> for ContainerView<'a> {
    fn from(container: &'a EphemeralContainer) -> Self {
        Self {
            name: &container.name,
            security: container.security_context.as_ref(),
            ports: container.ports.as_ref(),
            probes: [
                container.liveness_probe.as_ref(),
                container.readiness_probe.as_ref(),
                container.startup_probe.as_ref(),
            ],
            lifecycle: container.lifecycle.as_ref(),
        }
    }
}

impl<'a> Subject<'a> {
    /// Init containers, containers and ephemeral containers.
    fn containers(&self) -> impl Iterator<Item = ContainerView<'a>> + use<'a> {
        let init = self.spec.init_containers.iter().flatten().map(ContainerView::from);
        let regular = self.spec.containers.iter().map(ContainerView::from);
        let ephemeral = self.spec.ephemeral_containers.iter().flatten().map(ContainerView::from);
        init.chain(regular).chain(ephemeral)
    }

    /// The names of the containers that are `bad`.
    fn containers_that(&self, bad: impl Fn(&ContainerView<'a>) -> bool) -> Vec<&'a str> {
        self.containers().filter(bad).map(|container| container.name).collect()
    }

    fn is_windows(&self) -> bool {
        self.spec.os.as_ref().is_some_and(|os| os.name == "windows")
    }

    /// Whether the pod has a user namespace of its own.
    fn has_user_namespace(&self) -> bool {
        self.spec.host_users == Some(false)
    }
}

/// Why a check forbids a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub reason: String,
    pub detail: String,
}

impl Violation {
    fn new(reason: &str, detail: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), detail: detail.into() }
    }
}

type Check = fn(&Subject<'_>) -> Option<Violation>;

/// A check, with its revisions by the minor version they came with.
struct Row {
    id: &'static str,
    level: Level,
    revisions: &'static [(u32, Check)],
    /// The baseline check that this restricted one covers.
    overrides: &'static str,
}

const fn baseline(id: &'static str, revisions: &'static [(u32, Check)]) -> Row {
    Row { id, level: Level::Baseline, revisions, overrides: "" }
}

const fn restricted(
    id: &'static str,
    revisions: &'static [(u32, Check)],
    overrides: &'static str,
) -> Row {
    Row { id, level: Level::Restricted, revisions, overrides }
}

/// All checks: baseline, then restricted, each sorted as Go sorts their names, which is the order
/// of messages.
static CHECKS: &[Row] = &[
    baseline("appArmorProfile", &[(0, baseline::app_armor)]),
    baseline("capabilities_baseline", &[(0, baseline::capabilities)]),
    baseline("hostNamespaces", &[(0, baseline::host_namespaces)]),
    baseline("hostPathVolumes", &[(0, baseline::host_path_volumes)]),
    baseline("hostPorts", &[(0, baseline::host_ports)]),
    baseline("hostProbesAndHostLifecycle", &[(34, baseline::host_probes)]),
    baseline("privileged", &[(0, baseline::privileged)]),
    baseline("procMount", &[(0, baseline::proc_mount), (35, baseline::proc_mount_35)]),
    baseline("seLinuxOptions", &[(0, baseline::selinux), (31, baseline::selinux_31)]),
    baseline(
        "seccompProfile_baseline",
        &[(0, baseline::seccomp_annotations), (19, baseline::seccomp)],
    ),
    baseline(
        "sysctls",
        &[
            (0, baseline::sysctls),
            (27, baseline::sysctls_27),
            (29, baseline::sysctls_29),
            (32, baseline::sysctls_32),
            (37, baseline::sysctls_37),
        ],
    ),
    baseline("windowsHostProcess", &[(0, baseline::windows_host_process)]),
    restricted(
        "allowPrivilegeEscalation",
        &[(8, restricted::privilege_escalation), (25, restricted::privilege_escalation_25)],
        "",
    ),
    restricted(
        "capabilities_restricted",
        &[(22, restricted::capabilities), (25, restricted::capabilities_25)],
        "capabilities_baseline",
    ),
    restricted("procMount_restricted", &[(35, baseline::proc_mount)], "procMount"),
    restricted("restrictedVolumes", &[(0, restricted::volumes)], "hostPathVolumes"),
    restricted("runAsNonRoot", &[(0, restricted::non_root), (35, restricted::non_root_35)], ""),
    restricted("runAsUser", &[(23, restricted::user), (35, restricted::user_35)], ""),
    restricted(
        "seccompProfile_restricted",
        &[(19, restricted::seccomp), (25, restricted::seccomp_25)],
        "seccompProfile_baseline",
    ),
];

impl Row {
    /// The revision that is part of `version`.
    fn at(&self, version: Version) -> Option<Check> {
        let newest = self.revisions.iter().rev().find(|(minor, _)| version.includes(*minor));
        newest.map(|(_, check)| *check)
    }
}

/// What in the pod violates the policy.
pub fn violations(policy: LevelVersion, subject: &Subject<'_>) -> Vec<Violation> {
    let applies = |row: &&Row| row.level <= policy.level && row.at(policy.version).is_some();
    let covered: BTreeSet<&str> = CHECKS.iter().filter(applies).map(|row| row.overrides).collect();
    CHECKS
        .iter()
        .filter(applies)
        .filter(|row| !covered.contains(row.id))
        .filter_map(|row| row.at(policy.version)?(subject))
        .collect()
}

/// `host namespaces, privileged`
pub fn reasons(violations: &[Violation]) -> String {
    let reasons: Vec<&str> = violations.iter().map(|violation| violation.reason.as_str()).collect();
    reasons.join(", ")
}

/// `host namespaces (hostPID=true), privileged (container "c" must not set ...)`
pub fn details(violations: &[Violation]) -> String {
    let all: Vec<String> = violations
        .iter()
        .map(|violation| match violation.detail.as_str() {
            "" => violation.reason.clone(),
            detail => format!("{} ({detail})", violation.reason),
        })
        .collect();
    all.join(", ")
}

/// `container` or `containers`
fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

/// `"a", "b"`, without escapes.
fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let all: Vec<String> = items.into_iter().map(|item| format!("\"{}\"", item.as_ref())).collect();
    all.join(", ")
}

/// `container "c"`, `containers "a", "b"`
fn containers_text(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

/// `pod and containers "a", "b"`: who sets a value; `None`: nobody.
fn setters(pod: bool, names: &[&str]) -> Option<String> {
    let containers = (!names.is_empty()).then(|| containers_text(names));
    let all: Vec<String> = pod.then(|| "pod".to_owned()).into_iter().chain(containers).collect();
    (!all.is_empty()).then(|| all.join(" and "))
}

#[cfg(test)]
mod tests;
