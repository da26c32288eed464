use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::schema;

fn deployment() -> Option<&'static TypeRow> {
    schema::kind("apps", "v1", "Deployment")
}

fn pod() -> Option<&'static TypeRow> {
    schema::kind("", "v1", "Pod")
}

fn check(schema: Option<&'static TypeRow>, original: Value, patch: Value, expected: Value) {
    assert_eq!(apply(original, patch, schema).unwrap(), expected);
}

#[test]
fn containers_merge_by_name() {
    check(
        pod(),
        json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "args": ["x"]}]}}),
        json!({"spec": {"containers": [{"name": "b", "args": ["y"]}, {"name": "c"}]}}),
        json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "args": ["y"]}, {"name": "c"}]}}),
    );
}

#[test]
fn directives_are_obeyed() {
    let original = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}], "nodeSelector": {"x": "1", "y": "2"}}});
    check(
        pod(),
        original.clone(),
        json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}], "nodeSelector": {"$patch": "replace", "z": "3"}}}),
        json!({"spec": {"containers": [{"name": "b"}], "nodeSelector": {"z": "3"}}}),
    );
    check(
        pod(),
        original.clone(),
        json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "c"}], "nodeSelector": {"$patch": "delete"}}}),
        json!({"spec": {"containers": [{"name": "c"}], "nodeSelector": {}}}),
    );
    check(
        pod(),
        json!({"metadata": {"finalizers": ["a/a", "b/b", "c/c"]}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b/b"], "finalizers": ["d/d"]}}),
        json!({"metadata": {"finalizers": ["d/d", "a/a", "c/c"]}}),
    );
    check(
        deployment(),
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        json!({"spec": {"strategy": {"type": "Recreate"}}}),
    );
    check(
        pod(),
        original,
        json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "nodeSelector": null}}),
        json!({"spec": {"containers": [{"name": "b"}, {"name": "a"}]}}),
    );
    let mut patch = json!({"spec": {"containers": [{"image": "x"}]}});
    let original = json!({"spec": {"containers": [{"name": "a"}]}});
    let error = apply(original.clone(), patch.clone(), pod()).unwrap_err();
    assert_eq!(error.to_string(), "map: map[image:x] does not contain declared merge key: name");
    patch["spec"]["containers"] = json!([{"name": "a", "$patch": "nonsense"}]);
    assert_eq!(
        apply(original, patch, pod()).unwrap_err(),
        PatchError::UnknownDirective {
            directive: "nonsense".into(),
            map: "map[$patch:nonsense name:a]".into()
        }
    );
}

/// Upstream's documented cases: `original`, `patch` and the result, as names of a merged list
/// (the containers of a pod) or as elements of a set (finalizers).
#[test]
fn lists_get_upstreams_order() {
    // Directives: `-a` deletes, `!` replaces the list; the order is `$setElementOrder`.
    let cases: &[(&str, &str, Option<&str>, &str)] = &[
        // What the patch adds goes before what only the server has.
        ("a", "b", None, "b a"),
        ("a b c", "d", None, "d a b c"),
        ("a b c", "b d", None, "a b d c"),
        ("a b c", "d b", None, "d a b c"),
        ("a b c", "c a", None, "b c a"),
        ("a b c", "c", None, "a b c"),
        ("", "b a", None, "b a"),
        ("a b", "", None, "a b"),
        ("a b c", "-b", None, "a c"),
        ("a b c", "-b d", None, "d a c"),
        ("a b", "! d c", None, "d c"),
        ("a b", "!", None, ""),
        // With an order.
        ("a b", "", Some("b a"), "b a"),
        ("a b c", "", Some("c a"), "b c a"),
        ("a b", "c", Some("a c b"), "a c b"),
        ("a b", "c", Some("c a b"), "c a b"),
        ("a s b", "c", Some("b c a"), "s b c a"),
        ("s a", "c", Some("a c"), "s a c"),
        ("a s", "c", Some("a c"), "a c s"),
        ("a b c", "-b", Some("c a"), "c a"),
        ("", "b a", Some("b a"), "b a"),
    ];
    let names = |text: &str, with_directives: bool| -> Value {
        let element = |name: &str| match (name, name.strip_prefix('-')) {
            ("!", _) => json!({"$patch": "replace"}),
            (_, Some(gone)) => json!({"name": gone, "$patch": "delete"}),
            _ => json!({"name": name}),
        };
        let all = text.split_whitespace();
        assert!(with_directives || !text.contains(['-', '!']));
        all.map(element).collect()
    };
    for (original, patch, order, expected) in cases {
        let mut patched = json!({"spec": {"containers": names(patch, true)}});
        if patch.is_empty() {
            patched = json!({"spec": {}});
        }
        if let Some(order) = order {
            patched["spec"]["$setElementOrder/containers"] = names(order, false);
        }
        let original = json!({"spec": {"containers": names(original, false)}});
        let found = apply(original, patched, pod()).unwrap();
        assert_eq!(found["spec"]["containers"], names(expected, false), "{patch} {order:?}");
    }
    let primitives: &[(&str, &str, Option<&str>, &str, &str)] = &[
        ("a b", "c", None, "", "c a b"),
        ("a b", "b c", None, "", "a b c"),
        ("a b c", "d", None, "b", "d a c"),
        ("a b", "c", Some("b c a"), "", "b c a"),
        ("a b", "", Some("b a"), "", "b a"),
        ("a s b", "c", Some("b c a"), "", "s b c a"),
    ];
    let words = |text: &str| -> Value { text.split_whitespace().collect() };
    for (original, patch, order, deleted, expected) in primitives {
        let mut metadata = json!({"finalizers": words(patch)});
        if let Some(order) = order {
            metadata["$setElementOrder/finalizers"] = words(order);
        }
        if !deleted.is_empty() {
            metadata["$deleteFromPrimitiveList/finalizers"] = words(deleted);
        }
        let original = json!({"metadata": {"finalizers": words(original)}});
        let found = apply(original, json!({"metadata": metadata}), pod()).unwrap();
        assert_eq!(found["metadata"]["finalizers"], words(expected), "{patch} {order:?} {deleted}");
    }
}

#[test]
fn malformed_patches_are_refused_in_upstreams_words() {
    let original = json!({"metadata": {"finalizers": ["a"]}, "spec": {"containers": [{"name": "a"}], "volumes": [{"name": "v"}]}});
    for (patch, text) in [
        (json!({"spec": {"$patch": 5}}), "unknown patch type: 5 in map: map[$patch:5]"),
        (
            json!({"spec": {"containers": [{"name": "a", "$patch": "x"}]}}),
            "unknown patch type: x in map: map[$patch:x name:a]",
        ),
        (
            json!({"spec": {"containers": [{"image": "x", "args": ["b", 1, null]}]}}),
            "map: map[args:[b 1 <nil>] image:x] does not contain declared merge key: name",
        ),
        (
            json!({"spec": {"$setElementOrder/containers": "a"}}),
            "invalid patch format of setElementOrder list",
        ),
        (
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}}),
            "invalid patch format of primitive list",
        ),
        (json!({"spec": {"$retainKeys": "volumes"}}), "invalid patch format of retainKeys"),
        (
            json!({"spec": {"$retainKeys": ["volumes"], "hostname": "x"}}),
            "invalid patch format of retainKeys",
        ),
        (
            json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]}}),
            "The order in patch list:\n[map[name:b]]\n doesn't match $setElementOrder list:\n[map[name:a]]\n",
        ),
        (
            json!({"metadata": {"finalizers": ["b", ["a"], 1]}}),
            "list element types are not identical: [[a] [b [a] 1]]",
        ),
    ] {
        let error = apply(original.clone(), patch.clone(), pod()).unwrap_err();
        assert_eq!(error.to_string(), text, "{patch}");
    }
}

#[test]
fn new_parts_lose_directives_and_nulls() {
    check(
        pod(),
        json!({}),
        json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}, {"name": "b", "image": null}], "x": null}}),
        json!({"spec": {"containers": [{"name": "b"}]}}),
    );
}

#[test]
fn atomic_lists_are_replaced() {
    check(
        pod(),
        json!({"spec": {"tolerations": [{"key": "a"}, {"key": "b"}]}}),
        json!({"spec": {"tolerations": [{"key": "c"}]}}),
        json!({"spec": {"tolerations": [{"key": "c"}]}}),
    );
}

#[test]
fn three_way_keeps_what_others_set_and_removes_what_left_the_manifest() {
    let last = json!({"spec": {"replicas": 2, "paused": true, "template": {"spec": {"containers": [
        {"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "gone"}]}}}});
    let modified = json!({"spec": {"paused": null, "template": {"spec": {"containers": [
        {"name": "a", "image": "2", "env": [{"name": "Y", "value": "1"}]}]}}}});
    let current = json!({"spec": {"replicas": 5, "paused": true, "template": {"spec": {"containers": [
        {"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}], "imagePullPolicy": "Always"},
        {"name": "gone"}, {"name": "injected"}]}}}});
    let patch = three_way(&last, &modified, &current, deployment());
    assert_eq!(
        patch,
        json!({"spec": {"replicas": null, "paused": null, "template": {"spec": {
            "$setElementOrder/containers": [{"name": "a"}],
            "containers": [
                {"name": "a", "image": "2", "$setElementOrder/env": [{"name": "Y"}],
                 "env": [{"name": "Y", "value": "1"}, {"name": "X", "$patch": "delete"}]},
                {"name": "gone", "$patch": "delete"}]}}}})
    );
    assert_eq!(
        apply(current, patch, deployment()).unwrap(),
        json!({"spec": {"template": {"spec": {"containers": [
            {"name": "a", "image": "2", "env": [{"name": "Y", "value": "1"}], "imagePullPolicy": "Always"},
            {"name": "injected"}]}}}})
    );
}

#[test]
fn applying_the_same_manifest_again_changes_nothing() {
    let manifest =
        json!({"spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "a"}]}}}});
    let current = json!({"spec": {"replicas": 1, "paused": false, "template": {"spec": {
        "containers": [{"name": "a", "imagePullPolicy": "Always"}], "restartPolicy": "Always"}}}});
    assert_eq!(three_way(&manifest, &manifest, &current, deployment()), json!({}));
}

/// Pods with lists of every type: keyed, keyed and retaining, sets, atomic.
fn any_pod() -> impl Strategy<Value = Value> {
    let name = prop::sample::subsequence(vec!["a", "b", "c", "d"], 0..=4).prop_shuffle();
    let env = name.clone().prop_map(|names| {
        names
            .iter()
            .map(|name| json!({"name": name, "value": name.repeat(names.len())}))
            .collect::<Vec<_>>()
    });
    let container = (env, prop::option::of("[xy]"), prop::collection::vec("[xy]", 0..3));
    let containers =
        (name.clone(), prop::collection::vec(container, 4)).prop_map(|(names, bodies)| {
            names
                .iter()
                .zip(bodies)
                .map(|(name, (env, image, args))| {
                    let mut container = json!({"name": name, "env": env, "args": args});
                    if let Some(image) = image {
                        container["image"] = image.into();
                    }
                    container
                })
                .collect::<Vec<_>>()
        });
    let volumes = (name.clone(), any::<bool>()).prop_map(|(names, flag)| {
        names
            .iter()
            .map(|name| {
                if flag {
                    json!({"name": name, "emptyDir": {}})
                } else {
                    json!({"name": name, "hostPath": {"path": "/x"}})
                }
            })
            .collect::<Vec<_>>()
    });
    let labels = prop::collection::btree_map("[abc]", "[xy]", 0..3);
    (containers, volumes, labels, name).prop_map(|(containers, volumes, labels, finalizers)| {
        json!({"metadata": {"labels": labels, "finalizers": finalizers},
               "spec": {"containers": containers, "volumes": volumes}})
    })
}

proptest! {
    #[test]
    fn the_difference_applied_gives_the_target(from in any_pod(), to in any_pod()) {
        let patch = two_way(&from, &to, pod());
        prop_assert_eq!(apply(from, patch, pod()).unwrap(), to);
    }

    #[test]
    fn without_a_schema_it_is_a_merge_patch(from in any_pod(), to in any_pod()) {
        let patch = two_way(&from, &to, None);
        prop_assert_eq!(apply(from, patch, None).unwrap(), to);
    }

    #[test]
    fn equal_objects_give_an_empty_patch(pod_value in any_pod()) {
        prop_assert_eq!(two_way(&pod_value, &pod_value, pod()), json!({}));
    }

    #[test]
    fn no_patch_panics(from in any_pod(), text in "[{}\\[\\]\",:a$]{0,40}") {
        if let Ok(patch) = serde_json::from_str::<Value>(&text) {
            let outcome = apply(from, patch, pod());
            prop_assert!(outcome.is_ok() || outcome.is_err());
        }
    }
}
