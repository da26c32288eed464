//! PersistentVolumeClaims.

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus,
};

use super::{Context, Strategy, fill};

/// The strategy of PersistentVolumeClaims.
pub struct Rules;

/// `SetDefaults_PersistentVolumeClaimSpec`.
pub fn default_spec(spec: &mut PersistentVolumeClaimSpec) {
    fill::text(&mut spec.volume_mode, "Filesystem");
    if let Some(resources) = &mut spec.resources {
        fill::amounts(&mut resources.requests);
        fill::amounts(&mut resources.limits);
    }
}

/// Defaults of a claim, also inside a StatefulSet.
pub fn default(claim: &mut PersistentVolumeClaim) {
    default_spec(claim.spec.get_or_insert_default());
    fill::text(&mut claim.status.get_or_insert_default().phase, "Pending");
}

impl Strategy for Rules {
    type Object = PersistentVolumeClaim;

    fn default(&self, claim: &mut PersistentVolumeClaim) {
        default(claim);
        let spec = claim.spec.get_or_insert_default();
        // The two names of the source are kept equal where the older can say it.
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
}
