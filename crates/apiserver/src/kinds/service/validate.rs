//! Validation of services (`ValidateService`).

use std::collections::BTreeMap;

use api::address::Special;
use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};

use super::{externally_accessible, has_cluster_ip, has_health_check_port, is_headless, type_of};
use crate::kinds::at::At;
use crate::kinds::check::{self, IMMUTABLE, Unique};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const POLICIES: &[&str] = &["Cluster", "Local"];
/// One day.
const MAX_AFFINITY_SECONDS: i32 = 86_400;
const ONLY_BALANCERS: &str = "may only be used when `type` is 'LoadBalancer'";

pub fn all(spec: &ServiceSpec, at: &At<'_>) {
    let ports = spec.ports.as_deref().unwrap_or_default();
    let port_path = at.child("ports");
    if ports.is_empty() && !is_headless(spec) && type_of(spec) != "ExternalName" {
        port_path.required("");
    }
    of_type(spec, at);
    all_ports(ports, type_of(spec), &port_path);
    at.child("selector").labels(spec.selector.as_ref());
    affinity(spec, at);
    addresses(spec, at);
    at.child("type").one_of(type_of(spec), TYPES);
    balancer(spec, at);
    traffic(spec, at);
}

fn of_type(spec: &ServiceSpec, at: &At<'_>) {
    match type_of(spec) {
        "LoadBalancer" if is_headless(spec) => at
            .item("clusterIPs", 0)
            .invalid("None", "may not be set to 'None' for LoadBalancer services"),
        "NodePort" if is_headless(spec) => at
            .item("clusterIPs", 0)
            .invalid("None", "may not be set to 'None' for NodePort services"),
        "ExternalName" => {
            if spec.cluster_ips.iter().flatten().next().is_some()
                || !check::text(&spec.cluster_ip).is_empty()
            {
                at.child("clusterIPs").forbidden("may not be set for ExternalName services");
            }
            if spec.ip_families.iter().flatten().next().is_some() {
                at.child("ipFamilies").forbidden("may not be set for ExternalName services");
            }
            if spec.ip_family_policy.is_some() {
                at.child("ipFamilyPolicy").forbidden("may not be set for ExternalName services");
            }
            let name = check::text(&spec.external_name);
            let name = name.strip_suffix('.').unwrap_or(name);
            if name.is_empty() {
                at.child("externalName").required("");
            } else {
                at.child("externalName").dns_subdomain(name);
            }
        }
        _ => {}
    }
}

fn all_ports(ports: &[ServicePort], of_type: &str, at: &At<'_>) {
    let mut names = Unique::default();
    let (mut node_ports, mut numbers) = (Unique::default(), Unique::default());
    for (index, port) in ports.iter().enumerate() {
        let at = at.index(index);
        one_port(port, ports.len() > 1, &mut names, &at);
        let protocol = check::text(&port.protocol);
        if let Some(number) = port.node_port.filter(|number| *number != 0) {
            if of_type == "ClusterIP" {
                at.child("nodePort").forbidden("may not be used when `type` is 'ClusterIP'");
            }
            if !node_ports.is_new(&format!("{protocol}/{number}")) {
                at.child("nodePort").duplicate(number);
            }
        }
        if !numbers.is_new(&format!("{protocol}/{}", port.port)) {
            let value = serde_json::json!({"protocol": protocol, "port": port.port});
            at.duplicate(value);
        }
    }
}

fn one_port(port: &ServicePort, name_required: bool, names: &mut Unique, at: &At<'_>) {
    let name = check::text(&port.name);
    if !name.is_empty() {
        at.child("name").dns_label(name);
        names.add(name, &at.child("name"));
    } else if name_required {
        at.child("name").required("");
    }
    at.child("port").port_number(port.port);
    at.child("protocol").one_of(check::text(&port.protocol), check::PROTOCOLS);
    if let Some(target) = &port.target_port {
        at.child("targetPort").port(target);
    }
    if let Some(protocol) = &port.app_protocol {
        at.child("appProtocol").qualified_name(protocol);
    }
}

fn affinity(spec: &ServiceSpec, at: &At<'_>) {
    let affinity = check::text(&spec.session_affinity);
    at.child("sessionAffinity").one_of(affinity, &["ClientIP", "None"]);
    let at = at.child("sessionAffinityConfig");
    let config = spec.session_affinity_config.as_ref();
    if affinity == "None" && config.is_some() {
        at.forbidden("must not be set when session affinity is None");
        return;
    }
    let seconds = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    if let Some(seconds) = seconds.filter(|seconds| !(1..=MAX_AFFINITY_SECONDS).contains(seconds)) {
        let problem = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
        at.child("clientIP.timeoutSeconds").invalid(seconds, problem);
    }
}

fn addresses(spec: &ServiceSpec, at: &At<'_>) {
    let ips = spec.cluster_ips.as_deref().unwrap_or_default();
    let own = at.child("clusterIPs");
    for (index, ip) in ips.iter().enumerate() {
        if ip == "None" && ips.len() > 1 {
            own.index(index).invalid(ip, "'None' must be the first and only value");
        } else if ip != "None" {
            own.index(index).ip(ip);
        }
    }
    let first = check::text(&spec.cluster_ip);
    if !first.is_empty() && ips.first().is_some_and(|ip| ip != first) {
        own.invalid(ips, "first value must match `clusterIP`");
    }
    if ips.len() > 2 {
        own.invalid(ips, "may only hold up to 2 values");
    }
    if first.is_empty() && !ips.is_empty() {
        own.invalid(ips, "must be empty when `clusterIP` is not specified");
    }
    families(spec, at);
    at.child("ipFamilyPolicy").one_of_or_unset(
        &spec.ip_family_policy,
        &["PreferDualStack", "RequireDualStack", "SingleStack"],
    );
    for (index, ip) in spec.external_ips.iter().flatten().enumerate() {
        let at = at.item("externalIPs", index);
        let before = at.count();
        at.ip(ip);
        if at.count() == before {
            non_special_ip(ip, &at);
        }
    }
}

/// IP families, each once. Only a headless service without a selector may have families that the
/// cluster lacks.
fn families(spec: &ServiceSpec, at: &At<'_>) {
    let own = at.child("ipFamilies");
    let mut seen = Unique::default();
    let free = is_headless(spec) && spec.selector.as_ref().is_none_or(BTreeMap::is_empty);
    for (index, family) in spec.ip_families.iter().flatten().enumerate() {
        let at = own.index(index);
        at.one_of(family, &["IPv4", "IPv6"]);
        seen.add(family, &at);
        if family == "IPv6" && !free {
            at.invalid(family, "not configured on this cluster");
        }
    }
    let policy = check::text(&spec.ip_family_policy);
    if policy == "RequireDualStack" && !free && has_cluster_ip(spec) {
        at.child("ipFamilyPolicy")
            .invalid(policy, "this cluster is not configured for dual-stack services");
    }
}

/// Refuses addresses that a service can never have.
pub fn non_special_ip(ip: &str, at: &At<'_>) {
    let special = ip.parse().ok().and_then(Special::of);
    if let Some(problem) = special.and_then(Special::problem) {
        at.invalid(ip, problem);
    }
}

fn balancer(spec: &ServiceSpec, at: &At<'_>) {
    let is_balancer = type_of(spec) == "LoadBalancer";
    let ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    let own = at.child("LoadBalancerSourceRanges");
    if !ranges.is_empty() && !is_balancer {
        own.forbidden(ONLY_BALANCERS);
    }
    for (index, range) in ranges.iter().enumerate() {
        own.index(index).cidr(range.trim());
    }
    if spec.allocate_load_balancer_node_ports.is_some() && !is_balancer {
        at.child("allocateLoadBalancerNodePorts").forbidden(ONLY_BALANCERS);
    }
    if let Some(class) = &spec.load_balancer_class {
        let own = at.child("loadBalancerClass");
        if !is_balancer {
            own.forbidden(ONLY_BALANCERS);
        }
        own.qualified_name(class);
    }
}

fn traffic(spec: &ServiceSpec, at: &At<'_>) {
    let external = check::text(&spec.external_traffic_policy);
    let own = at.child("externalTrafficPolicy");
    if externally_accessible(spec) {
        own.one_of(external, POLICIES);
    } else if !external.is_empty() {
        own.invalid(external, "may only be set for externally-accessible services");
    }
    if let Some(port) = spec.health_check_node_port.filter(|port| *port != 0) {
        let own = at.child("healthCheckNodePort");
        if has_health_check_port(spec) {
            own.port_number(port);
        } else {
            own.invalid(port, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'");
        }
    }
    let own = at.child("internalTrafficPolicy");
    if has_cluster_ip(spec) && spec.internal_traffic_policy.is_none() {
        own.required("");
    }
    own.one_of_or_unset(&spec.internal_traffic_policy, POLICIES);
    at.child("trafficDistribution").one_of_or_unset(
        &spec.traffic_distribution,
        &["PreferClose", "PreferSameNode", "PreferSameZone"],
    );
}

/// Primary addresses and families are immutable, unless the service is or was an ExternalName.
pub fn update(spec: &ServiceSpec, was: &ServiceSpec, at: &At<'_>) {
    if has_cluster_ip(spec) && has_cluster_ip(was) {
        let (ips, old) = (
            spec.cluster_ips.as_deref().unwrap_or_default(),
            was.cluster_ips.as_deref().unwrap_or_default(),
        );
        if let (Some(new), Some(old)) = (ips.first(), old.first())
            && new != old
        {
            at.item("clusterIPs", 0).invalid(ips, "may not change once set");
        } else if ips.is_empty() && !old.is_empty() {
            at.item("clusterIPs", 0).invalid(ips, "primary clusterIP can not be unset");
        }
        let families =
            |spec: &ServiceSpec| spec.ip_families.as_ref().and_then(|all| all.first().cloned());
        if let (Some(new), Some(old)) = (families(spec), families(was))
            && new != old
        {
            at.item("ipFamilies", 0).invalid(&spec.ip_families, "may not change once set");
        }
    }
    if has_health_check_port(spec)
        && has_health_check_port(was)
        && spec.health_check_node_port != was.health_check_node_port
    {
        at.child("healthCheckNodePort").forbidden(IMMUTABLE);
    }
    if type_of(spec) == "LoadBalancer"
        && type_of(was) == "LoadBalancer"
        && spec.load_balancer_class != was.load_balancer_class
    {
        at.child("loadBalancerClass").invalid(&spec.load_balancer_class, "may not change once set");
    }
}
