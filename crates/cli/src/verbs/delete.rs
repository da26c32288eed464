//! `skiff delete`

use std::process::ExitCode;

use anyhow::bail;
use client::{Client, DeleteOptions};
use rpc::api_v1::{EventType, WatchRequest};

use super::Connection;
use super::resources::Resources;
use super::selection::{Named, Selection};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    /// Every object of the kind in the namespace
    #[arg(long)]
    all: bool,
    /// Return at once instead of waiting until the objects are gone
    #[arg(long, default_value = "true", action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    wait: bool,
    /// Delete pods at once, without grace
    #[arg(long)]
    force: bool,
    /// Same as --grace-period=1
    #[arg(long)]
    now: bool,
    /// Seconds that a pod gets to end; 0 only with --force
    #[arg(long, value_name = "SECONDS")]
    grace_period: Option<i64>,
    /// background, foreground or orphan: what happens to dependents
    #[arg(long, default_value = "background", value_parser = ["background", "foreground", "orphan"])]
    cascade: String,
    #[arg(long)]
    ignore_not_found: bool,
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let client = connection.client()?;
    let resources = Resources::discover(&client).await?;
    let chosen = args.all
        || !args.selection.selector.is_empty()
        || !args.selection.field_selector.is_empty();
    if args.selection.words.len() == 1 && !args.selection.words[0].contains('/') && !chosen {
        bail!("resource(s) were provided, but no name was specified");
    }
    if args.grace_period == Some(0) && !args.force {
        bail!("--grace-period=0 needs --force");
    }
    let names = args.selection.names(&client, &resources).await?;
    if names.is_empty() && chosen {
        println!("No resources found");
        return Ok(ExitCode::SUCCESS);
    }
    let options = DeleteOptions {
        grace_period_seconds: match (args.force, args.now, args.grace_period) {
            (true, _, None) => Some(0),
            (_, true, _) => Some(1),
            (_, _, seconds) => seconds.filter(|seconds| *seconds >= 0),
        },
        propagation_policy: Some(match args.cascade.as_str() {
            "foreground" => "Foreground",
            "orphan" => "Orphan",
            _ => "Background",
        }),
        ..Default::default()
    };
    let mut code = ExitCode::SUCCESS;
    let mut waiting: Vec<(Named<'_>, String, u64)> = Vec::new();
    for named in names {
        match client.delete_object(named.target(""), &options).await {
            Ok(object) => {
                let forced = if args.force {
                    " force deleted"
                } else {
                    " deleted"
                };
                println!("{}{forced}{}", quoted(&named), from_namespace(&named));
                if !object.uid.is_empty() {
                    waiting.push((named, object.uid, object.revision));
                }
            }
            Err(error) if error.is_not_found() && (args.ignore_not_found || chosen) => {}
            Err(client::Error::Api(error)) => {
                eprintln!("Error from server ({}): {error}", error.reason());
                code = ExitCode::FAILURE;
            }
            Err(error) => return Err(error.into()),
        }
    }
    if args.wait && !args.force {
        for (named, uid, _) in waiting {
            gone(&client, &named, &uid).await?;
        }
    }
    Ok(code)
}

/// `pod "web"`
fn quoted(named: &Named<'_>) -> String {
    let path = named.path();
    let kind = path.split('/').next().unwrap_or_default();
    format!("{kind} {:?}", named.name)
}

fn from_namespace(named: &Named<'_>) -> String {
    if named.resource.namespaced {
        format!(" from {} namespace", named.namespace)
    } else {
        String::new()
    }
}

/// Returns when the object with this uid no longer exists.
pub async fn gone(client: &Client, named: &Named<'_>, uid: &str) -> anyhow::Result<()> {
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
    let mut there = false;
    while let Some(batch) = batches.message().await.map_err(client::Error::from)? {
        for event in batch.events {
            let kind = event.r#type();
            let same = event
                .object
                .as_ref()
                .is_some_and(|object| object.uid == uid);
            match kind {
                EventType::Added | EventType::Modified => there |= same,
                EventType::Deleted if same => return Ok(()),
                EventType::Error => bail!("the watch for the deletion of {} failed", named.path()),
                _ => {}
            }
            if event.initial_events_end && !there {
                return Ok(());
            }
        }
    }
    bail!(
        "the server ended the watch before {} was gone",
        named.path()
    )
}
