//! `skiff label` and `skiff annotate`: `key=value` sets, `key-` removes.

use std::process::ExitCode;

use anyhow::bail;
use client::PatchKind;
use serde_json::{Map, Value, json};

use crate::discovery::Resources;
use crate::request::Connection;
use crate::request::failure::Failures;
use crate::request::selection::{ObjectReference, Selection};
use crate::request::write::{DryRun, Report, WriteFlags};

/// Which map of the metadata is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataField {
    Labels,
    Annotations,
}

impl MetadataField {
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
    /// Replace existing values
    #[arg(long)]
    overwrite: bool,
    /// Every object of the kind in the namespace
    #[arg(long)]
    all: bool,
    /// List the present values
    #[arg(long)]
    list: bool,
    /// Only if the object is at this version
    #[arg(long)]
    resource_version: Option<String>,
    #[command(flatten)]
    write: WriteFlags,
}

pub async fn run(
    mut args: Args,
    field: MetadataField,
    connection: &Connection,
) -> anyhow::Result<ExitCode> {
    let changes = take_changes(&mut args.selection.words, field)?;
    if changes.is_empty() && !args.list {
        bail!("at least one {} update is required", field.one());
    }
    args.selection.require_names(args.all)?;
    let client = connection.client()?;
    let resources = Resources::discover(&client).await?;
    let mut report = args.write.report()?;
    let mut failures = Failures::default();
    for named in args.selection.objects(&client, &resources).await? {
        match change(&args, field, &client, &named, &changes, &mut report).await {
            Ok(()) => {}
            Err(error) => failures.push(error),
        }
    }
    Ok(failures.finish())
}

async fn change(
    args: &Args,
    field: MetadataField,
    client: &client::Client,
    named: &ObjectReference<'_>,
    changes: &Map<String, Value>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut object: Value =
        serde_json::from_slice(&client.get_object(named.target("")).await?.json)?;
    let present = object["metadata"][field.field()].clone();
    if args.list {
        for (key, value) in present.as_object().into_iter().flatten() {
            println!("{key}={}", value.as_str().unwrap_or_default());
        }
    }
    if changes.is_empty() {
        return Ok(());
    }
    if !args.overwrite {
        check(field, &present, changes)?;
    }
    for (key, value) in changes {
        if value.is_null() && present[key].is_null() && field == MetadataField::Labels {
            println!("label {key:?} not found.");
        }
    }
    let done = done(field, &present, changes);
    let mut patch = json!({"metadata": {field.field(): changes}});
    if let Some(version) = &args.resource_version {
        patch["metadata"]["resourceVersion"] = version.as_str().into();
    }
    if args.write.dry_run == DryRun::Client {
        json_patch::merge(&mut object, &patch);
    } else {
        let options = args.write.options(match field {
            MetadataField::Labels => "skiff-label",
            MetadataField::Annotations => "skiff-annotate",
        });
        let body = serde_json::to_vec(&patch)?;
        let target = named.target("");
        let after = client.patch_object(target, PatchKind::Merge, body, options).await?;
        object = serde_json::from_slice(&after.json)?;
    }
    report.done(named.resource, &object, done)
}

/// # Errors
/// When an existing value would be replaced.
fn check(
    field: MetadataField,
    present: &Value,
    changes: &Map<String, Value>,
) -> anyhow::Result<()> {
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
    match (field, taken.first()) {
        (_, None) => Ok(()),
        (MetadataField::Labels, Some(first)) => bail!("{first}, and --overwrite is false"),
        (MetadataField::Annotations, Some(_)) => bail!(
            "--overwrite is false but found the following declared annotation(s): {}",
            taken.join("; ")
        ),
    }
}

/// The verb for the output.
fn done(field: MetadataField, present: &Value, changes: &Map<String, Value>) -> &'static str {
    if field == MetadataField::Annotations {
        return "annotated";
    }
    if present.is_null() {
        // kubectl compares with an object that has a map of labels, be it empty.
        return "labeled";
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

/// Takes `key=value` and `key-` out of the arguments; null means removal.
fn take_changes(
    words: &mut Vec<String>,
    field: MetadataField,
) -> anyhow::Result<Map<String, Value>> {
    let mut changes = Map::new();
    let mut rest = Vec::new();
    for (index, word) in std::mem::take(words).into_iter().enumerate() {
        let (key, value) = match (word.split_once('='), word.strip_suffix('-')) {
            (Some((key, value)), _) => (key.to_owned(), Value::from(value)),
            (None, Some(key)) if index > 0 => (key.to_owned(), Value::Null),
            _ => {
                if !changes.is_empty() {
                    bail!("all resources must be specified before {} changes: {word}", field.one());
                }
                rest.push(word);
                continue;
            }
        };
        if changes.contains_key(&key) {
            bail!(
                "can not both modify and remove {} {} in the same command",
                if field == MetadataField::Labels { "a" } else { "an" },
                field.one()
            );
        }
        if field == MetadataField::Labels
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
        let changes = take_changes(&mut words, MetadataField::Labels).unwrap();
        assert_eq!(words, ["pods", "a"]);
        assert_eq!(Value::Object(changes), json!({"x": "1", "y": null, "z": ""}));
        for words in [["po", "x=1", "a"], ["po", "x=1", "x-"], ["po", "a", "x=b c"]] {
            assert!(
                take_changes(&mut words.map(str::to_owned).into(), MetadataField::Labels).is_err()
            );
        }
    }

    #[test]
    fn existing_values_are_kept_without_overwrite() {
        let present = json!({"a": "1"});
        let changes = |value: Value| value.as_object().cloned().unwrap();
        for (field, change, allowed) in [
            (MetadataField::Labels, json!({"a": "1"}), true),
            (MetadataField::Labels, json!({"a": "2"}), false),
            (MetadataField::Labels, json!({"a": null, "b": "1"}), true),
            (MetadataField::Annotations, json!({"a": "2"}), false),
        ] {
            assert_eq!(check(field, &present, &changes(change)).is_ok(), allowed);
        }
        assert_eq!(
            done(MetadataField::Labels, &present, &changes(json!({"a": null}))),
            "unlabeled"
        );
        assert_eq!(
            done(MetadataField::Labels, &present, &changes(json!({"a": "1"}))),
            "not labeled"
        );
    }
}
