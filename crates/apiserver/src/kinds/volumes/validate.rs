//! Validation of a pod's volumes (`ValidateVolumes`).

use api::certificates::pod;
use api::names;
use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath,
    NFSVolumeSource, PodCertificateProjection, ProjectedVolumeSource, Volume, VolumeProjection,
};

use crate::kinds::at::At;
use crate::kinds::check::{self, Unique};
use crate::kinds::persistent_volume_claim;
use crate::kinds::pod_spec::env;

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

pub fn all(volumes: &[Volume], at: &At<'_>) {
    let mut names = Unique::default();
    for (index, volume) in volumes.iter().enumerate() {
        let at = at.index(index);
        if volume.name.is_empty() {
            at.child("name").required("");
        } else {
            at.child("name").dns_label(&volume.name);
            names.add(&volume.name, &at.child("name"));
        }
        source(volume, &at);
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

fn source(volume: &Volume, at: &At<'_>) {
    let set = sources(volume);
    if set.is_empty() {
        at.required("must specify a volume type");
    }
    for name in set.iter().skip(1) {
        at.child(name).forbidden("may not specify more than 1 volume type");
    }
    let Some(first) = set.first() else { return };
    let at = at.child(first);
    match *first {
        "emptyDir" => {
            let limit = volume.empty_dir.as_ref().and_then(|source| source.size_limit.as_ref());
            if limit.is_some_and(|limit| {
                limit.0.parse::<api::quantity::Quantity>().is_ok_and(|limit| limit.is_negative())
            }) {
                at.child("sizeLimit")
                    .forbidden("SizeLimit field must be a valid resource quantity");
            }
        }
        "hostPath" => volume.host_path.iter().for_each(|source| host_path(source, &at)),
        "projected" => volume.projected.iter().for_each(|source| projected(source, &at)),
        "nfs" | "persistentVolumeClaim" | "csi" | "image" | "ephemeral" => storage(volume, &at),
        _ => files(volume, &at),
    }
}

pub fn host_path(source: &HostPathVolumeSource, at: &At<'_>) {
    if source.path.is_empty() {
        at.child("path").required("");
    } else {
        at.child("path").no_backsteps(&source.path);
    }
    at.child("type").one_of_or_unset(&source.type_, HOST_PATH_TYPES);
}

/// Stricter than upstream about the server: what is not a host cannot be mounted, and a program
/// that mounts it may take it for something else.
pub fn nfs(source: &NFSVolumeSource, at: &At<'_>) {
    let server = at.child("server");
    if source.server.is_empty() {
        server.required("");
    } else {
        server.texts(names::host(&source.server), &source.server);
    }
    at.child("path").not_empty(&source.path);
    if !source.path.starts_with('/') {
        at.child("path").invalid(&source.path, "must be an absolute path");
    }
}

fn mode(mode: Option<i32>, at: &At<'_>) {
    if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
        at.invalid(mode, MODE);
    }
}

/// Volumes whose files come from an object.
fn files(volume: &Volume, at: &At<'_>) {
    if let Some(source) = &volume.secret {
        at.child("secretName").not_empty(check::text(&source.secret_name));
        mode(source.default_mode, &at.child("defaultMode"));
        items(source.items.as_deref(), at);
    } else if let Some(source) = &volume.config_map {
        at.child("name").not_empty(&source.name);
        mode(source.default_mode, &at.child("defaultMode"));
        items(source.items.as_deref(), at);
    } else if let Some(source) = &volume.downward_api {
        mode(source.default_mode, &at.child("defaultMode"));
        for file in source.items.iter().flatten() {
            downward_file(file, at);
        }
    }
}

fn items(items: Option<&[KeyToPath]>, at: &At<'_>) {
    for (index, item) in items.into_iter().flatten().enumerate() {
        let at = at.item("items", index);
        at.child("key").not_empty(&item.key);
        at.child("path").not_empty(&item.path);
        at.child("path").local_non_reserved_path(&item.path);
        mode(item.mode, &at.child("mode"));
    }
}

fn downward_file(file: &DownwardAPIVolumeFile, at: &At<'_>) {
    at.child("path").not_empty(&file.path);
    at.child("path").local_non_reserved_path(&file.path);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), None) => env::field_ref(field, FIELDS, &at.child("fieldRef")),
        (None, Some(resource)) => {
            env::resource_field_ref(resource, true, &at.child("resourceFieldRef"));
        }
        (Some(_), Some(_)) => at.invalid(
            "resource",
            "fieldRef and resourceFieldRef can not be specified simultaneously",
        ),
        (None, None) => at.required("one of fieldRef and resourceFieldRef is required"),
    }
    mode(file.mode, &at.child("mode"));
}

/// Volumes backed by storage.
fn storage(volume: &Volume, at: &At<'_>) {
    if let Some(source) = &volume.nfs {
        nfs(source, at);
    } else if let Some(source) = &volume.persistent_volume_claim {
        at.child("claimName").not_empty(&source.claim_name);
    } else if let Some(source) = &volume.csi {
        at.child("driver").not_empty(&source.driver);
    } else if let Some(source) = &volume.image {
        at.child("reference").not_empty(check::text(&source.reference));
        let policies = &["Always", "IfNotPresent", "Never"];
        at.child("pullPolicy").one_of(check::text(&source.pull_policy), policies);
    } else if let Some(source) = &volume.ephemeral {
        let at = at.child("volumeClaimTemplate");
        match &source.volume_claim_template {
            None => at.required(""),
            Some(template) => {
                persistent_volume_claim::validate_spec(&template.spec, &at.child("spec"))
            }
        }
    }
}

fn projected(source: &ProjectedVolumeSource, at: &At<'_>) {
    mode(source.default_mode, &at.child("defaultMode"));
    let mut paths = Unique::default();
    for (index, source) in source.sources.iter().flatten().enumerate() {
        projection(source, &mut paths, &at.item("sources", index));
    }
}

/// Which bundles are selected: one by its name, or those of a signer.
fn trust_bundle(source: &ClusterTrustBundleProjection, at: &At<'_>) {
    match (&source.name, &source.signer_name) {
        (Some(_), Some(_)) => at.invalid_whole("only one of name and signerName may be used"),
        (Some(name), None) => {
            let (at, selector) = (at.child("name"), at.child("labelSelector"));
            if name.is_empty() {
                at.required("must be a valid object name");
            }
            at.texts(names::path_segment(name), name);
            if source.label_selector.is_some() {
                selector.invalid_whole("labelSelector must be unset if name is specified");
            }
        }
        (None, Some(signer)) => {
            at.child("signerName").signer_name(signer);
            let selector = source.label_selector.as_ref();
            at.child("labelSelector").label_selector(selector);
        }
        (None, None) => at.required("either name or signerName must be specified"),
    }
}

fn projection(source: &VolumeProjection, paths: &mut Unique, at: &At<'_>) {
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
        at.child(name).forbidden("may not specify more than 1 volume type");
    }
    let at = at.child(first);
    let mut claim = |file: &str, at: &At<'_>| {
        if !file.is_empty() && !paths.is_new(file) {
            at.invalid(file, "conflicting duplicate paths");
        }
    };
    let named = source.secret.as_ref().map(|source| (&source.name, source.items.as_deref()));
    let named =
        named.or(source.config_map.as_ref().map(|source| (&source.name, source.items.as_deref())));
    if let Some((name, list)) = named {
        at.child("name").not_empty(name);
        items(list, &at);
        list.into_iter().flatten().for_each(|item| claim(&item.path, &at));
    } else if let Some(source) = &source.downward_api {
        for file in source.items.iter().flatten() {
            downward_file(file, &at);
            claim(&file.path, &at);
        }
    } else if let Some(token) = &source.service_account_token {
        let seconds = token.expiration_seconds.unwrap_or(MIN_TOKEN_SECONDS);
        let own = at.child("expirationSeconds");
        if seconds < MIN_TOKEN_SECONDS {
            own.invalid(seconds, "may not specify a duration less than 10 minutes");
        }
        if seconds > MAX_TOKEN_SECONDS {
            own.invalid(seconds, "may not specify a duration larger than 2^32 seconds");
        }
        at.child("path").not_empty(&token.path);
        at.child("path").local_non_reserved_path(&token.path);
        claim(&token.path, &at);
    } else if let Some(bundle) = &source.cluster_trust_bundle {
        at.child("path").not_empty(&bundle.path);
        at.child("path").local_non_reserved_path(&bundle.path);
        trust_bundle(bundle, &at);
    } else if let Some(certificate) = &source.pod_certificate {
        for (field, file) in pod_certificate(certificate, &at) {
            claim(file, &at.child(field));
        }
    }
}

/// Which certificate is asked for, and which files it is written to; returns those, by field.
fn pod_certificate<'a>(
    source: &'a PodCertificateProjection,
    at: &At<'_>,
) -> Vec<(&'static str, &'a str)> {
    let signer = &source.signer_name;
    at.child("signerName").signer_name(signer);
    if !pod::KEY_TYPES.contains(&source.key_type.as_str()) {
        at.child("keyType").not_supported(&source.key_type, &pod::KEY_TYPES);
    }
    let (least, most) = (pod::MIN_SECONDS, pod::max_seconds(signer));
    if let Some(seconds) = source.max_expiration_seconds
        && !(least..=most).contains(&seconds)
    {
        let problem = format!("if provided, must be in the range [{least}, {most}]");
        at.child("maxExpirationSeconds").invalid(seconds, problem);
    }
    let annotations = source.user_annotations.as_ref();
    at.child("userAnnotations").domain_prefixed_annotations(annotations);
    let files = [
        ("credentialBundlePath", &source.credential_bundle_path),
        ("keyPath", &source.key_path),
        ("certificateChainPath", &source.certificate_chain_path),
    ];
    let files = files.into_iter().map(|(field, file)| (field, check::text(file)));
    let files: Vec<_> = files.filter(|(_, file)| !file.is_empty()).collect();
    if files.is_empty() {
        at.required(
            "specify at least one of credentialBundlePath, keyPath, and certificateChainPath",
        );
    }
    for (field, file) in &files {
        at.child(field).local_non_reserved_path(file);
    }
    files
}
