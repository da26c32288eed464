//! The snapshot from which queries are answered.
//!
//! It consists of shards that snapshots share: publishing a change copies only the one or two
//! affected shards, not ten thousand Services.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::net::IpAddr;
use std::sync::Arc;

use client::mirror::Name;

use crate::model::{Endpoint, Port, Service, Slice};

const SHARDS: usize = 64;

/// A sharded map; cloning it copies no entries.
#[derive(Clone, Debug)]
struct Shards<K, V>(Vec<Arc<HashMap<K, V>>>);

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Arc::new(HashMap::new())).collect())
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Shards<K, V> {
    fn shard<Q: Hash + ?Sized>(key: &Q) -> usize {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
        usize::try_from(hash % SHARDS as u64).expect("below the number of shards")
    }

    fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0[Self::shard(key)].get(key)
    }

    /// Sets an entry, or with `None` removes it.
    fn set(&mut self, key: K, value: Option<V>) {
        let shard = Arc::make_mut(&mut self.0[Self::shard(&key)]);
        match value {
            Some(value) => drop(shard.insert(key, value)),
            None => drop(shard.remove(&key)),
        }
    }
}

/// The records of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    ClusterIp { ips: Vec<IpAddr>, ports: Vec<Port> },
    Headless(Vec<Backend>),
    ExternalName(Box<str>),
}

/// An endpoint of a headless Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    /// The label of its name below the Service's.
    pub label: Box<str>,
    pub ip: IpAddr,
    pub ports: Vec<Port>,
}

/// The owner of an address: a Service, or one of its endpoints, given by its label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressOwner {
    pub service: Name,
    pub label: Option<Box<str>>,
}

/// The records of all Services.
#[derive(Clone, Debug, Default)]
pub struct Records {
    services: Shards<Name, Arc<Entry>>,
    owners: Shards<IpAddr, Arc<BTreeSet<AddressOwner>>>,
    /// The number of Services in each namespace.
    namespaces: Shards<Box<str>, usize>,
    /// The zone's serial number, incremented by every change.
    pub serial: u32,
}

impl Records {
    /// Empty records with an initial serial number, so that serial numbers increase across
    /// restarts.
    pub fn starting_at(serial: u32) -> Self {
        Self { serial, ..Self::default() }
    }

    /// The entry of `namespace/name`.
    pub fn service(&self, name: &str) -> Option<&Entry> {
        self.services.get(name).map(|entry| &**entry)
    }

    pub fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.get(namespace).is_some()
    }

    /// The owners of an address.
    pub fn owners(&self, ip: IpAddr) -> impl Iterator<Item = &AddressOwner> {
        self.owners.get(&ip).into_iter().flat_map(|owners| owners.iter())
    }

    /// Replaces the records of a Service.
    pub fn set(&mut self, name: &Name, entry: Option<Entry>) {
        let before = self.services.get(&**name).cloned();
        if before.as_deref() == entry.as_ref() {
            return;
        }
        self.serial = self.serial.wrapping_add(1);
        let namespace = name.split('/').next().unwrap_or_default();
        let count = self.namespaces.get(namespace).copied().unwrap_or(0);
        let count = count + usize::from(entry.is_some()) - usize::from(before.is_some());
        self.namespaces.set(namespace.into(), (count > 0).then_some(count));
        let held = |entry: Option<&Entry>| -> BTreeSet<(IpAddr, AddressOwner)> {
            entry.map(|entry| addresses(name, entry)).unwrap_or_default()
        };
        let (old, new) = (held(before.as_deref()), held(entry.as_ref()));
        for (ip, owner) in old.difference(&new) {
            self.change_owners(*ip, |owners| owners.remove(owner));
        }
        for (ip, owner) in new.difference(&old) {
            self.change_owners(*ip, |owners| owners.insert(owner.clone()));
        }
        self.services.set(name.clone(), entry.map(Arc::new));
    }

    fn change_owners(
        &mut self,
        ip: IpAddr,
        change: impl FnOnce(&mut BTreeSet<AddressOwner>) -> bool,
    ) {
        let mut owners = self.owners.get(&ip).cloned().unwrap_or_default();
        change(Arc::make_mut(&mut owners));
        self.owners.set(ip, (!owners.is_empty()).then_some(owners));
    }
}

fn addresses(name: &Name, entry: &Entry) -> BTreeSet<(IpAddr, AddressOwner)> {
    let owner =
        |label: Option<&str>| AddressOwner { service: name.clone(), label: label.map(Into::into) };
    match entry {
        Entry::ClusterIp { ips, .. } => ips.iter().map(|ip| (*ip, owner(None))).collect(),
        Entry::Headless(backends) => {
            let backends = backends.iter();
            backends.map(|backend| (backend.ip, owner(Some(&backend.label)))).collect()
        }
        Entry::ExternalName(_) => BTreeSet::new(),
    }
}

/// Builds the entry of a Service from its slices.
pub fn entry<'a>(service: &Service, slices: impl Iterator<Item = &'a Slice>) -> Entry {
    match service {
        Service::ClusterIp { ips, ports } => {
            Entry::ClusterIp { ips: ips.clone(), ports: ports.clone() }
        }
        Service::ExternalName(name) => Entry::ExternalName(name.clone()),
        Service::Headless => {
            let backends = slices.flat_map(|slice| {
                let backend = |endpoint: &Endpoint| Backend {
                    label: label(endpoint),
                    ip: endpoint.ip,
                    ports: slice.ports.clone(),
                };
                slice.endpoints.iter().map(backend)
            });
            let distinct: BTreeSet<Backend> = backends.collect();
            Entry::Headless(distinct.into_iter().collect())
        }
    }
}

/// The hostname if there is one, else the address with dashes.
fn label(endpoint: &Endpoint) -> Box<str> {
    match &endpoint.hostname {
        Some(hostname) => hostname.clone(),
        None => endpoint.ip.to_string().replace(['.', ':'], "-").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster_ip(ip: &str) -> Option<Entry> {
        Some(Entry::ClusterIp { ips: vec![ip.parse().unwrap()], ports: Vec::new() })
    }

    #[test]
    fn snapshots_do_not_see_later_changes() {
        let mut records = Records::starting_at(5);
        let (a, b): (Name, Name) = ("ns/a".into(), "ns/b".into());
        records.set(&a, cluster_ip("10.0.0.1"));
        records.set(&b, cluster_ip("10.0.0.1"));
        let before = records.clone();
        let ip = "10.0.0.1".parse().unwrap();
        assert_eq!((before.serial, before.owners(ip).count()), (7, 2));
        records.set(&a, cluster_ip("10.0.0.2"));
        records.set(&b, None);
        assert_eq!(before.owners(ip).count(), 2);
        assert_eq!(records.owners(ip).count(), 0);
        assert!(records.has_namespace("ns"));
        records.set(&a, None);
        assert!(!records.has_namespace("ns") && before.has_namespace("ns"));
        records.set(&a, None);
        assert_eq!(records.serial, 10, "a no-op does not increment the serial number");
    }
}
