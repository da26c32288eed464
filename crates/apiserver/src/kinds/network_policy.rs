//! NetworkPolicies.

use super::check::{self, Errors};
use super::columns;
use super::path::Path;
use api::status::FieldError;
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::rules::generation_of_spec;
use super::{Column, Strategy, fill};

/// The strategy of NetworkPolicies.
pub struct Rules;

static COLUMNS: &[Column] =
    &[columns::NAME, columns::text("Pod-Selector", "Pods that the policy is about."), columns::AGE];

impl Strategy for Rules {
    type Object = NetworkPolicy;

    generation_of_spec!();

    fn default(&self, policy: &mut NetworkPolicy) {
        let spec = policy.spec.get_or_insert_default();
        spec.pod_selector.get_or_insert_default();
        let ingress =
            spec.ingress.iter_mut().flatten().flat_map(|rule| rule.ports.iter_mut().flatten());
        let egress =
            spec.egress.iter_mut().flatten().flat_map(|rule| rule.ports.iter_mut().flatten());
        for port in ingress.chain(egress) {
            fill::text(&mut port.protocol, "TCP");
        }
        if spec.policy_types.as_ref().is_none_or(Vec::is_empty) {
            let mut types = vec!["Ingress".to_owned()];
            if spec.egress.iter().flatten().next().is_some() {
                types.push("Egress".to_owned());
            }
            spec.policy_types = Some(types);
        }
    }

    fn validate(&self, policy: &NetworkPolicy) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = Path::new("spec");
        let Some(spec) = &policy.spec else {
            return errors;
        };
        check::label_selector(spec.pod_selector.as_ref(), &path.child("podSelector"), &mut errors);
        for (index, rule) in spec.ingress.iter().flatten().enumerate() {
            let path = path.child("ingress").index(index);
            validate_ports(rule.ports.as_deref(), &path.child("ports"), &mut errors);
            validate_peers(rule.from.as_deref(), &path.child("from"), &mut errors);
        }
        for (index, rule) in spec.egress.iter().flatten().enumerate() {
            let path = path.child("egress").index(index);
            validate_ports(rule.ports.as_deref(), &path.child("ports"), &mut errors);
            validate_peers(rule.to.as_deref(), &path.child("to"), &mut errors);
        }
        let types = spec.policy_types.as_deref().unwrap_or_default();
        if types.len() > 2 {
            let problem = "may not specify more than two policyTypes";
            errors.push(FieldError::invalid(path.child("policyTypes"), types, problem));
            return errors;
        }
        for (index, kind) in types.iter().enumerate() {
            check::one_of(
                kind,
                &["Egress", "Ingress"],
                &path.child("policyTypes").index(index),
                &mut errors,
            );
        }
        errors
    }

    fn warnings(&self, new: &NetworkPolicy, old: Option<&NetworkPolicy>) -> Vec<String> {
        let before: Vec<&str> = old.into_iter().flat_map(cidrs).map(|(_, cidr)| cidr).collect();
        let added = cidrs(new).into_iter().filter(|(_, cidr)| !before.contains(cidr));
        added.filter_map(|(path, cidr)| cidr_warning(&path, cidr)).collect()
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, policy: &NetworkPolicy, now: Timestamp) -> Vec<Value> {
        let selector = policy.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref());
        vec![
            columns::name(&policy.metadata),
            columns::selector(selector),
            columns::age(&policy.metadata, now),
        ]
    }
}

fn validate_ports(ports: Option<&[NetworkPolicyPort]>, path: &Path, errors: &mut Errors) {
    for (index, port) in ports.into_iter().flatten().enumerate() {
        let path = path.index(index);
        check::one_of_or_unset(&port.protocol, check::PROTOCOLS, &path.child("protocol"), errors);
        match (&port.port, port.end_port) {
            (None, Some(end)) => {
                let problem = "may not be specified when `port` is not specified";
                errors.push(FieldError::invalid(path.child("endPort"), end, problem));
            }
            (Some(IntOrString::String(name)), Some(end)) => {
                let problem = "may not be specified when `port` is non-numeric";
                errors.push(FieldError::invalid(path.child("endPort"), end, problem));
                check::invalid(check::port_name(name), name, &path.child("port"), errors);
            }
            (Some(number), end) => {
                check::port(number, &path.child("port"), errors);
                if let (IntOrString::Int(number), Some(end)) = (number, end) {
                    if end < *number {
                        let problem = "must be greater than or equal to `port`";
                        errors.push(FieldError::invalid(path.child("endPort"), end, problem));
                    }
                    check::port_number(end, &path.child("endPort"), errors);
                }
            }
            (None, None) => {}
        }
    }
}

fn validate_peers(peers: Option<&[NetworkPolicyPeer]>, path: &Path, errors: &mut Errors) {
    for (index, peer) in peers.into_iter().flatten().enumerate() {
        let path = path.index(index);
        let selects = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
        check::label_selector(peer.pod_selector.as_ref(), &path.child("podSelector"), errors);
        check::label_selector(
            peer.namespace_selector.as_ref(),
            &path.child("namespaceSelector"),
            errors,
        );
        if let Some(block) = &peer.ip_block {
            validate_block(block, &path.child("ipBlock"), errors);
        }
        match &peer.ip_block {
            None if !selects => errors.push(FieldError::required(&path, "must specify a peer")),
            Some(_) if selects => {
                let problem = "may not specify both ipBlock and another peer";
                errors.push(FieldError::forbidden(&path, problem));
            }
            _ => {}
        }
    }
}

fn validate_block(block: &IPBlock, path: &Path, errors: &mut Errors) {
    if block.cidr.is_empty() {
        errors.push(FieldError::required(path.child("cidr"), ""));
        return;
    }
    check::cidr(&block.cidr, &path.child("cidr"), errors);
    let Ok(whole) = block.cidr.parse::<IpNet>() else {
        return;
    };
    for (index, except) in block.except.iter().flatten().enumerate() {
        let path = path.child("except").index(index);
        check::cidr(except, &path, errors);
        if let Ok(part) = except.parse::<IpNet>()
            && (!whole.contains(&part.network()) || whole.prefix_len() >= part.prefix_len())
        {
            let problem = "must be a strict subset of `cidr`";
            errors.push(FieldError::invalid(path, except, problem));
        }
    }
}

/// All address ranges of a policy with their paths.
fn cidrs(policy: &NetworkPolicy) -> Vec<(Path, &str)> {
    let path = Path::new("spec");
    let spec = policy.spec.iter();
    let ingress = spec.clone().flat_map(|spec| spec.ingress.iter().flatten().enumerate());
    let ingress =
        ingress.map(|(at, rule)| (path.child("ingress").index(at).child("from"), &rule.from));
    let egress = spec.flat_map(|spec| spec.egress.iter().flatten().enumerate());
    let egress = egress.map(|(at, rule)| (path.child("egress").index(at).child("to"), &rule.to));
    let mut found = Vec::new();
    for (path, peers) in ingress.chain(egress) {
        for (at, peer) in peers.iter().flatten().enumerate() {
            let Some(block) = &peer.ip_block else {
                continue;
            };
            let path = path.index(at).child("ipBlock");
            found.push((path.child("cidr"), block.cidr.as_str()));
            let except = block.except.iter().flatten().enumerate();
            found.extend(except.map(|(at, one)| (path.child("except").index(at), one.as_str())));
        }
    }
    found
}

/// About a range that others may read differently (`GetWarningsForCIDR`).
fn cidr_warning(path: &Path, cidr: &str) -> Option<String> {
    let net: IpNet = cidr.parse().ok()?;
    let (network, address) = (net.trunc(), net.addr());
    if network.addr() != address {
        let single = IpNet::from(address);
        return Some(format!(
            "{path}: CIDR value {cidr:?} is ambiguous in this context (should be \"{network}\" or \"{single}\"?)"
        ));
    }
    let canonical = network.to_string();
    (address.is_ipv6() && canonical != cidr).then(|| {
        format!("{path}: IPv6 CIDR value {cidr:?} should be in RFC 5952 canonical format ({canonical:?})")
    })
}
