//! Selects the endpoints of a service port for this node, and assigns them to slots.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::model::{EndpointSlice, ServicePort, SliceEndpoint};
use crate::nft::Family;
use crate::table::Endpoint;

/// The endpoints of a service port in one family, without duplicates: while an endpoint moves
/// between slices it is in both, and the ready one counts.
pub(super) struct Candidates<'a>(BTreeMap<Endpoint, &'a SliceEndpoint>);

impl<'a> Candidates<'a> {
    pub(super) fn of(family: Family, port: &ServicePort, slices: &[&'a EndpointSlice]) -> Self {
        let mut found: BTreeMap<Endpoint, &SliceEndpoint> = BTreeMap::new();
        for slice in slices.iter().filter(|slice| slice.family == family) {
            let same = |other: &&crate::model::SlicePort| {
                other.name == port.name && other.protocol == port.protocol
            };
            for slice_port in slice.ports.iter().filter(same) {
                for endpoint in &slice.endpoints {
                    let key = Endpoint { ip: endpoint.ip, port: slice_port.port };
                    let best = found.entry(key).or_insert(endpoint);
                    if rank(endpoint) > rank(best) {
                        *best = endpoint;
                    }
                }
            }
        }
        Self(found)
    }

    /// The ready endpoints, or if there are none, the terminating ones that are still serving.
    fn usable(
        &self,
        select: impl Fn(&SliceEndpoint) -> bool,
    ) -> Vec<(Endpoint, &'a SliceEndpoint)> {
        let of_rank = |wanted: u8| -> Vec<_> {
            let selected =
                self.0.iter().filter(|(_, endpoint)| rank(endpoint) == wanted && select(endpoint));
            selected.map(|(key, endpoint)| (*key, *endpoint)).collect()
        };
        let ready = of_rank(READY);
        match ready.is_empty() {
            true => of_rank(SERVING),
            false => ready,
        }
    }

    /// The endpoints for traffic to any node: narrowed by hints if all endpoints have hints and at
    /// least one applies to this node.
    pub(super) fn for_cluster(&self, zone: Option<&str>) -> Vec<Endpoint> {
        let usable = self.usable(|_| true);
        let narrowed = |select: &dyn Fn(&SliceEndpoint) -> Option<bool>| -> Option<Vec<Endpoint>> {
            let hints: Option<Vec<bool>> =
                usable.iter().map(|(_, endpoint)| select(endpoint)).collect();
            let chosen = usable.iter().zip(hints?).filter(|(_, wanted)| *wanted);
            let chosen: Vec<_> = chosen.map(|((key, _), _)| *key).collect();
            (!chosen.is_empty()).then_some(chosen)
        };
        let by_zone = |endpoint: &SliceEndpoint| {
            let hinted = zone.filter(|_| !endpoint.for_zones.is_empty())?;
            Some(endpoint.for_zones.iter().any(|hint| **hint == *hinted))
        };
        narrowed(&|endpoint| endpoint.for_this_node)
            .or_else(|| narrowed(&by_zone))
            .unwrap_or_else(|| usable.iter().map(|(key, _)| *key).collect())
    }

    /// The endpoints for traffic that must stay on this node.
    pub(super) fn for_local(&self) -> Vec<Endpoint> {
        let usable = self.usable(|endpoint| endpoint.local);
        usable.into_iter().map(|(key, _)| key).collect()
    }

    /// The addresses of all endpoints on this node, whatever their state, since established
    /// connections continue.
    pub(super) fn local_ips(&self) -> Vec<IpAddr> {
        let local = self.0.iter().filter(|(_, endpoint)| endpoint.local);
        local.map(|(key, _)| key.ip).collect()
    }
}

const READY: u8 = 2;
const SERVING: u8 = 1;

fn rank(endpoint: &SliceEndpoint) -> u8 {
    match endpoint {
        SliceEndpoint { ready: true, .. } => READY,
        SliceEndpoint { serving: true, terminating: true, .. } => SERVING,
        _ => 0,
    }
}

/// Assigns the endpoints to slots `0..wanted.len()`. Each keeps its previous slot if that still
/// exists, so that a change of one endpoint changes few elements. `wanted` is sorted and free of
/// duplicates.
pub(super) fn slots(wanted: Vec<Endpoint>, at: impl Fn(u32) -> Option<Endpoint>) -> Vec<Endpoint> {
    let count =
        u32::try_from(wanted.len()).expect("a Service has fewer than four billion endpoints");
    let mut waiting: std::collections::BTreeSet<Endpoint> = wanted.iter().copied().collect();
    let kept: Vec<Option<Endpoint>> =
        (0..count).map(|slot| at(slot).filter(|endpoint| waiting.remove(endpoint))).collect();
    let mut waiting = waiting.into_iter();
    let filled = kept.into_iter().map(|kept| kept.or_else(|| waiting.next()));
    filled.collect::<Option<_>>().expect("there are as many endpoints as slots")
}
