use std::collections::BTreeSet;

use api::schema::{self, Ty, TypeRow};
use serde_json::{Value, json};

use super::*;

/// Fields of a PodSpec's definitions that might name an object of the API, and do not, or name one
/// that gives a kubelet no access to anything.
const HARMLESS: &[&str] = &[
    // Names within the pod, or of things that are not objects.
    "AzureDiskVolumeSource.diskName",
    "AzureFileVolumeSource.shareName",
    "CephFSVolumeSource.secretFile",
    "Container.name",
    "ContainerPort.name",
    "ContainerResizePolicy.resourceName",
    "EnvVar.name",
    "EphemeralContainer.name",
    "EphemeralContainer.targetContainerName",
    "FileKeySelector.volumeName",
    "FlockerVolumeSource.datasetName",
    "GCEPersistentDiskVolumeSource.pdName",
    "HTTPHeader.name",
    "ISCSIVolumeSource.initiatorName",
    "ImageVolumeSource.reference",
    "PodDNSConfigOption.name",
    "PodOS.name",
    "PodResourceClaim.name",
    "PodSchedulingGate.name",
    "PodSpec.hostname",
    "PodSpec.hostnameOverride",
    "PodSpec.schedulerName",
    "ResourceClaim.name",
    "ResourceFieldSelector.containerName",
    "ScaleIOVolumeSource.volumeName",
    "StorageOSVolumeSource.volumeName",
    "StorageOSVolumeSource.volumeNamespace",
    "Sysctl.name",
    "Volume.name",
    "VolumeDevice.name",
    "VolumeMount.name",
    "VsphereVirtualDiskVolumeSource.storagePolicyName",
    "WindowsSecurityContextOptions.gmsaCredentialSpecName",
    "WindowsSecurityContextOptions.runAsUserName",
    "EvictionResponder.name",
    // Cluster-scoped or group objects that nodes may read anyway, or that only select pods.
    "PodAffinityTerm.namespaces",
    "PodSchedulingGroup.podGroupName",
    "PodSpec.nodeName",
    "PodSpec.priorityClassName",
    "PodSpec.runtimeClassName",
    // Covered by the presence of the projection or volume that has them.
    "ClusterTrustBundleProjection.name",
    "ClusterTrustBundleProjection.signerName",
    "PodCertificateProjection.signerName",
    "PodCertificateProjection.credentialBundlePath",
    "GlusterfsVolumeSource.endpoints",
    // The template of an ephemeral volume's claim: read by the provisioner, not by the kubelet.
    "ObjectMeta.generateName",
    "ObjectMeta.name",
    "ObjectMeta.namespace",
    "OwnerReference.name",
    "PersistentVolumeClaimSpec.storageClassName",
    "PersistentVolumeClaimSpec.volumeAttributesClassName",
    "PersistentVolumeClaimSpec.volumeName",
    "TypedLocalObjectReference.name",
    "TypedObjectReference.name",
    "TypedObjectReference.namespace",
    "HostAlias.hostnames",
    "PodDNSConfig.nameservers",
];

/// All sources of volumes, projections and environments. A new one must be looked at: it may need a
/// place.
const SOURCES: &[(&str, &[&str])] = &[
    (
        "Volume",
        &[
            "awsElasticBlockStore",
            "azureDisk",
            "azureFile",
            "cephfs",
            "cinder",
            "configMap",
            "csi",
            "downwardAPI",
            "emptyDir",
            "ephemeral",
            "fc",
            "flexVolume",
            "flocker",
            "gcePersistentDisk",
            "gitRepo",
            "glusterfs",
            "hostPath",
            "image",
            "iscsi",
            "name",
            "nfs",
            "persistentVolumeClaim",
            "photonPersistentDisk",
            "portworxVolume",
            "projected",
            "quobyte",
            "rbd",
            "scaleIO",
            "secret",
            "storageos",
            "vsphereVolume",
        ],
    ),
    (
        "VolumeProjection",
        &[
            "clusterTrustBundle",
            "configMap",
            "downwardAPI",
            "podCertificate",
            "secret",
            "serviceAccountToken",
        ],
    ),
    ("EnvFromSource", &["configMapRef", "prefix", "secretRef"]),
    (
        "EnvVarSource",
        &["configMapKeyRef", "fieldRef", "fileKeyRef", "resourceFieldRef", "secretKeyRef"],
    ),
];

fn short(row: &TypeRow) -> &'static str {
    row.name.rsplit('.').next().unwrap_or(row.name)
}

fn referred(ty: Ty) -> Option<&'static TypeRow> {
    match ty {
        Ty::Array(element) | Ty::Map(element) => referred(*element),
        _ => ty.definition(),
    }
}

/// Every definition in a PodSpec.
fn definitions() -> Vec<&'static TypeRow> {
    let mut open = vec![schema::definition("io.k8s.api.core.v1.PodSpec").unwrap()];
    let (mut seen, mut all) = (BTreeSet::new(), Vec::new());
    while let Some(row) = open.pop() {
        if seen.insert(row.name) {
            all.push(row);
            open.extend(row.fields.iter().filter_map(|field| referred(field.ty)));
        }
    }
    all
}

/// A value that fills `ty` with nothing but what leads to the place at the end of `path`.
fn filled(ty: Ty, path: &[(&'static TypeRow, &'static str)], end: &Value) -> Value {
    match ty {
        Ty::Array(element) => json!([filled(*element, path, end)]),
        Ty::Map(element) => json!({"key": filled(*element, path, end)}),
        _ => match path.split_first() {
            None => end.clone(),
            Some(((row, field), rest)) => {
                let inner = filled(row.field(field).unwrap().ty, rest, end);
                let mut object = json!({*field: inner});
                if row.field("name").is_some_and(|name| name.ty == Ty::String) && *field != "name" {
                    object["name"] = json!("own");
                }
                object
            }
        },
    }
}

/// For every way through the schema of a PodSpec to a reference: the way, the place and a spec with
/// that reference alone, to an object called `target`; the pod is called `pod`.
pub(crate) fn generated() -> Vec<(String, &'static Place, Value)> {
    let pod = schema::definition("io.k8s.api.core.v1.PodSpec").unwrap();
    let mut open = vec![(pod, Vec::new())];
    let mut all = Vec::new();
    while let Some((row, path)) = open.pop() {
        for field in row.fields {
            let mut path: Vec<(&'static TypeRow, &'static str)> = path.clone();
            path.push((row, field.name));
            let here = PLACES
                .iter()
                .filter(|place| place.definition == short(row) && place.field == field.name);
            for place in here {
                let end = match place.naming {
                    Naming::Value => json!("target"),
                    Naming::PodAndVolume => json!({"volumeClaimTemplate": {}}),
                    Naming::Presence if field.ty == Ty::String => json!("target"),
                    Naming::Presence => json!({}),
                };
                let way: Vec<&str> = path.iter().map(|(_, field)| *field).collect();
                let spec = filled(Ty::Any, &path, &end);
                all.push((way.join("."), place, spec));
            }
            if let Some(next) = referred(field.ty) {
                assert!(path.len() < 12, "a definition of a PodSpec contains itself");
                open.push((next, path));
            }
        }
    }
    all
}

#[test]
fn every_field_that_may_name_an_object_is_known() {
    let place = |definition: &str, field: &str| {
        PLACES.iter().any(|place| place.definition == definition && place.field == field)
    };
    let mut unknown = Vec::new();
    for row in definitions() {
        for field in row.fields {
            let text = matches!(field.ty, Ty::String | Ty::Array(Ty::String));
            let lower = field.name.to_lowercase();
            let suspicious = ["name", "ref", "secret", "claim", "account", "bundle", "endpoints"];
            let harmless = HARMLESS.contains(&format!("{}.{}", short(row), field.name).as_str());
            if text
                && suspicious.iter().any(|part| lower.contains(part))
                && !harmless
                && !place(short(row), field.name)
                && !lower.starts_with("prefix")
            {
                unknown.push(format!("{}.{}", short(row), field.name));
            }
        }
    }
    assert_eq!(unknown, Vec::<String>::new(), "a place, or harmless?");
    for (name, known) in SOURCES {
        let row = schema::definition(&format!("{PREFIX}{name}")).unwrap();
        let fields: Vec<&str> = row.fields.iter().map(|field| field.name).collect();
        assert_eq!(fields, *known, "{name}");
    }
    for place in PLACES {
        let row = schema::definition(&format!("{PREFIX}{}", place.definition)).unwrap();
        assert!(row.field(place.field).is_some(), "{place:?}");
    }
}

#[test]
fn local_references_are_to_secrets() {
    for row in definitions() {
        for field in row.fields {
            let local = referred(field.ty).is_some_and(|row| short(row) == "LocalObjectReference");
            let secret = field.name.to_lowercase().contains("secret");
            assert!(!local || secret, "{}.{}", row.name, field.name);
        }
    }
}

#[test]
fn every_way_to_a_reference_is_found() {
    let all = generated();
    let ways: BTreeSet<&str> = all.iter().map(|(way, _, _)| way.as_str()).collect();
    for way in [
        "imagePullSecrets.name",
        "containers.env.valueFrom.secretKeyRef.name",
        "initContainers.envFrom.secretRef.name",
        "ephemeralContainers.env.valueFrom.configMapKeyRef.name",
        "volumes.csi.nodePublishSecretRef.name",
        "volumes.flexVolume.secretRef.name",
        "volumes.rbd.secretRef.name",
        "volumes.cinder.secretRef.name",
        "volumes.azureFile.secretName",
        "volumes.iscsi.secretRef.name",
        "volumes.cephfs.secretRef.name",
        "volumes.scaleIO.secretRef.name",
        "volumes.storageos.secretRef.name",
        "volumes.projected.sources.secret.name",
        "volumes.ephemeral",
    ] {
        assert!(ways.contains(way), "{way}");
    }
    for (way, place, spec) in all {
        let name = match place.naming {
            Naming::Value => "target",
            Naming::PodAndVolume => "pod-own",
            Naming::Presence => {
                assert!(first(&spec).is_some(), "{way}");
                continue;
            }
        };
        assert!(refers(&spec, "pod", place.resource, name), "{way}: {spec}");
        assert!(!refers(&spec, "pod", place.resource, "other"), "{way}");
        for other in ["secrets", "configmaps", "persistentvolumeclaims", "serviceaccounts"] {
            let expected = other == place.resource;
            assert_eq!(refers(&spec, "pod", other, name), expected, "{way}: {other}");
        }
        assert!(first(&spec).is_some_and(|text| text.contains(place.resource)), "{way}");
    }
    assert_eq!(first(&json!({"containers": [{"name": "c", "image": "secret"}]})), None);
    assert_eq!(first(&json!({"serviceAccountName": "", "volumes": null})), None);
}
