//! Which plugins are enabled (`k8s.io/apiserver/pkg/server/options/admission.go`).

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::bail;

use super::plugin::Plugin;
use super::plugins::PLUGINS;

/// How long a pod stays on a node that is not ready or unreachable, in seconds.
const TOLERATION_SECONDS: i64 = 300;

/// Which admission plugins there are, and what they are told.
#[derive(Clone, Debug, clap::Args)]
pub struct AdmissionFlags {
    /// Admission plugins to enable besides those that are by default. Their order does not matter.
    #[arg(long, value_delimiter = ',', value_name = "NAME,NAME")]
    pub enable_admission_plugins: Vec<String>,
    /// Admission plugins to disable although they are enabled by default.
    #[arg(long, value_delimiter = ',', value_name = "NAME,NAME")]
    pub disable_admission_plugins: Vec<String>,
    /// AdmissionConfiguration: what the plugins EventRateLimit, PodNodeSelector, PodSecurity,
    /// PodTolerationRestriction and ResourceQuota are told.
    #[arg(long, value_name = "FILE")]
    pub admission_control_config_file: Option<PathBuf>,
    /// How long a pod stays on a node that is not ready, if it does not say so itself.
    #[arg(long, default_value_t = TOLERATION_SECONDS, value_name = "SECONDS")]
    pub default_not_ready_toleration_seconds: i64,
    /// How long a pod stays on a node that is unreachable, if it does not say so itself.
    #[arg(long, default_value_t = TOLERATION_SECONDS, value_name = "SECONDS")]
    pub default_unreachable_toleration_seconds: i64,
}

impl Default for AdmissionFlags {
    fn default() -> Self {
        Self {
            enable_admission_plugins: Vec::new(),
            disable_admission_plugins: Vec::new(),
            admission_control_config_file: None,
            default_not_ready_toleration_seconds: TOLERATION_SECONDS,
            default_unreachable_toleration_seconds: TOLERATION_SECONDS,
        }
    }
}

impl AdmissionFlags {
    /// The enabled plugins in the order of the table.
    ///
    /// # Errors
    /// When a flag names what there is not, or both name the same; for a plugin that is not built.
    pub fn enabled(&self) -> anyhow::Result<Vec<&'static Plugin>> {
        let enable: BTreeSet<&str> = names(&self.enable_admission_plugins);
        let disable: BTreeSet<&str> = names(&self.disable_admission_plugins);
        let mut errors = Vec::new();
        for (flag, names) in
            [("enable-admission-plugins", &enable), ("disable-admission-plugins", &disable)]
        {
            let unknown =
                names.iter().filter(|name| !PLUGINS.iter().any(|plugin| plugin.name == **name));
            errors.extend(unknown.map(|name| format!("{flag} plugin {name:?} is unknown")));
        }
        let both: Vec<&str> = enable.intersection(&disable).copied().collect();
        if !both.is_empty() {
            errors.push(format!(
                "[{}] in enable-admission-plugins and disable-admission-plugins overlapped",
                both.join(" ")
            ));
        }
        let asked = PLUGINS.iter().filter(|plugin| enable.contains(plugin.name));
        errors.extend(asked.filter_map(|plugin| {
            plugin
                .missing
                .map(|why| format!("couldn't init admission plugin {:?}: {why}", plugin.name))
        }));
        match errors.len() {
            0 => {}
            1 => bail!("{}", errors[0]),
            _ => bail!("[{}]", errors.join(", ")),
        }
        let is_enabled = |plugin: &&Plugin| {
            enable.contains(plugin.name) || plugin.default && !disable.contains(plugin.name)
        };
        Ok(PLUGINS.iter().filter(is_enabled).collect())
    }
}

fn names(given: &[String]) -> BTreeSet<&str> {
    given.iter().map(String::as_str).filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(enable: &[&str], disable: &[&str]) -> Result<Vec<&'static str>, String> {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let flags = AdmissionFlags {
            enable_admission_plugins: list(enable),
            disable_admission_plugins: list(disable),
            ..AdmissionFlags::default()
        };
        let enabled = flags.enabled().map_err(|error| error.to_string())?;
        Ok(enabled.into_iter().map(|plugin| plugin.name).collect())
    }

    #[test]
    fn the_table_has_upstreams_plugins_in_upstreams_order() {
        let all: Vec<&str> = PLUGINS.iter().map(|plugin| plugin.name).collect();
        let expected = "AlwaysAdmit NamespaceAutoProvision NamespaceLifecycle NamespaceExists \
             LimitPodHardAntiAffinityTopology LimitRanger ServiceAccount NodeRestriction \
             TaintNodesByCondition AlwaysPullImages ImagePolicyWebhook PodSecurity PodNodeSelector \
             Priority DefaultTolerationSeconds PodTolerationRestriction EventRateLimit \
             ExtendedResourceToleration DefaultStorageClass StorageObjectInUseProtection \
             PodGroupProtection OwnerReferencesPermissionEnforcement PersistentVolumeClaimResize \
             RuntimeClass CertificateApproval CertificateSigning ClusterTrustBundleAttest \
             CertificateSubjectRestriction DefaultIngressClass DenyServiceExternalIPs \
             PodTopologyLabels PodGroupWorkloadExists NodeDeclaredFeatureValidator JobValidation \
             PodResizeValidator MutatingAdmissionPolicy MutatingAdmissionWebhook \
             ValidatingAdmissionPolicy ValidatingAdmissionWebhook ResourceQuota AlwaysDeny";
        assert_eq!(all.join(" "), expected);
    }

    #[test]
    fn the_default_set_is_upstreams_and_node_restriction() {
        let enabled = chosen(&[], &[]).unwrap();
        let off: Vec<&str> = PLUGINS
            .iter()
            .map(|plugin| plugin.name)
            .filter(|name| !enabled.contains(name))
            .collect();
        let expected = "AlwaysAdmit NamespaceAutoProvision NamespaceExists \
             LimitPodHardAntiAffinityTopology AlwaysPullImages ImagePolicyWebhook PodNodeSelector \
             PodTolerationRestriction EventRateLimit ExtendedResourceToleration \
             OwnerReferencesPermissionEnforcement DenyServiceExternalIPs AlwaysDeny";
        assert_eq!(off.join(" "), expected);
    }

    #[test]
    fn flags_choose_plugins_and_not_their_order() {
        let enabled = chosen(&["AlwaysPullImages", "NamespaceExists", ""], &["Priority"]).unwrap();
        assert!(!enabled.contains(&"Priority"));
        let place = |name| enabled.iter().position(|own| *own == name).unwrap();
        assert!(place("NamespaceExists") < place("AlwaysPullImages"));
        for (enable, disable, problem) in [
            (vec!["Nothing"], vec![], "enable-admission-plugins plugin \"Nothing\" is unknown"),
            (
                vec!["priority"],
                vec!["PodPreset"],
                "[enable-admission-plugins plugin \"priority\" is unknown, disable-admission-plugins plugin \"PodPreset\" is unknown]",
            ),
            (
                vec!["Priority", "AlwaysAdmit"],
                vec!["AlwaysAdmit", "Priority"],
                "[AlwaysAdmit Priority] in enable-admission-plugins and disable-admission-plugins overlapped",
            ),
            (
                vec!["ImagePolicyWebhook"],
                vec![],
                "couldn't init admission plugin \"ImagePolicyWebhook\": it is not supported by this server; a validating webhook or policy can judge images",
            ),
        ] {
            assert_eq!(chosen(&enable, &disable).unwrap_err(), problem);
        }
    }
}
