//! NetworkPolicies.

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::at::At;
use super::columns::{self, text};
use super::table::{Check, Row, Rows, age, apply, items, name, parsed, text_at, value};
use super::{check, fill};

pub static RULES: Rows<NetworkPolicy> = Rows {
    default: |policy| {
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
    },
    checks: &[
        ("spec.podSelector", Check::LabelSelector),
        ("spec.ingress", Check::Each(&[("ports", Check::Each(PORT)), ("from", Check::Each(PEER))])),
        ("spec.egress", Check::Each(&[("ports", Check::Each(PORT)), ("to", Check::Each(PEER))])),
        ("spec.policyTypes", Check::Relation(types)),
    ],
    generation: |new, old| Some(new.spec != old.spec),
    warnings: |new, old| {
        let before: Vec<_> = old.into_iter().flat_map(cidrs).map(|(_, cidr)| cidr).collect();
        let added = cidrs(new).into_iter().filter(|(_, cidr)| !before.contains(cidr));
        added.filter_map(|(path, cidr)| cidr_warning(&path, &cidr)).collect()
    },
    columns: &[
        name(),
        text("Pod-Selector", "Pods that the policy is about.").of(|policy| {
            let spec = policy.spec.as_ref();
            columns::selector(spec.and_then(|spec| spec.pod_selector.as_ref()))
        }),
        age(),
    ],
    ..Rows::NEW
};

const PORT: &[Row] =
    &[("protocol", Check::SetOneOf(check::PROTOCOLS)), ("", Check::Relation(port_range))];

const PEER: &[Row] = &[
    ("podSelector", Check::LabelSelector),
    ("namespaceSelector", Check::LabelSelector),
    (
        "ipBlock",
        Check::Inside(&[
            ("cidr", Check::Required("")),
            ("cidr", Check::Relation(cidr_if_any)),
            ("", Check::Relation(exceptions)),
        ]),
    ),
    ("", Check::Relation(one_peer)),
];

fn types(types: &Value, at: &At<'_>) {
    if items(types).len() > 2 {
        return at.invalid(types, "may not specify more than two policyTypes");
    }
    apply(Check::Each(&[("", Check::RequiredOneOf(&["Egress", "Ingress"]))]), types, at);
}

fn port_range(range: &Value, at: &At<'_>) {
    let (port, end) = (parsed::<IntOrString>(&range["port"]), range["endPort"].as_i64());
    let (port_at, end_at) = (at.child("port"), at.child("endPort"));
    match (&port, end) {
        (None, Some(end)) => {
            end_at.invalid(end, "may not be specified when `port` is not specified");
        }
        (Some(name @ IntOrString::String(_)), Some(end)) => {
            end_at.invalid(end, "may not be specified when `port` is non-numeric");
            port_at.port(name);
        }
        (Some(port), end) => {
            port_at.port(port);
            if let (IntOrString::Int(first), Some(end)) = (port, end) {
                if end < i64::from(*first) {
                    end_at.invalid(end, "must be greater than or equal to `port`");
                }
                apply(Check::Range(1, 65_535), &range["endPort"], &end_at);
            }
        }
        (None, None) => {}
    }
}

fn one_peer(peer: &Value, at: &At<'_>) {
    let selects = !peer["podSelector"].is_null() || !peer["namespaceSelector"].is_null();
    match (selects, !peer["ipBlock"].is_null()) {
        (false, false) => at.required("must specify a peer"),
        (true, true) => at.forbidden("may not specify both ipBlock and another peer"),
        _ => {}
    }
}

fn cidr_if_any(cidr: &Value, at: &At<'_>) {
    match cidr.as_str() {
        None | Some("") => {}
        Some(cidr) => at.cidr(cidr),
    }
}

fn exceptions(block: &Value, at: &At<'_>) {
    let Ok(whole) = text_at(block, "cidr").parse::<IpNet>() else { return };
    for (index, except) in items(&block["except"]).iter().enumerate() {
        let (at, except) = (at.item("except", index), except.as_str().unwrap_or_default());
        at.cidr(except);
        if let Ok(part) = except.parse::<IpNet>()
            && (!whole.contains(&part.network()) || whole.prefix_len() >= part.prefix_len())
        {
            at.invalid(except, "must be a strict subset of `cidr`");
        }
    }
}

/// All address ranges of a policy with their paths.
fn cidrs(policy: &NetworkPolicy) -> Vec<(String, String)> {
    let (spec, mut found) = (value(&policy.spec), Vec::new());
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for (rule, number) in items(&spec[rules]).iter().zip(0..) {
            for (peer, index) in items(&rule[peers]).iter().zip(0..) {
                let (block, at) =
                    (&peer["ipBlock"], format!("spec.{rules}[{number}].{peers}[{index}].ipBlock"));
                let whole =
                    block["cidr"].as_str().map(|cidr| (format!("{at}.cidr"), cidr.to_owned()));
                let except = items(&block["except"]).iter().zip(0..).filter_map(|(cidr, index)| {
                    Some((format!("{at}.except[{index}]"), cidr.as_str()?.to_owned()))
                });
                found.extend(whole.into_iter().chain(except));
            }
        }
    }
    found
}

/// About a range that others may read differently (`GetWarningsForCIDR`).
fn cidr_warning(path: &str, cidr: &str) -> Option<String> {
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
