//! NetworkPolicies.

use super::check::{self, Errors};
use super::columns;
use super::path::Path;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
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
            (None, Some(_)) => {
                let problem = "must be specified when `endPort` is specified";
                errors.push(FieldError::required(path.child("port"), problem));
            }
            (Some(IntOrString::String(name)), Some(end)) => {
                check::invalid(check::port_name(name), name, &path.child("port"), errors);
                let problem = "may not be specified when `port` is non-numeric";
                errors.push(FieldError::invalid(path.child("endPort"), end, problem));
            }
            (Some(number), end) => {
                check::port(number, &path.child("port"), errors);
                if let (IntOrString::Int(number), Some(end)) = (number, end) {
                    check::port_number(end, &path.child("endPort"), errors);
                    if end < *number {
                        let problem = "must be greater than or equal to `port`";
                        errors.push(FieldError::invalid(path.child("endPort"), end, problem));
                    }
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
        match &peer.ip_block {
            None if !selects => errors.push(FieldError::required(&path, "must specify a peer")),
            None => {}
            Some(_) if selects => {
                let problem = "may not specify both ipBlock and another peer";
                errors.push(FieldError::forbidden(&path, problem));
            }
            Some(block) => {
                let path = path.child("ipBlock");
                check::cidr(&block.cidr, &path.child("cidr"), errors);
                let whole = block.cidr.parse::<ipnet::IpNet>();
                for (index, except) in block.except.iter().flatten().enumerate() {
                    let path = path.child("except").index(index);
                    check::cidr(except, &path, errors);
                    if let (Ok(whole), Ok(part)) = (&whole, except.parse::<ipnet::IpNet>())
                        && (!whole.contains(&part) || *whole == part)
                    {
                        let problem =
                            format!("must be a strict subset of `cidr`: {:?}", block.cidr);
                        errors.push(FieldError::invalid(path, except, problem));
                    }
                }
            }
        }
    }
}
