//! Security contexts of pods and containers.

use api::status::FieldError;
use k8s_openapi::api::core::v1::{
    AppArmorProfile, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext, Sysctl,
};

use crate::kinds::check::{self, Errors, Unique};
use crate::kinds::path::Path;

/// User and group ids have 31 bits.
const MAX_ID: i64 = i32::MAX as i64;
const PROFILES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
const SYSCTL_MAX: usize = 253;
const SYSCTL: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

fn id(id: Option<i64>, path: &Path, errors: &mut Errors) {
    if let Some(id) = id {
        check::in_range(id, 0, MAX_ID, path, errors);
    }
}

pub fn pod(context: &PodSecurityContext, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    id(context.fs_group, &path.child("fsGroup"), errors);
    id(context.run_as_user, &path.child("runAsUser"), errors);
    id(context.run_as_group, &path.child("runAsGroup"), errors);
    for (index, group) in context.supplemental_groups.iter().flatten().enumerate() {
        id(Some(*group), &path.child("supplementalGroups").index(index), errors);
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let problem = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(path.child("shareProcessNamespace"), true, problem));
    }
    sysctls(context.sysctls.as_deref().unwrap_or_default(), spec, &path.child("sysctls"), errors);
    check::one_of_or_unset(
        &context.fs_group_change_policy,
        &["Always", "OnRootMismatch"],
        &path.child("fsGroupChangePolicy"),
        errors,
    );
    check::one_of_or_unset(
        &context.supplemental_groups_policy,
        &["Merge", "Strict"],
        &path.child("supplementalGroupsPolicy"),
        errors,
    );
    check::one_of_or_unset(
        &context.se_linux_change_policy,
        &["MountOption", "Recursive"],
        &path.child("seLinuxChangePolicy"),
        errors,
    );
    seccomp(context.seccomp_profile.as_ref(), &path.child("seccompProfile"), errors);
    app_armor(context.app_armor_profile.as_ref(), &path.child("appArmorProfile"), errors);
}

fn sysctls(sysctls: &[Sysctl], spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let mut seen = Unique::default();
    for (index, sysctl) in sysctls.iter().enumerate() {
        let path = path.index(index).child("name");
        if sysctl.name.is_empty() {
            errors.push(FieldError::required(&path, ""));
        } else if !is_sysctl(&sysctl.name) {
            let problem =
                format!("must have at most {SYSCTL_MAX} characters and match regex {SYSCTL}");
            errors.push(FieldError::invalid(&path, &sysctl.name, problem));
        } else {
            seen.insert(&sysctl.name, &path, errors);
        }
        let name = sysctl.name.replace('/', ".");
        let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."]
            .iter()
            .any(|prefix| name.starts_with(prefix))
            || name == "kernel.sem";
        if spec.host_network == Some(true) && name.starts_with("net.") {
            let problem = "may not be specified when 'hostNetwork' is true";
            errors.push(FieldError::invalid(&path, &sysctl.name, problem));
        }
        if spec.host_ipc == Some(true) && ipc {
            let problem = "may not be specified when 'hostIPC' is true";
            errors.push(FieldError::invalid(&path, &sysctl.name, problem));
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

fn seccomp(profile: Option<&SeccompProfile>, path: &Path, errors: &mut Errors) {
    let Some(profile) = profile else { return };
    if profile.type_.is_empty() {
        errors.push(FieldError::required(
            path.child("type"),
            "type is required when seccompProfile is set",
        ));
    } else if !PROFILES.contains(&profile.type_.as_str()) {
        errors.push(FieldError::not_supported(path.child("type"), &profile.type_, PROFILES));
    }
    let path = path.child("localhostProfile");
    match (&profile.localhost_profile, profile.type_ == "Localhost") {
        (None, true) => {
            errors.push(FieldError::required(&path, "must be set when seccomp type is Localhost"));
        }
        (Some(file), true) => check::local_descending_path(file, &path, errors),
        (Some(file), false) => {
            errors.push(FieldError::invalid(
                &path,
                file,
                "can only be set when seccomp type is Localhost",
            ));
        }
        (None, false) => {}
    }
}

fn app_armor(profile: Option<&AppArmorProfile>, path: &Path, errors: &mut Errors) {
    let Some(profile) = profile else { return };
    if profile.type_.is_empty() {
        errors.push(FieldError::required(
            path.child("type"),
            "type is required when appArmorProfile is set",
        ));
    } else if !PROFILES.contains(&profile.type_.as_str()) {
        errors.push(FieldError::not_supported(path.child("type"), &profile.type_, PROFILES));
    }
    let path = path.child("localhostProfile");
    match (&profile.localhost_profile, profile.type_ == "Localhost") {
        (Some(name), true) if name.trim() != name => {
            errors.push(FieldError::invalid(&path, name, "must not be padded with whitespace"));
        }
        (Some(name), true) if !name.is_empty() => {}
        (_, true) => {
            errors.push(FieldError::required(&path, "must be set when AppArmor type is Localhost"));
        }
        (Some(name), false) => {
            errors.push(FieldError::invalid(
                &path,
                name,
                "can only be set when AppArmor type is Localhost",
            ));
        }
        (None, false) => {}
    }
}

/// `host_users` is false when the pod has a user namespace of its own.
pub fn container(
    context: Option<&SecurityContext>,
    host_users: bool,
    path: &Path,
    errors: &mut Errors,
) {
    let Some(context) = context else { return };
    id(context.run_as_user, &path.child("runAsUser"), errors);
    id(context.run_as_group, &path.child("runAsGroup"), errors);
    if let Some(mount) = &context.proc_mount {
        const TYPES: &[&str] = &["Default", "Unmasked"];
        if !TYPES.contains(&mount.as_str()) {
            errors.push(FieldError::not_supported(path.child("procMount"), mount, TYPES));
        }
        if host_users && mount == "Unmasked" {
            let problem = "`hostUsers` must be false to use `Unmasked`";
            errors.push(FieldError::invalid(path.child("procMount"), mount, problem));
        }
    }
    seccomp(context.seccomp_profile.as_ref(), &path.child("seccompProfile"), errors);
    if context.allow_privilege_escalation == Some(false) {
        if context.privileged == Some(true) {
            let problem = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(FieldError::invalid(path, "", problem));
        }
        let added =
            context.capabilities.iter().flat_map(|capabilities| capabilities.add.iter().flatten());
        if added.into_iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            let problem = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(FieldError::invalid(path, "", problem));
        }
    }
    app_armor(context.app_armor_profile.as_ref(), &path.child("appArmorProfile"), errors);
}
