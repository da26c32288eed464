//! Security contexts of pods and containers.

use k8s_openapi::api::core::v1::{
    AppArmorProfile, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext, Sysctl,
};

use crate::kinds::at::At;
use crate::kinds::check::Unique;

/// User and group ids have 31 bits.
const MAX_ID: i64 = i32::MAX as i64;
const PROFILES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
const SYSCTL_MAX: usize = 253;
const SYSCTL: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

fn id(id: Option<i64>, at: &At<'_>) {
    if let Some(id) = id {
        at.in_range(id, 0, MAX_ID);
    }
}

pub fn pod(context: &PodSecurityContext, spec: &PodSpec, at: &At<'_>) {
    id(context.fs_group, &at.child("fsGroup"));
    id(context.run_as_user, &at.child("runAsUser"));
    id(context.run_as_group, &at.child("runAsGroup"));
    for (index, group) in context.supplemental_groups.iter().flatten().enumerate() {
        id(Some(*group), &at.item("supplementalGroups", index));
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        at.child("shareProcessNamespace")
            .invalid(true, "ShareProcessNamespace and HostPID cannot both be enabled");
    }
    sysctls(context.sysctls.as_deref().unwrap_or_default(), spec, &at.child("sysctls"));
    at.child("fsGroupChangePolicy")
        .one_of_or_unset(&context.fs_group_change_policy, &["Always", "OnRootMismatch"]);
    at.child("supplementalGroupsPolicy")
        .one_of_or_unset(&context.supplemental_groups_policy, &["Merge", "Strict"]);
    at.child("seLinuxChangePolicy")
        .one_of_or_unset(&context.se_linux_change_policy, &["MountOption", "Recursive"]);
    seccomp(context.seccomp_profile.as_ref(), &at.child("seccompProfile"));
    app_armor(context.app_armor_profile.as_ref(), &at.child("appArmorProfile"));
}

fn sysctls(sysctls: &[Sysctl], spec: &PodSpec, at: &At<'_>) {
    let mut seen = Unique::default();
    for (index, sysctl) in sysctls.iter().enumerate() {
        let at = at.part(index, "name");
        if sysctl.name.is_empty() {
            at.required("");
        } else if !is_sysctl(&sysctl.name) {
            let problem =
                format!("must have at most {SYSCTL_MAX} characters and match regex {SYSCTL}");
            at.invalid(&sysctl.name, problem);
        } else {
            seen.add(&sysctl.name, &at);
        }
        let name = sysctl.name.replace('/', ".");
        let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."]
            .iter()
            .any(|prefix| name.starts_with(prefix))
            || name == "kernel.sem";
        if spec.host_network == Some(true) && name.starts_with("net.") {
            at.invalid(&sysctl.name, "may not be specified when 'hostNetwork' is true");
        }
        if spec.host_ipc == Some(true) && ipc {
            at.invalid(&sysctl.name, "may not be specified when 'hostIPC' is true");
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= SYSCTL_MAX
        && name.split(['.', '/']).all(|segment| {
            segment.bytes().all(|byte| inner(byte) || byte == b'-' || byte == b'_')
                && segment.bytes().next().is_some_and(inner)
                && segment.bytes().last().is_some_and(inner)
        })
}

fn seccomp(profile: Option<&SeccompProfile>, at: &At<'_>) {
    let Some(profile) = profile else { return };
    if profile.type_.is_empty() {
        at.child("type").required("type is required when seccompProfile is set");
    } else if !PROFILES.contains(&profile.type_.as_str()) {
        at.child("type").not_supported(&profile.type_, PROFILES);
    }
    let at = at.child("localhostProfile");
    match (&profile.localhost_profile, profile.type_ == "Localhost") {
        (None, true) => at.required("must be set when seccomp type is Localhost"),
        (Some(file), true) => at.local_descending_path(file),
        (Some(file), false) => at.invalid(file, "can only be set when seccomp type is Localhost"),
        (None, false) => {}
    }
}

fn app_armor(profile: Option<&AppArmorProfile>, at: &At<'_>) {
    let Some(profile) = profile else { return };
    if profile.type_.is_empty() {
        at.child("type").required("type is required when appArmorProfile is set");
    } else if !PROFILES.contains(&profile.type_.as_str()) {
        at.child("type").not_supported(&profile.type_, PROFILES);
    }
    let at = at.child("localhostProfile");
    match (&profile.localhost_profile, profile.type_ == "Localhost") {
        (Some(name), true) if name.trim() != name => {
            at.invalid(name, "must not be padded with whitespace")
        }
        (Some(name), true) if !name.is_empty() => {}
        (_, true) => at.required("must be set when AppArmor type is Localhost"),
        (Some(name), false) => at.invalid(name, "can only be set when AppArmor type is Localhost"),
        (None, false) => {}
    }
}

/// `host_users` is false when the pod has a user namespace of its own.
pub fn container(context: Option<&SecurityContext>, host_users: bool, at: &At<'_>) {
    let Some(context) = context else { return };
    id(context.run_as_user, &at.child("runAsUser"));
    id(context.run_as_group, &at.child("runAsGroup"));
    if let Some(mount) = &context.proc_mount {
        const TYPES: &[&str] = &["Default", "Unmasked"];
        if !TYPES.contains(&mount.as_str()) {
            at.child("procMount").not_supported(mount, TYPES);
        }
        if host_users && mount == "Unmasked" {
            at.child("procMount").invalid(mount, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    seccomp(context.seccomp_profile.as_ref(), &at.child("seccompProfile"));
    if context.allow_privilege_escalation == Some(false) {
        if context.privileged == Some(true) {
            at.invalid(
                "",
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            );
        }
        let added =
            context.capabilities.iter().flat_map(|capabilities| capabilities.add.iter().flatten());
        if added.into_iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            at.invalid("", "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN");
        }
    }
    app_armor(context.app_armor_profile.as_ref(), &at.child("appArmorProfile"));
}
