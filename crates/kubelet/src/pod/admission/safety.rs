//! Kernel features of a pod that the node must allow or be able to enforce: pure.

use k8s_openapi::api::core::v1::{AppArmorProfile, Pod};

use super::Rejection;
use crate::pod::pod_ext::PodExt;

/// Namespaced sysctls without effect on other pods or the node
/// (<https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster/>).
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Rejects sysctls that are neither safe nor in `allowed` (names, or prefixes that end in `*`), and
/// AppArmor profiles that the node cannot enforce (`pkg/security/apparmor/validate.go`).
pub fn permit(allowed: &[String], app_armor: bool, pod: &Pod) -> Result<(), Rejection> {
    let refuse = |reason: &str, message: String| Err(Rejection::new(reason, message));
    let security = pod.spec_ref().security_context.as_ref();
    let sysctls = security.and_then(|security| security.sysctls.as_ref());
    for sysctl in sysctls.into_iter().flatten() {
        let name = dotted(&sysctl.name);
        let matches = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => *pattern == name,
        };
        if !SAFE_SYSCTLS.contains(&name.as_str()) && !allowed.iter().any(matches) {
            let text = format!("forbidden sysctl: {name:?} not allowlisted");
            return refuse("SysctlForbidden", text);
        }
    }
    let problem = if app_armor {
        profiles(pod).find_map(unnamed)
    } else {
        let mut confined = profiles(pod).filter(|profile| profile.type_ != "Unconfined");
        confined.next().map(|_| "AppArmor is not enabled on the host")
    };
    match problem {
        None => Ok(()),
        Some(problem) => refuse("AppArmor", format!("Cannot enforce AppArmor: {problem}")),
    }
}

/// What is wrong with the name of a profile.
fn unnamed(profile: &AppArmorProfile) -> Option<&'static str> {
    let name = profile.localhost_profile.as_deref();
    match (profile.type_.as_str(), name) {
        ("Localhost", None) => Some("missing localhost profile name"),
        ("Localhost", Some(name)) if name.trim().is_empty() => {
            Some("localhost profile name is empty")
        }
        _ => None,
    }
}

/// `kernel/msgmax` and `kernel.msgmax` are the same: the first separator decides how to read the
/// name.
fn dotted(name: &str) -> String {
    if name.find(['.', '/']).is_none_or(|at| name[at..].starts_with('.')) {
        return name.to_owned();
    }
    let swap = |letter| match letter {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    name.chars().map(swap).collect()
}

fn profiles(pod: &Pod) -> impl Iterator<Item = &AppArmorProfile> {
    let spec = pod.spec_ref();
    let of_pod = spec.security_context.as_ref();
    let containers = spec.init_containers.iter().flatten();
    let own = containers
        .chain(&spec.containers)
        .filter_map(|container| container.security_context.as_ref());
    of_pod
        .and_then(|security| security.app_armor_profile.as_ref())
        .into_iter()
        .chain(own.filter_map(|security| security.app_armor_profile.as_ref()))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodSecurityContext, PodSpec, Sysctl};

    use super::*;

    fn pod(sysctl: &str, profile: Option<&str>) -> Pod {
        Pod {
            spec: Some(PodSpec {
                security_context: Some(PodSecurityContext {
                    sysctls: Some(vec![Sysctl { name: sysctl.to_owned(), value: "1".to_owned() }]),
                    app_armor_profile: profile.map(|kind| AppArmorProfile {
                        type_: kind.to_owned(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn what_the_node_allows_and_can_enforce() {
        let allowed = ["kernel.msg*".to_owned(), "net.core.somaxconn".to_owned()];
        let safe = "kernel.shm_rmid_forced";
        for (sysctl, profile, reason) in [
            (safe, None, None),
            ("kernel/shm_rmid_forced", None, None),
            ("kernel.msgmax", None, None),
            ("net.core.somaxconn", None, None),
            ("net.core.somaxconn2", None, Some("SysctlForbidden")),
            ("vm.swappiness", None, Some("SysctlForbidden")),
            (safe, Some("Unconfined"), None),
            (safe, Some("RuntimeDefault"), Some("AppArmor")),
        ] {
            let found = permit(&allowed, false, &pod(sysctl, profile)).err();
            let found = found.map(|rejection| rejection.reason);
            assert_eq!(found.as_deref(), reason, "{sysctl} {profile:?}");
        }
        assert_eq!(
            permit(&[], false, &pod("kernel/msgmax", None)).unwrap_err().message,
            "forbidden sysctl: \"kernel.msgmax\" not allowlisted"
        );
    }

    #[test]
    fn profiles_where_the_kernel_enforces_them() {
        let message = |enabled, profile| {
            permit(&[], enabled, &pod("kernel.shm_rmid_forced", Some(profile)))
                .err()
                .map(|rejection| rejection.message)
        };
        let text = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
        assert_eq!(message(false, "RuntimeDefault").as_deref(), Some(text));
        assert_eq!(message(true, "RuntimeDefault"), None);
        let text = "Cannot enforce AppArmor: missing localhost profile name";
        assert_eq!(message(true, "Localhost").as_deref(), Some(text));
    }
}
