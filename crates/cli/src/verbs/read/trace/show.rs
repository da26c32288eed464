//! A trace as text. Pure. Nodes that say the same are shown together.

use console::style;
use serde::Serialize;

use super::announced::Announcement;
use super::compare::{EndpointReport, FrontendReport, NodeReport};
use crate::output::tabwriter::align;

/// The result for all nodes.
#[derive(Clone, Debug, Serialize)]
pub struct Trace {
    kind: &'static str,
    target: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    announced: Vec<Announcement>,
    nodes: Vec<Nodes>,
}

/// Nodes with the same result.
#[derive(Clone, Debug, Serialize)]
struct Nodes {
    names: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    report: NodeReport,
}

impl Trace {
    pub fn new(target: String, notes: Vec<String>) -> Self {
        Self { kind: "Trace", target, notes, announced: Vec::new(), nodes: Vec::new() }
    }

    /// Adds which nodes announce the addresses of load balancers.
    pub fn announce(&mut self, announced: Vec<Announcement>) {
        self.announced = announced;
    }

    /// Adds the result of a node: its report, or why there is none.
    pub fn add(&mut self, node: &str, result: Result<NodeReport, String>) {
        let (report, error) = match result {
            Ok(report) => (report, None),
            Err(error) => (NodeReport::default(), Some(error)),
        };
        let same = |known: &&mut Nodes| known.report == report && known.error == error;
        match self.nodes.iter_mut().find(same) {
            Some(known) => known.names.push(node.to_owned()),
            None => self.nodes.push(Nodes { names: vec![node.to_owned()], error, report }),
        }
    }

    /// Whether all nodes answered, and no table differs.
    pub fn is_as_expected(&self) -> bool {
        self.announced.iter().all(|one| one.difference.is_none())
            && self.nodes.iter().all(|nodes| nodes.error.is_none() && !nodes.report.differs())
    }
}

/// The text of a trace; differences are red.
pub fn render(trace: &Trace) -> String {
    let mut out = format!("{}\n", trace.target);
    for note in &trace.notes {
        out.push_str(&format!("  {note}\n"));
    }
    for announced in &trace.announced {
        match &announced.difference {
            None => out.push_str(&format!("  {}\n", announced.text())),
            Some(difference) => {
                out.push_str(&wrong(1, &format!("{}: {difference}", announced.text())));
            }
        }
    }
    for nodes in &trace.nodes {
        out.push_str(&format!("\n{}\n", style(nodes.names.join(", ")).bold()));
        if let Some(error) = &nodes.error {
            out.push_str(&wrong(1, error));
        }
        for frontend in &nodes.report.frontends {
            out.push_str(&frontend_text(frontend));
        }
        for element in &nodes.report.other_elements {
            out.push_str(&format!("  {element}\n"));
        }
        for verdict in &nodes.report.verdicts {
            out.push_str(&format!("  {verdict}\n"));
        }
        for difference in &nodes.report.differences {
            out.push_str(&wrong(1, difference));
        }
    }
    out
}

fn wrong(depth: usize, text: &str) -> String {
    format!("{}{}\n", "  ".repeat(depth), style(format!("! {text}")).red())
}

fn frontend_text(report: &FrontendReport) -> String {
    let port = match report.port.is_empty() {
        true => String::new(),
        false => format!(":{}", report.port),
    };
    let clients = if report.outside { ", clients outside the cluster" } else { "" };
    let mut text = format!(
        "  {} ({} of {}{port}{clients})  {}\n",
        report.frontend, report.kind, report.service, report.rule
    );
    let rows: String = report.endpoints.iter().map(endpoint_text).collect();
    let aligned = align(&rows, 0, 2);
    let lines = aligned.lines().zip(&report.endpoints).map(|(line, endpoint)| {
        let line = line.trim_end();
        match endpoint.in_table {
            true => format!("    {line}\n"),
            false => format!("    {}\n", style(line).red()),
        }
    });
    text.extend(lines);
    text.extend(report.differences.iter().map(|difference| wrong(2, difference)));
    text
}

fn endpoint_text(endpoint: &EndpointReport) -> String {
    let pod = match (endpoint.pod.as_str(), endpoint.node.as_str()) {
        ("", "") => "-".to_owned(),
        ("", node) => format!("on {node}"),
        (pod, "") => format!("pod {pod}"),
        (pod, node) => format!("pod {pod} on {node}"),
    };
    let policies = match endpoint.policies.is_empty() {
        true => String::new(),
        false => format!("policies: {}", endpoint.policies.join(", ")),
    };
    format!("{}\t{pod}\t{}\t{policies}\n", endpoint.address, endpoint.state)
}
