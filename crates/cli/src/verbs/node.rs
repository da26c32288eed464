//! `skiff cordon`, `skiff uncordon`, `skiff drain`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use client::{Api, Client, DeleteOptions, PatchKind};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::Eviction;
use serde_json::json;

use super::Connection;
use super::resources::Resources;
use super::selection::Named;

/// Pause before an eviction that a disruption budget refused is tried again, as kubectl.
const EVICTION_RETRY: Duration = Duration::from_secs(5);
/// Annotation of pods that come from files on the node.
const MIRROR: &str = "kubernetes.io/config.mirror";

#[derive(clap::Args)]
pub struct Cordon {
    #[arg(required = true)]
    nodes: Vec<String>,
}

#[derive(clap::Args)]
pub struct Drain {
    #[arg(required = true)]
    nodes: Vec<String>,
    /// Go on though DaemonSets' pods stay
    #[arg(long)]
    ignore_daemonsets: bool,
    /// Go on though emptyDir data is lost
    #[arg(long)]
    delete_emptydir_data: bool,
    /// Delete pods that nothing will make again
    #[arg(long)]
    force: bool,
    /// Delete instead of evicting: disruption budgets are not asked
    #[arg(long)]
    disable_eviction: bool,
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    grace_period: i64,
    /// Give up after this long; 0: never
    #[arg(long, default_value = "0s")]
    timeout: String,
    /// Only pods with these labels
    #[arg(long, default_value = "")]
    pod_selector: String,
}

impl Cordon {
    /// Marks nodes (un)schedulable.
    pub async fn run(
        self,
        unschedulable: bool,
        connection: &Connection,
    ) -> anyhow::Result<ExitCode> {
        let client = connection.client()?;
        for node in &self.nodes {
            cordon(&client, node, unschedulable).await?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn cordon(client: &Client, name: &str, unschedulable: bool) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(client);
    let node = nodes.get(name).await?;
    let word = if unschedulable {
        "cordoned"
    } else {
        "uncordoned"
    };
    if node
        .spec
        .and_then(|spec| spec.unschedulable)
        .unwrap_or(false)
        == unschedulable
    {
        println!("node/{name} already {word}");
        return Ok(());
    }
    let value = if unschedulable {
        json!(true)
    } else {
        json!(null)
    };
    nodes
        .patch(
            name,
            PatchKind::Merge,
            &json!({"spec": {"unschedulable": value}}),
        )
        .await?;
    println!("node/{name} {word}");
    Ok(())
}

impl Drain {
    pub async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let client = connection.client()?;
        let limit = Duration::from_millis(super::duration::millis(&self.timeout)?);
        for node in &self.nodes {
            cordon(&client, node, true).await?;
            let drained = self.drain(&client, node);
            if limit.is_zero() {
                drained.await?;
            } else {
                tokio::time::timeout(limit, drained)
                    .await
                    .context("drain did not complete within the timeout")??;
            }
            println!("node/{node} drained");
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn drain(&self, client: &Client, node: &str) -> anyhow::Result<()> {
        let options = client::ListOptions {
            label_selector: self.pod_selector.clone(),
            field_selector: format!("spec.nodeName={node}"),
        };
        let pods = Api::<Pod>::all(client).list(&options).await?.items;
        let (mut leaving, mut errors) = (Vec::new(), Vec::new());
        for pod in pods {
            match self.judge(&pod) {
                Verdict::Leave => leaving.push(pod),
                Verdict::Stay => {}
                Verdict::Refuse(reason) => errors.push(format!("{reason}: {}", path(&pod))),
            }
        }
        if !errors.is_empty() {
            bail!("unable to drain node {node:?}:\n{}", errors.join("\n"));
        }
        let resources = Resources::discover(client).await?;
        let mut tasks = Vec::new();
        for pod in &leaving {
            tasks.push(self.remove(client, &resources, pod));
        }
        futures::future::try_join_all(tasks).await?;
        Ok(())
    }

    /// What becomes of one pod.
    fn judge(&self, pod: &Pod) -> Verdict {
        let metadata = &pod.metadata;
        let mirror = metadata
            .annotations
            .as_ref()
            .is_some_and(|annotations| annotations.contains_key(MIRROR));
        if mirror {
            return Verdict::Stay;
        }
        if api::pod::is_terminal(pod) || metadata.deletion_timestamp.is_some() {
            return Verdict::Leave;
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
            Some("DaemonSet") if self.ignore_daemonsets => Verdict::Stay,
            Some("DaemonSet") => Verdict::Refuse(
                "cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore)",
            ),
            None if !self.force => Verdict::Refuse(
                "cannot delete Pods that declare no controller (use --force to override)",
            ),
            _ if empty_dir && !self.delete_emptydir_data => Verdict::Refuse(
                "cannot delete Pods with local storage (use --delete-emptydir-data to override)",
            ),
            _ => Verdict::Leave,
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
        let grace = (self.grace_period >= 0).then_some(self.grace_period);
        loop {
            let result = if self.disable_eviction {
                let options = DeleteOptions {
                    grace_period_seconds: grace,
                    ..Default::default()
                };
                pods.delete(&name, &options).await
            } else {
                pods.create_subresource(&name, "eviction", &eviction(&namespace, &name, grace))
                    .await
                    .map(|_| ())
            };
            match result {
                Ok(()) => break,
                Err(error) if error.is_not_found() => return Ok(()),
                Err(client::Error::Api(error)) if error.code() == 429 => {
                    eprintln!(
                        "error when evicting {} (will retry after 5s): {error}",
                        path(pod)
                    );
                    tokio::time::sleep(EVICTION_RETRY).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        println!("{} evicted", path(pod));
        let named = Named {
            resource: resources.find("pods")?,
            namespace,
            name,
        };
        super::delete::gone(
            client,
            &named,
            pod.metadata.uid.as_deref().unwrap_or_default(),
        )
        .await
    }
}

enum Verdict {
    Leave,
    Stay,
    Refuse(&'static str),
}

fn path(pod: &Pod) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!(
        "pod/{}/{}",
        part(&pod.metadata.namespace),
        part(&pod.metadata.name)
    )
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
