//! PersistentVolumes.

use super::check::{self, Errors};
use super::columns;
use super::path::Path;
use super::persistent_volume_claim;
use super::pod_spec;
use super::semantic;
use super::volumes;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec, PersistentVolumeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::{Column, Context, Strategy, fill};

/// The strategy of PersistentVolumes.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Capacity", "Size of the volume."),
    columns::text("Access Modes", "Ways the volume can be mounted."),
    columns::text("Reclaim Policy", "What happens when the claim is gone."),
    columns::text("Status", "Phase of the volume."),
    columns::text("Claim", "Claim that the volume is bound to."),
    columns::text("StorageClass", "Class of the volume."),
    columns::text("VolumeAttributesClass", "Attributes class of the volume."),
    columns::text("Reason", "Why the volume is in its phase."),
    columns::AGE,
    columns::wide("VolumeMode", "File system or block."),
];

impl Strategy for Rules {
    type Object = PersistentVolume;

    fn default(&self, volume: &mut PersistentVolume) {
        let spec = volume.spec.get_or_insert_default();
        fill::text(&mut spec.persistent_volume_reclaim_policy, "Retain");
        fill::text(&mut spec.volume_mode, "Filesystem");
        fill::amounts(&mut spec.capacity);
        if let Some(source) = &mut spec.host_path {
            fill::missing(&mut source.type_, "");
        }
        fill::text(&mut volume.status.get_or_insert_default().phase, "Pending");
    }

    fn prepare_create(&self, volume: &mut PersistentVolume, context: &Context<'_>) {
        volume.status = Some(PersistentVolumeStatus {
            phase: Some("Pending".to_owned()),
            last_phase_transition_time: Some(Time(context.now)),
            ..PersistentVolumeStatus::default()
        });
    }

    fn prepare_update(&self, new: &mut PersistentVolume, old: &PersistentVolume, _: &Context<'_>) {
        new.status.clone_from(&old.status);
    }

    /// The server sets the time of the last phase transition.
    fn prepare_status_update(
        &self,
        new: &mut PersistentVolume,
        old: &PersistentVolume,
        context: &Context<'_>,
    ) {
        new.spec.clone_from(&old.spec);
        let was = old.status.as_ref();
        let status = new.status.get_or_insert_default();
        if status.phase.as_deref() != was.and_then(|status| status.phase.as_deref()) {
            status.last_phase_transition_time = Some(Time(context.now));
        } else if status.last_phase_transition_time.is_none() {
            status.last_phase_transition_time =
                was.and_then(|status| status.last_phase_transition_time.clone());
        }
    }

    fn validate(&self, volume: &PersistentVolume) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if let Some(spec) = &volume.spec {
            validate_spec(spec, &Path::new("spec"), &mut errors);
        }
        errors
    }

    fn validate_update(&self, new: &PersistentVolume, old: &PersistentVolume) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if source_of(new) != source_of(old) {
            let problem = "spec.persistentvolumesource is immutable after creation";
            errors.push(FieldError::forbidden("spec.persistentvolumesource", problem));
        }
        let (Some(spec), Some(was)) = (&new.spec, &old.spec) else {
            return errors;
        };
        if spec.volume_mode != was.volume_mode {
            errors.push(FieldError::invalid(
                "spec.volumeMode",
                &spec.volume_mode,
                check::IMMUTABLE,
            ));
        }
        if was.node_affinity.is_some() && spec.node_affinity != was.node_affinity {
            errors.push(FieldError::invalid("spec.nodeAffinity", "", check::IMMUTABLE));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, volume: &PersistentVolume, now: Timestamp) -> Vec<Value> {
        let spec = volume.spec.as_ref();
        let status = volume.status.clone().unwrap_or_default();
        let claim = spec.and_then(|spec| spec.claim_ref.as_ref()).map(|claim| {
            format!(
                "{}/{}",
                claim.namespace.as_deref().unwrap_or_default(),
                claim.name.as_deref().unwrap_or_default()
            )
        });
        let size = spec.and_then(|spec| spec.capacity.as_ref()?.get("storage").cloned());
        let terminating = volume.metadata.deletion_timestamp.is_some();
        let phase = if terminating { Some("Terminating".to_owned()) } else { status.phase };
        vec![
            columns::name(&volume.metadata),
            size.map(|size| size.0).unwrap_or_default().into(),
            columns::access_modes(spec.and_then(|spec| spec.access_modes.as_ref())),
            spec.and_then(|spec| spec.persistent_volume_reclaim_policy.clone())
                .unwrap_or_default()
                .into(),
            phase.unwrap_or_default().into(),
            claim.unwrap_or_default().into(),
            spec.and_then(|spec| spec.storage_class_name.clone()).unwrap_or_default().into(),
            unset(spec.and_then(|spec| spec.volume_attributes_class_name.as_deref())),
            status.reason.unwrap_or_default().into(),
            columns::age(&volume.metadata, now),
            unset(spec.and_then(|spec| spec.volume_mode.as_deref())),
        ]
    }
}

/// The text, or what kubectl prints for an unset pointer.
pub fn unset(text: Option<&str>) -> Value {
    text.unwrap_or("<unset>").into()
}

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

/// The volume's source, as JSON.
fn source_of(volume: &PersistentVolume) -> Value {
    let mut spec = semantic::field(volume, "spec");
    if let Some(spec) = spec.as_object_mut() {
        spec.retain(|name, _| !SETTINGS.contains(&name.as_str()));
    }
    spec
}

/// The spec of a volume that a pod names, as an attachment has it: no claim and no class.
pub fn validate_inline(spec: &PersistentVolumeSpec, path: &Path, errors: &mut Errors) {
    for (field, set) in [
        ("claimRef", spec.claim_ref.is_some()),
        ("persistentVolumeReclaimPolicy", spec.persistent_volume_reclaim_policy.is_some()),
        ("storageClassName", spec.storage_class_name.is_some()),
    ] {
        if set {
            let problem = "may not be specified in the context of inline volumes";
            errors.push(FieldError::forbidden(path.child(field), problem));
        }
    }
    if spec.csi.is_none() {
        let problem = "has to be specified in the context of inline volumes";
        errors.push(FieldError::required(path.child("csi"), problem));
    }
    validate_access_modes(spec, path, errors);
    validate_source(spec, path, errors);
}

fn validate_access_modes(spec: &PersistentVolumeSpec, path: &Path, errors: &mut Errors) {
    let modes = path.child("accessModes");
    if spec.access_modes.as_ref().is_none_or(Vec::is_empty) {
        errors.push(FieldError::required(&modes, ""));
    } else {
        persistent_volume_claim::validate_access_modes(spec.access_modes.as_ref(), &modes, errors);
    }
}

fn validate_spec(spec: &PersistentVolumeSpec, path: &Path, errors: &mut Errors) {
    validate_access_modes(spec, path, errors);
    let capacity = path.child("capacity");
    let none = std::collections::BTreeMap::new();
    let amounts = spec.capacity.as_ref().unwrap_or(&none);
    if amounts.is_empty() {
        errors.push(FieldError::required(&capacity, ""));
    } else if amounts.len() > 1 || !amounts.contains_key("storage") {
        let names: Vec<&String> = amounts.keys().collect();
        errors.push(FieldError::not_supported(&capacity, names, &["storage"]));
    }
    for (name, amount) in amounts {
        let path = capacity.key(name);
        if check::amount(amount, &path, errors).is_some_and(|amount| amount.is_zero()) {
            errors.push(FieldError::invalid(path, &amount.0, "must be greater than zero"));
        }
    }
    check::one_of(
        check::text(&spec.persistent_volume_reclaim_policy),
        &["Delete", "Recycle", "Retain"],
        &path.child("persistentVolumeReclaimPolicy"),
        errors,
    );
    check::one_of_or_unset(
        &spec.volume_mode,
        &["Block", "Filesystem"],
        &path.child("volumeMode"),
        errors,
    );
    if let Some(class) = spec.storage_class_name.as_deref().filter(|class| !class.is_empty()) {
        check::dns_subdomain(class, &path.child("storageClassName"), errors);
    }
    validate_source(spec, path, errors);
}

/// What is kept, and from where it can be reached.
fn validate_source(spec: &PersistentVolumeSpec, path: &Path, errors: &mut Errors) {
    let whole = PersistentVolume { spec: Some(spec.clone()), ..PersistentVolume::default() };
    let source = source_of(&whole);
    let count = source.as_object().map_or(0, |source| source.len());
    if count == 0 {
        errors.push(FieldError::required(path, "must specify a volume type"));
    } else if count > 1 {
        errors.push(FieldError::forbidden(path, "may not specify more than 1 volume type"));
    }
    if let Some(source) = &spec.host_path {
        volumes::validate::host_path(source, &path.child("hostPath"), errors);
        let recycled = spec.persistent_volume_reclaim_policy.as_deref() == Some("Recycle");
        if recycled && source.path.trim_end_matches('/').is_empty() && !source.path.is_empty() {
            let problem = "may not be 'recycle' for a hostPath mount of '/'";
            errors
                .push(FieldError::forbidden(path.child("persistentVolumeReclaimPolicy"), problem));
        }
    }
    if let Some(source) = &spec.nfs {
        volumes::validate::nfs(source, &path.child("nfs"), errors);
    }
    if let Some(source) = &spec.local {
        check::required(&source.path, &path.child("local").child("path"), errors);
        check::no_backsteps(&source.path, &path.child("local").child("path"), errors);
        if spec.node_affinity.is_none() {
            let problem = "Local volume requires node affinity";
            errors.push(FieldError::required(path.child("nodeAffinity"), problem));
        }
    }
    if let Some(source) = &spec.csi {
        let path = path.child("csi");
        check::required(&source.driver, &path.child("driver"), errors);
        check::required(&source.volume_handle, &path.child("volumeHandle"), errors);
    }
    if let Some(selector) =
        spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref())
    {
        let path = path.child("nodeAffinity").child("required");
        pod_spec::node_selector(selector, &path, errors);
    }
}
