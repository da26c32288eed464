//! The checks of the restricted level: what hardened pods look like.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Volume;

use super::baseline::{added_capabilities, confines, seccomp as seccomp_baseline};
use super::{Subject, Violation, containers_text, plural, quoted, setters};

pub fn privilege_escalation(subject: &Subject<'_>) -> Option<Violation> {
    let containers = subject.containers_that(|container| {
        let allowed = container.security.and_then(|context| context.allow_privilege_escalation);
        allowed != Some(false)
    });
    (!containers.is_empty()).then(|| {
        let detail = "must set securityContext.allowPrivilegeEscalation=false";
        let reason = "allowPrivilegeEscalation != false";
        Violation::new(reason, format!("{} {detail}", containers_text(&containers)))
    })
}

/// Since 1.25 what only Linux has is not asked of Windows pods.
pub fn privilege_escalation_25(subject: &Subject<'_>) -> Option<Violation> {
    if subject.is_windows() { None } else { privilege_escalation(subject) }
}

pub fn capabilities(subject: &Subject<'_>) -> Option<Violation> {
    let keeping = subject.containers_that(|container| {
        let own = container.security.and_then(|context| context.capabilities.as_ref());
        !own.iter().flat_map(|own| own.drop.iter().flatten()).any(|one| one == "ALL")
    });
    let mut details = Vec::new();
    if !keeping.is_empty() {
        let text = "must set securityContext.capabilities.drop=[\"ALL\"]";
        details.push(format!("{} {text}", containers_text(&keeping)));
    }
    details.extend(added_capabilities(subject, &["NET_BIND_SERVICE"]));
    (!details.is_empty()).then(|| Violation::new("unrestricted capabilities", details.join("; ")))
}

pub fn capabilities_25(subject: &Subject<'_>) -> Option<Violation> {
    if subject.is_windows() { None } else { capabilities(subject) }
}

/// The type of a volume that a hardened pod does not use.
fn restricted_type(volume: &Volume) -> Option<&'static str> {
    let allowed = [
        volume.config_map.is_some(),
        volume.csi.is_some(),
        volume.downward_api.is_some(),
        volume.empty_dir.is_some(),
        volume.ephemeral.is_some(),
        volume.image.is_some(),
        volume.persistent_volume_claim.is_some(),
        volume.projected.is_some(),
        volume.secret.is_some(),
    ];
    if allowed.contains(&true) {
        return None;
    }
    let restricted = [
        (volume.host_path.is_some(), "hostPath"),
        (volume.gce_persistent_disk.is_some(), "gcePersistentDisk"),
        (volume.aws_elastic_block_store.is_some(), "awsElasticBlockStore"),
        (volume.git_repo.is_some(), "gitRepo"),
        (volume.nfs.is_some(), "nfs"),
        (volume.iscsi.is_some(), "iscsi"),
        (volume.glusterfs.is_some(), "glusterfs"),
        (volume.rbd.is_some(), "rbd"),
        (volume.flex_volume.is_some(), "flexVolume"),
        (volume.cinder.is_some(), "cinder"),
        (volume.cephfs.is_some(), "cephfs"),
        (volume.flocker.is_some(), "flocker"),
        (volume.fc.is_some(), "fc"),
        (volume.azure_file.is_some(), "azureFile"),
        (volume.vsphere_volume.is_some(), "vsphereVolume"),
        (volume.quobyte.is_some(), "quobyte"),
        (volume.azure_disk.is_some(), "azureDisk"),
        (volume.portworx_volume.is_some(), "portworxVolume"),
        (volume.photon_persistent_disk.is_some(), "photonPersistentDisk"),
        (volume.scale_io.is_some(), "scaleIO"),
        (volume.storageos.is_some(), "storageos"),
    ];
    let found = restricted.into_iter().find(|(set, _)| *set);
    Some(found.map_or("unknown", |(_, name)| name))
}

pub fn volumes(subject: &Subject<'_>) -> Option<Violation> {
    let volumes = subject.spec.volumes.iter().flatten();
    let bad: Vec<(&str, &str)> = volumes
        .filter_map(|volume| Some((volume.name.as_str(), restricted_type(volume)?)))
        .collect();
    (!bad.is_empty()).then(|| {
        let types: BTreeSet<&str> = bad.iter().map(|(_, volume_type)| *volume_type).collect();
        Violation::new(
            "restricted volume types",
            format!(
                "{} {} {} {} {}",
                plural("volume", "volumes", bad.len()),
                quoted(bad.iter().map(|(name, _)| name)),
                plural("uses", "use", bad.len()),
                plural("restricted volume type", "restricted volume types", types.len()),
                quoted(&types)
            ),
        )
    })
}

pub fn non_root(subject: &Subject<'_>) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    let pod = subject.spec.security_context.as_ref().and_then(|context| context.run_as_non_root);
    let own = |container: &super::ContainerView<'_>| {
        container.security.and_then(|context| context.run_as_non_root)
    };
    let explicit = subject.containers_that(|container| own(container) == Some(false));
    if let Some(who) = setters(pod == Some(false), &explicit) {
        let detail = format!("{who} must not set securityContext.runAsNonRoot=false");
        return Some(Violation::new(REASON, detail));
    }
    let implicit =
        subject.containers_that(|container| own(container).is_none() && pod != Some(true));
    (!implicit.is_empty()).then(|| {
        let containers = containers_text(&implicit);
        let detail = format!("pod or {containers} must set securityContext.runAsNonRoot=true");
        Violation::new(REASON, detail)
    })
}

/// Since 1.35 root in a user namespace of its own counts as somebody else.
pub fn non_root_35(subject: &Subject<'_>) -> Option<Violation> {
    if subject.has_user_namespace() { None } else { non_root(subject) }
}

pub fn user(subject: &Subject<'_>) -> Option<Violation> {
    let pod = subject.spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let containers = subject.containers_that(|container| {
        container.security.and_then(|context| context.run_as_user) == Some(0)
    });
    let who = setters(pod == Some(0), &containers)?;
    Some(Violation::new("runAsUser=0", format!("{who} must not set runAsUser=0")))
}

pub fn user_35(subject: &Subject<'_>) -> Option<Violation> {
    if subject.has_user_namespace() { None } else { user(subject) }
}

pub fn seccomp(subject: &Subject<'_>) -> Option<Violation> {
    if let Some(explicit) = seccomp_baseline(subject) {
        return Some(explicit);
    }
    let pod = subject.spec.security_context.as_ref();
    let pod = pod.and_then(|context| context.seccomp_profile.as_ref());
    if pod.is_some_and(confines) {
        return None;
    }
    let containers = subject.containers_that(|container| {
        container.security.is_none_or(|context| context.seccomp_profile.is_none())
    });
    (!containers.is_empty()).then(|| {
        let text =
            "must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
        Violation::new("seccompProfile", format!("pod or {} {text}", containers_text(&containers)))
    })
}

pub fn seccomp_25(subject: &Subject<'_>) -> Option<Violation> {
    if subject.is_windows() { None } else { seccomp(subject) }
}
