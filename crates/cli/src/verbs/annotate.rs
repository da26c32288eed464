//! `skiff label` and `skiff annotate`: `key=value` sets, `key-` removes.

use std::process::ExitCode;

use anyhow::bail;
use client::PatchKind;
use rpc::api_v1::WriteOptions;
use serde_json::{Map, Value, json};

use super::Connection;
use super::resources::Resources;
use super::selection::Selection;

/// Which map of the metadata is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Labels,
    Annotations,
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
}

pub async fn run(mut args: Args, what: What, connection: &Connection) -> anyhow::Result<ExitCode> {
    let changes = take_changes(&mut args.selection.words)?;
    let (field, done) = match what {
        What::Labels => ("labels", "labeled"),
        What::Annotations => ("annotations", "annotated"),
    };
    if changes.is_empty() && !args.list {
        bail!(
            "at least one {} update is required",
            &field[..field.len() - 1]
        );
    }
    let one_word = args.selection.words.len() == 1 && !args.selection.words[0].contains('/');
    if one_word
        && !args.all
        && args.selection.selector.is_empty()
        && args.selection.filenames.is_empty()
    {
        bail!("one or more resources must be specified as <resource> <name> or <resource>/<name>");
    }
    let client = connection.client()?;
    let resources = Resources::discover(&client).await?;
    for named in args.selection.names(&client, &resources).await? {
        let object: Value =
            serde_json::from_slice(&client.get_object(named.target("")).await?.json)?;
        let present = &object["metadata"][field];
        if args.list {
            for (key, value) in present.as_object().into_iter().flatten() {
                println!("{key}={}", value.as_str().unwrap_or_default());
            }
        }
        if changes.is_empty() {
            continue;
        }
        if !args.overwrite {
            for (key, value) in &changes {
                if !value.is_null() && !present[key].is_null() && present[key] != *value {
                    bail!(
                        "'{key}' already has a value ({}), and --overwrite is false",
                        present[key].as_str().unwrap_or_default()
                    );
                }
            }
        }
        let same = changes.iter().all(|(key, value)| present[key] == *value);
        if same {
            println!("{} not {done}", named.path());
            continue;
        }
        let patch = json!({"metadata": {field: changes}});
        let options = WriteOptions {
            field_manager: format!("skiff-{done}"),
            ..Default::default()
        };
        client
            .patch_object(
                named.target(""),
                PatchKind::Merge,
                serde_json::to_vec(&patch)?,
                options,
            )
            .await?;
        let removed = changes.values().all(Value::is_null);
        println!(
            "{} {}",
            named.path(),
            if removed && what == What::Labels {
                "unlabeled"
            } else {
                done
            }
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes `key=value` and `key-` out of the words; null stands for removal.
fn take_changes(words: &mut Vec<String>) -> anyhow::Result<Map<String, Value>> {
    let mut changes = Map::new();
    let mut rest = Vec::new();
    for (index, word) in std::mem::take(words).into_iter().enumerate() {
        let (key, value) = match (word.split_once('='), word.strip_suffix('-')) {
            (Some((key, value)), _) => (key.to_owned(), Value::from(value)),
            (None, Some(key)) if index > 0 => (key.to_owned(), Value::Null),
            _ => {
                if !changes.is_empty() {
                    bail!("all resources must be specified before changes: {word}");
                }
                rest.push(word);
                continue;
            }
        };
        if changes.contains_key(&key) {
            bail!("can not both modify and remove, or set twice, in the same command: {key}");
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
        let changes = take_changes(&mut words).unwrap();
        assert_eq!(words, ["pods", "a"]);
        assert_eq!(
            Value::Object(changes),
            json!({"x": "1", "y": null, "z": ""})
        );
        assert!(take_changes(&mut ["po", "x=1", "a"].map(str::to_owned).into()).is_err());
        assert!(take_changes(&mut ["po", "x=1", "x-"].map(str::to_owned).into()).is_err());
    }
}
