//! MutatingWebhookConfigurations and ValidatingWebhookConfigurations
//! (`k8s.io/kubernetes/pkg/apis/admissionregistration`).

pub mod rules;

use api::cel::Environment;
use api::names;
use api::status::FieldError;
use api::webhook::{as_mutating, webhook_service, webhook_url};
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations,
    ServiceReference, ValidatingWebhookConfiguration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use super::check::{self, Errors};
use super::path::Path;
use super::{Column, Context, Strategy, columns, fill};

/// Seconds that a webhook may take: shortest, longest, and if nothing is said.
const TIMEOUT_SECONDS: (i32, i32, i32) = (1, 30, 10);
/// Conditions of one webhook.
const CONDITIONS_MAX: usize = 64;
/// Versions of AdmissionReview that are spoken here.
pub const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const NO_SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const SIDE_EFFECTS: [&str; 4] = ["None", "NoneOnDryRun", "Some", "Unknown"];
/// Parts of the name of a webhook.
const NAME_PARTS_MIN: usize = 3;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::integer("Webhooks", "How many webhooks the configuration has."),
    columns::AGE,
];

/// The strategy of MutatingWebhookConfigurations.
pub struct Mutating;

/// The strategy of ValidatingWebhookConfigurations.
pub struct Validating;

/// What is required of a webhook only if all of the configuration have it already.
struct Options {
    no_side_effects: bool,
    recognized_version: bool,
    unique_names: bool,
    valid_label_values: bool,
    /// Whether conditions are judged.
    conditions: bool,
}

impl Options {
    fn new(webhooks: &[MutatingWebhook], old: Option<&[MutatingWebhook]>) -> Self {
        let Some(old) = old else {
            return Self {
                no_side_effects: true,
                recognized_version: true,
                unique_names: true,
                valid_label_values: true,
                conditions: true,
            };
        };
        let names = old.iter().map(|hook| &hook.name).collect::<std::collections::BTreeSet<_>>();
        let is_recognized = |hook: &MutatingWebhook| {
            let versions = &hook.admission_review_versions;
            versions.is_empty() || versions.iter().any(|name| is_known(name))
        };
        let conditions =
            |all: &[MutatingWebhook]| all.iter().map(conditions_of).collect::<Vec<_>>();
        Self {
            no_side_effects: old
                .iter()
                .all(|hook| NO_SIDE_EFFECTS.contains(&hook.side_effects.as_str())),
            recognized_version: old.iter().all(is_recognized),
            unique_names: names.len() == old.len(),
            valid_label_values: old.iter().all(|hook| {
                [&hook.namespace_selector, &hook.object_selector].iter().all(|selector| {
                    let mut errors = Errors::new();
                    check::label_selector(selector.as_ref(), &Path::new(""), &mut errors);
                    errors.is_empty()
                })
            }),
            conditions: conditions(webhooks) != conditions(old),
        }
    }
}

fn is_known(version: &str) -> bool {
    REVIEW_VERSIONS.contains(&version)
}

fn conditions_of(hook: &MutatingWebhook) -> Vec<MatchCondition> {
    hook.match_conditions.clone().unwrap_or_default()
}

fn validate(webhooks: &[MutatingWebhook], old: Option<&[MutatingWebhook]>) -> Errors {
    let options = Options::new(webhooks, old);
    let mut errors = Errors::new();
    let mut names = check::Unique::default();
    for (index, hook) in webhooks.iter().enumerate() {
        let path = Path::new("webhooks").index(index);
        validate_hook(hook, &options, &path, &mut errors);
        review_versions(hook, &options, &path.child("admissionReviewVersions"), &mut errors);
        if options.unique_names && !hook.name.is_empty() {
            names.insert(&hook.name, &path.child("name"), &mut errors);
        }
    }
    errors
}

fn validate_hook(hook: &MutatingWebhook, options: &Options, path: &Path, errors: &mut Errors) {
    full_name(&hook.name, &path.child("name"), errors);
    for (index, rule) in hook.rules.iter().flatten().enumerate() {
        rules::validate(rule, &path.child("rules").index(index), errors);
    }
    for (value, supported, name) in [
        (&hook.failure_policy, ["Fail", "Ignore"], "failurePolicy"),
        (&hook.match_policy, ["Equivalent", "Exact"], "matchPolicy"),
    ] {
        check::one_of_or_unset(value, &supported, &path.child(name), errors);
    }
    let allowed: &[&str] = if options.no_side_effects { &NO_SIDE_EFFECTS } else { &SIDE_EFFECTS };
    let side_effects = path.child("sideEffects");
    if hook.side_effects.is_empty() {
        let detail = format!("must specify one of {}", allowed.join(", "));
        errors.push(FieldError::required(&side_effects, detail));
    } else {
        check::one_of(&hook.side_effects, allowed, &side_effects, errors);
    }
    let (shortest, longest, _) = TIMEOUT_SECONDS;
    if let Some(seconds) = hook.timeout_seconds
        && !(shortest..=longest).contains(&seconds)
    {
        let detail = format!("the timeout value must be between {shortest} and {longest} seconds");
        errors.push(FieldError::invalid(path.child("timeoutSeconds"), seconds, detail));
    }
    for (selector, name) in
        [(&hook.namespace_selector, "namespaceSelector"), (&hook.object_selector, "objectSelector")]
    {
        label_selector(selector.as_ref(), options, &path.child(name), errors);
    }
    let supported = ["IfNeeded", "Never"];
    let reinvocation = path.child("reinvocationPolicy");
    check::one_of_or_unset(&hook.reinvocation_policy, &supported, &reinvocation, errors);
    let client = &path.child("clientConfig");
    match (&hook.client_config.url, &hook.client_config.service) {
        (Some(url), None) => webhook_url(url, &client.child("url").to_string(), errors),
        (None, Some(service)) => {
            webhook_service(&json(service), &client.child("service").to_string(), errors);
        }
        _ => errors.push(FieldError::required(client, "exactly one of url or service is required")),
    }
    if options.conditions {
        let all = hook.match_conditions.as_deref().unwrap_or_default();
        match_conditions(all, &Environment::new(false), &path.child("matchConditions"), errors);
    }
}

fn json(service: &ServiceReference) -> Value {
    serde_json::json!({"name": service.name, "namespace": service.namespace,
        "path": service.path, "port": service.port})
}

/// A domain that says whose the webhook is (`IsFullyQualifiedName`).
fn full_name(name: &str, path: &Path, errors: &mut Errors) {
    if name.is_empty() {
        return errors.push(FieldError::required(path, ""));
    }
    let problems = names::dns_subdomain(name);
    if !problems.is_empty() {
        errors.push(FieldError::invalid(path, name, problems.join(",")));
    } else if name.split('.').count() < NAME_PARTS_MIN {
        let detail = "should be a domain with at least three segments separated by dots";
        errors.push(FieldError::invalid(path, name, detail));
    }
}

fn label_selector(
    selector: Option<&LabelSelector>,
    options: &Options,
    path: &Path,
    errors: &mut Errors,
) {
    let mut found = Errors::new();
    check::label_selector(selector, path, &mut found);
    if !options.valid_label_values {
        let is_value = |error: &FieldError| {
            error.field.contains(".values[") || error.field.ends_with(".matchLabels")
        };
        found.retain(|error| !is_value(error));
    }
    errors.append(&mut found);
}

fn review_versions(hook: &MutatingWebhook, options: &Options, path: &Path, errors: &mut Errors) {
    let versions = &hook.admission_review_versions;
    let known = REVIEW_VERSIONS.join(", ");
    if versions.is_empty() {
        return errors.push(FieldError::required(path, format!("must specify one of {known}")));
    }
    for (index, version) in versions.iter().enumerate() {
        let path = path.index(index);
        if versions[..index].contains(version) {
            errors.push(FieldError::invalid(path, version, "duplicate version"));
            continue;
        }
        check::invalid(names::dns_1035_label(version), version, &path, errors);
    }
    if options.recognized_version && !versions.iter().any(|version| is_known(version)) {
        let detail = format!("must include at least one of {known}");
        errors.push(FieldError::invalid(path, versions, detail));
    }
}

/// What is wrong with match conditions.
pub fn match_conditions(
    all: &[MatchCondition],
    environment: &Environment,
    path: &Path,
    errors: &mut Errors,
) {
    if all.len() > CONDITIONS_MAX {
        errors.push(FieldError::too_many(path, all.len(), CONDITIONS_MAX));
    }
    let mut names = check::Unique::default();
    for (index, condition) in all.iter().enumerate() {
        let path = path.index(index);
        let (expression, name) = (path.child("expression"), path.child("name"));
        match condition.expression.trim() {
            "" => errors.push(FieldError::required(expression, "")),
            source => {
                if let Err(why) = environment.condition(source) {
                    errors.push(FieldError::invalid(expression, source, why));
                }
            }
        }
        if condition.name.is_empty() {
            errors.push(FieldError::required(name, ""));
        } else {
            check::qualified_name(&condition.name, &name, errors);
            names.insert(&condition.name, &name, errors);
        }
    }
}

fn default_rules(rules: &mut Option<Vec<RuleWithOperations>>) {
    for rule in rules.iter_mut().flatten() {
        fill::missing(&mut rule.scope, "*");
    }
}

/// The defaults that both kinds of webhooks have.
macro_rules! default_hook {
    ($hook:expr) => {
        fill::missing(&mut $hook.failure_policy, "Fail");
        fill::missing(&mut $hook.match_policy, "Equivalent");
        fill::missing(&mut $hook.namespace_selector, LabelSelector::default());
        fill::missing(&mut $hook.object_selector, LabelSelector::default());
        fill::missing(&mut $hook.timeout_seconds, TIMEOUT_SECONDS.2);
        default_rules(&mut $hook.rules);
        if let Some(service) = &mut $hook.client_config.service {
            fill::missing(&mut service.port, 443);
        }
    };
}

/// What both kinds of configurations have in common.
macro_rules! common {
    ($kind:ty, $webhooks:expr) => {
        fn validate_create(&self, object: &$kind) -> Errors {
            validate(&$webhooks(object), None)
        }

        fn validate_update(&self, new: &$kind, old: &$kind) -> Errors {
            validate(&$webhooks(new), Some(&$webhooks(old)))
        }

        fn prepare_create(&self, _: &mut $kind, _: &Context<'_>) {}

        fn generation_changes(&self, new: &$kind, old: &$kind) -> Option<bool> {
            Some(new.webhooks != old.webhooks)
        }

        fn allow_unconditional_update(&self) -> bool {
            false
        }

        fn columns(&self) -> &'static [Column] {
            COLUMNS
        }

        fn cells(&self, object: &$kind, now: Timestamp) -> Vec<Value> {
            let count = object.webhooks.as_ref().map_or(0, Vec::len);
            let metadata = &object.metadata;
            vec![columns::name(metadata), count.into(), columns::age(metadata, now)]
        }
    };
}

fn mutating(object: &MutatingWebhookConfiguration) -> Vec<MutatingWebhook> {
    object.webhooks.clone().unwrap_or_default()
}

fn validating(object: &ValidatingWebhookConfiguration) -> Vec<MutatingWebhook> {
    object.webhooks.iter().flatten().map(as_mutating).collect()
}

impl Strategy for Mutating {
    type Object = MutatingWebhookConfiguration;

    fn default(&self, object: &mut MutatingWebhookConfiguration) {
        for hook in object.webhooks.iter_mut().flatten() {
            default_hook!(hook);
            fill::missing(&mut hook.reinvocation_policy, "Never");
        }
    }

    common!(MutatingWebhookConfiguration, mutating);
}

impl Strategy for Validating {
    type Object = ValidatingWebhookConfiguration;

    fn default(&self, object: &mut ValidatingWebhookConfiguration) {
        for hook in object.webhooks.iter_mut().flatten() {
            default_hook!(hook);
        }
    }

    common!(ValidatingWebhookConfiguration, validating);
}
