//! Volumes of pods and of PersistentVolumes: a sentence about the type, and its fields.

use serde_json::Value;

use crate::describe::text::{Description, fields, items, or, word};

/// A field of a source: its title, its name, and the text for a missing value.
type Field = (&'static str, &'static str, &'static str);

/// The types of source that are described by a sentence and plain fields.
const SOURCES: &[(&str, &str, &[Field])] = &[
    (
        "hostPath",
        "HostPath (bare host directory volume)",
        &[("Path", "path", ""), ("HostPathType", "type", "")],
    ),
    (
        "emptyDir",
        "EmptyDir (a temporary directory that shares a pod's lifetime)",
        &[("Medium", "medium", ""), ("SizeLimit", "sizeLimit", "<unset>")],
    ),
    (
        "secret",
        "Secret (a volume populated by a Secret)",
        &[("SecretName", "secretName", ""), ("Optional", "optional", "false")],
    ),
    (
        "configMap",
        "ConfigMap (a volume populated by a ConfigMap)",
        &[("Name", "name", ""), ("Optional", "optional", "false")],
    ),
    (
        "persistentVolumeClaim",
        "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)",
        &[("ClaimName", "claimName", ""), ("ReadOnly", "readOnly", "false")],
    ),
    (
        "nfs",
        "NFS (an NFS mount that lasts the lifetime of a pod)",
        &[("Server", "server", ""), ("Path", "path", ""), ("ReadOnly", "readOnly", "false")],
    ),
    (
        "csi",
        "CSI (a Container Storage Interface (CSI) volume source)",
        &[
            ("Driver", "driver", ""),
            ("FSType", "fsType", ""),
            ("VolumeHandle", "volumeHandle", ""),
            ("ReadOnly", "readOnly", "false"),
        ],
    ),
    (
        "local",
        "LocalVolume (a persistent volume backed by local storage on a node)",
        &[("Path", "path", "")],
    ),
    (
        "image",
        "Image (a container image or OCI artifact)",
        &[("Reference", "reference", ""), ("PullPolicy", "pullPolicy", "")],
    ),
];

/// The source of a volume: the object field that is not one of `others`.
pub fn source(volume: &Value, others: &[&str], out: &mut Description) {
    let found =
        fields(volume).find(|(kind, value)| value.is_object() && !others.contains(&kind.as_str()));
    let Some((kind, source)) = found else {
        return out.raw("<unknown>");
    };
    if let Some((_, sentence, known)) = SOURCES.iter().find(|(name, ..)| name == kind) {
        out.line("Type", sentence);
        for (title, field, none) in *known {
            out.line(title, or(&source[*field], none));
        }
        return;
    }
    match kind.as_str() {
        "projected" => projected(source, out),
        "downwardAPI" => {
            out.line("Type", "DownwardAPI (a volume populated by information about the pod)");
            out.section("Items", |out| {
                for item in items(&source["items"]) {
                    let from = or(
                        &item["fieldRef"]["fieldPath"],
                        &word(&item["resourceFieldRef"]["resource"]),
                    );
                    out.raw(&format!("{from} -> {}", word(&item["path"])));
                }
            });
        }
        "ephemeral" => {
            out.line("Type", "EphemeralVolume (an inline specification for a volume that gets created and deleted with the pod)");
            let spec = &source["volumeClaimTemplate"]["spec"];
            out.line("StorageClass", word(&spec["storageClassName"]));
            out.line("Volume", "");
            let metadata = &source["volumeClaimTemplate"]["metadata"];
            for (title, field, between) in
                [("Labels:", "labels", "="), ("Annotations:", "annotations", ": ")]
            {
                let values: Vec<String> = fields(&metadata[field])
                    .map(|(key, value)| format!("{key}{between}{}", word(value)))
                    .collect();
                let values = values.join(&format!("\n{:23}", ""));
                let values = if values.is_empty() { "<none>".to_owned() } else { values };
                out.raw(&format!("{title:<19}{values}"));
            }
            out.line("Capacity", "");
            out.line("Access Modes", "");
            out.line_if("VolumeMode", &spec["volumeMode"]);
        }
        other => {
            out.line("Type", other);
            for (name, value) in fields(source) {
                out.line(name, word(value));
            }
        }
    }
}

fn projected(source: &Value, out: &mut Description) {
    out.line("Type", "Projected (a volume that contains injected data from multiple sources)");
    for part in items(&source["sources"]) {
        let optional = |kind: &str| or(&part[kind]["optional"], "false");
        if part["secret"].is_object() {
            out.line("SecretName", word(&part["secret"]["name"]));
            out.line("Optional", optional("secret"));
        } else if part["downwardAPI"].is_object() {
            out.line("DownwardAPI", "true");
        } else if part["configMap"].is_object() {
            out.line("ConfigMapName", word(&part["configMap"]["name"]));
            out.line("Optional", optional("configMap"));
        } else if part["serviceAccountToken"].is_object() {
            let seconds = word(&part["serviceAccountToken"]["expirationSeconds"]);
            out.line("TokenExpirationSeconds", seconds);
        }
    }
}
