//! `skiff drain`: evicts the pods of nodes for maintenance.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use client::{Api, Client, DeleteOptions};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::Eviction;

use crate::discovery::Resources;
use crate::request::failure::Failures;
use crate::request::selection::ObjectReference;
use crate::request::watch::until_deleted;
use crate::request::write::DryRun;
use crate::request::{Connection, duration};
use crate::verbs::node::cordon::{Cordon, all_exist};

/// Pause before retrying an eviction that a disruption budget refused, as in kubectl.
const EVICTION_RETRY: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub struct Drain {
    #[command(flatten)]
    nodes: Cordon,
    /// Ignore the pods of DaemonSets
    #[arg(long)]
    ignore_daemonsets: bool,
    /// Continue even if emptyDir data is lost
    #[arg(long)]
    delete_emptydir_data: bool,
    /// Continue even if there are pods without a controller
    #[arg(long)]
    force: bool,
    /// Delete instead of evicting: disruption budgets are ignored
    #[arg(long)]
    disable_eviction: bool,
    /// Seconds that a pod gets to terminate; -1 for the pod's own grace period
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    grace_period: i64,
    /// Give up after this long; 0 for never
    #[arg(long, default_value = "0s")]
    timeout: String,
    /// Only pods with these labels
    #[arg(long, default_value = "")]
    pod_selector: String,
    /// Skip pods that have been terminating for more than this many seconds; 0 to wait
    #[arg(long, default_value_t = 0)]
    skip_wait_for_delete_timeout: i64,
}

impl Drain {
    pub async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let client = connection.client()?;
        let resources = Resources::discover(&client).await?;
        let limit = Duration::from_millis(duration::millis(&self.timeout)?);
        let nodes = self.nodes.named("drain", &client, &resources).await?;
        all_exist(&client, &nodes).await?;
        for node in &nodes {
            self.nodes.mark(&client, node, true).await?;
        }
        let mut failures = Failures::default();
        for (index, node) in nodes.iter().enumerate() {
            let drained = self.drain(&client, &resources, &node.name);
            let result = if limit.is_zero() {
                drained.await
            } else {
                tokio::time::timeout(limit, drained)
                    .await
                    .context("global timeout reached")
                    .and_then(|result| result)
            };
            match result {
                Ok(()) => println!("{} drained{}", node.path(), self.nodes.dry_run.suffix()),
                Err(error) => {
                    let mut pending: String =
                        nodes[index..].iter().map(|node| format!("\n {}", node.name)).collect();
                    if let Some(DrainError(reasons)) = error.downcast_ref() {
                        pending.extend(reasons.iter().map(|reason| format!("\n{reason}")));
                    }
                    failures.push(anyhow::anyhow!(
                        "unable to drain node {:?} due to error: {error:#}, continuing command...\nThere are pending nodes to be drained:{pending}",
                        node.name
                    ));
                }
            }
        }
        Ok(failures.finish())
    }

    async fn drain(
        &self,
        client: &Client,
        resources: &Resources,
        node: &str,
    ) -> anyhow::Result<()> {
        let options = client::ListOptions {
            label_selector: self.pod_selector.clone(),
            field_selector: format!("spec.nodeName={node}"),
        };
        let pods = Api::<Pod>::all(client).list(&options).await?.items;
        let mut pods_to_delete = Vec::new();
        let (mut errors, mut warnings) = (PodsByReason::default(), PodsByReason::default());
        for pod in pods {
            match self.delete_status(&pod) {
                PodDeleteStatus::Delete => pods_to_delete.push(pod),
                PodDeleteStatus::DeleteWithWarning(reason) => {
                    warnings.add(reason, &pod);
                    pods_to_delete.push(pod);
                }
                PodDeleteStatus::Skip(Some(reason)) => warnings.add(reason, &pod),
                PodDeleteStatus::Skip(None) => {}
                PodDeleteStatus::Error(reason) => errors.add(reason, &pod),
            }
        }
        if !errors.0.is_empty() {
            return Err(DrainError(errors.texts()).into());
        }
        if !warnings.0.is_empty() {
            eprintln!("Warning: {}", warnings.texts().join("; "));
        }
        let removals = pods_to_delete.iter().map(|pod| self.remove(client, resources, pod));
        futures::future::try_join_all(removals).await?;
        Ok(())
    }

    /// Whether a pod is to be deleted (kubectl's drain filters).
    fn delete_status(&self, pod: &Pod) -> PodDeleteStatus {
        let metadata = &pod.metadata;
        if api::pod::is_mirror(pod) {
            return PodDeleteStatus::Skip(None);
        }
        let deleting = metadata.deletion_timestamp.as_ref().map(|time| time.0);
        let skipped = self.skip_wait_for_delete_timeout;
        if let Some(since) = deleting.filter(|_| skipped > 0)
            && clock::now().as_second() - since.as_second() > skipped
        {
            return PodDeleteStatus::Skip(None);
        }
        if api::pod::is_terminal(pod) || deleting.is_some() {
            return PodDeleteStatus::Delete;
        }
        let controller = metadata
            .owner_references
            .iter()
            .flatten()
            .find(|owner| owner.controller == Some(true))
            .map(|owner| owner.kind.as_str());
        let empty_dir = pod
            .spec
            .iter()
            .flat_map(|spec| spec.volumes.iter().flatten())
            .any(|volume| volume.empty_dir.is_some());
        match controller {
            Some("DaemonSet") if self.ignore_daemonsets => {
                PodDeleteStatus::Skip(Some("ignoring DaemonSet-managed Pods"))
            }
            Some("DaemonSet") => PodDeleteStatus::Error(
                "cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore)",
            ),
            None if !self.force => PodDeleteStatus::Error(
                "cannot delete Pods that declare no controller (use --force to override)",
            ),
            _ if empty_dir && !self.delete_emptydir_data => PodDeleteStatus::Error(
                "cannot delete Pods with local storage (use --delete-emptydir-data to override)",
            ),
            None => PodDeleteStatus::DeleteWithWarning("deleting Pods that declare no controller"),
            _ => PodDeleteStatus::Delete,
        }
    }

    async fn remove(
        &self,
        client: &Client,
        resources: &Resources,
        pod: &Pod,
    ) -> anyhow::Result<()> {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let name = pod.metadata.name.clone().unwrap_or_default();
        let pods: Api<Pod> = Api::namespaced(client, &namespace);
        let dry_run = self.nodes.dry_run;
        let doing = if self.disable_eviction { "deleting" } else { "evicting" };
        println!("{doing} pod {}{}", path(pod), dry_run.suffix());
        if dry_run != DryRun::None {
            return Ok(());
        }
        let grace = (self.grace_period >= 0).then_some(self.grace_period);
        loop {
            let result = if self.disable_eviction {
                let options = DeleteOptions { grace_period_seconds: grace, ..Default::default() };
                pods.delete(&name, &options).await
            } else {
                pods.evict(&name, &eviction(&namespace, &name, grace)).await
            };
            match result {
                Ok(()) => break,
                Err(error) if error.is_not_found() => return Ok(()),
                Err(client::Error::Api(error)) if error.code() == 429 => {
                    eprintln!(
                        "error when evicting pods/{name:?} -n {namespace:?} (will retry after 5s): {error}"
                    );
                    tokio::time::sleep(EVICTION_RETRY).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let named =
            ObjectReference { resource: resources.find("pods")?, namespace, name, source: None };
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        until_deleted(client, &named, uid).await?;
        let done = if self.disable_eviction { "deleted" } else { "evicted" };
        println!("pod/{} {done}", named.name);
        Ok(())
    }
}

enum PodDeleteStatus {
    Delete,
    DeleteWithWarning(&'static str),
    Skip(Option<&'static str>),
    Error(&'static str),
}

/// Reasons, with the pods of each.
#[derive(Default)]
struct PodsByReason(Vec<(&'static str, Vec<String>)>);

impl PodsByReason {
    fn add(&mut self, reason: &'static str, pod: &Pod) {
        match self.0.iter_mut().find(|(own, _)| *own == reason) {
            Some((_, pods)) => pods.push(path(pod)),
            None => self.0.push((reason, vec![path(pod)])),
        }
    }

    fn texts(&self) -> Vec<String> {
        self.0.iter().map(|(reason, pods)| format!("{reason}: {}", pods.join(", "))).collect()
    }
}

/// Why a node cannot be drained.
#[derive(Debug)]
struct DrainError(Vec<String>);

impl std::error::Error for DrainError {}

impl std::fmt::Display for DrainError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_slice() {
            [only] => f.write_str(only),
            several => write!(f, "[{}]", several.join(", ")),
        }
    }
}

fn path(pod: &Pod) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", part(&pod.metadata.namespace), part(&pod.metadata.name))
}

fn eviction(namespace: &str, name: &str, grace: Option<i64>) -> Eviction {
    let mut eviction = Eviction::default();
    eviction.metadata.name = Some(name.to_owned());
    eviction.metadata.namespace = Some(namespace.to_owned());
    if let Some(seconds) = grace {
        let options = k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions {
            grace_period_seconds: Some(seconds),
            ..Default::default()
        };
        eviction.delete_options = Some(options);
    }
    eviction
}
