//! DefaultPreemption: which pods of lower priority must go so that a pod fits somewhere.
//!
//! On every node that could be helped, all pods of lower priority are counted out of the snapshot,
//! and then back in as long as the pod still fits, the most important first: those that do not fit
//! beside it are the victims. Of the nodes, the one with the least damage is chosen. The snapshot is
//! as before afterwards.

use std::cmp::Reverse;
use std::sync::Arc;

use jiff::Timestamp;
use roaring::RoaringBitmap;

use crate::budgets::Budgets;
use crate::filter::{Filtered, filter_lasting, message, reasons};
use crate::nominate::{Nominations, check, fits_beside};
use crate::pod::PodInfo;
use crate::prepare::Prepared;
use crate::snapshot::{NodeIndex, Snapshot};

/// Why a node without pods of lower priority is not a candidate.
const NO_VICTIMS: &str = "No preemption victims found for incoming pod";

/// A node on which the pod fits once the victims are gone.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub node: NodeIndex,
    /// The most important first.
    pub victims: Vec<Arc<PodInfo>>,
    /// Number of victims whose disruption violates a budget.
    pub violations: usize,
}

/// Why there is no candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The pod may not preempt, or waits for its victims already: its nomination stays.
    NotEligible(&'static str),
    /// No node can be helped; the message says why, in upstream's words.
    NotHelpful(String),
}

/// The state that preemption decides on, besides the snapshot.
#[derive(Clone, Copy, Debug)]
pub struct CycleState<'a> {
    pub nominations: &'a Nominations,
    pub budgets: &'a Budgets,
    /// Decides with which node the search begins.
    pub turn: u64,
}

/// Chooses a node and its victims for a pod that was rejected everywhere.
///
/// # Errors
/// If nothing is to be preempted.
pub fn preempt(
    snapshot: &mut Snapshot,
    prepared: &Prepared,
    filtered: &Filtered,
    cycle: CycleState<'_>,
) -> Result<Candidate, Refusal> {
    let resolvable = filtered.resolvable();
    eligible(snapshot, prepared, filtered, &resolvable, cycle)?;
    let (candidates, failures) = candidates(snapshot, prepared, &resolvable, cycle);
    let chosen = candidates
        .into_iter()
        .reduce(|best, next| if damage(&next) < damage(&best) { next } else { best });
    chosen.ok_or_else(|| {
        let total = snapshot.nodes().len();
        let helpless = total - resolvable.len();
        let unhelpful = ("Preemption is not helpful for scheduling".to_owned(), helpless);
        Refusal::NotHelpful(message(total, failures.into_iter().chain([unhelpful])))
    })
}

fn eligible(
    snapshot: &Snapshot,
    prepared: &Prepared,
    filtered: &Filtered,
    resolvable: &RoaringBitmap,
    cycle: CycleState<'_>,
) -> Result<(), Refusal> {
    let pod = &prepared.pod;
    if pod.never_preempts {
        return Err(Refusal::NotEligible("not eligible due to preemptionPolicy=Never."));
    }
    let nominated = cycle.nominations.node_of(&pod.uid).or(pod.nominated_node.as_deref());
    let Some(node) = nominated.and_then(|name| snapshot.node(name)) else {
        return Ok(());
    };
    // A node that can no longer be helped is given up.
    let rejected = filtered.rejections.iter().any(|rejection| rejection.nodes.contains(node));
    if rejected && !resolvable.contains(node) {
        return Ok(());
    }
    let waits =
        snapshot.pods_on(node).iter().any(|other| other.preempted && other.priority < pod.priority);
    if waits {
        let reason = "not eligible due to a terminating pod on the nominated node.";
        return Err(Refusal::NotEligible(reason));
    }
    Ok(())
}

/// Candidates among the nodes, and why the other nodes that were tried are not.
fn candidates(
    snapshot: &mut Snapshot,
    prepared: &Prepared,
    nodes: &RoaringBitmap,
    cycle: CycleState<'_>,
) -> (Vec<Candidate>, Vec<(String, u64)>) {
    let lasting = filter_lasting(snapshot, prepared, nodes.clone());
    let mut failures: Vec<(String, u64)> = reasons(&lasting.rejections).collect();
    // Mostly, all pods have the same priority.
    if snapshot.lowest_priority().is_none_or(|lowest| lowest >= prepared.pod.priority) {
        failures.push((NO_VICTIMS.to_owned(), lasting.nodes.len()));
        return (Vec::new(), failures);
    }
    let arguments = &prepared.profile.arguments;
    let enough = (nodes.len() * arguments.candidates_percentage / 100)
        .max(arguments.candidates_absolute)
        .min(nodes.len());
    let all: Vec<NodeIndex> = lasting.nodes.iter().collect();
    let begin = usize::try_from(cycle.turn % all.len().max(1) as u64).unwrap_or(0);
    let mut found: Vec<Candidate> = Vec::new();
    for node in all[begin..].iter().chain(&all[..begin]) {
        match victims(snapshot, prepared, *node, cycle) {
            Ok(candidate) => found.push(candidate),
            Err(reasons) => failures.extend(reasons.into_iter().map(|reason| (reason, 1))),
        }
        let harmless = || found.iter().any(|candidate| candidate.violations == 0);
        if found.len() as u64 >= enough && harmless() {
            break;
        }
    }
    (found, failures)
}

/// The victims on a node.
///
/// # Errors
/// Why their removal would not help.
pub fn victims(
    snapshot: &mut Snapshot,
    prepared: &Prepared,
    node: NodeIndex,
    cycle: CycleState<'_>,
) -> Result<Candidate, Vec<String>> {
    let pod = &prepared.pod;
    let on_node = snapshot.pods_on(node).iter();
    let mut lower: Vec<Arc<PodInfo>> =
        on_node.filter(|other| other.priority < pod.priority).cloned().collect();
    if lower.is_empty() {
        return Err(vec![NO_VICTIMS.to_owned()]);
    }
    lower.sort_by_key(|other| Reverse(importance(other)));
    for other in &lower {
        snapshot.count(other, node, -1);
    }
    let ahead = cycle.nominations.ahead_of(pod, &snapshot.name(node));
    if let Err(rejections) = check(snapshot, prepared, node, &ahead) {
        for other in &lower {
            snapshot.count(other, node, 1);
        }
        return Err(rejections.into_iter().map(|rejection| rejection.reason).collect());
    }
    let (violating, harmless) = cycle.budgets.violations(lower);
    let (mut victims, mut violations) = (Vec::new(), 0);
    for nominated in &ahead {
        snapshot.count(nominated, node, 1);
    }
    for (others, violates) in [(violating, true), (harmless, false)] {
        for other in others {
            snapshot.count(&other, node, 1);
            if !fits_beside(snapshot, prepared, node, &ahead) {
                snapshot.count(&other, node, -1);
                violations += usize::from(violates);
                victims.push(other);
            }
        }
    }
    for nominated in &ahead {
        snapshot.count(nominated, node, -1);
    }
    for victim in &victims {
        snapshot.count(victim, node, 1);
    }
    victims.sort_by_key(|victim| Reverse(importance(victim)));
    if victims.is_empty() {
        // The pod fits as it is: a pod was removed since the filters ran. It is tried again.
        return Err(vec![NO_VICTIMS.to_owned()]);
    }
    Ok(Candidate { node, victims, violations })
}

/// Greater for pods that are preempted later: higher priority, or longer running.
fn importance(pod: &PodInfo) -> (i32, Reverse<Timestamp>) {
    (pod.priority, Reverse(pod.started.unwrap_or(Timestamp::MAX)))
}

/// How much a preemption costs, the less the better: violated budgets, the highest priority, the
/// sum of priorities, the number of victims, and how long the most important have run.
fn damage(candidate: &Candidate) -> (usize, i32, i64, usize, Reverse<Timestamp>) {
    let highest = candidate.victims.first().map_or(i32::MIN, |victim| victim.priority);
    // Priorities may be negative: more victims must still cost more.
    let offset = i64::from(i32::MAX) + 1;
    let sum = candidate.victims.iter().map(|victim| i64::from(victim.priority) + offset).sum();
    let of_highest = candidate.victims.iter().filter(|victim| victim.priority == highest);
    let earliest = of_highest.map(|victim| victim.started.unwrap_or(Timestamp::MAX)).min();
    let earliest = Reverse(earliest.unwrap_or(Timestamp::MAX));
    (candidate.violations, highest, sum, candidate.victims.len(), earliest)
}
