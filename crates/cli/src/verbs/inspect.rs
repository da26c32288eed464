//! What the server is and has: `api-resources`, `api-versions`, `version`, `cluster-info`.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::Connection;
use super::output::table::Text;
use super::output::{json_text, yaml};
use super::resources::Resources;

#[derive(clap::Args)]
pub struct ApiResources {
    /// Only kinds that are (true) or are not (false) namespaced
    #[arg(long)]
    namespaced: Option<bool>,
    /// Only this group
    #[arg(long)]
    api_group: Option<String>,
    /// Only kinds with all of these verbs
    #[arg(long, value_delimiter = ',')]
    verbs: Vec<String>,
    #[arg(long)]
    no_headers: bool,
    /// wide or name
    #[arg(short, long, value_parser = ["wide", "name"])]
    output: Option<String>,
}

impl ApiResources {
    pub async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let client = connection.client()?;
        let resources = Resources::discover(&client).await?;
        let wide = self.output.as_deref() == Some("wide");
        let mut text = Text::default();
        text.headers
            .extend(["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"].map(str::to_owned));
        if wide {
            text.headers
                .extend(["VERBS", "CATEGORIES"].map(str::to_owned));
        }
        for resource in &resources.0 {
            let wanted = self
                .namespaced
                .is_none_or(|namespaced| namespaced == resource.namespaced)
                && self
                    .api_group
                    .as_ref()
                    .is_none_or(|group| *group == resource.group)
                && self.verbs.iter().all(|verb| resource.verbs.contains(verb));
            if !wanted {
                continue;
            }
            if self.output.as_deref() == Some("name") {
                println!("{}", resource.qualified());
                continue;
            }
            let mut row = vec![
                resource.plural.clone(),
                resource.short_names.join(","),
                resource.api_version(),
                resource.namespaced.to_string(),
                resource.kind.clone(),
            ];
            if wide {
                row.extend([resource.verbs.join(","), resource.categories.join(",")]);
            }
            text.rows.push(row);
        }
        if self.output.as_deref() != Some("name") {
            print!("{}", text.render(!self.no_headers, &mut Vec::new()));
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(clap::Args)]
pub struct ApiVersions {}

impl ApiVersions {
    pub async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let client = connection.client()?;
        let mut versions: Vec<String> = Resources::discover(&client)
            .await?
            .0
            .iter()
            .map(super::resources::Resource::api_version)
            .collect();
        versions.sort();
        versions.dedup();
        for version in versions {
            println!("{version}");
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(clap::Args)]
pub struct Version {
    /// Do not ask the server
    #[arg(long)]
    client: bool,
    /// yaml or json
    #[arg(short, long, value_parser = ["yaml", "json"])]
    output: Option<String>,
}

impl Version {
    pub async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let own = env!("CARGO_PKG_VERSION");
        let mut all = json!({"clientVersion": {"gitVersion": format!("v{own}")}});
        if !self.client {
            let body = connection.client()?.get_path("/version", "").await?;
            all["serverVersion"] = serde_json::from_slice::<Value>(&body)?;
        }
        match self.output.as_deref() {
            Some("json") => println!("{}", json_text(&all)),
            Some(_) => print!("{}", yaml(&all)),
            None => {
                println!("Client Version: v{own}");
                if let Some(version) = all["serverVersion"]["gitVersion"].as_str() {
                    println!("Server Version: {version}");
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(clap::Args)]
pub struct ClusterInfo {}

impl ClusterInfo {
    pub async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let config = connection.config()?;
        client::Client::new(&config)?
            .get_path("/readyz", "")
            .await?;
        println!("Kubernetes control plane is running at {}", config.dial.url);
        Ok(ExitCode::SUCCESS)
    }
}
