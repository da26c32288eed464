use std::sync::Arc;

use k8s_openapi::api::core::v1::NodeCondition;

use super::*;
use crate::machinery::testing::labels;

fn node(zone: &str, number: usize, ready: bool) -> Arc<Node> {
    let mut node = Node::default();
    node.metadata.name = Some(format!("{zone}-{number}"));
    node.metadata.labels = Some(labels(&[(ZONE, zone)]));
    node.status.get_or_insert_default().conditions = Some(vec![NodeCondition {
        type_: "Ready".into(),
        status: if ready { "True" } else { "Unknown" }.into(),
        ..Default::default()
    }]);
    Arc::new(node)
}

fn limits() -> EvictionLimits {
    EvictionLimits {
        rate: 0.1,
        secondary_rate: 0.01,
        large_cluster_size_threshold: 50,
        unhealthy_zone_threshold: 0.55,
    }
}

/// Zones with some nodes, all ready.
fn zones(sizes: &[(&str, usize)], now: Instant) -> Zones {
    let mut zones = Zones::new(limits());
    for (zone, size) in sizes {
        for number in 0..*size {
            let change = Change { old: None, new: Some(node(zone, number, true)) };
            zones.apply(&change, now);
        }
    }
    zones
}

/// Nodes of a zone stop being ready, one after another; each asks for its eviction at once.
fn fail(
    zones: &mut Zones,
    zone: &str,
    which: std::ops::Range<usize>,
    now: Instant,
) -> Vec<Admission> {
    let failing = which.map(|number| {
        let (old, new) = (node(zone, number, true), node(zone, number, false));
        zones.apply(&Change { old: Some(old), new: Some(new.clone()) }, now);
        zones.admit(&new, now)
    });
    failing.collect()
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// How many of the first `count` nodes of the zone get their turn within `time`, when each asks
/// again when it is told to, and all when the zone's rate changes.
fn evicted(zones: &mut Zones, zone: &str, count: usize, start: Instant, time: Duration) -> usize {
    let mut waiting: Vec<_> = (0..count).map(|number| node(zone, number, false)).collect();
    let before = waiting.len();
    for step in 0..=time.as_secs() {
        waiting.retain(|node| zones.admit(node, start + seconds(step)) != Admission::Now);
    }
    before - waiting.len()
}

#[test]
fn the_state_of_a_zone_decides_its_rate() {
    let now = clock::instant();
    // The size of the zone, how many of it fail, and evictions in ten minutes: the first at once.
    for (size, failing, expected) in [
        (10, 1, 1),
        (10, 2, 2),
        (10, 5, 5),
        // 60 %: partial disruption of a small zone stops evictions.
        (10, 6, 0),
        (10, 9, 0),
        // 50 % are not enough.
        (100, 50, 50),
        // Partial disruption of a large zone: one in 100 seconds.
        (100, 60, 7),
        (100, 99, 7),
        // Two of three are tolerated.
        (3, 2, 2),
        // Full disruption of one zone among several: the usual rate.
        (10, 10, 10),
    ] {
        let mut zones = zones(&[("a", size), ("b", 3)], now);
        for number in 0..failing {
            let (old, new) = (node("a", number, true), node("a", number, false));
            zones.apply(&Change { old: Some(old), new: Some(new) }, now);
        }
        let count = evicted(&mut zones, "a", failing, now, seconds(600));
        assert_eq!(count, expected, "{failing} of {size}");
    }
}

#[test]
fn nodes_are_evicted_in_the_order_in_which_they_asked() {
    let now = clock::instant();
    let mut zones = zones(&[("a", 100)], now);
    let answers = fail(&mut zones, "a", 0..4, now);
    let after = |count| Admission::After(seconds(count));
    assert_eq!(answers, [Admission::Now, after(10), after(20), after(30)]);
    // The first in the queue recovers: the second takes its place.
    let (old, new) = (node("a", 1, false), node("a", 1, true));
    zones.apply(&Change { old: Some(old), new: Some(new) }, now);
    let later = now + seconds(10);
    assert_eq!(zones.admit(&node("a", 3, false), later), after(10));
    assert_eq!(zones.admit(&node("a", 2, false), later), Admission::Now);
}

#[test]
fn of_ten_nodes_nine_do_not_fail_at_once() {
    let now = clock::instant();
    let mut zones = zones(&[("", 10)], now);
    let answers = fail(&mut zones, "", 0..9, now);
    let admitted = answers.iter().filter(|answer| **answer == Admission::Now).count();
    assert_eq!(admitted, 1, "{answers:?}");
    assert_eq!(answers[8], Admission::Halted);
    assert_eq!(evicted(&mut zones, "", 9, now, seconds(3600)), 0);
}

#[test]
fn a_cluster_without_a_ready_node_evicts_nothing() {
    let now = clock::instant();
    let mut zones = zones(&[("a", 2), ("b", 2)], now);
    fail(&mut zones, "a", 0..2, now);
    assert!(!zones.all_disrupted());
    let before = fail(&mut zones, "b", 0..1, now);
    assert_eq!(before, [Admission::Now], "each zone has its own turn");
    let (old, new) = (node("b", 1, true), node("b", 1, false));
    assert!(zones.apply(&Change { old: Some(old), new: Some(new.clone()) }, now));
    assert!(zones.all_disrupted());
    assert_eq!(zones.admit(&new, now + seconds(99)), Admission::Halted);
    // A node that is excluded does not end it; one that counts does.
    let mut excluded = (*node("c", 0, true)).clone();
    excluded.metadata.labels.as_mut().unwrap().insert(EXCLUDED.into(), String::new());
    zones.apply(&Change { old: None, new: Some(Arc::new(excluded)) }, now);
    assert!(zones.all_disrupted());
    assert!(zones.apply(&Change { old: None, new: Some(node("c", 1, true)) }, now));
    assert!(!zones.all_disrupted());
}

#[test]
fn counts_follow_nodes_through_zones_and_deletion() {
    let now = clock::instant();
    let mut zones = zones(&[("a", 3)], now);
    let mut moved = (*node("a", 0, false)).clone();
    moved.metadata.labels = Some(labels(&[(ZONE, "b")]));
    zones.apply(&Change { old: Some(node("a", 0, true)), new: Some(Arc::new(moved.clone())) }, now);
    zones.apply(&Change { old: Some(node("a", 1, true)), new: None }, now);
    let counts = |zones: &Zones, name: &str| {
        let zone = &zones.zones[&(String::new(), name.to_owned())];
        (zone.ready, zone.not_ready)
    };
    assert_eq!((counts(&zones, "a"), counts(&zones, "b")), ((1, 0), (0, 1)));
    zones.admit(&moved, now);
    zones.apply(&Change { old: Some(Arc::new(moved)), new: None }, now);
    assert_eq!(zones.zones.len(), 1, "an empty zone is forgotten");
}
