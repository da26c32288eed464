//! `skiff version`: the versions of client and server.

use std::process::ExitCode;

use anyhow::bail;
use serde_json::{Value, json};

use crate::output::{json_text, yaml};
use crate::request::Connection;

#[derive(clap::Args)]
pub struct Version {
    /// Show the client's version only
    #[arg(long)]
    client: bool,
    /// yaml or json
    #[arg(short, long)]
    output: Option<String>,
}

impl Version {
    pub async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        if !matches!(self.output.as_deref(), None | Some("yaml" | "json")) {
            bail!("--output must be 'yaml' or 'json'");
        }
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
