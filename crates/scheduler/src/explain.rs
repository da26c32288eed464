//! What was decided about pods, kept for those who ask.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use roaring::RoaringBitmap;
use rpc::scheduler_v1 as pb;

use crate::decide::Verdict;
use crate::pod::PodInfo;
use crate::preempt::Refusal;
use crate::snapshot::Snapshot;

/// The maximum number of decisions that are kept.
const RECORDS_MAX: usize = 1024;
/// Number of nodes whose scores are kept: the best.
const SCORES_MAX: usize = 10;
/// The maximum number of nodes that are named for one reason.
const NAMES_MAX: usize = 100;

/// A decision about a pod.
#[derive(Debug)]
pub struct Record {
    pod: Arc<PodInfo>,
    at: Timestamp,
    attempts: u32,
    verdict: Verdict,
    /// Names of the scored nodes, by position.
    names: Vec<(usize, Arc<str>)>,
    feasible: u64,
    node: Option<Arc<str>>,
    removals: u64,
}

impl Record {
    pub fn new(
        snapshot: &Snapshot,
        pod: Arc<PodInfo>,
        at: Timestamp,
        attempts: u32,
        verdict: Verdict,
    ) -> Self {
        let top = verdict.scored.top(SCORES_MAX).into_iter();
        let names = top.map(|at| (at, snapshot.name(verdict.scored.nodes[at]))).collect();
        let preempted = verdict.preemption.as_ref().and_then(|outcome| outcome.as_ref().ok());
        let node = verdict.chosen.or(preempted.map(|candidate| candidate.node));
        let node = node.map(|node| snapshot.name(node));
        let (feasible, removals) = (verdict.filtered.nodes.len(), snapshot.removals());
        Self { pod, at, attempts, names, feasible, node, removals, verdict }
    }

    /// Drops what is not shown.
    fn compact(mut self) -> Self {
        let scored = &mut self.verdict.scored;
        for (_, _, scores) in &mut scored.plugins {
            *scores = self.names.iter().map(|(at, _)| scores[*at]).collect();
        }
        scored.totals = self.names.iter().map(|(at, _)| scored.totals[*at]).collect();
        scored.nodes = Vec::new();
        self.verdict.filtered.nodes = RoaringBitmap::new();
        for rejection in &mut self.verdict.filtered.rejections {
            rejection.nodes.optimize();
        }
        self.names.iter_mut().enumerate().for_each(|(at, (position, _))| *position = at);
        self
    }

    /// The answer for a user. `snapshot`: as it is now.
    pub fn explain(&self, snapshot: &Snapshot, hypothetical: bool) -> pb::Explanation {
        let verdict = &self.verdict;
        let chosen = verdict.chosen.is_some();
        let mut preemption = None;
        if let Some(outcome) = &verdict.preemption {
            preemption = Some(match outcome {
                Ok(candidate) => pb::Preemption {
                    node: self.node.as_deref().unwrap_or_default().to_owned(),
                    victims: candidate
                        .victims
                        .iter()
                        .map(|victim| pb::Victim {
                            namespace: victim.namespace.clone(),
                            name: victim.name.clone(),
                            priority: victim.priority,
                        })
                        .collect(),
                    budget_violations: u32::try_from(candidate.violations).unwrap_or(u32::MAX),
                    refusal: String::new(),
                },
                Err(Refusal::NotEligible(reason)) => refusal((*reason).to_owned()),
                Err(Refusal::NotHelpful(reason)) => refusal(reason.clone()),
            });
        }
        pb::Explanation {
            uid: self.pod.uid.clone(),
            scheduler_name: self.pod.scheduler_name.clone(),
            priority: self.pod.priority,
            decided_at: self.at.to_string(),
            attempts: self.attempts,
            hypothetical,
            node: if chosen {
                self.node.as_deref().unwrap_or_default().to_owned()
            } else {
                String::new()
            },
            message: if chosen { String::new() } else { verdict.message() },
            nodes: verdict.total,
            examined: verdict.examined,
            feasible: self.feasible,
            rejections: self.rejections(snapshot),
            scores: self.scores(),
            preemption,
        }
    }

    fn rejections(&self, snapshot: &Snapshot) -> Vec<pb::Rejection> {
        // An index may mean another node after a removal.
        let named = snapshot.removals() == self.removals;
        let rejections = self.verdict.filtered.rejections.iter();
        rejections
            .map(|rejection| {
                let shown = rejection.nodes.iter().take(if named { NAMES_MAX } else { 0 });
                let mut names: Vec<String> =
                    shown.map(|node| snapshot.name(node).to_string()).collect();
                names.sort();
                pb::Rejection {
                    plugin: rejection.plugin.to_string(),
                    reason: rejection.reason.clone(),
                    count: rejection.nodes.len(),
                    nodes: names,
                    resolvable: rejection.resolvable,
                }
            })
            .collect()
    }

    fn scores(&self) -> Vec<pb::NodeScore> {
        let scored = &self.verdict.scored;
        let of_node = |(at, name): &(usize, Arc<str>)| pb::NodeScore {
            node: name.to_string(),
            total: scored.totals[*at],
            plugins: scored
                .plugins
                .iter()
                .map(|(plugin, weight, scores)| pb::PluginScore {
                    plugin: plugin.to_string(),
                    weight: *weight,
                    score: scores[*at],
                })
                .collect(),
        };
        self.names.iter().map(of_node).collect()
    }
}

fn refusal(refusal: String) -> pb::Preemption {
    pb::Preemption { refusal, ..pb::Preemption::default() }
}

/// The last decisions, by the uid of the pod.
#[derive(Debug, Default)]
pub struct Records {
    by_uid: HashMap<String, Record>,
    order: VecDeque<String>,
}

impl Records {
    pub fn keep(&mut self, record: Record) {
        let uid = record.pod.uid.clone();
        if self.by_uid.insert(uid.clone(), record.compact()).is_none() {
            self.order.push_back(uid);
        }
        if self.order.len() > RECORDS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_uid.remove(&oldest);
        }
    }

    pub fn get(&self, uid: &str) -> Option<&Record> {
        self.by_uid.get(uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_decisions_are_kept_than_the_bound() {
        let mut records = Records::default();
        for number in 0..2 * RECORDS_MAX {
            let uid = number.to_string();
            for attempts in 0..2 {
                records.keep(Record {
                    pod: Arc::new(PodInfo { uid: uid.clone(), ..PodInfo::default() }),
                    at: Timestamp::UNIX_EPOCH,
                    attempts,
                    verdict: Verdict::default(),
                    names: Vec::new(),
                    feasible: 0,
                    node: None,
                    removals: 0,
                });
            }
            assert_eq!(records.get(&uid).unwrap().attempts, 1);
        }
        assert_eq!((records.by_uid.len(), records.order.len()), (RECORDS_MAX, RECORDS_MAX));
        assert!(records.get("0").is_none(), "the oldest are forgotten");
    }
}
