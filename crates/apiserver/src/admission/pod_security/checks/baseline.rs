//! The checks of the baseline level: no known way to escalate privileges.

use std::cell::RefCell;
use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    AppArmorProfile, LifecycleHandler, Probe, SELinuxOptions, SeccompProfile,
    WindowsSecurityContextOptions,
};

use super::{Subject, Violation, containers_text, plural, quoted, setters};

const APP_ARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_ANNOTATION: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER_ANNOTATION: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// Capabilities that containers may add: those they have by default, but for NET_RAW.
const CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Values that were found, across closures.
type Found = RefCell<BTreeSet<String>>;

pub fn app_armor(subject: &Subject<'_>) -> Option<Violation> {
    let values = Found::default();
    let bad = |profile: Option<&AppArmorProfile>| {
        let bad = profile.filter(|own| !["RuntimeDefault", "Localhost"].contains(&&*own.type_));
        bad.is_some_and(|own| {
            values.borrow_mut().insert(own.type_.clone());
            true
        })
    };
    let pod = subject.spec.security_context.as_ref();
    let pod = bad(pod.and_then(|context| context.app_armor_profile.as_ref()));
    let containers = subject.containers_that(|container| {
        bad(container.security.and_then(|context| context.app_armor_profile.as_ref()))
    });
    let annotations: Vec<String> = subject
        .annotations
        .into_iter()
        .flatten()
        .filter(|(key, _)| key.starts_with(APP_ARMOR_ANNOTATION))
        .filter(|(_, value)| {
            !value.is_empty() && *value != "runtime/default" && !value.starts_with("localhost/")
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    let by_annotation = plural("annotation", "annotations", annotations.len());
    let by_annotation = (!annotations.is_empty()).then(|| by_annotation.to_owned());
    let who: Vec<String> = setters(pod, &containers).into_iter().chain(by_annotation).collect();
    if who.is_empty() {
        return None;
    }
    let mut all: Vec<String> = values.into_inner().into_iter().collect();
    all.extend(annotations);
    Some(Violation::new(
        plural("forbidden AppArmor profile", "forbidden AppArmor profiles", all.len()),
        format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(&all)),
    ))
}

pub fn capabilities(subject: &Subject<'_>) -> Option<Violation> {
    let added = added_capabilities(subject, CAPABILITIES)?;
    Some(Violation::new("non-default capabilities", added))
}

/// Which containers add which capabilities that are not `allowed`.
pub fn added_capabilities(subject: &Subject<'_>, allowed: &[&str]) -> Option<String> {
    let found = Found::default();
    let containers = subject.containers_that(|container| {
        let added = container.security.and_then(|context| context.capabilities.as_ref());
        let added = added.iter().flat_map(|capabilities| capabilities.add.iter().flatten());
        let bad: Vec<String> =
            added.filter(|one| !allowed.contains(&one.as_str())).cloned().collect();
        let any = !bad.is_empty();
        found.borrow_mut().extend(bad);
        any
    });
    (!containers.is_empty()).then(|| {
        format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers_text(&containers),
            quoted(found.into_inner())
        )
    })
}

pub fn host_namespaces(subject: &Subject<'_>) -> Option<Violation> {
    let spec = subject.spec;
    let all: Vec<&str> = [
        (spec.host_network, "hostNetwork=true"),
        (spec.host_pid, "hostPID=true"),
        (spec.host_ipc, "hostIPC=true"),
    ]
    .into_iter()
    .filter(|(set, _)| *set == Some(true))
    .map(|(_, text)| text)
    .collect();
    (!all.is_empty()).then(|| Violation::new("host namespaces", all.join(", ")))
}

pub fn host_path_volumes(subject: &Subject<'_>) -> Option<Violation> {
    let volumes = subject.spec.volumes.iter().flatten();
    let names: Vec<&str> = volumes
        .filter(|volume| volume.host_path.is_some())
        .map(|volume| volume.name.as_str())
        .collect();
    (!names.is_empty()).then(|| {
        let volumes = plural("volume", "volumes", names.len());
        Violation::new("hostPath volumes", format!("{volumes} {}", quoted(&names)))
    })
}

pub fn host_ports(subject: &Subject<'_>) -> Option<Violation> {
    let found = Found::default();
    let containers = subject.containers_that(|container| {
        let ports = container.ports.into_iter().flatten();
        let bad: Vec<i32> = ports.filter_map(|port| port.host_port).filter(|n| *n != 0).collect();
        found.borrow_mut().extend(bad.iter().map(i32::to_string));
        !bad.is_empty()
    });
    (!containers.is_empty()).then(|| {
        let ports: Vec<String> = found.into_inner().into_iter().collect();
        Violation::new(
            "hostPort",
            format!(
                "{} {} {} {}",
                containers_text(&containers),
                plural("uses", "use", containers.len()),
                plural("hostPort", "hostPorts", ports.len()),
                ports.join(", ")
            ),
        )
    })
}

/// Since 1.34: a probe or a hook with a host makes the node connect anywhere.
pub fn host_probes(subject: &Subject<'_>) -> Option<Violation> {
    let found = Found::default();
    let note = |host: Option<&String>| {
        let host = host.filter(|host| !host.is_empty());
        found.borrow_mut().extend(host.cloned());
        host.is_some()
    };
    let probe = |probe: &Probe| {
        let http = note(probe.http_get.as_ref().and_then(|http| http.host.as_ref()));
        note(probe.tcp_socket.as_ref().and_then(|tcp| tcp.host.as_ref())) || http
    };
    let handler = |handler: &LifecycleHandler| {
        let http = note(handler.http_get.as_ref().and_then(|http| http.host.as_ref()));
        note(handler.tcp_socket.as_ref().and_then(|tcp| tcp.host.as_ref())) || http
    };
    let mut containers: Vec<&str> = subject.containers_that(|container| {
        let probes = container.probes.into_iter().flatten().filter(|own| probe(own)).count();
        let hooks = container.lifecycle.iter().flat_map(|own| [&own.post_start, &own.pre_stop]);
        let hooks = hooks.flatten().filter(|own| handler(own)).count();
        probes + hooks > 0
    });
    containers.sort_unstable();
    containers.dedup();
    (!containers.is_empty()).then(|| {
        let hosts = found.into_inner();
        Violation::new(
            "probe or lifecycle host",
            format!(
                "{} {} {} {}",
                containers_text(&containers),
                plural("uses", "use", containers.len()),
                plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len()),
                quoted(&hosts)
            ),
        )
    })
}

pub fn privileged(subject: &Subject<'_>) -> Option<Violation> {
    let containers = subject.containers_that(|container| {
        container.security.is_some_and(|context| context.privileged == Some(true))
    });
    (!containers.is_empty()).then(|| {
        let detail = "must not set securityContext.privileged=true";
        Violation::new("privileged", format!("{} {detail}", containers_text(&containers)))
    })
}

pub fn proc_mount(subject: &Subject<'_>) -> Option<Violation> {
    let found = Found::default();
    let containers = subject.containers_that(|container| {
        let mount = container.security.and_then(|context| context.proc_mount.as_ref());
        let bad = mount.filter(|mount| *mount != "Default");
        found.borrow_mut().extend(bad.cloned());
        bad.is_some()
    });
    (!containers.is_empty()).then(|| {
        Violation::new(
            "procMount",
            format!(
                "{} must not set securityContext.procMount to {}",
                containers_text(&containers),
                quoted(found.into_inner())
            ),
        )
    })
}

/// Since 1.35 a pod with a user namespace of its own may see all of its /proc.
pub fn proc_mount_35(subject: &Subject<'_>) -> Option<Violation> {
    if subject.has_user_namespace() { None } else { proc_mount(subject) }
}

pub fn selinux(subject: &Subject<'_>) -> Option<Violation> {
    selinux_types(subject, &["", "container_t", "container_init_t", "container_kvm_t"])
}

pub fn selinux_31(subject: &Subject<'_>) -> Option<Violation> {
    let types = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
    selinux_types(subject, &types)
}

fn selinux_types(subject: &Subject<'_>, allowed: &[&str]) -> Option<Violation> {
    let (types, others) = (Found::default(), Found::default());
    let text = |field: &'_ Option<String>| field.clone().unwrap_or_default();
    let bad = |options: Option<&SELinuxOptions>| {
        let Some(options) = options else {
            return false;
        };
        let own = text(&options.type_);
        let bad_type = !allowed.contains(&own.as_str());
        if bad_type {
            types.borrow_mut().insert(own);
        }
        let user = !text(&options.user).is_empty();
        let role = !text(&options.role).is_empty();
        // "user" is said first: the set is sorted by these texts in reverse.
        if user {
            others.borrow_mut().insert("user may not be set".to_owned());
        }
        if role {
            others.borrow_mut().insert("role may not be set".to_owned());
        }
        bad_type || user || role
    };
    let pod = subject.spec.security_context.as_ref();
    let pod = bad(pod.and_then(|context| context.se_linux_options.as_ref()));
    let containers = subject.containers_that(|container| {
        bad(container.security.and_then(|context| context.se_linux_options.as_ref()))
    });
    let who = setters(pod, &containers)?;
    let types = types.into_inner();
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!("{} {}", plural("type", "types", types.len()), quoted(&types)));
    }
    data.extend(others.into_inner().into_iter().rev());
    Some(Violation::new(
        "seLinuxOptions",
        format!("{who} set forbidden securityContext.seLinuxOptions: {}", data.join("; ")),
    ))
}

/// Until 1.18 annotations chose the profile.
pub fn seccomp_annotations(subject: &Subject<'_>) -> Option<Violation> {
    let allowed = |value: &str| {
        matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/")
    };
    let keys = subject
        .containers()
        .map(|container| format!("{SECCOMP_CONTAINER_ANNOTATION}{}", container.name))
        .chain([SECCOMP_ANNOTATION.to_owned()]);
    let bad: BTreeSet<String> = keys
        .filter_map(|key| {
            let value = subject.annotations?.get(&key)?;
            (!allowed(value)).then(|| format!("{key}={value:?}"))
        })
        .collect();
    (!bad.is_empty()).then(|| {
        let annotations = plural("annotation", "annotations", bad.len());
        let list: Vec<String> = bad.into_iter().collect();
        Violation::new("seccompProfile", format!("forbidden {annotations} {}", list.join(", ")))
    })
}

/// Whether a profile confines the container.
pub fn confines(profile: &SeccompProfile) -> bool {
    matches!(profile.type_.as_str(), "RuntimeDefault" | "Localhost")
}

pub fn seccomp(subject: &Subject<'_>) -> Option<Violation> {
    let found = Found::default();
    let bad = |profile: Option<&SeccompProfile>| {
        let bad = profile.filter(|profile| !confines(profile));
        found.borrow_mut().extend(bad.map(|profile| profile.type_.clone()));
        bad.is_some()
    };
    let pod = subject.spec.security_context.as_ref();
    let pod = bad(pod.and_then(|context| context.seccomp_profile.as_ref()));
    let containers = subject.containers_that(|container| {
        bad(container.security.and_then(|context| context.seccomp_profile.as_ref()))
    });
    let who = setters(pod, &containers)?;
    Some(Violation::new(
        "seccompProfile",
        format!(
            "{who} must not set securityContext.seccompProfile.type to {}",
            quoted(found.into_inner())
        ),
    ))
}

/// Sysctls that are namespaced and isolated, with the minor version they were found to be so in.
const SYSCTLS: &[(u32, &str)] = &[
    (0, "kernel.shm_rmid_forced"),
    (0, "net.ipv4.ip_local_port_range"),
    (0, "net.ipv4.ip_unprivileged_port_start"),
    (0, "net.ipv4.ping_group_range"),
    (0, "net.ipv4.tcp_syncookies"),
    (27, "net.ipv4.ip_local_reserved_ports"),
    (29, "net.ipv4.tcp_fin_timeout"),
    (29, "net.ipv4.tcp_keepalive_intvl"),
    (29, "net.ipv4.tcp_keepalive_probes"),
    (29, "net.ipv4.tcp_keepalive_time"),
    (32, "net.ipv4.tcp_rmem"),
    (32, "net.ipv4.tcp_wmem"),
    (37, "net.ipv4.tcp_notsent_lowat"),
    (37, "net.ipv4.tcp_slow_start_after_idle"),
];

fn sysctls_of(subject: &Subject<'_>, minor: u32) -> Option<Violation> {
    let safe = |name: &str| SYSCTLS.iter().any(|(since, safe)| *since <= minor && *safe == name);
    let context = subject.spec.security_context.iter();
    let bad: Vec<&str> = context
        .flat_map(|context| context.sysctls.iter().flatten())
        .map(|sysctl| sysctl.name.as_str())
        .filter(|name| !safe(name))
        .collect();
    (!bad.is_empty()).then(|| Violation::new("forbidden sysctls", bad.join(", ")))
}

pub fn sysctls(subject: &Subject<'_>) -> Option<Violation> {
    sysctls_of(subject, 0)
}

pub fn sysctls_27(subject: &Subject<'_>) -> Option<Violation> {
    sysctls_of(subject, 27)
}

pub fn sysctls_29(subject: &Subject<'_>) -> Option<Violation> {
    sysctls_of(subject, 29)
}

pub fn sysctls_32(subject: &Subject<'_>) -> Option<Violation> {
    sysctls_of(subject, 32)
}

pub fn sysctls_37(subject: &Subject<'_>) -> Option<Violation> {
    sysctls_of(subject, 37)
}

pub fn windows_host_process(subject: &Subject<'_>) -> Option<Violation> {
    let bad = |options: Option<&WindowsSecurityContextOptions>| {
        options.is_some_and(|options| options.host_process == Some(true))
    };
    let pod = subject.spec.security_context.as_ref();
    let pod = bad(pod.and_then(|context| context.windows_options.as_ref()));
    let containers = subject.containers_that(|container| {
        bad(container.security.and_then(|context| context.windows_options.as_ref()))
    });
    let who = setters(pod, &containers)?;
    let detail = "must not set securityContext.windowsOptions.hostProcess=true";
    Some(Violation::new("hostProcess", format!("{who} {detail}")))
}
