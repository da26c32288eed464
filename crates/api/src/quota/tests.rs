use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolumeClaimSpec, PodSpec, PodStatus, ScopeSelector,
    ScopedResourceSelectorRequirement, ServicePort, ServiceSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::*;

fn amounts(list: &[(&str, &str)]) -> Option<BTreeMap<String, Text>> {
    let all = list.iter();
    Some(all.map(|(name, amount)| ((*name).to_owned(), Text((*amount).to_owned()))).collect())
}

fn container(name: &str, requests: &[(&str, &str)], limits: &[(&str, &str)]) -> Container {
    Container {
        name: name.to_owned(),
        resources: Some(ResourceRequirements {
            requests: amounts(requests),
            limits: amounts(limits),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn pod(containers: Vec<Container>) -> Pod {
    Pod { spec: Some(PodSpec { containers, ..PodSpec::default() }), ..Pod::default() }
}

fn text(usage: &Usage) -> String {
    let all = usage.iter();
    all.map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
}

#[test]
fn objects_use_what_kubernetes_says_they_use() {
    let sized = pod(vec![container(
        "a",
        &[
            ("cpu", "500m"),
            ("memory", "1Gi"),
            ("ephemeral-storage", "2G"),
            ("example.com/gpu", "2"),
        ],
        &[("cpu", "2")],
    )]);
    assert_eq!(
        text(&usage(&sized)),
        "count/pods=1,cpu=500m,ephemeral-storage=2G,limits.cpu=2,memory=1Gi,pods=1,requests.cpu=500m,\
         requests.ephemeral-storage=2G,requests.example.com/gpu=2,requests.memory=1Gi"
    );
    let mut done = sized.clone();
    done.status = Some(PodStatus { phase: Some("Failed".into()), ..PodStatus::default() });
    assert_eq!(text(&usage(&done)), "count/pods=1");
    assert_eq!(text(&usage(&ConfigMap::default())), "configmaps=1,count/configmaps=1");
    let ports = |node_port| ServicePort { node_port, ..ServicePort::default() };
    let service = |type_: &str, allocate| Service {
        spec: Some(ServiceSpec {
            type_: Some(type_.to_owned()),
            ports: Some(vec![ports(Some(30_000)), ports(None)]),
            allocate_load_balancer_node_ports: allocate,
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    for (service, expected) in [
        (service("ClusterIP", None), "services.loadbalancers=0,services.nodeports=0"),
        (service("NodePort", None), "services.loadbalancers=0,services.nodeports=2"),
        (service("LoadBalancer", None), "services.loadbalancers=1,services.nodeports=2"),
        (service("LoadBalancer", Some(false)), "services.loadbalancers=1,services.nodeports=1"),
    ] {
        let all = text(&usage(&service));
        assert_eq!(all, format!("count/services=1,services=1,{expected}"));
    }
    let mut claim = PersistentVolumeClaim {
        spec: Some(PersistentVolumeClaimSpec {
            storage_class_name: Some("fast".into()),
            resources: Some(VolumeResourceRequirements {
                requests: amounts(&[("storage", "1500m")]),
                limits: None,
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(
        text(&usage(&claim)),
        "count/persistentvolumeclaims=1,fast.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
         fast.storageclass.storage.k8s.io/requests.storage=2,persistentvolumeclaims=1,requests.storage=2"
    );
    let beta = (crate::storage_class::BETA_CLASS.to_owned(), "slow".to_owned());
    claim.metadata.annotations = Some([beta].into());
    let used = usage(&claim);
    assert!(used.contains_key("slow.storageclass.storage.k8s.io/requests.storage"));
    assert!(!used.contains_key("fast.storageclass.storage.k8s.io/requests.storage"));
}

#[test]
fn quotas_select_by_resource_and_scope() {
    let bare = pod(vec![container("a", &[], &[])]);
    let sized = pod(vec![container("a", &[("cpu", "1")], &[])]);
    let mut bounded = bare.clone();
    bounded.spec.get_or_insert_default().active_deadline_seconds = Some(5);
    let mut important = bare.clone();
    important.spec.get_or_insert_default().priority_class_name = Some("high".into());
    let all: [(&str, &Pod); 4] =
        [("bare", &bare), ("sized", &sized), ("bounded", &bounded), ("important", &important)];
    let scope = |scope: &str| ResourceQuotaSpec {
        scopes: Some(vec![scope.to_owned()]),
        ..ResourceQuotaSpec::default()
    };
    let class = |operator: &str, values: &[&str]| ResourceQuotaSpec {
        scope_selector: Some(ScopeSelector {
            match_expressions: Some(vec![ScopedResourceSelectorRequirement {
                operator: operator.to_owned(),
                scope_name: "PriorityClass".to_owned(),
                values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
            }]),
        }),
        ..ResourceQuotaSpec::default()
    };
    for (spec, expected) in [
        (ResourceQuotaSpec::default(), "bare sized bounded important"),
        (scope("BestEffort"), "bare bounded important"),
        (scope("NotBestEffort"), "sized"),
        (scope("Terminating"), "bounded"),
        (scope("NotTerminating"), "bare sized important"),
        (scope("PriorityClass"), "important"),
        (scope("CrossNamespacePodAffinity"), ""),
        (class("In", &["high"]), "important"),
        (class("In", &["low"]), ""),
        (class("NotIn", &["high"]), "bare sized bounded"),
        (class("DoesNotExist", &[]), "bare sized bounded"),
    ] {
        let hard = ["pods".to_owned()];
        let selected = all.iter().filter(|(_, pod)| selects(&spec, &hard, *pod));
        let names: Vec<_> = selected.map(|(name, _)| *name).collect();
        assert_eq!(names.join(" "), expected, "{spec:?}");
        assert!(!selects(&spec, &["services".to_owned()], &bare));
        let scoped = spec.scopes.is_some() || spec.scope_selector.is_some();
        let map = ConfigMap::default();
        assert_eq!(selects(&spec, &["configmaps".to_owned()], &map), !scoped);
    }
}

#[test]
fn a_quota_on_compute_requires_it_of_every_container() {
    let pod =
        pod(vec![container("a", &[("cpu", "1")], &[("memory", "1Gi")]), container("b", &[], &[])]);
    let limited = BTreeSet::from([
        "cpu",
        "limits.memory",
        "pods",
        "requests.ephemeral-storage",
        "requests.memory",
    ]);
    let missing: Vec<_> = missing_requirements(&pod, &limited)
        .into_iter()
        .map(|(name, containers)| {
            let containers: Vec<_> = containers.into_iter().collect();
            format!("{name} for: {}", containers.join(","))
        })
        .collect();
    assert_eq!(missing, ["cpu for: b", "limits.memory for: b", "requests.memory for: a,b"]);
}

#[test]
fn claims_of_devices_use_what_they_may_get() {
    let claim = serde_json::json!({"metadata": {}, "spec": {"devices": {"requests": [
        {"name": "a", "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 2}},
        {"name": "b", "exactly": {"deviceClassName": "gpu", "allocationMode": "All"}},
        {"name": "c", "firstAvailable": [
            {"name": "x", "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1},
            {"name": "y", "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 3},
            {"name": "z", "deviceClassName": "nic", "allocationMode": "ExactCount"}]}]}}});
    let claim: ResourceClaim = serde_json::from_value(claim).unwrap();
    assert_eq!(
        text(&usage(&claim)),
        "count/resourceclaims.resource.k8s.io=1,gpu.deviceclass.resource.k8s.io/devices=37,\
         nic.deviceclass.resource.k8s.io/devices=1"
    );
    let hard = ["gpu.deviceclass.resource.k8s.io/devices", "pods"].map(str::to_owned);
    assert_eq!(relevant(ResourceClaim::ROW, &hard).len(), 1);
    assert_eq!(relevant(PersistentVolumeClaim::ROW, &hard).len(), 0);
}
