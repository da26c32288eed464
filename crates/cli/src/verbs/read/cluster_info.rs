//! `skiff cluster-info`: where the control plane is.

use std::process::ExitCode;

use crate::request::Connection;

#[derive(clap::Args)]
pub struct ClusterInfo {}

impl ClusterInfo {
    pub async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let config = connection.config()?;
        client::Client::new(&config)?.get_path("/readyz", "").await?;
        println!("Kubernetes control plane is running at {}", config.dial.url);
        Ok(ExitCode::SUCCESS)
    }
}
