//! Ingresses.

use super::check::{self, Errors};
use super::columns;
use super::path::Path;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{
    Ingress, IngressBackend, IngressRule, IngressStatus, IngressTLS,
};
use serde_json::Value;

use super::rules::{generation_of_spec, status_apart};
use super::{Column, Strategy};

/// Annotation that named the class before there was a field for it.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const ABSOLUTE: &str = "must be an absolute path";

/// The strategy of Ingresses.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Class", "The ingress class."),
    columns::text("Hosts", "Hosts that requests are matched against."),
    columns::text("Address", "Addresses of the load balancer."),
    columns::text("Ports", "Ports that are open."),
    columns::AGE,
];

impl Strategy for Rules {
    type Object = Ingress;

    // A status without a load balancer has an empty one.
    status_apart!(IngressStatus { load_balancer: Some(Default::default()) });
    generation_of_spec!();

    fn default(&self, ingress: &mut Ingress) {
        ingress.spec.get_or_insert_default();
    }

    fn validate(&self, ingress: &Ingress) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = Path::new("spec");
        let Some(spec) = &ingress.spec else {
            return errors;
        };
        if spec.default_backend.is_none() && spec.rules.as_ref().is_none_or(Vec::is_empty) {
            let problem = "either `defaultBackend` or `rules` must be specified";
            errors.push(FieldError::invalid(&path, serde_json::json!([]), problem));
        }
        if let Some(backend) = &spec.default_backend {
            validate_backend(backend, &path.child("defaultBackend"), &mut errors);
        }
        for (index, rule) in spec.rules.iter().flatten().enumerate() {
            validate_rule(rule, &path.child("rules").index(index), &mut errors);
        }
        for (index, tls) in spec.tls.iter().flatten().enumerate() {
            validate_tls(tls, &path.child("tls").index(index), &mut errors);
        }
        if let Some(class) = spec.ingress_class_name.as_deref() {
            check::dns_subdomain(class, &path.child("ingressClassName"), &mut errors);
        }
        errors
    }

    fn validate_create(&self, ingress: &Ingress) -> Vec<FieldError> {
        let annotations = ingress.metadata.annotations.as_ref();
        let old = annotations.and_then(|all| all.get(CLASS_ANNOTATION));
        let class = ingress.spec.as_ref();
        let class = class.and_then(|spec| spec.ingress_class_name.as_ref());
        match (old, class) {
            (Some(old), Some(class)) if old != class => {
                let problem = "must match `ingressClassName` when both are specified";
                let field = format!("annotations.{CLASS_ANNOTATION}");
                vec![FieldError::invalid(field, old, problem)]
            }
            _ => Vec::new(),
        }
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, ingress: &Ingress, now: Timestamp) -> Vec<Value> {
        let spec = ingress.spec.clone().unwrap_or_default();
        let hosts: Vec<String> =
            spec.rules.iter().flatten().filter_map(|rule| rule.host.clone()).collect();
        let balancer = ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let addresses: Vec<String> = balancer
            .into_iter()
            .flat_map(|balancer| balancer.ingress.iter().flatten())
            .filter_map(|ingress| ingress.ip.clone().or_else(|| ingress.hostname.clone()))
            .collect();
        let tls = spec.tls.iter().flatten().next().is_some();
        vec![
            columns::name(&ingress.metadata),
            columns::or_none(spec.ingress_class_name.as_deref()),
            if hosts.is_empty() { "*".into() } else { hosts.join(",").into() },
            addresses.join(",").into(),
            if tls { "80, 443" } else { "80" }.into(),
            columns::age(&ingress.metadata, now),
        ]
    }
}

fn validate_rule(rule: &IngressRule, path: &Path, errors: &mut Errors) {
    let host = check::text(&rule.host);
    if !host.is_empty() {
        let own = path.child("host");
        if host.parse::<std::net::IpAddr>().is_ok() {
            errors.push(FieldError::invalid(&own, host, "must be a DNS name, not an IP address"));
        }
        validate_host(host, &own, errors);
    }
    let Some(http) = &rule.http else { return };
    let paths = path.child("http").child("paths");
    if http.paths.is_empty() {
        errors.push(FieldError::required(&paths, ""));
    }
    for (index, item) in http.paths.iter().enumerate() {
        let path = paths.index(index);
        let text = check::text(&item.path);
        match item.path_type.as_str() {
            "Exact" | "Prefix" => validate_path(text, &path.child("path"), errors),
            "ImplementationSpecific" if !text.is_empty() && !text.starts_with('/') => {
                errors.push(FieldError::invalid(path.child("path"), text, ABSOLUTE));
            }
            "ImplementationSpecific" => {}
            "" => errors
                .push(FieldError::required(path.child("pathType"), "pathType must be specified")),
            other => {
                let types = &["Exact", "ImplementationSpecific", "Prefix"];
                errors.push(FieldError::not_supported(path.child("pathType"), other, types));
            }
        }
        validate_backend(&item.backend, &path.child("backend"), errors);
    }
}

/// A name whose first label may be `*`.
fn validate_host(host: &str, path: &Path, errors: &mut Errors) {
    check::dns_subdomain(host.strip_prefix("*.").unwrap_or(host), path, errors);
}

/// A path that no two proxies interpret differently.
fn validate_path(text: &str, path: &Path, errors: &mut Errors) {
    if !text.starts_with('/') {
        errors.push(FieldError::invalid(path, text, ABSOLUTE));
    }
    for part in ["//", "/./", "/../", "%2f", "%2F"] {
        if text.contains(part) {
            let problem = format!("must not contain '{part}'");
            errors.push(FieldError::invalid(path, text, problem));
        }
    }
    for end in ["/..", "/."] {
        if text.ends_with(end) {
            let problem = format!("cannot end with '{end}'");
            errors.push(FieldError::invalid(path, text, problem));
        }
    }
}

fn validate_tls(tls: &IngressTLS, path: &Path, errors: &mut Errors) {
    for (index, host) in tls.hosts.iter().flatten().enumerate() {
        validate_host(host, &path.child("hosts").index(index), errors);
    }
    let secret = check::text(&tls.secret_name);
    if !secret.is_empty() {
        check::dns_subdomain(secret, &path.child("secretName"), errors);
    }
}

fn validate_backend(backend: &IngressBackend, path: &Path, errors: &mut Errors) {
    match (&backend.service, &backend.resource) {
        (Some(_), Some(_)) => {
            let problem = "cannot set both resource and service backends";
            errors.push(FieldError::invalid(path, "", problem));
        }
        (None, None) => {
            errors.push(FieldError::required(path, "resource or service backend is required"))
        }
        (Some(service), None) => {
            let path = path.child("service");
            if service.name.is_empty() {
                errors.push(FieldError::required(path.child("name"), ""));
            } else {
                let problems = api::names::dns_1035_label(&service.name);
                check::invalid(problems, &service.name, &path.child("name"), errors);
            }
            let port = service.port.clone().unwrap_or_default();
            let (number, name) = (port.number.unwrap_or(0), check::text(&port.name));
            match (number != 0, !name.is_empty()) {
                (true, true) => {
                    errors.push(FieldError::invalid(
                        path,
                        "",
                        "cannot set both port name & port number",
                    ));
                }
                (true, false) => {
                    check::port_number(number, &path.child("port").child("number"), errors)
                }
                (false, true) => check::invalid(
                    check::port_name(name),
                    name,
                    &path.child("port").child("name"),
                    errors,
                ),
                (false, false) => {
                    errors.push(FieldError::required(path, "port name or number is required"))
                }
            }
        }
        (None, Some(_)) => {}
    }
}
