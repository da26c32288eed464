//! Services. Addresses and node ports are allocated elsewhere; here is what follows from the object
//! alone.

mod validate;

use k8s_openapi::api::core::v1::{
    ClientIPConfig, Service, ServicePort, ServiceSpec, ServiceStatus, SessionAffinityConfig,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::columns::{self, SELECTOR, text};
use super::fill;
use super::table::{Parts, Rows, age, items, name, text_at};

pub use validate::non_special_ip;

/// Three hours: the default timeout of session affinity.
const AFFINITY_SECONDS: i32 = 10_800;

pub static RULES: Rows<Service> = Rows {
    default: |service| {
        let spec = service.spec.get_or_insert_default();
        fill::text(&mut spec.session_affinity, "None");
        fill::text(&mut spec.type_, "ClusterIP");
        affinity(spec);
        for port in spec.ports.iter_mut().flatten() {
            default_port(port);
        }
        if externally_accessible(spec) {
            fill::text(&mut spec.external_traffic_policy, "Cluster");
        }
        if has_cluster_ip(spec) {
            fill::missing(&mut spec.internal_traffic_policy, "Cluster");
        }
        if type_of(spec) == "LoadBalancer" {
            fill::missing(&mut spec.allocate_load_balancer_node_ports, true);
            let balancer = service.status.as_mut().and_then(|status| status.load_balancer.as_mut());
            for ingress in
                balancer.and_then(|balancer| balancer.ingress.as_mut()).into_iter().flatten()
            {
                if ingress.ip.is_some() {
                    fill::missing(&mut ingress.ip_mode, "VIP");
                }
            }
        }
    },
    name: api::names::dns_1035_label,
    parts: Parts {
        create: |service, _| {
            // A status without a load balancer has an empty one.
            service.status = Some(ServiceStatus {
                load_balancer: Some(Default::default()),
                ..ServiceStatus::default()
            });
            let spec = service.spec.get_or_insert_default();
            normalize_cluster_ips(spec, None);
            families(spec);
        },
        update: |new, old, _| {
            new.status.clone_from(&old.status);
            let (Some(spec), Some(was)) = (&mut new.spec, &old.spec) else {
                return;
            };
            normalize_cluster_ips(spec, Some(was));
            keep_allocated(spec, was);
            drop_of_other_type(spec, was);
            families(spec);
        },
        status: |new, old, _| new.spec.clone_from(&old.spec),
    },
    judge: |service, at| {
        service.spec.iter().for_each(|spec| validate::all(spec, &at.child("spec")));
    },
    update: |new, old, at| {
        if let (Some(spec), Some(was)) = (&new.spec, &old.spec) {
            validate::update(spec, was, &at.child("spec"));
        }
    },
    warnings: |service, _| {
        let Some(spec) = &service.spec else {
            return Vec::new();
        };
        let mut all = Vec::new();
        if spec.cluster_ip.as_deref() == Some("None") {
            if !spec.load_balancer_ip.as_deref().unwrap_or_default().is_empty() {
                all.push("spec.loadBalancerIP is ignored when spec.clusterIP is \"None\"");
            }
            if spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty()) {
                all.push("spec.externalIPs is ignored when spec.clusterIP is \"None\"");
            }
            if spec.session_affinity.as_deref() == Some("ClientIP") {
                all.push("spec.SessionAffinity is ignored for headless services");
            }
        }
        all.into_iter().map(str::to_owned).collect()
    },
    create_on_update: true,
    columns: &[
        name(),
        text("Type", "How the service is exposed.").at("spec.type"),
        text("Cluster-IP", "The address inside the cluster.").of(|service| {
            let spec = service.spec.as_ref();
            let first = spec.and_then(|spec| spec.cluster_ips.as_ref()?.first());
            let first = first.or(spec.and_then(|spec| spec.cluster_ip.as_ref()));
            columns::or_none(first.map(String::as_str))
        }),
        text("External-IP", "Addresses outside the cluster.").json(external_ip),
        text("Port(s)", "Ports, with node ports after a colon.").of(|service| {
            let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
            columns::joined(&ports.map(port_text).collect::<Vec<_>>())
        }),
        age(),
        SELECTOR.of(|service| {
            columns::labels(service.spec.as_ref().and_then(|spec| spec.selector.as_ref()))
        }),
    ],
    ..Rows::NEW
};

/// The service's type, which defaulting has set.
pub fn type_of(spec: &ServiceSpec) -> &str {
    spec.type_.as_deref().unwrap_or_default()
}

/// Every type but ExternalName has cluster IPs.
pub fn has_cluster_ip(spec: &ServiceSpec) -> bool {
    matches!(type_of(spec), "ClusterIP" | "NodePort" | "LoadBalancer")
}

/// Whether the service uses node ports.
pub fn has_node_ports(spec: &ServiceSpec) -> bool {
    type_of(spec) == "NodePort"
        || (type_of(spec) == "LoadBalancer"
            && spec.allocate_load_balancer_node_ports != Some(false))
}

/// Whether the service needs a health check port on every node.
pub fn has_health_check_port(spec: &ServiceSpec) -> bool {
    type_of(spec) == "LoadBalancer" && spec.external_traffic_policy.as_deref() == Some("Local")
}

/// `clusterIP: None`.
pub fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
}

fn externally_accessible(spec: &ServiceSpec) -> bool {
    matches!(type_of(spec), "LoadBalancer" | "NodePort")
        || (type_of(spec) == "ClusterIP" && spec.external_ips.iter().flatten().next().is_some())
}

fn affinity(spec: &mut ServiceSpec) {
    match spec.session_affinity.as_deref() {
        Some("None") => spec.session_affinity_config = None,
        Some("ClientIP") => {
            let config =
                spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
            if config.and_then(|client| client.timeout_seconds).is_none() {
                spec.session_affinity_config = Some(SessionAffinityConfig {
                    client_ip: Some(ClientIPConfig { timeout_seconds: Some(AFFINITY_SECONDS) }),
                });
            }
        }
        _ => {}
    }
}

fn default_port(port: &mut ServicePort) {
    fill::text(&mut port.protocol, "TCP");
    let unset = match &port.target_port {
        None => true,
        Some(IntOrString::Int(number)) => *number == 0,
        Some(IntOrString::String(name)) => name.is_empty(),
    };
    if unset {
        port.target_port = Some(IntOrString::Int(port.port));
    }
}

/// `clusterIP` and the first of `clusterIPs` are one field under two names; who changes one of them
/// means both.
fn normalize_cluster_ips(spec: &mut ServiceSpec, old: Option<&ServiceSpec>) {
    let ip = spec.cluster_ip.clone().filter(|ip| !ip.is_empty());
    let was = old.and_then(|old| old.cluster_ip.clone()).filter(|ip| !ip.is_empty());
    let list_changed = old.is_none_or(|old| old.cluster_ips != spec.cluster_ips);
    let empty = spec.cluster_ips.as_ref().is_none_or(Vec::is_empty);
    match (&ip, empty) {
        (Some(ip), true) => spec.cluster_ips = Some(vec![ip.clone()]),
        (None, _) if was.is_some() && !list_changed => spec.cluster_ips = None,
        (Some(ip), false) if ip.as_str() != was.as_deref().unwrap_or_default() && !list_changed => {
            spec.cluster_ips = Some(vec![ip.clone()]);
        }
        _ => {}
    }
}

/// A client that leaves out what was allocated keeps it.
fn keep_allocated(spec: &mut ServiceSpec, old: &ServiceSpec) {
    if has_cluster_ip(spec) && has_cluster_ip(old) {
        if spec.cluster_ip.as_deref().unwrap_or_default().is_empty() {
            spec.cluster_ip.clone_from(&old.cluster_ip);
        }
        if spec.cluster_ips.as_ref().is_none_or(Vec::is_empty) && spec.cluster_ip == old.cluster_ip
        {
            spec.cluster_ips.clone_from(&old.cluster_ips);
        }
        if spec.ip_families.as_ref().is_none_or(Vec::is_empty)
            && spec.cluster_ips == old.cluster_ips
        {
            spec.ip_families.clone_from(&old.ip_families);
        }
        if spec.ip_family_policy.is_none() {
            spec.ip_family_policy.clone_from(&old.ip_family_policy);
        }
    }
    if has_node_ports(spec) && has_node_ports(old) {
        let allocated = |port: &ServicePort| {
            let mut ports = old.ports.iter().flatten();
            ports.find(|old| old.port == port.port && old.protocol == port.protocol)?.node_port
        };
        let taken: Vec<i32> =
            spec.ports.iter().flatten().filter_map(|port| port.node_port).collect();
        for port in spec.ports.iter_mut().flatten() {
            if port.node_port.unwrap_or_default() == 0 {
                port.node_port = allocated(port).filter(|port| !taken.contains(port));
            }
        }
    }
    if has_health_check_port(spec)
        && has_health_check_port(old)
        && spec.health_check_node_port.unwrap_or_default() == 0
    {
        spec.health_check_node_port = old.health_check_node_port;
    }
}

/// A change of type drops the fields that only the old type has, if the client left them unchanged.
fn drop_of_other_type(spec: &mut ServiceSpec, old: &ServiceSpec) {
    if has_cluster_ip(old) && !has_cluster_ip(spec) {
        let cleared = spec.cluster_ip.as_deref().unwrap_or_default().is_empty();
        if cleared || spec.cluster_ip == old.cluster_ip {
            (spec.cluster_ip, spec.cluster_ips) = (None, None);
        }
        if spec.ip_families == old.ip_families {
            spec.ip_families = None;
        }
        if spec.ip_family_policy == old.ip_family_policy {
            spec.ip_family_policy = None;
        }
        if spec.internal_traffic_policy == old.internal_traffic_policy {
            spec.internal_traffic_policy = None;
        }
    }
    if has_node_ports(old) && !has_node_ports(spec) {
        let same = |port: &ServicePort| {
            let mut ports = old.ports.iter().flatten();
            ports.any(|old| old.node_port == port.node_port)
        };
        for port in spec.ports.iter_mut().flatten() {
            if same(port) {
                port.node_port = None;
            }
        }
    }
    if has_health_check_port(old)
        && !has_health_check_port(spec)
        && spec.health_check_node_port == old.health_check_node_port
    {
        spec.health_check_node_port = None;
    }
    if type_of(old) == "LoadBalancer" && type_of(spec) != "LoadBalancer" {
        if spec.load_balancer_class == old.load_balancer_class {
            spec.load_balancer_class = None;
        }
        if spec.allocate_load_balancer_node_ports == old.allocate_load_balancer_node_ports {
            spec.allocate_load_balancer_node_ports = None;
        }
    }
    if !externally_accessible(spec) && spec.external_traffic_policy == old.external_traffic_policy {
        spec.external_traffic_policy = None;
    }
}

/// IP families of a cluster with IPv4 first. A headless service without a selector may have both,
/// since its endpoints are written by hand.
fn families(spec: &mut ServiceSpec) {
    if !has_cluster_ip(spec) {
        return;
    }
    let free =
        is_headless(spec) && spec.selector.as_ref().is_none_or(|selector| selector.is_empty());
    if spec.ip_families.as_ref().is_none_or(Vec::is_empty) {
        let given = spec.cluster_ips.iter().flatten().filter(|ip| *ip != "None");
        let mut families: Vec<String> =
            given.map(|ip| if ip.contains(':') { "IPv6" } else { "IPv4" }.to_owned()).collect();
        if families.is_empty() {
            families.push("IPv4".to_owned());
        }
        if free
            && spec.ip_family_policy.as_deref().is_none_or(|policy| policy != "SingleStack")
            && families.len() == 1
        {
            families.push(if families[0] == "IPv4" { "IPv6" } else { "IPv4" }.to_owned());
        }
        spec.ip_families = Some(families);
    }
    let policy = if free { "RequireDualStack" } else { "SingleStack" };
    fill::text(&mut spec.ip_family_policy, policy);
}

fn external_ip(service: &Value) -> Value {
    let spec = &service["spec"];
    let external = items(&spec["externalIPs"]).iter().filter_map(Value::as_str);
    match text_at(spec, "type") {
        "LoadBalancer" => {
            let mut all = columns::balancer_addresses(service);
            all.extend(external);
            if all.is_empty() { "<pending>".into() } else { columns::joined(&all) }
        }
        "ExternalName" => text_at(spec, "externalName").into(),
        "ClusterIP" | "NodePort" => columns::joined(&external.collect::<Vec<_>>()),
        _ => "<unknown>".into(),
    }
}

fn port_text(port: &ServicePort) -> String {
    let protocol = port.protocol.as_deref().unwrap_or_default();
    match port.node_port {
        Some(node) if node > 0 => format!("{}:{node}/{protocol}", port.port),
        _ => format!("{}/{protocol}", port.port),
    }
}
