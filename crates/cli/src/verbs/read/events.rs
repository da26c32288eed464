//! `skiff events`: Events, oldest first.

use std::process::ExitCode;

use anyhow::bail;
use client::{Api, Client, ListOptions};
use k8s_openapi::api::core::v1::Event;
use rpc::api_v1::{EventType, WatchRequest};

use crate::discovery::Resources;
use crate::output::event::{interval, last_seen};
use crate::output::table::TextTable;
use crate::request::Connection;
use crate::request::pods::object_reference;

#[derive(clap::Args)]
pub struct Args {
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only about this object: TYPE/NAME
    #[arg(long = "for", value_name = "TYPE/NAME")]
    about: Option<String>,
    /// Only these types: Normal, Warning
    #[arg(long, value_delimiter = ',')]
    types: Vec<String>,
    /// Watch for new events
    #[arg(short, long)]
    watch: bool,
    #[arg(long)]
    no_headers: bool,
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let known = |kind: &String| ["normal", "warning"].contains(&kind.to_lowercase().as_str());
    if !args.types.iter().all(known) {
        bail!("valid --types are Normal or Warning");
    }
    let client = connection.client()?;
    let namespace = if args.all_namespaces { "" } else { client.default_namespace() }.to_owned();
    let field_selector = match &args.about {
        None => String::new(),
        Some(word) => {
            let resources = Resources::discover(&client).await?;
            let named = object_reference(&client, &resources, word)?;
            format!(
                "involvedObject.kind={},involvedObject.name={}",
                named.resource.kind, named.name
            )
        }
    };
    let options = ListOptions { field_selector: field_selector.clone(), ..Default::default() };
    let list = Api::<Event>::namespaced(&client, &namespace).list(&options).await?;
    let mut events = list.items;
    events.retain(|event| wanted(&args, event));
    if events.is_empty() && !args.watch {
        eprintln!("No events found in {} namespace.", client.default_namespace());
        return Ok(ExitCode::SUCCESS);
    }
    let mut widths = Vec::new();
    print!("{}", text(events, args.all_namespaces).render(!args.no_headers, &mut widths));
    if args.watch {
        watch(&args, &client, &namespace, field_selector, list.revision.to_string(), widths)
            .await?;
    }
    Ok(ExitCode::SUCCESS)
}

fn wanted(args: &Args, event: &Event) -> bool {
    let kind = event.type_.as_deref().unwrap_or_default();
    args.types.is_empty() || args.types.iter().any(|wanted| wanted.eq_ignore_ascii_case(kind))
}

async fn watch(
    args: &Args,
    client: &Client,
    namespace: &str,
    field_selector: String,
    resource_version: String,
    mut widths: Vec<usize>,
) -> anyhow::Result<()> {
    let target = client::dynamic::target(<Event as api::Kind>::ROW, namespace, "", "");
    let request = WatchRequest {
        target: Some(target),
        field_selector,
        resource_version,
        ..Default::default()
    };
    let mut batches =
        client.resources().watch(request).await.map_err(client::Error::from)?.into_inner();
    while let Some(batch) = batches.message().await.map_err(client::Error::from)? {
        for change in batch.events {
            if !matches!(change.r#type(), EventType::Added | EventType::Modified) {
                continue;
            }
            let event: Event = api::Kind::decode(&change.object.unwrap_or_default().json)?;
            if wanted(args, &event) {
                print!("{}", text(vec![event], args.all_namespaces).render(false, &mut widths));
            }
        }
    }
    Ok(())
}

fn text(mut events: Vec<Event>, namespaces: bool) -> TextTable {
    events.sort_by_key(last_seen);
    let mut text = TextTable::default();
    let headers = ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"];
    text.headers =
        namespaces.then_some("NAMESPACE").into_iter().chain(headers).map(str::to_owned).collect();
    for event in events {
        let word = |value: &Option<String>| value.clone().unwrap_or_default();
        let object = &event.involved_object;
        let cells = [
            interval(&event),
            word(&event.type_),
            word(&event.reason),
            format!("{}/{}", word(&object.kind), word(&object.name)),
            word(&event.message).trim().to_owned(),
        ];
        let namespace = namespaces.then(|| word(&event.metadata.namespace));
        text.rows.push(namespace.into_iter().chain(cells).collect());
    }
    text
}
