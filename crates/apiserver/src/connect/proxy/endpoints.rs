//! Where requests to a Service can go: to the ready endpoints of its EndpointSlices (upstream's
//! `ResolveEndpoint`, `k8s.io/apiserver/pkg/util/proxy`).

use std::collections::BTreeMap;

use api::Kind;
use api::labels::Selector;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{self as discovery, EndpointSlice};
use parking_lot::Mutex;

use crate::cache::{Cache, Filter};

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The EndpointSlices of a Service.
pub fn slices(namespace: &str, service: &str) -> Filter {
    let mut filter = Filter::everything(EndpointSlice::ROW, namespace);
    let only = BTreeMap::from([(SERVICE_NAME.to_owned(), service.to_owned())]);
    filter.labels = Selector::from_map(&only);
    filter
}

/// Reads them from the cache.
pub fn read_slices(cache: &Cache, namespace: &str, service: &str) -> Vec<EndpointSlice> {
    let found = cache.resource(EndpointSlice::ROW).list(&slices(namespace, service));
    found.iter().filter_map(|one| EndpointSlice::decode(&one.json).ok()).collect()
}

/// Where a connection can go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A name outside, and its port.
    Host(String, u16),
    Endpoint(Endpoint),
}

/// One endpoint of a Service's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: String,
    pub port: u16,
    /// In the Service's namespace.
    pub pod: Option<String>,
}

/// The ready endpoints of a Service's port: of its primary family, if there are any.
pub fn ready(service: &Service, slices: &[EndpointSlice], port_name: &str) -> Vec<Endpoint> {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.as_ref());
    let primary = families.and_then(|all| all.first());
    let serving = |is_wanted: &dyn Fn(&str) -> bool| -> Vec<Endpoint> {
        let wanted = slices.iter().filter(|slice| is_wanted(&slice.address_type));
        wanted.flat_map(|slice| of_slice(slice, port_name)).collect()
    };
    let preferred = serving(&|family| primary.is_some_and(|primary| primary == family));
    match preferred.is_empty() {
        true => serving(&|family| matches!(family, "IPv4" | "IPv6")),
        false => preferred,
    }
}

/// Whether an endpoint is to be used.
pub fn is_ready(endpoint: &discovery::Endpoint) -> bool {
    endpoint.conditions.as_ref().is_none_or(|all| all.ready.unwrap_or(true))
}

fn of_slice<'a>(
    slice: &'a EndpointSlice,
    port_name: &str,
) -> impl Iterator<Item = Endpoint> + use<'a> {
    let mut ports = slice.ports.iter().flatten();
    let named = ports.find(|port| port.name.as_deref() == Some(port_name) && port.port.is_some());
    let port = named.and_then(|port| u16::try_from(port.port?).ok());
    let endpoints = slice.endpoints.iter().flatten().filter(|endpoint| is_ready(endpoint));
    endpoints.filter_map(move |endpoint| {
        let target = endpoint.target_ref.as_ref();
        let pod = target.filter(|target| target.kind.as_deref() == Some("Pod"));
        Some(Endpoint {
            address: endpoint.addresses.first()?.clone(),
            port: port?,
            pod: pod.and_then(|target| target.name.clone()),
        })
    })
}

/// Unused connections, by where they go.
pub struct Pool<C>(Mutex<Vec<(Destination, C)>>);

impl<C> Default for Pool<C> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<C> Pool<C> {
    /// A connection to a destination, the one that was used last. Those to what is no longer among
    /// `ready` are closed.
    pub fn take(&self, ready: &[Destination], to: &Destination) -> Option<C> {
        let mut all = self.0.lock();
        all.retain(|(destination, _)| ready.contains(destination));
        let at = all.iter().rposition(|(destination, _)| destination == to)?;
        Some(all.remove(at).1)
    }

    /// Keeps a connection, of at most `max`; the one that has not been used for longest goes.
    pub fn keep(&self, to: Destination, connection: C, max: usize) {
        let mut all = self.0.lock();
        all.push((to, connection));
        if all.len() > max {
            all.remove(0);
        }
    }

    /// Closes those that are not good any longer.
    pub fn retain(&self, is_good: impl Fn(&C) -> bool) {
        self.0.lock().retain(|(_, connection)| is_good(connection));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn found(families: &Value, slices: Value, port: &str) -> Vec<(String, u16, Option<String>)> {
        let service = json!({"metadata": {}, "spec": {"ipFamilies": families}});
        let service: Service = serde_json::from_value(service).unwrap();
        let slices: Vec<EndpointSlice> = serde_json::from_value(slices).unwrap();
        let ready = ready(&service, &slices, port);
        ready.into_iter().map(|one| (one.address, one.port, one.pod)).collect()
    }

    #[test]
    fn ready_endpoints_of_the_port_and_of_the_primary_family() {
        let slice = |family: &str, ports: Value, endpoints: Value| json!({"metadata": {}, "addressType": family, "ports": ports, "endpoints": endpoints});
        let ports = json!([{"name": "a", "port": 1}, {"name": "b", "port": 2}, {"name": "none"}]);
        let four = slice(
            "IPv4",
            ports.clone(),
            json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": false}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": true},
                    "targetRef": {"kind": "Pod", "name": "p"}},
                {"addresses": ["10.0.0.3", "10.0.0.4"], "targetRef": {"kind": "Node", "name": "n"}}]),
        );
        let six = slice("IPv6", ports.clone(), json!([{"addresses": ["fd00::1"]}]));
        let name = slice("FQDN", ports, json!([{"addresses": ["example.com"]}]));
        let (both, none) = (json!([four, six, name]), Value::Null);
        let fours = |port: u16| {
            let pod = Some("p".to_owned());
            vec![("10.0.0.2".to_owned(), port, pod), ("10.0.0.3".to_owned(), port, None)]
        };
        let sixes = |port: u16| vec![("fd00::1".to_owned(), port, None)];
        assert_eq!(found(&json!(["IPv4", "IPv6"]), both.clone(), "a"), fours(1));
        assert_eq!(found(&json!(["IPv6", "IPv4"]), both.clone(), "b"), sixes(2));
        assert_eq!(found(&json!(["IPv6"]), json!([four]), "b"), fours(2));
        assert_eq!(found(&none, both.clone(), "b"), [fours(2), sixes(2)].concat());
        assert_eq!(found(&none, both.clone(), "c"), vec![]);
        assert_eq!(found(&none, both, "none"), vec![]);
    }

    #[test]
    fn connections_are_kept_while_their_endpoints_are_ready() {
        let at = |last: u8| {
            let address = format!("10.0.0.{last}");
            Destination::Endpoint(Endpoint { address, port: 1, pod: None })
        };
        let pool = Pool::default();
        for (to, connection) in [(1, "a"), (2, "b"), (1, "c"), (3, "d")] {
            pool.keep(at(to), connection, 3);
        }
        let all = [at(1), at(2), at(3)];
        assert_eq!(pool.take(&all, &at(1)), Some("c"), "the oldest has gone");
        assert_eq!(pool.take(&all, &at(1)), None);
        assert_eq!(pool.take(&[at(1), at(3)], &at(3)), Some("d"));
        assert_eq!(pool.take(&all, &at(2)), None, "it was not ready for a while");
        pool.keep(at(1), "e", 3);
        pool.retain(|connection| *connection != "e");
        assert_eq!(pool.take(&all, &at(1)), None);
    }
}
