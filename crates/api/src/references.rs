//! The objects that a pod refers to: one visitor for the node authorizer, which grants a kubelet
//! what its pods refer to, and for static pods and their mirrors, which may not refer to anything.
//!
//! The visitor follows the schema table, so that a reference is found wherever its definition is
//! used. A test of the apiserver walks the whole schema of a PodSpec and fails for a field that might
//! name an object and is neither in [`PLACES`] nor known to be harmless.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::schema::{self, Ty, TypeRow};

/// The prefix of the definitions' names.
pub const PREFIX: &str = "io.k8s.api.core.v1.";

/// A field that refers to an object.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// The definition that has the field, without [`PREFIX`].
    pub definition: &'static str,
    pub field: &'static str,
    pub resource: &'static str,
    pub naming: Naming,
    /// What Kubernetes calls the reference when it refuses a mirror pod (`HasAPIObjectReference`).
    pub refusal: &'static str,
}

/// How a field names its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// Its value is the name; an empty one refers to nothing.
    Value,
    /// The claim of an ephemeral volume is named after the pod and the volume.
    PodAndVolume,
    /// Not by a name of its own: its presence is the reference.
    Presence,
}

const fn named(definition: &'static str, field: &'static str, resource: &'static str) -> Place {
    Place { definition, field, resource, naming: Naming::Value, refusal: resource }
}

const fn present(
    definition: &'static str,
    field: &'static str,
    resource: &'static str,
    refusal: &'static str,
) -> Place {
    Place { definition, field, resource, naming: Naming::Presence, refusal }
}

/// Every place. A `LocalObjectReference` in a PodSpec is always to a Secret.
pub static PLACES: &[Place] = &[
    named("PodSpec", "serviceAccount", "serviceaccounts"),
    named("PodSpec", "serviceAccountName", "serviceaccounts"),
    named("LocalObjectReference", "name", "secrets"),
    named("AzureFileVolumeSource", "secretName", "secrets"),
    named("SecretEnvSource", "name", "secrets"),
    named("SecretKeySelector", "name", "secrets"),
    named("SecretProjection", "name", "secrets"),
    named("SecretVolumeSource", "secretName", "secrets"),
    named("ConfigMapEnvSource", "name", "configmaps"),
    named("ConfigMapKeySelector", "name", "configmaps"),
    named("ConfigMapProjection", "name", "configmaps"),
    named("ConfigMapVolumeSource", "name", "configmaps"),
    named("PodResourceClaim", "resourceClaimName", "resourceclaims"),
    present("PodResourceClaim", "resourceClaimTemplateName", "resourceclaims", "resourceclaims"),
    named("PersistentVolumeClaimVolumeSource", "claimName", "persistentvolumeclaims"),
    Place {
        definition: "Volume",
        field: "ephemeral",
        resource: "persistentvolumeclaims",
        naming: Naming::PodAndVolume,
        refusal: "persistentvolumeclaims (via ephemeral volumes)",
    },
    present("Volume", "configMap", "configmaps", "configmaps (via configmap volumes)"),
    present("Volume", "secret", "secrets", "secrets (via secret volumes)"),
    present("Volume", "azureFile", "secrets", "secrets (via azureFile volumes)"),
    present("Volume", "csi", "csidrivers", "csidrivers (via CSI volumes)"),
    present("Volume", "glusterfs", "endpoints", "endpoints (via glusterFS volumes)"),
    present("VolumeProjection", "configMap", "configmaps", "configmaps (via projected volumes)"),
    present("VolumeProjection", "secret", "secrets", "secrets (via projected volumes)"),
    present(
        "VolumeProjection",
        "serviceAccountToken",
        "serviceaccounts",
        "serviceaccounts (via projected volumes)",
    ),
    present("VolumeProjection", "clusterTrustBundle", "clustertrustbundles", "clustertrustbundles"),
    present("VolumeProjection", "podCertificate", "podcertificates", "podcertificates"),
];

/// A reference in a pod's spec.
pub struct Reference<'a> {
    pub place: &'static Place,
    /// Empty for [`Naming::Presence`].
    pub name: Cow<'a, str>,
}

/// Visits every reference in the spec of the pod called `pod`, in the spec's order, until `found`
/// returns true. True: it did.
pub fn visit<'a>(spec: &'a Value, pod: &str, found: &mut dyn FnMut(Reference<'a>) -> bool) -> bool {
    let definition = schema::definition("io.k8s.api.core.v1.PodSpec");
    let (Some(definition), Value::Object(fields)) = (definition, spec) else {
        return false;
    };
    visit_object(definition, fields, pod, found)
}

fn visit_value<'a>(
    ty: Ty,
    value: &'a Value,
    pod: &str,
    found: &mut dyn FnMut(Reference<'a>) -> bool,
) -> bool {
    match (ty, value) {
        (Ty::Array(element), Value::Array(items)) => {
            items.iter().any(|item| visit_value(*element, item, pod, found))
        }
        (Ty::Map(element), Value::Object(fields)) => {
            fields.values().any(|item| visit_value(*element, item, pod, found))
        }
        (Ty::Ref(_), Value::Object(fields)) => {
            ty.definition().is_some_and(|definition| visit_object(definition, fields, pod, found))
        }
        _ => false,
    }
}

fn visit_object<'a>(
    definition: &'static TypeRow,
    fields: &'a Map<String, Value>,
    pod: &str,
    found: &mut dyn FnMut(Reference<'a>) -> bool,
) -> bool {
    let short = definition.name.strip_prefix(PREFIX).unwrap_or(definition.name);
    fields.iter().filter(|(_, value)| !value.is_null()).any(|(key, value)| {
        let places = PLACES.iter().filter(|place| place.definition == short && place.field == key);
        let here = places.filter_map(|place| {
            let name = match place.naming {
                Naming::Value => Cow::from(value.as_str().filter(|name| !name.is_empty())?),
                Naming::PodAndVolume => {
                    let volume = fields.get("name").and_then(Value::as_str).unwrap_or_default();
                    Cow::from(format!("{pod}-{volume}"))
                }
                Naming::Presence => Cow::from(""),
            };
            Some(Reference { place, name })
        });
        let mut here = here;
        here.any(&mut *found)
            || definition.field(key).is_some_and(|field| visit_value(field.ty, value, pod, found))
    })
}

/// What the spec refers to, in Kubernetes' words, if it refers to anything
/// (`HasAPIObjectReference`): accounts, Secrets, ConfigMaps and claims of resources first, then the
/// volumes in their order.
pub fn first(spec: &Value) -> Option<&'static str> {
    const FIRST: [&str; 4] = ["serviceaccounts", "secrets", "configmaps", "resourceclaims"];
    let rank = |refusal: &str| FIRST.iter().position(|first| *first == refusal);
    let mut best: Option<(usize, &'static str)> = None;
    visit(spec, "", &mut |reference| {
        let refusal = reference.place.refusal;
        let rank = rank(refusal).unwrap_or(FIRST.len());
        if best.is_none_or(|(known, _)| rank < known) {
            best = Some((rank, refusal));
        }
        rank == 0
    });
    best.map(|(_, refusal)| refusal)
}

/// Whether the spec of the pod called `pod` refers to an object by its name.
pub fn refers(spec: &Value, pod: &str, resource: &str, name: &str) -> bool {
    visit(spec, pod, &mut |reference| {
        reference.place.resource == resource
            && reference.place.naming != Naming::Presence
            && reference.name == name
    })
}
