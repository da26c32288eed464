//! `--admission-control-config-file`: upstream's `AdmissionConfiguration`, with what plugins are
//! told, in the file itself or in files beside it.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::event_rate::EventLimits;
use super::flags::AdmissionFlags;
use super::node_selector::NodeSelectors;
use super::plugin::Plugin;
use super::plugins::PLUGINS;
use super::pod_security::{self, PodSecurity};
use super::quota::LimitedResource;
use super::toleration_restriction::ClusterTolerations;
use super::{event_rate, node_selector, quota, toleration_restriction};
use crate::configuration::{self, Unusable};

const VERSIONS: &[&str] = &["apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1alpha1"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AdmissionConfiguration {
    #[serde(default)]
    plugins: Vec<PluginConfiguration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PluginConfiguration {
    name: String,
    #[serde(default)]
    path: PathBuf,
    configuration: Option<Value>,
}

/// What plugins are told.
#[derive(Debug, Default)]
pub struct Settings {
    pub not_ready_toleration_seconds: i64,
    pub unreachable_toleration_seconds: i64,
    pub pod_security: PodSecurity,
    pub node_selectors: NodeSelectors,
    pub tolerations: ClusterTolerations,
    pub event_limits: EventLimits,
    /// What is only used where a quota covers it.
    pub limited_resources: Vec<LimitedResource>,
}

impl Settings {
    /// Reads the settings of the enabled plugins.
    ///
    /// # Errors
    /// When the file cannot be read or used, or a plugin cannot do without.
    pub fn load(flags: &AdmissionFlags, enabled: &[&Plugin]) -> anyhow::Result<Self> {
        let mut settings = Self {
            not_ready_toleration_seconds: flags.default_not_ready_toleration_seconds,
            unreachable_toleration_seconds: flags.default_unreachable_toleration_seconds,
            ..Self::default()
        };
        let mut texts = match &flags.admission_control_config_file {
            Some(path) => read(path).context("failed to read plugin config")?,
            None => Vec::new(),
        };
        for plugin in enabled {
            let given = texts.iter().position(|(name, _)| name == plugin.name);
            let text = given.map(|index| texts.swap_remove(index).1);
            settings.tell(plugin.name, text.as_deref()).map_err(|Unusable(why)| {
                anyhow!("couldn't init admission plugin {:?}: {why}", plugin.name)
            })?;
        }
        Ok(settings)
    }

    fn tell(&mut self, plugin: &str, text: Option<&str>) -> Result<(), Unusable> {
        match (plugin, text) {
            ("EventRateLimit", text) => self.event_limits = event_rate::configured(text)?,
            ("PodNodeSelector", Some(text)) => {
                self.node_selectors = node_selector::configured(text)?;
            }
            ("PodSecurity", Some(text)) => {
                self.pod_security = pod_security::configuration::configured(text)?;
            }
            ("PodTolerationRestriction", Some(text)) => {
                self.tolerations = toleration_restriction::configured(text)?;
            }
            ("ResourceQuota", Some(text)) => self.limited_resources = quota::configured(text)?,
            ("MutatingAdmissionWebhook" | "ValidatingAdmissionWebhook", Some(_)) => {
                let why = "credentials for webhooks are not supported by this server";
                return Err(Unusable(why.to_owned()));
            }
            (_, Some(_)) => return Err(Unusable("it takes no configuration".to_owned())),
            (_, None) => {}
        }
        Ok(())
    }
}

/// The configurations in a file by plugin.
fn read(path: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let named = |path: &Path| path.display().to_string();
    let text = configuration::read(path).with_context(|| {
        format!("unable to read admission control configuration from {:?}", named(path))
    })?;
    let file: AdmissionConfiguration =
        configuration::decode(&text, "AdmissionConfiguration", VERSIONS)?;
    let mut all: Vec<(String, String)> = Vec::new();
    for PluginConfiguration { name, path: other, configuration } in file.plugins {
        if !PLUGINS.iter().any(|plugin| plugin.name == name) {
            bail!("unknown admission plugin: {name}");
        }
        if all.iter().any(|(known, _)| *known == name) {
            bail!("the admission plugin {name} is configured twice");
        }
        let is_elsewhere = !other.as_os_str().is_empty();
        let text = match configuration {
            Some(_) if is_elsewhere => {
                bail!("{name}: configuration and path exclude each other")
            }
            Some(own) => own.to_string(),
            None if is_elsewhere => {
                let other = path.parent().unwrap_or(Path::new("")).join(other);
                let text = configuration::read(&other);
                text.with_context(|| {
                    format!("Couldn't open admission plugin configuration {}", named(&other))
                })?
            }
            None => continue,
        };
        all.push((name, text));
    }
    Ok(all)
}

/// Decodes what a plugin is told, of a kind in one of its versions.
///
/// # Errors
/// What is wrong with it.
pub(super) fn decode<T: DeserializeOwned>(
    text: &str,
    kinds: &[(&str, &str)],
) -> Result<T, Unusable> {
    let mut first = None;
    for (version, kind) in kinds {
        match configuration::decode(text, kind, &[version]) {
            Ok(decoded) => return Ok(decoded),
            Err(error) if !error.0.starts_with("no kind") => return Err(error),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| Unusable("no kind is known".to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told to a plugin by a file, its problem otherwise.
    fn told(name: &str, configuration: &str, beside: bool) -> Result<Settings, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admission.yaml");
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\n";
        let text = if beside {
            std::fs::write(folder.path().join("plugin.yaml"), configuration).unwrap();
            format!("{head}plugins: [{{name: {name}, path: plugin.yaml}}]")
        } else {
            let indented = configuration.replace('\n', "\n    ");
            format!("{head}plugins:\n- name: {name}\n  configuration:\n    {indented}\n")
        };
        std::fs::write(&path, text).unwrap();
        load(&path, &[name])
    }

    fn load(path: &Path, enable: &[&str]) -> Result<Settings, String> {
        let flags = AdmissionFlags {
            enable_admission_plugins: enable.iter().map(|name| (*name).to_owned()).collect(),
            admission_control_config_file: Some(path.to_owned()),
            ..AdmissionFlags::default()
        };
        let settings = Settings::load(&flags, &flags.enabled().unwrap());
        settings.map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn files_are_refused_with_the_plugin_that_cannot_use_them() {
        let quota = "apiVersion: apiserver.config.k8s.io/v1\nkind: ResourceQuotaConfiguration";
        let limits = "apiVersion: eventratelimit.admission.k8s.io/v1alpha1\nkind: Configuration";
        for (name, text, problem) in [
            (
                "Priority",
                "kind: A",
                "couldn't init admission plugin \"Priority\": it takes no configuration",
            ),
            (
                "ValidatingAdmissionWebhook",
                "apiVersion: apiserver.config.k8s.io/v1\nkind: WebhookAdmissionConfiguration",
                "couldn't init admission plugin \"ValidatingAdmissionWebhook\": credentials for webhooks are not supported by this server",
            ),
            (
                "ResourceQuota",
                "apiVersion: v1\nkind: Quota",
                "couldn't init admission plugin \"ResourceQuota\": no kind \"Quota\" is registered for version \"v1\"",
            ),
            (
                "ResourceQuota",
                &format!("{quota}\nlimited: []"),
                "couldn't init admission plugin \"ResourceQuota\": strict decoding error: unknown field \"limited\"",
            ),
            (
                "ResourceQuota",
                &format!("{quota}\nlimitedResources: [{{apiGroup: apps}}]"),
                "couldn't init admission plugin \"ResourceQuota\": limitedResources[0].resource: Required value",
            ),
            (
                "EventRateLimit",
                &format!("{limits}\nlimits: []"),
                "couldn't init admission plugin \"EventRateLimit\": limits: Invalid value: []: must not be empty",
            ),
            (
                "EventRateLimit",
                &format!("{limits}\nlimits: [{{type: Pod, qps: 0, burst: -1, cacheSize: -1}}]"),
                "couldn't init admission plugin \"EventRateLimit\": [limits[0].type: Unsupported value: \"Pod\": supported values: \"Namespace\", \"Server\", \"SourceAndObject\", \"User\", limits[0].burst: Invalid value: -1: must be positive, limits[0].qps: Invalid value: 0: must be positive, limits[0].cacheSize: Invalid value: -1: must not be negative]",
            ),
            (
                "PodNodeSelector",
                "podNodeSelectorPluginConfig: {clusterDefaultNodeSelector: a}",
                "couldn't init admission plugin \"PodNodeSelector\": clusterDefaultNodeSelector: invalid selector: [a]",
            ),
        ] {
            for beside in [false, true] {
                assert_eq!(told(name, text, beside).err().unwrap(), problem);
            }
        }
    }

    #[test]
    fn files_that_are_no_configuration_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admission.yaml");
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\n";
        for (text, problem) in [
            ("kind: Pod".to_owned(), "no kind \"Pod\" is registered for version \"\""),
            (format!("{head}plugin: []"), "strict decoding error: unknown field \"plugin\""),
            (
                format!("{head}plugins: [{{name: Podsecurity}}]"),
                "unknown admission plugin: Podsecurity",
            ),
            (
                format!("{head}plugins: [{{name: Priority, configuration: {{}}, path: a}}]"),
                "Priority: configuration and path exclude each other",
            ),
            (
                format!(
                    "{head}plugins: [{{name: Priority, configuration: {{}}}}, {{name: Priority, configuration: {{}}}}]"
                ),
                "the admission plugin Priority is configured twice",
            ),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(
                load(&path, &[]).err().unwrap(),
                format!("failed to read plugin config: {problem}")
            );
        }
        let missing = load(&folder.path().join("missing"), &[]).err().unwrap();
        assert!(missing.contains("unable to read admission control configuration"), "{missing}");
        assert_eq!(
            AdmissionFlags {
                enable_admission_plugins: vec!["EventRateLimit".to_owned()],
                ..AdmissionFlags::default()
            }
            .enabled()
            .and_then(|enabled| Settings::load(&AdmissionFlags::default(), &enabled))
            .err()
            .unwrap()
            .to_string(),
            "couldn't init admission plugin \"EventRateLimit\": limits: Invalid value: null: must not be empty"
        );
    }
}
