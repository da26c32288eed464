//! PersistentVolumeClaims.

use api::defaults::volume::claim_spec;
use api::names;
use api::quantity::Quantity;
use api::storage_class::BETA_CLASS;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use serde_json::{Value, json};

use super::at::At;
use super::columns::{self, text, wide};
use super::table::{
    self, Check, Parts, Row, Rows, age, is_empty, items, name, status_apart, text_at,
};
use super::{check, fill, semantic};

/// Defaults of a claim, also inside a StatefulSet.
pub fn default(claim: &mut PersistentVolumeClaim) {
    claim_spec(claim.spec.get_or_insert_default());
    fill::text(&mut claim.status.get_or_insert_default().phase, "Pending");
}

pub static RULES: Rows<PersistentVolumeClaim> = Rows {
    default: |claim| {
        default(claim);
        let spec = claim.spec.get_or_insert_default();
        // The two names of the source are kept equal where the older one can express it.
        if let (Some(source), None) = (&spec.data_source, &spec.data_source_ref) {
            spec.data_source_ref = Some(k8s_openapi::api::core::v1::TypedObjectReference {
                api_group: source.api_group.clone(),
                kind: source.kind.clone(),
                name: source.name.clone(),
                namespace: None,
            });
        }
    },
    parts: Parts {
        create: |claim, _| {
            claim.status = Some(PersistentVolumeClaimStatus {
                phase: Some("Pending".to_owned()),
                ..PersistentVolumeClaimStatus::default()
            });
        },
        status: |new, old, _| new.spec.clone_from(&old.spec),
        ..status_apart!()
    },
    checks: &[("spec", Check::Inside(SPEC))],
    // Only the size of a bound claim may change. It may be reduced to give up an expansion, but not
    // to what the claim has, or below.
    update: |new, old, at| {
        let (Some(spec), Some(was)) = (&new.spec, &old.spec) else { return };
        let may_name_class = may_name_class(new, old, at);
        let size = |spec: &PersistentVolumeClaimSpec| {
            let requests = spec.resources.as_ref()?.requests.as_ref()?;
            requests.get("storage").map(Quantity::of)
        };
        let bound = old.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        let mut kept = new.clone();
        if let Some(spec) = &mut kept.spec {
            if bound {
                // And only what is requested, not the limits.
                let requests = spec.resources.as_mut().and_then(|own| own.requests.as_mut());
                let had = was.resources.as_ref().and_then(|had| had.requests.as_ref());
                if let Some(requests) = requests {
                    requests.remove("storage");
                    let had = had.and_then(|had| had.get_key_value("storage"));
                    requests.extend(had.map(|(name, size)| (name.clone(), size.clone())));
                }
                spec.volume_attributes_class_name.clone_from(&was.volume_attributes_class_name);
            }
            if was.volume_name.is_none() {
                spec.volume_name = None;
            }
            if may_name_class {
                spec.storage_class_name = None;
            }
        }
        if semantic::field(&kept, "spec") != semantic::field(old, "spec") {
            at.child("spec").forbidden("spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims");
        }
        let capacity = old.status.as_ref().and_then(|status| status.capacity.as_ref());
        let has = capacity.and_then(|capacity| capacity.get("storage")).map(Quantity::of);
        if size(spec) < size(was) && size(spec) <= Some(has.unwrap_or_default()) {
            at.child("spec.resources.requests.storage")
                .forbidden("field can not be less than status.capacity");
        }
        // What has been applied to the volume cannot be taken back.
        let applied = old
            .status
            .as_ref()
            .and_then(|status| status.current_volume_attributes_class_name.as_ref());
        let class = &spec.volume_attributes_class_name;
        if applied.is_some()
            && *class != was.volume_attributes_class_name
            && class.as_deref().unwrap_or_default().is_empty()
        {
            let what = if class.is_none() { "nil" } else { "empty string" };
            at.child("spec.volumeAttributesClassName").forbidden(format!("update to {what} is forbidden when status.currentVolumeAttributesClassName is not nil"));
        }
    },
    status: &[(
        "status.allocatedResourceStatuses",
        Check::Values(&[("", Check::RequiredOneOf(EXPANSION_STATES))]),
    )],
    warnings: |claim, _| {
        let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
        let storage = resources.and_then(|resources| resources.requests.as_ref()?.get("storage"));
        let fraction = storage.map(Quantity::of).filter(|amount| !amount.is_whole());
        let warning = |amount: Quantity| {
            format!(
                "spec.resources.requests[storage]: fractional byte value {:?} is invalid, must be an integer",
                amount.to_string()
            )
        };
        fraction.map(warning).into_iter().collect()
    },
    columns: &[
        name(),
        text("Status", "Phase of the claim.").json(phase),
        text("Volume", "Volume that the claim is bound to.").at("spec.volumeName"),
        text("Capacity", "Size of the bound volume.").json(|claim| {
            let size = if bound(claim) { text_at(claim, "status.capacity.storage") } else { "" };
            size.into()
        }),
        text("Access Modes", "Ways the bound volume can be mounted.").json(|claim| {
            let none = Value::Null;
            columns::access_modes(if bound(claim) {
                &claim["status"]["accessModes"]
            } else {
                &none
            })
        }),
        text("StorageClass", "Class of the claim.").at("spec.storageClassName"),
        text("VolumeAttributesClass", "Attributes class of the claim.")
            .pointer("spec.volumeAttributesClassName"),
        age(),
        wide("VolumeMode", "File system or block.").pointer("spec.volumeMode"),
    ],
    ..Rows::NEW
};

/// `ValidatePersistentVolumeClaimSpec`.
const SPEC: &[Row] = &[
    ("accessModes", Check::Relation(access_modes)),
    ("selector", Check::LabelSelector),
    ("", Check::Relation(size)),
    ("storageClassName", Check::TextIfAny(names::dns_subdomain)),
    ("volumeAttributesClassName", Check::TextIfAny(names::dns_subdomain)),
    ("dataSource", Check::Inside(SOURCE)),
    ("dataSourceRef", Check::Inside(SOURCE)),
    ("dataSourceRef.namespace", Check::TextIfAny(names::dns_label)),
    ("", Check::Relation(sources)),
    ("volumeMode", Check::SetOneOf(&["Block", "Filesystem"])),
];

/// What a volume is populated from.
const SOURCE: &[Row] = &[
    ("name", Check::Required("")),
    ("kind", Check::Required("")),
    ("", Check::Relation(claims_of_core)),
    ("apiGroup", Check::TextIfAny(names::dns_subdomain)),
];

/// How far the expansion of a volume can be.
const EXPANSION_STATES: &[&str] = &[
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

const ACCESS_MODES: &[&str] =
    &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// Checks the spec of a claim that a pod makes.
pub fn validate_spec(spec: &PersistentVolumeClaimSpec, at: &At<'_>) {
    table::run(SPEC, &table::value(spec), at);
}

/// Access modes of claims and volumes; ReadWriteOncePod excludes every other mode.
pub fn access_modes(modes: &Value, at: &At<'_>) {
    if is_empty(modes) {
        at.required("at least 1 access mode is required");
    }
    let known = |mode: &&Value| ACCESS_MODES.contains(&mode.as_str().unwrap_or_default());
    for mode in items(modes).iter().filter(|mode| !known(mode)) {
        at.not_supported(mode, ACCESS_MODES);
    }
    if items(modes).len() > 1 && items(modes).iter().any(|mode| mode == "ReadWriteOncePod") {
        at.forbidden("may not use ReadWriteOncePod with other access modes");
    }
}

fn size(spec: &Value, at: &At<'_>) {
    let at = at.entry("resources", "storage");
    match spec["resources"]["requests"]["storage"].as_str() {
        None => at.required(""),
        Some(size) => more_than_nothing(size, &at),
    }
}

/// An amount of storage.
pub fn more_than_nothing(text: &str, at: &At<'_>) {
    if at.amount(&Text(text.to_owned())).is_some_and(|amount| amount.is_zero()) {
        at.invalid(text, "must be greater than zero");
    }
}

/// Of the core group, only another claim.
fn claims_of_core(source: &Value, at: &At<'_>) {
    let kind = text_at(source, "kind");
    if text_at(source, "apiGroup").is_empty() && kind != "PersistentVolumeClaim" {
        at.invalid(kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup");
    }
}

/// The class may be named later, as long as the claim stays in the one of its annotation, which may
/// go then, and cannot change otherwise. Returns whether the field may be set.
fn may_name_class(new: &PersistentVolumeClaim, old: &PersistentVolumeClaim, at: &At<'_>) -> bool {
    let annotation = |claim: &PersistentVolumeClaim| -> Option<String> {
        claim.metadata.annotations.as_ref()?.get(BETA_CLASS).cloned()
    };
    let field = |claim: &PersistentVolumeClaim| claim.spec.as_ref()?.storage_class_name.clone();
    let (now, was, named) = (annotation(new), annotation(old), field(new));
    let is_first = field(old).is_none() && named.is_some();
    let agrees = was.is_none() || was == named;
    let moves = is_first && was.is_some() && agrees && (now.is_none() || now == was);
    if !moves && now.as_deref().unwrap_or_default() != was.as_deref().unwrap_or_default() {
        let at = at.child("metadata.annotations");
        at.child(BETA_CLASS).invalid(now.unwrap_or_default(), check::IMMUTABLE);
    }
    is_first && agrees
}

/// The two names of a source say the same; one of another namespace has only the newer name.
fn sources(spec: &Value, at: &At<'_>) {
    let (old, new) = (&spec["dataSource"], &spec["dataSourceRef"]);
    if old.is_null() || new.is_null() {
        return;
    }
    // Upstream's value here is a path, whose JSON has nothing in it.
    let differ = ["apiGroup", "kind", "name"].iter().any(|name| old[name] != new[name]);
    if !text_at(new, "namespace").is_empty() {
        at.invalid(json!({}), "may not be specified when dataSourceRef.namespace is specified");
    } else if differ {
        at.invalid(json!({}), "must match dataSourceRef");
    }
}

/// The phase of a claim or a volume, unless it is going.
pub fn phase(object: &Value) -> Value {
    if object["metadata"]["deletionTimestamp"].is_null() {
        text_at(object, "status.phase").into()
    } else {
        "Terminating".into()
    }
}

fn bound(claim: &Value) -> bool {
    !text_at(claim, "spec.volumeName").is_empty()
}
