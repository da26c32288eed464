//! Plugins against upstream's documented behaviour, through the engine.

use super::*;
use crate::plugin::Plugin;
use crate::profile::Strategy;

fn profile(change: impl FnOnce(&mut Profile)) -> Profile {
    let mut profile = Profile::new("default-scheduler");
    change(&mut profile);
    profile
}

fn engine_with(profile: Profile, nodes: &[Node]) -> Engine {
    let mut engine = Engine::new(vec![profile], Backoff::default());
    for node in nodes {
        engine.set_node(node, at(0));
    }
    engine
}

/// Only this plugin scores.
fn only(plugin: Plugin) -> Profile {
    profile(|profile| profile.scores = vec![(plugin, 1)])
}

/// The scores of the last decision about the pod, by node.
fn scores(engine: &mut Engine, pod: &str) -> Vec<(String, i64)> {
    let explained = engine.explain(&format!("uid-{pod}"), at(0));
    let mut scores: Vec<_> =
        explained[0].scores.iter().map(|score| (score.node.clone(), score.total)).collect();
    scores.sort();
    scores
}

fn of_nodes(scores: &[(&str, i64)]) -> Vec<(String, i64)> {
    scores.iter().map(|(node, score)| ((*node).to_owned(), *score)).collect()
}

#[test]
fn most_allocated_packs_and_least_allocated_spreads() {
    let nodes = [node("a", "4", &[]), node("b", "4", &[])];
    for (strategy, expected) in [
        (Strategy::LeastAllocated, [("a", 25), ("b", 75)]),
        (Strategy::MostAllocated, [("a", 75), ("b", 25)]),
        (
            Strategy::RequestedToCapacityRatio(vec![(0, 0), (50, 100), (100, 0)]),
            [("a", 50), ("b", 50)],
        ),
    ] {
        let mut own = only(Plugin::NodeResourcesFit);
        own.arguments.strategy = strategy;
        own.arguments.fit_resources = vec![("cpu".into(), 1)];
        let mut engine = engine_with(own, &nodes);
        let mut load = pod("load", "2");
        load.spec.as_mut().unwrap().node_name = Some("a".into());
        engine.set_pod(&load, at(0));
        decide(&mut engine, &pod("x", "1"));
        assert_eq!(scores(&mut engine, "x"), of_nodes(&expected));
    }
}

#[test]
fn balanced_allocation_prefers_even_shares_and_leaves_pods_without_requests_alone() {
    let mut engine = engine_with(
        only(Plugin::NodeResourcesBalancedAllocation),
        &[node("a", "4", &[]), node("b", "16", &[])],
    );
    let request = |cpu: &str, memory: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]});
    // Half of both on a; an eighth of the CPU and half of the memory on b.
    assert_eq!(decide(&mut engine, &pod_with("x", request("2", "4Gi"))), "a");
    assert_eq!(scores(&mut engine, "x"), of_nodes(&[("a", 100), ("b", 81)]));
    decide(&mut engine, &pod_with("none", json!({})));
    assert_eq!(scores(&mut engine, "none"), of_nodes(&[("a", 0), ("b", 0)]));
}

#[test]
fn images_that_are_there_attract() {
    let mut with_image = node("a", "4", &[]);
    let images =
        json!({"status": {"images": [{"names": ["r.io/big:1"], "sizeBytes": 1_000 << 20}]}});
    let read: Node = api::Kind::decode(images.to_string().as_bytes()).unwrap();
    with_image.status.as_mut().unwrap().images = read.status.unwrap().images;
    let mut engine = engine_with(only(Plugin::ImageLocality), &[with_image, node("b", "4", &[])]);
    let wants = |image: &str| json!({"containers": [{"name": "c", "image": image}]});
    // Half of the nodes have it, so that half of its size counts.
    decide(&mut engine, &pod_with("x", wants("r.io/big:1")));
    assert_eq!(scores(&mut engine, "x"), of_nodes(&[("a", 48), ("b", 0)]));
    decide(&mut engine, &pod_with("y", wants("r.io/big")));
    assert_eq!(scores(&mut engine, "y"), of_nodes(&[("a", 0), ("b", 0)]), "another tag");
}

#[test]
fn preferred_nodes_and_untolerated_taints_are_scored() {
    let mut tainted = node("a", "4", &[("disk", "ssd")]);
    tainted.spec.get_or_insert_default().taints = Some(vec![Taint {
        key: "slow".into(),
        effect: "PreferNoSchedule".into(),
        ..Default::default()
    }]);
    let nodes = [tainted, node("b", "4", &[("disk", "hdd"), ("new", "yes")])];
    let mut taints = engine_with(only(Plugin::TaintToleration), &nodes);
    decide(&mut taints, &pod_with("x", json!({})));
    assert_eq!(scores(&mut taints, "x"), of_nodes(&[("a", 0), ("b", 100)]));
    let tolerant = json!({"tolerations": [{"key": "slow", "operator": "Exists"}]});
    decide(&mut taints, &pod_with("y", tolerant));
    assert_eq!(scores(&mut taints, "y"), of_nodes(&[("a", 100), ("b", 100)]));

    let mut affinity = engine_with(only(Plugin::NodeAffinity), &nodes);
    let term = |weight: i32, key: &str, value: &str| json!({"weight": weight, "preference": {"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}});
    let preferred = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution":
        [term(40, "disk", "ssd"), term(70, "disk", "hdd"), term(10, "new", "yes")]}}});
    decide(&mut affinity, &pod_with("x", preferred));
    assert_eq!(scores(&mut affinity, "x"), of_nodes(&[("a", 50), ("b", 100)]));
}

#[test]
fn preferences_among_pods_work_in_both_directions() {
    let nodes = [node("a", "4", &[("host", "a")]), node("b", "4", &[("host", "b")])];
    let mut engine = engine_with(only(Plugin::InterPodAffinity), &nodes);
    let preferred = |weight: i32, app: &str| json!([{"weight": weight, "podAffinityTerm": {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "host"}}]);
    let near = |app: &str| json!({"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred(10, app)}});
    let far = |app: &str| json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred(10, app)}});
    engine.set_pod(&bound("db", "b", json!({"app": "db"})), at(0));
    assert_eq!(decide(&mut engine, &pod_with("web-1", json!({"affinity": near("db")}))), "b");
    assert_eq!(decide(&mut engine, &pod_with("web-2", json!({"affinity": far("db")}))), "a");
    // A placed pod's preference.
    engine.set_pod(&pod_with("fan", json!({"nodeName": "a", "affinity": near("star")})), at(0));
    assert_eq!(decide(&mut engine, &pod_with("star-1", json!({}))), "a");
    // A placed pod's requirement counts, with the weight of the arguments.
    let required = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        [{"labelSelector": {"matchLabels": {"app": "idol"}}, "topologyKey": "host"}]}});
    engine.set_pod(&pod_with("follower", json!({"nodeName": "b", "affinity": required})), at(0));
    assert_eq!(decide(&mut engine, &pod_with("idol-1", json!({}))), "b");
}

#[test]
fn all_affinity_terms_must_be_met_by_one_pod() {
    let nodes = [node("a", "4", &[("host", "a")]), node("b", "4", &[("host", "b")])];
    let mut engine = engine(&nodes);
    engine.set_pod(&bound("x", "a", json!({"app": "db", "tier": "1"})), at(0));
    engine.set_pod(&bound("y", "b", json!({"app": "db"})), at(0));
    engine.set_pod(&bound("z", "b", json!({"tier": "1"})), at(0));
    let term = |key: &str, value: &str| json!({"labelSelector": {"matchLabels": {key: value}}, "topologyKey": "host"});
    let both = json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term("app", "db"), term("tier", "1")]}}});
    assert_eq!(decide(&mut engine, &pod_with("web", both)), "a");
}

#[test]
fn namespaces_are_selected_by_label() {
    let nodes = [node("a", "4", &[("host", "a")]), node("b", "4", &[("host", "b")])];
    let mut engine = engine(&nodes);
    let mut other = bound("db", "b", json!({"app": "db"}));
    other.metadata.namespace = Some("other".into());
    engine.set_pod(&other, at(0));
    let term = json!([{"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": "host",
        "namespaceSelector": {"matchLabels": {"team": "x"}}}]);
    let near = json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}});
    assert!(
        decide(&mut engine, &pod_with("web", near)).contains("didn't match pod affinity rules")
    );
    engine.set_namespace("other", [("team".to_owned(), "x".to_owned())].into(), at(5));
    assert!(matches!(engine.next(at(5)), Some(Decision::Bind { node, .. }) if *node == *"b"));
}

#[test]
fn spread_constraints_consider_policies_and_the_number_of_domains() {
    let mut tainted = node("c", "4", &[("zone", "3")]);
    tainted.spec.get_or_insert_default().taints =
        Some(vec![Taint { key: "t".into(), effect: "NoSchedule".into(), ..Default::default() }]);
    let nodes = [node("a", "4", &[("zone", "1")]), node("b", "4", &[("zone", "2")]), tainted];
    let constraint = |more: serde_json::Value| {
        let mut all = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "web"}}});
        for (key, value) in more.as_object().unwrap() {
            all[key] = value.clone();
        }
        json!({"topologySpreadConstraints": [all]})
    };
    for (more, fits) in [
        // Zone 3 is empty and counts, though the pod cannot go there.
        (json!({}), false),
        (json!({"nodeTaintsPolicy": "Honor"}), true),
        // Three domains are wanted and two honoured: the minimum is taken to be zero.
        (json!({"nodeTaintsPolicy": "Honor", "minDomains": 3}), false),
    ] {
        let mut engine = engine(&nodes);
        engine.set_pod(&bound("web-a", "a", json!({"app": "web"})), at(0));
        engine.set_pod(&bound("web-b", "b", json!({"app": "web"})), at(0));
        let outcome = decide(&mut engine, &pod_with("web-c", constraint(more.clone())));
        assert_eq!(outcome.len() == 1, fits, "{more}: {outcome}");
    }
    // Nodes that the pod's selector excludes do not count, unless the policy says so.
    for (more, fits) in [(json!({}), true), (json!({"nodeAffinityPolicy": "Ignore"}), false)] {
        let mut engine = engine(&nodes[..2]);
        engine.set_pod(&bound("web-a", "a", json!({"app": "web"})), at(0));
        let mut spec = constraint(more.clone());
        spec["nodeSelector"] = json!({"zone": "1"});
        let outcome = decide(&mut engine, &pod_with("web-c", spec));
        assert_eq!(outcome == "a", fits, "{more}: {outcome}");
    }
}

#[test]
fn pods_that_name_their_node_see_no_other() {
    let nodes = ["a", "b", "c"].map(|name| node(name, "1", &[]));
    let mut engine = engine(&nodes);
    let named = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}]}}}});
    assert_eq!(
        decide(&mut engine, &pod_with("daemon", named)),
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't satisfy plugin(s) [NodeAffinity]. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    );
}

#[test]
fn disks_and_claims_that_cannot_be_shared() {
    let mut engine = engine(&[node("a", "4", &[])]);
    let disk = |read_only: bool| json!({"volumes": [{"name": "v", "gcePersistentDisk": {"pdName": "d", "readOnly": read_only}}]});
    assert_eq!(decide(&mut engine, &pod_with("r1", disk(true))), "a");
    assert_eq!(decide(&mut engine, &pod_with("r2", disk(true))), "a");
    assert!(
        decide(&mut engine, &pod_with("w", disk(false)))
            .contains("1 node(s) had no available disk")
    );

    let claim = json!({"metadata": {"name": "one", "namespace": "default"},
        "spec": {"volumeName": "pv", "accessModes": ["ReadWriteOncePod"]}, "status": {"phase": "Bound"}});
    engine.set_claim(&api::Kind::decode(claim.to_string().as_bytes()).unwrap(), at(0));
    engine
        .set_volume(&api::Kind::decode(br#"{"metadata":{"name":"pv"},"spec":{}}"#).unwrap(), at(0));
    let uses = json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "one"}}]});
    assert_eq!(decide(&mut engine, &pod_with("c1", uses.clone())), "a");
    assert!(decide(&mut engine, &pod_with("c2", uses)).starts_with(
        "0/1 nodes are available: 1 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode."
    ));
}

#[test]
fn volumes_stay_in_their_zone() {
    let zone = "topology.kubernetes.io/zone";
    let nodes = [node("a", "4", &[(zone, "1")]), node("b", "4", &[(zone, "2")])];
    let mut engine = engine(&nodes);
    let claim = json!({"metadata": {"name": "data", "namespace": "default"}, "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}});
    let volume = |zones: &str| json!({"metadata": {"name": "pv", "labels": {"failure-domain.beta.kubernetes.io/zone": zones}}, "spec": {}});
    engine.set_claim(&api::Kind::decode(claim.to_string().as_bytes()).unwrap(), at(0));
    engine.set_volume(&api::Kind::decode(volume("3").to_string().as_bytes()).unwrap(), at(0));
    let uses = json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]});
    assert!(
        decide(&mut engine, &pod_with("x", uses))
            .starts_with("0/2 nodes are available: 2 node(s) had no available volume zone.")
    );
    engine.set_volume(&api::Kind::decode(volume("2__3").to_string().as_bytes()).unwrap(), at(5));
    assert!(matches!(engine.next(at(5)), Some(Decision::Bind { node, .. }) if *node == *"b"));
}

#[test]
fn added_affinity_and_ignored_resources() {
    let own = profile(|profile| {
        profile.arguments.ignored_resources = vec!["example.com/x".into()];
        let term = crate::pod::NodeTerm {
            labels: vec![api::labels::Requirement::In("pool".into(), vec!["a".into()])],
            names: Vec::new(),
        };
        profile.arguments.added_terms = Some(vec![term]);
    });
    let mut engine = engine_with(own, &[node("a", "4", &[("pool", "a")]), node("b", "4", &[])]);
    let extended =
        json!({"containers": [{"name": "c", "resources": {"limits": {"example.com/x": "1"}}}]});
    assert_eq!(decide(&mut engine, &pod_with("x", extended)), "a");
    assert!(decide(&mut engine, &pod("y", "5")).starts_with(
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match scheduler-enforced node affinity."
    ));
}

#[test]
fn overhead_and_resources_of_the_whole_pod_count() {
    let mut engine = engine(&[node("n", "4", &[])]);
    let heavy = json!({"overhead": {"cpu": "3"}, "containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]});
    assert!(decide(&mut engine, &pod_with("a", heavy)).contains("Insufficient cpu"));
    let whole = json!({"resources": {"requests": {"cpu": "5"}}, "containers": [{"name": "c"}]});
    assert!(decide(&mut engine, &pod_with("b", whole)).contains("Insufficient cpu"));
}

#[test]
fn pods_of_other_schedulers_and_gated_pods_are_left_alone() {
    let profiles = ["default-scheduler", "second"].map(Profile::new);
    let mut engine = Engine::new(profiles.into(), Backoff::default());
    engine.set_node(&node("n", "4", &[]), at(0));
    assert_eq!(decide(&mut engine, &pod_with("a", json!({"schedulerName": "second"}))), "n");
    assert_eq!(decide(&mut engine, &pod_with("b", json!({"schedulerName": "third"}))), "nothing");
    let mut gated = pod_with("c", json!({"schedulingGates": [{"name": "wait"}]}));
    assert_eq!(decide(&mut engine, &gated), "nothing");
    gated.spec.as_mut().unwrap().scheduling_gates = None;
    assert_eq!(decide(&mut engine, &gated), "n");
}

#[test]
fn a_change_wakes_only_the_pods_that_it_can_help() {
    let mut cordoned = node("a", "1", &[]);
    cordoned.spec.get_or_insert_default().unschedulable = Some(true);
    let mut engine = engine(&[cordoned.clone()]);
    decide(&mut engine, &pod("waits", "500m"));
    let wakes = |engine: &mut Engine, second: i64| engine.next(at(second)).is_some();
    engine.set_pod(&bound("other", "a", json!({})), at(10));
    engine.remove_pod("uid-other", at(11));
    assert!(!wakes(&mut engine, 12), "the node is cordoned, whatever runs there");
    cordoned.metadata.labels = Some([("x".to_owned(), "y".to_owned())].into());
    engine.set_node(&cordoned, at(13));
    assert!(!wakes(&mut engine, 14), "a label does not help");
    cordoned.spec.as_mut().unwrap().unschedulable = None;
    engine.set_node(&cordoned, at(15));
    assert!(wakes(&mut engine, 16));

    decide(&mut engine, &pod("large", "2"));
    engine.set_node(&node("b", "1", &[]), at(20));
    assert!(!wakes(&mut engine, 21), "the new node is too small");
    engine.set_node(&node("c", "4", &[]), at(22));
    assert!(wakes(&mut engine, 23));
}

#[test]
fn decisions_are_explained_and_what_would_be_decided_now() {
    let mut engine = engine(&[node("a", "1", &[]), node("b", "2", &[])]);
    decide(&mut engine, &pod("x", "1500m"));
    let explained = engine.explain("uid-x", at(1));
    let [decision] = &explained[..] else { panic!("{explained:?}") };
    assert_eq!((decision.node.as_str(), decision.feasible, decision.nodes), ("b", 1, 2));
    assert_eq!(decision.rejections[0].reason, "Insufficient cpu");
    assert_eq!(decision.rejections[0].nodes, ["a"]);
    assert_eq!(decision.scores[0].node, "b");

    decide(&mut engine, &pod("y", "1500m"));
    let explained = engine.explain("uid-y", at(1));
    assert_eq!(explained.iter().map(|one| one.hypothetical).collect::<Vec<_>>(), [false, true]);
    assert!(explained[0].message.starts_with("0/2 nodes are available: 2 Insufficient cpu."));
    engine.remove_pod("uid-x", at(2));
    let now = engine.explain("uid-y", at(2));
    assert!(now.iter().any(|one| one.hypothetical && one.node == "b"), "{now:?}");
    assert!(engine.explain("uid-unknown", at(2)).is_empty());
}

#[test]
fn drivers_limit_the_volumes_of_a_node() {
    let mut engine = engine(&[node("a", "4", &[]), node("b", "4", &[])]);
    let read = |object: serde_json::Value| object.to_string().into_bytes();
    for name in ["v1", "v2", "v3", "v4"] {
        let claim = json!({"metadata": {"name": name, "namespace": "default"},
            "spec": {"volumeName": name}, "status": {"phase": "Bound"}});
        engine.set_claim(&api::Kind::decode(&read(claim)).unwrap(), at(0));
        let volume = json!({"metadata": {"name": name},
            "spec": {"csi": {"driver": "csi.example.com", "volumeHandle": name}}});
        engine.set_volume(&api::Kind::decode(&read(volume)).unwrap(), at(0));
    }
    for node in ["a", "b"] {
        let driver =
            json!({"name": "csi.example.com", "nodeID": node, "allocatable": {"count": 2}});
        let node = json!({"metadata": {"name": node}, "spec": {"drivers": [driver]}});
        engine.set_node_limits(&api::Kind::decode(&read(node)).unwrap(), at(0));
    }
    let with = |claims: &[&str], more: serde_json::Value| {
        let volumes = claims
            .iter()
            .map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
        let mut spec = json!({"volumes": volumes.collect::<Vec<_>>()});
        json_merge(&mut spec, &more);
        spec
    };
    engine.set_pod(&pod_with("x", with(&["v1", "v2"], json!({"nodeName": "a"}))), at(0));
    engine.set_pod(&pod_with("y", with(&["v3"], json!({"nodeName": "b"}))), at(0));
    assert_eq!(decide(&mut engine, &pod_with("one", with(&["v4"], json!({})))), "b");
    let again = pod_with("again", with(&["v1"], json!({"nodeSelector": null})));
    assert_eq!(decide(&mut engine, &again), "a", "its volume is there");
    const FULL: &str = "0/2 nodes are available: 2 node(s) exceed max volume count.";
    let message = decide(&mut engine, &pod_with("many", with(&["v1", "v4"], json!({}))));
    assert!(message.starts_with(FULL), "{message}");
    // What is attached to b and no pod uses takes the last place there; what pods use counts once.
    for (attachment, volume) in [("used", "v3"), ("left", "v2")] {
        let spec = json!({"attacher": "csi.example.com", "nodeName": "b", "source": {"persistentVolumeName": volume}});
        let attachment = json!({"metadata": {"name": attachment}, "spec": spec});
        engine.snapshot.storage.set_attachment(&api::Kind::decode(&read(attachment)).unwrap());
    }
    engine.remove_pod("uid-many", at(0));
    engine.remove_pod("uid-one", at(0));
    let one = || pod_with("two", with(&["v4"], json!({})));
    let message = decide(&mut engine, &one());
    assert!(message.starts_with(FULL), "{message}");
    engine.remove_attachment("left", at(0));
    engine.remove_pod("uid-two", at(0));
    assert_eq!(decide(&mut engine, &one()), "b");
}

#[test]
fn a_pod_with_claims_to_devices_waits() {
    let mut engine = engine(&[node("a", "4", &[])]);
    let claims = json!({"resourceClaims": [{"name": "gpu", "resourceClaimName": "gpu"}]});
    let message = decide(&mut engine, &pod_with("devices", claims));
    assert!(
        message.starts_with("0/1 nodes are available: 1 cannot allocate all claims."),
        "{message}"
    );
}

fn json_merge(spec: &mut serde_json::Value, more: &serde_json::Value) {
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
}

#[test]
fn pods_without_a_set_are_spread_by_their_services() {
    let host = |name: &str| node(name, "8", &[("kubernetes.io/hostname", name)]);
    let spread_only = || only(Plugin::PodTopologySpread);
    let service = |name: &str, selector: serde_json::Value| {
        let service = json!({"metadata": {"name": name, "namespace": "default"},
            "spec": {"selector": selector}});
        api::Kind::decode(service.to_string().as_bytes()).unwrap()
    };
    let labelled = |name: &str, labels: serde_json::Value| {
        let mut pod = pod_with(name, json!({}));
        pod.metadata.labels = serde_json::from_value(labels).unwrap();
        pod
    };
    let mut engine = engine_with(spread_only(), &[host("a"), host("b")]);
    let services = &mut engine.snapshot.services;
    services.set(&service("web", json!({"app": "web"})));
    services.set(&service("stable", json!({"track": "stable"})));
    services.set(&service("all", json!({})));
    for (name, labels) in [
        ("w1", json!({"app": "web", "track": "stable"})),
        ("w2", json!({"app": "web", "track": "canary"})),
        ("w3", json!({"app": "web", "track": "canary"})),
    ] {
        let mut pod = labelled(name, labels);
        let node = if name == "w1" { "a" } else { "b" };
        pod.spec.as_mut().unwrap().node_name = Some(node.into());
        engine.set_pod(&pod, at(0));
    }
    // Of one Service: b has two of its pods, a has one. Of both: only w1 counts.
    let web = labelled("x", json!({"app": "web"}));
    assert_eq!(decide(&mut engine, &web), "a");
    engine.remove_pod("uid-x", at(0));
    let both = labelled("y", json!({"app": "web", "track": "stable"}));
    assert_eq!(decide(&mut engine, &both), "b");
    engine.snapshot.services.remove("default", "web");
    let selector = |engine: &Engine, pod: &Pod| {
        engine.snapshot.services.selector(&crate::pod::PodInfo::read(pod))
    };
    assert!(selector(&engine, &web).is_none());
    assert!(selector(&engine, &both).is_some());
}
