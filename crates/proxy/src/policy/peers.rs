//! The pods of the cluster as peers of groups.
//!
//! Pods of a namespace with the same labels are a class. Which rules of which groups select a class
//! is kept, so that most changes of pods need no evaluation of selectors.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use client::mirror::Name;

use super::groups::{Group, GroupKey, Groups};
use super::model::{Peer, Rule};
use super::namespace_of;
use super::ports::PortSet;
use crate::model::{Labels, NamedPort, Pod};
use crate::table::Direction;

/// The number of the set of all ports.
const ALL_PORTS: u32 = 0;

#[derive(Debug, PartialEq, Eq, Hash)]
struct ClassKey {
    namespace: Arc<str>,
    labels: Labels,
}

#[derive(Debug, Default)]
struct Class {
    pods: HashSet<Name>,
    /// The rules of each group that may concern the class, by position.
    matches: BTreeMap<u32, Vec<Match>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Match {
    rule: usize,
    /// Whether a selector selects the class; otherwise the rule only concerns it for its named
    /// ports.
    selected: bool,
}

#[derive(Debug)]
struct PeerPod {
    class: Arc<ClassKey>,
    ips: Vec<IpAddr>,
    named_ports: Vec<NamedPort>,
}

/// What a peer of a group may use.
#[derive(Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Numbers of sets of ports of the group.
    pub sets: BTreeSet<u32>,
    /// The ports of the peer that egress rules name.
    pub named: PortSet,
}

#[derive(Debug, Default)]
pub struct Peers {
    namespaces: HashMap<Arc<str>, Labels>,
    pods: HashMap<Name, PeerPod>,
    by_ip: HashMap<IpAddr, BTreeSet<Name>>,
    classes: HashMap<Arc<ClassKey>, Class>,
    by_namespace: HashMap<Arc<str>, HashSet<Arc<ClassKey>>>,
}

/// Groups with the peers that they have gained, lost, or that may use other ports.
type Affected = BTreeSet<(u32, IpAddr)>;

impl Peers {
    /// Sets a pod of the cluster. One without addresses cannot be a peer.
    pub fn set_pod(&mut self, name: &Name, pod: Option<&Pod>, groups: &Groups) -> Affected {
        let mut affected = Affected::new();
        if let Some(before) = self.pods.remove(name) {
            self.affect(&before, &mut affected);
            self.forget(name, &before);
        }
        let Some(pod) = pod.filter(|pod| !pod.ips.is_empty()) else {
            return affected;
        };
        let namespace = namespace_of(name);
        let key = Arc::new(ClassKey { namespace, labels: pod.labels.clone() });
        let class = self.class(key, groups);
        if let Some(found) = self.classes.get_mut(&class) {
            found.pods.insert(name.clone());
        }
        for ip in &pod.ips {
            self.by_ip.entry(*ip).or_default().insert(name.clone());
        }
        let named_ports = pod.named_ports.clone();
        let pod = PeerPod { class, ips: pod.ips.clone(), named_ports };
        self.affect(&pod, &mut affected);
        self.pods.insert(name.clone(), pod);
        affected
    }

    fn affect(&self, pod: &PeerPod, affected: &mut Affected) {
        let groups =
            self.classes.get(&pod.class).into_iter().flat_map(|class| class.matches.keys());
        affected.extend(groups.flat_map(|group| pod.ips.iter().map(|ip| (*group, *ip))));
    }

    fn forget(&mut self, name: &Name, pod: &PeerPod) {
        for ip in &pod.ips {
            if let Some(names) = self.by_ip.get_mut(ip) {
                names.remove(name);
                if names.is_empty() {
                    self.by_ip.remove(ip);
                }
            }
        }
        let Some(class) = self.classes.get_mut(&pod.class) else {
            return;
        };
        class.pods.remove(name);
        if class.pods.is_empty() {
            self.classes.remove(&pod.class);
            let namespace = &pod.class.namespace;
            if let Some(classes) = self.by_namespace.get_mut(namespace) {
                classes.remove(&pod.class);
                if classes.is_empty() {
                    self.by_namespace.remove(namespace);
                }
            }
        }
    }

    /// The class with that key, matched with all groups if it is new.
    fn class(&mut self, key: Arc<ClassKey>, groups: &Groups) -> Arc<ClassKey> {
        if let Some((known, _)) = self.classes.get_key_value(&key) {
            return known.clone();
        }
        let matches = self.matches(&key, groups);
        self.classes.insert(key.clone(), Class { pods: HashSet::new(), matches });
        self.by_namespace.entry(key.namespace.clone()).or_default().insert(key.clone());
        key
    }

    fn matches(&self, class: &ClassKey, groups: &Groups) -> BTreeMap<u32, Vec<Match>> {
        let labels = self.namespaces.get(&class.namespace);
        let found = groups.iter().map(|(id, group)| (id, matches(&group.key, class, labels)));
        found.filter(|(_, matches)| !matches.is_empty()).collect()
    }

    /// Sets the labels of a namespace, on which the classes of its pods depend.
    pub fn set_namespace(
        &mut self,
        name: &str,
        labels: Option<Labels>,
        groups: &Groups,
    ) -> Affected {
        match labels {
            Some(labels) => drop(self.namespaces.insert(name.into(), labels)),
            None => drop(self.namespaces.remove(name)),
        }
        let classes: Vec<Arc<ClassKey>> =
            self.by_namespace.get(name).into_iter().flatten().cloned().collect();
        let mut affected = Affected::new();
        for key in classes {
            let after = self.matches(&key, groups);
            let Some(class) = self.classes.get_mut(&key) else {
                continue;
            };
            let before = std::mem::replace(&mut class.matches, after);
            let class = &self.classes[&key];
            let ids = before.keys().chain(class.matches.keys());
            for id in ids.filter(|id| before.get(id) != class.matches.get(id)) {
                self.affect_class(class, *id, &mut affected);
            }
        }
        affected
    }

    fn affect_class(&self, class: &Class, group: u32, affected: &mut Affected) {
        let pods = class.pods.iter().filter_map(|name| self.pods.get(name));
        affected.extend(pods.flat_map(|pod| &pod.ips).map(|ip| (group, *ip)));
    }

    /// Matches a new group with all classes.
    pub fn add_group(&mut self, id: u32, groups: &Groups) -> Affected {
        let mut affected = Affected::new();
        let Some(group) = groups.get(id) else {
            return affected;
        };
        let mut found = Vec::new();
        for key in self.classes.keys() {
            let matches = matches(&group.key, key, self.namespaces.get(&key.namespace));
            if !matches.is_empty() {
                found.push((key.clone(), matches));
            }
        }
        for (key, matches) in found {
            if let Some(class) = self.classes.get_mut(&key) {
                class.matches.insert(id, matches);
            }
            self.affect_class(&self.classes[&key], id, &mut affected);
        }
        affected
    }

    /// Removes a group from all classes.
    pub fn remove_group(&mut self, id: u32) -> Affected {
        let mut affected = Affected::new();
        let mut touched = Vec::new();
        for (key, class) in &mut self.classes {
            if class.matches.remove(&id).is_some() {
                touched.push(key.clone());
            }
        }
        for key in touched {
            self.affect_class(&self.classes[&key], id, &mut affected);
        }
        affected
    }

    /// Forgets everything.
    pub fn clear(&mut self) -> Affected {
        let mut affected = Affected::new();
        for pod in self.pods.values() {
            self.affect(pod, &mut affected);
        }
        *self = Self::default();
        affected
    }

    /// What the pods with an address may use as peers of the group.
    pub fn allowed(&self, id: u32, group: &Group, ip: IpAddr) -> Allowed {
        let mut sets = BTreeSet::new();
        let mut named = Vec::new();
        for pod in self.by_ip.get(&ip).into_iter().flatten().filter_map(|name| self.pods.get(name))
        {
            let matches = self.classes.get(&pod.class).and_then(|class| class.matches.get(&id));
            let mut matches = matches.into_iter().flatten().peekable();
            for (position, rule) in group.key.rules().enumerate() {
                let Some(found) = matches.next_if(|found| found.rule == position) else {
                    continue;
                };
                if found.selected {
                    sets.extend(group.rules[position]);
                }
                let is_peer = found.selected
                    || rule.peers.is_none()
                    || rule.peers.iter().flatten().any(|peer| peer.contains(ip));
                if is_peer && group.key.direction == Direction::Egress {
                    named.push(rule.resolve_names(&pod.named_ports));
                }
            }
        }
        if sets.contains(&ALL_PORTS) {
            return Allowed { sets: [ALL_PORTS].into(), named: PortSet::none() };
        }
        Allowed { sets, named: PortSet::union(&named) }
    }
}

/// The rules of a group that may concern a class. `labels` are those of the namespace, if known.
fn matches(group: &GroupKey, class: &ClassKey, labels: Option<&Labels>) -> Vec<Match> {
    let selects = |peer: &Peer| match peer {
        Peer::Block { .. } => false,
        Peer::Pods { namespaces, pods } => {
            let namespace = match namespaces {
                None => group.namespace == class.namespace,
                Some(selector) => labels.is_some_and(|labels| selector.matches(Some(labels))),
            };
            namespace && pods.matches(Some(&class.labels))
        }
    };
    let named = |rule: &Rule| {
        let anyone =
            |peers: &Vec<Peer>| peers.iter().any(|peer| matches!(peer, Peer::Block { .. }));
        group.direction == Direction::Egress
            && rule.has_named_ports()
            && rule.peers.as_ref().is_none_or(anyone)
    };
    let check = |(position, rule): (usize, &Rule)| {
        let selected = rule.peers.iter().flatten().any(selects);
        (selected || named(rule)).then_some(Match { rule: position, selected })
    };
    group.rules().enumerate().filter_map(check).collect()
}
