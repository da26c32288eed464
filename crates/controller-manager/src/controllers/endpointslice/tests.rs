use k8s_openapi::api::core::v1::{Container, ContainerPort};
use k8s_openapi::api::discovery::v1::Endpoint;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;

use super::pack::Plan;
use super::*;
use crate::machinery::testing::{pod, service};

fn web(name: &str, ip: &str) -> crate::machinery::testing::PodBuilder {
    pod(name).label("app", "web").running().ip(ip).on("n")
}

fn slices_of(service: &Service, pods: &[Pod]) -> Vec<Group> {
    let pods: Vec<_> = pods.iter().cloned().map(Arc::new).collect();
    groups(service, &pods, |_| Some("z".into()))
}

/// Applies a plan.
fn after(existing: &[Arc<EndpointSlice>], plan: &Plan, made: &mut u32) -> Vec<Arc<EndpointSlice>> {
    let mut all = existing.to_vec();
    all.retain(|slice| !plan.delete.contains(slice));
    for slice in &plan.update {
        let of = |one: &&mut Arc<EndpointSlice>| one.metadata.name == slice.metadata.name;
        *all.iter_mut().find(of).unwrap() = Arc::new(slice.clone());
    }
    for slice in &plan.create {
        let mut slice = slice.clone();
        *made += 1;
        slice.metadata.name = Some(format!("s{made}"));
        all.push(Arc::new(slice));
    }
    all
}

fn addresses(slices: &[Arc<EndpointSlice>]) -> Vec<String> {
    let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    let mut all: Vec<_> = endpoints.map(|one| one.addresses[0].clone()).collect();
    all.sort();
    all
}

#[test]
fn conditions_are_ready_serving_and_terminating() {
    let service = service("web", &[("http", 80, 8080)]);
    for (pod, ready, serving, terminating) in [
        (web("a", "10.0.0.1").ready_at(1).build(), true, true, false),
        (web("a", "10.0.0.1").build(), false, false, false),
        (web("a", "10.0.0.1").ready_at(1).deleting().build(), false, true, true),
        (web("a", "10.0.0.1").deleting().build(), false, false, true),
    ] {
        let groups = slices_of(&service, std::slice::from_ref(&pod));
        let conditions = groups[0].endpoints[0].conditions.clone().unwrap();
        assert_eq!(
            (conditions.ready, conditions.serving, conditions.terminating),
            (Some(ready), Some(serving), Some(terminating)),
            "{pod:?}"
        );
    }
    let mut publishing = service.clone();
    publishing.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
    let groups = slices_of(&publishing, &[web("a", "10.0.0.1").build()]);
    assert_eq!(groups[0].endpoints[0].conditions.as_ref().unwrap().ready, Some(true));
}

#[test]
fn terminated_pods_are_no_endpoints_and_an_empty_service_has_one_slice() {
    let service = service("web", &[("http", 80, 8080)]);
    let groups = slices_of(&service, &[web("a", "10.0.0.1").phase("Failed").build()]);
    assert_eq!(groups.len(), 1);
    let plan = pack(&[], &groups, &common(&service), 100);
    assert_eq!(plan.create.len(), 1);
    let existing = after(&[], &plan, &mut 0);
    assert_eq!(pack(&existing, &groups, &common(&service), 100), Plan::default());
    let labels = plan.create[0].metadata.labels.as_ref().unwrap();
    assert_eq!(labels[SERVICE_NAME], "web");
    // The placeholder takes the first endpoints.
    let groups = slices_of(&service, &[web("a", "10.0.0.1").build()]);
    let plan = pack(&existing, &groups, &common(&service), 100);
    assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));
}

#[test]
fn named_ports_split_groups() {
    let mut service = service("web", &[("http", 80, 0)]);
    let port = &mut service.spec.as_mut().unwrap().ports.as_mut().unwrap()[0];
    port.target_port = Some(IntOrString::String("main".into()));
    let with_port = |name: &str, ip: &str, number: i32| {
        let mut pod = web(name, ip).build();
        pod.spec.as_mut().unwrap().containers = vec![Container {
            ports: Some(vec![ContainerPort {
                name: Some("main".into()),
                container_port: number,
                ..Default::default()
            }]),
            ..Default::default()
        }];
        pod
    };
    let groups = slices_of(
        &service,
        &[
            with_port("a", "10.0.0.1", 1),
            with_port("b", "10.0.0.2", 2),
            with_port("c", "10.0.0.3", 1),
        ],
    );
    let shape: Vec<_> =
        groups.iter().map(|group| (group.ports[0].port, group.endpoints.len())).collect();
    assert_eq!(shape, [(Some(1), 2), (Some(2), 1)]);
}

#[test]
fn one_change_is_one_write() {
    let service = service("web", &[("http", 80, 8080)]);
    let mut pods: Vec<Pod> = (0..5)
        .map(|index| web(&format!("p{index}"), &format!("10.0.0.{index}")).ready_at(1).build())
        .collect();
    let mut made = 0;
    let common = common(&service);
    let first = pack(&[], &slices_of(&service, &pods), &common, 2);
    assert_eq!(first.create.len(), 3);
    let existing = after(&[], &first, &mut made);
    assert_eq!(pack(&existing, &slices_of(&service, &pods), &common, 2), Plan::default());
    pods[3] = web("p3", "10.0.0.3").ready_at(1).deleting().build();
    let second = pack(&existing, &slices_of(&service, &pods), &common, 2);
    assert_eq!((second.create.len(), second.update.len(), second.delete.len()), (0, 1, 0));
}

fn any_endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
    prop::collection::btree_map(0..60u32, any::<bool>(), 0..40).prop_map(|all| {
        let service = service("web", &[("http", 80, 8080)]);
        let endpoint = |(index, ready): (u32, bool)| {
            let mut pod = web(&format!("p{index}"), &format!("10.0.0.{index}"));
            if ready {
                pod = pod.ready_at(1);
            }
            endpoint::endpoint(&service, &pod.build(), "IPv4", None).unwrap()
        };
        all.into_iter().map(endpoint).collect()
    })
}

proptest! {
    /// From any slices to any endpoints: the slices hold exactly those, none is too large, and the
    /// next plan is empty.
    #[test]
    fn packing_converges(states in prop::collection::vec(any_endpoints(), 1..5)) {
        let service = service("web", &[("http", 80, 8080)]);
        let common = common(&service);
        let (mut existing, mut made) = (Vec::new(), 0);
        for endpoints in states {
            let group = Group {
                address_type: "IPv4".into(),
                ports: Vec::new(),
                endpoints: endpoints.clone(),
            };
            let groups = [group];
            let plan = pack(&existing, &groups, &common, 7);
            existing = after(&existing, &plan, &mut made);
            let mut wanted: Vec<_> = endpoints.iter().map(|one| one.addresses[0].clone()).collect();
            wanted.sort();
            prop_assert_eq!(addresses(&existing), wanted);
            for slice in &existing {
                prop_assert!(slice.endpoints.as_ref().is_none_or(|all| all.len() <= 7));
            }
            prop_assert_eq!(pack(&existing, &groups, &common, 7), Plan::default());
        }
    }
}
