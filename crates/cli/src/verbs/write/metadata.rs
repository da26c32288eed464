//! `skiff label` and `skiff annotate`: `key=value` sets, `key-` removes.

use std::process::ExitCode;

use anyhow::bail;
use client::PatchKind;
use serde_json::{Map, Value, json};

use crate::discovery::Resources;
use crate::request::Connection;
use crate::request::failure::Failures;
use crate::request::selection::{Named, Selection};
use crate::request::write::{DryRun, Report, Writing};

/// Which map of the metadata is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Labels,
    Annotations,
}

impl What {
    fn field(self) -> &'static str {
        match self {
            Self::Labels => "labels",
            Self::Annotations => "annotations",
        }
    }

    fn one(self) -> &'static str {
        match self {
            Self::Labels => "label",
            Self::Annotations => "annotation",
        }
    }
}

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    /// Replace values that are there
    #[arg(long)]
    overwrite: bool,
    /// Every object of the kind in the namespace
    #[arg(long)]
    all: bool,
    /// Show what is there
    #[arg(long)]
    list: bool,
    /// Only if the object is at this version
    #[arg(long)]
    resource_version: Option<String>,
    #[command(flatten)]
    writing: Writing,
}

pub async fn run(mut args: Args, what: What, connection: &Connection) -> anyhow::Result<ExitCode> {
    let changes = take_changes(&mut args.selection.words, what)?;
    if changes.is_empty() && !args.list {
        bail!("at least one {} update is required", what.one());
    }
    args.selection.require_names(args.all)?;
    let client = connection.client()?;
    let resources = Resources::discover(&client).await?;
    let mut report = args.writing.report()?;
    let mut failures = Failures::default();
    for named in args.selection.names(&client, &resources).await? {
        match change(&args, what, &client, &named, &changes, &mut report).await {
            Ok(()) => {}
            Err(error) => failures.push(error),
        }
    }
    Ok(failures.finish())
}

async fn change(
    args: &Args,
    what: What,
    client: &client::Client,
    named: &Named<'_>,
    changes: &Map<String, Value>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut object: Value =
        serde_json::from_slice(&client.get_object(named.target("")).await?.json)?;
    let present = object["metadata"][what.field()].clone();
    if args.list {
        for (key, value) in present.as_object().into_iter().flatten() {
            println!("{key}={}", value.as_str().unwrap_or_default());
        }
    }
    if changes.is_empty() {
        return Ok(());
    }
    if !args.overwrite {
        check(what, &present, changes)?;
    }
    for (key, value) in changes {
        if value.is_null() && present[key].is_null() && what == What::Labels {
            println!("label {key:?} not found.");
        }
    }
    let done = done(what, &present, changes);
    let mut patch = json!({"metadata": {what.field(): changes}});
    if let Some(version) = &args.resource_version {
        patch["metadata"]["resourceVersion"] = version.as_str().into();
    }
    if args.writing.dry_run == DryRun::Client {
        json_patch::merge(&mut object, &patch);
    } else {
        let options = args.writing.options(match what {
            What::Labels => "skiff-label",
            What::Annotations => "skiff-annotate",
        });
        let body = serde_json::to_vec(&patch)?;
        let target = named.target("");
        let after = client.patch_object(target, PatchKind::Merge, body, options).await?;
        object = serde_json::from_slice(&after.json)?;
    }
    report.done(named.resource, &object, done)
}

/// # Errors
/// When a value that is there would be replaced.
fn check(what: What, present: &Value, changes: &Map<String, Value>) -> anyhow::Result<()> {
    let taken: Vec<String> = changes
        .iter()
        .filter(|(key, value)| {
            !value.is_null() && !present[*key].is_null() && present[*key] != **value
        })
        .map(|(key, _)| {
            let value = present[key].as_str().unwrap_or_default();
            format!("'{key}' already has a value ({value})")
        })
        .collect();
    match (what, taken.first()) {
        (_, None) => Ok(()),
        (What::Labels, Some(first)) => bail!("{first}, and --overwrite is false"),
        (What::Annotations, Some(_)) => bail!(
            "--overwrite is false but found the following declared annotation(s): {}",
            taken.join("; ")
        ),
    }
}

/// The word for what is done.
fn done(what: What, present: &Value, changes: &Map<String, Value>) -> &'static str {
    if what == What::Annotations {
        return "annotated";
    }
    let differs = |(key, value): (&String, &Value)| present[key] != *value;
    if !changes.iter().any(differs) {
        "not labeled"
    } else if changes.values().all(Value::is_null) {
        "unlabeled"
    } else {
        "labeled"
    }
}

/// Takes `key=value` and `key-` out of the words; null stands for removal.
fn take_changes(words: &mut Vec<String>, what: What) -> anyhow::Result<Map<String, Value>> {
    let mut changes = Map::new();
    let mut rest = Vec::new();
    for (index, word) in std::mem::take(words).into_iter().enumerate() {
        let (key, value) = match (word.split_once('='), word.strip_suffix('-')) {
            (Some((key, value)), _) => (key.to_owned(), Value::from(value)),
            (None, Some(key)) if index > 0 => (key.to_owned(), Value::Null),
            _ => {
                if !changes.is_empty() {
                    bail!("all resources must be specified before {} changes: {word}", what.one());
                }
                rest.push(word);
                continue;
            }
        };
        if changes.contains_key(&key) {
            bail!(
                "can not both modify and remove {} {} in the same command",
                if what == What::Labels { "a" } else { "an" },
                what.one()
            );
        }
        if what == What::Labels
            && let Some(wrong) = value.as_str().map(api::names::label_value)
            && !wrong.is_empty()
        {
            bail!("invalid label value: {word:?}: {}", wrong.join("; "));
        }
        changes.insert(key, value);
    }
    *words = rest;
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_follow_the_names() {
        let mut words: Vec<String> = ["pods", "a", "x=1", "y-", "z="].map(str::to_owned).into();
        let changes = take_changes(&mut words, What::Labels).unwrap();
        assert_eq!(words, ["pods", "a"]);
        assert_eq!(Value::Object(changes), json!({"x": "1", "y": null, "z": ""}));
        for words in [["po", "x=1", "a"], ["po", "x=1", "x-"], ["po", "a", "x=b c"]] {
            assert!(take_changes(&mut words.map(str::to_owned).into(), What::Labels).is_err());
        }
    }

    #[test]
    fn what_is_there_is_kept_unless_told_otherwise() {
        let present = json!({"a": "1"});
        let changes = |value: Value| value.as_object().cloned().unwrap();
        for (what, change, allowed) in [
            (What::Labels, json!({"a": "1"}), true),
            (What::Labels, json!({"a": "2"}), false),
            (What::Labels, json!({"a": null, "b": "1"}), true),
            (What::Annotations, json!({"a": "2"}), false),
        ] {
            assert_eq!(check(what, &present, &changes(change)).is_ok(), allowed);
        }
        assert_eq!(done(What::Labels, &present, &changes(json!({"a": null}))), "unlabeled");
        assert_eq!(done(What::Labels, &present, &changes(json!({"a": "1"}))), "not labeled");
    }
}
