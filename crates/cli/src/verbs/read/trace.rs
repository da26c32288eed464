//! `skiff trace`: how connections to a Service, a pod or an address are directed, from the tables
//! that the nodes really have, and where these differ from what the API says.

mod announced;
mod compare;
mod expect;
mod observe;
mod show;
mod tables;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

use anyhow::Context;
use futures::{StreamExt, stream};

use crate::discovery::Resources;
use crate::output::PrintFlags;
use crate::request::failure::message;
use crate::request::{Connection, rest};

use compare::NodeReport;
use observe::{Snapshot, Target};
use show::Trace;
use tables::Tables;

/// Nodes that are asked at once.
const CONCURRENT_NODES: usize = 8;

#[derive(clap::Args)]
pub struct Args {
    #[arg(help = "svc/NAME[:PORT], pod/NAME, or IP:PORT[/PROTOCOL]")]
    target: String,
    /// Only as seen by this client: pod/NAME or node/NAME
    #[arg(long, value_name = "pod/NAME")]
    from: Option<String>,
    #[command(flatten)]
    print: PrintFlags,
}

/// The exit code is 1 when a table differs from what the API says, or a node does not answer.
pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let client = connection.client()?;
    let printer = if args.print.is_wide() { None } else { args.print.printer()? };
    let resources = Resources::discover(&client).await?;
    let target = Target::parse(&args.target, &resources)?;
    let snapshot = observe::observe(&client, &resources, &target, args.from.as_deref()).await?;
    let query = snapshot.query();
    let ask = async |index: usize| {
        let (query, name) = (query.as_deref().unwrap_or_default(), &snapshot.nodes[index].name);
        let path = format!("/api/v1/nodes/{name}/proxy/serviceproxy/tables?{query}");
        let body = rest::get(connection, &path).await?;
        serde_json::from_slice::<Tables>(&body).context("the proxy's answer is not JSON")
    };
    let ask = &ask;
    let asked = snapshot.asked().into_iter().filter(|_| query.is_some());
    let answers: Vec<(usize, anyhow::Result<Tables>)> = stream::iter(asked)
        .map(|index| async move { (index, ask(index).await) })
        .buffered(CONCURRENT_NODES)
        .collect()
        .await;
    let trace = trace(&snapshot, answers);
    match printer {
        Some(mut printer) => printer.value(&serde_json::to_value(&trace)?)?,
        None => print!("{}", show::render(&trace)),
    }
    Ok(if trace.is_as_expected() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Compares every node's answer.
fn trace(snapshot: &Snapshot, answers: Vec<(usize, anyhow::Result<Tables>)>) -> Trace {
    let mut trace = Trace::new(snapshot.title.clone(), snapshot.notes.clone());
    // Who announces an address matters to clients that are not in the cluster.
    if snapshot.is_for_all() {
        let complete = answers.iter().all(|(_, answer)| answer.is_ok());
        let answered = answers.iter().filter_map(|(index, answer)| {
            Some((&*snapshot.nodes[*index].name, answer.as_ref().ok()?))
        });
        let answered: Vec<(&str, &Tables)> = answered.collect();
        let announced =
            announced::announcements(&snapshot.observed, &snapshot.nodes, &answered, complete);
        trace.announce(announced);
    }
    for (index, answer) in answers {
        let node = &snapshot.nodes[index];
        let report: Result<NodeReport, String> = match answer {
            Ok(tables) => {
                let clients = snapshot.is_client(index);
                Ok(compare::node(&snapshot.observed, node, &tables, clients))
            }
            Err(error) => Err(message(&error)),
        };
        trace.add(&node.name, report);
    }
    trace
}
