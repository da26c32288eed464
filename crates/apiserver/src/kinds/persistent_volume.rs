//! PersistentVolumes.

use super::columns;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeStatus};
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

    /// The time of the last change of phase is the server's.
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
        let phase = if terminating {
            Some("Terminating".to_owned())
        } else {
            status.phase
        };
        vec![
            columns::name(&volume.metadata),
            size.map(|size| size.0).unwrap_or_default().into(),
            columns::access_modes(spec.and_then(|spec| spec.access_modes.as_ref())),
            spec.and_then(|spec| spec.persistent_volume_reclaim_policy.clone())
                .unwrap_or_default()
                .into(),
            phase.unwrap_or_default().into(),
            claim.unwrap_or_default().into(),
            spec.and_then(|spec| spec.storage_class_name.clone())
                .unwrap_or_default()
                .into(),
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
