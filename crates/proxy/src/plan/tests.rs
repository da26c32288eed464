use std::collections::{BTreeMap, HashMap};

use client::mirror::Name;
use proptest::prelude::*;

use super::*;
use crate::model::{HostPort, SliceEndpoint, SlicePort};
use crate::table::Protocol;

fn context() -> Context {
    Context { families: vec![Family::V4], zone: Some("a".into()), ..Context::default() }
}

fn service(change: impl FnOnce(&mut Service)) -> Service {
    let port =
        ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: 80, node_port: None };
    let mut service = Service {
        namespace: "default".into(),
        name: "web".into(),
        cluster_ips: vec!["10.96.0.1".parse().unwrap()],
        ports: vec![port],
        ..Service::default()
    };
    change(&mut service);
    service
}

/// `states` has one letter per endpoint 10.244.0.1, .2 etc.: `r`eady, `s`erving while terminating,
/// `t`erminated; upper case if on this node.
fn slice(states: &str) -> EndpointSlice {
    let endpoint = |(n, state): (usize, char)| {
        let letter = state.to_ascii_lowercase();
        SliceEndpoint {
            ip: format!("10.244.0.{}", n + 1).parse().unwrap(),
            ready: letter == 'r',
            serving: letter != 't',
            terminating: letter != 'r',
            local: state.is_ascii_uppercase(),
            for_this_node: None,
            for_zones: Box::default(),
        }
    };
    EndpointSlice {
        service: "default/web".into(),
        family: Family::V4,
        ports: vec![SlicePort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: states.chars().enumerate().map(endpoint).collect(),
    }
}

/// One line per element: `map key -> data`.
fn shown(elements: &Elements) -> Vec<String> {
    let target = |target: &Target| match target {
        Target::Frontend(frontend) => format!("{}:{}", frontend.ip, frontend.port),
        Target::NodePort(_, port) => format!("*:{port}"),
    };
    let line = |(id, data): &(ElementId, Data)| {
        let key = match &id.key {
            Key::Target(to) => target(to),
            Key::Slot(to, slot) if *slot >= LOCAL_SLOTS => {
                format!("{} local {}", target(to), slot - LOCAL_SLOTS)
            }
            Key::Slot(to, slot) => format!("{} {slot}", target(to)),
            Key::Client(to, slot, ip) => format!("{} {slot} {ip}", target(to)),
            Key::Address(ip) | Key::Pair(ip) => ip.to_string(),
            Key::Range(frontend, range) => format!("{}:{} {range}", frontend.ip, frontend.port),
            Key::Policy(key) => format!("{key:?}"),
        };
        let data = match data {
            Data::None => String::new(),
            Data::Endpoint(endpoint) => format!(" -> {}:{}", endpoint.ip, endpoint.port),
            Data::Goto(chain) => format!(" -> {chain}"),
            Data::Accept => " -> accept".to_owned(),
            Data::Drop => " -> drop".to_owned(),
        };
        format!("{} {key}{data}", id.map.name())
    };
    elements.iter().map(line).collect()
}

fn plan(change: impl FnOnce(&mut Service), states: &str) -> Vec<String> {
    shown(&super::service(&context(), &service(change), &[&slice(states)], &|_| None))
}

/// The lines of elements of these maps.
fn only(maps: &[&str], lines: Vec<String>) -> Vec<String> {
    let wanted = |line: &String| maps.iter().any(|map| line.starts_with(&format!("{map} ")));
    lines.into_iter().filter(wanted).collect()
}

#[test]
fn a_cluster_ip_with_endpoints() {
    let lines = plan(|_| {}, "rR");
    let expected = [
        "services 10.96.0.1:80 -> cluster-2",
        "cluster-ips 10.96.0.1",
        "endpoints 10.96.0.1:80 0 -> 10.244.0.1:8080",
        "endpoints 10.96.0.1:80 1 -> 10.244.0.2:8080",
        "hairpin 10.244.0.2",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn endpoints_are_chosen_by_their_state() {
    let cases = [("rst", "cluster-1"), ("sst", "cluster-2"), ("t", "refuse"), ("", "refuse")];
    for (states, chain) in cases {
        let lines = only(&["services", "no-endpoints"], plan(|_| {}, states));
        assert_eq!(lines.len(), 1, "{states}");
        assert!(lines[0].ends_with(&format!("-> {chain}")), "{states}: {lines:?}");
    }
}

#[test]
fn policies_decide_the_outcome() {
    let external = |service: &mut Service| {
        service.external_local = true;
        service.external_ips = vec!["203.0.113.1".parse().unwrap()];
        service.ports[0].node_port = Some(30_080);
    };
    let maps = [
        "services",
        "node-ports",
        "external-local",
        "external-local-node-ports",
        "no-endpoints",
        "no-endpoint-node-ports",
    ];
    assert_eq!(
        only(&maps, plan(external, "rR")),
        [
            "services 10.96.0.1:80 -> cluster-2",
            "services 203.0.113.1:80 -> cluster-2",
            "node-ports *:30080 -> cluster-2",
            "external-local 203.0.113.1:80 -> local-1",
            "external-local-node-ports *:30080 -> local-1",
        ]
    );
    assert_eq!(
        only(&maps, plan(external, "r")),
        [
            "services 10.96.0.1:80 -> cluster-1",
            "services 203.0.113.1:80 -> cluster-1",
            "node-ports *:30080 -> cluster-1",
            "external-local 203.0.113.1:80 -> drop",
            "external-local-node-ports *:30080 -> drop",
        ]
    );
    assert_eq!(
        only(&maps, plan(external, "")),
        [
            "no-endpoints 10.96.0.1:80 -> refuse",
            "no-endpoints 203.0.113.1:80 -> refuse",
            "no-endpoint-node-ports *:30080 -> refuse",
        ]
    );
    let internal = |service: &mut Service| {
        service.internal_local = true;
        service.ports[0].node_port = Some(30_080);
        service.affinity_s = Some(60);
    };
    assert_eq!(
        only(&maps, plan(internal, "rR")),
        [
            "services 10.96.0.1:80 -> local-1-affinity-60",
            "node-ports *:30080 -> external-2-affinity-60",
        ]
    );
    assert_eq!(
        only(&maps, plan(internal, "r")),
        ["node-ports *:30080 -> external-1-affinity-60", "no-endpoints 10.96.0.1:80 -> drop"]
    );
}

#[test]
fn hints_narrow_the_choice_only_when_all_have_them() {
    let zones = |hints: [&str; 3]| {
        let mut slice = slice("rrr");
        for (endpoint, zone) in slice.endpoints.iter_mut().zip(hints) {
            endpoint.for_zones = zone.split_terminator(',').map(Into::into).collect();
        }
        let elements = super::service(&context(), &service(|_| {}), &[&slice], &|_| None);
        only(&["services"], shown(&elements)).remove(0)
    };
    assert!(zones(["a", "b", "a,b"]).ends_with("cluster-2"));
    assert!(zones(["b", "b", "b"]).ends_with("cluster-3"), "none is for this zone");
    assert!(zones(["a", "", "a"]).ends_with("cluster-3"), "one has no hint");
    let mut nodes = slice("rrr");
    for (n, endpoint) in nodes.endpoints.iter_mut().enumerate() {
        endpoint.for_this_node = Some(n == 1);
    }
    let elements = super::service(&context(), &service(|_| {}), &[&nodes], &|_| None);
    assert_eq!(
        only(&["endpoints"], shown(&elements)),
        ["endpoints 10.96.0.1:80 0 -> 10.244.0.2:8080"]
    );
}

#[test]
fn the_cluster_dns_and_headless_services_have_no_elements() {
    let mut context = context();
    context.cluster_dns = vec!["10.96.0.1".parse().unwrap()];
    assert!(super::service(&context, &service(|_| {}), &[&slice("r")], &|_| None).is_empty());
    assert!(super::service(&context, &Service::default(), &[&slice("r")], &|_| None).is_empty());
}

#[test]
fn a_removed_endpoint_moves_at_most_one_other() {
    let before = super::service(&context(), &service(|_| {}), &[&slice("rrrrr")], &|_| None);
    let held: HashMap<ElementId, Data> = before.into_iter().collect();
    let mut fewer = slice("rrrrr");
    fewer.endpoints.remove(1);
    let previous = |id: &ElementId| held.get(id).copied();
    let after = super::service(&context(), &service(|_| {}), &[&fewer], &previous);
    assert_eq!(
        only(&["endpoints"], shown(&after)),
        [
            "endpoints 10.96.0.1:80 0 -> 10.244.0.1:8080",
            "endpoints 10.96.0.1:80 1 -> 10.244.0.5:8080",
            "endpoints 10.96.0.1:80 2 -> 10.244.0.3:8080",
            "endpoints 10.96.0.1:80 3 -> 10.244.0.4:8080",
        ]
    );
}

#[test]
fn host_ports_of_a_pod() {
    let host_port = |host_ip: Option<&str>| HostPort {
        host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        protocol: Protocol::Udp,
        host_port: 53,
        container_port: 1053,
    };
    let pod = Pod {
        ips: vec!["10.244.0.9".parse().unwrap()],
        host_ports: vec![host_port(None), host_port(Some("127.0.0.1")), host_port(Some("::1"))],
        ..Pod::default()
    };
    assert_eq!(
        shown(&super::pod(&context(), &pod)),
        [
            "hairpin 10.244.0.9",
            "host-ports 127.0.0.1:53 -> 10.244.0.9:1053",
            "any-host-ports *:53 -> 10.244.0.9:1053",
        ]
    );
}

#[test]
fn the_least_owner_wins_a_conflict_and_the_next_takes_over() {
    let mut desired = Desired::default();
    let id = ElementId {
        family: Family::V4,
        map: Map::ClusterIps,
        key: Key::Address("10.0.0.1".parse().unwrap()),
    };
    let goto =
        |count| Data::Goto(Chain::Balance { source: Source::External, count, affinity_s: None });
    let owner = |name: &str| Owner::Service(name.into());
    let mut replace = |name: &str, data: Option<Data>| {
        let mut changes = Changes::new();
        let elements = data.map(|data| (id, data)).into_iter().collect();
        desired.replace(&owner(name), elements, &mut changes);
        (desired.get(&id), changes.len(), desired.chains(Family::V4).count())
    };
    assert_eq!(replace("b", Some(goto(2))), (Some(goto(2)), 1, 1));
    assert_eq!(replace("c", Some(goto(3))), (Some(goto(2)), 0, 1));
    assert_eq!(replace("a", Some(goto(1))), (Some(goto(1)), 1, 1));
    assert_eq!(replace("b", None), (Some(goto(1)), 0, 1));
    assert_eq!(replace("a", None), (Some(goto(3)), 1, 1));
    assert_eq!(replace("c", None), (None, 1, 0));
}

/// A model of the kernel's table: changes must be consistent with the current elements.
#[derive(Default)]
struct Table(BTreeMap<ElementId, Data>);

impl Table {
    fn apply(&mut self, changes: &Changes) {
        for (id, change) in changes {
            assert_ne!(change.before, change.after);
            assert_eq!(self.0.get(id).copied(), change.before, "{id:?}");
            match change.after {
                Some(data) => drop(self.0.insert(*id, data)),
                None => drop(self.0.remove(id)),
            }
        }
    }
}

fn any_service() -> impl Strategy<Value = Service> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let ids = (0u8..3, proptest::option::of(0u16..3), proptest::collection::vec(0u8..3, 0..3));
    (0u8..4, flags, ids).prop_map(|(name, (internal, external, affinity), (ip, node_port, ips))| {
        service(|service| {
            service.name = format!("s{name}").into();
            service.cluster_ips = vec![[10, 96, 0, ip].into()];
            service.external_ips = ips.iter().map(|ip| [203, 0, 113, *ip].into()).collect();
            service.ports[0].node_port = node_port.map(|port| 30_000 + port);
            service.internal_local = internal;
            service.external_local = external;
            service.affinity_s = affinity.then_some(60);
        })
    })
}

fn any_step() -> impl Strategy<Value = (Service, String, bool)> {
    (any_service(), "[rstRST]{0,5}", proptest::bool::weighted(0.2))
}

proptest! {
    /// For any sequence of changes to Services, the computed changes are valid for the table, lead
    /// to the desired state, and planning again yields none.
    #[test]
    fn changes_converge(steps in proptest::collection::vec(any_step(), 0..24)) {
        let (mut desired, mut table) = (Desired::default(), Table::default());
        for (service, states, gone) in steps {
            let owner = Owner::Service(Name::from(&*service.name));
            let elements = match gone {
                true => Elements::new(),
                false => {
                    let previous = |id: &ElementId| desired.get(id);
                    super::service(&context(), &service, &[&slice(&states)], &previous)
                }
            };
            let mut changes = Changes::new();
            desired.replace(&owner, elements.clone(), &mut changes);
            table.apply(&changes);
            let mut again = Changes::new();
            desired.replace(&owner, elements, &mut again);
            prop_assert!(again.is_empty());
            let wanted: BTreeMap<ElementId, Data> = desired.all().collect();
            prop_assert_eq!(&table.0, &wanted);
            for (id, data) in &table.0 {
                if let Data::Goto(chain) = data {
                    prop_assert!(desired.uses(id.family, *chain));
                }
            }
        }
    }

    /// Applying the difference turns any table into any other.
    #[test]
    fn a_difference_converges(
        there in proptest::collection::vec(any_step(), 0..8),
        wanted in proptest::collection::vec(any_step(), 0..8),
    ) {
        let desired = |steps: Vec<(Service, String, bool)>| {
            let mut desired = Desired::default();
            for (service, states, _) in steps {
                let elements = super::service(&context(), &service, &[&slice(&states)], &|_| None);
                desired.replace(&Owner::Service(Name::from(&*service.name)), elements, &mut Changes::new());
            }
            desired
        };
        let (there, wanted) = (desired(there), desired(wanted));
        let mut table = Table(there.all().collect());
        table.apply(&wanted.difference(&there.all().collect()));
        prop_assert_eq!(table.0, wanted.all().collect::<BTreeMap<_, _>>());
        prop_assert!(wanted.difference(&wanted.all().collect()).is_empty());
    }
}

#[test]
fn other_ports_of_an_address_of_the_pool_are_refused() {
    let balanced = service(|service| {
        service.load_balancer_ips = vec!["192.0.2.1".parse().unwrap(), "10.0.0.1".parse().unwrap()];
    });
    let context = Context { pool: vec!["192.0.2.0/28".parse().unwrap()], ..context() };
    let elements = super::service(&context, &balanced, &[&slice("r")], &|_| None);
    let refused = |ip: &str| {
        let key = Key::Address(ip.parse().unwrap());
        elements.iter().any(|(id, _)| id.map == Map::ClusterIps && id.key == key)
    };
    assert!(refused("10.96.0.1") && refused("192.0.2.1"));
    assert!(!refused("10.0.0.1"), "it may be that of a node");
}

#[test]
fn nodes_that_can_serve_local_traffic() {
    for (states, expected) in
        [("", false), ("r", false), ("rR", true), ("rS", false), ("sS", true), ("T", false)]
    {
        assert_eq!(can_serve(&[&slice(states)]), expected, "{states}");
    }
}
