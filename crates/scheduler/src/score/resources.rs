//! NodeResourcesFit and NodeResourcesBalancedAllocation.

use super::MAX;
use crate::prepare::Prepared;
use crate::profile::Strategy;
use crate::snapshot::{Column, NodeIndex, Snapshot};

/// Takes CPU or memory from the amounts with defaults.
type Nonzero = fn(&(i64, i64)) -> i64;

/// One resource over all nodes, as a score looks at it.
struct Resource<'a> {
    column: &'a Column,
    /// CPU or memory with defaults for containers without requests.
    nonzero: Option<Nonzero>,
    /// The pod's own request.
    own: i64,
    weight: i64,
}

impl Resource<'_> {
    /// Requested with the pod, and allocatable; `None` if the node does not have it.
    fn at(&self, snapshot: &Snapshot, node: NodeIndex) -> Option<(i64, i64)> {
        let slot = node as usize;
        let allocatable = self.column.allocatable[slot];
        let requested = match self.nonzero {
            Some(of) => of(&snapshot.nonzero_requested[slot]),
            None => self.column.requested[slot],
        };
        (allocatable != 0).then_some((requested.saturating_add(self.own), allocatable))
    }
}

/// The resources to look at. `defaults`: containers without requests count as if they had some.
fn resources<'a>(
    snapshot: &'a Snapshot,
    prepared: &Prepared,
    wanted: impl Iterator<Item = (&'a str, i64)>,
    defaults: bool,
) -> Vec<Resource<'a>> {
    let pod = &prepared.pod;
    wanted
        .filter_map(|(name, weight)| {
            let (nonzero, own): (Option<Nonzero>, i64) = match name {
                "cpu" if defaults => (Some(|amounts| amounts.0), pod.nonzero_requests.0),
                "memory" if defaults => (Some(|amounts| amounts.1), pod.nonzero_requests.1),
                _ => (None, pod.request(name)),
            };
            // Extended resources that the pod does not ask for are left out.
            let always = matches!(name, "cpu" | "memory" | "ephemeral-storage");
            if own == 0 && !always {
                return None;
            }
            Some(Resource { column: snapshot.resource(name)?, nonzero, own, weight })
        })
        .collect()
}

/// NodeResourcesFit with the profile's strategy.
pub fn fit(snapshot: &Snapshot, prepared: &Prepared, nodes: &[NodeIndex]) -> Vec<i64> {
    let arguments = &prepared.profile.arguments;
    let wanted = arguments.fit_resources.iter().map(|(name, weight)| (name.as_str(), *weight));
    let resources = resources(snapshot, prepared, wanted, true);
    let one = |requested: i64, allocatable: i64| match &arguments.strategy {
        Strategy::LeastAllocated if requested > allocatable => 0,
        Strategy::LeastAllocated => (allocatable - requested) * MAX / allocatable,
        Strategy::MostAllocated => requested.min(allocatable) * MAX / allocatable,
        Strategy::RequestedToCapacityRatio(shape) => {
            let full = requested > allocatable;
            on_shape(shape, if full { 100 } else { requested * 100 / allocatable })
        }
    };
    let ratio = matches!(arguments.strategy, Strategy::RequestedToCapacityRatio(_));
    nodes
        .iter()
        .map(|node| {
            let (mut sum, mut weights) = (0, 0);
            for resource in &resources {
                if let Some((requested, allocatable)) = resource.at(snapshot, *node) {
                    let score = one(requested, allocatable);
                    if !ratio || score > 0 {
                        sum += score * resource.weight;
                        weights += resource.weight;
                    }
                }
            }
            match weights {
                0 => 0,
                _ if ratio => (sum as f64 / weights as f64).round() as i64,
                _ => sum / weights,
            }
        })
        .collect()
}

/// The score at a utilization in percent, on the lines between the points.
fn on_shape(shape: &[(i64, i64)], utilization: i64) -> i64 {
    let at = shape.partition_point(|(point, _)| *point < utilization);
    let before = at.checked_sub(1).and_then(|before| shape.get(before));
    match (before, shape.get(at)) {
        (Some((x0, y0)), Some((x1, y1))) => y0 + (y1 - y0) * (utilization - x0) / (x1 - x0),
        (None, Some((_, score))) | (Some((_, score)), None) => *score,
        (None, None) => 0,
    }
}

/// NodeResourcesBalancedAllocation: the more alike the shares of the resources in use, the better.
/// Pods without requests are not scored: they would all end up on one node.
pub fn balanced(snapshot: &Snapshot, prepared: &Prepared, nodes: &[NodeIndex]) -> Option<Vec<i64>> {
    let names = &prepared.profile.arguments.balanced_resources;
    if names.iter().all(|name| prepared.pod.request(name) == 0) {
        return None;
    }
    let resources =
        resources(snapshot, prepared, names.iter().map(|name| (name.as_str(), 1)), false);
    let mut shares = Vec::with_capacity(resources.len());
    let score = |node: &NodeIndex| {
        shares.clear();
        for resource in &resources {
            if let Some((requested, allocatable)) = resource.at(snapshot, *node) {
                shares.push((requested as f64 / allocatable as f64).min(1.0));
            }
        }
        ((1.0 - deviation(&shares)) * MAX as f64) as i64
    };
    Some(nodes.iter().map(score).collect())
}

/// The standard deviation.
fn deviation(shares: &[f64]) -> f64 {
    match shares {
        [] | [_] => 0.0,
        [first, second] => ((first - second) / 2.0).abs(),
        many => {
            let count = many.len() as f64;
            let mean = many.iter().sum::<f64>() / count;
            (many.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / count).sqrt()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_followed_between_its_points() {
        let shape = [(10, 20), (30, 100), (80, 0)];
        let scores = [0, 10, 20, 30, 55, 80, 100].map(|at| on_shape(&shape, at));
        assert_eq!(scores, [20, 20, 60, 100, 50, 0, 0]);
    }

    #[test]
    fn deviations() {
        assert_eq!(deviation(&[0.5]), 0.0);
        assert_eq!(deviation(&[0.25, 0.75]), 0.25);
        assert!((deviation(&[0.0, 0.5, 1.0]) - 0.408).abs() < 0.001);
    }
}
