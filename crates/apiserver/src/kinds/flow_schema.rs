//! FlowSchemas: which requests go to which priority level (`pkg/apis/flowcontrol/validation`).

use std::collections::BTreeSet;

use api::names;
use k8s_openapi::api::flowcontrol::v1::FlowSchema;
use serde_json::Value;

use super::at::At;
use super::columns::{self, integer, text};
use super::table::{
    self, Check, Parts, Row, Rows, age, is_empty, items, name, status_apart, text_at,
};
use super::{check, fill, semantic};
use crate::flowcontrol::objects;

const DEFAULT_PRECEDENCE: i32 = 1_000;
const PRECEDENCE_MAX: i64 = 10_000;
/// Only the schema of this name may have the first precedence.
const EXEMPT: &str = "exempt";
const ALL: &str = "*";
const VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

pub static RULES: Rows<FlowSchema> = Rows {
    default: |schema| fill::nonzero(&mut schema.spec.matching_precedence, DEFAULT_PRECEDENCE),
    parts: Parts {
        create: |schema, _| schema.status = None,
        status: |new, old, _| new.spec.clone_from(&old.spec),
        ..status_apart!()
    },
    checks: &[
        ("", Check::Relation(precedence)),
        ("spec.distinguisherMethod", Check::Relation(method)),
        (
            "spec.priorityLevelConfiguration.name",
            Check::Required("must reference a priority level"),
        ),
        ("spec.priorityLevelConfiguration.name", Check::TextIfAny(names::dns_subdomain)),
        ("spec.rules", Check::Each(RULE)),
    ],
    judge: |schema, at| {
        let name = check::text(&schema.metadata.name);
        let spec = |schema: &FlowSchema| semantic::field(schema, "spec");
        if objects::mandatory_flow_schema(name).is_some_and(|fixed| spec(&fixed) != spec(schema)) {
            let why = format!("spec of '{name}' must equal the fixed value");
            at.child("spec").invalid(&schema.spec, why);
        }
    },
    status: &[("status.conditions", Check::Relation(condition_types))],
    generation: table::spec_changes,
    columns: &[
        name(),
        text("PriorityLevel", "The level that its requests go to.")
            .at("spec.priorityLevelConfiguration.name"),
        integer("MatchingPrecedence", "Schemas with lower numbers are tried first.")
            .number("spec.matchingPrecedence"),
        text("DistinguisherMethod", "How its requests are divided into flows.")
            .or("spec.distinguisherMethod.type", columns::NONE),
        age(),
        text("MissingPL", "Whether its priority level is missing.").json(|schema| {
            let mut conditions = items(&schema["status"]["conditions"]).iter();
            let dangling = conditions.find(|condition| condition["type"] == "Dangling");
            dangling.map_or("?", |condition| text_at(condition, "status")).into()
        }),
    ],
    ..Rows::NEW
};

const RULE: &[Row] = &[
    ("subjects", Check::Required("subjects must contain at least one value")),
    ("subjects", Check::Each(&[("", Check::Relation(subject))])),
    ("", Check::Relation(some_rules)),
    ("resourceRules", Check::Each(RESOURCE_RULE)),
    ("nonResourceRules", Check::Each(PATH_RULE)),
];

const RESOURCE_RULE: &[Row] = &[
    ("verbs", Check::Relation(verbs)),
    ("apiGroups", Check::Required("resource rules must supply at least one api group")),
    ("apiGroups", Check::Relation(|list, at| alone(list, "api groups", at))),
    ("resources", Check::Required("resource rules must supply at least one resource")),
    ("resources", Check::Relation(|list, at| alone(list, "resources", at))),
    ("", Check::Relation(namespaces)),
];

const PATH_RULE: &[Row] = &[
    ("verbs", Check::Relation(verbs)),
    ("nonResourceURLs", Check::Required("nonResourceURLs must contain at least one value")),
    ("nonResourceURLs", Check::Relation(urls)),
];

const ACCOUNT: &[Row] = &[
    ("name", Check::RequiredText(account_name)),
    ("namespace", Check::Required("must specify namespace for service account")),
    ("namespace", Check::TextIfAny(names::dns_label)),
];

const NAMED: &[Row] = &[("name", Check::Required(""))];

/// Types of conditions are there, and each once.
pub fn condition_types(conditions: &Value, at: &At<'_>) {
    let mut seen = BTreeSet::new();
    for (index, condition) in items(conditions).iter().enumerate() {
        let (at, name) = (at.index(index), text_at(condition, "type"));
        if !seen.insert(name) {
            at.child("type").duplicate(name);
        }
        if name.is_empty() {
            at.child("type").required("must not be empty");
        }
    }
}

fn precedence(schema: &Value, at: &At<'_>) {
    let at = at.child("spec.matchingPrecedence");
    let number = schema["spec"]["matchingPrecedence"].as_i64().unwrap_or_default();
    if number <= 0 {
        at.invalid(number, "must be a positive value");
    }
    if number > PRECEDENCE_MAX {
        at.invalid(number, format!("must not be greater than {PRECEDENCE_MAX}"));
    }
    if number == 1 && text_at(schema, "metadata.name") != EXEMPT {
        at.invalid(number, "only the schema named 'exempt' may have matchingPrecedence 1");
    }
}

fn method(method: &Value, at: &At<'_>) {
    const METHODS: &[&str] = &["ByNamespace", "ByUser"];
    if !method.is_null() && !METHODS.contains(&text_at(method, "type")) {
        at.child("type").not_supported(method, METHODS);
    }
}

fn some_rules(rule: &Value, at: &At<'_>) {
    if is_empty(&rule["resourceRules"]) && is_empty(&rule["nonResourceRules"]) {
        at.required("at least one of resourceRules and nonResourceRules has to be non-empty");
    }
}

fn subject(subject: &Value, at: &At<'_>) {
    const KINDS: [(&str, &str, &[Row]); 3] = [
        ("ServiceAccount", "serviceAccount", ACCOUNT),
        ("User", "user", NAMED),
        ("Group", "group", NAMED),
    ];
    let kind = text_at(subject, "kind");
    let Some((_, field, rows)) = KINDS.iter().find(|(own, _, _)| *own == kind) else {
        return at.child("kind").not_supported(kind, &["Group", "ServiceAccount", "User"]);
    };
    match &subject[*field] {
        Value::Null => {
            at.child(field).required(format!("{field} is required when subject kind is '{kind}'"));
        }
        own => table::run(rows, own, &at.child(field)),
    }
    for (other, field, _) in KINDS.iter().filter(|(other, _, _)| *other != kind) {
        if !subject[*field].is_null() {
            let why = format!("{field} is forbidden when subject kind is not '{other}'");
            at.child(field).forbidden(why);
        }
    }
}

fn account_name(name: &str) -> Vec<String> {
    if name == ALL { Vec::new() } else { names::dns_subdomain(name) }
}

fn verbs(verbs: &Value, at: &At<'_>) {
    let known = |verb: &Value| VERBS.contains(&verb.as_str().unwrap_or_default());
    if is_empty(verbs) {
        at.required("verbs must contain at least one value");
    } else if has_all(verbs) {
        alone(verbs, "verbs", at);
    } else if !items(verbs).iter().all(known) {
        at.not_supported(verbs, VERBS);
    }
}

fn has_all(values: &Value) -> bool {
    items(values).iter().any(|value| value == ALL)
}

/// A wildcard stands alone.
fn alone(values: &Value, what: &str, at: &At<'_>) {
    if items(values).len() > 1 && has_all(values) {
        at.invalid(values, format!("if '*' is present, must not specify other {what}"));
    }
}

fn urls(urls: &Value, at: &At<'_>) {
    if has_all(urls) {
        return alone(urls, "non-resource URLs", at);
    }
    for (index, url) in items(urls).iter().enumerate() {
        if let Some(why) = wrong_url(url.as_str().unwrap_or_default()) {
            at.index(index).invalid(url, why);
        }
    }
}

fn wrong_url(url: &str) -> Option<&'static str> {
    let wildcards = url.matches('*').count();
    match url {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !url.starts_with('/') => Some("must start with slash"),
        _ if url.contains(' ') => Some("must not contain white-space"),
        _ if url.contains("//") => Some("must not contain double slash"),
        _ if wildcards > 1 || (wildcards == 1 && !url.ends_with("/*")) => {
            Some("wildcard can only do suffix matching")
        }
        _ => None,
    }
}

fn namespaces(rule: &Value, at: &At<'_>) {
    let (namespaces, at) = (&rule["namespaces"], at.child("namespaces"));
    if is_empty(namespaces) && rule["clusterScope"] != true {
        at.required(
            "resource rules that are not cluster scoped must supply at least one namespace",
        );
    } else if has_all(namespaces) {
        alone(namespaces, "namespaces", &at);
    } else {
        for (index, namespace) in items(namespaces).iter().enumerate() {
            for problem in names::dns_label(namespace.as_str().unwrap_or_default()) {
                let why =
                    format!("each member of this list must be '*' or a DNS-1123 label; {problem}");
                at.index(index).invalid(namespace, why);
            }
        }
    }
}
