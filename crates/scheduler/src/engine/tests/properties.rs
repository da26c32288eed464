//! What holds for every cluster and every order of pods.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::nominate::Nominations;
use crate::preempt::{CycleState, victims};
use crate::prepare::Prepared;
use crate::volumes::VolumeNeeds;

/// CPU in millicores, and priority.
type Small = (u32, i32);

fn small_pod(name: &str, (cpu, priority): Small) -> Pod {
    let mut pod = pod(name, &format!("{cpu}m"));
    pod.spec.as_mut().unwrap().priority = Some(priority);
    pod
}

fn pods(most: usize) -> impl Strategy<Value = Vec<Small>> {
    prop::collection::vec((1_u32..1500, 0_i32..4), 1..most)
}

proptest! {
    /// Nodes are never overcommitted, and no victim has the priority of its preemptor or more.
    #[test]
    fn nodes_are_never_overcommitted(sizes in prop::collection::vec(1_u32..5, 1..5), wanted in pods(30)) {
        let nodes: Vec<Node> = sizes
            .iter()
            .enumerate()
            .map(|(index, size)| node(&format!("n{index}"), &size.to_string(), &[]))
            .collect();
        let mut engine = engine(&nodes);
        let mut placed: BTreeMap<String, (String, Small)> = BTreeMap::new();
        for (index, pod) in wanted.iter().enumerate() {
            engine.set_pod(&small_pod(&format!("p{index}"), *pod), at(0));
        }
        let size = |name: &str| wanted[name[1..].parse::<usize>().unwrap()];
        let mut now = 0;
        // Pods that are preempted end at once, and do not come back.
        for _ in 0..wanted.len() * 4 {
            now += 20;
            match engine.next(at(now)) {
                Some(Decision::Bind { pod, node, .. }) => {
                    placed.insert(pod.name.clone(), (node.to_string(), size(&pod.name)));
                    let mut bound = small_pod(&pod.name, size(&pod.name));
                    bound.spec.as_mut().unwrap().node_name = Some(node.to_string());
                    engine.set_pod(&bound, at(now));
                }
                Some(Decision::Unschedulable { pod, nomination: Nomination::Preempt(made), .. }) => {
                    for victim in &made.victims {
                        prop_assert!(victim.priority < pod.priority);
                        prop_assert_eq!(&placed[&victim.name].0, &*made.node);
                        placed.remove(&victim.name);
                        engine.remove_pod(&victim.uid, at(now));
                    }
                    engine.preempted(&pod.uid, false, at(now));
                }
                Some(Decision::Unschedulable { .. }) => {}
                None => break,
            }
            for (index, size) in sizes.iter().enumerate() {
                let on_node = placed.values().filter(|(node, _)| *node == format!("n{index}"));
                let used: u32 = on_node.map(|(_, (cpu, _))| cpu).sum();
                prop_assert!(used <= size * 1000, "{} of {} on n{}", used, size * 1000, index);
            }
        }
    }

    /// Without any one of the victims less, the pod would not fit; and the snapshot is as before.
    #[test]
    fn victims_are_all_needed(on_node in pods(12), cpu in 1_u32..4000) {
        let mut engine = engine(&[node("n", "4", &[])]);
        let mut used = 0;
        for (index, pod) in on_node.iter().enumerate() {
            if used + pod.0 <= 4000 {
                used += pod.0;
                let mut bound = small_pod(&format!("p{index}"), *pod);
                bound.spec.as_mut().unwrap().node_name = Some("n".into());
                engine.set_pod(&bound, at(0));
            }
        }
        let incoming = Arc::new(PodInfo::read(&small_pod("x", (cpu, 2))));
        let profile = engine.profiles["default-scheduler"].clone();
        let prepared =
            Prepared::new(&mut engine.snapshot, incoming, profile, VolumeNeeds::default());
        let nominations = Nominations::default();
        let cycle = CycleState { nominations: &nominations, budgets: &engine.budgets, turn: 0 };
        let found = victims(&mut engine.snapshot, &prepared, 0, cycle);
        let column = engine.snapshot.resource("cpu").unwrap();
        prop_assert_eq!(column.requested[0], i64::from(used));
        if let Ok(candidate) = found {
            let freed: i64 = candidate.victims.iter().map(|victim| victim.request("cpu")).sum();
            let free = 4000 - i64::from(used);
            if free < i64::from(cpu) {
                prop_assert!(free + freed >= i64::from(cpu));
                for victim in &candidate.victims {
                    prop_assert!(victim.priority < 2);
                    prop_assert!(free + freed - victim.request("cpu") < i64::from(cpu));
                }
            }
        }
    }
}
