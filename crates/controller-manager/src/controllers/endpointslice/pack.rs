//! Packs endpoints into slices with as few writes as possible: a pure function
//! (`k8s.io/endpointslice`'s reconciler).

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::collections::BTreeMap;

use super::trigger_time;

/// Endpoints that share a slice's address type and ports.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub address_type: String,
    pub ports: Vec<EndpointPort>,
    pub endpoints: Vec<Endpoint>,
}

/// What all slices of a service have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Common {
    pub namespace: String,
    /// Prefix of the names of new slices.
    pub prefix: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// What the slices that are written get as the time of the change that caused it.
    pub trigger_time: Option<String>,
    pub owner: OwnerReference,
}

/// What to write.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    pub create: Vec<EndpointSlice>,
    pub update: Vec<EndpointSlice>,
    pub delete: Vec<Arc<EndpointSlice>>,
}

/// Adds an endpoint to the group with its ports.
pub fn add(groups: &mut Vec<Group>, address_type: &str, ports: Vec<EndpointPort>, one: Endpoint) {
    let found =
        groups.iter_mut().find(|group| group.address_type == address_type && group.ports == ports);
    match found {
        Some(group) => group.endpoints.push(one),
        None => {
            groups.push(Group { address_type: address_type.into(), ports, endpoints: vec![one] })
        }
    }
}

/// Plans how `existing` comes to hold `groups`, at most `max` endpoints in each slice. A group
/// without endpoints keeps one empty slice.
pub fn pack(
    existing: &[Arc<EndpointSlice>],
    groups: &[Group],
    common: &Common,
    max: usize,
) -> Plan {
    let mut plan = Plan::default();
    let mut unused: Vec<Arc<EndpointSlice>> = existing.to_vec();
    for group in groups {
        let fits = |slice: &Arc<EndpointSlice>| {
            slice.address_type == group.address_type
                && slice.ports.as_deref().unwrap_or_default() == group.ports.as_slice()
        };
        let (mine, others) = unused.into_iter().partition(fits);
        unused = others;
        pack_group(&mut plan, mine, group, common, max);
    }
    plan.delete.extend(unused);
    reuse_deleted(&mut plan);
    plan
}

/// A slice that is being planned.
struct Draft {
    before: Arc<EndpointSlice>,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

fn pack_group(
    plan: &mut Plan,
    mut mine: Vec<Arc<EndpointSlice>>,
    group: &Group,
    common: &Common,
    max: usize,
) {
    mine.sort_by(|one, other| one.metadata.name.cmp(&other.metadata.name));
    let mut missing: HashMap<String, &Endpoint> = HashMap::new();
    for endpoint in &group.endpoints {
        missing.insert(identity(endpoint), endpoint);
    }
    let mut drafts: Vec<Draft> =
        mine.into_iter().map(|before| keep_wanted(before, &mut missing)).collect();
    let mut rest: Vec<Endpoint> = missing.into_values().cloned().collect();
    rest.sort_by(|one, other| one.addresses.cmp(&other.addresses));
    // New endpoints go first into slices that are written anyway.
    drafts.sort_by_key(|draft| !draft.changed);
    for draft in &mut drafts {
        let room = max.saturating_sub(draft.endpoints.len());
        // An unchanged slice is written only for what would otherwise need a new slice.
        if room > 0 && !rest.is_empty() {
            draft.endpoints.extend(rest.drain(..room.min(rest.len())));
            draft.changed = true;
        }
    }
    let mut kept = 0;
    for draft in drafts {
        let last_and_empty = group.endpoints.is_empty() && kept == 0;
        if draft.endpoints.is_empty() && !last_and_empty {
            plan.delete.push(draft.before);
            continue;
        }
        kept += 1;
        if draft.changed || !has_common(&draft.before, common) {
            let mut slice = (*draft.before).clone();
            set_common(&mut slice.metadata, common);
            slice.endpoints = Some(draft.endpoints);
            plan.update.push(slice);
        }
    }
    if kept == 0 && rest.is_empty() {
        plan.create.push(new_slice(group, Vec::new(), common));
    }
    for chunk in rest.chunks(max) {
        plan.create.push(new_slice(group, chunk.to_vec(), common));
    }
}

/// The slice with those of its endpoints that are still wanted, brought up to date.
fn keep_wanted(before: Arc<EndpointSlice>, missing: &mut HashMap<String, &Endpoint>) -> Draft {
    let mut endpoints = Vec::new();
    let mut changed = false;
    for present in before.endpoints.iter().flatten() {
        match missing.remove(&identity(present)) {
            Some(wanted) => {
                changed |= wanted != present;
                endpoints.push(wanted.clone());
            }
            None => changed = true,
        }
    }
    Draft { before, endpoints, changed }
}

fn identity(endpoint: &Endpoint) -> String {
    let reference = endpoint.target_ref.as_ref();
    let uid = reference.and_then(|reference| reference.uid.clone());
    format!("{}/{}", uid.unwrap_or_default(), endpoint.addresses.join(","))
}

fn new_slice(group: &Group, endpoints: Vec<Endpoint>, common: &Common) -> EndpointSlice {
    let mut metadata = ObjectMeta {
        generate_name: Some(format!("{}-", common.prefix)),
        namespace: Some(common.namespace.clone()),
        ..Default::default()
    };
    set_common(&mut metadata, common);
    EndpointSlice {
        metadata,
        address_type: group.address_type.clone(),
        ports: Some(group.ports.clone()),
        endpoints: Some(endpoints),
    }
}

fn has_common(slice: &EndpointSlice, common: &Common) -> bool {
    let metadata = &slice.metadata;
    let empty = BTreeMap::new();
    let mut annotations = metadata.annotations.clone().unwrap_or_default();
    // A new trigger time alone does not cause a write.
    annotations.remove(trigger_time::ANNOTATION);
    metadata.labels.as_ref().unwrap_or(&empty) == &common.labels
        && annotations == common.annotations
        && metadata.owner_references.as_deref() == Some(std::slice::from_ref(&common.owner))
}

fn set_common(metadata: &mut ObjectMeta, common: &Common) {
    metadata.labels = Some(common.labels.clone());
    let mut annotations = common.annotations.clone();
    if let Some(time) = &common.trigger_time {
        annotations.insert(trigger_time::ANNOTATION.into(), time.clone());
    }
    metadata.annotations = (!annotations.is_empty()).then_some(annotations);
    metadata.owner_references = Some(vec![common.owner.clone()]);
}

/// Reuses slices that would be deleted for the content of slices that would be created.
fn reuse_deleted(plan: &mut Plan) {
    let mut create = Vec::new();
    for new in plan.create.drain(..) {
        let same_type = |old: &Arc<EndpointSlice>| old.address_type == new.address_type;
        match plan.delete.iter().position(same_type) {
            None => create.push(new),
            Some(index) => {
                let mut reused = (*plan.delete.remove(index)).clone();
                reused.metadata.labels = new.metadata.labels;
                reused.metadata.annotations = new.metadata.annotations;
                reused.metadata.owner_references = new.metadata.owner_references;
                reused.ports = new.ports;
                reused.endpoints = new.endpoints;
                plan.update.push(reused);
            }
        }
    }
    plan.create = create;
}
