//! `skiff autoscale`: a HorizontalPodAutoscaler for a workload.

use std::process::ExitCode;

use anyhow::Context;
use serde_json::json;

use crate::discovery::Resources;
use crate::request::Connection;
use crate::request::generate::{CreateFlags, create_generated, metadata};
use crate::request::selection::Selection;

#[derive(clap::Args)]
pub struct Autoscale {
    #[command(flatten)]
    selection: Selection,
    /// Maximum number of pods
    #[arg(long)]
    max: i32,
    /// Minimum number of pods
    #[arg(long)]
    min: Option<i32>,
    /// Target CPU utilization, in percent of the request
    #[arg(long)]
    cpu_percent: Option<i32>,
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    create: CreateFlags,
}

impl Autoscale {
    pub async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let client = connection.client()?;
        let resources = Resources::discover(&client).await?;
        let mut report = self.create.write.report()?;
        for named in self.selection.objects(&client, &resources).await? {
            client
                .get_object(named.target("scale"))
                .await
                .with_context(|| format!("cannot autoscale {}", named.path()))?;
            let name = self.name.as_deref().unwrap_or(&named.name);
            let mut spec = json!({
                "maxReplicas": self.max,
                "scaleTargetRef": {
                    "apiVersion": named.resource.api_version(), "kind": named.resource.kind, "name": named.name,
                },
            });
            for (field, value) in
                [("minReplicas", self.min), ("targetCPUUtilizationPercentage", self.cpu_percent)]
            {
                if let Some(value) = value {
                    spec[field] = value.into();
                }
            }
            let object = json!({
                "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": metadata(name),
                "spec": spec, "status": {"currentReplicas": 0, "desiredReplicas": 0},
            });
            create_generated(
                (&self.create, &mut report),
                connection,
                &client,
                &resources,
                object,
                "autoscaled",
            )
            .await?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
