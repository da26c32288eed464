use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    LoadBalancerIngress, LoadBalancerStatus, NodeAddress, NodeCondition, Service, Taint,
};
use k8s_openapi::api::discovery::v1::Endpoint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;

use super::allocations::Allocations;
use super::plan::{CONDITION, FINALIZER};
use super::request::{ADDRESSES_ANNOTATION, SHARING_ANNOTATION, SOURCE_ANNOTATION};
use super::*;
use crate::machinery::testing::{at, labels, service};

fn balanced(name: &str, port: i32) -> Service {
    let mut service = service(name, &[("http", port, 8080)]);
    service.spec.as_mut().unwrap().type_ = Some("LoadBalancer".into());
    service
}

fn annotated(mut service: Service, pairs: &[(&str, &str)]) -> Service {
    service.metadata.annotations.get_or_insert_default().extend(labels(pairs));
    service
}

fn local(mut service: Service, app: &str) -> Service {
    let spec = service.spec.as_mut().unwrap();
    spec.external_traffic_policy = Some("Local".into());
    spec.selector = Some(labels(&[("app", app)]));
    service
}

fn pool(ranges: &[&str]) -> Allocations {
    Allocations::new(ranges.iter().map(|range| range.parse().unwrap()).collect())
}

/// The addresses that a Service gets, or why it gets none.
fn allocate(pool: &mut Allocations, service: &Service) -> String {
    let request = Request::of(service, AddressSource::Pool);
    match request.and_then(|request| pool.allocate(&Key::of(service), &request)) {
        Ok(ips) => ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        Err(refusal) => format!("{}: {refusal}", refusal.reason()),
    }
}

#[test]
fn services_get_free_addresses_until_none_is_left() {
    let mut pool = pool(&["192.0.2.0/30"]);
    let [a, b, c] = ["a", "b", "c"].map(|name| balanced(name, 80));
    assert_eq!(allocate(&mut pool, &a), "192.0.2.1");
    assert_eq!(allocate(&mut pool, &b), "192.0.2.2");
    assert_eq!(allocate(&mut pool, &a), "192.0.2.1", "it keeps its address");
    let used_up = "AddressPoolExhausted: no address is left in 192.0.2.0/30";
    assert_eq!(allocate(&mut pool, &c), used_up);
    assert!(pool.release(&Key::of(&a)) && !pool.release(&Key::of(&a)));
    assert_eq!(allocate(&mut pool, &c), "192.0.2.1");
    let mut again = b.clone();
    again.metadata.uid = Some("another".into());
    assert_eq!(allocate(&mut pool, &again), "192.0.2.2", "another Service of the same name");
}

#[test]
fn a_requested_address_is_given_or_refused() {
    let mut pool = pool(&["192.0.2.0/28", "2001:db8::/120"]);
    let mut field = balanced("field", 80);
    field.spec.as_mut().unwrap().load_balancer_ip = Some("192.0.2.9".into());
    assert_eq!(allocate(&mut pool, &field), "192.0.2.9");
    let asks =
        |name: &str, ips: &str| annotated(balanced(name, 80), &[(ADDRESSES_ANNOTATION, ips)]);
    assert_eq!(allocate(&mut pool, &asks("a", "192.0.2.3, 2001:db8::7")), "192.0.2.3 2001:db8::7");
    for (ips, refusal) in [
        ("192.0.2.9", "AddressInUse: the address 192.0.2.9 is in use by Service ns/field"),
        ("192.0.2.15", "AddressNotInPool: the requested address 192.0.2.15 is not in the pool"),
        ("10.0.0.1", "AddressNotInPool: the requested address 10.0.0.1 is not in the pool"),
        ("x", "InvalidRequest: skiff.dev/load-balancer-ips: \"x\" is not an IP address"),
        (
            "192.0.2.4,192.0.2.5",
            "InvalidRequest: skiff.dev/load-balancer-ips: \"192.0.2.4,192.0.2.5\" has more than \
             one address of a family",
        ),
    ] {
        assert_eq!(allocate(&mut pool, &asks("b", ips)), refusal);
    }
    // A changed request moves the Service.
    field.spec.as_mut().unwrap().load_balancer_ip = Some("192.0.2.8".into());
    assert_eq!(allocate(&mut pool, &field), "192.0.2.8");
    assert_eq!(allocate(&mut pool, &asks("b", "192.0.2.9")), "192.0.2.9");
}

#[test]
fn addresses_of_nodes_are_left_alone() {
    let mut pool = pool(&["192.0.2.0/29"]);
    assert_eq!(allocate(&mut pool, &balanced("a", 80)), "192.0.2.1");
    let nodes = [node("n", "192.0.2.1"), node("m", "192.0.2.2"), node("o", "10.0.0.1")];
    pool.reserve(nodes.iter().flat_map(plan::own_addresses));
    let mut wants = balanced("b", 80);
    wants.spec.as_mut().unwrap().load_balancer_ip = Some("192.0.2.2".into());
    let refused = "AddressInUse: the address 192.0.2.2 is a node's own";
    assert_eq!(allocate(&mut pool, &wants), refused);
    assert_eq!(allocate(&mut pool, &balanced("a", 80)), "192.0.2.3", "the node came later");
}

#[test]
fn families_are_those_of_the_service_and_the_pool() {
    let with = |families: &[&str]| {
        let mut service = balanced("a", 80);
        let families = families.iter().map(|family| (*family).to_owned()).collect();
        service.spec.as_mut().unwrap().ip_families = Some(families);
        service
    };
    let mut both = pool(&["192.0.2.0/28", "2001:db8::/120"]);
    assert_eq!(allocate(&mut both, &with(&["IPv6", "IPv4"])), "2001:db8::1 192.0.2.1");
    assert_eq!(allocate(&mut both, &with(&["IPv6"])), "2001:db8::1");
    let mut v4 = pool(&["192.0.2.0/28"]);
    assert_eq!(allocate(&mut v4, &with(&["IPv6", "IPv4"])), "192.0.2.1");
    let none = "AddressNotInPool: the pool has no addresses of the Service's IP families";
    assert_eq!(allocate(&mut v4, &with(&["IPv6"])), none);
}

#[test]
fn services_share_an_address_if_both_say_so_and_can() {
    let shares = |service: Service| annotated(service, &[(SHARING_ANNOTATION, "key")]);
    let mut pool = pool(&["192.0.2.0/28"]);
    assert_eq!(allocate(&mut pool, &balanced("alone", 22)), "192.0.2.1");
    assert_eq!(allocate(&mut pool, &shares(balanced("a", 80))), "192.0.2.2");
    assert_eq!(allocate(&mut pool, &shares(balanced("b", 443))), "192.0.2.2");
    assert_eq!(allocate(&mut pool, &shares(balanced("same-port", 80))), "192.0.2.3");
    let other = annotated(balanced("other", 53), &[(SHARING_ANNOTATION, "other")]);
    assert_eq!(allocate(&mut pool, &other), "192.0.2.4");
    // The announcing node must have endpoints of all.
    assert_eq!(allocate(&mut pool, &shares(local(balanced("l", 1), "x"))), "192.0.2.5");
    assert_eq!(allocate(&mut pool, &shares(local(balanced("m", 2), "x"))), "192.0.2.5");
    assert_eq!(allocate(&mut pool, &shares(local(balanced("n", 3), "y"))), "192.0.2.6");
    // What no longer fits is moved.
    assert_eq!(allocate(&mut pool, &shares(balanced("b", 80))), "192.0.2.7");
    assert_eq!(allocate(&mut pool, &balanced("a", 80)), "192.0.2.2");
}

#[test]
fn the_nodes_own_addresses_are_shared_port_by_port() {
    let nodes = |name, port| annotated(balanced(name, port), &[(SOURCE_ANNOTATION, "nodes")]);
    let mut pool = pool(&[]);
    assert_eq!(allocate(&mut pool, &nodes("a", 80)), "");
    assert_eq!(allocate(&mut pool, &nodes("b", 81)), "");
    let taken = "AddressInUse: port 80/TCP of the nodes is in use by Service ns/a";
    assert_eq!(allocate(&mut pool, &nodes("c", 80)), taken);
    let odd = annotated(balanced("d", 80), &[(SOURCE_ANNOTATION, "both")]);
    assert!(allocate(&mut pool, &odd).starts_with("InvalidRequest: "));
}

fn node(name: &str, ip: &str) -> Node {
    let mut node = Node::default();
    node.metadata.name = Some(name.into());
    let status = node.status.get_or_insert_default();
    let address =
        |type_: &str, address: &str| NodeAddress { type_: type_.into(), address: address.into() };
    status.addresses = Some(vec![address("Hostname", name), address("InternalIP", ip)]);
    status.conditions = Some(vec![NodeCondition {
        type_: "Ready".into(),
        status: "True".into(),
        ..Default::default()
    }]);
    node
}

#[test]
fn available_nodes_give_their_addresses() {
    let [a, mut b, mut c] =
        [("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.3")].map(|(name, ip)| node(name, ip));
    let ips = |service: &Service, nodes: &[&Node], slices: &[Arc<EndpointSlice>]| {
        let found = node_addresses(service, nodes.iter().copied(), slices);
        found.map(|ips| ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" "))
    };
    let web = balanced("web", 80);
    assert_eq!(ips(&web, &[&a, &b, &c], &[]).unwrap(), "10.0.0.1 10.0.0.2 10.0.0.3");
    let mut slice = EndpointSlice::default();
    slice
        .endpoints
        .get_or_insert_default()
        .push(Endpoint { node_name: Some("b".into()), ..Default::default() });
    let slices = [Arc::new(slice)];
    assert_eq!(ips(&local(web.clone(), "x"), &[&a, &b, &c], &slices).unwrap(), "10.0.0.2");
    b.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].status = "Unknown".into();
    let label = ("node.kubernetes.io/exclude-from-external-load-balancers", "");
    c.metadata.labels = Some(labels(&[label]));
    assert_eq!(ips(&web, &[&a, &b, &c], &[]).unwrap(), "10.0.0.1");
    let mut going = a.clone();
    going.spec.get_or_insert_default().taints =
        Some(vec![Taint { key: "ToBeDeletedByClusterAutoscaler".into(), ..Default::default() }]);
    assert_eq!(ips(&web, &[&going, &b, &c], &[]), Err(Refusal::NoNodes));
}

#[test]
fn the_status_follows_the_outcome_and_converges() {
    let web = balanced("web", 80);
    let ip: IpAddr = "192.0.2.1".parse().unwrap();
    let refusal = Err(Refusal::Exhausted("192.0.2.0/30".into()));
    let without = ensured(&web, &refusal, at(1));
    assert_eq!(without.metadata.finalizers, Some(vec![FINALIZER.into()]));
    let condition = |service: &Service| {
        let conditions = service.status.as_ref().unwrap().conditions.clone().unwrap();
        let [condition] = conditions.try_into().unwrap();
        assert_eq!(condition.type_, CONDITION);
        (condition.status, condition.reason, condition.message, condition.last_transition_time)
    };
    let message = "no address is left in 192.0.2.0/30".to_owned();
    let expected = ("False".into(), "AddressPoolExhausted".into(), message, Time(at(1)));
    assert_eq!(condition(&without), expected);
    assert_eq!(ensured(&without, &refusal, at(2)), without, "nothing to do");
    let with = ensured(&without, &Ok(vec![ip]), at(3));
    assert_eq!(condition(&with).3, Time(at(3)));
    assert_eq!(status_addresses(&with), [ip]);
    let ingress = with.status.clone().unwrap().load_balancer.unwrap().ingress.unwrap();
    assert_eq!(ingress[0].ip_mode.as_deref(), Some("VIP"));
    assert_eq!(ingress[0].ports.as_ref().unwrap()[0].port, 80);
    assert_eq!(ensured(&with, &Ok(vec![ip]), at(4)), with, "nothing to do");

    assert!(wants(&with) && !needs_cleanup(&with));
    let mut other_class = with.clone();
    other_class.spec.as_mut().unwrap().load_balancer_class = Some("example.com/lb".into());
    assert!(!wants(&other_class) && !needs_cleanup(&other_class));
    let mut changed = with.clone();
    changed.spec.as_mut().unwrap().type_ = Some("NodePort".into());
    assert!(!wants(&changed) && needs_cleanup(&changed));
    let mut deleted = with;
    deleted.metadata.deletion_timestamp = Some(Time(at(9)));
    assert!(!wants(&deleted) && needs_cleanup(&deleted));
    let clean = cleaned(&deleted);
    assert!(!has_finalizer(&clean) && status_addresses(&clean).is_empty());
    assert!(!needs_cleanup(&clean));
}

#[test]
fn of_two_services_with_one_address_the_older_keeps_it_after_a_restart() {
    let has = |name: &str, created: i64, ip: &str| {
        let mut service = balanced(name, 80);
        service.metadata.creation_timestamp = Some(Time(at(created)));
        let ingress = LoadBalancerIngress { ip: Some(ip.into()), ..Default::default() };
        service.status.get_or_insert_default().load_balancer =
            Some(LoadBalancerStatus { ingress: Some(vec![ingress]) });
        service
    };
    let services = [has("a", 2, "192.0.2.5"), has("b", 1, "192.0.2.5"), has("c", 3, "10.9.9.9")];
    let all = services.iter().cloned().map(Arc::new).collect();
    let range = "192.0.2.0/28".parse().unwrap();
    let mut state = State::new(&[range], AddressSource::Pool, all);
    let [a, b, c] = services.each_ref().map(|service| allocate(&mut state.allocations, service));
    assert_eq!((&*a, &*b, &*c), ("192.0.2.1", "192.0.2.5", "192.0.2.2"));
}

proptest! {
    /// Whatever happens, no address has two Services that may not share it, and asking again
    /// changes nothing.
    #[test]
    fn addresses_never_collide(steps in prop::collection::vec((0usize..8, 0i32..3, 0u8..3, any::<bool>()), 1..60)) {
        let mut pool = pool(&["192.0.2.0/29"]);
        let mut there: std::collections::BTreeMap<Key, (Request, Vec<IpAddr>)> = Default::default();
        for (name, port, key, remove) in steps {
            let mut service = balanced(&format!("s{name}"), 80 + port);
            if key > 0 {
                service = annotated(service, &[(SHARING_ANNOTATION, &key.to_string())]);
            }
            let at = Key::of(&service);
            if remove {
                pool.release(&at);
                there.remove(&at);
                continue;
            }
            let request = Request::of(&service, AddressSource::Pool).unwrap();
            match pool.allocate(&at, &request) {
                Ok(ips) => {
                    prop_assert_eq!(&pool.allocate(&at, &request).unwrap(), &ips);
                    there.insert(at, (request, ips));
                }
                Err(_) => drop(there.remove(&at)),
            }
            for (one, (request, ips)) in &there {
                for (other, (theirs, others)) in &there {
                    let shared = one != other && ips == others;
                    prop_assert!(!shared || request.terms.may_share(&theirs.terms));
                }
            }
        }
    }
}
