//! PersistentVolumes.

use api::names;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec, PersistentVolumeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::at::At;
use super::columns::{self, text, wide};
use super::persistent_volume_claim::{more_than_nothing, phase};
use super::table::{Check, Parts, Rows, age, is_empty, name, status_apart, text_at, value};
use super::{check, fill, persistent_volume_claim, pod_spec, semantic, volumes};

pub static RULES: Rows<PersistentVolume> = Rows {
    default: |volume| {
        let spec = volume.spec.get_or_insert_default();
        fill::text(&mut spec.persistent_volume_reclaim_policy, "Retain");
        fill::text(&mut spec.volume_mode, "Filesystem");
        fill::amounts(&mut spec.capacity);
        if let Some(source) = &mut spec.host_path {
            fill::missing(&mut source.type_, "");
        }
        fill::text(&mut volume.status.get_or_insert_default().phase, "Pending");
    },
    parts: Parts {
        create: |volume, context| {
            volume.status = Some(PersistentVolumeStatus {
                phase: Some("Pending".to_owned()),
                last_phase_transition_time: Some(Time(context.now)),
                ..PersistentVolumeStatus::default()
            });
        },
        // The server sets the time of the last phase transition.
        status: |new, old, context| {
            new.spec.clone_from(&old.spec);
            let was = old.status.as_ref();
            let status = new.status.get_or_insert_default();
            if status.phase.as_deref() != was.and_then(|status| status.phase.as_deref()) {
                status.last_phase_transition_time = Some(Time(context.now));
            } else if status.last_phase_transition_time.is_none() {
                status.last_phase_transition_time =
                    was.and_then(|status| status.last_phase_transition_time.clone());
            }
        },
        ..status_apart!()
    },
    checks: &[
        ("spec.accessModes", Check::Relation(access_modes)),
        ("spec.capacity", Check::Relation(capacity)),
        (
            "spec.persistentVolumeReclaimPolicy",
            Check::RequiredOneOf(&["Delete", "Recycle", "Retain"]),
        ),
        ("spec.volumeMode", Check::SetOneOf(&["Block", "Filesystem"])),
        ("spec.storageClassName", Check::TextIfAny(names::dns_subdomain)),
    ],
    judge: |volume, at| {
        volume.spec.iter().for_each(|spec| validate_source(spec, &at.child("spec")));
    },
    update: |new, old, at| {
        let source = |volume: &PersistentVolume| source_of(&value(&volume.spec));
        if source(new) != source(old) {
            at.child("spec.persistentvolumesource")
                .forbidden("spec.persistentvolumesource is immutable after creation");
        }
        let (Some(spec), Some(was)) = (&new.spec, &old.spec) else { return };
        if spec.volume_mode != was.volume_mode {
            at.child("spec.volumeMode").invalid(&spec.volume_mode, check::IMMUTABLE);
        }
        if was.node_affinity.is_some() && spec.node_affinity != was.node_affinity {
            at.child("spec.nodeAffinity").invalid("", check::IMMUTABLE);
        }
        if was.volume_attributes_class_name.is_some() && spec.volume_attributes_class_name.is_none()
        {
            at.child("spec.volumeAttributesClassName")
                .forbidden("update from non-nil value to nil is forbidden");
        }
    },
    columns: &[
        name(),
        text("Capacity", "Size of the volume.").at("spec.capacity.storage"),
        text("Access Modes", "Ways the volume can be mounted.")
            .json(|volume| columns::access_modes(&volume["spec"]["accessModes"])),
        text("Reclaim Policy", "What happens when the claim is gone.")
            .at("spec.persistentVolumeReclaimPolicy"),
        text("Status", "Phase of the volume.").json(phase),
        text("Claim", "Claim that the volume is bound to.").json(|volume| {
            match &volume["spec"]["claimRef"] {
                Value::Null => "".into(),
                claim => {
                    format!("{}/{}", text_at(claim, "namespace"), text_at(claim, "name")).into()
                }
            }
        }),
        text("StorageClass", "Class of the volume.").at("spec.storageClassName"),
        text("VolumeAttributesClass", "Attributes class of the volume.")
            .pointer("spec.volumeAttributesClassName"),
        text("Reason", "Why the volume is in its phase.").at("status.reason"),
        age(),
        wide("VolumeMode", "File system or block.").pointer("spec.volumeMode"),
    ],
    ..Rows::NEW
};

/// Fields of the spec that are not the volume's source.
const SETTINGS: &[&str] = &[
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

/// The volume's source.
fn source_of(spec: &Value) -> Value {
    let mut spec = semantic::pruned(spec.clone());
    if let Some(spec) = spec.as_object_mut() {
        spec.retain(|name, _| !SETTINGS.contains(&name.as_str()));
    }
    spec
}

/// The spec of a volume that a pod names, as an attachment has it: no claim and no class.
pub fn validate_inline(spec: &PersistentVolumeSpec, at: &At<'_>) {
    for (field, set) in [
        ("claimRef", spec.claim_ref.is_some()),
        ("persistentVolumeReclaimPolicy", spec.persistent_volume_reclaim_policy.is_some()),
        ("storageClassName", spec.storage_class_name.is_some()),
    ] {
        if set {
            at.child(field).forbidden("may not be specified in the context of inline volumes");
        }
    }
    if spec.csi.is_none() {
        at.child("csi").required("has to be specified in the context of inline volumes");
    }
    access_modes(&value(&spec.access_modes), &at.child("accessModes"));
    validate_source(spec, at);
}

fn access_modes(modes: &Value, at: &At<'_>) {
    match is_empty(modes) {
        true => at.required(""),
        false => persistent_volume_claim::access_modes(modes, at),
    }
}

fn capacity(amounts: &Value, at: &At<'_>) {
    let names: Vec<&String> = amounts.as_object().into_iter().flat_map(|all| all.keys()).collect();
    match names.as_slice() {
        [] => at.required(""),
        [name] if *name == "storage" => {}
        _ => at.not_supported(&names, &["storage"]),
    }
    for (name, amount) in amounts.as_object().into_iter().flatten() {
        more_than_nothing(amount.as_str().unwrap_or_default(), &at.key(name));
    }
}

/// What is kept, and from where it can be reached.
fn validate_source(spec: &PersistentVolumeSpec, at: &At<'_>) {
    match source_of(&value(spec)).as_object().map_or(0, |source| source.len()) {
        0 => at.required("must specify a volume type"),
        1 => {}
        _ => at.forbidden("may not specify more than 1 volume type"),
    }
    if let Some(source) = &spec.host_path {
        volumes::validate::host_path(source, &at.child("hostPath"));
        let recycled = spec.persistent_volume_reclaim_policy.as_deref() == Some("Recycle");
        if recycled && source.path.trim_end_matches('/').is_empty() && !source.path.is_empty() {
            at.child("persistentVolumeReclaimPolicy")
                .forbidden("may not be 'recycle' for a hostPath mount of '/'");
        }
    }
    if let Some(source) = &spec.nfs {
        volumes::validate::nfs(source, &at.child("nfs"));
    }
    if let Some(source) = &spec.local {
        at.child("local.path").not_empty(&source.path);
        at.child("local.path").no_backsteps(&source.path);
        if spec.node_affinity.is_none() {
            at.child("nodeAffinity").required("Local volume requires node affinity");
        }
    }
    if let Some(source) = &spec.csi {
        let at = at.child("csi");
        at.child("driver").not_empty(&source.driver);
        at.child("volumeHandle").not_empty(&source.volume_handle);
    }
    if let Some(selector) =
        spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref())
    {
        let at = at.child("nodeAffinity.required");
        pod_spec::node_selector(selector, &at);
    }
}
