//! The node authorizer: a kubelet may read the Secrets, ConfigMaps and claims that pods bound to
//! its node refer to, one by one by name, and the volumes behind those claims.
//!
//! The rest of a kubelet's rights are in the role `system:node`.

use api::{Kind, fields};
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use serde_json::Value;

use super::Attributes;
use crate::cache::{Cache, Filter, Version};
use crate::user::User;

/// Where a pod's spec refers to objects of a resource: a key, and the field of its value (or of
/// each item of its value) that has the name; no field: the value is the name.
const REFERENCES: &[(&str, &[(&str, &str)])] = &[
    (
        "secrets",
        &[
            ("secretName", ""),
            ("secret", "name"),
            ("secretRef", "name"),
            ("secretKeyRef", "name"),
            ("nodePublishSecretRef", "name"),
            ("imagePullSecrets", "name"),
        ],
    ),
    ("configmaps", &[("configMap", "name"), ("configMapRef", "name"), ("configMapKeyRef", "name")]),
    ("persistentvolumeclaims", &[("claimName", "")]),
];

/// Whether `user` is a kubelet that may read this because of its pods.
pub(super) fn allows(cache: &Cache, user: &User, attributes: &Attributes) -> bool {
    let (Some(node), Attributes::Resource { verb, group, resource, subresource, namespace, name }) =
        (user.node_name(), attributes)
    else {
        return false;
    };
    let reads = matches!(verb.as_str(), "get" | "list" | "watch");
    if !reads || !group.is_empty() || !subresource.is_empty() || name.is_empty() {
        return false;
    }
    if resource == "persistentvolumes" {
        let volume = cache.resource(PersistentVolume::ROW).get(name);
        return volume.and_then(|volume| claim_of(&volume)).is_some_and(|(namespace, claim)| {
            needs(cache, node, "persistentvolumeclaims", &namespace, &claim)
        });
    }
    needs(cache, node, resource, namespace, name)
}

/// Whether a pod of the node refers to the object.
fn needs(cache: &Cache, node: &str, resource: &str, namespace: &str, name: &str) -> bool {
    let Some((_, places)) = REFERENCES.iter().find(|(known, _)| *known == resource) else {
        return false;
    };
    let on_node = Filter {
        fields: fields::Selector::equal("spec.nodeName", node),
        ..Filter::everything(Pod::ROW, namespace)
    };
    let pods = cache.resource(Pod::ROW).list(&on_node);
    pods.iter().any(|pod| {
        let Ok(object) = serde_json::from_slice::<Value>(&pod.json) else {
            return false;
        };
        let claimed = resource == "persistentvolumeclaims" && has_ephemeral(pod, &object, name);
        claimed || refers(&object["spec"], places, name)
    })
}

fn refers(value: &Value, places: &[(&str, &str)], name: &str) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| refers(item, places, name)),
        Value::Object(fields) => fields.iter().any(|(key, value)| {
            let named = |field: &str| match (field, value) {
                ("", value) => value == name,
                (field, Value::Array(items)) => items.iter().any(|item| item[field] == name),
                (field, value) => value[field] == name,
            };
            let here = places.iter().any(|(at, field)| at == key && named(field));
            here || refers(value, places, name)
        }),
        _ => false,
    }
}

/// The claim of an ephemeral volume is named after pod and volume.
fn has_ephemeral(pod: &Version, object: &Value, claim: &str) -> bool {
    let volumes = object["spec"]["volumes"].as_array();
    let Some(of_pod) = claim.strip_prefix(&*pod.name).and_then(|rest| rest.strip_prefix('-'))
    else {
        return false;
    };
    volumes
        .into_iter()
        .flatten()
        .any(|volume| volume["name"] == of_pod && !volume["ephemeral"].is_null())
}

/// Namespace and name of the claim that a volume is bound to.
fn claim_of(volume: &Version) -> Option<(String, String)> {
    let object: Value = serde_json::from_slice(&volume.json).ok()?;
    let claim = &object["spec"]["claimRef"];
    let text = |field: &str| claim[field].as_str().map(str::to_owned);
    Some((text("namespace")?, text("name")?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_are_found_where_pods_have_them() {
        let spec = json!({
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{
                "name": "main",
                "env": [
                    {"name": "plain", "value": "not-it"},
                    {"name": "A", "valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}},
                    {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "one", "key": "k"}}},
                ],
                "envFrom": [{"secretRef": {"name": "all"}}, {"configMapRef": {"name": "two"}}],
            }],
            "volumes": [
                {"name": "a", "secret": {"secretName": "mounted"}},
                {"name": "b", "configMap": {"name": "three"}},
                {"name": "c", "projected": {"sources": [
                    {"secret": {"name": "projected"}}, {"configMap": {"name": "four"}},
                ]}},
                {"name": "d", "persistentVolumeClaim": {"claimName": "claim"}},
                {"name": "e", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "csi"}}},
            ],
        });
        let found = |resource: &str, name: &str| {
            let (_, places) = REFERENCES.iter().find(|(of, _)| *of == resource).unwrap();
            refers(&spec, places, name)
        };
        for name in ["pull", "key", "all", "mounted", "projected", "csi"] {
            assert!(found("secrets", name), "{name}");
            assert!(!found("configmaps", name), "{name}");
        }
        for name in ["one", "two", "three", "four"] {
            assert!(found("configmaps", name), "{name}");
            assert!(!found("secrets", name), "{name}");
        }
        assert!(found("persistentvolumeclaims", "claim"));
        for name in ["not-it", "main", "a", "", "d"] {
            assert!(!found("secrets", name), "{name}");
        }
    }
}
