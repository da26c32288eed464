//! `--config`: upstream's `KubeSchedulerConfiguration` (`kubescheduler.config.k8s.io/v1`).
//!
//! What a file asks for and this scheduler does not have is an error, never ignored: unknown fields,
//! unknown plugins, extenders, plugins at extension points of their own.

mod arguments;
mod file;
mod plugins;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use runtime::configuration::{self, ConfigurationError};

use crate::profile::Profile;
use crate::queue::Backoff;
use file::File;

/// How the scheduler is set up.
#[derive(Debug)]
pub struct Configuration {
    pub profiles: Vec<Profile>,
    pub backoff: Backoff,
    /// What the file says, if anything.
    pub leader_elect: Option<bool>,
    pub kubeconfig: Option<PathBuf>,
}

impl Configuration {
    /// The default plugins, for pods of one scheduler name.
    pub fn of_one(scheduler_name: &str) -> Self {
        Self {
            profiles: vec![Profile::new(lasting(scheduler_name))],
            backoff: Backoff::default(),
            leader_elect: None,
            kubeconfig: None,
        }
    }

    /// # Errors
    /// When the file cannot be read, or has what is invalid or not supported.
    pub fn load(path: &Path) -> Result<Self, ConfigurationError> {
        configuration::load(path, Self::parse)
    }

    /// # Errors
    /// What is wrong with the text, with the path of the field.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: File = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        file.check()?;
        let percentage = percentage("percentageOfNodesToScore", file.percentage_of_nodes_to_score)?;
        let mut profiles = Vec::new();
        let mut names = HashSet::new();
        let given = match file.profiles.is_empty() {
            true => vec![file::Profile::default()],
            false => file.profiles,
        };
        for (index, own) in given.into_iter().enumerate() {
            let at = format!("profiles[{index}]");
            let name = own.scheduler_name.clone().unwrap_or_else(|| "default-scheduler".into());
            if name.is_empty() {
                return Err(format!("{at}.schedulerName: Required value"));
            }
            if !names.insert(name.clone()) {
                return Err(format!("{at}.schedulerName: Duplicate value: {name:?}"));
            }
            let mut profile = Profile::new(lasting(&name));
            plugins::apply(&own.plugins, &mut profile)
                .map_err(|problem| format!("{at}.plugins.{problem}"))?;
            arguments::apply(own.plugin_config, &mut profile)
                .map_err(|problem| format!("{at}.pluginConfig{problem}"))?;
            let field = format!("{at}.percentageOfNodesToScore");
            let own_percentage = self::percentage(&field, own.percentage_of_nodes_to_score)?;
            profile.percentage_of_nodes = own_percentage.or(percentage).unwrap_or(0);
            profiles.push(profile);
        }
        let initial = file.pod_initial_backoff_seconds.unwrap_or(1);
        let max = file.pod_max_backoff_seconds.unwrap_or(10);
        if initial <= 0 {
            return Err(format!(
                "podInitialBackoffSeconds: Invalid value: {initial}: must be greater than 0"
            ));
        }
        if max < initial {
            return Err(format!(
                "podMaxBackoffSeconds: Invalid value: {max}: must be greater than or equal to PodInitialBackoffSeconds"
            ));
        }
        Ok(Self {
            profiles,
            backoff: Backoff {
                initial: SignedDuration::from_secs(initial),
                max: SignedDuration::from_secs(max),
            },
            leader_elect: file.leader_election.and_then(|election| election.leader_elect),
            kubeconfig: file.client_connection.and_then(|connection| connection.kubeconfig),
        })
    }
}

fn percentage(field: &str, value: Option<i64>) -> Result<Option<u64>, String> {
    match value {
        Some(value) if !(0..=100).contains(&value) => {
            Err(format!("{field}: Invalid value: {value}: not in valid range [0-100]"))
        }
        value => Ok(value.and_then(|value| u64::try_from(value).ok())),
    }
}

/// A name for as long as the process lives: there are as many as profiles, and none is ever added.
fn lasting(name: &str) -> &'static str {
    name.to_owned().leak()
}

#[cfg(test)]
mod tests;
