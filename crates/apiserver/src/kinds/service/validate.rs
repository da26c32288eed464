//! Validation of services (`ValidateService`).

use std::collections::BTreeMap;

use api::address::Special;
use api::status::FieldError;
use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};

use super::{externally_accessible, has_cluster_ip, has_health_check_port, is_headless, type_of};
use crate::kinds::check::{self, Errors, IMMUTABLE, Unique};
use crate::kinds::path::Path;

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const POLICIES: &[&str] = &["Cluster", "Local"];
/// One day.
const MAX_AFFINITY_SECONDS: i32 = 86_400;
const ONLY_BALANCERS: &str = "may only be used when `type` is 'LoadBalancer'";

pub fn all(spec: &ServiceSpec) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    let ports = spec.ports.as_deref().unwrap_or_default();
    let port_path = path.child("ports");
    if ports.is_empty() && !is_headless(spec) && type_of(spec) != "ExternalName" {
        errors.push(FieldError::required(&port_path, ""));
    }
    of_type(spec, &path, &mut errors);
    all_ports(ports, type_of(spec), &port_path, &mut errors);
    check::labels(spec.selector.as_ref(), &path.child("selector"), &mut errors);
    affinity(spec, &path, &mut errors);
    addresses(spec, &path, &mut errors);
    check::one_of(type_of(spec), TYPES, &path.child("type"), &mut errors);
    balancer(spec, &path, &mut errors);
    traffic(spec, &path, &mut errors);
    errors
}

fn of_type(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    match type_of(spec) {
        "LoadBalancer" if is_headless(spec) => {
            let problem = "may not be set to 'None' for LoadBalancer services";
            errors.push(FieldError::invalid(path.child("clusterIPs").index(0), "None", problem));
        }
        "NodePort" if is_headless(spec) => {
            let problem = "may not be set to 'None' for NodePort services";
            errors.push(FieldError::invalid(path.child("clusterIPs").index(0), "None", problem));
        }
        "ExternalName" => {
            if spec.cluster_ips.iter().flatten().next().is_some()
                || !check::text(&spec.cluster_ip).is_empty()
            {
                let problem = "may not be set for ExternalName services";
                errors.push(FieldError::forbidden(path.child("clusterIPs"), problem));
            }
            if spec.ip_families.iter().flatten().next().is_some() {
                let problem = "may not be set for ExternalName services";
                errors.push(FieldError::forbidden(path.child("ipFamilies"), problem));
            }
            if spec.ip_family_policy.is_some() {
                let problem = "may not be set for ExternalName services";
                errors.push(FieldError::forbidden(path.child("ipFamilyPolicy"), problem));
            }
            let name = check::text(&spec.external_name);
            let name = name.strip_suffix('.').unwrap_or(name);
            if name.is_empty() {
                errors.push(FieldError::required(path.child("externalName"), ""));
            } else {
                check::dns_subdomain(name, &path.child("externalName"), errors);
            }
        }
        _ => {}
    }
}

fn all_ports(ports: &[ServicePort], of_type: &str, path: &Path, errors: &mut Errors) {
    let mut names = Unique::default();
    let (mut node_ports, mut numbers) = (Unique::default(), Unique::default());
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        one_port(port, ports.len() > 1, &mut names, &path, errors);
        let protocol = check::text(&port.protocol);
        if let Some(number) = port.node_port.filter(|number| *number != 0) {
            if of_type == "ClusterIP" {
                let problem = "may not be used when `type` is 'ClusterIP'";
                errors.push(FieldError::forbidden(path.child("nodePort"), problem));
            }
            if !node_ports.insert(&format!("{protocol}/{number}"), &path, &mut Errors::new()) {
                errors.push(FieldError::duplicate(path.child("nodePort"), number));
            }
        }
        if !numbers.insert(&format!("{protocol}/{}", port.port), &path, &mut Errors::new()) {
            let value = serde_json::json!({"protocol": protocol, "port": port.port});
            errors.push(FieldError::duplicate(&path, value));
        }
    }
}

fn one_port(
    port: &ServicePort,
    name_required: bool,
    names: &mut Unique,
    path: &Path,
    errors: &mut Errors,
) {
    let name = check::text(&port.name);
    if !name.is_empty() {
        check::dns_label(name, &path.child("name"), errors);
        names.insert(name, &path.child("name"), errors);
    } else if name_required {
        errors.push(FieldError::required(path.child("name"), ""));
    }
    check::port_number(port.port, &path.child("port"), errors);
    check::one_of(check::text(&port.protocol), check::PROTOCOLS, &path.child("protocol"), errors);
    if let Some(target) = &port.target_port {
        check::port(target, &path.child("targetPort"), errors);
    }
    if let Some(protocol) = &port.app_protocol {
        check::qualified_name(protocol, &path.child("appProtocol"), errors);
    }
}

fn affinity(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let affinity = check::text(&spec.session_affinity);
    check::one_of(affinity, &["ClientIP", "None"], &path.child("sessionAffinity"), errors);
    let path = path.child("sessionAffinityConfig");
    let config = spec.session_affinity_config.as_ref();
    if affinity == "None" && config.is_some() {
        errors.push(FieldError::forbidden(path, "must not be set when session affinity is None"));
        return;
    }
    let seconds = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    if let Some(seconds) = seconds.filter(|seconds| !(1..=MAX_AFFINITY_SECONDS).contains(seconds)) {
        let problem = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
        errors.push(FieldError::invalid(
            path.child("clientIP").child("timeoutSeconds"),
            seconds,
            problem,
        ));
    }
}

fn addresses(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let ips = spec.cluster_ips.as_deref().unwrap_or_default();
    let own = path.child("clusterIPs");
    for (index, ip) in ips.iter().enumerate() {
        if ip == "None" && ips.len() > 1 {
            let problem = "'None' must be the first and only value";
            errors.push(FieldError::invalid(own.index(index), ip, problem));
        } else if ip != "None" {
            check::ip(ip, &own.index(index), errors);
        }
    }
    let first = check::text(&spec.cluster_ip);
    if !first.is_empty() && ips.first().is_some_and(|ip| ip != first) {
        let problem = "first value must match `clusterIP`";
        errors.push(FieldError::invalid(&own, ips, problem));
    }
    if ips.len() > 2 {
        let problem = "may only hold up to 2 values";
        errors.push(FieldError::invalid(&own, ips, problem));
    }
    if first.is_empty() && !ips.is_empty() {
        let problem = "must be empty when `clusterIP` is not specified";
        errors.push(FieldError::invalid(&own, ips, problem));
    }
    families(spec, path, errors);
    check::one_of_or_unset(
        &spec.ip_family_policy,
        &["PreferDualStack", "RequireDualStack", "SingleStack"],
        &path.child("ipFamilyPolicy"),
        errors,
    );
    for (index, ip) in spec.external_ips.iter().flatten().enumerate() {
        let path = path.child("externalIPs").index(index);
        let before = errors.len();
        check::ip(ip, &path, errors);
        if errors.len() == before {
            non_special_ip(ip, &path, errors);
        }
    }
}

/// IP families, each once. Only a headless service without a selector may have families that the
/// cluster lacks.
fn families(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let own = path.child("ipFamilies");
    let mut seen = Unique::default();
    let free = is_headless(spec) && spec.selector.as_ref().is_none_or(BTreeMap::is_empty);
    for (index, family) in spec.ip_families.iter().flatten().enumerate() {
        let path = own.index(index);
        check::one_of(family, &["IPv4", "IPv6"], &path, errors);
        seen.insert(family, &path, errors);
        if family == "IPv6" && !free {
            let problem = "not configured on this cluster";
            errors.push(FieldError::invalid(&path, family, problem));
        }
    }
    let policy = check::text(&spec.ip_family_policy);
    if policy == "RequireDualStack" && !free && has_cluster_ip(spec) {
        let problem = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid(path.child("ipFamilyPolicy"), policy, problem));
    }
}

/// Refuses addresses that a service can never have.
pub fn non_special_ip(ip: &str, path: &Path, errors: &mut Errors) {
    let special = ip.parse().ok().and_then(Special::of);
    if let Some(problem) = special.and_then(Special::problem) {
        errors.push(FieldError::invalid(path, ip, problem));
    }
}

fn balancer(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let is_balancer = type_of(spec) == "LoadBalancer";
    let ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    let own = path.child("LoadBalancerSourceRanges");
    if !ranges.is_empty() && !is_balancer {
        errors.push(FieldError::forbidden(&own, ONLY_BALANCERS));
    }
    for (index, range) in ranges.iter().enumerate() {
        check::cidr(range.trim(), &own.index(index), errors);
    }
    if spec.allocate_load_balancer_node_ports.is_some() && !is_balancer {
        errors.push(FieldError::forbidden(
            path.child("allocateLoadBalancerNodePorts"),
            ONLY_BALANCERS,
        ));
    }
    if let Some(class) = &spec.load_balancer_class {
        let own = path.child("loadBalancerClass");
        if !is_balancer {
            errors.push(FieldError::forbidden(&own, ONLY_BALANCERS));
        }
        check::qualified_name(class, &own, errors);
    }
}

fn traffic(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let external = check::text(&spec.external_traffic_policy);
    let own = path.child("externalTrafficPolicy");
    if externally_accessible(spec) {
        check::one_of(external, POLICIES, &own, errors);
    } else if !external.is_empty() {
        errors.push(FieldError::invalid(
            own,
            external,
            "may only be set for externally-accessible services",
        ));
    }
    if let Some(port) = spec.health_check_node_port.filter(|port| *port != 0) {
        let own = path.child("healthCheckNodePort");
        if has_health_check_port(spec) {
            check::port_number(port, &own, errors);
        } else {
            let problem = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(FieldError::invalid(own, port, problem));
        }
    }
    let own = path.child("internalTrafficPolicy");
    if has_cluster_ip(spec) && spec.internal_traffic_policy.is_none() {
        errors.push(FieldError::required(&own, ""));
    }
    check::one_of_or_unset(&spec.internal_traffic_policy, POLICIES, &own, errors);
    check::one_of_or_unset(
        &spec.traffic_distribution,
        &["PreferClose", "PreferSameNode", "PreferSameZone"],
        &path.child("trafficDistribution"),
        errors,
    );
}

/// Primary addresses and families are immutable, unless the service is or was an ExternalName.
pub fn update(spec: &ServiceSpec, was: &ServiceSpec) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    if has_cluster_ip(spec) && has_cluster_ip(was) {
        let (ips, old) = (
            spec.cluster_ips.as_deref().unwrap_or_default(),
            was.cluster_ips.as_deref().unwrap_or_default(),
        );
        if let (Some(new), Some(old)) = (ips.first(), old.first())
            && new != old
        {
            let problem = "may not change once set";
            errors.push(FieldError::invalid(path.child("clusterIPs").index(0), ips, problem));
        } else if ips.is_empty() && !old.is_empty() {
            let problem = "primary clusterIP can not be unset";
            errors.push(FieldError::invalid(path.child("clusterIPs").index(0), ips, problem));
        }
        let families =
            |spec: &ServiceSpec| spec.ip_families.as_ref().and_then(|all| all.first().cloned());
        if let (Some(new), Some(old)) = (families(spec), families(was))
            && new != old
        {
            let problem = "may not change once set";
            errors.push(FieldError::invalid(
                path.child("ipFamilies").index(0),
                &spec.ip_families,
                problem,
            ));
        }
    }
    if has_health_check_port(spec)
        && has_health_check_port(was)
        && spec.health_check_node_port != was.health_check_node_port
    {
        errors.push(FieldError::forbidden(path.child("healthCheckNodePort"), IMMUTABLE));
    }
    if type_of(spec) == "LoadBalancer"
        && type_of(was) == "LoadBalancer"
        && spec.load_balancer_class != was.load_balancer_class
    {
        let problem = "may not change once set";
        errors.push(FieldError::invalid(
            path.child("loadBalancerClass"),
            &spec.load_balancer_class,
            problem,
        ));
    }
    errors
}
