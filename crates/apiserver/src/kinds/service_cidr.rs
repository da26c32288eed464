//! ServiceCIDRs, the ranges of cluster IPs, and IPAddresses, which say whose each address is
//! (`k8s.io/kubernetes/pkg/apis/networking/validation`).

use std::net::IpAddr;

use api::names;
use api::status::FieldError;
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use serde_json::Value;

use super::check::{self, Errors};
use super::columns::{self, text};
use super::path::Path;
use super::table::{Cell, Check, Fixed, Rows};

pub static SERVICE_CIDRS: Rows<ServiceCIDR> = Rows {
    checks: &[("spec.cidrs", Check::Relation(cidrs))],
    // A second family may be added.
    update: |new, old, errors| {
        let list = |one: &ServiceCIDR| {
            one.spec.as_ref().and_then(|spec| spec.cidrs.clone()).unwrap_or_default()
        };
        let (new, old, path) = (list(new), list(old), Path::new("spec").child("cidrs"));
        if new.len() != old.len() && (old.len(), new.len()) != (1, 2) {
            errors.push(FieldError::invalid(path, &new, check::IMMUTABLE));
            return;
        }
        for (index, (new, _)) in new.iter().zip(&old).enumerate().filter(|(_, (a, b))| a != b) {
            errors.push(FieldError::invalid(path.index(index), new, check::IMMUTABLE));
        }
    },
    status: Some(&[]),
    columns: &[columns::NAME, text("CIDRs", "The ranges."), columns::AGE],
    cells: &[Cell::Name, Cell::At("spec.cidrs"), Cell::Age],
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
    columns: &[columns::NAME, text("ParentRef", "Whose address it is.")],
    cells: &[Cell::Name, Cell::Made(parent)],
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
fn cidrs(list: &Value, path: &Path, errors: &mut Errors) {
    let all: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let nets: Vec<Option<IpNet>> = all.iter().map(|text| text.parse().ok()).collect();
    match nets.as_slice() {
        [] => return errors.push(FieldError::required(path, "at least one CIDR required")),
        [_] => {}
        [Some(IpNet::V4(_)), Some(IpNet::V6(_))] | [Some(IpNet::V6(_)), Some(IpNet::V4(_))] => {}
        [_, _] => {
            let problem = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96";
            return errors.push(FieldError::invalid(path, list, problem));
        }
        _ => {
            let problem = "may only hold up to 2 values";
            return errors.push(FieldError::invalid(path, list, problem));
        }
    }
    for (index, (text, net)) in all.iter().zip(nets).enumerate() {
        let path = path.index(index);
        match net {
            None => check::cidr(text, &path, errors),
            Some(net) if net.trunc() != net => {
                let problem = "must not have bits set beyond the prefix length";
                errors.push(FieldError::invalid(path, text, problem));
            }
            Some(net) if net.to_string() != *text => {
                let problem = format!("must be in canonical form (\"{net}\")");
                errors.push(FieldError::invalid(path, text, problem));
            }
            Some(_) => {}
        }
    }
}
