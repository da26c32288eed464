//! ServiceCIDRs, the ranges of cluster IPs, and IPAddresses, which say whose each address is
//! (`k8s.io/kubernetes/pkg/apis/networking/validation`).

use std::net::IpAddr;

use api::names;
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use serde_json::Value;

use super::at::At;
use super::check;
use super::columns::text;
use super::table::{Check, Fixed, Rows, age, items, name, status_apart};

pub static SERVICE_CIDRS: Rows<ServiceCIDR> = Rows {
    parts: status_apart!(),
    checks: &[("spec.cidrs", Check::Relation(cidrs))],
    // A second family may be added.
    update: |new, old, at| {
        let list = |one: &ServiceCIDR| {
            one.spec.as_ref().and_then(|spec| spec.cidrs.clone()).unwrap_or_default()
        };
        let (new, old, at) = (list(new), list(old), at.child("spec.cidrs"));
        if new.len() != old.len() && (old.len(), new.len()) != (1, 2) {
            at.invalid(&new, check::IMMUTABLE);
            return;
        }
        for (index, (new, _)) in new.iter().zip(&old).enumerate().filter(|(_, (a, b))| a != b) {
            at.index(index).invalid(new, check::IMMUTABLE);
        }
    },
    columns: &[name(), text("CIDRs", "The ranges.").at("spec.cidrs"), age()],
    ..Rows::NEW
};

pub static IP_ADDRESSES: Rows<IPAddress> = Rows {
    name: |name| match name.parse::<IpAddr>() {
        Err(_) => vec![format!("ParseAddr({name:?}): unable to parse IP")],
        Ok(address) if address.to_string() != name => {
            vec!["not a valid ip in canonical format".to_owned()]
        }
        Ok(_) => Vec::new(),
    },
    checks: &[
        ("spec.parentRef.group", Check::TextIfAny(names::dns_subdomain)),
        ("spec.parentRef.resource", Check::RequiredText(names::path_segment)),
        ("spec.parentRef.name", Check::RequiredText(names::path_segment)),
        ("spec.parentRef.namespace", Check::TextIfAny(names::path_segment)),
    ],
    fixed: &[("spec.parentRef", Fixed::Immutable)],
    columns: &[name(), text("ParentRef", "Whose address it is.").json(parent)],
    ..Rows::NEW
};

/// `services/default/kubernetes`
fn parent(address: &Value) -> Value {
    let parent = &address["spec"]["parentRef"];
    let of = |field: &str| parent[field].as_str().filter(|text| !text.is_empty());
    let resource = of("resource").unwrap_or_default();
    let group = of("group").map(|group| format!(".{group}")).unwrap_or_default();
    let parts =
        [Some(format!("{resource}{group}").to_lowercase().as_str()), of("namespace"), of("name")]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join("/");
    parts.into()
}

/// One range of each family at most.
fn cidrs(list: &Value, at: &At<'_>) {
    let all: Vec<&str> = items(list).iter().filter_map(Value::as_str).collect();
    let nets: Vec<Option<IpNet>> = all.iter().map(|text| text.parse().ok()).collect();
    match nets.as_slice() {
        [] => return at.required("at least one CIDR required"),
        [_] => {}
        [Some(IpNet::V4(_)), Some(IpNet::V6(_))] | [Some(IpNet::V6(_)), Some(IpNet::V4(_))] => {}
        [_, _] => {
            let problem = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96";
            return at.invalid(list, problem);
        }
        _ => {
            return at.invalid(list, "may only hold up to 2 values");
        }
    }
    for (index, (text, net)) in all.iter().zip(nets).enumerate() {
        let at = at.index(index);
        match net {
            None => at.cidr(text),
            Some(net) if net.trunc() != net => {
                at.invalid(text, "must not have bits set beyond the prefix length")
            }
            Some(net) if net.to_string() != *text => {
                at.invalid(text, format!("must be in canonical form (\"{net}\")"));
            }
            Some(_) => {}
        }
    }
}
