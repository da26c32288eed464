use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::checkpoint;
use super::choice::{Candidates, candidates};
use super::injection::Injection;
use super::state::{Allocation, Device, Resource, State};
use super::topology::{Policy, Scope, Topology};
use super::*;
use rpc::deviceplugin_v1beta1 as pb;

const GPU: &str = "example.com/gpu";

/// Healthy devices, and the NUMA node of each.
fn state(devices: &[(&str, i64)]) -> State {
    let devices = devices
        .iter()
        .map(|(id, node)| ((*id).to_owned(), Device { healthy: true, numa_nodes: vec![*node] }))
        .collect();
    let resource = Resource { devices, ..Default::default() };
    State { resources: [(GPU.to_owned(), resource)].into(), ..Default::default() }
}

fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(ToString::to_string).collect()
}

fn choose(state: &State, wanted: usize, reusable: &[&str], preferred: &[&str]) -> Vec<String> {
    let preferred: Vec<String> = preferred.iter().map(ToString::to_string).collect();
    let candidates = candidates(state, GPU, wanted, &set(reusable), None).unwrap();
    candidates.choose(&preferred).into_iter().collect()
}

#[test]
fn what_is_preferred_reused_or_close_together_is_chosen() {
    let mut state = state(&[("a", 0), ("b", 1), ("c", 1), ("d", 2), ("e", 2), ("f", 2)]);
    for (wanted, reusable, preferred, expected) in [
        (1, &[][..], &[][..], &["a"][..]),
        (2, &[], &[], &["b", "c"]),
        (3, &[], &[], &["d", "e", "f"]),
        (4, &[], &[], &["b", "d", "e", "f"]),
        (2, &[], &["f", "a", "b"], &["a", "f"]),
        (2, &[], &["unknown", "e"], &["b", "e"]),
        (2, &["f"], &[], &["a", "f"]),
        (1, &["d", "e"], &["a"], &["d"]),
    ] {
        let found = choose(&state, wanted, reusable, preferred);
        assert_eq!(found, expected, "{wanted} {reusable:?} {preferred:?}");
    }
    state.insert("p", "c", GPU, &set(&["a", "b"]), Default::default());
    assert_eq!(choose(&state, 1, &[], &["a"]), ["c"], "it is the last of its node");
    let numa = &state.allocations["p"]["c"][GPU].devices;
    assert_eq!(numa, &BTreeMap::from([(0, set(&["a"])), (1, set(&["b"]))]));
}

#[test]
fn a_container_gets_devices_of_its_numa_nodes() {
    let mut state = state(&[("a", 0), ("b", 1), ("c", 1), ("d", 2), ("e", 2), ("f", 2)]);
    state.insert("p", "c", GPU, &set(&["d"]), Default::default());
    let topology = |policy| Topology::new(policy, Scope::Container, &[0, 1, 2]).unwrap();
    let choose = |policy, number: usize, preferred: &[&str]| {
        let wanted = [state.wanted_of(GPU, number, &BTreeSet::new(), None)];
        let nodes = topology(policy).choose(&wanted)?;
        let found = candidates(&state, GPU, number, &BTreeSet::new(), nodes).unwrap();
        let preferred: Vec<String> = preferred.iter().map(ToString::to_string).collect();
        Ok(found.choose(&preferred).into_iter().collect::<Vec<_>>())
    };
    let ids = |ids: &[&str]| Ok(ids.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(choose(Policy::SingleNumaNode, 2, &["a", "e"]), ids(&["b", "c"]));
    assert_eq!(choose(Policy::Restricted, 3, &[]), Err(()), "one of the three is taken");
    assert_eq!(choose(Policy::BestEffort, 3, &["e"]), ids(&["a", "b", "c"]));
    assert_eq!(choose(Policy::None, 3, &["e"]), ids(&["b", "c", "e"]));
}

#[test]
fn reasons_for_a_failed_choice_are_upstreams() {
    let mut state = state(&[("a", 0), ("b", 0)]);
    let fails = |state: &State, resource: &str, wanted: usize| {
        candidates(state, resource, wanted, &BTreeSet::new(), None).unwrap_err().to_string()
    };
    assert_eq!(
        fails(&state, "example.com/other", 1),
        "cannot allocate unregistered device example.com/other"
    );
    state.insert("p", "c", GPU, &set(&["a"]), Default::default());
    assert_eq!(
        fails(&state, GPU, 2),
        "requested number of devices unavailable for example.com/gpu. Requested: 2, Available: 1"
    );
    assert!(state.has("p", "c", GPU, 1).unwrap() && !state.has("p", "d", GPU, 1).unwrap());
    assert_eq!(
        state.has("p", "c", GPU, 2).unwrap_err().to_string(),
        "pod \"p\" container \"c\" changed request for resource \"example.com/gpu\" from 1 to 2"
    );
    state.resources.get_mut(GPU).unwrap().devices.values_mut().for_each(|one| one.healthy = false);
    assert_eq!(
        fails(&state, GPU, 1),
        "no healthy devices present; cannot allocate unhealthy devices example.com/gpu"
    );
}

#[test]
fn offers_end_some_time_after_their_plugin() {
    let now = clock::monotonic();
    let mut state = state(&[("a", 0), ("b", 0)]);
    let offer = |state: &State, after: u64| {
        let found = state.offers(now + Duration::from_secs(after), STOP_GRACE)[GPU];
        (found.capacity, found.allocatable)
    };
    state.resources.get_mut(GPU).unwrap().devices.get_mut("b").unwrap().healthy = false;
    assert_eq!(offer(&state, 1000), (2, 1));
    let gone = state.resources.get_mut(GPU).unwrap();
    gone.devices.values_mut().for_each(|one| one.healthy = false);
    gone.stopped_at = Some(now);
    assert_eq!((offer(&state, 300), offer(&state, 301)), ((2, 0), (0, 0)));
    let restored = State::restored((Default::default(), set(&[GPU])), now);
    assert_eq!(offer(&restored, 1), (0, 0));
}

#[test]
fn health_is_reported_for_each_container() {
    let mut state = state(&[("a", 0), ("b", 0)]);
    state.insert("p", "c", GPU, &set(&["a", "b", "gone"]), Default::default());
    state.resources.get_mut(GPU).unwrap().devices.get_mut("b").unwrap().healthy = false;
    let health = state.health("p");
    let devices = health["c"][0].resources.iter().flatten();
    let found: Vec<(&str, &str)> =
        devices.map(|one| (one.resource_id.as_str(), one.health.as_deref().unwrap())).collect();
    assert_eq!(found, [("a", "Healthy"), ("b", "Unhealthy"), ("gone", "Unknown")]);
    assert!(state.health("other").is_empty());
}

#[test]
fn a_checkpoint_restores_what_was_allocated() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(checkpoint::read(directory.path()).unwrap(), Default::default());
    let mut state = state(&[("a", 0), ("b", 1)]);
    let response = pb::ContainerAllocateResponse {
        envs: [("GPUS".to_owned(), "a,b".to_owned())].into(),
        ..Default::default()
    };
    state.insert("p", "c", GPU, &set(&["a", "b"]), response);
    checkpoint::write(directory.path(), &state).unwrap();
    let (allocations, resources) = checkpoint::read(directory.path()).unwrap();
    assert_eq!((&allocations, resources), (&state.allocations, set(&[GPU])));
    let text = std::fs::read_to_string(directory.path().join(checkpoint::NAME)).unwrap();
    assert!(text.contains(r#""PodUID":"p","ContainerName":"c","ResourceName":"example.com/gpu","DeviceIDs":{"0":["a"],"1":["b"]}"#), "{text}");
    std::fs::write(directory.path().join(checkpoint::NAME), "{").unwrap();
    assert!(matches!(checkpoint::read(directory.path()), Err(DeviceError::Checkpoint { .. })));
}

#[test]
fn responses_of_several_plugins_are_merged() {
    let allocation = |name: &str, cdi: bool| Allocation {
        response: pb::ContainerAllocateResponse {
            envs: [("BOTH".to_owned(), name.to_owned()), (name.to_owned(), "1".to_owned())].into(),
            devices: vec![pb::DeviceSpec {
                host_path: format!("/dev/{name}"),
                container_path: "/dev/it".into(),
                permissions: "rw".into(),
            }],
            cdi_devices: cdi
                .then(|| pb::CdiDevice { name: "example.com/gpu=0".into() })
                .into_iter()
                .collect(),
            ..Default::default()
        },
        ..Default::default()
    };
    let both =
        [("x/a".to_owned(), allocation("A", false)), ("x/b".to_owned(), allocation("B", false))];
    let injection = Injection::of(&both.into()).unwrap();
    let env: Vec<(&str, &str)> =
        injection.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(env, [("A", "1"), ("BOTH", "A"), ("B", "1")]);
    assert_eq!(injection.devices.len(), 1);
    let cdi = Injection::of(&[("x/a".to_owned(), allocation("A", true))].into());
    assert!(cdi.unwrap_err().to_string().contains("CDI device \"example.com/gpu=0\""));
}

proptest! {
    /// Whatever a plugin prefers, nobody gets what another has, and each gets what it wants.
    #[test]
    fn no_device_is_given_twice(
        wants in proptest::collection::vec(1_usize..4, 1..8),
        preferred in proptest::collection::vec(0_usize..20, 0..6),
    ) {
        let ids: Vec<(String, i64)> =
            (0_i64..12).map(|number| (format!("d{number}"), number / 4)).collect();
        let ids: Vec<(&str, i64)> = ids.iter().map(|(id, node)| (id.as_str(), *node)).collect();
        let mut state = state(&ids);
        let preferred: Vec<String> = preferred.iter().map(|one| format!("d{one}")).collect();
        let mut left = 12;
        for (number, wanted) in wants.into_iter().enumerate() {
            let found: Result<Candidates, _> = candidates(&state, GPU, wanted, &BTreeSet::new(), None);
            prop_assert_eq!(found.is_ok(), wanted <= left);
            let Ok(found) = found else { continue };
            let chosen = found.choose(&preferred);
            prop_assert_eq!(chosen.len(), wanted);
            prop_assert!(chosen.is_disjoint(&state.in_use(GPU)));
            state.insert(&format!("p{number}"), "c", GPU, &chosen, Default::default());
            left -= wanted;
        }
    }
}
