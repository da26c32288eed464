//! A container's environment variables, computed from objects fetched before: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret};

use super::expansion::expand;
use crate::pod::downward_api::{self, RuntimeFields};

/// The names of the objects that a container's environment refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    pub config_maps: BTreeSet<String>,
    pub secrets: BTreeSet<String>,
}

/// The objects that exist, by name.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub config_maps: BTreeMap<String, Arc<ConfigMap>>,
    pub secrets: BTreeMap<String, Arc<Secret>>,
    /// Variables for the services.
    pub services: BTreeMap<String, String>,
    pub runtime_fields: RuntimeFields,
}

/// Why the environment cannot be computed, with Kubernetes' messages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    #[error("configmap \"{0}\" not found")]
    NoConfigMap(String),
    #[error("secret \"{0}\" not found")]
    NoSecret(String),
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey { key: String, kind: &'static str, namespace: String, name: String },
    #[error("the value of variable {0} is not UTF-8")]
    NotText(String),
    #[error(transparent)]
    Field(#[from] downward_api::FieldError),
    #[error("variable {0} has a source that this node does not support")]
    Unsupported(String),
}

/// What has to be fetched for `container`.
pub fn references(container: &Container) -> References {
    let mut references = References::default();
    for from in container.env_from.iter().flatten() {
        if let Some(source) = &from.config_map_ref {
            references.config_maps.insert(source.name.clone());
        }
        if let Some(source) = &from.secret_ref {
            references.secrets.insert(source.name.clone());
        }
    }
    let sources =
        container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
    for source in sources {
        if let Some(key) = &source.config_map_key_ref {
            references.config_maps.insert(key.name.clone());
        }
        if let Some(key) = &source.secret_key_ref {
            references.secrets.insert(key.name.clone());
        }
    }
    references
}

/// The variables of `container`, in order: services, `envFrom`, `env`. A later variable replaces an
/// earlier one of the same name; `$(NAME)` sees those before it.
pub fn environment(
    pod: &Pod,
    container: &Container,
    sources: &Sources,
) -> Result<Vec<(String, String)>, EnvironmentError> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let mut result = Variables::default();
    for (name, value) in from_whole_objects(container, sources)? {
        result.set(name, value);
    }
    for variable in container.env.iter().flatten() {
        let name = &variable.name;
        let value = match (&variable.value, &variable.value_from) {
            (Some(text), _) if !text.is_empty() => Some(expand(text, |known| {
                result.get(known).or_else(|| sources.services.get(known).cloned())
            })),
            (_, Some(from)) => value_from(pod, container, name, from, sources, &namespace)?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            result.set(name.clone(), value);
        }
    }
    let own: BTreeSet<&String> = result.0.iter().map(|(name, _)| name).collect();
    let mut all: Vec<(String, String)> = sources
        .services
        .iter()
        .filter(|(name, _)| !own.contains(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    all.extend(result.0);
    Ok(all)
}

/// Variables in order of first appearance.
#[derive(Default)]
struct Variables(Vec<(String, String)>);

impl Variables {
    fn set(&mut self, name: String, value: String) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => self.0.push((name, value)),
        }
    }

    fn get(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }
}

fn from_whole_objects(
    container: &Container,
    sources: &Sources,
) -> Result<Vec<(String, String)>, EnvironmentError> {
    let mut found = Vec::new();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(source) = &from.config_map_ref {
            match sources.config_maps.get(&source.name) {
                Some(map) => {
                    for (key, value) in map.data.iter().flatten() {
                        found.push((format!("{prefix}{key}"), value.clone()));
                    }
                }
                None if source.optional == Some(true) => {}
                None => return Err(EnvironmentError::NoConfigMap(source.name.clone())),
            }
        }
        if let Some(source) = &from.secret_ref {
            match sources.secrets.get(&source.name) {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        let name = format!("{prefix}{key}");
                        let value = text(&name, &value.0)?;
                        found.push((name, value));
                    }
                }
                None if source.optional == Some(true) => {}
                None => return Err(EnvironmentError::NoSecret(source.name.clone())),
            }
        }
    }
    found.retain(|(name, _)| !name.is_empty() && !name.contains('='));
    Ok(found)
}

fn text(name: &str, bytes: &[u8]) -> Result<String, EnvironmentError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| EnvironmentError::NotText(name.to_owned()))
}

/// `None`: an optional source is missing, so the variable is omitted.
fn value_from(
    pod: &Pod,
    container: &Container,
    name: &str,
    from: &EnvVarSource,
    sources: &Sources,
    namespace: &str,
) -> Result<Option<String>, EnvironmentError> {
    if let Some(selector) = &from.field_ref {
        return Ok(Some(downward_api::field(pod, selector, &sources.runtime_fields)?));
    }
    if let Some(selector) = &from.resource_field_ref {
        return Ok(Some(downward_api::resource(
            pod,
            Some(container),
            selector,
            &sources.runtime_fields,
        )?));
    }
    let no_key = |key: &str, kind: &'static str, object: &str| EnvironmentError::NoKey {
        key: key.to_owned(),
        kind,
        namespace: namespace.to_owned(),
        name: object.to_owned(),
    };
    if let Some(key) = &from.config_map_key_ref {
        let optional = key.optional == Some(true);
        let Some(map) = sources.config_maps.get(&key.name) else {
            return if optional {
                Ok(None)
            } else {
                Err(EnvironmentError::NoConfigMap(key.name.clone()))
            };
        };
        return match map.data.as_ref().and_then(|data| data.get(&key.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => Err(no_key(&key.key, "ConfigMap", &key.name)),
        };
    }
    if let Some(key) = &from.secret_key_ref {
        let optional = key.optional == Some(true);
        let Some(secret) = sources.secrets.get(&key.name) else {
            return if optional {
                Ok(None)
            } else {
                Err(EnvironmentError::NoSecret(key.name.clone()))
            };
        };
        return match secret.data.as_ref().and_then(|data| data.get(&key.key)) {
            Some(value) => text(name, &value.0).map(Some),
            None if optional => Ok(None),
            None => Err(no_key(&key.key, "Secret", &key.name)),
        };
    }
    Err(EnvironmentError::Unsupported(name.to_owned()))
}

#[cfg(test)]
mod tests;
