//! Ingresses.

use api::names;
use k8s_openapi::api::networking::v1::{Ingress, IngressStatus};
use serde_json::Value;

use super::at::At;
use super::check;
use super::columns::{self, text};
use super::table::{
    self, Check, Parts, Row, Rows, age, is_empty, items, name, status_apart, text_at,
};

/// Annotation that named the class before there was a field for it.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const ABSOLUTE: &str = "must be an absolute path";

pub static RULES: Rows<Ingress> = Rows {
    default: |ingress| {
        ingress.spec.get_or_insert_default();
    },
    parts: Parts {
        // A status without a load balancer has an empty one.
        create: |ingress, _| {
            ingress.status = Some(IngressStatus { load_balancer: Some(Default::default()) });
        },
        ..status_apart!()
    },
    checks: &[(
        "spec",
        Check::Inside(&[
            ("", Check::Relation(some_backend)),
            ("defaultBackend", Check::Inside(BACKEND)),
            (
                "rules",
                Check::Each(&[("host", Check::Relation(host)), ("http", Check::Inside(HTTP))]),
            ),
            (
                "tls",
                Check::Each(&[
                    ("hosts", Check::Each(&[("", Check::Relation(host_name))])),
                    ("secretName", Check::TextIfAny(names::dns_subdomain)),
                ]),
            ),
            ("ingressClassName", Check::SetText(names::dns_subdomain)),
        ]),
    )],
    create: |ingress, at| {
        let old = ingress.metadata.annotations.as_ref().and_then(|all| all.get(CLASS_ANNOTATION));
        let class = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_ref());
        if let (Some(old), Some(class)) = (old, class)
            && old != class
        {
            let problem = "must match `ingressClassName` when both are specified";
            at.child("annotations").child(CLASS_ANNOTATION).invalid(old, problem);
        }
    },
    generation: |new, old| Some(new.spec != old.spec),
    columns: &[
        name(),
        text("Class", "The ingress class.").or("spec.ingressClassName", columns::NONE),
        text("Hosts", "Hosts that requests are matched against.").json(|ingress| {
            let rules = items(table::at(ingress, "spec.rules")).iter();
            let hosts: Vec<&str> = rules.filter_map(|rule| rule["host"].as_str()).collect();
            if hosts.is_empty() { "*".into() } else { hosts.join(",").into() }
        }),
        text("Address", "Addresses of the load balancer.")
            .json(|ingress| columns::balancer_addresses(ingress).join(",").into()),
        text("Ports", "Ports that are open.").json(|ingress| {
            if is_empty(table::at(ingress, "spec.tls")) { "80" } else { "80, 443" }.into()
        }),
        age(),
    ],
    ..Rows::NEW
};

const HTTP: &[Row] = &[
    ("paths", Check::Required("")),
    ("paths", Check::Each(&[("", Check::Relation(path)), ("backend", Check::Inside(BACKEND))])),
];

const BACKEND: &[Row] = &[("", Check::Relation(backend))];

fn some_backend(spec: &Value, at: &At<'_>) {
    if spec["defaultBackend"].is_null() && is_empty(&spec["rules"]) {
        at.invalid(serde_json::json!([]), "either `defaultBackend` or `rules` must be specified");
    }
}

fn host(host: &Value, at: &At<'_>) {
    let text = host.as_str().unwrap_or_default();
    if text.parse::<std::net::IpAddr>().is_ok() {
        at.invalid(text, "must be a DNS name, not an IP address");
    }
    if !text.is_empty() {
        host_name(host, at);
    }
}

/// A name whose first label may be `*`.
fn host_name(host: &Value, at: &At<'_>) {
    let host = host.as_str().unwrap_or_default();
    at.dns_subdomain(host.strip_prefix("*.").unwrap_or(host));
}

/// A path that no two proxies interpret differently.
fn path(item: &Value, at: &At<'_>) {
    const TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];
    let (text, of_type, at) = (text_at(item, "path"), at.child("pathType"), at.child("path"));
    let absolute = text.starts_with('/');
    match text_at(item, "pathType") {
        "Exact" | "Prefix" => {
            if !absolute {
                at.invalid(text, ABSOLUTE);
            }
            for part in
                ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|it| text.contains(it))
            {
                at.invalid(text, format!("must not contain '{part}'"));
            }
            for end in ["/..", "/."].into_iter().filter(|it| text.ends_with(it)) {
                at.invalid(text, format!("cannot end with '{end}'"));
            }
        }
        "ImplementationSpecific" if !text.is_empty() && !absolute => at.invalid(text, ABSOLUTE),
        "ImplementationSpecific" => {}
        "" => of_type.required("pathType must be specified"),
        other => of_type.not_supported(other, TYPES),
    }
}

fn backend(backend: &Value, at: &At<'_>) {
    let service = &backend["service"];
    match (service.is_null(), backend["resource"].is_null()) {
        (false, false) => {
            return at.invalid("", "cannot set both resource and service backends");
        }
        (true, true) => return at.required("resource or service backend is required"),
        (true, false) => return,
        (false, true) => {}
    }
    let at = at.child("service");
    at.child("name").required_text(names::dns_1035_label, text_at(service, "name"));
    let number = table::at(service, "port.number").as_i64().unwrap_or_default();
    match (number, text_at(service, "port.name")) {
        (0, "") => at.required("port name or number is required"),
        (0, name) => at.child("port.name").texts(check::port_name(name), name),
        (number, "") => at.child("port.number").in_range(number, 1, 65_535),
        _ => at.invalid("", "cannot set both port name & port number"),
    }
}
