//! What the objects in the caches are found by, besides their keys.

use std::sync::Arc;

use api::{Kind, storage_class};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::resource::v1::ResourceClaim;

use crate::machinery::cache::Key;
use crate::machinery::owner::{self, is_deleting};

/// A value of an index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// The uid of the controller.
    Controller(String),
    /// The namespace, of objects that nothing controls.
    Orphan(String),
    /// The node that a pod is on, or a volume is bound to.
    Node(String),
    /// Pods that are to be looked at once they have ended: terminated ones, and those that were
    /// deleted before they got a node.
    Ended,
    /// The service that an EndpointSlice belongs to.
    Service(Key),
    /// The PersistentVolumeClaim that a pod uses.
    Claim(Key),
    /// The ResourceClaimTemplate that a pod makes claims from.
    Template(Key),
    /// The uid of what a ResourceClaim is reserved for.
    User(String),
    /// The class of a PersistentVolumeClaim; empty for none.
    Class(String),
    /// The volume that a PersistentVolumeClaim names; `None`: it names none.
    Volume(Option<String>),
}

/// The pods, or volumes, on a node.
pub fn on_node(node: &str) -> By {
    By::Node(node.to_owned())
}

/// The slices of a service.
pub fn of_service(namespace: &str, service: &str) -> By {
    By::Service(Key::new(namespace, service))
}

pub(super) fn by_owner<K: Kind>(object: &Arc<K>, index: &mut Vec<By>) {
    index.push(owner::index(object.metadata()));
}

pub(super) fn of_pod(pod: &Arc<Pod>, index: &mut Vec<By>) {
    by_owner(pod, index);
    let node = api::pod::node_name(pod);
    index.extend(node.map(on_node));
    if api::pod::is_terminal(pod) || (is_deleting(&pod.metadata) && node.is_none()) {
        index.push(By::Ended);
    }
    index.extend(claims_of(pod).into_iter().map(By::Claim));
    let devices = pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten());
    let templates = devices.filter_map(|claim| claim.resource_claim_template_name.as_deref());
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    index.extend(templates.map(|template| By::Template(Key::new(namespace, template))));
}

pub(super) fn of_slice(slice: &Arc<EndpointSlice>, index: &mut Vec<By>) {
    let labels = slice.metadata.labels.as_ref();
    let service = labels.and_then(|labels| labels.get("kubernetes.io/service-name"));
    let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
    index.extend(service.map(|service| of_service(namespace, service)));
}

pub(super) fn of_claim(claim: &Arc<PersistentVolumeClaim>, index: &mut Vec<By>) {
    let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone());
    index.extend([By::Class(storage_class::of_claim(claim).to_owned()), By::Volume(volume)]);
}

pub(super) fn of_volume(volume: &Arc<PersistentVolume>, index: &mut Vec<By>) {
    index.extend(api::local_path::node_of(volume).map(on_node));
}

pub(super) fn of_device_claim(claim: &Arc<ResourceClaim>, index: &mut Vec<By>) {
    by_owner(claim, index);
    let users = claim.status.iter().flat_map(|status| status.reserved_for.iter().flatten());
    index.extend(users.map(|user| By::User(user.uid.clone())));
}

/// The claims of a pod's volumes, including ephemeral ones.
pub fn claims_of(pod: &Pod) -> Vec<Key> {
    let key = Key::of(pod);
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .filter_map(|volume| {
            let named = volume.persistent_volume_claim.as_ref();
            let own = volume.ephemeral.as_ref();
            named
                .map(|claim| claim.claim_name.clone())
                .or_else(|| own.map(|_| format!("{}-{}", key.name, volume.name)))
        })
        .map(|name| Key::new(&key.namespace, name))
        .collect()
}
