//! The file as it is written.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

/// `KubeSchedulerConfiguration`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct File {
    api_version: String,
    kind: String,
    parallelism: Option<i64>,
    pub leader_election: Option<LeaderElection>,
    pub client_connection: Option<ClientConnection>,
    /// Debugging endpoints, of which there are none to switch.
    #[serde(rename = "enableProfiling")]
    _enable_profiling: Option<bool>,
    #[serde(rename = "enableContentionProfiling")]
    _enable_contention_profiling: Option<bool>,
    pub percentage_of_nodes_to_score: Option<i64>,
    pub pod_initial_backoff_seconds: Option<i64>,
    pub pod_max_backoff_seconds: Option<i64>,
    #[serde(default)]
    pub profiles: Vec<Profile>,
    #[serde(default)]
    extenders: Vec<Value>,
    #[serde(default)]
    delay_cache_until_active: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LeaderElection {
    pub leader_elect: Option<bool>,
    lease_duration: Option<String>,
    renew_deadline: Option<String>,
    retry_period: Option<String>,
    resource_lock: Option<String>,
    resource_name: Option<String>,
    resource_namespace: Option<String>,
}

/// The pace of requests and their encoding are not limited by configuration.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientConnection {
    pub kubeconfig: Option<PathBuf>,
    #[serde(rename = "acceptContentTypes")]
    _accept_content_types: Option<String>,
    #[serde(rename = "contentType")]
    _content_type: Option<String>,
    #[serde(rename = "qps")]
    _qps: Option<f64>,
    #[serde(rename = "burst")]
    _burst: Option<i64>,
}

/// `KubeSchedulerProfile`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    pub scheduler_name: Option<String>,
    pub percentage_of_nodes_to_score: Option<i64>,
    #[serde(default)]
    pub plugins: PluginSets,
    #[serde(default)]
    pub plugin_config: Vec<PluginConfig>,
}

/// Plugins by extension point.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PluginSets {
    pub pre_enqueue: PluginSet,
    pub queue_sort: PluginSet,
    pub pre_filter: PluginSet,
    pub filter: PluginSet,
    pub post_filter: PluginSet,
    pub pre_score: PluginSet,
    pub score: PluginSet,
    pub reserve: PluginSet,
    pub permit: PluginSet,
    pub pre_bind: PluginSet,
    pub bind: PluginSet,
    pub post_bind: PluginSet,
    pub multi_point: PluginSet,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PluginSet {
    pub enabled: Vec<Entry>,
    pub disabled: Vec<Entry>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub name: String,
    #[serde(default)]
    pub weight: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginConfig {
    pub name: String,
    pub args: Value,
}

impl File {
    /// Rejects what this scheduler does not have.
    pub fn check(&self) -> Result<(), String> {
        if self.api_version != "kubescheduler.config.k8s.io/v1"
            || self.kind != "KubeSchedulerConfiguration"
        {
            return Err(format!(
                "no kind {:?} is registered for version {:?}",
                self.kind, self.api_version
            ));
        }
        if let Some(parallelism) = self.parallelism.filter(|parallelism| *parallelism <= 0) {
            return Err(format!(
                "parallelism: Invalid value: {parallelism}: should be an integer value greater than zero"
            ));
        }
        if !self.extenders.is_empty() {
            return Err("extenders are not supported".to_owned());
        }
        if self.delay_cache_until_active {
            return Err("delayCacheUntilActive is not supported".to_owned());
        }
        self.leader_election.as_ref().map_or(Ok(()), LeaderElection::check)
    }
}

impl LeaderElection {
    /// The Lease and its durations are fixed.
    fn check(&self) -> Result<(), String> {
        let fixed = [
            ("leaseDuration", &self.lease_duration, "15s"),
            ("renewDeadline", &self.renew_deadline, "10s"),
            ("retryPeriod", &self.retry_period, "2s"),
            ("resourceLock", &self.resource_lock, "leases"),
            ("resourceName", &self.resource_name, "kube-scheduler"),
            ("resourceNamespace", &self.resource_namespace, "kube-system"),
        ];
        let other = fixed
            .into_iter()
            .find(|(_, given, only)| given.as_ref().is_some_and(|given| given != only));
        other.map_or(Ok(()), |(name, given, only)| {
            let given = given.as_deref().unwrap_or_default();
            Err(format!(
                "leaderElection.{name}: Invalid value: {given:?}: only {only:?} is supported"
            ))
        })
    }
}
