//! PersistentVolumes.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Context, Strategy, fill};

/// The strategy of PersistentVolumes.
pub struct Rules;

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
}
