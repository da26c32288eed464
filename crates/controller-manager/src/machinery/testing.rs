//! Builders of objects for tests, and a server that holds them.

pub mod server;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerStatus, Pod, PodCondition, Service, ServicePort, ServiceSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Seconds after the epoch.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

pub fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A pod named `name` in namespace `ns`, created at second 0, uid `uid-NAME`.
pub fn pod(name: &str) -> PodBuilder {
    let mut pod = Pod::default();
    pod.metadata.name = Some(name.into());
    pod.metadata.namespace = Some("ns".into());
    pod.metadata.uid = Some(format!("uid-{name}"));
    pod.metadata.resource_version = Some("1".into());
    pod.metadata.creation_timestamp = Some(Time(at(0)));
    pod.status.get_or_insert_default().phase = Some("Pending".into());
    PodBuilder(pod)
}

pub struct PodBuilder(Pod);

impl PodBuilder {
    pub fn build(self) -> Pod {
        self.0
    }

    pub fn on(mut self, node: &str) -> Self {
        self.0.spec.get_or_insert_default().node_name = Some(node.into());
        self
    }

    pub fn phase(mut self, phase: &str) -> Self {
        self.0.status.get_or_insert_default().phase = Some(phase.into());
        self
    }

    pub fn running(self) -> Self {
        self.phase("Running")
    }

    pub fn ip(mut self, ip: &str) -> Self {
        let status = self.0.status.get_or_insert_default();
        status.pod_ip = Some(ip.into());
        status.pod_ips = Some(vec![k8s_openapi::api::core::v1::PodIP { ip: ip.into() }]);
        self
    }

    pub fn condition(mut self, type_: &str, status: &str, seconds: i64) -> Self {
        let conditions = self.0.status.get_or_insert_default().conditions.get_or_insert_default();
        conditions.retain(|condition| condition.type_ != type_);
        conditions.push(PodCondition {
            type_: type_.into(),
            status: status.into(),
            last_transition_time: Some(Time(at(seconds))),
            ..Default::default()
        });
        self
    }

    pub fn ready_at(self, seconds: i64) -> Self {
        self.condition("Ready", "True", seconds)
    }

    pub fn created(mut self, seconds: i64) -> Self {
        self.0.metadata.creation_timestamp = Some(Time(at(seconds)));
        self
    }

    pub fn deleting(mut self) -> Self {
        self.0.metadata.deletion_timestamp = Some(Time(at(0)));
        self
    }

    pub fn restarts(mut self, count: i32) -> Self {
        self.0.status.get_or_insert_default().container_statuses =
            Some(vec![ContainerStatus { restart_count: count, ..Default::default() }]);
        self
    }

    pub fn label(mut self, key: &str, value: &str) -> Self {
        let labels = self.0.metadata.labels.get_or_insert_default();
        labels.insert(key.into(), value.into());
        self
    }

    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        let annotations = self.0.metadata.annotations.get_or_insert_default();
        annotations.insert(key.into(), value.into());
        self
    }
}

/// A service `name` in namespace `ns` over all pods labelled `app=web`; ports as name, port,
/// target.
pub fn service(name: &str, ports: &[(&str, i32, i32)]) -> Service {
    let mut service = Service::default();
    service.metadata.name = Some(name.into());
    service.metadata.namespace = Some("ns".into());
    service.metadata.uid = Some(format!("uid-{name}"));
    service.spec = Some(ServiceSpec {
        cluster_ip: Some("10.96.0.9".into()),
        ip_families: Some(vec!["IPv4".into()]),
        selector: Some(labels(&[("app", "web")])),
        type_: Some("ClusterIP".into()),
        ports: Some(
            ports
                .iter()
                .map(|(name, port, target)| ServicePort {
                    name: Some((*name).into()),
                    port: *port,
                    protocol: Some("TCP".into()),
                    target_port: Some(IntOrString::Int(*target)),
                    ..Default::default()
                })
                .collect(),
        ),
        ..Default::default()
    });
    service
}
