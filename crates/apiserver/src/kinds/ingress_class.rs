//! IngressClasses.

use api::names;
use k8s_openapi::api::networking::v1::IngressClass;
use serde_json::Value;

use super::at::At;
use super::columns::{NONE, text};
use super::fill;
use super::table::{Check, Fixed, Rows, age, at, name, text_at};

/// Longest name of a controller, in bytes.
const MAX_CONTROLLER: usize = 250;

pub static RULES: Rows<IngressClass> = Rows {
    default: |class| {
        if let Some(parameters) = &mut class.spec.get_or_insert_default().parameters {
            fill::text(&mut parameters.scope, "Cluster");
        }
    },
    checks: &[
        ("spec.controller", Check::MaxBytes(MAX_CONTROLLER)),
        (
            "spec.controller",
            Check::Relation(|name, at| at.domain_prefixed_path(name.as_str().unwrap_or_default())),
        ),
        (
            "spec.parameters",
            Check::Inside(&[
                ("apiGroup", Check::SetText(names::dns_subdomain)),
                ("kind", Check::Required("")),
                ("kind", Check::Text(names::path_segment)),
                ("name", Check::Required("")),
                ("name", Check::Text(names::path_segment)),
                ("scope", Check::RequiredOneOf(&["Cluster", "Namespace"])),
                ("", Check::Relation(namespace)),
            ]),
        ),
    ],
    fixed: &[("spec.controller", Fixed::Immutable)],
    generation: |new, old| Some(new.spec != old.spec),
    columns: &[
        name(),
        text("Controller", "Controller that handles the class.").at("spec.controller"),
        text("Parameters", "Object with further settings.").json(parameters),
        age(),
    ],
    ..Rows::NEW
};

fn namespace(parameters: &Value, field: &At<'_>) {
    let field = field.child("namespace");
    match (text_at(parameters, "scope"), parameters["namespace"].as_str()) {
        ("Namespace", None) => field.required("`parameters.scope` is set to 'Namespace'"),
        ("Namespace", Some(namespace)) => field.dns_label(namespace),
        ("Cluster", Some(_)) => field.forbidden("`parameters.scope` is set to 'Cluster'"),
        _ => {}
    }
}

/// `Settings.example.com/name`
fn parameters(class: &Value) -> Value {
    let parameters = at(class, "spec.parameters");
    if parameters.is_null() {
        return NONE.into();
    }
    let group = parameters["apiGroup"].as_str().map(|group| format!(".{group}"));
    let (kind, name) = (text_at(parameters, "kind"), text_at(parameters, "name"));
    format!("{kind}{}/{name}", group.unwrap_or_default()).into()
}
