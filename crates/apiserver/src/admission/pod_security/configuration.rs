//! `--admission-control-config-file`: upstream's `AdmissionConfiguration` with a
//! `PodSecurityConfiguration` (`kubernetes.io/docs/tasks/configure-pod-container/enforce-standards-admission-controller`).

use std::path::{Path, PathBuf};

use runtime::configuration::{self, ConfigurationError};
use serde::Deserialize;
use serde_json::Value;

use super::policy::{Level, MODES, Policy, Version};
use super::{Exemptions, PodSecurity};

const PLUGIN: &str = "PodSecurity";
const FILE_VERSIONS: &[&str] = &["apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1alpha1"];
const PLUGIN_VERSIONS: &[&str] = &[
    "pod-security.admission.config.k8s.io/v1",
    "pod-security.admission.config.k8s.io/v1beta1",
    "pod-security.admission.config.k8s.io/v1alpha1",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AdmissionConfiguration {
    api_version: String,
    kind: String,
    #[serde(default)]
    plugins: Vec<PluginConfiguration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PluginConfiguration {
    name: String,
    path: Option<PathBuf>,
    configuration: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PodSecurityConfiguration {
    api_version: String,
    kind: String,
    #[serde(default)]
    defaults: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    exemptions: Exemptions,
}

/// What is wrong with a name.
type Problems = fn(&str) -> Vec<String>;

/// The plugin as the file configures it.
///
/// # Errors
/// When the file cannot be read, or has what is not supported.
pub fn load(path: &Path) -> Result<PodSecurity, ConfigurationError> {
    let invalid = |problem: String| ConfigurationError::Invalid { path: path.to_owned(), problem };
    let file: AdmissionConfiguration = configuration::load(path, parse)?;
    let versions = FILE_VERSIONS.contains(&file.api_version.as_str());
    if !versions || file.kind != "AdmissionConfiguration" {
        let problem = format!("{}, kind {} is not supported", file.api_version, file.kind);
        return Err(invalid(problem));
    }
    let mut plugin = PodSecurity::default();
    for own in file.plugins {
        if own.name != PLUGIN {
            return Err(invalid(format!("the plugin {:?} takes no configuration", own.name)));
        }
        plugin = match (own.configuration, own.path) {
            (Some(configuration), None) => configured(configuration).map_err(invalid)?,
            (None, Some(other)) => {
                let other = path.parent().unwrap_or(Path::new("")).join(other);
                configuration::load(&other, |text| parse(text).and_then(configured))?
            }
            (None, None) => PodSecurity::default(),
            (Some(_), Some(_)) => {
                let problem = format!("{PLUGIN}: configuration and path exclude each other");
                return Err(invalid(problem));
            }
        };
    }
    Ok(plugin)
}

fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    let value: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    serde_json::from_value(value).map_err(|error| error.to_string())
}

fn configured(value: Value) -> Result<PodSecurity, String> {
    let own: PodSecurityConfiguration =
        serde_json::from_value(value).map_err(|error| error.to_string())?;
    let versions = PLUGIN_VERSIONS.contains(&own.api_version.as_str());
    if !versions || own.kind != "PodSecurityConfiguration" {
        return Err(format!("{}, kind {} is not supported", own.api_version, own.kind));
    }
    let mut defaults = Policy::default();
    for (key, text) in &own.defaults {
        let problem = |why: &str| format!("defaults.{key}: Invalid value: {text:?}: {why}");
        let mode = MODES.into_iter().find(|mode| {
            key.strip_prefix(mode.text()).is_some_and(|rest| matches!(rest, "" | "-version"))
        });
        let Some(mode) = mode else {
            return Err(format!("defaults.{key} is not known"));
        };
        let part = defaults.of_mut(mode);
        if key == mode.text() {
            part.level = Level::parse(text).map_err(problem)?;
        } else {
            part.version = Version::parse(text).map_err(problem)?;
        }
    }
    let exemptions = own.exemptions;
    let lists: [(&str, &[String], Problems); 3] = [
        ("namespaces", &exemptions.namespaces, api::names::dns_label),
        ("runtimeClasses", &exemptions.runtime_classes, api::names::dns_subdomain),
        ("usernames", &exemptions.usernames, username),
    ];
    for (name, list, problems) in lists {
        for (index, item) in list.iter().enumerate() {
            let path = format!("exemptions.{name}[{index}]");
            if let Some(problem) = problems(item).first() {
                return Err(format!("{path}: Invalid value: {item:?}: {problem}"));
            }
            if list[..index].contains(item) {
                return Err(format!("{path}: Duplicate value: {item:?}"));
            }
        }
    }
    Ok(PodSecurity { defaults, exemptions })
}

fn username(name: &str) -> Vec<String> {
    if name.is_empty() { vec!["username must not be empty".to_owned()] } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(plugin: &str) -> Result<PodSecurity, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admission.yaml");
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n- name: PodSecurity\n  configuration:\n    apiVersion: pod-security.admission.config.k8s.io/v1\n    kind: PodSecurityConfiguration\n{plugin}"
        );
        std::fs::write(&path, text).unwrap();
        load(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_and_exemptions_are_read() {
        let plugin = loaded(
            "    defaults: {enforce: baseline, enforce-version: v1.30, warn: restricted}\n    exemptions: {usernames: [root], runtimeClasses: [kata], namespaces: [kube-system]}\n",
        )
        .unwrap();
        assert_eq!(plugin.defaults.enforce.to_string(), "baseline:v1.30");
        assert_eq!(plugin.defaults.warn.to_string(), "restricted:latest");
        assert_eq!(plugin.defaults.audit.to_string(), "privileged:latest");
        assert_eq!(plugin.exemptions.namespaces, ["kube-system"]);
        assert!(loaded("").unwrap().defaults.is_privileged());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (text, problem) in [
            (
                "    defaults: {enforce: strict}\n",
                "must be one of privileged, baseline, restricted",
            ),
            ("    defaults: {enforce-version: v2}\n", "must be \"latest\" or \"v1.x\""),
            ("    defaults: {enforces: baseline}\n", "defaults.enforces is not known"),
            ("    exemptions: {namespaces: [A]}\n", "exemptions.namespaces[0]"),
            ("    exemptions: {usernames: [a, a]}\n", "Duplicate value"),
            ("    exemption: {}\n", "unknown field"),
        ] {
            let error = loaded(text).err().unwrap();
            assert!(error.contains(problem), "{error}");
        }
        assert!(load(Path::new("/nowhere")).is_err());
    }
}
