//! Names of a StatefulSet's pods and claims, and the pods and claims themselves.

use std::ops::Range;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};

use super::claims;
use crate::machinery::hash::with_label;
use crate::machinery::owner;
use crate::machinery::pod_control;
use crate::machinery::revisions::HASH_LABEL;

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

fn name(set: &StatefulSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

/// The ordinals that the set should have.
pub fn range(set: &StatefulSet) -> Range<i32> {
    let ordinals = set.spec.ordinals.as_ref();
    let start = ordinals.and_then(|ordinals| ordinals.start).unwrap_or(0);
    start..start + set.spec.replicas.unwrap_or(1)
}

pub fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", name(set))
}

/// The ordinal in a pod's name; `None`: the pod does not belong to the set.
pub fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let own = pod.metadata.name.as_deref()?;
    let text = own.strip_prefix(name(set))?.strip_prefix('-')?;
    let ordinal: i32 = text.parse().ok().filter(|ordinal| *ordinal >= 0)?;
    (ordinal.to_string() == text).then_some(ordinal)
}

/// The name of the revision that a pod was created from.
pub fn revision(pod: &Pod) -> &str {
    let labels = pod.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(HASH_LABEL)).map(String::as_str).unwrap_or_default()
}

pub fn claim_name(set: &StatefulSet, template: &str, ordinal: i32) -> String {
    format!("{template}-{}-{ordinal}", name(set))
}

/// The claims of a pod.
pub fn claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let templates = set.spec.volume_claim_templates.iter().flatten();
    templates
        .map(|template| {
            let mut claim = template.clone();
            let of = template.metadata.name.as_deref().unwrap_or_default();
            claim.metadata.name = Some(claim_name(set, of, ordinal));
            claim.metadata.namespace.clone_from(&set.metadata.namespace);
            let labels = claim.metadata.labels.get_or_insert_default();
            let selector = set.spec.selector.match_labels.iter().flatten();
            labels.extend(selector.map(|(key, value)| (key.clone(), value.clone())));
            claim.metadata.owner_references = claims::set_reference(set);
            claim.status = None;
            claim
        })
        .collect()
}

/// The pod for an ordinal, from a revision's template.
pub fn pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let mut pod = pod_control::from_template(template, namespace, "", owner::reference(set));
    let own = pod_name(set, ordinal);
    pod.metadata.generate_name = Some(format!("{}-", name(set)));
    pod.metadata.name = Some(own.clone());
    let mut labels = with_label(pod.metadata.labels.as_ref(), HASH_LABEL, revision);
    labels.insert(POD_NAME.into(), own.clone());
    labels.insert(POD_INDEX.into(), ordinal.to_string());
    pod.metadata.labels = Some(labels);
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(own);
    spec.subdomain.clone_from(&set.spec.service_name);
    let volumes = spec.volumes.get_or_insert_default();
    for template in set.spec.volume_claim_templates.iter().flatten() {
        let name = template.metadata.name.clone().unwrap_or_default();
        volumes.retain(|volume| volume.name != name);
        volumes.push(Volume {
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(set, &name, ordinal),
                read_only: None,
            }),
            name,
            ..Default::default()
        });
    }
    pod
}
