//! How the pods of one `schedulerName` are scheduled: which plugins, with which arguments.

use k8s_openapi::api::core::v1::TopologySpreadConstraint;

use crate::plugin::{PLUGINS, Plugin};
use crate::pod::{self, NodeTerm, Peers, PodInfo, SpreadConstraint};
use crate::snapshot::Services;

/// The profile of one scheduler name.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    pub scheduler_name: &'static str,
    /// Filters in their order.
    pub filters: Vec<Plugin>,
    /// Scores with their weights.
    pub scores: Vec<(Plugin, i64)>,
    /// Whether DefaultPreemption is on.
    pub preempts: bool,
    /// Percentage of the nodes that are searched for; 0: by the number of nodes.
    pub percentage_of_nodes: u64,
    pub arguments: Arguments,
}

/// Arguments of the plugins (`kubescheduler.config.k8s.io/v1`).
#[derive(Clone, Debug, PartialEq)]
pub struct Arguments {
    /// DefaultPreemption: how many nodes are tried, in percent and at least.
    pub candidates_percentage: u64,
    pub candidates_absolute: u64,
    /// InterPodAffinity.
    pub hard_pod_affinity_weight: i64,
    pub ignores_preferences_of_placed_pods: bool,
    /// NodeResourcesFit: what it does not filter by.
    pub ignored_resources: Vec<String>,
    pub ignored_resource_groups: Vec<String>,
    pub strategy: Strategy,
    /// Resources that [`Strategy`] looks at, with their weights.
    pub fit_resources: Vec<(String, i64)>,
    /// NodeResourcesBalancedAllocation.
    pub balanced_resources: Vec<String>,
    /// PodTopologySpread, for pods without constraints; `None`: the system's defaults.
    pub default_constraints: Option<Vec<TopologySpreadConstraint>>,
    /// NodeAffinity: what every pod requires and prefers besides its own.
    pub added_terms: Option<Vec<NodeTerm>>,
    pub added_preferences: Vec<(i64, NodeTerm)>,
}

/// How NodeResourcesFit scores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    #[default]
    LeastAllocated,
    MostAllocated,
    /// Points (utilization in percent, score of 0 to 100) that are joined by lines.
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

impl Default for Arguments {
    fn default() -> Self {
        let both = || ["cpu", "memory"].map(str::to_owned);
        Self {
            candidates_percentage: 10,
            candidates_absolute: 100,
            hard_pod_affinity_weight: 1,
            ignores_preferences_of_placed_pods: false,
            ignored_resources: Vec::new(),
            ignored_resource_groups: Vec::new(),
            strategy: Strategy::default(),
            fit_resources: both().map(|name| (name, 1)).into(),
            balanced_resources: both().into(),
            default_constraints: None,
            added_terms: None,
            added_preferences: Vec::new(),
        }
    }
}

/// No fewer nodes than this are searched for, if there are as many.
const NODES_MIN: u64 = 100;
const PERCENTAGE_MIN: u64 = 5;

impl Profile {
    /// The default plugins.
    pub fn new(scheduler_name: &'static str) -> Self {
        let rows = || PLUGINS.iter();
        Self {
            scheduler_name,
            filters: rows().filter(|row| row.filters).map(|row| row.plugin).collect(),
            scores: rows().filter_map(|row| Some((row.plugin, row.weight?))).collect(),
            preempts: true,
            percentage_of_nodes: 0,
            arguments: Arguments::default(),
        }
    }

    /// How many nodes that fit are enough (upstream's `numFeasibleNodesToFind`).
    pub fn enough_nodes(&self, total: u64) -> u64 {
        let percentage = match self.percentage_of_nodes {
            0 => 50_u64.saturating_sub(total / 125).max(PERCENTAGE_MIN),
            given => given,
        };
        if total < NODES_MIN || percentage >= 100 {
            return total;
        }
        (total * percentage / 100).max(NODES_MIN)
    }

    /// Whether NodeResourcesFit does not filter by this resource.
    pub fn ignores(&self, resource: &str) -> bool {
        let Arguments { ignored_resources, ignored_resource_groups, .. } = &self.arguments;
        let group = resource.split_once('/').map(|(group, _)| group);
        ignored_resources.iter().any(|ignored| ignored == resource)
            || ignored_resource_groups.iter().any(|ignored| Some(ignored.as_str()) == group)
    }

    /// The constraints of a pod, or the defaults for the pods of its set, or else of its Services;
    /// and whether only nodes with all of their topology keys count.
    pub fn spread(&self, pod: &PodInfo, services: &Services) -> (Vec<SpreadConstraint>, bool) {
        if !pod.spread.is_empty() {
            return (pod.spread.clone(), true);
        }
        let of_set = pod.set.clone().map(Peers::OfSet);
        let Some(peers) = of_set.or_else(|| services.selector(pod).map(Peers::Selected)) else {
            return (Vec::new(), true);
        };
        let peers = || peers.clone();
        match &self.arguments.default_constraints {
            Some(defaults) => {
                let read = |constraint| SpreadConstraint {
                    peers: peers(),
                    ..pod::spread(constraint, &pod.labels)
                };
                (defaults.iter().map(read).collect(), true)
            }
            None => {
                let over = |topology_key: &str, max_skew| SpreadConstraint {
                    peers: peers(),
                    topology_key: topology_key.to_owned(),
                    max_skew,
                    min_domains: 1,
                    required: false,
                    honor_node_affinity: true,
                    honor_taints: false,
                };
                let system =
                    [over("kubernetes.io/hostname", 3), over("topology.kubernetes.io/zone", 5)];
                (system.into(), false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_nodes_are_searched_for_in_large_clusters() {
        let mut profile = Profile::new("default-scheduler");
        for (total, enough) in [(3, 3), (99, 99), (200, 100), (1000, 420), (5000, 500), (9000, 450)]
        {
            assert_eq!(profile.enough_nodes(total), enough, "{total}");
        }
        profile.percentage_of_nodes = 30;
        assert_eq!(profile.enough_nodes(500), 150);
        profile.percentage_of_nodes = 100;
        assert_eq!(profile.enough_nodes(500), 500);
    }

    #[test]
    fn resources_are_ignored_by_name_and_by_group() {
        let mut profile = Profile::new("default-scheduler");
        profile.arguments.ignored_resources = vec!["a.com/x".into()];
        profile.arguments.ignored_resource_groups = vec!["b.com".into()];
        let ignored = ["a.com/x", "b.com/y"].map(|name| profile.ignores(name));
        assert_eq!(ignored, [true, true]);
        assert!(!profile.ignores("a.com/y") && !profile.ignores("cpu"));
    }
}
