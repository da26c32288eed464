//! `skiff wait`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use client::Client;
use serde_json::Value;

use crate::discovery::Resources;
use crate::request::failure::Failures;
use crate::request::selection::{ObjectReference, Selection};
use crate::request::{Connection, duration, watch};
use api::jsonpath::{Template, print};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    /// delete, create, condition=NAME[=VALUE], or jsonpath={PATH}[=VALUE]
    #[arg(long = "for", default_value = "")]
    condition: String,
    /// How long to wait; 0 to check once
    #[arg(long, default_value = "30s", allow_hyphen_values = true)]
    timeout: String,
    /// Every object of the kind in the namespace
    #[arg(long)]
    all: bool,
}

/// What to wait for.
#[derive(Clone, Debug)]
enum WaitCondition {
    Deleted,
    Created,
    Condition(String, String),
    Path(Template, Option<String>),
}

impl std::str::FromStr for WaitCondition {
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

impl WaitCondition {
    /// Whether the object, or its absence, meets the condition.
    fn holds(&self, object: Option<&Value>) -> bool {
        match (self, object) {
            (Self::Deleted, object) => object.is_none(),
            (Self::Created, object) => object.is_some(),
            (_, None) => false,
            (Self::Condition(name, value), Some(object)) => {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_lowercase();
                let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
                object["status"]["conditions"].as_array().into_iter().flatten().any(|condition| {
                    let observed = condition["observedGeneration"].as_i64().unwrap_or(generation);
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
    let until: WaitCondition = args.condition.parse()?;
    let client = connection.client()?;
    args.selection.require_names(args.all)?;
    let resources = Resources::discover(&client).await?;
    let timeout = match args.timeout.strip_prefix('-') {
        // A week, as in kubectl.
        Some(_) => Duration::from_secs(7 * 24 * 3600),
        None => Duration::from_millis(duration::millis(&args.timeout)?),
    };
    let names = args.selection.objects(&client, &resources).await?;
    if names.is_empty() {
        if matches!(until, WaitCondition::Deleted) {
            return Ok(ExitCode::SUCCESS);
        }
        bail!("no matching resources found");
    }
    let mut failures = Failures::default();
    let deadline = clock::instant() + timeout;
    for named in names {
        match tokio::time::timeout_at(deadline, wait(&client, &named, &until)).await {
            Ok(Ok(Some(done))) => println!("{} {done}", named.path()),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => failures.push(error),
            Err(_) => {
                let on = match until {
                    WaitCondition::Created => String::new(),
                    _ => format!(" on {}/{}", named.resource.plural, named.name),
                };
                failures.push(anyhow::anyhow!("timed out waiting for the condition{on}"));
            }
        }
    }
    Ok(failures.finish())
}

/// The outcome to print; `None` for the deletion of an object that did not exist.
async fn wait(
    client: &Client,
    named: &ObjectReference<'_>,
    until: &WaitCondition,
) -> anyhow::Result<Option<&'static str>> {
    match (until, client.get_object(named.target("")).await) {
        (WaitCondition::Deleted, Err(error)) if error.is_not_found() => return Ok(None),
        (WaitCondition::Created, Err(error)) if error.is_not_found() => {}
        (_, found) => drop(found?),
    }
    watch::until(client, named, |object| Ok(until.holds(object).then_some(()))).await?;
    Ok(Some(match until {
        WaitCondition::Deleted => "deleted",
        _ => "condition met",
    }))
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
            let until: WaitCondition = text.parse().unwrap();
            assert_eq!(until.holds(present.then_some(&ready)), expected, "{text} {present}");
        }
        assert!("foo".parse::<WaitCondition>().is_err());
    }
}
