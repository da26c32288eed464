//! `skiff cordon` and `skiff uncordon`: mark nodes as unschedulable or schedulable.

use std::process::ExitCode;

use client::{Client, PatchKind};
use serde_json::{Value, json};

use crate::discovery::Resources;
use crate::request::Connection;
use crate::request::failure::{Failures, usage};
use crate::request::selection::{ObjectReference, Selection};
use crate::request::write::DryRun;

/// Selects nodes.
#[derive(clap::Args)]
pub struct Cordon {
    nodes: Vec<String>,
    /// Nodes by label
    #[arg(short = 'l', long, default_value = "")]
    selector: String,
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    pub dry_run: DryRun,
}

impl Cordon {
    /// Marks nodes (un)schedulable.
    pub async fn run(
        self,
        unschedulable: bool,
        connection: &Connection,
    ) -> anyhow::Result<ExitCode> {
        let verb = if unschedulable { "cordon" } else { "uncordon" };
        let client = connection.client()?;
        let resources = Resources::discover(&client).await?;
        let mut failures = Failures::default();
        let nodes = self.named(verb, &client, &resources).await?;
        all_exist(&client, &nodes).await?;
        for named in nodes {
            if let Err(error) = self.mark(&client, &named, unschedulable).await {
                failures.push(error);
            }
        }
        Ok(failures.finish())
    }

    pub async fn named<'a>(
        &self,
        verb: &str,
        client: &Client,
        resources: &'a Resources,
    ) -> anyhow::Result<Vec<ObjectReference<'a>>> {
        if self.nodes.is_empty() && self.selector.is_empty() {
            return Err(usage(verb, format!("USAGE: {verb} NODE [flags]")));
        }
        if !self.nodes.is_empty() && !self.selector.is_empty() {
            return Err(usage(verb, "cannot specify both a node name and a --selector option"));
        }
        let mut words = vec!["nodes".to_owned()];
        words.extend(self.nodes.iter().map(|node| {
            let name = node.strip_prefix("node/").or(node.strip_prefix("nodes/"));
            name.unwrap_or(node).to_owned()
        }));
        let selection = Selection { words, selector: self.selector.clone(), ..Default::default() };
        selection.objects(client, resources).await
    }

    pub async fn mark(
        &self,
        client: &Client,
        named: &ObjectReference<'_>,
        unschedulable: bool,
    ) -> anyhow::Result<()> {
        let node: Value = serde_json::from_slice(&client.get_object(named.target("")).await?.json)?;
        let word = if unschedulable { "cordoned" } else { "uncordoned" };
        let suffix = self.dry_run.suffix();
        if (node["spec"]["unschedulable"] == true) == unschedulable {
            println!("{} already {word}{suffix}", named.path());
            return Ok(());
        }
        if self.dry_run != DryRun::Client {
            let value = unschedulable.then_some(true);
            let patch = json!({"spec": {"unschedulable": value}});
            let options = rpc::api_v1::WriteOptions {
                dry_run: self.dry_run == DryRun::Server,
                field_manager: "skiff-cordon".to_owned(),
                ..Default::default()
            };
            let body = serde_json::to_vec(&patch)?;
            client.patch_object(named.target(""), PatchKind::Merge, body, options).await?;
        }
        println!("{} {word}{suffix}", named.path());
        Ok(())
    }
}

/// # Errors
/// When one of the nodes does not exist, so that none is changed.
pub async fn all_exist(client: &Client, nodes: &[ObjectReference<'_>]) -> anyhow::Result<()> {
    for node in nodes {
        client.get_object(node.target("")).await?;
    }
    Ok(())
}
