//! `skiff get`

use std::process::ExitCode;

use anyhow::{Context, bail};
use client::Client;
use rpc::api_v1::{EventType, GetRequest, Object, Representation, WatchRequest};
use serde_json::Value;

use super::Connection;
use super::output::jsonpath::Template;
use super::output::{Format, print_objects, table};
use super::resources::{Resource, Resources};
use super::selection::{Meaning, Named, Selection};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    /// wide, yaml, json, name, jsonpath=TEMPLATE, custom-columns=NAME:PATH,...
    #[arg(short, long)]
    output: Option<String>,
    /// After showing what there is, show changes as they happen
    #[arg(short, long)]
    watch: bool,
    /// Show changes only
    #[arg(long)]
    watch_only: bool,
    #[arg(long)]
    no_headers: bool,
    /// Show all labels in a last column
    #[arg(long)]
    show_labels: bool,
    /// Show these labels as columns
    #[arg(short = 'L', long, value_delimiter = ',')]
    label_columns: Vec<String>,
    /// Prefix names with their kind
    #[arg(long)]
    show_kind: bool,
    /// Sort by a JSONPath
    #[arg(long, value_name = "PATH")]
    sort_by: Option<String>,
    /// Say nothing about what does not exist
    #[arg(long)]
    ignore_not_found: bool,
    /// Read a path of the server as it is
    #[arg(long, value_name = "PATH")]
    raw: Option<String>,
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let client = connection.client()?;
    if let Some(path) = &args.raw {
        let body = client.get_path(path, "").await?;
        println!("{}", String::from_utf8_lossy(&body));
        return Ok(ExitCode::SUCCESS);
    }
    let format = args
        .output
        .as_deref()
        .map(str::parse::<Format>)
        .transpose()?;
    let resources = Resources::discover(&client).await?;
    let meaning = args.selection.meaning(&client, &resources)?;
    if args.watch || args.watch_only {
        return watch(&args, &client, meaning, format.as_ref()).await;
    }
    match format {
        None | Some(Format::Wide) => tables(&args, &client, meaning).await,
        Some(format) => objects(&args, &client, meaning, &format).await,
    }
}

/// What was fetched of one kind.
struct Fetched<'a> {
    resource: &'a Resource,
    objects: Vec<Object>,
}

/// Fetches everything; what does not exist is reported and makes the exit code 1.
async fn fetch<'a>(
    args: &Args,
    client: &Client,
    meaning: Meaning<'a>,
    representation: Representation,
) -> anyhow::Result<(Vec<Fetched<'a>>, ExitCode)> {
    let mut fetched: Vec<Fetched<'a>> = Vec::new();
    let mut code = ExitCode::SUCCESS;
    match meaning {
        Meaning::Collections(kinds) => {
            for resource in kinds {
                let (objects, _) = args
                    .selection
                    .list(client, resource, representation)
                    .await?;
                fetched.push(Fetched { resource, objects });
            }
        }
        Meaning::Names(names) => {
            for named in names {
                match get(client, &named, representation).await {
                    Ok(object) => match fetched
                        .iter_mut()
                        .find(|entry| entry.resource == named.resource)
                    {
                        Some(entry) => entry.objects.push(object),
                        None => fetched.push(Fetched {
                            resource: named.resource,
                            objects: vec![object],
                        }),
                    },
                    Err(error) if error.is_not_found() && args.ignore_not_found => {}
                    Err(client::Error::Api(error)) => {
                        eprintln!("Error from server ({}): {error}", error.reason());
                        code = ExitCode::FAILURE;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    Ok((fetched, code))
}

async fn get(
    client: &Client,
    named: &Named<'_>,
    representation: Representation,
) -> Result<Object, client::Error> {
    let request = GetRequest {
        target: Some(named.target("")),
        representation: representation.into(),
        ..Default::default()
    };
    Ok(client.resources().get(request).await?.into_inner())
}

async fn objects(
    args: &Args,
    client: &Client,
    meaning: Meaning<'_>,
    format: &Format,
) -> anyhow::Result<ExitCode> {
    let single = matches!(&meaning, Meaning::Names(names) if names.len() == 1);
    let (fetched, code) = fetch(args, client, meaning, Representation::Full).await?;
    let mut all: Vec<(&Resource, Value)> = Vec::new();
    for entry in &fetched {
        for object in &entry.objects {
            all.push((entry.resource, decode(object)?));
        }
    }
    if let Some(path) = &args.sort_by {
        let path = Template::parse_path(path)?;
        all.sort_by(|(_, left), (_, right)| {
            sort_key(&path, left).total_cmp(&sort_key(&path, right))
        });
    }
    if all.is_empty() && single {
        return Ok(code);
    }
    print_objects(format, &all, single)?;
    Ok(code)
}

fn decode(object: &Object) -> anyhow::Result<Value> {
    serde_json::from_slice(&object.json).context("the server's object is not JSON")
}

/// What `--sort-by` compares: numbers before text.
struct SortKey(Option<f64>, String);

impl SortKey {
    fn total_cmp(&self, other: &Self) -> std::cmp::Ordering {
        match (self.0, other.0) {
            (Some(left), Some(right)) => left.total_cmp(&right),
            _ => self.1.cmp(&other.1),
        }
    }
}

fn sort_key(path: &Template, object: &Value) -> SortKey {
    match path.find(object).first() {
        Some(Value::Number(number)) => SortKey(number.as_f64(), String::new()),
        Some(value) => SortKey(None, super::output::jsonpath::print(value)),
        None => SortKey(None, String::new()),
    }
}

fn table_options(args: &Args, resource: &Resource, many: bool) -> table::Options {
    let prefix = (many || args.show_kind).then(|| resource.path(""));
    table::Options {
        wide: args.output.as_deref() == Some("wide"),
        namespace: args.selection.all_namespaces && resource.namespaced,
        show_labels: args.show_labels,
        label_columns: args.label_columns.clone(),
        kind_prefix: prefix,
    }
}

async fn tables(args: &Args, client: &Client, meaning: Meaning<'_>) -> anyhow::Result<ExitCode> {
    let collection = matches!(meaning, Meaning::Collections(_));
    let many = match &meaning {
        Meaning::Collections(kinds) => kinds.len() > 1,
        Meaning::Names(names) => names
            .iter()
            .any(|named| named.resource != names[0].resource),
    };
    let (fetched, code) = fetch(args, client, meaning, Representation::Table).await?;
    let mut shown = 0;
    for entry in &fetched {
        let mut rows: Vec<Value> = Vec::new();
        for object in &entry.objects {
            rows.push(decode(object)?);
        }
        if let Some(path) = &args.sort_by {
            sort_rows(&mut rows, &Template::parse_path(path)?);
        }
        let text = table::text(&rows, &table_options(args, entry.resource, many));
        if text.rows.is_empty() {
            continue;
        }
        if shown > 0 {
            println!();
        }
        print!("{}", text.render(!args.no_headers, &mut Vec::new()));
        shown += text.rows.len();
    }
    if shown == 0 && collection && !args.ignore_not_found {
        let namespaced = fetched.iter().any(|entry| entry.resource.namespaced);
        if namespaced && !args.selection.all_namespaces {
            eprintln!(
                "No resources found in {} namespace.",
                client.default_namespace()
            );
        } else {
            eprintln!("No resources found");
        }
    }
    Ok(code)
}

/// Sorts the rows of all tables together, by the metadata that rows carry.
fn sort_rows(tables: &mut Vec<Value>, path: &Template) {
    let Some(mut first) = tables.first().cloned() else {
        return;
    };
    let mut rows: Vec<Value> = tables
        .iter()
        .flat_map(|table| table["rows"].as_array().cloned().unwrap_or_default())
        .collect();
    rows.sort_by(|left, right| {
        sort_key(path, &left["object"]).total_cmp(&sort_key(path, &right["object"]))
    });
    first["rows"] = Value::Array(rows);
    *tables = vec![first];
}

async fn watch(
    args: &Args,
    client: &Client,
    meaning: Meaning<'_>,
    format: Option<&Format>,
) -> anyhow::Result<ExitCode> {
    let (resource, namespace, field_selector) = match meaning {
        Meaning::Collections(kinds) if kinds.len() == 1 => (
            kinds[0],
            args.selection.namespace(client).to_owned(),
            args.selection.field_selector.clone(),
        ),
        Meaning::Names(names) if names.len() == 1 => (
            names[0].resource,
            names[0].namespace.clone(),
            format!("metadata.name={}", names[0].name),
        ),
        _ => bail!("you may only specify a single resource type with --watch"),
    };
    let shows_table = matches!(format, None | Some(Format::Wide));
    let representation = if shows_table {
        Representation::Table
    } else {
        Representation::Full
    };
    let request = WatchRequest {
        target: Some(resource.target(&namespace, "", "")),
        label_selector: args.selection.selector.clone(),
        field_selector,
        send_initial_events: true,
        resource_version_match: "NotOlderThan".to_owned(),
        allow_watch_bookmarks: true,
        representation: representation.into(),
        ..Default::default()
    };
    let mut batches = client
        .resources()
        .watch(request)
        .await
        .map_err(client::Error::from)?
        .into_inner();
    let mut printer = WatchPrinter {
        headers: !args.no_headers,
        widths: Vec::new(),
        initial: true,
    };
    while let Some(batch) = batches.message().await.map_err(client::Error::from)? {
        for event in batch.events {
            let kind = event.r#type();
            if event.initial_events_end {
                printer.initial = false;
            }
            let Some(object) = event.object else { continue };
            if kind == EventType::Error {
                let status = api::status::decode_status(&object.json)?;
                bail!("{}", status.message.unwrap_or_default());
            }
            if kind == EventType::Bookmark || (args.watch_only && printer.initial) {
                continue;
            }
            match format {
                Some(format) if !shows_table => {
                    print_objects(format, &[(resource, decode(&object)?)], true)?
                }
                _ => printer.print(&decode(&object)?, &table_options(args, resource, false)),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Keeps columns aligned over a watch.
struct WatchPrinter {
    headers: bool,
    widths: Vec<usize>,
    initial: bool,
}

impl WatchPrinter {
    fn print(&mut self, row: &Value, options: &table::Options) {
        let text = table::text(std::slice::from_ref(row), options);
        print!(
            "{}",
            text.render(std::mem::take(&mut self.headers), &mut self.widths)
        );
    }
}
