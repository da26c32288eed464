//! `skiff taint`: `KEY=VALUE:EFFECT` sets, `KEY[:EFFECT]-` removes.

use std::process::ExitCode;

use anyhow::bail;
use client::PatchKind;
use serde_json::{Value, json};

use crate::discovery::Resources;
use crate::request::Connection;
use crate::request::failure::{Failures, usage};
use crate::request::selection::Selection;
use crate::request::write::{DryRun, WriteFlags};

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    /// Replace existing taints
    #[arg(long)]
    overwrite: bool,
    /// Every node
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    write: WriteFlags,
}

/// A change to the taints with a key and, unless it is empty, an effect.
#[derive(Clone, Debug, PartialEq)]
struct Change {
    key: String,
    /// `None` removes the taint.
    value: Option<String>,
    effect: String,
}

impl Change {
    fn matches(&self, taint: &Value) -> bool {
        taint["key"] == self.key.as_str()
            && (self.effect.is_empty() || taint["effect"] == self.effect.as_str())
    }
}

fn parse(text: &str) -> anyhow::Result<Change> {
    let (spec, removes) = match text.strip_suffix('-') {
        Some(spec) => (spec, true),
        None => (text, false),
    };
    let (pair, effect) = spec.split_once(':').unwrap_or((spec, ""));
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    if !(EFFECTS.contains(&effect) || (removes && effect.is_empty())) {
        if effect.is_empty() {
            return Err(usage("taint", format!("invalid taint spec: {text}")));
        }
        return Err(usage(
            "taint",
            format!("invalid taint effect: {effect}, unsupported taint effect"),
        ));
    }
    Ok(Change {
        key: key.to_owned(),
        value: (!removes).then(|| value.to_owned()),
        effect: effect.to_owned(),
    })
}

pub async fn run(mut args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let words = &mut args.selection.words;
    if let Some(kind) = words.first()
        && !matches!(kind.as_str(), "node" | "nodes" | "no")
    {
        bail!("invalid resource type {kind}, only node types are supported");
    }
    let is_change = |word: &String| word.contains(['=', ':']) || word.ends_with('-');
    let specs: Vec<String> =
        words.extract_if(1.min(words.len()).., |word| is_change(word)).collect();
    if specs.is_empty() {
        bail!("at least one taint update is required");
    }
    let changes: Vec<Change> = specs.iter().map(|spec| parse(spec)).collect::<Result<_, _>>()?;
    args.selection.require_names(args.all)?;
    let client = connection.client()?;
    let resources = Resources::discover(&client).await?;
    let mut report = args.write.report()?;
    let mut failures = Failures::default();
    for named in args.selection.objects(&client, &resources).await? {
        let tainted = async {
            let node: Value =
                serde_json::from_slice(&client.get_object(named.target("")).await?.json)?;
            let (taints, done) = plan(&node, &changes, args.overwrite)?;
            if args.write.dry_run == DryRun::Client {
                return anyhow::Ok((node, done));
            }
            let patch = json!({
                "metadata": {"resourceVersion": node["metadata"]["resourceVersion"]},
                "spec": {"taints": taints},
            });
            let options = args.write.options("skiff-taint");
            let body = serde_json::to_vec(&patch)?;
            let object =
                client.patch_object(named.target(""), PatchKind::Merge, body, options).await?;
            Ok((serde_json::from_slice(&object.json)?, done))
        };
        match tainted.await {
            Ok((node, done)) => report.done(named.resource, &node, done)?,
            Err(error) => failures.push(error),
        }
    }
    Ok(failures.finish())
}

/// The node's taints after the changes, and the verb for the output.
fn plan(
    node: &Value,
    changes: &[Change],
    overwrite: bool,
) -> anyhow::Result<(Vec<Value>, &'static str)> {
    let name = node["metadata"]["name"].as_str().unwrap_or_default();
    let mut taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    let (mut added, mut removed, mut replaced) = (false, false, false);
    for change in changes {
        let before = taints.len();
        match &change.value {
            None => {
                taints.retain(|taint| !change.matches(taint));
                if taints.len() == before {
                    let effect = if change.effect.is_empty() {
                        String::new()
                    } else {
                        format!(":{}", change.effect)
                    };
                    bail!("taint \"{}{effect}\" not found", change.key);
                }
                removed = true;
            }
            Some(value) => {
                taints.retain(|taint| !change.matches(taint));
                if taints.len() != before && !overwrite {
                    bail!(
                        "node {name} already has a taint(s) with same effect(s) and --overwrite is false"
                    );
                }
                replaced |= taints.len() != before;
                added = true;
                let mut taint = json!({"key": change.key, "effect": change.effect});
                if !value.is_empty() {
                    taint["value"] = value.as_str().into();
                }
                taints.push(taint);
            }
        }
    }
    let done = match (added, removed) {
        (true, true) => "modified",
        _ if replaced => "modified",
        (true, false) => "tainted",
        _ => "untainted",
    };
    Ok((taints, done))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_are_set_replaced_and_removed() {
        let node = json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": "a", "value": "b", "effect": "NoSchedule"}]}});
        for (spec, overwrite, expected, done) in [
            ("a=c:NoSchedule", true, 1, "modified"),
            ("x:NoExecute", false, 2, "tainted"),
            ("a:NoSchedule-", false, 0, "untainted"),
            ("a-", false, 0, "untainted"),
        ] {
            let (taints, word) = plan(&node, &[parse(spec).unwrap()], overwrite).unwrap();
            assert_eq!((taints.len(), word), (expected, done), "{spec}");
        }
        for spec in ["a=c:NoSchedule", "b-"] {
            assert!(plan(&node, &[parse(spec).unwrap()], false).is_err(), "{spec}");
        }
        for spec in ["a=b:Foo", "a=b"] {
            assert!(parse(spec).is_err(), "{spec}");
        }
    }
}
