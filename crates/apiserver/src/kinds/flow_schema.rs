//! FlowSchemas: which requests go to which priority level (`pkg/apis/flowcontrol/validation`).

use std::collections::BTreeSet;

use api::names;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::{
    FlowSchema, FlowSchemaSpec, NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule,
    Subject,
};
use serde_json::Value;

use super::check::{self, Errors};
use super::path::Path;
use super::{Column, Context, Strategy, columns, fill, semantic};
use crate::flowcontrol::objects;

const DEFAULT_PRECEDENCE: i32 = 1_000;
const PRECEDENCE_MAX: i32 = 10_000;
/// Only the schema of this name may have the first precedence.
const EXEMPT: &str = "exempt";
const ALL: &str = "*";
const METHODS: &[&str] = &["ByNamespace", "ByUser"];
const VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
const SUBJECTS: &[&str] = &["Group", "ServiceAccount", "User"];

/// The strategy of FlowSchemas.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("PriorityLevel", "The level that its requests go to."),
    columns::integer("MatchingPrecedence", "Schemas with lower numbers are tried first."),
    columns::text("DistinguisherMethod", "How its requests are divided into flows."),
    columns::AGE,
    columns::text("MissingPL", "Whether its priority level is missing."),
];

impl Strategy for Rules {
    type Object = FlowSchema;

    fn default(&self, schema: &mut FlowSchema) {
        fill::nonzero(&mut schema.spec.matching_precedence, DEFAULT_PRECEDENCE);
    }

    fn prepare_create(&self, schema: &mut FlowSchema, _: &Context<'_>) {
        schema.status = None;
    }

    fn prepare_update(&self, new: &mut FlowSchema, old: &FlowSchema, _: &Context<'_>) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(&self, new: &mut FlowSchema, old: &FlowSchema, _: &Context<'_>) {
        new.spec = old.spec.clone();
    }

    fn generation_changes(&self, new: &FlowSchema, old: &FlowSchema) -> Option<bool> {
        Some(semantic::field(new, "spec") != semantic::field(old, "spec"))
    }

    fn validate(&self, schema: &FlowSchema) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let (name, path) = (check::text(&schema.metadata.name), Path::new("spec"));
        spec(name, &schema.spec, &path, &mut errors);
        let mandatory = objects::mandatory_flow_schema(name);
        if mandatory
            .is_some_and(|fixed| semantic::field(&fixed, "spec") != semantic::field(schema, "spec"))
        {
            let why = format!("spec of '{name}' must equal the fixed value");
            errors.push(FieldError::invalid(&path, &schema.spec, why));
        }
        errors
    }

    fn validate_status_update(&self, new: &FlowSchema, _: &FlowSchema) -> Vec<FieldError> {
        let conditions = new.status.iter().flat_map(|status| status.conditions.iter().flatten());
        condition_types(conditions.map(|condition| condition.type_.as_str()))
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, schema: &FlowSchema, now: Timestamp) -> Vec<Value> {
        let spec = &schema.spec;
        let method = spec.distinguisher_method.as_ref().map(|method| method.type_.as_str());
        let conditions = schema.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let mut dangling = conditions.filter(|one| one.type_ == "Dangling");
        let dangling = dangling.next().map(|one| check::text(&one.status));
        vec![
            columns::name(&schema.metadata),
            spec.priority_level_configuration.name.as_str().into(),
            spec.matching_precedence.unwrap_or_default().into(),
            columns::or_none(method),
            columns::age(&schema.metadata, now),
            dangling.unwrap_or("?").into(),
        ]
    }
}

/// Types of conditions are there, and each once.
pub fn condition_types<'a>(types: impl Iterator<Item = &'a str>) -> Errors {
    let mut errors = Errors::new();
    let (path, mut seen) = (Path::new("status").child("conditions"), BTreeSet::new());
    for (index, name) in types.enumerate() {
        let path = path.index(index).child("type");
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(&path, name));
        }
        if name.is_empty() {
            errors.push(FieldError::required(&path, "must not be empty"));
        }
    }
    errors
}

fn spec(name: &str, spec: &FlowSchemaSpec, path: &Path, errors: &mut Errors) {
    let precedence = spec.matching_precedence.unwrap_or_default();
    let mut wrong = |why: String| {
        let path = path.child("matchingPrecedence");
        errors.push(FieldError::invalid(path, precedence, why));
    };
    if precedence <= 0 {
        wrong("must be a positive value".to_owned());
    }
    if precedence > PRECEDENCE_MAX {
        wrong(format!("must not be greater than {PRECEDENCE_MAX}"));
    }
    if precedence == 1 && name != EXEMPT {
        wrong("only the schema named 'exempt' may have matchingPrecedence 1".to_owned());
    }
    if let Some(method) = &spec.distinguisher_method
        && !METHODS.contains(&method.type_.as_str())
    {
        let path = path.child("distinguisherMethod").child("type");
        errors.push(FieldError::not_supported(path, method, METHODS));
    }
    let level = &spec.priority_level_configuration.name;
    let at = path.child("priorityLevelConfiguration").child("name");
    if level.is_empty() {
        errors.push(FieldError::required(at, "must reference a priority level"));
    } else {
        check::dns_subdomain(level, &at, errors);
    }
    for (index, one) in spec.rules.iter().flatten().enumerate() {
        rule(one, &path.child("rules").index(index), errors);
    }
}

fn rule(rule: &PolicyRulesWithSubjects, path: &Path, errors: &mut Errors) {
    if rule.subjects.is_empty() {
        let why = "subjects must contain at least one value";
        errors.push(FieldError::required(path.child("subjects"), why));
    }
    for (index, one) in rule.subjects.iter().enumerate() {
        subject(one, &path.child("subjects").index(index), errors);
    }
    let resources = rule.resource_rules.as_deref().unwrap_or_default();
    let paths = rule.non_resource_rules.as_deref().unwrap_or_default();
    if resources.is_empty() && paths.is_empty() {
        let why = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(FieldError::required(path, why));
    }
    for (index, one) in resources.iter().enumerate() {
        resource_rule(one, &path.child("resourceRules").index(index), errors);
    }
    for (index, one) in paths.iter().enumerate() {
        path_rule(one, &path.child("nonResourceRules").index(index), errors);
    }
}

fn subject(subject: &Subject, path: &Path, errors: &mut Errors) {
    let kind = subject.kind.as_str();
    if !SUBJECTS.contains(&kind) {
        return errors.push(FieldError::not_supported(path.child("kind"), kind, SUBJECTS));
    }
    let parts = [
        ("ServiceAccount", "serviceAccount", subject.service_account.is_some()),
        ("User", "user", subject.user.is_some()),
        ("Group", "group", subject.group.is_some()),
    ];
    for (own, field, given) in parts {
        if own == kind && !given {
            let why = format!("{field} is required when subject kind is '{own}'");
            errors.push(FieldError::required(path.child(field), why));
        }
    }
    match kind {
        "ServiceAccount" => {
            let path = path.child("serviceAccount");
            if let Some(account) = &subject.service_account {
                if account.name.is_empty() {
                    errors.push(FieldError::required(path.child("name"), ""));
                } else if account.name != ALL {
                    check::dns_subdomain(&account.name, &path.child("name"), errors);
                }
                if account.namespace.is_empty() {
                    let why = "must specify namespace for service account";
                    errors.push(FieldError::required(path.child("namespace"), why));
                } else {
                    check::dns_label(&account.namespace, &path.child("namespace"), errors);
                }
            }
        }
        _ => {
            let user = subject.user.as_ref().filter(|_| kind == "User").map(|user| &user.name);
            let group = subject.group.as_ref().filter(|_| kind == "Group").map(|one| &one.name);
            if user.or(group).is_some_and(String::is_empty) {
                let path = path.child(&kind.to_lowercase()).child("name");
                errors.push(FieldError::required(path, ""));
            }
        }
    }
    for (own, field, given) in parts {
        if own != kind && given {
            let why = format!("{field} is forbidden when subject kind is not '{own}'");
            errors.push(FieldError::forbidden(path.child(field), why));
        }
    }
}

fn verbs(verbs: &[String], path: &Path, errors: &mut Errors) {
    let path = path.child("verbs");
    if verbs.is_empty() {
        errors.push(FieldError::required(path, "verbs must contain at least one value"));
    } else if verbs.iter().any(|verb| verb == ALL) {
        alone(verbs, "verbs", &path, errors);
    } else if verbs.iter().any(|verb| !VERBS.contains(&verb.as_str())) {
        errors.push(FieldError::not_supported(path, verbs, VERBS));
    }
}

/// A wildcard stands alone.
fn alone(values: &[String], what: &str, path: &Path, errors: &mut Errors) {
    if values.len() > 1 && values.iter().any(|value| value == ALL) {
        let why = format!("if '*' is present, must not specify other {what}");
        errors.push(FieldError::invalid(path, values, why));
    }
}

fn path_rule(rule: &NonResourcePolicyRule, path: &Path, errors: &mut Errors) {
    verbs(&rule.verbs, path, errors);
    let (urls, path) = (&rule.non_resource_urls, path.child("nonResourceURLs"));
    if urls.is_empty() {
        let why = "nonResourceURLs must contain at least one value";
        errors.push(FieldError::required(path, why));
    } else if urls.iter().any(|url| url == ALL) {
        alone(urls, "non-resource URLs", &path, errors);
    } else {
        for (index, url) in urls.iter().enumerate() {
            if let Some(why) = wrong_url(url) {
                errors.push(FieldError::invalid(path.index(index), url, why));
            }
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

fn resource_rule(rule: &ResourcePolicyRule, path: &Path, errors: &mut Errors) {
    verbs(&rule.verbs, path, errors);
    for (values, field, missing, others) in [
        (
            &rule.api_groups,
            "apiGroups",
            "resource rules must supply at least one api group",
            "api groups",
        ),
        (
            &rule.resources,
            "resources",
            "resource rules must supply at least one resource",
            "resources",
        ),
    ] {
        if values.is_empty() {
            errors.push(FieldError::required(path.child(field), missing));
        }
        alone(values, others, &path.child(field), errors);
    }
    let namespaces = rule.namespaces.as_deref().unwrap_or_default();
    let path = path.child("namespaces");
    if namespaces.is_empty() && !rule.cluster_scope.unwrap_or_default() {
        let why = "resource rules that are not cluster scoped must supply at least one namespace";
        errors.push(FieldError::required(path, why));
    } else if namespaces.iter().any(|namespace| namespace == ALL) {
        alone(namespaces, "namespaces", &path, errors);
    } else {
        for (index, namespace) in namespaces.iter().enumerate() {
            for problem in names::dns_label(namespace) {
                let why =
                    format!("each member of this list must be '*' or a DNS-1123 label; {problem}");
                errors.push(FieldError::invalid(path.index(index), namespace, why));
            }
        }
    }
}
