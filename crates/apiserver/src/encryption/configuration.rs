//! `EncryptionConfiguration`, and what upstream accepts in it
//! (`k8s.io/apiserver/pkg/apis/apiserver/validation/validation_encryption.go`).

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use api::status::FieldError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

use super::selection::Resource;
use crate::configuration::{Unusable, aggregate, decode};

const AES_SIZES: &[usize] = &[16, 24, 32];
const BOX_SIZES: &[usize] = &[32];
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);

const NO_PROVIDER: &str = "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity";
const SEVERAL_PROVIDERS: &str = "more than one provider specified in a single element, should split into different list elements";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    #[serde(default)]
    pub resources: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    #[serde(default)]
    pub resources: Vec<String>,
    #[serde(default)]
    pub providers: Vec<Provider>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    pub aesgcm: Option<Keys>,
    pub aescbc: Option<Keys>,
    pub secretbox: Option<Keys>,
    pub identity: Option<Identity>,
    pub kms: Option<KmsConfiguration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    #[serde(default)]
    pub keys: Vec<Key>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub secret: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KmsConfiguration {
    #[serde(default = "first_version", rename = "apiVersion")]
    pub api_version: String,
    #[serde(default)]
    pub name: String,
    pub cachesize: Option<i32>,
    #[serde(default)]
    pub endpoint: String,
    timeout: Option<String>,
}

fn first_version() -> String {
    "v1".to_owned()
}

impl KmsConfiguration {
    /// How long a call may take.
    pub fn timeout(&self) -> Duration {
        let timeout = self.timeout.as_deref().map(|text| api::duration::parse(text).ok());
        timeout.map_or(DEFAULT_TIMEOUT, |timeout| timeout.unwrap_or_default())
    }

    /// The path of the plugin's socket; abstract sockets begin with `@`.
    pub fn socket(&self) -> &str {
        self.endpoint.strip_prefix("unix://").unwrap_or_default()
    }
}

/// Reads a configuration.
///
/// # Errors
/// In upstream's words, without secrets.
pub fn parse(path: &Path, text: &str, reload: bool) -> Result<Configuration, Unusable> {
    if text.is_empty() {
        return Err(Unusable(format!(
            "error while loading file: encryption provider configuration file {path:?} is empty"
        )));
    }
    let parsed: Configuration =
        decode(text, "EncryptionConfiguration", &["apiserver.config.k8s.io/v1"]).map_err(
            |error| {
                format!("error decoding encryption provider configuration file {path:?}: {error}")
            },
        )?;
    match aggregate(&validate(&parsed, reload)) {
        Some(problems) => Err(Unusable(problems)),
        None => Ok(parsed),
    }
}

fn validate(configuration: &Configuration, reload: bool) -> Vec<FieldError> {
    let at_least_one = |field: &str, what: &str| {
        FieldError::required(field, format!("at least one {what} is required"))
    };
    if configuration.resources.is_empty() {
        return vec![at_least_one("resources", "resources")];
    }
    let mut errors = Vec::new();
    let mut names = HashSet::new();
    for (index, row) in configuration.resources.iter().enumerate() {
        let resources = format!("resources[{index}].resources");
        let providers = format!("resources[{index}].providers");
        if row.resources.is_empty() {
            errors.push(at_least_one(&resources, &resources));
        }
        errors.extend(overlaps(&row.resources, &resources));
        for (at, name) in row.resources.iter().enumerate() {
            if let Some(problem) = resource_problem(name) {
                errors.push(FieldError::invalid(format!("{resources}[{at}]"), name, problem));
            }
        }
        if row.providers.is_empty() {
            errors.push(at_least_one(&providers, &providers));
        }
        for (at, provider) in row.providers.iter().enumerate() {
            let path = format!("{providers}[{at}]");
            errors.extend(validate_provider(provider, &path));
            if let Some(kms) = &provider.kms {
                errors.extend(validate_kms(kms, &format!("{path}.kms"), &names, reload));
                names.insert(kms.name.clone());
            }
        }
    }
    errors
}

fn validate_provider(provider: &Provider, path: &str) -> Vec<FieldError> {
    let keys = [
        ("aesgcm", &provider.aesgcm, AES_SIZES),
        ("aescbc", &provider.aescbc, AES_SIZES),
        ("secretbox", &provider.secretbox, BOX_SIZES),
    ];
    let count = keys.iter().filter(|(_, keys, _)| keys.is_some()).count()
        + usize::from(provider.identity.is_some())
        + usize::from(provider.kms.is_some());
    let mut errors = Vec::new();
    // The provider itself is not shown: it has secrets.
    match count {
        0 => errors.push(FieldError::invalid(path, "REDACTED", NO_PROVIDER)),
        1 => {}
        _ => errors.push(FieldError::invalid(path, "REDACTED", SEVERAL_PROVIDERS)),
    }
    let first =
        keys.into_iter().find_map(|(name, keys, sizes)| Some((name, keys.as_ref()?, sizes)));
    if let Some((name, keys, sizes)) = first.filter(|_| provider.kms.is_none()) {
        errors.extend(validate_keys(&keys.keys, &format!("{path}.{name}.keys"), sizes));
    }
    errors
}

fn validate_keys(keys: &[Key], path: &str, sizes: &[usize]) -> Vec<FieldError> {
    if keys.is_empty() {
        return vec![FieldError::required(path, "at least one keys is required")];
    }
    let mut errors = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        let field = |name: &str| format!("{path}[{index}].{name}");
        if key.name.is_empty() {
            errors.push(mandatory(field("name"), "name", "key"));
        }
        if key.secret.is_empty() {
            errors.push(mandatory(field("secret"), "secret", "key"));
            continue;
        }
        let problem = match BASE64.decode(&key.secret) {
            Err(_) => "secrets must be base64 encoded".to_owned(),
            Ok(secret) if sizes.contains(&secret.len()) => continue,
            Ok(secret) => {
                let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
                format!(
                    "secret is not of the expected length, got {}, expected one of [{}]",
                    secret.len(),
                    sizes.join(" ")
                )
            }
        };
        errors.push(FieldError::invalid(field("secret"), "REDACTED", problem));
    }
    errors
}

fn mandatory(field: String, name: &str, of: &str) -> FieldError {
    FieldError::required(field, format!("{name} is a mandatory field for a {of}"))
}

fn validate_kms(
    kms: &KmsConfiguration,
    path: &str,
    names: &HashSet<String>,
    reload: bool,
) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (first, field) = (kms.api_version == "v1", |name: &str| format!("{path}.{name}"));
    let invalid =
        |name: &str, value: &str, problem: String| FieldError::invalid(field(name), value, problem);
    let name = &kms.name;
    if name.is_empty() {
        errors.push(mandatory(field("name"), "name", "provider"));
    }
    if !first && name.contains(':') {
        let problem = format!("invalid KMS provider name {name}, must not contain ':'");
        errors.push(invalid("name", name, problem));
    }
    if (reload || !first) && names.contains(name) {
        let problem = format!("duplicate KMS provider name {name}, names must be unique");
        errors.push(invalid("name", name, problem));
    }
    if kms.timeout().is_zero() {
        let shown = kms.timeout.as_deref().unwrap_or_default();
        errors.push(invalid("timeout", shown, "timeout should be a positive value".to_owned()));
    }
    let scheme = kms.endpoint.split_once(':').map(|(scheme, _)| scheme);
    match scheme {
        _ if kms.endpoint.is_empty() => {
            let problem = "endpoint is a mandatory field for a kms".to_owned();
            errors.push(invalid("endpoint", "", problem));
        }
        Some("unix") => {}
        other => {
            let problem = format!(
                "unsupported scheme {:?} for KMS provider, only unix is supported",
                other.unwrap_or_default()
            );
            errors.push(invalid("endpoint", &kms.endpoint, problem));
        }
    }
    match kms.cachesize {
        Some(size) if !first => {
            let problem = "cachesize is not supported in v2";
            errors.push(FieldError::invalid(field("cachesize"), size, problem));
        }
        Some(0) => {
            let problem = "cachesize should be a positive value, or negative to disable";
            errors.push(FieldError::invalid(field("cachesize"), 0, problem));
        }
        _ => {}
    }
    if !first && kms.api_version != "v2" {
        let problem =
            "unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported";
        errors.push(invalid("apiVersion", &kms.api_version, problem.to_owned()));
    }
    errors
}

/// Resources of one row that hide one another.
fn overlaps(names: &[String], path: &str) -> Vec<FieldError> {
    let resources: Vec<Resource> = names.iter().map(|name| Resource::parse(name)).collect();
    let (mut duplicate, mut overlap) = (false, false);
    for (index, one) in resources.iter().enumerate() {
        for other in resources.iter().skip(index + 1) {
            let wild = one.plural == "*" || other.plural == "*";
            let everything = one.is_everything() || other.is_everything();
            match one == other {
                true if !duplicate => duplicate = true,
                _ => overlap |= everything || (one.group == other.group && wild),
            }
        }
    }
    let problem = |text: &str| FieldError::invalid(path, names, text);
    let mut errors = Vec::new();
    if duplicate {
        errors.push(problem("the same resource cannot be specified multiple times"));
    }
    if overlap {
        errors.push(problem(
            "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked",
        ));
    }
    errors
}

fn resource_problem(name: &str) -> Option<&'static str> {
    let resource = Resource::parse(name);
    Some(match name {
        _ if name.to_lowercase() != name => "resource name should not contain capital letters",
        "*" => {
            "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources"
        }
        "apiserveripinfo" | "serviceipallocations" | "servicenodeportallocations" => {
            "resources which do not have REST API/s cannot be encrypted"
        }
        _ if resource.group == "events.k8s.io" => {
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file"
        }
        _ if resource.group == "extensions" => {
            "'extensions' group has been removed and cannot be used for encryption"
        }
        _ if resource.group == "*" && resource.plural != "*" => {
            "encrypting the same resource across groups is not supported"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
