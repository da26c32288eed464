//! One scheduling decision: filter, score, and preempt if nothing fits. Changes no state but what
//! it asks the snapshot to count.

use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::filter::{self, Filtered, Search, message, reasons};
use crate::nominate::{check, fits};
use crate::plugin::{Plugin, Plugins};
use crate::pod::PodInfo;
use crate::preempt::{Candidate, CycleState, Refusal, preempt};
use crate::prepare::Prepared;
use crate::profile::Profile;
use crate::score::{self, Scored};
use crate::snapshot::{NodeIndex, Snapshot};
use crate::volumes::{VolumeNeeds, Volumes};

/// A decision, and how it came about.
#[derive(Debug, Default)]
pub struct Verdict {
    pub chosen: Option<NodeIndex>,
    pub volumes: VolumeNeeds,
    pub filtered: Filtered,
    /// How many nodes there were, and how many of them were looked at.
    pub total: u64,
    pub examined: u64,
    /// Where the next search should begin.
    pub next: NodeIndex,
    pub scored: Scored,
    /// Why no node was looked at.
    pub refused: Option<String>,
    pub preemption: Option<Result<Candidate, Refusal>>,
}

impl Verdict {
    /// The plugins that rejected the pod.
    pub fn plugins(&self) -> Plugins {
        if self.refused.is_some() && self.total > 0 {
            return [Plugin::VolumeBinding].into_iter().collect();
        }
        self.filtered.plugins()
    }

    /// Why the pod is unschedulable, in upstream's words.
    pub fn message(&self) -> String {
        let mut text = match &self.refused {
            Some(reason) if self.total == 0 => return reason.clone(),
            Some(reason) => format!("0/{} nodes are available: {reason}.", self.total),
            None => message(self.total, reasons(&self.filtered.rejections)),
        };
        match &self.preemption {
            Some(Err(Refusal::NotEligible(reason))) => {
                text.push_str(&format!(" preemption: {reason}"));
            }
            Some(Err(Refusal::NotHelpful(reason))) => {
                text.push_str(&format!(" preemption: {reason}"));
            }
            Some(Ok(_)) | None => {}
        }
        text
    }
}

/// Decides where a pod goes. `from`: where the search for nodes begins.
pub fn decide(
    snapshot: &mut Snapshot,
    volumes: &Volumes,
    pod: &Arc<PodInfo>,
    profile: &Arc<Profile>,
    cycle: CycleState<'_>,
    from: NodeIndex,
) -> Verdict {
    let total = snapshot.nodes().len();
    let mut verdict = Verdict { total, next: from, ..Verdict::default() };
    if total == 0 {
        verdict.refused = Some("no nodes available to schedule pods".to_owned());
        return verdict;
    }
    let needs = match volumes.needs(pod) {
        Ok(needs) => needs,
        Err(reason) => {
            verdict.refused = Some(reason);
            VolumeNeeds::default()
        }
    };
    let prepared = Prepared::new(snapshot, pod.clone(), profile.clone(), needs);
    if verdict.refused.is_none() {
        place(snapshot, &prepared, cycle, &mut verdict);
    }
    if verdict.chosen.is_none() && profile.preempts {
        verdict.preemption = Some(preempt(snapshot, &prepared, &verdict.filtered, cycle));
    }
    verdict.volumes = prepared.volumes;
    verdict
}

/// Filters and scores.
fn place(
    snapshot: &mut Snapshot,
    prepared: &Prepared,
    cycle: CycleState<'_>,
    verdict: &mut Verdict,
) {
    if let Some(node) = nominated(snapshot, prepared, cycle) {
        verdict.examined = 1;
        verdict.filtered.nodes.insert(node);
        verdict.chosen = Some(node);
        return;
    }
    let enough = prepared.profile.enough_nodes(verdict.total);
    let mut search = Search { from: verdict.next, enough, examined: 0, next: verdict.next };
    let mut without = RoaringBitmap::new();
    let mut taken = Vec::new();
    // Each round excludes at least one more node.
    loop {
        verdict.filtered = filter::find(snapshot, prepared, &without, &mut search);
        let newly = taken_by_nominated(snapshot, prepared, cycle, &verdict.filtered.nodes);
        without.extend(newly.iter().map(|(node, _)| *node));
        verdict.filtered.nodes -= &without;
        let done = newly.is_empty() || !verdict.filtered.nodes.is_empty();
        taken.extend(newly);
        if done {
            break;
        }
    }
    verdict.next = search.next;
    verdict.examined = search.examined;
    if verdict.filtered.nodes.is_empty() {
        // In the order of the filters, for the reasons.
        verdict.filtered = filter::filter(snapshot, prepared);
        verdict.filtered.nodes -= &without;
        verdict.examined = verdict.total;
    }
    verdict.filtered.rejections.extend(taken.into_iter().flat_map(|(_, rejections)| rejections));
    verdict.scored = score::score(snapshot, prepared, &verdict.filtered.nodes);
    let best = verdict.scored.best(cycle.turn);
    verdict.chosen = best.map(|at| verdict.scored.nodes[at]);
}

/// The node that room has been made on, if the pod fits there now.
fn nominated(
    snapshot: &mut Snapshot,
    prepared: &Prepared,
    cycle: CycleState<'_>,
) -> Option<NodeIndex> {
    let pod = &prepared.pod;
    let name = cycle.nominations.node_of(&pod.uid)?;
    let node = snapshot.node(name)?;
    if prepared.named.as_ref().is_some_and(|named| !named.contains(node)) {
        return None;
    }
    let lasting = filter::filter_lasting(snapshot, prepared, [node].into());
    let ahead = cycle.nominations.ahead_of(pod, name);
    (!lasting.nodes.is_empty() && fits(snapshot, prepared, node, &ahead)).then_some(node)
}

/// Those of `nodes` that the pod fits only because others of its priority or more, which are
/// nominated for them, are not there yet; and why it would not fit.
fn taken_by_nominated(
    snapshot: &mut Snapshot,
    prepared: &Prepared,
    cycle: CycleState<'_>,
    nodes: &RoaringBitmap,
) -> Vec<(NodeIndex, Vec<filter::Rejection>)> {
    let mut taken = Vec::new();
    for name in cycle.nominations.nodes() {
        let Some(node) = snapshot.node(name).filter(|node| nodes.contains(*node)) else {
            continue;
        };
        let ahead = cycle.nominations.ahead_of(&prepared.pod, name);
        if !ahead.is_empty()
            && let Err(rejections) = check(snapshot, prepared, node, &ahead)
        {
            taken.push((node, rejections));
        }
    }
    taken
}
