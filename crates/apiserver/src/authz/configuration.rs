//! `AuthorizationConfiguration`, and what upstream accepts in it
//! (`k8s.io/apiserver/pkg/apis/apiserver/validation/validation.go`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use api::cel::{Environment, Expression};
use api::status::FieldError;
use serde::Deserialize;

use super::abac::Policies;
use super::chain::{Authorizer, Decision, Link};
use super::webhook::{AuthorizationWebhook, Calls};
use crate::authn::{Client, Source};
use crate::config::AuthorizationFlags;
use crate::configuration::{Unusable, aggregate, decode};

/// Conditions of one webhook, at most.
const CONDITIONS: usize = 64;
const MAX_TIMEOUT: Duration = Duration::from_secs(30);
const AUTHORIZED_LIFE: &str = "5m0s";
const UNAUTHORIZED_LIFE: &str = "30s";
const VERSIONS: &[&str] = &["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1"];
const TYPES: &[&str] = &["ABAC", "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Configuration {
    #[serde(default)]
    authorizers: Vec<Section>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    name: String,
    webhook: Option<Webhook>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Webhook {
    timeout: Option<String>,
    #[serde(rename = "authorizedTTL")]
    authorized_ttl: Option<String>,
    #[serde(rename = "unauthorizedTTL")]
    unauthorized_ttl: Option<String>,
    subject_access_review_version: String,
    match_condition_subject_access_review_version: String,
    failure_policy: String,
    connection_info: ConnectionInfo,
    match_conditions: Vec<MatchCondition>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct ConnectionInfo {
    #[serde(rename = "type")]
    kind: String,
    kube_config_file: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MatchCondition {
    #[serde(default)]
    expression: String,
}

/// Reads a configuration. `policies`: the file of the mode ABAC.
///
/// # Errors
/// In upstream's words.
pub fn parse(text: &str, policies: Option<&Path>) -> Result<Vec<Link>, Unusable> {
    let parsed: Configuration = decode(text, "AuthorizationConfiguration", VERSIONS)?;
    build(&parsed.authorizers, policies)
}

/// What the flags stand for.
///
/// # Errors
/// In upstream's words.
pub fn of_flags(flags: &AuthorizationFlags) -> Result<Vec<Link>, Unusable> {
    let modes = flags.authorization_mode.clone().unwrap_or_else(|| "Node,RBAC".to_owned());
    let file = flags.authorization_webhook_config_file.as_ref();
    let mut sections = Vec::new();
    for mode in modes.split(',').map(str::trim) {
        if !TYPES.contains(&mode) {
            return Err(Unusable(format!("authorization-mode {mode:?} is not a valid mode")));
        }
        if sections.iter().any(|known: &Section| known.kind == mode) {
            return Err(Unusable(format!(
                "authorization-mode {:?} has mode specified more than once",
                [mode]
            )));
        }
        let webhook = (mode == "Webhook").then(|| Webhook {
            timeout: Some("30s".to_owned()),
            authorized_ttl: Some(flags.authorization_webhook_cache_authorized_ttl.clone()),
            unauthorized_ttl: Some(flags.authorization_webhook_cache_unauthorized_ttl.clone()),
            subject_access_review_version: flags.authorization_webhook_version.clone(),
            failure_policy: "NoOpinion".to_owned(),
            connection_info: ConnectionInfo {
                kind: "KubeConfigFile".to_owned(),
                kube_config_file: file.map(|path| absolute(path)),
            },
            ..Webhook::default()
        });
        let name = if mode == "Webhook" { "default".to_owned() } else { mode.to_lowercase() };
        sections.push(Section { kind: mode.to_owned(), name, webhook });
    }
    let policies = flags.authorization_policy_file.as_deref();
    let named = |wanted: &str| sections.iter().any(|section| section.kind == wanted);
    let problem = match (named("ABAC"), policies.is_some(), named("Webhook"), file.is_some()) {
        (true, false, ..) => "authorization-mode ABAC's authorization policy file not passed",
        (false, true, ..) => "cannot specify --authorization-policy-file without mode ABAC",
        (.., true, false) => "authorization-mode Webhook's authorization config file not passed",
        (.., false, true) => {
            "cannot specify --authorization-webhook-config-file without mode Webhook"
        }
        _ => return build(&sections, policies),
    };
    Err(Unusable(problem.to_owned()))
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

fn build(sections: &[Section], policies: Option<&Path>) -> Result<Vec<Link>, Unusable> {
    let mut errors = Vec::new();
    let mut chain = Vec::new();
    if sections.is_empty() {
        let problem = "at least one authorization mode must be defined";
        errors.push(FieldError::required("authorizers", problem));
    }
    for (index, section) in sections.iter().enumerate() {
        let path = format!("authorizers[{index}]");
        let field = |name: &str| format!("{path}.{name}");
        let (kind, before) = (section.kind.as_str(), &sections[..index]);
        if kind.is_empty() {
            errors.push(FieldError::required(field("type"), ""));
            continue;
        }
        if !TYPES.contains(&kind) {
            errors.push(FieldError::not_supported(field("type"), kind, TYPES));
            continue;
        }
        if kind != "Webhook" && before.iter().any(|other| other.kind == kind) {
            errors.push(FieldError::duplicate(field("type"), kind));
            continue;
        }
        check_name(section, before, &field("name"), &mut errors);
        let authorizer = match (kind, &section.webhook) {
            ("Webhook", None) => {
                errors.push(FieldError::required(field("webhook"), "required when type=Webhook"));
                None
            }
            ("Webhook", Some(webhook)) => {
                let built = webhook.build(&section.name, &path, &mut errors)?;
                built.map(|built| Authorizer::Webhook(built.into()))
            }
            (_, Some(_)) => {
                let problem = "may only be specified when type=Webhook";
                errors.push(FieldError::invalid(field("webhook"), "non-null", problem));
                None
            }
            ("ABAC", None) => {
                let file = policies.ok_or_else(|| {
                    let problem = "authorization-mode ABAC's authorization policy file not passed";
                    Unusable(problem.to_owned())
                })?;
                Some(Authorizer::Abac(Policies::load(file)?))
            }
            ("Node", None) => Some(Authorizer::Node),
            ("RBAC", None) => Some(Authorizer::Rbac),
            ("AlwaysAllow", None) => Some(Authorizer::AlwaysAllow),
            _ => Some(Authorizer::AlwaysDeny),
        };
        let name = section.name.clone();
        chain.extend(authorizer.map(|authorizer| Link { name, authorizer }));
    }
    match aggregate(&errors) {
        Some(problems) => Err(Unusable(problems)),
        None => Ok(chain),
    }
}

fn check_name(section: &Section, before: &[Section], field: &str, errors: &mut Vec<FieldError>) {
    let name = &section.name;
    let problems = api::names::dns_subdomain(name);
    if name.is_empty() {
        errors.push(FieldError::required(field, ""));
    } else if before.iter().any(|other| other.name == *name) {
        errors.push(FieldError::duplicate(field, name));
    } else if !problems.is_empty() {
        let problem = format!("authorizer name is invalid: {}", problems.join(", "));
        errors.push(FieldError::invalid(field, name, problem));
    }
}

impl Webhook {
    /// The webhook; `None` if there are errors.
    fn build(
        &self,
        name: &str,
        path: &str,
        errors: &mut Vec<FieldError>,
    ) -> Result<Option<AuthorizationWebhook>, Unusable> {
        let known = errors.len();
        let timeout = self.timeout(&format!("{path}.timeout"), errors);
        let mut life = |text: &Option<String>, default: &str, name: &str| {
            let text = text.as_deref().unwrap_or(default);
            let life = api::duration::parse(text).unwrap_or_default();
            if life.is_zero() {
                let field = format!("{path}.{name}");
                errors.push(FieldError::invalid(field, text, "must be > 0s"));
            }
            life
        };
        let allowed = life(&self.authorized_ttl, AUTHORIZED_LIFE, "authorizedTTL");
        let others = life(&self.unauthorized_ttl, UNAUTHORIZED_LIFE, "unauthorizedTTL");
        self.check_versions(path, errors);
        let failure = match self.failure_policy.as_str() {
            "Deny" => Decision::Deny,
            "NoOpinion" => Decision::NoOpinion,
            other => {
                let field = format!("{path}.failurePolicy");
                errors.push(match other {
                    "" => FieldError::required(field, ""),
                    _ => FieldError::not_supported(field, other, &["NoOpinion", "Deny"]),
                });
                Decision::Deny
            }
        };
        let file = self.file(&format!("{path}.connectionInfo"), errors);
        let conditions = self.conditions(&format!("{path}.matchConditions"), errors);
        let Some(file) = file.filter(|_| errors.len() == known) else { return Ok(None) };
        Ok(Some(AuthorizationWebhook {
            name: name.to_owned(),
            client: Client::new(match file {
                File::InCluster => Source::in_cluster()?,
                File::Path(path) => Source::load(&path)?,
            }),
            version: self.subject_access_review_version.clone(),
            timeout,
            failure,
            conditions,
            allowed: AuthorizationWebhook::answers(allowed),
            others: AuthorizationWebhook::answers(others),
            calls: Calls::default(),
        }))
    }

    fn timeout(&self, field: &str, errors: &mut Vec<FieldError>) -> Duration {
        let Some(text) = self.timeout.as_deref().filter(|text| *text != "0s") else {
            errors.push(FieldError::required(field, ""));
            return Duration::ZERO;
        };
        let timeout = api::duration::parse(text).unwrap_or_default();
        if timeout.is_zero() || timeout > MAX_TIMEOUT {
            errors.push(FieldError::invalid(field, text, "must be > 0s and <= 30s"));
        }
        timeout
    }

    fn check_versions(&self, path: &str, errors: &mut Vec<FieldError>) {
        let field = format!("{path}.subjectAccessReviewVersion");
        match self.subject_access_review_version.as_str() {
            "v1" | "v1beta1" => {}
            "" => errors.push(FieldError::required(field, "")),
            other => errors.push(FieldError::not_supported(field, other, &["v1", "v1beta1"])),
        }
        let field = format!("{path}.matchConditionSubjectAccessReviewVersion");
        match self.match_condition_subject_access_review_version.as_str() {
            "" if self.match_conditions.is_empty() => {}
            "" => {
                let problem = "required if match conditions are specified";
                errors.push(FieldError::required(field, problem));
            }
            "v1" => {}
            other => errors.push(FieldError::not_supported(field, other, &["v1"])),
        }
    }

    fn file(&self, path: &str, errors: &mut Vec<FieldError>) -> Option<File> {
        let field = format!("{path}.kubeConfigFile");
        let file = self.connection_info.kube_config_file.as_deref();
        match (self.connection_info.kind.as_str(), file) {
            ("InClusterConfig", None) => return Some(File::InCluster),
            ("InClusterConfig", Some(file)) => {
                let problem = "can only be set when type=KubeConfigFile";
                errors.push(FieldError::invalid(field, file, problem));
            }
            ("KubeConfigFile", None | Some("")) => errors.push(FieldError::required(field, "")),
            ("KubeConfigFile", Some(file)) => {
                let problem = match std::fs::metadata(file) {
                    _ if !Path::new(file).is_absolute() => "must be an absolute path".to_owned(),
                    Err(error) => format!("error loading file: {error}"),
                    Ok(found) if !found.is_file() => "must be a regular file".to_owned(),
                    Ok(_) => return Some(File::Path(file.into())),
                };
                errors.push(FieldError::invalid(field, file, problem));
            }
            ("", _) => errors.push(FieldError::required(format!("{path}.type"), "")),
            (other, _) => {
                let known = ["InClusterConfig", "KubeConfigFile"];
                errors.push(FieldError::not_supported(format!("{path}.type"), other, &known));
            }
        }
        None
    }

    fn conditions(
        &self,
        path: &str,
        errors: &mut Vec<FieldError>,
    ) -> Vec<Result<Expression, String>> {
        let all = &self.match_conditions;
        if all.len() > CONDITIONS {
            let problem = format!("must have at most {CONDITIONS} items");
            errors.push(FieldError::invalid(path, all.len(), problem));
            return Vec::new();
        }
        let environment = Environment::of(&["request"]);
        let mut compiled = Vec::new();
        for (index, condition) in all.iter().enumerate() {
            let (field, source) = (format!("{path}[{index}].expression"), &condition.expression);
            if source.trim().is_empty() {
                errors.push(FieldError::required(field, ""));
            } else if all[..index].iter().any(|other| other.expression == *source) {
                errors.push(FieldError::duplicate(field, source));
            } else {
                match environment.condition(source) {
                    Ok(expression) => compiled.push(Ok(expression)),
                    Err(problem) => errors.push(FieldError::invalid(field, source, problem)),
                }
            }
        }
        compiled
    }
}

/// Where the connection of a webhook is described.
enum File {
    InCluster,
    Path(PathBuf),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(fields: &str) -> Option<String> {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n";
        parse(&format!("{head}{fields}"), None).err().map(|error| error.to_string())
    }

    #[test]
    fn what_upstream_refuses_is_refused() {
        let webhook = |fields: &str| {
            format!(
                "authorizers: [{{type: Webhook, name: w, webhook: {{timeout: 3s, subjectAccessReviewVersion: v1, failurePolicy: Deny, connectionInfo: {{type: InClusterConfig}}, {fields}}}}}]"
            )
        };
        let at = "authorizers[0]";
        for (fields, expected) in [
            (
                "authorizers: []".to_owned(),
                "authorizers: Required value: at least one authorization mode must be defined"
                    .to_owned(),
            ),
            ("authorizers: [{name: a}]".to_owned(), format!("{at}.type: Required value")),
            (
                "authorizers: [{type: X, name: a}]".to_owned(),
                format!(
                    "{at}.type: Unsupported value: \"X\": supported values: \"ABAC\", \"AlwaysAllow\", \"AlwaysDeny\", \"Node\", \"RBAC\", \"Webhook\""
                ),
            ),
            (
                "authorizers: [{type: RBAC, name: a}, {type: RBAC, name: b}]".to_owned(),
                "authorizers[1].type: Duplicate value: \"RBAC\"".to_owned(),
            ),
            (
                "authorizers: [{type: RBAC, name: a}, {type: Node, name: a}]".to_owned(),
                "authorizers[1].name: Duplicate value: \"a\"".to_owned(),
            ),
            ("authorizers: [{type: RBAC}]".to_owned(), format!("{at}.name: Required value")),
            (
                "authorizers: [{type: Webhook, name: w}]".to_owned(),
                format!("{at}.webhook: Required value: required when type=Webhook"),
            ),
            (
                "authorizers: [{type: RBAC, name: a, webhook: {}}]".to_owned(),
                format!(
                    "{at}.webhook: Invalid value: \"non-null\": may only be specified when type=Webhook"
                ),
            ),
            (
                webhook("unauthorizedTTL: 0s"),
                format!("{at}.unauthorizedTTL: Invalid value: \"0s\": must be > 0s"),
            ),
            (
                webhook("matchConditions: [{expression: 'true'}]"),
                format!(
                    "{at}.matchConditionSubjectAccessReviewVersion: Required value: required if match conditions are specified"
                ),
            ),
            (
                webhook(
                    "matchConditionSubjectAccessReviewVersion: v1, matchConditions: [{expression: ''}]",
                ),
                format!("{at}.matchConditions[0].expression: Required value"),
            ),
        ] {
            assert_eq!(problem(&fields), Some(expected), "{fields}");
        }
        assert_eq!(
            problem("authorizers: [{type: Node, name: node}, {type: RBAC, name: rbac}]"),
            None
        );
    }
}
