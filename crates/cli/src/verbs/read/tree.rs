//! `skiff tree`: an object, its owners, and all that depends on it, with their states.

mod gather;
mod graph;
mod show;
mod state;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

use anyhow::bail;
use serde_json::{Value, json};

use crate::discovery::{Resource, Resources};
use crate::output::PrintFlags;
use crate::request::Connection;
use crate::request::failure::Failures;
use crate::request::selection::{Selected, Selection};

use gather::{Gathered, gather};

#[derive(clap::Args)]
pub struct Args {
    /// KIND/NAME, or KIND NAME
    #[arg(value_name = "KIND/NAME", required = true)]
    words: Vec<String>,
    #[command(flatten)]
    print: PrintFlags,
    /// Look for dependents of a cluster-scoped object in every namespace
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    #[arg(long)]
    no_headers: bool,
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let client = connection.client()?;
    let printer = if args.print.is_wide() { None } else { args.print.printer()? };
    let resources = Resources::discover(&client).await?;
    let selection = Selection { words: args.words.clone(), ..Selection::default() };
    let Selected::Objects(objects) = selection.resolve(&client, &resources)? else {
        bail!("a name is required: skiff tree KIND/NAME");
    };
    let names_only = args.print.output.as_deref() == Some("name");
    let mut failures = Failures::default();
    let mut printer = printer;
    for (index, named) in objects.iter().enumerate() {
        let read = gather(&client, &resources, named, args.all_namespaces).await;
        let (gathered, uid) = match read {
            Ok(read) => read,
            Err(error) => {
                failures.push(error);
                continue;
            }
        };
        let trees = gathered.graph.trees(&uid);
        match &mut printer {
            Some(printer) if names_only => {
                let names = names(&gathered, &trees, &resources)?;
                names.iter().try_for_each(|(resource, name)| {
                    printer.object(resource, &json!({"metadata": {"name": name}}))
                })?;
            }
            Some(printer) => {
                let values: Vec<Value> =
                    trees.iter().map(|tree| show::value(&gathered, tree)).collect();
                let value = json!({
                    "kind": "ObjectTree", "named": gathered.graph.get(&uid).map(|it| it.path()),
                    "trees": values,
                });
                printer.value(&value)?;
            }
            None => {
                if index > 0 {
                    println!();
                }
                let lines = show::lines(&gathered, &trees, &uid, clock::now());
                print!("{}", show::render(&lines, !args.no_headers));
            }
        }
        if !named.resource.namespaced && !args.all_namespaces {
            let namespace = client.default_namespace();
            eprintln!("Dependents in other namespaces than {namespace} are shown with -A.");
        }
        for message in &gathered.unlisted {
            eprintln!("Not in the tree: {message}");
        }
    }
    Ok(failures.finish())
}

/// Every existing object of the trees once, in their order.
fn names<'a>(
    gathered: &Gathered,
    trees: &[graph::Branch],
    resources: &'a Resources,
) -> anyhow::Result<Vec<(&'a Resource, String)>> {
    let mut found = Vec::new();
    for branch in trees {
        let entry = gathered.graph.get(&branch.uid).filter(|entry| entry.missing.is_none());
        if let Some(entry) = entry.filter(|_| branch.shown == graph::Shown::Whole) {
            let resource = resources.of_kind(&entry.api_version, &entry.kind)?;
            found.push((resource, entry.name.clone()));
        }
        found.extend(names(gathered, &branch.below, resources)?);
    }
    Ok(found)
}
