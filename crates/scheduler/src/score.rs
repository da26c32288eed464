//! Scores: which of the nodes that can run a pod is best.
//!
//! Every plugin scores 0 to 100 and has the profile's weight; the highest sum wins. Among equal
//! nodes the caller's `turn` decides, so that they take turns.

mod affinity;
mod resources;
mod spread;

use roaring::RoaringBitmap;

use crate::filter::tolerated;
use crate::plugin::Plugin;
use crate::prepare::Prepared;
use crate::snapshot::{NodeIndex, Snapshot};

/// The best score of a plugin.
const MAX: i64 = 100;
/// Images are between these sizes, the larger for each container.
const IMAGE_MIN_BYTES: i64 = 23 << 20;
const IMAGE_MAX_BYTES: i64 = 1000 << 20;

/// The scores of some nodes.
#[derive(Clone, Debug, Default)]
pub struct Scored {
    pub nodes: Vec<NodeIndex>,
    /// Each plugin's scores, by position in `nodes`, before they are weighted. A plugin that has
    /// nothing to say about the pod is absent.
    pub plugins: Vec<(Plugin, i64, Vec<i64>)>,
    /// Weighted sums, by position in `nodes`.
    pub totals: Vec<i64>,
}

impl Scored {
    /// Position of the best node; `None` only if there are none.
    pub fn best(&self, turn: u64) -> Option<usize> {
        let top = *self.totals.iter().max()?;
        let equals = || (0..self.totals.len()).filter(|at| self.totals[*at] == top);
        let pick = usize::try_from(turn % equals().count().max(1) as u64).unwrap_or(0);
        equals().nth(pick)
    }

    /// Positions of the `count` best nodes, the best first.
    pub fn top(&self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.totals.len()).collect();
        let key = |at: &usize| (std::cmp::Reverse(self.totals[*at]), *at);
        if order.len() > count {
            order.select_nth_unstable_by_key(count, key);
            order.truncate(count);
        }
        order.sort_unstable_by_key(key);
        order
    }
}

/// Scores `nodes` with every plugin of the profile.
pub fn score(snapshot: &Snapshot, prepared: &Prepared, nodes: &RoaringBitmap) -> Scored {
    let nodes: Vec<NodeIndex> = nodes.iter().collect();
    let mut totals = vec![0; nodes.len()];
    let mut plugins = Vec::new();
    for (plugin, weight) in &prepared.profile.scores {
        let Some(scores) = run(*plugin, snapshot, prepared, &nodes) else {
            continue;
        };
        for (total, score) in totals.iter_mut().zip(&scores) {
            *total += score * weight;
        }
        plugins.push((*plugin, *weight, scores));
    }
    Scored { nodes, plugins, totals }
}

fn run(
    plugin: Plugin,
    snapshot: &Snapshot,
    prepared: &Prepared,
    nodes: &[NodeIndex],
) -> Option<Vec<i64>> {
    match plugin {
        Plugin::TaintToleration => Some(taints(snapshot, prepared, nodes)),
        Plugin::NodeAffinity => preferred_nodes(snapshot, prepared, nodes),
        Plugin::NodeResourcesFit => Some(resources::fit(snapshot, prepared, nodes)),
        Plugin::NodeResourcesBalancedAllocation => resources::balanced(snapshot, prepared, nodes),
        Plugin::PodTopologySpread => spread::score(snapshot, prepared, nodes),
        Plugin::InterPodAffinity => affinity::score(snapshot, prepared, nodes),
        Plugin::ImageLocality => Some(images(snapshot, prepared, nodes)),
        _ => None,
    }
}

/// Scales values to 0 to 100 by their maximum.
fn scaled(mut values: Vec<i64>) -> Vec<i64> {
    let high = values.iter().copied().max().unwrap_or(0);
    if high > 0 {
        values.iter_mut().for_each(|value| *value = *value * MAX / high);
    }
    values
}

/// TaintToleration: the fewer untolerated PreferNoSchedule taints the better.
fn taints(snapshot: &Snapshot, prepared: &Prepared, nodes: &[NodeIndex]) -> Vec<i64> {
    let mut raw = vec![0; nodes.len()];
    for (taint, tainted) in snapshot.taints() {
        if taint.effect == "PreferNoSchedule" && !tolerated(&prepared.pod.tolerations, taint) {
            for (value, node) in raw.iter_mut().zip(nodes) {
                *value += i64::from(tainted.contains(*node));
            }
        }
    }
    scaled(raw).into_iter().map(|value| MAX - value).collect()
}

/// NodeAffinity: weights of the preferred terms that a node matches.
fn preferred_nodes(
    snapshot: &Snapshot,
    prepared: &Prepared,
    nodes: &[NodeIndex],
) -> Option<Vec<i64>> {
    let added = &prepared.profile.arguments.added_preferences;
    if added.is_empty() && prepared.pod.preferred_nodes.is_empty() {
        return None;
    }
    let mut raw = vec![0; nodes.len()];
    for (weight, term) in added.iter().chain(&prepared.pod.preferred_nodes) {
        // A preference without requirements matches every node.
        let all = term.labels.is_empty() && term.names.is_empty();
        let liked = if all { snapshot.nodes().clone() } else { snapshot.matching_term(term) };
        for (value, node) in raw.iter_mut().zip(nodes) {
            *value += if liked.contains(*node) { *weight } else { 0 };
        }
    }
    Some(scaled(raw))
}

/// ImageLocality: nodes that have the pod's images, the larger and the more widespread the better.
fn images(snapshot: &Snapshot, prepared: &Prepared, nodes: &[NodeIndex]) -> Vec<i64> {
    let mut raw = vec![0; nodes.len()];
    let total = snapshot.nodes().len();
    for image in prepared.pod.images.iter().filter_map(|name| snapshot.image(name)) {
        let share = image.nodes.len() as f64 / total as f64;
        let worth = (image.size_bytes as f64 * share) as i64;
        for (value, node) in raw.iter_mut().zip(nodes) {
            *value += if image.nodes.contains(*node) { worth } else { 0 };
        }
    }
    let most = IMAGE_MAX_BYTES * i64::try_from(prepared.pod.images.len().max(1)).unwrap_or(1);
    raw.into_iter()
        .map(|value| {
            MAX * (value.clamp(IMAGE_MIN_BYTES, most) - IMAGE_MIN_BYTES) / (most - IMAGE_MIN_BYTES)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_nodes_take_turns_and_the_best_come_first() {
        let scored =
            Scored { nodes: vec![4, 5, 6, 7], plugins: Vec::new(), totals: vec![10, 30, 20, 30] };
        assert_eq!([0, 1, 2].map(|turn| scored.best(turn)), [Some(1), Some(3), Some(1)]);
        assert_eq!(scored.top(3), [1, 3, 2]);
        assert_eq!(scored.top(9), [1, 3, 2, 0]);
        assert_eq!(Scored::default().best(0), None);
    }
}
