//! `skiff certificate approve` and `skiff certificate deny`: decide about requests for certificates.

use std::process::ExitCode;

use api::certificates::{APPROVED, DENIED};
use client::Client;
use serde_json::{Value, json};

use crate::discovery::Resources;
use crate::request::Connection;
use crate::request::manifest::FilenameOptions;
use crate::request::selection::{ObjectReference, Selection};

/// How often a decision is tried that others overtake.
const ATTEMPTS: usize = 10;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Decide,
}

#[derive(clap::Subcommand)]
enum Decide {
    /// Approve requests: their signers may issue the certificates
    Approve(Requests),
    /// Deny requests: no certificate is issued
    Deny(Requests),
}

#[derive(clap::Args)]
struct Requests {
    #[arg(id = "requests", value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    files: FilenameOptions,
    /// Write the request also if it is decided already
    #[arg(long)]
    force: bool,
}

/// What is decided, and what must not have been.
struct Decision {
    type_: &'static str,
    opposite: &'static str,
    reason: &'static str,
    message: &'static str,
    done: &'static str,
}

const APPROVAL: Decision = Decision {
    type_: APPROVED,
    opposite: DENIED,
    reason: "KubectlApprove",
    message: "This CSR was approved by kubectl certificate approve.",
    done: "approved",
};
const DENIAL: Decision = Decision {
    type_: DENIED,
    opposite: APPROVED,
    reason: "KubectlDeny",
    message: "This CSR was denied by kubectl certificate deny.",
    done: "denied",
};

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let (requests, decision) = match args.command {
        Decide::Approve(requests) => (requests, APPROVAL),
        Decide::Deny(requests) => (requests, DENIAL),
    };
    if requests.names.is_empty() && requests.files.is_empty() {
        anyhow::bail!("one or more CSRs must be specified as <name> or -f <filename>");
    }
    let client = connection.client()?;
    let resources = Resources::discover(&client).await?;
    let mut words = requests.names.clone();
    if !words.is_empty() {
        words.insert(0, "certificatesigningrequests".to_owned());
    }
    let selection = Selection { words, files: requests.files, ..Default::default() };
    for named in selection.objects(&client, &resources).await? {
        decide(&client, &named, &decision, requests.force).await?;
        println!("{} {}", named.path(), decision.done);
    }
    Ok(ExitCode::SUCCESS)
}

async fn decide(
    client: &Client,
    named: &ObjectReference<'_>,
    decision: &Decision,
    force: bool,
) -> anyhow::Result<()> {
    let mut attempt = 1;
    loop {
        let object = client.get_object(named.target("")).await?;
        let mut object: Value = serde_json::from_slice(&object.json)?;
        if !decided(&mut object, decision)? && !force {
            return Ok(());
        }
        let options = rpc::api_v1::WriteOptions {
            field_manager: "skiff-certificate".to_owned(),
            ..Default::default()
        };
        let body = serde_json::to_vec(&object)?;
        match client.update_object(named.target("approval"), body, options).await {
            Err(error) if error.is_conflict() && attempt < ATTEMPTS => attempt += 1,
            outcome => return Ok(outcome.map(|_| ())?),
        }
    }
}

/// Adds the condition; whether it was not there.
fn decided(object: &mut Value, decision: &Decision) -> anyhow::Result<bool> {
    let name = object["metadata"]["name"].clone();
    let conditions = &mut object["status"]["conditions"];
    if conditions.is_null() {
        *conditions = json!([]);
    }
    let all = conditions.as_array_mut();
    let all = all.ok_or_else(|| anyhow::anyhow!("status.conditions is not a list"))?;
    let has = |type_: &str| all.iter().any(|condition| condition["type"] == type_);
    anyhow::ensure!(
        !has(decision.opposite),
        "certificate signing request {name} is already {}",
        decision.opposite
    );
    if has(decision.type_) {
        return Ok(false);
    }
    all.push(json!({"type": decision.type_, "status": "True", "reason": decision.reason,
        "message": decision.message, "lastUpdateTime": clock::now().to_string()}));
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_made_once() {
        let mut object = json!({"metadata": {"name": "a"}});
        assert!(decided(&mut object, &APPROVAL).unwrap());
        assert!(!decided(&mut object, &APPROVAL).unwrap());
        let error = decided(&mut object, &DENIAL).unwrap_err().to_string();
        assert_eq!(error, "certificate signing request \"a\" is already Approved");
        assert_eq!(object["status"]["conditions"].as_array().unwrap().len(), 1);
    }
}
