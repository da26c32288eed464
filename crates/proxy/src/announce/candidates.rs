//! The addresses that this node could announce, as far as the objects decide. Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use client::mirror::Name;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::ObjectReference;

use crate::model::{EndpointSlice, Service};
use crate::observe::State;
use crate::plan::{Owner, can_serve};

/// A Service behind an address.
#[derive(Clone, Debug, PartialEq)]
struct Balanced {
    addresses: Vec<IpAddr>,
    /// Whether this node can serve its traffic.
    serves: bool,
    reference: ObjectReference,
}

/// What is to be announced: addresses, with the Services behind them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    pub addresses: BTreeMap<IpAddr, Vec<ObjectReference>>,
    /// Changes when the interfaces may have changed.
    pub links: u64,
}

/// The Services with addresses to announce.
#[derive(Debug, Default)]
pub struct Candidates {
    /// The pool: other addresses of load balancers are announced by others.
    ranges: Vec<IpNet>,
    services: HashMap<Name, Balanced>,
    links: u64,
    excluded: bool,
    /// Whether the result may have changed since it was taken.
    changed: bool,
}

impl Candidates {
    pub fn new(ranges: Vec<IpNet>) -> Self {
        Self { ranges, ..Self::default() }
    }

    /// Takes over what has changed of the owners.
    pub fn update<'a>(&mut self, state: &State, owners: impl IntoIterator<Item = &'a Owner>) {
        for owner in owners {
            let Owner::Service(name) = owner else {
                continue;
            };
            let service = state.service(name);
            let after = service.and_then(|service| self.balanced(service, &state.slices(name)));
            if self.services.get(name) == after.as_ref() {
                continue;
            }
            self.changed = true;
            match after {
                Some(balanced) => drop(self.services.insert(name.clone(), balanced)),
                None => drop(self.services.remove(name)),
            }
        }
    }

    /// The interfaces may have changed.
    pub fn links_changed(&mut self) {
        self.links += 1;
        self.changed = true;
    }

    /// What this node can announce, if that may have changed; nothing if it is `excluded`.
    pub fn take(&mut self, excluded: bool) -> Option<Wanted> {
        let changed = std::mem::take(&mut self.changed) || self.excluded != excluded;
        self.excluded = excluded;
        changed.then(|| self.wanted())
    }

    fn wanted(&self) -> Wanted {
        let mut addresses: BTreeMap<IpAddr, Vec<&Balanced>> = BTreeMap::new();
        for service in self.services.values().filter(|_| !self.excluded) {
            for address in &service.addresses {
                addresses.entry(*address).or_default().push(service);
            }
        }
        // Services that share an address are on the same nodes, but their endpoints may differ for
        // a moment.
        addresses.retain(|_, services| services.iter().all(|service| service.serves));
        let references = |services: Vec<&Balanced>| {
            let mut all: Vec<_> = services.iter().map(|one| one.reference.clone()).collect();
            all.sort_by(|one, other| {
                (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name))
            });
            all
        };
        let named = addresses.into_iter().map(|(ip, services)| (ip, references(services)));
        Wanted { addresses: named.collect(), links: self.links }
    }

    fn balanced(&self, service: &Service, slices: &[&EndpointSlice]) -> Option<Balanced> {
        let uid = service.load_balancer_uid.as_ref()?;
        let ours = |ip: &&IpAddr| self.ranges.iter().any(|range| range.contains(*ip));
        let addresses: Vec<IpAddr> =
            service.load_balancer_ips.iter().filter(ours).copied().collect();
        let reference = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Service".to_owned()),
            namespace: Some(service.namespace.to_string()),
            name: Some(service.name.to_string()),
            uid: Some(uid.to_string()),
            ..ObjectReference::default()
        };
        let serves = !service.external_local || can_serve(slices);
        (!addresses.is_empty()).then_some(Balanced { addresses, serves, reference })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SliceEndpoint;
    use crate::nft::Family;
    use crate::observe::{Event, Stale};
    use crate::policy::observe::Demand;
    use client::informer;

    fn service(name: &str, ips: &[&str], local: bool) -> Service {
        Service {
            namespace: "ns".into(),
            name: name.into(),
            load_balancer_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            load_balancer_uid: Some(format!("uid-{name}").into()),
            external_local: local,
            ..Service::default()
        }
    }

    fn slice(service: &str, local: bool) -> EndpointSlice {
        EndpointSlice {
            service: format!("ns/{service}").into(),
            family: Family::V4,
            ports: Vec::new(),
            endpoints: vec![SliceEndpoint {
                ip: "10.244.0.1".parse().unwrap(),
                ready: true,
                serving: true,
                terminating: false,
                local,
                for_this_node: None,
                for_zones: Box::default(),
            }],
        }
    }

    fn shown(wanted: &Wanted) -> Vec<String> {
        let name = |reference: &ObjectReference| reference.name.clone().unwrap();
        let line = |(ip, services): (&IpAddr, &Vec<ObjectReference>)| {
            format!("{ip} {}", services.iter().map(name).collect::<Vec<_>>().join(" "))
        };
        wanted.addresses.iter().map(line).collect()
    }

    #[test]
    fn a_node_can_announce_what_it_can_serve() {
        let (mut state, mut stale) = (State::new(Demand::new(None)), Stale::default());
        let mut candidates = Candidates::new(vec!["192.0.2.0/24".parse().unwrap()]);
        let mut put = |candidates: &mut Candidates, service: Service| {
            let name: Name = format!("ns/{}", service.name).into();
            state.take(Event::Service(informer::Event::Apply((name, service))), &mut stale);
            candidates.update(&state, &std::mem::take(&mut stale).owners);
        };
        put(&mut candidates, service("web", &["192.0.2.1", "10.0.0.7"], false));
        put(&mut candidates, service("shares", &["192.0.2.1"], false));
        put(&mut candidates, service("local", &["192.0.2.2"], true));
        let mut other = service("other", &["192.0.2.3"], false);
        other.load_balancer_uid = None;
        put(&mut candidates, other);
        assert_eq!(shown(&candidates.take(false).unwrap()), ["192.0.2.1 shares web"]);
        assert_eq!(candidates.take(false), None, "nothing has changed");
        assert!(shown(&candidates.take(true).unwrap()).is_empty());

        let mut at = |candidates: &mut Candidates, local: bool| {
            let slice = ("ns/local-1".into(), Some(slice("local", local)));
            state.take(Event::Slice(informer::Event::Apply(slice)), &mut stale);
            candidates.update(&state, &std::mem::take(&mut stale).owners);
        };
        at(&mut candidates, true);
        let before = candidates.take(false).unwrap();
        assert_eq!(shown(&before), ["192.0.2.1 shares web", "192.0.2.2 local"]);
        at(&mut candidates, false);
        assert_eq!(shown(&candidates.take(false).unwrap()), ["192.0.2.1 shares web"]);
        candidates.links_changed();
        assert_ne!(candidates.take(false).unwrap().links, before.links);
    }
}
