//! `AuthenticationConfiguration`, and what upstream accepts in it
//! (`k8s.io/apiserver/pkg/apis/apiserver/validation/validation.go`).

mod compile;

use api::status::FieldError;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;

use super::claims::Mapping;
use crate::config::Config;
use crate::configuration::{Unusable, aggregate, decode};

/// Issuers of one configuration.
const MOST: usize = 64;
const VERSIONS: &[&str] = &[
    "apiserver.config.k8s.io/v1",
    "apiserver.config.k8s.io/v1beta1",
    "apiserver.config.k8s.io/v1alpha1",
];

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    #[serde(default)]
    pub jwt: Vec<Authenticator>,
    pub anonymous: Option<Anonymous>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anonymous {
    #[serde(default)]
    pub enabled: bool,
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    #[serde(default)]
    pub path: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Authenticator {
    #[serde(default)]
    pub issuer: Issuer,
    #[serde(default)]
    claim_validation_rules: Vec<ClaimRule>,
    #[serde(default)]
    claim_mappings: Mappings,
    #[serde(default)]
    user_validation_rules: Vec<UserRule>,
    /// Accepted algorithms, if not all.
    #[serde(skip)]
    pub algorithms: Option<Vec<String>>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Issuer {
    #[serde(default)]
    pub url: String,
    #[serde(default, rename = "discoveryURL")]
    pub discovery_url: String,
    #[serde(default)]
    pub certificate_authority: String,
    #[serde(default)]
    pub audiences: Vec<String>,
    #[serde(default)]
    audience_match_policy: String,
    #[serde(default)]
    egress_selector_type: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ClaimRule {
    #[serde(default)]
    claim: String,
    #[serde(default)]
    required_value: String,
    #[serde(default)]
    expression: String,
    #[serde(default)]
    message: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserRule {
    #[serde(default)]
    expression: String,
    #[serde(default)]
    message: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mappings {
    #[serde(default)]
    username: Prefixed,
    #[serde(default)]
    groups: Prefixed,
    #[serde(default)]
    uid: Unprefixed,
    #[serde(default)]
    extra: Vec<Extra>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Prefixed {
    #[serde(default)]
    claim: String,
    prefix: Option<String>,
    #[serde(default)]
    expression: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unprefixed {
    #[serde(default)]
    claim: String,
    #[serde(default)]
    expression: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Extra {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value_expression: String,
}

/// Reads a configuration; `own` is the issuer of ServiceAccount tokens.
///
/// # Errors
/// In upstream's words.
pub fn parse(text: &str, own: &str) -> Result<(Configuration, Vec<Mapping>), Unusable> {
    let configuration: Configuration = decode(text, "AuthenticationConfiguration", VERSIONS)?;
    let mappings = check(&configuration, own)?;
    Ok((configuration, mappings))
}

/// The configuration that `--oidc-*` flags stand for.
///
/// # Errors
/// In upstream's words.
pub fn of_flags(config: &Config, own: &str) -> Result<(Configuration, Vec<Mapping>), Unusable> {
    let flags = &config.oidc;
    let Some(url) = flags.oidc_issuer_url.clone() else {
        return Ok((Configuration::default(), Vec::new()));
    };
    let Some(client) = flags.oidc_client_id.clone() else {
        return Err(Unusable("oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set".to_owned()));
    };
    let authority = match &flags.oidc_ca_file {
        Some(path) => crate::configuration::read(path)
            .map_err(|error| Unusable(format!("--oidc-ca-file: {error}")))?,
        None => String::new(),
    };
    let prefix = match flags.oidc_username_prefix.as_str() {
        "" if flags.oidc_username_claim == "email" => String::new(),
        "" => format!("{url}#"),
        "-" => String::new(),
        prefix => prefix.to_owned(),
    };
    let rule = |text: &String| {
        let (claim, required_value) = text.split_once('=').unwrap_or((text, ""));
        let (claim, required_value) = (claim.trim().to_owned(), required_value.to_owned());
        ClaimRule { claim, required_value, ..ClaimRule::default() }
    };
    for algorithm in &flags.oidc_signing_algs {
        if !super::jwt::ALGORITHMS.contains(&algorithm.as_str()) {
            return Err(Unusable(format!("oidc: unsupported signing alg: {algorithm:?}")));
        }
    }
    let authenticator = Authenticator {
        issuer: Issuer {
            url,
            certificate_authority: authority,
            audiences: vec![client],
            ..Issuer::default()
        },
        claim_mappings: Mappings {
            username: Prefixed {
                claim: flags.oidc_username_claim.clone(),
                prefix: Some(prefix),
                ..Prefixed::default()
            },
            groups: Prefixed {
                claim: flags.oidc_groups_claim.clone(),
                prefix: Some(flags.oidc_groups_prefix.clone()),
                ..Prefixed::default()
            },
            ..Mappings::default()
        },
        claim_validation_rules: flags.oidc_required_claim.iter().map(rule).collect(),
        algorithms: Some(flags.oidc_signing_algs.clone()),
        ..Authenticator::default()
    };
    let configuration = Configuration { jwt: vec![authenticator], anonymous: None };
    let mappings = check(&configuration, own)?;
    Ok((configuration, mappings))
}

fn check(configuration: &Configuration, own: &str) -> Result<Vec<Mapping>, Unusable> {
    let (mut errors, mut mappings) = (Vec::new(), Vec::new());
    let all = &configuration.jwt;
    if all.len() > MOST {
        let problem = format!("jwt: Too many: {}: must have at most {MOST} items", all.len());
        return Err(Unusable(problem));
    }
    for (index, authenticator) in all.iter().enumerate() {
        let path = format!("jwt[{index}]");
        check_issuer(&authenticator.issuer, own, &format!("{path}.issuer"), &mut errors);
        mappings.push(compile::mapping(authenticator, &path, &mut errors));
        let issuer = &authenticator.issuer;
        let mut others = all[..index].iter().map(|other| &other.issuer);
        if others.clone().any(|other| other.url == issuer.url) {
            errors.push(FieldError::duplicate(format!("{path}.issuer.url"), &issuer.url));
        }
        let discovery = &issuer.discovery_url;
        if !discovery.is_empty() && others.any(|other| other.discovery_url == *discovery) {
            errors.push(FieldError::duplicate(format!("{path}.issuer.discoveryURL"), discovery));
        }
    }
    if let Some(anonymous) = &configuration.anonymous
        && !anonymous.enabled
        && !anonymous.conditions.is_empty()
    {
        let problem = "enabled should be set to true when conditions are defined";
        errors.push(FieldError::invalid("anonymous.conditions", &anonymous.conditions, problem));
    }
    match aggregate(&errors) {
        Some(problems) => Err(Unusable(problems)),
        None => Ok(mappings.into_iter().flatten().collect()),
    }
}

fn check_issuer(issuer: &Issuer, own: &str, path: &str, errors: &mut Vec<FieldError>) {
    let field = |name: &str| format!("{path}.{name}");
    if issuer.url.is_empty() {
        errors.push(FieldError::required(field("url"), ""));
    } else {
        if issuer.url == own {
            let problem = format!("URL must not overlap with disallowed issuers: [{own}]");
            errors.push(FieldError::invalid(field("url"), own, problem));
        }
        check_url(&issuer.url, &field("url"), errors);
    }
    let discovery = &issuer.discovery_url;
    if !discovery.is_empty() {
        let same = issuer.url.trim_end_matches('/') == discovery.trim_end_matches('/');
        if !issuer.url.is_empty() && same {
            let problem = "discoveryURL must be different from URL";
            errors.push(FieldError::invalid(field("discoveryURL"), discovery, problem));
        }
        check_url(discovery, &field("discoveryURL"), errors);
    }
    check_audiences(issuer, path, errors);
    let authority = &issuer.certificate_authority;
    if !authority.is_empty() {
        let read: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(authority.as_bytes()).collect();
        if read.is_err() || read.is_ok_and(|all| all.is_empty()) {
            let problem = "data does not contain any valid RSA or ECDSA certificates";
            errors.push(FieldError::invalid(field("certificateAuthority"), "<omitted>", problem));
        }
    }
    if !issuer.egress_selector_type.is_empty() {
        let problem = "egress selector is not supported when StructuredAuthenticationConfigurationEgressSelector feature gate is disabled";
        let shown = &issuer.egress_selector_type;
        errors.push(FieldError::invalid(field("egressSelectorType"), shown, problem));
    }
}

fn check_audiences(issuer: &Issuer, path: &str, errors: &mut Vec<FieldError>) {
    let field = format!("{path}.audiences");
    let audiences = &issuer.audiences;
    if audiences.is_empty() {
        errors.push(FieldError::required(&field, format!("at least one {field} is required")));
        return;
    }
    for (index, audience) in audiences.iter().enumerate() {
        if audience.is_empty() {
            errors.push(FieldError::required(format!("{field}[{index}]"), ""));
        }
        if audiences[..index].contains(audience) {
            errors.push(FieldError::duplicate(format!("{field}[{index}]"), audience));
        }
    }
    let policy = issuer.audience_match_policy.as_str();
    let problem = match (audiences.len(), policy) {
        (_, "MatchAny") | (1, "") => return,
        (1, _) => "audienceMatchPolicy must be empty or MatchAny for single audience",
        _ => "audienceMatchPolicy must be MatchAny for multiple audiences",
    };
    errors.push(FieldError::invalid(format!("{path}.audienceMatchPolicy"), policy, problem));
}

fn check_url(url: &str, field: &str, errors: &mut Vec<FieldError>) {
    let mut refuse = |problem: &str| errors.push(FieldError::invalid(field, url, problem));
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest.split_once("://").unwrap_or(("", rest));
    if scheme != "https" {
        refuse("URL scheme must be https");
    }
    if rest.split('/').next().unwrap_or_default().contains('@') {
        refuse("URL must not contain a username or password");
    }
    if !query.is_empty() {
        refuse("URL must not contain a query");
    }
    if !fragment.is_empty() {
        refuse("URL must not contain a fragment");
    }
}

#[cfg(test)]
mod tests;
