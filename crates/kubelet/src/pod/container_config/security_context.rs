//! Merges the security contexts of pod and container: pure.

use std::path::Path;

use k8s_openapi::api::core::v1::{
    AppArmorProfile as Confined, Container, Pod, SeccompProfile as Wanted,
};

use crate::containers::{AppArmorProfile, SeccompProfile, SecurityContext};
use crate::pod::pod_ext::PodExt;

/// The container's own context takes precedence over the pod's. `seccomp_directory` is where
/// `Localhost` profiles are.
pub fn security_context(
    pod: &Pod,
    container: &Container,
    seccomp_directory: &Path,
) -> SecurityContext {
    let of_pod = pod.spec_ref().security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let id = |own: Option<i64>, of_pod: Option<i64>| {
        own.or(of_pod).and_then(|id| u32::try_from(id).ok())
    };
    let mut groups: Vec<i64> = of_pod.supplemental_groups.clone().unwrap_or_default();
    groups.extend(of_pod.fs_group);
    let mut groups: Vec<u32> =
        groups.into_iter().filter_map(|group| u32::try_from(group).ok()).collect();
    groups.dedup();
    let capabilities = own.capabilities.clone().unwrap_or_default();
    let plain = |list: Option<Vec<String>>| {
        let strip = |name: String| {
            let name = name.to_uppercase();
            name.strip_prefix("CAP_").map_or(name.clone(), str::to_owned)
        };
        list.unwrap_or_default().into_iter().map(strip).collect()
    };
    let privileged = own.privileged.unwrap_or(false);
    SecurityContext {
        run_as_user: id(own.run_as_user, of_pod.run_as_user),
        run_as_group: id(own.run_as_group, of_pod.run_as_group),
        run_as_non_root: own.run_as_non_root.or(of_pod.run_as_non_root).unwrap_or(false),
        supplemental_groups: groups,
        strict_supplemental_groups: of_pod.supplemental_groups_policy.as_deref() == Some("Strict"),
        privileged,
        no_new_privileges: own.allow_privilege_escalation == Some(false) && !privileged,
        read_only_root_filesystem: own.read_only_root_filesystem.unwrap_or(false),
        add_capabilities: plain(capabilities.add),
        drop_capabilities: plain(capabilities.drop),
        seccomp: seccomp(
            own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref()),
            seccomp_directory,
        ),
        app_armor: own
            .app_armor_profile
            .as_ref()
            .or(of_pod.app_armor_profile.as_ref())
            .and_then(app_armor),
        unmasked_proc: own.proc_mount.as_deref() == Some("Unmasked"),
    }
}

fn seccomp(wanted: Option<&Wanted>, directory: &Path) -> SeccompProfile {
    match wanted.map(|profile| (profile.type_.as_str(), profile.localhost_profile.as_deref())) {
        Some(("RuntimeDefault", _)) => SeccompProfile::RuntimeDefault,
        Some(("Localhost", Some(name))) => SeccompProfile::Localhost(directory.join(name)),
        _ => SeccompProfile::Unconfined,
    }
}

fn app_armor(wanted: &Confined) -> Option<AppArmorProfile> {
    match (wanted.type_.as_str(), wanted.localhost_profile.as_deref()) {
        ("Unconfined", _) => Some(AppArmorProfile::Unconfined),
        ("RuntimeDefault", _) => Some(AppArmorProfile::RuntimeDefault),
        ("Localhost", name) => {
            Some(AppArmorProfile::Localhost(name.unwrap_or_default().trim().to_owned()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{
        Capabilities, PodSecurityContext, PodSpec, SecurityContext as Own,
    };

    #[test]
    fn the_containers_app_armor_profile_wins() {
        let profile = |kind: &str, name: Option<&str>| {
            let localhost_profile = name.map(str::to_owned);
            Some(Confined { type_: kind.to_owned(), localhost_profile })
        };
        let of_pod = |app_armor_profile| Pod {
            spec: Some(PodSpec {
                security_context: Some(PodSecurityContext {
                    app_armor_profile,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let own = |app_armor_profile| Container {
            security_context: Some(Own { app_armor_profile, ..Default::default() }),
            ..Default::default()
        };
        for (of_the_pod, its_own, expected) in [
            (None, None, None),
            (profile("RuntimeDefault", None), None, Some(AppArmorProfile::RuntimeDefault)),
            (
                profile("RuntimeDefault", None),
                profile("Localhost", Some(" web ")),
                Some(AppArmorProfile::Localhost("web".into())),
            ),
            (
                profile("Localhost", Some("web")),
                profile("Unconfined", None),
                Some(AppArmorProfile::Unconfined),
            ),
        ] {
            let merged = security_context(&of_pod(of_the_pod), &own(its_own), Path::new("/"));
            assert_eq!(merged.app_armor, expected);
        }
    }

    #[test]
    fn the_container_wins_over_the_pod() {
        let pod = Pod {
            spec: Some(PodSpec {
                security_context: Some(PodSecurityContext {
                    run_as_user: Some(1000),
                    run_as_group: Some(2000),
                    run_as_non_root: Some(true),
                    fs_group: Some(3000),
                    supplemental_groups: Some(vec![4000]),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let container = Container {
            security_context: Some(Own {
                run_as_user: Some(7),
                run_as_non_root: Some(false),
                allow_privilege_escalation: Some(false),
                capabilities: Some(Capabilities {
                    add: Some(vec!["CAP_NET_ADMIN".into()]),
                    drop: Some(vec!["all".into()]),
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let merged = security_context(&pod, &container, Path::new("/seccomp"));
        assert_eq!((merged.run_as_user, merged.run_as_group), (Some(7), Some(2000)));
        assert!(!merged.run_as_non_root && merged.no_new_privileges);
        assert_eq!(merged.supplemental_groups, [4000, 3000]);
        assert_eq!(merged.add_capabilities, ["NET_ADMIN"]);
        assert_eq!(merged.drop_capabilities, ["ALL"]);
    }
}
