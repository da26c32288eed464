//! How fast nodes may lose their pods.
//!
//! One node that fails is evicted at once. When many fail, the fault is more likely in the network
//! or on this side, and evicting them would make it worse. So nodes are evicted one after another,
//! at a rate that depends on how much of their zone is not ready
//! (`kubernetes.io/docs/concepts/architecture/nodes/#rate-limits-on-eviction`).

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use tokio::time::Instant;

use super::plan::is_ready;
use crate::config::EvictionLimits;
use crate::machinery::cache::{Change, Key};

const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
/// A node with this label does not count.
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";
/// This many nodes that are not ready do not count as a disruption, however few others there are.
const TOLERATED: usize = 2;

/// How much of a zone is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneState {
    Normal,
    PartialDisruption,
    FullDisruption,
}

/// Whether a node may be evicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Admission {
    Now,
    After(Duration),
    /// Not before the state of the zone changes.
    Halted,
}

/// Region and zone.
type ZoneKey = (String, String);

#[derive(Debug, Default)]
struct Zone {
    ready: usize,
    not_ready: usize,
    /// The nodes that wait for their turn, in the order in which they asked.
    waiting: VecDeque<String>,
    /// When the next one may be evicted; `None`: at once.
    next_at: Option<Instant>,
}

/// The zones of the cluster.
#[derive(Debug)]
pub struct Zones {
    limits: EvictionLimits,
    zones: HashMap<ZoneKey, Zone>,
}

impl Zones {
    pub fn new(limits: EvictionLimits) -> Self {
        Self { limits, zones: HashMap::new() }
    }

    /// Counts a changed node. Returns whether the rate of any zone is another than before.
    pub fn apply(&mut self, change: &Change<Node>, now: Instant) -> bool {
        let before = self.rates();
        if let Some(old) = &change.old {
            self.count(old, |count| *count = count.saturating_sub(1));
            let (from, to) = (zone_of(old), change.new.as_deref().map(zone_of));
            let waits = to.as_ref() == Some(&from) && !change.new.as_deref().is_some_and(is_ready);
            if let Some(zone) = self.zones.get_mut(&from).filter(|_| !waits) {
                let name = Key::of(&**old).name;
                zone.waiting.retain(|waiting| *waiting != name);
            }
        }
        if let Some(new) = &change.new {
            self.count(new, |count| *count += 1);
        }
        self.zones.retain(|_, zone| zone.ready + zone.not_ready > 0 || !zone.waiting.is_empty());
        let after = self.rates();
        for (key, rate) in &after {
            let zone = self.zones.get_mut(key).filter(|zone| zone.next_at > Some(now));
            // A turn that is awaited takes as long as the new rate says.
            if let Some(zone) = zone.filter(|_| *rate > 0.0 && before.get(key) != Some(rate)) {
                zone.next_at = Some(now + period(*rate));
            }
        }
        before != after
    }

    /// Whether not a single node is ready: the fault is probably on this side, and evicted pods
    /// could go nowhere.
    pub fn all_disrupted(&self) -> bool {
        let mut counted = self.zones.values().filter(|zone| zone.ready + zone.not_ready > 0);
        counted.all(|zone| self.state(zone) == ZoneState::FullDisruption)
    }

    /// Asks for the turn of a node. A node that got it must ask again only for another eviction.
    pub fn admit(&mut self, node: &Node, now: Instant) -> Admission {
        let key = zone_of(node);
        let rate = self.rates().get(&key).copied().unwrap_or(self.limits.rate);
        let zone = self.zones.entry(key).or_default();
        let name = Key::of(node).name;
        let position = zone.waiting.iter().position(|waiting| *waiting == name);
        let position = position.unwrap_or_else(|| {
            zone.waiting.push_back(name);
            zone.waiting.len() - 1
        });
        if rate <= 0.0 {
            return Admission::Halted;
        }
        let wait = zone.next_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        if position == 0 && wait.is_zero() {
            zone.waiting.pop_front();
            zone.next_at = Some(now + period(rate));
            return Admission::Now;
        }
        let others = u32::try_from(position).unwrap_or(u32::MAX);
        Admission::After(wait.saturating_add(period(rate).saturating_mul(others)))
    }

    fn count(&mut self, node: &Node, change: impl Fn(&mut usize)) {
        if label(node, EXCLUDED).is_some() {
            return;
        }
        let zone = self.zones.entry(zone_of(node)).or_default();
        change(if is_ready(node) { &mut zone.ready } else { &mut zone.not_ready });
    }

    fn state(&self, zone: &Zone) -> ZoneState {
        let size = zone.ready + zone.not_ready;
        let unhealthy = zone.not_ready as f64 / size.max(1) as f64;
        if zone.ready == 0 && zone.not_ready > 0 {
            ZoneState::FullDisruption
        } else if zone.not_ready > TOLERATED && unhealthy >= self.limits.unhealthy_zone_threshold {
            ZoneState::PartialDisruption
        } else {
            ZoneState::Normal
        }
    }

    /// Evictions per second, by zone.
    fn rates(&self) -> HashMap<ZoneKey, f64> {
        let all_disrupted = self.all_disrupted();
        let rate = |zone: &Zone| match self.state(zone) {
            _ if all_disrupted => 0.0,
            ZoneState::Normal | ZoneState::FullDisruption => self.limits.rate,
            ZoneState::PartialDisruption => {
                let large = zone.ready + zone.not_ready > self.limits.large_cluster_size_threshold;
                if large { self.limits.secondary_rate } else { 0.0 }
            }
        };
        self.zones.iter().map(|(key, zone)| (key.clone(), rate(zone))).collect()
    }
}

/// The time between two evictions.
fn period(rate: f64) -> Duration {
    Duration::try_from_secs_f64(1.0 / rate).unwrap_or(Duration::MAX)
}

fn label<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

fn zone_of(node: &Node) -> ZoneKey {
    let text = |key| label(node, key).unwrap_or_default().to_owned();
    (text(REGION), text(ZONE))
}

#[cfg(test)]
mod tests;
