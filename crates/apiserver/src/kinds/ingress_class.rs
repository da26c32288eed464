//! IngressClasses.

use super::check::{self, Errors};
use super::columns;
use super::path::Path;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IngressClass, IngressClassParametersReference};
use serde_json::Value;

use super::rules::generation_of_spec;
use super::{Column, Strategy, fill};

/// Longest name of a controller, in bytes.
const MAX_CONTROLLER: usize = 250;

/// The strategy of IngressClasses.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Controller", "Controller that handles the class."),
    columns::text("Parameters", "Object with further settings."),
    columns::AGE,
];

impl Strategy for Rules {
    type Object = IngressClass;

    generation_of_spec!();

    fn default(&self, class: &mut IngressClass) {
        if let Some(parameters) = &mut class.spec.get_or_insert_default().parameters {
            fill::text(&mut parameters.scope, "Cluster");
        }
    }

    fn validate(&self, class: &IngressClass) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = Path::new("spec");
        let spec = class.spec.as_ref();
        let controller = spec.and_then(|spec| spec.controller.as_deref());
        let controller = controller.unwrap_or_default();
        let own = path.child("controller");
        if controller.len() > MAX_CONTROLLER {
            errors.push(FieldError::too_long(&own, MAX_CONTROLLER));
        }
        check::domain_prefixed_path(controller, &own, &mut errors);
        if let Some(parameters) = spec.and_then(|spec| spec.parameters.as_ref()) {
            validate_parameters(parameters, &path.child("parameters"), &mut errors);
        }
        errors
    }

    fn validate_update(&self, new: &IngressClass, old: &IngressClass) -> Vec<FieldError> {
        let controller =
            |class: &IngressClass| class.spec.as_ref().and_then(|spec| spec.controller.clone());
        if controller(new) == controller(old) {
            return Vec::new();
        }
        vec![FieldError::invalid("spec.controller", controller(new), "field is immutable")]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, class: &IngressClass, now: Timestamp) -> Vec<Value> {
        let spec = class.spec.clone().unwrap_or_default();
        let parameters = spec.parameters.map(|parameters| {
            let group = parameters.api_group.map(|group| format!(".{group}")).unwrap_or_default();
            format!("{}{group}/{}", parameters.kind, parameters.name)
        });
        vec![
            columns::name(&class.metadata),
            spec.controller.unwrap_or_default().into(),
            columns::or_none(parameters.as_deref()),
            columns::age(&class.metadata, now),
        ]
    }
}

fn validate_parameters(
    parameters: &IngressClassParametersReference,
    path: &Path,
    errors: &mut Errors,
) {
    if let Some(group) = &parameters.api_group {
        check::dns_subdomain(group, &path.child("apiGroup"), errors);
    }
    for (field, value) in [("kind", &parameters.kind), ("name", &parameters.name)] {
        let path = path.child(field);
        check::required(value, &path, errors);
        check::invalid(api::names::path_segment(value), value, &path, errors);
    }
    let scope = check::text(&parameters.scope);
    check::one_of(scope, &["Cluster", "Namespace"], &path.child("scope"), errors);
    let own = path.child("namespace");
    match (scope, &parameters.namespace) {
        ("Namespace", None) => {
            let problem = "`parameters.scope` is set to 'Namespace'";
            errors.push(FieldError::required(own, problem));
        }
        ("Namespace", Some(namespace)) => check::dns_label(namespace, &own, errors),
        ("Cluster", Some(_)) => {
            let problem = "`parameters.scope` is set to 'Cluster'";
            errors.push(FieldError::forbidden(own, problem));
        }
        _ => {}
    }
}
