//! PersistentVolumeClaims.

use super::check::{self, Errors};
use super::columns;
use super::path::Path;
use super::persistent_volume::unset;
use super::semantic;
use api::defaults::volume::claim_spec;
use api::quantity::Quantity;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus,
};
use serde_json::Value;

use super::{Column, Context, Strategy, fill};

/// The strategy of PersistentVolumeClaims.
pub struct Rules;

/// Defaults of a claim, also inside a StatefulSet.
pub fn default(claim: &mut PersistentVolumeClaim) {
    claim_spec(claim.spec.get_or_insert_default());
    fill::text(&mut claim.status.get_or_insert_default().phase, "Pending");
}

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Status", "Phase of the claim."),
    columns::text("Volume", "Volume that the claim is bound to."),
    columns::text("Capacity", "Size of the bound volume."),
    columns::text("Access Modes", "Ways the bound volume can be mounted."),
    columns::text("StorageClass", "Class of the claim."),
    columns::text("VolumeAttributesClass", "Attributes class of the claim."),
    columns::AGE,
    columns::wide("VolumeMode", "File system or block."),
];

impl Strategy for Rules {
    type Object = PersistentVolumeClaim;

    fn default(&self, claim: &mut PersistentVolumeClaim) {
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
    }

    fn prepare_create(&self, claim: &mut PersistentVolumeClaim, _: &Context<'_>) {
        claim.status = Some(PersistentVolumeClaimStatus {
            phase: Some("Pending".to_owned()),
            ..PersistentVolumeClaimStatus::default()
        });
    }

    fn prepare_update(
        &self,
        new: &mut PersistentVolumeClaim,
        old: &PersistentVolumeClaim,
        _: &Context<'_>,
    ) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(
        &self,
        new: &mut PersistentVolumeClaim,
        old: &PersistentVolumeClaim,
        _: &Context<'_>,
    ) {
        new.spec.clone_from(&old.spec);
    }

    fn warnings(
        &self,
        claim: &PersistentVolumeClaim,
        _: Option<&PersistentVolumeClaim>,
    ) -> Vec<String> {
        let requests = claim
            .spec
            .as_ref()
            .and_then(|spec| spec.resources.as_ref())
            .and_then(|resources| resources.requests.as_ref());
        let storage = requests.and_then(|requests| requests.get("storage"));
        let fraction = storage.map(Quantity::of).filter(|amount| !amount.is_whole());
        let warning = |amount: Quantity| {
            format!(
                "spec.resources.requests[storage]: fractional byte value {:?} is invalid, must be an integer",
                amount.to_string()
            )
        };
        fraction.map(warning).into_iter().collect()
    }

    fn validate(&self, claim: &PersistentVolumeClaim) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if let Some(spec) = &claim.spec {
            validate_spec(spec, &Path::new("spec"), &mut errors);
        }
        errors
    }

    /// Only the size of a bound claim may change. It may be reduced to give up an expansion, but not
    /// to what the claim has, or below.
    fn validate_update(
        &self,
        new: &PersistentVolumeClaim,
        old: &PersistentVolumeClaim,
    ) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (Some(spec), Some(was)) = (&new.spec, &old.spec) else {
            return errors;
        };
        let size = |spec: &PersistentVolumeClaimSpec| {
            let requests = spec.resources.as_ref()?.requests.as_ref()?;
            requests.get("storage").map(Quantity::of)
        };
        let bound = old.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        let mut kept = new.clone();
        if let Some(spec) = &mut kept.spec {
            if bound {
                spec.resources.clone_from(&was.resources);
                spec.volume_attributes_class_name.clone_from(&was.volume_attributes_class_name);
            }
            if was.volume_name.is_none() {
                spec.volume_name = None;
            }
            if was.storage_class_name.is_none() {
                spec.storage_class_name = None;
            }
        }
        if semantic::field(&kept, "spec") != semantic::field(old, "spec") {
            let problem = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
            errors.push(FieldError::forbidden("spec", problem));
        }
        let capacity = old.status.as_ref().and_then(|status| status.capacity.as_ref());
        let has = capacity.and_then(|capacity| capacity.get("storage")).map(Quantity::of);
        if size(spec) < size(was) && size(spec) <= Some(has.unwrap_or_default()) {
            let problem = "field can not be less than status.capacity";
            errors.push(FieldError::forbidden("spec.resources.requests.storage", problem));
        }
        errors
    }

    fn validate_status_update(
        &self,
        new: &PersistentVolumeClaim,
        _: &PersistentVolumeClaim,
    ) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let status = new.status.as_ref();
        let states = status.and_then(|status| status.allocated_resource_statuses.as_ref());
        let path = Path::new("status").child("allocatedResourceStatuses");
        for (resource, state) in states.into_iter().flatten() {
            check::one_of(state, EXPANSION_STATES, &path.key(resource), &mut errors);
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, claim: &PersistentVolumeClaim, now: Timestamp) -> Vec<Value> {
        let spec = claim.spec.clone().unwrap_or_default();
        let status = claim.status.clone().unwrap_or_default();
        let terminating = claim.metadata.deletion_timestamp.is_some();
        let phase = if terminating { Some("Terminating".to_owned()) } else { status.phase };
        let bound = spec.volume_name.as_deref().is_some_and(|name| !name.is_empty());
        let size =
            status.capacity.and_then(|capacity| capacity.get("storage").cloned()).filter(|_| bound);
        vec![
            columns::name(&claim.metadata),
            phase.unwrap_or_default().into(),
            spec.volume_name.unwrap_or_default().into(),
            size.map(|size| size.0).unwrap_or_default().into(),
            if bound { columns::access_modes(status.access_modes.as_ref()) } else { "".into() },
            spec.storage_class_name.unwrap_or_default().into(),
            unset(spec.volume_attributes_class_name.as_deref()),
            columns::age(&claim.metadata, now),
            unset(spec.volume_mode.as_deref()),
        ]
    }
}

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

/// Access modes of claims and volumes; ReadWriteOncePod excludes every other mode.
pub fn validate_access_modes(modes: Option<&Vec<String>>, path: &Path, errors: &mut Errors) {
    let modes = modes.map(Vec::as_slice).unwrap_or_default();
    if modes.is_empty() {
        errors.push(FieldError::required(path, "at least 1 access mode is required"));
    }
    for mode in modes.iter().filter(|mode| !ACCESS_MODES.contains(&mode.as_str())) {
        errors.push(FieldError::not_supported(path, mode, ACCESS_MODES));
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        let problem = "may not use ReadWriteOncePod with other access modes";
        errors.push(FieldError::forbidden(path, problem));
    }
}

/// `ValidatePersistentVolumeClaimSpec`.
pub fn validate_spec(spec: &PersistentVolumeClaimSpec, path: &Path, errors: &mut Errors) {
    validate_access_modes(spec.access_modes.as_ref(), &path.child("accessModes"), errors);
    check::label_selector(spec.selector.as_ref(), &path.child("selector"), errors);
    let requests = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let path_of_size = path.child("resources").key("storage");
    match requests.and_then(|requests| requests.get("storage")) {
        None => errors.push(FieldError::required(path_of_size, "")),
        Some(size) => {
            let amount = check::amount(size, &path_of_size, errors);
            if amount.is_some_and(|amount| amount.is_zero()) {
                errors.push(FieldError::invalid(
                    &path_of_size,
                    &size.0,
                    "must be greater than zero",
                ));
            }
        }
    }
    if let Some(class) = spec.storage_class_name.as_deref().filter(|class| !class.is_empty()) {
        check::dns_subdomain(class, &path.child("storageClassName"), errors);
    }
    if let Some(class) =
        spec.volume_attributes_class_name.as_deref().filter(|class| !class.is_empty())
    {
        check::dns_subdomain(class, &path.child("volumeAttributesClassName"), errors);
    }
    if let Some(source) = &spec.data_source {
        let path = path.child("dataSource");
        validate_source(&source.kind, &source.name, &source.api_group, &path, errors);
    }
    if let Some(source) = &spec.data_source_ref {
        let path = path.child("dataSourceRef");
        validate_source(&source.kind, &source.name, &source.api_group, &path, errors);
    }
    check::one_of_or_unset(
        &spec.volume_mode,
        &["Block", "Filesystem"],
        &path.child("volumeMode"),
        errors,
    );
}

/// What a volume is populated from: of the core group, only another claim.
fn validate_source(
    kind: &str,
    name: &str,
    group: &Option<String>,
    path: &Path,
    errors: &mut Errors,
) {
    check::required(name, &path.child("name"), errors);
    check::required(kind, &path.child("kind"), errors);
    let group = check::text(group);
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        let problem = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.push(FieldError::invalid(path, kind, problem));
    }
    if !group.is_empty() {
        check::dns_subdomain(group, &path.child("apiGroup"), errors);
    }
}
