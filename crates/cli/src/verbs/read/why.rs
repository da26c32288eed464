//! `skiff why`: why a pod is on its node, or on none, from the scheduler itself.

use std::process::ExitCode;

use anyhow::bail;
use client::Error;
use rpc::api_v1::ExplainRequest;
use rpc::scheduler_v1::{Explanation, NodeScore, Preemption, Rejection};

use crate::output::tabwriter::align;
use crate::request::Connection;

/// Number of nodes that are named for one reason.
const NAMES_MAX: usize = 5;

#[derive(clap::Args)]
pub struct Args {
    /// pod/NAME, or NAME
    #[arg(required = true, num_args = 1..=2, value_name = "POD")]
    pod: Vec<String>,
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let name = pod_name(&args.pod)?;
    let client = connection.client()?;
    let namespace = client.default_namespace().to_owned();
    let request = ExplainRequest { namespace, name: name.to_owned() };
    let answer = client.resources().explain(request).await.map_err(Error::from)?;
    let explanations = answer.into_inner().explanations;
    if explanations.is_empty() {
        println!("The scheduler has not decided about pod {name:?}, or not lately.");
        return Ok(ExitCode::FAILURE);
    }
    for (index, explanation) in explanations.iter().enumerate() {
        if index > 0 {
            println!();
        }
        print!("{}", text(name, explanation));
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads `pod/NAME`, `pod NAME` and `NAME`.
fn pod_name(words: &[String]) -> anyhow::Result<&str> {
    let is_pod = |kind: &str| matches!(kind, "pod" | "pods" | "po");
    match words {
        [one] => match one.split_once('/') {
            Some((kind, name)) if is_pod(kind) && !name.is_empty() => Ok(name),
            Some((kind, _)) => bail!("only pods are scheduled, not {kind:?}"),
            None => Ok(one),
        },
        [kind, name] if is_pod(kind) => Ok(name),
        [kind, _] => bail!("only pods are scheduled, not {kind:?}"),
        _ => bail!("a pod is required"),
    }
}

/// One decision for people.
fn text(pod: &str, explanation: &Explanation) -> String {
    let mut text = headline(pod, explanation);
    text.push_str(&format!(
        "  scheduler {}, priority {}, {}\n",
        explanation.scheduler_name,
        explanation.priority,
        match explanation.hypothetical {
            true => "as it would decide now".to_owned(),
            false => format!("attempt {} at {}", explanation.attempts, explanation.decided_at),
        }
    ));
    text.push_str(&format!(
        "  {} of {} nodes examined, {} fit\n",
        explanation.examined, explanation.nodes, explanation.feasible
    ));
    if !explanation.rejections.is_empty() {
        text.push_str("\nRejected\n");
        text.push_str(&rejections(&explanation.rejections));
    }
    if !explanation.scores.is_empty() {
        text.push_str("\nScores (0 to 100, times weight)\n");
        text.push_str(&scores(&explanation.scores));
    }
    if let Some(preemption) = &explanation.preemption {
        text.push_str("\nPreemption\n");
        text.push_str(&self::preemption(preemption));
    }
    text
}

fn headline(pod: &str, explanation: &Explanation) -> String {
    match (explanation.node.as_str(), explanation.hypothetical) {
        ("", false) => format!("Pod {pod} fits no node: {}\n", explanation.message),
        ("", true) => format!("Pod {pod} would still fit no node: {}\n", explanation.message),
        (node, false) => format!("Pod {pod} was assigned to {node}\n"),
        (node, true) => format!("Pod {pod} would be assigned to {node}\n"),
    }
}

fn rejections(rejections: &[Rejection]) -> String {
    let mut table = String::from("  NODES\tPLUGIN\tREASON\tWHICH\n");
    for rejection in rejections {
        let shown = &rejection.nodes[..rejection.nodes.len().min(NAMES_MAX)];
        let more = rejection.count.saturating_sub(shown.len() as u64);
        let mut which = shown.join(", ");
        if more > 0 && !shown.is_empty() {
            which.push_str(&format!(" and {more} more"));
        }
        table.push_str(&format!(
            "  {}\t{}\t{}\t{which}\n",
            rejection.count, rejection.plugin, rejection.reason
        ));
    }
    align(&table, 0, 3)
}

fn scores(scores: &[NodeScore]) -> String {
    let mut table = String::from("  NODE\tTOTAL");
    for plugin in scores.first().map(|score| &score.plugins).into_iter().flatten() {
        table.push_str(&format!("\t{} x{}", plugin.plugin, plugin.weight));
    }
    table.push('\n');
    for score in scores {
        table.push_str(&format!("  {}\t{}", score.node, score.total));
        for plugin in &score.plugins {
            table.push_str(&format!("\t{}", plugin.score));
        }
        table.push('\n');
    }
    align(&table, 0, 3)
}

fn preemption(preemption: &Preemption) -> String {
    if preemption.node.is_empty() {
        return format!("  {}\n", preemption.refusal);
    }
    let mut text = format!("  room is made on {}", preemption.node);
    if preemption.budget_violations > 0 {
        text.push_str(&format!(", violating {} disruption budgets", preemption.budget_violations));
    }
    text.push('\n');
    for victim in &preemption.victims {
        text.push_str(&format!(
            "  victim {}/{}, priority {}\n",
            victim.namespace, victim.name, victim.priority
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use rpc::scheduler_v1::{PluginScore, Victim};

    use super::*;

    #[test]
    fn pods_are_named_in_three_ways() {
        let name = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            pod_name(&words).map(str::to_owned).map_err(|error| error.to_string())
        };
        for words in [&["web"][..], &["pod/web"], &["po", "web"]] {
            assert_eq!(name(words), Ok("web".to_owned()));
        }
        assert_eq!(name(&["node/a"]), Err("only pods are scheduled, not \"node\"".to_owned()));
        assert!(name(&["pod/"]).is_err());
    }

    #[test]
    fn a_decision_is_shown_with_its_rejections_and_scores() {
        let plugin = |name: &str, weight, score| PluginScore { plugin: name.into(), weight, score };
        let explanation = Explanation {
            scheduler_name: "default-scheduler".into(),
            priority: 5,
            decided_at: "2030-01-01T00:00:00Z".into(),
            attempts: 2,
            node: "b".into(),
            nodes: 3,
            examined: 3,
            feasible: 1,
            rejections: vec![Rejection {
                plugin: "NodeResourcesFit".into(),
                reason: "Insufficient cpu".into(),
                count: 2,
                nodes: vec!["a".into()],
                resolvable: true,
            }],
            scores: vec![NodeScore {
                node: "b".into(),
                total: 120,
                plugins: vec![plugin("NodeAffinity", 2, 50), plugin("ImageLocality", 1, 20)],
            }],
            ..Explanation::default()
        };
        assert_eq!(
            text("web", &explanation),
            "Pod web was assigned to b\n  \
             scheduler default-scheduler, priority 5, attempt 2 at 2030-01-01T00:00:00Z\n  \
             3 of 3 nodes examined, 1 fit\n\n\
             Rejected\n  \
             NODES   PLUGIN             REASON             WHICH\n  \
             2       NodeResourcesFit   Insufficient cpu   a and 1 more\n\n\
             Scores (0 to 100, times weight)\n  \
             NODE   TOTAL   NodeAffinity x2   ImageLocality x1\n  \
             b      120     50                20\n"
        );
    }

    #[test]
    fn victims_and_refusals_are_shown() {
        let victim = Victim { namespace: "default".into(), name: "low".into(), priority: -1 };
        let made = Preemption { node: "a".into(), victims: vec![victim], ..Preemption::default() };
        let explanation = Explanation {
            message: "0/1 nodes are available: 1 Insufficient cpu.".into(),
            hypothetical: true,
            preemption: Some(made),
            ..Explanation::default()
        };
        let shown = text("high", &explanation);
        assert!(shown.starts_with("Pod high would still fit no node: 0/1 nodes"), "{shown}");
        assert!(
            shown.ends_with(
                "\nPreemption\n  room is made on a\n  victim default/low, priority -1\n"
            )
        );
        let refused = Preemption { refusal: "0/1 nodes".into(), ..Preemption::default() };
        assert_eq!(preemption(&refused), "  0/1 nodes\n");
    }
}
