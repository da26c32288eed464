//! Validation of a pod's volumes (`ValidateVolumes`).

use api::certificates::pod;
use api::names;
use api::status::FieldError;
use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath,
    NFSVolumeSource, PodCertificateProjection, ProjectedVolumeSource, Volume, VolumeProjection,
};

use crate::kinds::check::{self, Errors, Unique};
use crate::kinds::path::Path;
use crate::kinds::persistent_volume_claim;
use crate::kinds::pod_spec::env;
use crate::kinds::signer_name;

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
/// Fields that a downward API file can hold, besides single labels and annotations.
const FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];
const HOST_PATH_TYPES: &[&str] = &[
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];
const MIN_TOKEN_SECONDS: i64 = 600;
const MAX_TOKEN_SECONDS: i64 = 1 << 32;

pub fn all(volumes: &[Volume], path: &Path, errors: &mut Errors) {
    let mut names = Unique::default();
    for (index, volume) in volumes.iter().enumerate() {
        let path = path.index(index);
        if volume.name.is_empty() {
            errors.push(FieldError::required(path.child("name"), ""));
        } else {
            check::dns_label(&volume.name, &path.child("name"), errors);
            names.insert(&volume.name, &path.child("name"), errors);
        }
        source(volume, &path, errors);
    }
}

/// Names of the sources that are set.
fn sources(volume: &Volume) -> Vec<&'static str> {
    let set = [
        ("emptyDir", volume.empty_dir.is_some()),
        ("hostPath", volume.host_path.is_some()),
        ("gitRepo", volume.git_repo.is_some()),
        ("gcePersistentDisk", volume.gce_persistent_disk.is_some()),
        ("awsElasticBlockStore", volume.aws_elastic_block_store.is_some()),
        ("secret", volume.secret.is_some()),
        ("nfs", volume.nfs.is_some()),
        ("iscsi", volume.iscsi.is_some()),
        ("glusterfs", volume.glusterfs.is_some()),
        ("flocker", volume.flocker.is_some()),
        ("persistentVolumeClaim", volume.persistent_volume_claim.is_some()),
        ("rbd", volume.rbd.is_some()),
        ("cinder", volume.cinder.is_some()),
        ("cephfs", volume.cephfs.is_some()),
        ("quobyte", volume.quobyte.is_some()),
        ("downwardAPI", volume.downward_api.is_some()),
        ("fc", volume.fc.is_some()),
        ("flexVolume", volume.flex_volume.is_some()),
        ("configMap", volume.config_map.is_some()),
        ("azureFile", volume.azure_file.is_some()),
        ("vsphereVolume", volume.vsphere_volume.is_some()),
        ("photonPersistentDisk", volume.photon_persistent_disk.is_some()),
        ("portworxVolume", volume.portworx_volume.is_some()),
        ("azureDisk", volume.azure_disk.is_some()),
        ("storageos", volume.storageos.is_some()),
        ("projected", volume.projected.is_some()),
        ("scaleIO", volume.scale_io.is_some()),
        ("csi", volume.csi.is_some()),
        ("ephemeral", volume.ephemeral.is_some()),
        ("image", volume.image.is_some()),
    ];
    set.into_iter().filter(|(_, set)| *set).map(|(name, _)| name).collect()
}

fn source(volume: &Volume, path: &Path, errors: &mut Errors) {
    let set = sources(volume);
    if set.is_empty() {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
    for name in set.iter().skip(1) {
        errors.push(FieldError::forbidden(
            path.child(name),
            "may not specify more than 1 volume type",
        ));
    }
    let Some(first) = set.first() else { return };
    let path = path.child(first);
    match *first {
        "emptyDir" => {
            let limit = volume.empty_dir.as_ref().and_then(|source| source.size_limit.as_ref());
            if limit.is_some_and(|limit| {
                limit.0.parse::<api::quantity::Quantity>().is_ok_and(|limit| limit.is_negative())
            }) {
                let problem = "SizeLimit field must be a valid resource quantity";
                errors.push(FieldError::forbidden(path.child("sizeLimit"), problem));
            }
        }
        "hostPath" => volume.host_path.iter().for_each(|source| host_path(source, &path, errors)),
        "projected" => volume.projected.iter().for_each(|source| projected(source, &path, errors)),
        "nfs" | "persistentVolumeClaim" | "csi" | "image" | "ephemeral" => {
            storage(volume, &path, errors)
        }
        _ => files(volume, &path, errors),
    }
}

pub fn host_path(source: &HostPathVolumeSource, path: &Path, errors: &mut Errors) {
    if source.path.is_empty() {
        errors.push(FieldError::required(path.child("path"), ""));
    } else {
        check::no_backsteps(&source.path, &path.child("path"), errors);
    }
    check::one_of_or_unset(&source.type_, HOST_PATH_TYPES, &path.child("type"), errors);
}

/// Stricter than upstream about the server: what is not a host cannot be mounted, and a program
/// that mounts it may take it for something else.
pub fn nfs(source: &NFSVolumeSource, path: &Path, errors: &mut Errors) {
    let server = path.child("server");
    if source.server.is_empty() {
        errors.push(FieldError::required(server, ""));
    } else {
        check::invalid(names::host(&source.server), &source.server, &server, errors);
    }
    check::required(&source.path, &path.child("path"), errors);
    if !source.path.starts_with('/') {
        let problem = "must be an absolute path";
        errors.push(FieldError::invalid(path.child("path"), &source.path, problem));
    }
}

fn mode(mode: Option<i32>, path: &Path, errors: &mut Errors) {
    if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
        errors.push(FieldError::invalid(path, mode, MODE));
    }
}

/// Volumes whose files come from an object.
fn files(volume: &Volume, path: &Path, errors: &mut Errors) {
    if let Some(source) = &volume.secret {
        check::required(check::text(&source.secret_name), &path.child("secretName"), errors);
        mode(source.default_mode, &path.child("defaultMode"), errors);
        items(source.items.as_deref(), path, errors);
    } else if let Some(source) = &volume.config_map {
        check::required(&source.name, &path.child("name"), errors);
        mode(source.default_mode, &path.child("defaultMode"), errors);
        items(source.items.as_deref(), path, errors);
    } else if let Some(source) = &volume.downward_api {
        mode(source.default_mode, &path.child("defaultMode"), errors);
        for file in source.items.iter().flatten() {
            downward_file(file, path, errors);
        }
    }
}

fn items(items: Option<&[KeyToPath]>, path: &Path, errors: &mut Errors) {
    for (index, item) in items.into_iter().flatten().enumerate() {
        let path = path.child("items").index(index);
        check::required(&item.key, &path.child("key"), errors);
        check::required(&item.path, &path.child("path"), errors);
        check::local_non_reserved_path(&item.path, &path.child("path"), errors);
        mode(item.mode, &path.child("mode"), errors);
    }
}

fn downward_file(file: &DownwardAPIVolumeFile, path: &Path, errors: &mut Errors) {
    check::required(&file.path, &path.child("path"), errors);
    check::local_non_reserved_path(&file.path, &path.child("path"), errors);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), None) => env::field_ref(field, FIELDS, &path.child("fieldRef"), errors),
        (None, Some(resource)) => {
            env::resource_field_ref(resource, true, &path.child("resourceFieldRef"), errors);
        }
        (Some(_), Some(_)) => errors.push(FieldError::invalid(
            path,
            "resource",
            "fieldRef and resourceFieldRef can not be specified simultaneously",
        )),
        (None, None) => {
            errors.push(FieldError::required(
                path,
                "one of fieldRef and resourceFieldRef is required",
            ));
        }
    }
    mode(file.mode, &path.child("mode"), errors);
}

/// Volumes backed by storage.
fn storage(volume: &Volume, path: &Path, errors: &mut Errors) {
    if let Some(source) = &volume.nfs {
        nfs(source, path, errors);
    } else if let Some(source) = &volume.persistent_volume_claim {
        check::required(&source.claim_name, &path.child("claimName"), errors);
    } else if let Some(source) = &volume.csi {
        check::required(&source.driver, &path.child("driver"), errors);
    } else if let Some(source) = &volume.image {
        check::required(check::text(&source.reference), &path.child("reference"), errors);
        let policies = &["Always", "IfNotPresent", "Never"];
        check::one_of(
            check::text(&source.pull_policy),
            policies,
            &path.child("pullPolicy"),
            errors,
        );
    } else if let Some(source) = &volume.ephemeral {
        let path = path.child("volumeClaimTemplate");
        match &source.volume_claim_template {
            None => errors.push(FieldError::required(path, "")),
            Some(template) => {
                persistent_volume_claim::validate_spec(&template.spec, &path.child("spec"), errors)
            }
        }
    }
}

fn projected(source: &ProjectedVolumeSource, path: &Path, errors: &mut Errors) {
    mode(source.default_mode, &path.child("defaultMode"), errors);
    let mut paths = Unique::default();
    for (index, source) in source.sources.iter().flatten().enumerate() {
        projection(source, &mut paths, &path.child("sources").index(index), errors);
    }
}

/// Which bundles are selected: one by its name, or those of a signer.
fn trust_bundle(source: &ClusterTrustBundleProjection, path: &Path, errors: &mut Errors) {
    match (&source.name, &source.signer_name) {
        (Some(_), Some(_)) => {
            let problem = "only one of name and signerName may be used";
            check::invalid_whole(problem, path, errors);
        }
        (Some(name), None) => {
            let (path, selector) = (path.child("name"), path.child("labelSelector"));
            if name.is_empty() {
                errors.push(FieldError::required(&path, "must be a valid object name"));
            }
            check::invalid(names::path_segment(name), name, &path, errors);
            if source.label_selector.is_some() {
                let problem = "labelSelector must be unset if name is specified";
                check::invalid_whole(problem, &selector, errors);
            }
        }
        (None, Some(signer)) => {
            signer_name::check(signer, &path.child("signerName"), errors);
            let selector = source.label_selector.as_ref();
            check::label_selector(selector, &path.child("labelSelector"), errors);
        }
        (None, None) => {
            let problem = "either name or signerName must be specified";
            errors.push(FieldError::required(path, problem));
        }
    }
}

fn projection(source: &VolumeProjection, paths: &mut Unique, path: &Path, errors: &mut Errors) {
    let set = [
        ("secret", source.secret.is_some()),
        ("configMap", source.config_map.is_some()),
        ("downwardAPI", source.downward_api.is_some()),
        ("serviceAccountToken", source.service_account_token.is_some()),
        ("clusterTrustBundle", source.cluster_trust_bundle.is_some()),
        ("podCertificate", source.pod_certificate.is_some()),
    ];
    let set: Vec<&str> = set.into_iter().filter(|(_, set)| *set).map(|(name, _)| name).collect();
    let Some(first) = set.first() else {
        return;
    };
    for name in &set[1..] {
        errors.push(FieldError::forbidden(
            path.child(name),
            "may not specify more than 1 volume type",
        ));
    }
    let path = path.child(first);
    let mut claim = |file: &str, path: &Path, errors: &mut Errors| {
        if !file.is_empty() {
            let mut twice = Errors::new();
            if !paths.insert(file, path, &mut twice) {
                errors.push(FieldError::invalid(path, file, "conflicting duplicate paths"));
            }
        }
    };
    let named = source.secret.as_ref().map(|source| (&source.name, source.items.as_deref()));
    let named =
        named.or(source.config_map.as_ref().map(|source| (&source.name, source.items.as_deref())));
    if let Some((name, list)) = named {
        check::required(name, &path.child("name"), errors);
        items(list, &path, errors);
        list.into_iter().flatten().for_each(|item| claim(&item.path, &path, errors));
    } else if let Some(source) = &source.downward_api {
        for file in source.items.iter().flatten() {
            downward_file(file, &path, errors);
            claim(&file.path, &path, errors);
        }
    } else if let Some(token) = &source.service_account_token {
        let seconds = token.expiration_seconds.unwrap_or(MIN_TOKEN_SECONDS);
        let own = path.child("expirationSeconds");
        if seconds < MIN_TOKEN_SECONDS {
            errors.push(FieldError::invalid(
                &own,
                seconds,
                "may not specify a duration less than 10 minutes",
            ));
        }
        if seconds > MAX_TOKEN_SECONDS {
            let problem = "may not specify a duration larger than 2^32 seconds";
            errors.push(FieldError::invalid(&own, seconds, problem));
        }
        check::required(&token.path, &path.child("path"), errors);
        check::local_non_reserved_path(&token.path, &path.child("path"), errors);
        claim(&token.path, &path, errors);
    } else if let Some(bundle) = &source.cluster_trust_bundle {
        check::required(&bundle.path, &path.child("path"), errors);
        check::local_non_reserved_path(&bundle.path, &path.child("path"), errors);
        trust_bundle(bundle, &path, errors);
    } else if let Some(certificate) = &source.pod_certificate {
        for (file, path) in pod_certificate(certificate, &path, errors) {
            claim(file, &path, errors);
        }
    }
}

/// Which certificate is asked for, and which files it is written to; returns those.
fn pod_certificate<'a>(
    source: &'a PodCertificateProjection,
    path: &Path,
    errors: &mut Errors,
) -> Vec<(&'a str, Path)> {
    signer_name::check(&source.signer_name, &path.child("signerName"), errors);
    if !pod::KEY_TYPES.contains(&source.key_type.as_str()) {
        let path = path.child("keyType");
        errors.push(FieldError::not_supported(path, &source.key_type, &pod::KEY_TYPES));
    }
    let (least, most) = (pod::MIN_SECONDS, pod::max_seconds(&source.signer_name));
    let seconds = source.max_expiration_seconds;
    if let Some(seconds) = seconds.filter(|seconds| !(least..=most).contains(seconds)) {
        let problem = format!("if provided, must be in the range [{least}, {most}]");
        errors.push(FieldError::invalid(path.child("maxExpirationSeconds"), seconds, problem));
    }
    let annotations = source.user_annotations.as_ref();
    check::domain_prefixed_annotations(annotations, &path.child("userAnnotations"), errors);
    let files = [
        ("credentialBundlePath", &source.credential_bundle_path),
        ("keyPath", &source.key_path),
        ("certificateChainPath", &source.certificate_chain_path),
    ];
    let files = files.into_iter().map(|(field, file)| (check::text(file), path.child(field)));
    let files: Vec<_> = files.filter(|(file, _)| !file.is_empty()).collect();
    if files.is_empty() {
        let problem =
            "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.push(FieldError::required(path, problem));
    }
    for (file, path) in &files {
        check::local_non_reserved_path(file, path, errors);
    }
    files
}
