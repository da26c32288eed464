//! Defaults of a pod's volumes (`pkg/apis/core/v1/defaults.go`).

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, PersistentVolumeClaimSpec, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::fill;
use super::pod_spec::pull_policy;

/// Mode of files in volumes made from objects, octal 644.
const FILE_MODE: i32 = 0o644;

/// `pkg/apis/core/v1/defaults.go`, `SetDefaults_Volume` and those of its sources.
pub fn volume(volume: &mut Volume) {
    if *volume == (Volume { name: volume.name.clone(), ..Volume::default() }) {
        volume.empty_dir = Some(Default::default());
    }
    if let Some(source) = &mut volume.host_path {
        fill::missing(&mut source.type_, "");
    }
    if let Some(source) = &mut volume.secret {
        fill::missing(&mut source.default_mode, FILE_MODE);
    }
    if let Some(source) = &mut volume.config_map {
        fill::missing(&mut source.default_mode, FILE_MODE);
    }
    if let Some(source) = &mut volume.downward_api {
        fill::missing(&mut source.default_mode, FILE_MODE);
        source.items.iter_mut().flatten().for_each(downward_file);
    }
    if let Some(source) = &mut volume.empty_dir {
        fill::amount(&mut source.size_limit);
    }
    if let Some(source) = &mut volume.image {
        let policy = pull_policy(source.reference.as_deref().unwrap_or_default());
        fill::text(&mut source.pull_policy, policy);
    }
    if let Some(template) =
        volume.ephemeral.as_mut().and_then(|source| source.volume_claim_template.as_mut())
    {
        template.metadata.get_or_insert_default();
        claim_spec(&mut template.spec);
    }
    if let Some(source) = &mut volume.iscsi {
        fill::text(&mut source.iscsi_interface, "default");
    }
    if let Some(source) = &mut volume.projected {
        fill::missing(&mut source.default_mode, FILE_MODE);
        for source in source.sources.iter_mut().flatten() {
            if let Some(token) = &mut source.service_account_token {
                fill::missing(&mut token.expiration_seconds, 3600i64);
            }
            if let Some(downward) = &mut source.downward_api {
                downward.items.iter_mut().flatten().for_each(downward_file);
            }
        }
    }
}

fn downward_file(file: &mut DownwardAPIVolumeFile) {
    if let Some(field) = &mut file.field_ref {
        fill::text(&mut field.api_version, "v1");
    }
    if let Some(resource) = &mut file.resource_field_ref {
        fill::missing(&mut resource.divisor, zero());
        fill::amount(&mut resource.divisor);
    }
}

/// Defaults of a claim's spec, also in a template.
pub fn claim_spec(spec: &mut PersistentVolumeClaimSpec) {
    fill::text(&mut spec.volume_mode, "Filesystem");
    let resources = spec.resources.get_or_insert_default();
    fill::amounts(&mut resources.requests);
    fill::amounts(&mut resources.limits);
}

/// A quantity of zero.
pub(super) fn zero() -> Quantity {
    Quantity("0".to_owned())
}
