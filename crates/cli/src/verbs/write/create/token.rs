//! `skiff create token`

use std::process::ExitCode;

use anyhow::bail;
use client::Client;
use rpc::api_v1::Target;
use serde_json::{Value, json};

use crate::request::duration;
use crate::request::write::WriteFlags;

#[derive(clap::Args)]
pub struct Args {
    /// The ServiceAccount
    name: String,
    /// The intended audience
    #[arg(long)]
    audience: Vec<String>,
    /// Lifetime: 10m, 24h
    #[arg(long)]
    duration: Option<String>,
    /// Kind of the object that the token is bound to: Pod or Secret
    #[arg(long, requires = "bound_object_name")]
    bound_object_kind: Option<String>,
    #[arg(long)]
    bound_object_name: Option<String>,
    #[arg(long)]
    bound_object_uid: Option<String>,
}

impl Args {
    pub async fn run(&self, client: &Client, write: &WriteFlags) -> anyhow::Result<ExitCode> {
        let mut spec = json!({});
        if !self.audience.is_empty() {
            spec["audiences"] = json!(self.audience);
        }
        if let Some(text) = &self.duration {
            spec["expirationSeconds"] = duration::seconds(text)?.into();
        }
        if let Some(kind) = &self.bound_object_kind {
            spec["boundObjectRef"] =
                json!({"apiVersion": "v1", "kind": kind, "name": self.bound_object_name});
            if let Some(uid) = &self.bound_object_uid {
                spec["boundObjectRef"]["uid"] = uid.as_str().into();
            }
        }
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": spec,
        });
        let target = Target {
            version: "v1".to_owned(),
            resource: "serviceaccounts".to_owned(),
            namespace: client.default_namespace().to_owned(),
            name: self.name.clone(),
            subresource: "token".to_owned(),
            ..Default::default()
        };
        let options = write.options("skiff-create");
        let answer =
            match client.create_object(target, serde_json::to_vec(&request)?, options).await {
                Ok(answer) => serde_json::from_slice::<Value>(&answer.json)?,
                Err(client::Error::Api(error)) => bail!("failed to create token: {error}"),
                Err(error) => return Err(error.into()),
            };
        match write.print.printer()? {
            Some(mut printer) => printer.value(&answer)?,
            None => println!("{}", answer["status"]["token"].as_str().unwrap_or_default()),
        }
        Ok(ExitCode::SUCCESS)
    }
}
