//! `skiff logs`

use std::io::Write;
use std::process::ExitCode;

use anyhow::bail;
use client::Client;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;

use crate::discovery::Resources;
use crate::request::failure::usage;
use crate::request::log::{Lines, copy};
use crate::request::pods::{
    annotated_or_first_container, containers, default_container, name, object_reference,
    pods_by_selector, pods_of,
};
use crate::request::{Connection, duration};

/// Lines queued for printing, over all containers.
const QUEUE: usize = 1024;
/// Concurrent streams with -l or --all-pods, as in kubectl.
const MAX_STREAMS: usize = 5;

#[derive(clap::Args)]
pub struct Args {
    /// POD, TYPE/NAME
    #[arg(value_name = "POD | TYPE/NAME")]
    target: Option<String>,
    /// The container, if not the default one
    #[arg(value_name = "CONTAINER")]
    positional_container: Option<String>,
    #[arg(short, long)]
    container: Option<String>,
    /// Follow the log
    #[arg(short, long)]
    follow: bool,
    /// The log of the container before its last restart
    #[arg(short, long)]
    previous: bool,
    /// Select pods by label
    #[arg(short = 'l', long)]
    selector: Option<String>,
    #[arg(long)]
    all_containers: bool,
    /// All pods of a TYPE/NAME
    #[arg(long)]
    all_pods: bool,
    /// Prefix every line with pod and container
    #[arg(long)]
    prefix: bool,
    #[arg(long)]
    timestamps: bool,
    /// Only this many of the last lines; -1 for all
    #[arg(long, allow_negative_numbers = true)]
    tail: Option<i64>,
    /// Only lines newer than this: 5s, 2m, 3h
    #[arg(long)]
    since: Option<String>,
    /// Only lines newer than this time (RFC 3339)
    #[arg(long)]
    since_time: Option<String>,
    #[arg(long)]
    limit_bytes: Option<i64>,
    #[arg(long, default_value_t = MAX_STREAMS)]
    max_log_requests: usize,
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    if args.tail.is_some_and(|tail| tail < -1) {
        bail!("--tail must be greater than or equal to -1");
    }
    let parameters = parameters(&args)?;
    let client = connection.client()?;
    let streams = streams(&args, &client).await?;
    if streams.len() > args.max_log_requests && args.follow {
        bail!(
            "you are attempting to follow {} log streams, but maximum allowed concurrency is {}, use --max-log-requests to increase the limit",
            streams.len(),
            args.max_log_requests
        );
    }
    let prefix = args.prefix;
    if !args.follow {
        for (pod, container) in streams {
            let prefix = prefix.then(|| format!("[pod/{pod}/{container}] "));
            copy(&client, &pod, &container, &parameters, prefix, &mut std::io::stdout().lock())
                .await?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let (lines, mut printed) = mpsc::channel::<Vec<u8>>(QUEUE);
    let mut tasks = tokio::task::JoinSet::new();
    for (pod, container) in streams {
        let (client, parameters, lines) = (client.clone(), parameters.clone(), lines.clone());
        let prefix = prefix.then(|| format!("[pod/{pod}/{container}] "));
        tasks.spawn(async move {
            copy(&client, &pod, &container, &parameters, prefix, &mut Lines(lines)).await
        });
    }
    drop(lines);
    while let Some(line) = printed.recv().await {
        let mut out = std::io::stdout().lock();
        out.write_all(&line)?;
        out.flush()?;
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(ExitCode::SUCCESS)
}

/// Pod and container of every log to show.
async fn streams(args: &Args, client: &Client) -> anyhow::Result<Vec<(String, String)>> {
    if args.container.is_some() && args.positional_container.is_some() {
        bail!("only one of -c or an inline [CONTAINER] arg is allowed");
    }
    let pods = pods(args, client).await?;
    let chosen = args.container.as_ref().or(args.positional_container.as_ref());
    let mut all = Vec::new();
    for pod in &pods {
        let names = match chosen {
            _ if args.all_containers => containers(pod),
            Some(container) if !containers(pod).contains(container) => {
                bail!("container {container} is not valid for pod {}", name(pod));
            }
            Some(container) => vec![container.clone()],
            None if args.all_pods => vec![annotated_or_first_container(pod)?],
            None => vec![default_container(pod)?],
        };
        all.extend(names.into_iter().map(|container| (name(pod).to_owned(), container)));
    }
    Ok(all)
}

/// The pods whose logs to show.
async fn pods(args: &Args, client: &Client) -> anyhow::Result<Vec<Pod>> {
    let namespace = client.default_namespace();
    match (&args.target, &args.selector) {
        (None, Some(selector)) => {
            let pods = pods_by_selector(client, namespace, selector).await?;
            if pods.is_empty() {
                eprintln!("No resources found in {namespace} namespace.");
            }
            Ok(pods)
        }
        (Some(word), None) => {
            let resources = Resources::discover(client).await?;
            let named = object_reference(client, &resources, word)?;
            let found = pods_of(client, &named).await;
            let mut pods = match found {
                Err(error) if named.resource.kind == "Pod" && not_found(&error) => bail!(
                    "error from server (NotFound): pods {:?} not found in namespace {namespace:?}",
                    named.name
                ),
                found => found?,
            };
            if !args.all_pods {
                if pods.len() > 1 {
                    eprintln!("Found {} pods, using pod/{}", pods.len(), name(&pods[0]));
                }
                pods.truncate(1);
            }
            Ok(pods)
        }
        (Some(_), Some(_)) => bail!("only a selector (-l) or a POD name is allowed"),
        (None, None) => Err(usage(
            "logs",
            "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command",
        )),
    }
}

fn not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<client::Error>().is_some_and(client::Error::is_not_found)
}

fn parameters(args: &Args) -> anyhow::Result<Vec<(&'static str, String)>> {
    let mut parameters = Vec::new();
    for (name, flag) in
        [("follow", args.follow), ("previous", args.previous), ("timestamps", args.timestamps)]
    {
        if flag {
            parameters.push((name, "true".to_owned()));
        }
    }
    // As in kubectl: with a selector, ten lines of each pod by default.
    let tail = args.tail.or(args.selector.is_some().then_some(10)).filter(|tail| *tail >= 0);
    if let Some(tail) = tail {
        parameters.push(("tailLines", tail.to_string()));
    }
    if let Some(since) = &args.since {
        let Ok(seconds) = duration::seconds(since) else {
            bail!(
                "invalid argument {since:?} for \"--since\" flag: time: invalid duration {since:?}\nSee 'skiff logs --help' for usage."
            );
        };
        parameters.push(("sinceSeconds", seconds.to_string()));
    }
    if let Some(time) = &args.since_time {
        if time.parse::<jiff::Timestamp>().is_err() {
            bail!(
                "parsing time {time:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {time:?} as \"2006\""
            );
        }
        parameters.push(("sinceTime", time.clone()));
    }
    if let Some(bytes) = args.limit_bytes {
        parameters.push(("limitBytes", bytes.to_string()));
    }
    Ok(parameters)
}
