//! The node authorizer: what a kubelet may do (`k8s.io/kubernetes/plugin/pkg/auth/authorizer/node`).
//!
//! It reads its own Node and the pods bound to it, and of Secrets, ConfigMaps, claims and volumes
//! those that its pods refer to, one by one by name, the volumes that are kept on it, and the
//! attachments to it. What it
//! may write, admission restricts further. For other resources the rules of the role `system:node` apply to every kubelet; the
//! role itself is bound to nobody, since it is broader.

use std::sync::LazyLock;

use api::labels::Requirement;
use api::{Kind, fields, local_path};
use k8s_openapi::api::certificates::v1::PodCertificateRequest;
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use k8s_openapi::api::rbac::v1::PolicyRule;
use k8s_openapi::api::resource::v1::ResourceSlice;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use serde_json::Value;

use super::Attributes;
use super::rbac::rule_allows;
use crate::bootstrap::node_rules;
use crate::cache::{Cache, Filter, Version};
use crate::references;
use crate::request::{Request, Subject, Verb};
use crate::scan;
use crate::user::User;

/// The namespace of the nodes' leases.
const LEASES: &str = "kube-node-lease";

static RULES: LazyLock<Vec<PolicyRule>> = LazyLock::new(node_rules);

/// Whether `user` is a kubelet that may do what `attributes` say.
pub(super) fn allows(cache: &Cache, user: &User, attributes: &Attributes) -> bool {
    let (Some(node), Attributes::Resource { verb, group, resource, subresource, namespace, name }) =
        (user.node_name(), attributes)
    else {
        return false;
    };
    let is = |verbs: &[&str]| verbs.contains(&verb.as_str());
    let reads = is(&["get", "list", "watch"]);
    let writes = is(&["update", "patch"]);
    let needed = || !name.is_empty() && needs(cache, node, resource, namespace, name);
    match (group.as_str(), resource.as_str(), subresource.as_str()) {
        ("", "secrets" | "configmaps", "") => reads && !namespace.is_empty() && needed(),
        ("", "persistentvolumeclaims", "") => is(&["get"]) && needed(),
        ("", "persistentvolumeclaims", "status") => writes && needed(),
        ("", "persistentvolumes", "") => {
            let own = || keeps_volume(cache, node, name);
            (is(&["get"]) && needs_volume(cache, node, name)) || ((writes || is(&["get"])) && own())
        }
        ("", "serviceaccounts", "") => is(&["get"]) && needed(),
        ("", "serviceaccounts", "token") => is(&["create"]) && needed(),
        ("", "nodes", "") => is(&["create"]) || writes || (reads && name == node),
        ("", "nodes" | "pods", "status") => writes,
        ("", "pods", "") => {
            is(&["create", "delete"]) || (reads && bound(cache, node, namespace, name))
        }
        ("", "pods", "eviction") => is(&["create"]),
        ("coordination.k8s.io", "leases", _) => {
            let own = name == node && (writes || is(&["get", "delete"]));
            namespace == LEASES && (is(&["create"]) || own)
        }
        ("storage.k8s.io", "csinodes", "") => {
            is(&["create"]) || (name == node && (writes || is(&["get", "delete"])))
        }
        ("storage.k8s.io", "volumeattachments", "") => is(&["get"]) && attached(cache, node, name),
        ("resource.k8s.io", "resourceclaims", "") => {
            is(&["get"]) && claims(cache, node, namespace, name)
        }
        ("resource.k8s.io", "resourceslices", "") => {
            is(&["create"]) || ((writes || is(&["get", "delete"])) && publishes(cache, node, name))
        }
        ("certificates.k8s.io", "podcertificaterequests", "") => {
            is(&["create"]) || (reads && asked_for(cache, node, namespace, name))
        }
        (
            "",
            "secrets"
            | "configmaps"
            | "persistentvolumeclaims"
            | "persistentvolumes"
            | "serviceaccounts"
            | "nodes"
            | "pods",
            _,
        )
        | ("storage.k8s.io", "csinodes" | "volumeattachments", _)
        | ("certificates.k8s.io", "podcertificaterequests", _)
        | ("resource.k8s.io", "resourceclaims" | "resourceslices", _) => false,
        _ => RULES.iter().any(|rule| rule_allows(rule, attributes)),
    }
}

/// Whether a kubelet lists or watches what is its node's: pods that a field selector limits to
/// those bound to it, requests for their certificates, or volumes that a label selector limits to those that are kept on it.
pub(super) fn selects_own(request: &Request) -> bool {
    let Subject::Resource { verb: Verb::List | Verb::Watch, target } = &request.subject else {
        return false;
    };
    let Some(node) = request.user.node_name().filter(|_| target.subresource.is_empty()) else {
        return false;
    };
    if target.row == PersistentVolume::ROW {
        let own = |one: &Requirement| {
            matches!(one, Requirement::In(key, values)
            if key == local_path::NODE_LABEL && *values == [node])
        };
        return request.options.labels.requirements().iter().any(own);
    }
    let rows = [Pod::ROW, ResourceSlice::ROW, PodCertificateRequest::ROW];
    rows.iter().any(|row| target.row == *row)
        && request.options.fields.exact("spec.nodeName") == Some(node)
}

/// Whether the pod is bound to the node.
fn bound(cache: &Cache, node: &str, namespace: &str, name: &str) -> bool {
    let pod = cache.resource(Pod::ROW).get(&format!("{namespace}/{name}"));
    pod.is_some_and(|pod| pod.field(Pod::ROW, "spec.nodeName") == node)
}

/// Whether the request is for a pod of the node.
fn asked_for(cache: &Cache, node: &str, namespace: &str, name: &str) -> bool {
    let request = cache.resource(PodCertificateRequest::ROW).get(&format!("{namespace}/{name}"));
    let of = |request: &Version| request.field(PodCertificateRequest::ROW, "spec.nodeName") == node;
    request.is_some_and(|request| of(&request))
}

/// Whether a pod of the node has the claim, by its name or from a template.
fn claims(cache: &Cache, node: &str, namespace: &str, name: &str) -> bool {
    let on_node = Filter {
        fields: fields::Selector::equal("spec.nodeName", node),
        ..Filter::everything(Pod::ROW, namespace)
    };
    let of = |json: &[u8], path: &str| -> bool {
        let list = scan::at_path(json, path).and_then(|list| serde_json::from_slice(list).ok());
        let names = list.iter().flat_map(|list: &Vec<Value>| list.iter());
        names.into_iter().any(|claim| claim["resourceClaimName"] == name)
    };
    cache.resource(Pod::ROW).list(&on_node).iter().any(|pod| {
        of(&pod.json, "spec.resourceClaims") || of(&pod.json, "status.resourceClaimStatuses")
    })
}

/// Whether the slice is of devices of the node.
fn publishes(cache: &Cache, node: &str, name: &str) -> bool {
    let slice = cache.resource(ResourceSlice::ROW).get(name);
    slice.is_some_and(|slice| slice.field(ResourceSlice::ROW, "spec.nodeName") == node)
}

/// Whether the attachment is one to the node.
fn attached(cache: &Cache, node: &str, name: &str) -> bool {
    let attachment = cache.resource(VolumeAttachment::ROW).get(name);
    attachment.is_some_and(|attachment| {
        let spec = scan::at_path(&attachment.json, "spec").unwrap_or(b"{}");
        scan::string(spec, "nodeName") == node
    })
}

/// Whether a pod of the node uses the claim that the volume is bound to.
fn needs_volume(cache: &Cache, node: &str, name: &str) -> bool {
    let volume = cache.resource(PersistentVolume::ROW).get(name);
    volume.and_then(|volume| claim_of(&volume)).is_some_and(|(namespace, claim)| {
        needs(cache, node, "persistentvolumeclaims", &namespace, &claim)
    })
}

/// Whether a pod of the node refers to the object.
fn needs(cache: &Cache, node: &str, resource: &str, namespace: &str, name: &str) -> bool {
    let on_node = Filter {
        fields: fields::Selector::equal("spec.nodeName", node),
        ..Filter::everything(Pod::ROW, namespace)
    };
    cache.resource(Pod::ROW).list(&on_node).iter().any(|pod| {
        let spec = scan::at_path(&pod.json, "spec").unwrap_or_default();
        // Most pods do not even contain the name; the claim of an ephemeral volume is composed.
        let composed = resource == "persistentvolumeclaims" && name.starts_with(&*pod.name);
        let mentioned = std::str::from_utf8(spec).is_ok_and(|text| text.contains(name));
        (mentioned || composed)
            && serde_json::from_slice(spec)
                .is_ok_and(|spec: Value| references::refers(&spec, &pod.name, resource, name))
    })
}

/// Whether the volume is kept on the node, which makes its contents and removes them.
fn keeps_volume(cache: &Cache, node: &str, name: &str) -> bool {
    let volume = cache.resource(PersistentVolume::ROW).get(name);
    volume.is_some_and(|volume| {
        let labels = scan::at_path(&volume.json, "metadata.labels").unwrap_or(b"{}");
        scan::string(labels, local_path::NODE_LABEL) == node
    })
}

/// Namespace and name of the claim that a volume is bound to.
fn claim_of(volume: &Version) -> Option<(String, String)> {
    let object: Value = serde_json::from_slice(&volume.json).ok()?;
    let claim = &object["spec"]["claimRef"];
    let text = |field: &str| claim[field].as_str().map(str::to_owned);
    Some((text("namespace")?, text("name")?))
}
