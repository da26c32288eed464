//! `skiff describe`: an object in detail, with its Events.

use std::process::ExitCode;

use anyhow::{Context, bail};
use client::Client;
use rpc::api_v1::{ListRequest, Representation};
use serde_json::Value;

use crate::describe::{DescribeContext, Description, describe, events};
use crate::discovery::Resources;
use crate::request::Connection;
use crate::request::failure::Failures;
use crate::request::selection::{ObjectReference, Selected, Selection};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    /// Show events below the description
    #[arg(long, default_value = "true", action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    show_events: bool,
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    if args.selection.is_empty() {
        bail!(
            "You must specify the type of resource to describe. Use \"skiff api-resources\" for a complete list of supported resources."
        );
    }
    let client = connection.client()?;
    let resources = Resources::discover(&client).await?;
    let mut failures = Failures::default();
    let mut described = 0;
    for found in objects(&args.selection, &client, &resources).await? {
        let (named, object, by_prefix) = match found {
            Ok(found) => found,
            Err(error) => {
                failures.push(error);
                continue;
            }
        };
        if described > 0 && !by_prefix {
            println!("\n");
        }
        let context = DescribeContext { client: &client, resources: &resources, object: &object };
        let mut out = Description::default();
        let has_events = describe(&context, &named, &mut out).await?;
        if args.show_events && has_events {
            events(&client, &object, &mut out).await?;
        }
        print!("{}", out.render());
        if by_prefix {
            println!();
        }
        described += 1;
    }
    if described == 0 && failures.is_empty() {
        let namespace = args.selection.namespace(&client);
        if namespace.is_empty() {
            eprintln!("No resources found");
        } else {
            eprintln!("No resources found in {namespace} namespace.");
        }
    }
    Ok(failures.finish())
}

/// An object, and whether only a prefix of its name was given.
type Match<'a> = anyhow::Result<(ObjectReference<'a>, Value, bool)>;

/// The selected objects. A name that no object has may be a prefix of names.
async fn objects<'a>(
    selection: &Selection,
    client: &Client,
    resources: &'a Resources,
) -> anyhow::Result<Vec<Match<'a>>> {
    let read = |resource, object: &rpc::api_v1::Object, by_prefix: bool| {
        let value =
            serde_json::from_slice(&object.json).context("the server's object is not JSON")?;
        let named = ObjectReference {
            resource,
            namespace: object.namespace.clone(),
            name: object.name.clone(),
            source: None,
        };
        anyhow::Ok((named, value, by_prefix))
    };
    let mut found = Vec::new();
    match selection.resolve(client, resources)? {
        Selected::Objects(names) => {
            for named in names {
                match client.get_object(named.target("")).await {
                    Ok(object) => found.push(read(named.resource, &object, false)),
                    Err(error) if error.is_not_found() => {
                        let request = ListRequest {
                            target: Some(named.resource.target(&named.namespace, "", "")),
                            ..Default::default()
                        };
                        let mut alike = client.list_objects(request).await?.0;
                        alike.retain(|object| object.name.starts_with(&named.name));
                        if alike.is_empty() {
                            found.push(Err(error.into()));
                        }
                        found.extend(alike.iter().map(|object| read(named.resource, object, true)));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Selected::Collections(kinds) => {
            for resource in kinds {
                let objects = selection.list(client, resource, Representation::Full).await?;
                found.extend(objects.iter().map(|object| read(resource, object, false)));
            }
        }
    }
    Ok(found)
}
