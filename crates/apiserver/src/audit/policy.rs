//! Policies (`audit.k8s.io/v1`): how much of which requests is kept
//! (`k8s.io/apiserver/pkg/audit/policy`).

use std::path::Path;

use api::names;
use api::status::FieldError;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::authz::{self, Attributes};
use crate::request::Request;
use crate::user::User;

const VERSION: &str = "audit.k8s.io/v1";
const LEVELS: [&str; 4] = ["None", "Metadata", "Request", "RequestResponse"];
const STAGES: [&str; 4] = ["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"];
const FIELDS: [&str; 6] =
    ["apiVersion", "kind", "metadata", "rules", "omitStages", "omitManagedFields"];
const RULE_FIELDS: [&str; 9] = [
    "level",
    "users",
    "userGroups",
    "verbs",
    "resources",
    "namespaces",
    "nonResourceURLs",
    "omitStages",
    "omitManagedFields",
];

/// How much of a request is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Level {
    #[default]
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    pub fn text(self) -> &'static str {
        LEVELS[self as usize]
    }
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    pub fn text(self) -> &'static str {
        STAGES[self as usize]
    }
}

/// What the policy says about a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub level: Level,
    /// By stage.
    omitted: [bool; 4],
    pub omits_managed_fields: bool,
}

impl Decision {
    pub fn omits(&self, stage: Stage) -> bool {
        self.omitted[stage as usize]
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    api_version: String,
    kind: String,
    rules: Vec<Rule>,
    omit_stages: Vec<String>,
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    level: String,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    omit_stages: Vec<String>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

/// A policy that is in force.
#[derive(Clone, Debug)]
pub struct Policy(Vec<(Rule, Decision)>);

impl Policy {
    /// # Errors
    /// What is wrong with the file.
    pub fn load(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("failed to read file path \"{shown}\": {error}"))?;
        Self::parse(&text).map_err(|why| format!("{why}: from file {shown}"))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let value: Value =
            serde_saphyr::from_str(text).map_err(|error| format!("failed decoding: {error}"))?;
        warn_of_unknown_fields(&value);
        let file: File =
            serde_json::from_value(value).map_err(|error| format!("failed decoding: {error}"))?;
        if (file.api_version.as_str(), file.kind.as_str()) != (VERSION, "Policy") {
            let File { api_version, kind, .. } = file;
            return Err(format!(
                "failed decoding: no kind {kind:?} is registered for version {api_version:?}"
            ));
        }
        let errors = validate(&file);
        if !errors.is_empty() {
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            return Err(match texts.as_slice() {
                [only] => only.clone(),
                _ => format!("[{}]", texts.join(", ")),
            });
        }
        if file.rules.is_empty() {
            return Err("loaded illegal policy with 0 rules".to_owned());
        }
        let rules = file.rules.iter().map(|rule| {
            let omits = |stage: &&str| {
                let mut all = file.omit_stages.iter().chain(&rule.omit_stages);
                all.any(|omitted| omitted == stage)
            };
            let level = LEVELS.iter().position(|level| *level == rule.level);
            let level = [Level::None, Level::Metadata, Level::Request, Level::RequestResponse]
                [level.unwrap_or_default()];
            let decision = Decision {
                level,
                omitted: STAGES.each_ref().map(omits),
                omits_managed_fields: rule.omit_managed_fields.unwrap_or(file.omit_managed_fields),
            };
            (rule.clone(), decision)
        });
        Ok(Self(rules.collect()))
    }

    /// What the first rule that matches says; nothing is kept of the rest.
    pub fn decide(&self, user: &User, request: &Request) -> Decision {
        let attributes = authz::of_request(request);
        let found = self.0.iter().find(|(rule, _)| rule.matches(user, &attributes));
        found.map(|(_, decision)| *decision).unwrap_or_default()
    }
}

/// Fields that mean nothing are ignored, as upstream ignores them.
fn warn_of_unknown_fields(policy: &Value) {
    let unknown = |object: &Value, known: &[&str]| {
        let names = object.as_object().into_iter().flat_map(serde_json::Map::keys);
        let unknown = names.filter(|name| !known.contains(&name.as_str()));
        unknown.cloned().collect::<Vec<_>>()
    };
    let rules = policy["rules"].as_array().into_iter().flatten();
    let of_rules = rules.flat_map(|rule| unknown(rule, &RULE_FIELDS));
    for name in unknown(policy, &FIELDS).into_iter().chain(of_rules) {
        tracing::warn!(field = name, "the audit policy has an unknown field, which is ignored");
    }
}

impl Rule {
    fn matches(&self, user: &User, attributes: &Attributes) -> bool {
        let verb = match attributes {
            Attributes::Resource { verb, .. } | Attributes::Path { verb, .. } => verb,
        };
        let of_user = self.users.is_empty() || self.users.contains(&user.name);
        let of_group = self.user_groups.is_empty()
            || user.groups.iter().any(|group| self.user_groups.contains(group));
        let of_verb = self.verbs.is_empty() || self.verbs.contains(verb);
        if !(of_user && of_group && of_verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return self.matches_resource(attributes);
        }
        self.non_resource_urls.is_empty()
            || matches!(attributes, Attributes::Path { path, .. }
                if self.non_resource_urls.iter().any(|url| path_matches(path, url)))
    }

    fn matches_resource(&self, attributes: &Attributes) -> bool {
        let Attributes::Resource { group, resource, subresource, namespace, name, .. } = attributes
        else {
            return false;
        };
        if !self.namespaces.is_empty() && !self.namespaces.contains(namespace) {
            return false;
        }
        let whole = match subresource.as_str() {
            "" => resource.clone(),
            subresource => format!("{resource}/{subresource}"),
        };
        let is_named = |pattern: &String| {
            *pattern == whole
                || pattern == "*"
                || (!subresource.is_empty() && pattern.strip_prefix("*/") == Some(subresource))
                || pattern.strip_suffix("/*") == Some(resource)
        };
        self.resources.is_empty()
            || self.resources.iter().any(|one| {
                (one.group == *group || one.group == "*")
                    && (one.resources.is_empty()
                        || ((one.resource_names.is_empty() || one.resource_names.contains(name))
                            && one.resources.iter().any(is_named)))
            })
    }
}

fn path_matches(path: &str, pattern: &str) -> bool {
    let beginning = || pattern.ends_with('*') && path.starts_with(pattern.trim_end_matches('*'));
    pattern == "*" || pattern == path || beginning()
}

fn validate(file: &File) -> Vec<FieldError> {
    let mut errors = Vec::new();
    stages(&file.omit_stages, "omitStages", &mut errors);
    for (index, rule) in file.rules.iter().enumerate() {
        let path = |field: &str| format!("rules[{index}].{field}");
        if rule.level.is_empty() {
            errors.push(FieldError::required(path("level"), ""));
        } else if !LEVELS.contains(&rule.level.as_str()) {
            errors.push(FieldError::not_supported(path("level"), &rule.level, &LEVELS));
        }
        let at = path("nonResourceURLs");
        for (number, url) in rule.non_resource_urls.iter().enumerate() {
            let mut wrong = |why: &str| {
                errors.push(FieldError::invalid(format!("{at}[{number}]"), url, why));
            };
            if url == "*" {
                continue;
            }
            if !url.starts_with('/') {
                wrong("non-resource URL rules must begin with a '/' character");
            }
            let mut before = url.chars();
            before.next_back();
            if before.any(|letter| letter == '*') {
                wrong("non-resource URL wildcards '*' must be the final character of the rule");
            }
        }
        for one in &rule.resources {
            if !matches!(one.group.as_str(), "" | "*") {
                let problems = names::dns_subdomain(&one.group);
                if !problems.is_empty() {
                    let at = path("resources.group");
                    errors.push(FieldError::invalid(at, &one.group, problems.join(",")));
                }
            }
            if !one.resource_names.is_empty() && one.resources.is_empty() {
                let why = "using resourceNames requires at least one resource";
                let at = path("resources.resourceNames");
                errors.push(FieldError::invalid(at, &one.resource_names, why));
            }
        }
        stages(&rule.omit_stages, &path("omitStages"), &mut errors);
        let has_resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
        if !rule.non_resource_urls.is_empty() && has_resources {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(FieldError::invalid(at, &rule.non_resource_urls, why));
        }
    }
    errors
}

fn stages(stages: &[String], path: &str, errors: &mut Vec<FieldError>) {
    for (index, stage) in stages.iter().enumerate() {
        if !STAGES.contains(&stage.as_str()) {
            let why = format!("allowed stages are {}", STAGES.join(","));
            errors.push(FieldError::invalid(format!("{path}[{index}]"), stage, why));
        }
    }
}

#[cfg(test)]
mod tests;
