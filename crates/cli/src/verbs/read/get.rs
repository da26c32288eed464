//! `skiff get`

use std::process::ExitCode;

use anyhow::{Context, bail};
use client::Client;
use rpc::api_v1::{EventType, GetRequest, Object, Representation, WatchRequest};
use serde_json::Value;

use crate::discovery::{Resource, Resources};
use crate::output::{PrintFlags, Printer, table};
use crate::request::failure::Failures;
use crate::request::selection::{ObjectReference, Selected, Selection};
use crate::request::{Connection, rest};
use api::jsonpath::{Template, print};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    print: PrintFlags,
    /// After listing the objects, watch for changes
    #[arg(short, long)]
    watch: bool,
    /// Watch for changes without listing the objects first
    #[arg(long)]
    watch_only: bool,
    /// With --watch: show whether an object was added, modified or deleted
    #[arg(long)]
    output_watch_events: bool,
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
    /// Do not fail when an object does not exist
    #[arg(long)]
    ignore_not_found: bool,
    /// Print the server's response for this path
    #[arg(long, value_name = "PATH")]
    raw: Option<String>,
    /// Get this subresource: status, scale, ...
    #[arg(long, default_value = "")]
    subresource: String,
    /// Accepted for compatibility: the server chooses the size of its chunks
    #[arg(long, hide = true)]
    chunk_size: Option<u64>,
    /// Accepted for compatibility: the server always makes the tables
    #[arg(long, hide = true, default_value = "true", action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    server_print: bool,
}

/// What `get` prints when nothing is named.
const NOTHING_NAMED: &str = "\
You must specify the type of resource to get. Use \"skiff api-resources\" for a complete list of supported resources.

error: Required resource not specified.
Use \"skiff explain <resource>\" for a detailed description of that resource (e.g. skiff explain pods).
See 'skiff get -h' for help and examples";

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    if let Some(path) = &args.raw {
        let body = rest::get(connection, path).await?;
        print!("{}", String::from_utf8_lossy(&body));
        return Ok(ExitCode::SUCCESS);
    }
    let client = connection.client()?;
    let watched = args.watch || args.watch_only;
    if args.output_watch_events && !watched {
        bail!("--output-watch-events option can only be used with --watch or --watch-only");
    }
    if args.selection.is_empty() && !watched {
        eprintln!("{NOTHING_NAMED}");
        return Ok(ExitCode::FAILURE);
    }
    let printer = if args.print.is_wide() { None } else { args.print.printer()? };
    let printer = printer.map(|printer| printer.without_headers(args.no_headers));
    let resources = Resources::discover(&client).await?;
    let selected = args.selection.resolve(&client, &resources)?;
    if watched {
        return watch(&args, &client, selected, printer).await;
    }
    match printer {
        Some(printer) => objects(&args, &client, selected, printer).await,
        None => tables(&args, &client, selected).await,
    }
}

/// What was fetched of one kind.
struct Fetched<'a> {
    resource: &'a Resource,
    objects: Vec<Object>,
}

/// Fetches everything; missing objects are reported and make the exit code 1.
async fn fetch<'a>(
    args: &Args,
    client: &Client,
    selected: Selected<'a>,
    representation: Representation,
) -> anyhow::Result<(Vec<Fetched<'a>>, Failures)> {
    let mut fetched: Vec<Fetched<'a>> = Vec::new();
    let mut failures = Failures::default();
    match selected {
        Selected::Collections(kinds) => {
            for resource in kinds {
                let objects = args.selection.list(client, resource, representation).await?;
                fetched.push(Fetched { resource, objects });
            }
        }
        Selected::Objects(names) => {
            for named in names {
                match get(client, &named, &args.subresource, representation).await {
                    Ok(object) => {
                        match fetched.iter_mut().find(|entry| entry.resource == named.resource) {
                            Some(entry) => entry.objects.push(object),
                            None => fetched
                                .push(Fetched { resource: named.resource, objects: vec![object] }),
                        }
                    }
                    Err(error) if error.is_not_found() && args.ignore_not_found => {}
                    Err(error) if error.api().is_some() => failures.push(error.into()),
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    Ok((fetched, failures))
}

async fn get(
    client: &Client,
    named: &ObjectReference<'_>,
    subresource: &str,
    representation: Representation,
) -> Result<Object, client::Error> {
    let request = GetRequest {
        target: Some(named.target(subresource)),
        representation: representation.into(),
        ..Default::default()
    };
    Ok(client.resources().get(request).await?.into_inner())
}

async fn objects(
    args: &Args,
    client: &Client,
    selected: Selected<'_>,
    mut printer: Printer,
) -> anyhow::Result<ExitCode> {
    let single = matches!(&selected, Selected::Objects(names) if names.len() == 1);
    let (fetched, failures) = fetch(args, client, selected, Representation::Full).await?;
    let mut all: Vec<(&Resource, Value)> = Vec::new();
    for entry in &fetched {
        for object in &entry.objects {
            all.push((entry.resource, decode(object)?));
        }
    }
    if let Some(path) = &args.sort_by {
        let text = path;
        let path = Template::parse_path(path)?;
        if !single && !all.is_empty() && all.iter().all(|(_, object)| path.find(object).is_empty())
        {
            let text = text.trim_start_matches('{').trim_end_matches('}');
            anyhow::bail!(
                "couldn't find any field with path \"{{{text}}}\" in the list of objects"
            );
        }
        all.sort_by(|(_, left), (_, right)| {
            sort_key(&path, left).total_cmp(&sort_key(&path, right))
        });
    }
    match all.as_slice() {
        [] if single => {}
        [(resource, object)] if single => printer.object(resource, object)?,
        _ => printer.list(&all)?,
    }
    Ok(failures.finish())
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
        Some(value) => SortKey(None, print(value)),
        None => SortKey(None, String::new()),
    }
}

fn table_options(args: &Args, resource: &Resource, many: bool) -> table::Options {
    let prefix = (many || args.show_kind).then(|| resource.path(""));
    table::Options {
        wide: args.print.is_wide(),
        namespace: args.selection.all_namespaces && resource.namespaced,
        show_labels: args.show_labels,
        label_columns: args.label_columns.clone(),
        kind_prefix: prefix,
    }
}

async fn tables(args: &Args, client: &Client, selected: Selected<'_>) -> anyhow::Result<ExitCode> {
    let collection = matches!(selected, Selected::Collections(_));
    let kinds = match &selected {
        Selected::Collections(kinds) => kinds.len(),
        Selected::Objects(_) => 0,
    };
    let sorting = args.sort_by.as_deref().map(Template::parse_path).transpose()?;
    let representation = match sorting {
        None => Representation::Table,
        Some(_) => Representation::TableWithObjects,
    };
    let (fetched, failures) = fetch(args, client, selected, representation).await?;
    // The names of several kinds are prefixed with their kind.
    let many = kinds > 1 || fetched.len() > 1;
    let mut shown = 0;
    for entry in &fetched {
        let mut rows: Vec<Value> = Vec::new();
        for object in &entry.objects {
            rows.push(decode(object)?);
        }
        if let Some(path) = &sorting {
            sort_rows(&mut rows, path);
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
            eprintln!("No resources found in {} namespace.", client.default_namespace());
        } else {
            eprintln!("No resources found");
        }
    }
    Ok(failures.finish())
}

/// Sorts the rows of all tables together. Rows without the field come first; when none of several
/// rows has it, kubectl shows nothing.
fn sort_rows(tables: &mut Vec<Value>, path: &Template) {
    let Some(mut first) = tables.first().cloned() else {
        return;
    };
    let mut rows: Vec<Value> = tables
        .iter()
        .flat_map(|table| table["rows"].as_array().cloned().unwrap_or_default())
        .collect();
    if rows.len() > 1 && rows.iter().all(|row| path.find(&row["object"]).is_empty()) {
        rows.clear();
    }
    rows.sort_by(|left, right| {
        sort_key(path, &left["object"]).total_cmp(&sort_key(path, &right["object"]))
    });
    first["rows"] = Value::Array(rows);
    *tables = vec![first];
}

async fn watch(
    args: &Args,
    client: &Client,
    selected: Selected<'_>,
    mut printer: Option<Printer>,
) -> anyhow::Result<ExitCode> {
    let (resource, namespace, field_selector) = match selected {
        Selected::Collections(kinds) if kinds.len() == 1 => (
            kinds[0],
            args.selection.namespace(client).to_owned(),
            args.selection.field_selector.clone(),
        ),
        Selected::Objects(names) if names.len() == 1 => {
            if !args.ignore_not_found {
                client.get_object(names[0].target("")).await?;
            }
            (
                names[0].resource,
                names[0].namespace.clone(),
                format!("metadata.name={}", names[0].name),
            )
        }
        _ => bail!("you may only specify a single resource type"),
    };
    let representation = match printer {
        None => Representation::Table,
        Some(_) => Representation::Full,
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
    let mut batches =
        client.resources().watch(request).await.map_err(client::Error::from)?.into_inner();
    let mut rows = Rows { headers: !args.no_headers, widths: Vec::new() };
    let mut initial = true;
    while let Some(batch) = batches.message().await.map_err(client::Error::from)? {
        for event in batch.events {
            let kind = event.r#type();
            initial &= !event.initial_events_end;
            let Some(object) = event.object else { continue };
            if kind == EventType::Error {
                let status = api::status::decode_status(&object.json)?;
                bail!("{}", status.message.unwrap_or_default());
            }
            if kind == EventType::Bookmark || (args.watch_only && initial) {
                continue;
            }
            let object = decode(&object)?;
            match &mut printer {
                Some(printer) if args.output_watch_events => {
                    printer.event(kind.as_str_name(), &object)?;
                }
                Some(printer) => printer.object(resource, &object)?,
                None => {
                    let event = args.output_watch_events.then(|| kind.as_str_name());
                    rows.print(&object, &table_options(args, resource, false), event);
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Keeps columns aligned during a watch.
struct Rows {
    headers: bool,
    widths: Vec<usize>,
}

impl Rows {
    fn print(&mut self, row: &Value, options: &table::Options, event: Option<&str>) {
        let mut text = table::text(std::slice::from_ref(row), options);
        if let Some(event) = event {
            // As wide as the longest event type.
            let cell = |word: &str| format!("{word:<8}");
            text.headers.insert(0, cell("EVENT"));
            text.rows.iter_mut().for_each(|row| row.insert(0, cell(event)));
        }
        let headers = std::mem::take(&mut self.headers);
        print!("{}", text.render(headers, &mut self.widths));
    }
}
