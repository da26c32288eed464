//! `skiff wait`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use client::Client;
use rpc::api_v1::{EventType, WatchRequest};
use serde_json::Value;

use super::Connection;
use super::output::jsonpath::{Template, print};
use super::resources::Resources;
use super::selection::{Named, Selection};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    /// delete, create, condition=NAME[=VALUE], or jsonpath={PATH}[=VALUE]
    #[arg(long = "for")]
    condition: String,
    /// How long to wait; 0: look once
    #[arg(long, default_value = "30s")]
    timeout: String,
    /// Every object of the kind in the namespace
    #[arg(long)]
    all: bool,
}

/// What is waited for.
#[derive(Clone, Debug)]
enum Until {
    Deleted,
    Created,
    Condition(String, String),
    Path(Template, Option<String>),
}

impl std::str::FromStr for Until {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text.to_lowercase().as_str() {
            "delete" => return Ok(Self::Deleted),
            "create" => return Ok(Self::Created),
            _ => {}
        }
        if let Some(rest) = text.strip_prefix("condition=") {
            let (name, value) = rest.split_once('=').unwrap_or((rest, "True"));
            return Ok(Self::Condition(name.to_lowercase(), value.to_lowercase()));
        }
        if let Some(rest) = text.strip_prefix("jsonpath=") {
            let close = rest.rfind('}').context("jsonpath needs a path in braces")?;
            let (path, value) = rest.split_at(close + 1);
            let path = path.trim_matches(['\'', '"']);
            return Ok(Self::Path(
                Template::parse_path(path)?,
                value.strip_prefix('=').map(str::to_owned),
            ));
        }
        bail!("unrecognized condition: {text:?}")
    }
}

impl Until {
    /// Whether the object, or its absence, is what is waited for.
    fn holds(&self, object: Option<&Value>) -> bool {
        match (self, object) {
            (Self::Deleted, object) => object.is_none(),
            (Self::Created, object) => object.is_some(),
            (_, None) => false,
            (Self::Condition(name, value), Some(object)) => {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_lowercase();
                let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
                object["status"]["conditions"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .any(|condition| {
                        let observed = condition["observedGeneration"]
                            .as_i64()
                            .unwrap_or(generation);
                        text(&condition["type"]) == *name
                            && text(&condition["status"]) == *value
                            && observed >= generation
                    })
            }
            (Self::Path(path, wanted), Some(object)) => {
                match (path.find(object).as_slice(), wanted) {
                    ([], _) => false,
                    (_, None) => true,
                    (found, Some(wanted)) => found.iter().all(|value| print(value) == *wanted),
                }
            }
        }
    }
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let until: Until = args.condition.parse()?;
    let timeout = Duration::from_millis(super::duration::millis(&args.timeout)?);
    let client = connection.client()?;
    let resources = Resources::discover(&client).await?;
    let names = args.selection.names(&client, &resources).await?;
    if names.is_empty() {
        bail!("no matching resources found");
    }
    let deadline = tokio::time::Instant::now() + timeout;
    for named in names {
        let waited = tokio::time::timeout_at(deadline, wait(&client, &named, &until)).await;
        match waited {
            Ok(result) => result?,
            Err(_) => bail!("timed out waiting for the condition on {}", named.path()),
        }
        match until {
            Until::Deleted => println!("{} deleted", named.path()),
            _ => println!("{} condition met", named.path()),
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn wait(client: &Client, named: &Named<'_>, until: &Until) -> anyhow::Result<()> {
    if !matches!(until, Until::Deleted | Until::Created) {
        client.get_object(named.target("")).await?;
    }
    let request = WatchRequest {
        target: Some(named.resource.target(&named.namespace, "", "")),
        field_selector: format!("metadata.name={}", named.name),
        send_initial_events: true,
        resource_version_match: "NotOlderThan".to_owned(),
        allow_watch_bookmarks: true,
        ..Default::default()
    };
    let mut batches = client
        .resources()
        .watch(request)
        .await
        .map_err(client::Error::from)?
        .into_inner();
    let mut present: Option<Value> = None;
    let mut known = false;
    while let Some(batch) = batches.message().await.map_err(client::Error::from)? {
        for event in batch.events {
            let kind = event.r#type();
            known |= event.initial_events_end;
            match kind {
                EventType::Added | EventType::Modified => {
                    present = Some(serde_json::from_slice(
                        &event.object.unwrap_or_default().json,
                    )?);
                    if until.holds(present.as_ref()) {
                        return Ok(());
                    }
                }
                EventType::Deleted => present = None,
                EventType::Error => bail!("the watch of {} failed", named.path()),
                _ => {}
            }
            if known && until.holds(present.as_ref()) {
                return Ok(());
            }
        }
    }
    bail!("the server ended the watch of {}", named.path())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn conditions_paths_and_absence() {
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}], "phase": "Running"}});
        for (text, present, expected) in [
            ("condition=Ready", true, true),
            ("condition=ready=false", true, false),
            ("condition=Ready", false, false),
            ("jsonpath={.status.phase}=Running", true, true),
            ("jsonpath={.status.phase}=Failed", true, false),
            ("jsonpath='{.status.phase}'", true, true),
            ("jsonpath={.status.missing}", true, false),
            ("delete", false, true),
            ("delete", true, false),
            ("create", true, true),
        ] {
            let until: Until = text.parse().unwrap();
            assert_eq!(
                until.holds(present.then_some(&ready)),
                expected,
                "{text} {present}"
            );
        }
        assert!("foo".parse::<Until>().is_err());
    }
}
