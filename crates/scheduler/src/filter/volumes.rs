//! Filters by volumes: VolumeRestrictions, NodeVolumeLimits, VolumeBinding, VolumeZone.

use std::collections::{HashMap, HashSet};

use roaring::RoaringBitmap;

use super::{Code, Filtered};
use crate::plugin::Plugin;
use crate::prepare::Prepared;
use crate::snapshot::{Attached, Snapshot, TOPOLOGY_LABELS};

/// VolumeRestrictions: disks that pods of one node cannot share, and claims of a single pod.
pub fn restrictions(snapshot: &Snapshot, prepared: &Prepared, filtered: &mut Filtered) {
    let own = &prepared.pod.disks;
    if !own.is_empty() {
        let held = snapshot.disks().iter();
        let conflicts: RoaringBitmap = held
            .filter(|(disk, _)| own.iter().any(|own| own.conflicts_with(disk)))
            .map(|(_, node)| *node)
            .collect();
        let reason = "node(s) had no available disk";
        filtered.reject(&conflicts, Plugin::VolumeRestrictions, reason, Code::Unschedulable);
    }
    let in_use = |claim: &String| snapshot.claim_users().contains_key(claim);
    if prepared.storage.exclusive.iter().any(in_use) {
        let reason = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
        filtered.reject(snapshot.nodes(), Plugin::VolumeRestrictions, reason, Code::Unschedulable);
    }
}

/// NodeVolumeLimits: how many volumes the CSI drivers of a node can attach. Volumes that pods of the
/// node use already cost nothing. What is attached to it counts, whether or not a pod uses it.
pub fn limits(snapshot: &Snapshot, prepared: &Prepared, filtered: &mut Filtered) {
    let own = &prepared.storage.attached;
    let storage = &snapshot.storage;
    if own.is_empty() || !storage.has_limits() {
        return;
    }
    let of_own_driver = |volume: &Attached| own.iter().any(|own| own.driver == volume.driver);
    let mut there: HashMap<u32, HashSet<Attached>> = HashMap::new();
    for (claim, users) in snapshot.claim_users() {
        let attached = storage.attached(claim);
        if let Some(volume) = attached.filter(of_own_driver) {
            for node in users.keys().filter(|node| filtered.nodes.contains(**node)) {
                there.entry(*node).or_default().insert(volume.clone());
            }
        }
    }
    for (volume, users) in snapshot.inline_users().iter().filter(|(one, _)| of_own_driver(one)) {
        for node in users.keys().filter(|node| filtered.nodes.contains(**node)) {
            there.entry(*node).or_default().insert(volume.clone());
        }
    }
    let none = HashSet::new();
    let is_full = |node: &u32| {
        let name = snapshot.name(*node);
        let used: HashSet<(&str, &str)> = {
            let there = there.get(node).unwrap_or(&none).iter();
            there.filter(|volume| storage.counts(&name, volume)).map(Attached::id).collect()
        };
        let new = own.iter().filter(|volume| storage.counts(&name, volume)).map(Attached::id);
        let new: HashSet<(&str, &str)> = new.filter(|one| !used.contains(one)).collect();
        let attached = storage.attached_to(&name);
        new.iter().any(|(driver, _)| {
            let Some(limit) = storage.limit(&name, driver) else { return false };
            let of = |volumes: &mut dyn Iterator<Item = &(&str, &str)>| {
                volumes.filter(|(other, _)| other == driver).count()
            };
            let all =
                of(&mut used.iter()) + of(&mut attached.difference(&used)) + of(&mut new.iter());
            i64::try_from(all).unwrap_or(i64::MAX) > limit
        })
    };
    let full: RoaringBitmap = filtered.nodes.iter().filter(is_full).collect();
    let reason = "node(s) exceed max volume count";
    filtered.reject(&full, Plugin::NodeVolumeLimits, reason, Code::Unschedulable);
}

/// VolumeBinding: the node affinity of bound volumes, and where unbound claims find one.
pub fn binding(snapshot: &Snapshot, prepared: &Prepared, filtered: &mut Filtered) {
    for terms in &prepared.volumes.node_terms {
        let allowed = snapshot.matching_any(terms);
        let reason = "node(s) didn't match PersistentVolume's node affinity";
        filtered.keep(&allowed, Plugin::VolumeBinding, reason, Code::Unresolvable);
    }
    for claim in &prepared.volumes.unbound_nodes {
        let (found, large) = claim.filter(snapshot);
        let reason = "node(s) didn't find available persistent volumes to bind";
        filtered.keep(&found, Plugin::VolumeBinding, reason, Code::Unresolvable);
        let reason = "node(s) did not have enough free storage";
        filtered.keep(&large, Plugin::VolumeBinding, reason, Code::Unresolvable);
    }
}

/// VolumeZone: zones and regions in the labels of bound volumes. A node without any such label is
/// in a cluster without zones.
pub fn zone(snapshot: &Snapshot, prepared: &Prepared, filtered: &mut Filtered) {
    let zones = &prepared.storage.zones;
    if zones.is_empty() {
        return;
    }
    let mut labelled = RoaringBitmap::new();
    for (label, _) in TOPOLOGY_LABELS {
        labelled |= snapshot.with_label(label);
    }
    let mut elsewhere = RoaringBitmap::new();
    for zone in zones {
        let within = |label: &str| {
            let column = snapshot.label(label);
            zone.values
                .iter()
                .filter_map(|value| column?.with_value(value))
                .fold(RoaringBitmap::new(), |all, nodes| all | nodes)
        };
        let own = within(zone.label) | (within(zone.or_label) - snapshot.with_label(zone.label));
        elsewhere |= &labelled - own;
    }
    let reason = "node(s) had no available volume zone";
    filtered.reject(&elsewhere, Plugin::VolumeZone, reason, Code::Unresolvable);
}
