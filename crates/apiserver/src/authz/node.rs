//! The node authorizer: what a kubelet may do (`k8s.io/kubernetes/plugin/pkg/auth/authorizer/node`).
//!
//! It reads its own Node and the pods bound to it, and of Secrets, ConfigMaps, claims and volumes
//! those that its pods refer to, one by one by name, the volumes that are kept on it, and the
//! attachments to it. What it
//! may write, admission restricts further. For other resources the rules of the role `system:node` apply to every kubelet; the
//! role itself is bound to nobody, since it is broader.

use std::borrow::Cow;
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
use super::chain::{Decision, Verdict};
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

const READS: &[&str] = &["get", "list", "watch"];
const WRITES: &[&str] = &["update", "patch"];
const OF_OWN: &[&str] = &["get", "create", "update", "patch", "delete"];

/// What the node authorizer says of a request: allowed to a kubelet, or no opinion and why, in
/// upstream's words.
pub(super) fn decide(cache: &Cache, user: &User, attributes: &Attributes) -> Verdict {
    if user.is_nameless_node() {
        let reason = format!("unknown node for user {:?}", user.name);
        return Verdict::new(Decision::NoOpinion, reason);
    }
    let Some(node) = user.node_name() else {
        return Verdict::new(Decision::NoOpinion, "");
    };
    match (Kubelet { cache, node }).may(attributes) {
        Ok(()) => Verdict::new(Decision::Allow, ""),
        Err(reason) => Verdict::new(Decision::NoOpinion, reason),
    }
}

/// `Err`: why not.
type Outcome = Result<(), Cow<'static, str>>;

fn only(holds: bool, otherwise: &'static str) -> Outcome {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

struct Kubelet<'a> {
    cache: &'a Cache,
    node: &'a str,
}

impl Kubelet<'_> {
    fn may(&self, attributes: &Attributes) -> Outcome {
        let Attributes::Resource { verb, group, resource, subresource, namespace, name } =
            attributes
        else {
            return by_the_role(attributes);
        };
        let (cache, node) = (self.cache, self.node);
        let is = |verbs: &[&str]| verbs.contains(&verb.as_str());
        let needed = || self.related(name, || needs(cache, node, resource, namespace, name));
        match (group.as_str(), resource.as_str(), subresource.as_str()) {
            ("", "secrets" | "configmaps", _) => {
                only(is(READS), "can only read resources of this type")?;
                only(subresource.is_empty(), "cannot read subresource")?;
                only(!namespace.is_empty(), "can only read namespaced object of this type")?;
                needed()
            }
            ("", "persistentvolumeclaims", "status") => {
                only(is(WRITES), "can only get/update/patch this type")?;
                needed()
            }
            ("", "persistentvolumeclaims", _) => {
                one(verb, subresource)?;
                needed()
            }
            // Those that are kept on the node it also writes.
            ("", "persistentvolumes", "") if is(WRITES) && keeps_volume(cache, node, name) => {
                Ok(())
            }
            ("", "persistentvolumes", _) => {
                one(verb, subresource)?;
                self.related(name, || {
                    needs_volume(cache, node, name) || keeps_volume(cache, node, name)
                })
            }
            ("", "serviceaccounts", "") if verb == "get" => needed(),
            ("", "serviceaccounts", _) => {
                let individual = verb == "create" && !name.is_empty();
                only(individual, "can only create tokens for individual service accounts")?;
                let token = subresource == "token";
                only(token, "can only create token subresource of serviceaccount")?;
                needed()
            }
            ("", "nodes", _) => self.nodes(verb, subresource, name),
            ("", "pods", _) => self.pods(verb, subresource, namespace, name),
            ("coordination.k8s.io", "leases", _) => {
                let any = "can only get, create, update, patch, or delete a node lease";
                only(is(OF_OWN), any)?;
                let place = "can only access leases in the \"kube-node-lease\" system namespace";
                only(namespace == LEASES, place)?;
                let same = "can only access node lease with the same name as the requesting node";
                only(verb == "create" || name == node, same)
            }
            ("storage.k8s.io", "csinodes", _) => {
                only(is(OF_OWN), "can only get, create, update, patch, or delete a CSINode")?;
                only(subresource.is_empty(), "cannot authorize CSINode subresources")?;
                let same = "can only access CSINode with the same name as the requesting node";
                only(verb == "create" || name == node, same)
            }
            ("storage.k8s.io", "volumeattachments", _) => {
                one(verb, subresource)?;
                self.related(name, || attached(cache, node, name))
            }
            ("resource.k8s.io", "resourceclaims", _) => {
                one(verb, subresource)?;
                self.related(name, || claims(cache, node, namespace, name))
            }
            ("resource.k8s.io", "resourceslices", _) => {
                only(subresource.is_empty(), "cannot authorize ResourceSlice subresources")?;
                match verb.as_str() {
                    "create" => Ok(()),
                    "get" | "update" | "patch" | "delete" => {
                        self.related(name, || publishes(cache, node, name))
                    }
                    "watch" | "list" | "deletecollection" => Err("can only list/watch/deletecollection resourceslices with nodeName field selector".into()),
                    _ => Err("only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection".into()),
                }
            }
            ("certificates.k8s.io", "podcertificaterequests", "") if verb == "create" => Ok(()),
            ("certificates.k8s.io", "podcertificaterequests", "") if is(READS) => {
                self.related(name, || asked_for(cache, node, namespace, name))
            }
            ("certificates.k8s.io", "podcertificaterequests", _) => Err("".into()),
            _ => by_the_role(attributes),
        }
    }

    fn nodes(&self, verb: &str, subresource: &str, name: &str) -> Outcome {
        let node = self.node;
        match (subresource, verb) {
            ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
            ("", "get" | "list" | "watch") if name == node => Ok(()),
            ("", "get" | "list" | "watch") if name.is_empty() => {
                let reason =
                    format!("node '{node}' cannot read all nodes, only its own Node object");
                Err(reason.into())
            }
            ("", "get" | "list" | "watch") => {
                let reason =
                    format!("node '{node}' cannot read '{name}', only its own Node object");
                Err(reason.into())
            }
            _ => Err("".into()),
        }
    }

    fn pods(&self, verb: &str, subresource: &str, namespace: &str, name: &str) -> Outcome {
        match (subresource, verb) {
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                Ok(())
            }
            ("", "list" | "watch") if name.is_empty() => {
                Err("can only list/watch pods with spec.nodeName field selector".into())
            }
            ("", "get" | "list" | "watch") => {
                self.related(name, || bound(self.cache, self.node, namespace, name))
            }
            _ => Err("".into()),
        }
    }

    /// Whether an object has to do with the node.
    fn related(&self, name: &str, is: impl FnOnce() -> bool) -> Outcome {
        only(!name.is_empty(), "No Object name found")?;
        if is() {
            return Ok(());
        }
        let node = self.node;
        Err(format!("no relationship found between node '{node}' and this object").into())
    }
}

/// Only one object at a time is read.
fn one(verb: &str, subresource: &str) -> Outcome {
    only(verb == "get", "can only get individual resources of this type")?;
    only(subresource.is_empty(), "cannot get subresource")
}

fn by_the_role(attributes: &Attributes) -> Outcome {
    only(RULES.iter().any(|rule| rule_allows(rule, attributes)), "")
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
