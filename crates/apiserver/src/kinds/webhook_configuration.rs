//! MutatingWebhookConfigurations and ValidatingWebhookConfigurations
//! (`k8s.io/kubernetes/pkg/apis/admissionregistration`).

pub mod rules;

use api::cel::Environment;
use api::status::FieldError;
use api::webhook::{as_mutating, webhook_service, webhook_url};
use api::{Kind, names};
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations,
    ValidatingWebhookConfiguration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::at::At;
use super::check;
use super::columns::integer;
use super::fill;
use super::table::{self, Rows, age, items, name};

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

pub static MUTATING: Rows<MutatingWebhookConfiguration> = Rows {
    default: |object| {
        for hook in object.webhooks.iter_mut().flatten() {
            default_hook!(hook);
            fill::missing(&mut hook.reinvocation_policy, "Never");
        }
    },
    create: |object, at| validate(&mutating(object), None, at),
    update: |new, old, at| validate(&mutating(new), Some(&mutating(old)), at),
    generation: |new, old| Some(new.webhooks != old.webhooks),
    ..Rows::WEBHOOKS
};

pub static VALIDATING: Rows<ValidatingWebhookConfiguration> = Rows {
    default: |object| {
        for hook in object.webhooks.iter_mut().flatten() {
            default_hook!(hook);
        }
    },
    create: |object, at| validate(&validating(object), None, at),
    update: |new, old, at| validate(&validating(new), Some(&validating(old)), at),
    generation: |new, old| Some(new.webhooks != old.webhooks),
    ..Rows::WEBHOOKS
};

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
                    At::object(|at| at.label_selector(selector.as_ref())).is_empty()
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

fn validate(webhooks: &[MutatingWebhook], old: Option<&[MutatingWebhook]>, at: &At<'_>) {
    let options = Options::new(webhooks, old);
    let mut names = check::Unique::default();
    for (index, hook) in webhooks.iter().enumerate() {
        let at = at.item("webhooks", index);
        validate_hook(hook, &options, &at);
        review_versions(hook, &options, &at.child("admissionReviewVersions"));
        if options.unique_names && !hook.name.is_empty() {
            names.add(&hook.name, &at.child("name"));
        }
    }
}

fn validate_hook(hook: &MutatingWebhook, options: &Options, at: &At<'_>) {
    full_name(&hook.name, &at.child("name"));
    for (index, rule) in hook.rules.iter().flatten().enumerate() {
        rules::validate(rule, &at.item("rules", index));
    }
    for (value, supported, name) in [
        (&hook.failure_policy, ["Fail", "Ignore"], "failurePolicy"),
        (&hook.match_policy, ["Equivalent", "Exact"], "matchPolicy"),
    ] {
        at.child(name).one_of_or_unset(value, &supported);
    }
    let allowed: &[&str] = if options.no_side_effects { &NO_SIDE_EFFECTS } else { &SIDE_EFFECTS };
    let side_effects = at.child("sideEffects");
    if hook.side_effects.is_empty() {
        side_effects.required(format!("must specify one of {}", allowed.join(", ")));
    } else {
        side_effects.one_of(&hook.side_effects, allowed);
    }
    let (shortest, longest, _) = TIMEOUT_SECONDS;
    if let Some(seconds) = hook.timeout_seconds
        && !(shortest..=longest).contains(&seconds)
    {
        let detail = format!("the timeout value must be between {shortest} and {longest} seconds");
        at.child("timeoutSeconds").invalid(seconds, detail);
    }
    for (selector, name) in
        [(&hook.namespace_selector, "namespaceSelector"), (&hook.object_selector, "objectSelector")]
    {
        label_selector(selector.as_ref(), options, &at.child(name));
    }
    let supported = ["IfNeeded", "Never"];
    let reinvocation = at.child("reinvocationPolicy");
    reinvocation.one_of_or_unset(&hook.reinvocation_policy, &supported);
    let client = &at.child("clientConfig");
    match (&hook.client_config.url, &hook.client_config.service) {
        (Some(url), None) => {
            client.child("url").found(|path, errors| webhook_url(url, path, errors));
        }
        (None, Some(service)) => {
            let service = table::value(service);
            client.child("service").found(|path, errors| webhook_service(&service, path, errors));
        }
        _ => client.required("exactly one of url or service is required"),
    }
    if options.conditions {
        let all = hook.match_conditions.as_deref().unwrap_or_default();
        match_conditions(all, &Environment::new(false), &at.child("matchConditions"));
    }
}

/// A domain that says whose the webhook is (`IsFullyQualifiedName`).
fn full_name(name: &str, at: &At<'_>) {
    if name.is_empty() {
        return at.required("");
    }
    let problems = names::dns_subdomain(name);
    if !problems.is_empty() {
        at.invalid(name, problems.join(","));
    } else if name.split('.').count() < NAME_PARTS_MIN {
        at.invalid(name, "should be a domain with at least three segments separated by dots");
    }
}

fn label_selector(selector: Option<&LabelSelector>, options: &Options, at: &At<'_>) {
    let mut found = At::object(|whole| whole.child(&at.to_string()).label_selector(selector));
    if !options.valid_label_values {
        let is_value = |error: &FieldError| {
            error.field.contains(".values[") || error.field.ends_with(".matchLabels")
        };
        found.retain(|error| !is_value(error));
    }
    at.errors(found);
}

fn review_versions(hook: &MutatingWebhook, options: &Options, at: &At<'_>) {
    let versions = &hook.admission_review_versions;
    let known = REVIEW_VERSIONS.join(", ");
    if versions.is_empty() {
        return at.required(format!("must specify one of {known}"));
    }
    for (index, version) in versions.iter().enumerate() {
        let at = at.index(index);
        if versions[..index].contains(version) {
            at.invalid(version, "duplicate version");
            continue;
        }
        at.texts(names::dns_1035_label(version), version);
    }
    if options.recognized_version && !versions.iter().any(|version| is_known(version)) {
        at.invalid(versions, format!("must include at least one of {known}"));
    }
}

/// Checks match conditions.
pub fn match_conditions(all: &[MatchCondition], environment: &Environment, at: &At<'_>) {
    at.max_items(all.len(), CONDITIONS_MAX);
    let mut seen = check::Unique::default();
    for (index, condition) in all.iter().enumerate() {
        let at = at.index(index);
        let expression = at.child("expression");
        match condition.expression.trim() {
            "" => expression.required(""),
            source => {
                if let Err(why) = environment.condition(source) {
                    expression.invalid(source, why);
                }
            }
        }
        let name = at.child("name");
        name.required_text(names::qualified_name, &condition.name);
        if !condition.name.is_empty() {
            seen.add(&condition.name, &name);
        }
    }
}

fn default_rules(rules: &mut Option<Vec<RuleWithOperations>>) {
    for rule in rules.iter_mut().flatten() {
        fill::missing(&mut rule.scope, "*");
    }
}

fn mutating(object: &MutatingWebhookConfiguration) -> Vec<MutatingWebhook> {
    object.webhooks.clone().unwrap_or_default()
}

fn validating(object: &ValidatingWebhookConfiguration) -> Vec<MutatingWebhook> {
    object.webhooks.iter().flatten().map(as_mutating).collect()
}

impl<K: Kind> Rows<K> {
    const WEBHOOKS: Self = Self {
        any_finalizer: true,
        unconditional: false,
        columns: &[
            name(),
            integer("Webhooks", "How many webhooks the configuration has.")
                .json(|object| items(&object["webhooks"]).len().into()),
            age(),
        ],
        ..Self::NEW
    };
}
