use api::Kind;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use proptest::prelude::*;

use super::graph::{Affected, FOREGROUND, ORPHAN};
use super::*;

fn owner(uid: &str) -> Owner {
    Owner {
        api_version: "v1".into(),
        kind: "ConfigMap".into(),
        name: uid.into(),
        uid: uid.into(),
        controller: None,
        block_owner_deletion: Some(true),
    }
}

fn node(uid: &str, owners: &[&str]) -> Node {
    Node {
        row: ConfigMap::ROW.into(),
        key: Arc::new(Key::new("ns", uid)),
        uid: uid.into(),
        owners: owners.iter().map(|uid| owner(uid)).collect(),
        finalizers: Vec::new(),
        deleting: false,
    }
}

fn ending(uid: &str, owners: &[&str], finalizer: &str) -> Node {
    Node { finalizers: vec![finalizer.into()], deleting: true, ..node(uid, owners) }
}

fn apply(graph: &mut Graph, node: Node) -> Affected {
    let before = graph.get(&node.uid).cloned();
    graph.change(before.as_ref(), Some(&Arc::new(node)))
}

fn judged(owners: &[(&str, OwnerState)], dependents: Vec<Dependent>) -> Plan {
    plan(&Observed {
        node: node("x", &[]),
        owners: owners.iter().map(|(uid, state)| (owner(uid), *state)).collect(),
        dependents,
    })
}

#[test]
fn owners_decide() {
    use OwnerState::{Absent, Present, Unknown, WaitsForDependents};
    let delete = Plan::Delete(Policy::Background);
    assert_eq!(judged(&[], vec![]), Plan::Nothing);
    assert_eq!(judged(&[("a", Present)], vec![]), Plan::Nothing);
    assert_eq!(judged(&[("a", Unknown)], vec![]), Plan::Nothing);
    assert_eq!(judged(&[("a", Absent)], vec![]), delete);
    assert_eq!(judged(&[("a", WaitsForDependents)], vec![]), delete);
    assert_eq!(
        judged(&[("a", Absent), ("b", Present)], vec![]),
        Plan::KeepOwners(vec![owner("b")])
    );
    assert_eq!(
        judged(&[("a", WaitsForDependents), ("b", Present)], vec![]),
        Plan::KeepOwners(vec![owner("b")])
    );
    let child = Dependent { node: node("c", &["x"]), blocks: true };
    assert_eq!(judged(&[("a", WaitsForDependents)], vec![child]), Plan::Delete(Policy::Foreground));
    let cycle = Dependent { node: ending("c", &["x"], FOREGROUND), blocks: true };
    let Plan::UnblockAndDelete(owners) = judged(&[("c", WaitsForDependents)], vec![cycle]) else {
        panic!("must break the cycle")
    };
    assert_eq!(owners[0].block_owner_deletion, Some(false));
}

#[test]
fn deletions_complete_when_dependents_are_gone() {
    let with = |node: Node, dependents: Vec<(Node, bool)>| {
        plan(&Observed {
            node,
            owners: vec![],
            dependents: dependents
                .into_iter()
                .map(|(node, blocks)| Dependent { node, blocks })
                .collect(),
        })
    };
    let foreground = ending("x", &[], FOREGROUND);
    assert_eq!(with(foreground.clone(), vec![]), Plan::FinishForeground);
    assert_eq!(with(foreground.clone(), vec![(node("c", &["x"]), false)]), Plan::FinishForeground);
    assert_eq!(
        with(foreground.clone(), vec![(node("c", &["x"]), true)]),
        Plan::CollectDependents(vec!["c".into()])
    );
    assert_eq!(with(foreground, vec![(ending("c", &["x"], "other"), true)]), Plan::Nothing);
    let orphaning = ending("x", &[], ORPHAN);
    let child = node("c", &["x"]);
    assert_eq!(with(orphaning, vec![(child.clone(), true)]), Plan::Orphan(vec![child]));
    assert_eq!(with(ending("x", &["gone"], "other"), vec![]), Plan::Nothing);
}

#[test]
fn a_change_affects_owners_and_dependents() {
    let mut graph = Graph::default();
    assert_eq!(apply(&mut graph, node("a", &[])), Affected::default());
    assert_eq!(apply(&mut graph, node("b", &["a"])), Affected::default());
    assert_eq!(apply(&mut graph, node("b", &["a"])), Affected::default());
    assert_eq!(
        apply(&mut graph, node("c", &["missing"])).examine,
        ["c"],
        "its owner is not in the graph"
    );
    // Deleting an owner affects its dependents; deleting a dependent affects an owner that waits.
    assert_eq!(apply(&mut graph, ending("a", &[], FOREGROUND)).examine, ["a", "b"]);
    let affected = graph.remove(ConfigMap::ROW, "b");
    assert_eq!(affected.examine, ["a"]);
    assert_eq!(affected.emptied, None);
    assert_eq!(affected.shrunk, Some("ns".into()));
    apply(&mut graph, node("d", &["a"]));
    assert_eq!(graph.remove(ConfigMap::ROW, "a").examine, ["d"]);
    graph.remove(ConfigMap::ROW, "c");
    assert_eq!(graph.remove(ConfigMap::ROW, "d").emptied, Some("ns".into()));
    assert!(graph.count("ns", ConfigMap::ROW) == 0);
}

#[test]
fn a_reference_with_the_uid_of_another_kind_is_examined() {
    let mut graph = Graph::default();
    apply(&mut graph, Node { row: Secret::ROW.into(), ..node("a", &[]) });
    assert_eq!(apply(&mut graph, node("b", &["a"])).examine, ["b"]);
}

#[test]
fn an_object_created_again_replaces_its_predecessor() {
    let mut graph = Graph::default();
    apply(&mut graph, node("a", &[]));
    apply(&mut graph, node("child", &["a"]));
    let again = Arc::new(Node { uid: "a2".into(), ..node("a", &[]) });
    assert_eq!(graph.change(Some(&node("a", &[])), Some(&again)).examine, ["child"]);
    assert!(graph.get("a").is_none());
}

#[test]
fn metadata_decodes() {
    let json = br#"{"kind":"PartialObjectMetadata","metadata":{"name":"n","uid":"u","finalizers":["f"],
        "deletionTimestamp":"2026-01-01T00:00:00Z","ownerReferences":[{"apiVersion":"v1","kind":"K","name":"o","uid":"p"}]},"data":{"x":"y"}}"#;
    let node = Node::decode(&ConfigMap::ROW.into(), json).unwrap();
    assert!(node.deleting && node.has_finalizer("f"));
    assert_eq!(node.owners[0].uid, "p");
    for (kind, decodes) in [(r#""ConfigMap""#, true), ("\"\"", true), (r#""Secret""#, false)] {
        let json = format!(r#"{{"kind":{kind},"metadata":{{"name":"n","uid":"u"}}}}"#);
        let decoded = Node::decode(&ConfigMap::ROW.into(), json.as_bytes());
        assert_eq!(decoded.is_ok(), decodes, "{kind}");
    }
}

#[test]
fn an_object_of_two_kinds_is_that_which_was_seen_first() {
    let mut graph = Graph::default();
    let see = |graph: &mut Graph, node: Node| graph.change(None, Some(&Arc::new(node)));
    let twin = Node { row: Secret::ROW.into(), ..node("a", &["owner"]) };
    see(&mut graph, node("owner", &[]));
    see(&mut graph, node("a", &["owner"]));
    assert_eq!(see(&mut graph, twin.clone()), Affected::default());
    let count = |graph: &Graph, row| graph.count("ns", row);
    assert_eq!(graph.get("a").unwrap().row, *ConfigMap::ROW);
    assert_eq!((count(&graph, ConfigMap::ROW), count(&graph, Secret::ROW)), (2, 1));
    // The other kind goes and comes back.
    assert_eq!(graph.remove(Secret::ROW, "a").emptied, Some("ns".into()));
    assert_eq!(graph.get("a").unwrap().row, *ConfigMap::ROW);
    see(&mut graph, twin);
    // With the first, the other takes its place.
    assert_eq!(graph.remove(ConfigMap::ROW, "a").examine, [""; 0]);
    assert_eq!(graph.get("a").unwrap().row, *Secret::ROW);
    assert_eq!((count(&graph, ConfigMap::ROW), count(&graph, Secret::ROW)), (1, 1));
    assert_eq!(graph.remove(ConfigMap::ROW, "owner").examine, ["a"]);
    assert_eq!(graph.uids_of(Secret::ROW), ["a"]);
    graph.remove(Secret::ROW, "a");
    assert!(graph.get("a").is_none());
    assert_eq!((count(&graph, ConfigMap::ROW), count(&graph, Secret::ROW)), (0, 0));
}

proptest! {
    /// Counts and links always match the objects that exist.
    #[test]
    fn the_graph_stays_consistent(steps in prop::collection::vec((0..12u8, prop::option::of(0..12u8), any::<bool>()), 0..80)) {
        let mut graph = Graph::default();
        let mut alive = std::collections::BTreeMap::new();
        for (id, of, add) in steps {
            let uid = format!("u{id}");
            if add {
                let owners: Vec<String> = of.iter().map(|of| format!("u{of}")).collect();
                let refs: Vec<&str> = owners.iter().map(String::as_str).collect();
                apply(&mut graph, node(&uid, &refs));
                alive.insert(uid, owners);
            } else {
                graph.remove(ConfigMap::ROW, &uid);
                alive.remove(&uid);
            }
        }
        prop_assert_eq!(graph.count("ns", ConfigMap::ROW), alive.len());
        for uid in (0..12).map(|id| format!("u{id}")) {
            let mut linked: Vec<_> = graph.dependents(&uid).map(|node| node.uid.clone()).collect();
            linked.sort();
            let wanted: Vec<_> = alive.iter().filter(|(_, owners)| owners.contains(&uid)).map(|(child, _)| child.clone()).collect();
            prop_assert_eq!(linked, wanted);
        }
    }
}
