//! Which StorageClass a claim or a volume is of: everybody who decides by it has to agree.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

/// The annotation that names the class, from before there was a field for it. It goes before the
/// field (upstream's `GetPersistentVolumeClaimClass`).
pub const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// Annotations that make a class the default one, the older one last.
pub const DEFAULT_ANNOTATIONS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

/// The class of a claim; empty: none.
pub fn of_claim(claim: &PersistentVolumeClaim) -> &str {
    let field = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
    class(claim.metadata.annotations.as_ref(), field)
}

/// The class of a volume; empty: none.
pub fn of_volume(volume: &PersistentVolume) -> &str {
    let field = volume.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
    class(volume.metadata.annotations.as_ref(), field)
}

fn class<'a>(
    annotations: Option<&'a BTreeMap<String, String>>,
    field: Option<&'a String>,
) -> &'a str {
    let named = annotations.and_then(|all| all.get(BETA_CLASS));
    named.or(field).map(String::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_annotation_goes_before_the_field() {
        let table = [
            (Value::Null, Value::Null, ""),
            (Value::Null, json!("slow"), "slow"),
            (json!("fast"), Value::Null, "fast"),
            (json!("fast"), json!("slow"), "fast"),
            (json!(""), json!("slow"), ""),
        ];
        for (annotation, field, expected) in table {
            let mut object = json!({"metadata": {}, "spec": {"storageClassName": field}});
            if !annotation.is_null() {
                object["metadata"]["annotations"] = json!({BETA_CLASS: annotation});
            }
            let claim: PersistentVolumeClaim = serde_json::from_value(object.clone()).unwrap();
            let volume: PersistentVolume = serde_json::from_value(object.clone()).unwrap();
            assert_eq!((of_claim(&claim), of_volume(&volume)), (expected, expected), "{object}");
        }
    }
}
