//! What the plugin is told by `--admission-control-config-file`
//! (`kubernetes.io/docs/tasks/configure-pod-container/enforce-standards-admission-controller`).

use serde::Deserialize;

use super::policy::{Level, MODES, Policy, Version};
use super::{Exemptions, PodSecurity};
use crate::admission::configuration::decode;
use crate::configuration::Unusable;

const KINDS: &[(&str, &str)] = &[
    ("pod-security.admission.config.k8s.io/v1", "PodSecurityConfiguration"),
    ("pod-security.admission.config.k8s.io/v1beta1", "PodSecurityConfiguration"),
    ("pod-security.admission.config.k8s.io/v1alpha1", "PodSecurityConfiguration"),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PodSecurityConfiguration {
    #[serde(default)]
    defaults: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    exemptions: Exemptions,
}

/// What is wrong with a name.
type Problems = fn(&str) -> Vec<String>;

/// Decodes what the plugin is told.
///
/// # Errors
/// What is wrong with it.
pub fn configured(text: &str) -> Result<PodSecurity, Unusable> {
    let own: PodSecurityConfiguration = decode(text, KINDS)?;
    let mut defaults = Policy::default();
    for (key, text) in &own.defaults {
        let problem = |why: &str| format!("defaults.{key}: Invalid value: {text:?}: {why}");
        let mode = MODES.into_iter().find(|mode| {
            key.strip_prefix(mode.text()).is_some_and(|rest| matches!(rest, "" | "-version"))
        });
        let Some(mode) = mode else {
            return Err(Unusable(format!(
                "strict decoding error: unknown field \"defaults.{key}\""
            )));
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
                return Err(Unusable(format!("{path}: Invalid value: {item:?}: {problem}")));
            }
            if list[..index].contains(item) {
                return Err(Unusable(format!("{path}: Duplicate value: {item:?}")));
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

    fn loaded(text: &str) -> Result<PodSecurity, String> {
        let (version, kind) = KINDS[0];
        let text = format!("apiVersion: {version}\nkind: {kind}\n{text}");
        configured(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_and_exemptions_are_read() {
        let plugin = loaded(
            "defaults: {enforce: baseline, enforce-version: v1.30, warn: restricted}\nexemptions: {usernames: [root], runtimeClasses: [kata], namespaces: [kube-system]}\n",
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
            ("defaults: {enforce: strict}\n", "must be one of privileged, baseline, restricted"),
            ("defaults: {enforce-version: v2}\n", "must be \"latest\" or \"v1.x\""),
            ("defaults: {enforces: baseline}\n", "unknown field \"defaults.enforces\""),
            ("exemptions: {namespaces: [A]}\n", "exemptions.namespaces[0]"),
            ("exemptions: {usernames: [a, a]}\n", "Duplicate value"),
            ("exemption: {}\n", "unknown field"),
        ] {
            let error = loaded(text).err().unwrap();
            assert!(error.contains(problem), "{error}");
        }
    }
}
