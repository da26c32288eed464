use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::schema;

fn schema() -> Option<&'static TypeRow> {
    schema::kind("apps", "v1", "Deployment")
}

/// The outcome of a future that never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(outcome) => outcome,
        std::task::Poll::Pending => panic!("it waits"),
    }
}

fn apply<'a>(
    live: Option<&Value>,
    owners: &[ManagedFieldsEntry],
    config: &Value,
    schema: impl Into<Schema<'a>>,
    writer: &Writer<'_>,
) -> Result<Applied, Vec<Conflict>> {
    let versions = OneVersion(schema.into());
    match now(super::apply(live, owners, config, &versions, writer)) {
        Ok(applied) => Ok(applied),
        Err(Refused::Conflicts(conflicts)) => Err(conflicts),
    }
}

fn track<'a>(
    old: &Value,
    owners: &[ManagedFieldsEntry],
    new: &Value,
    schema: impl Into<Schema<'a>>,
    writer: &Writer<'_>,
) -> Vec<ManagedFieldsEntry> {
    let versions = OneVersion(schema.into());
    let Ok(owners) = now(super::track(old, owners, new, writer.api_version, &versions, writer));
    owners
}

fn writer(manager: &str) -> Writer<'_> {
    Writer {
        manager,
        api_version: "apps/v1",
        subresource: "",
        now: "2026-01-02T03:04:05Z".parse().unwrap(),
        force: false,
    }
}

fn config(replicas: Option<i32>, containers: Value) -> Value {
    let mut config = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"a": "1"}},
        "spec": {"template": {"spec": {"containers": containers}}}});
    if let Some(replicas) = replicas {
        config["spec"]["replicas"] = replicas.into();
    }
    config
}

fn containers(value: &Value) -> &Value {
    &value["spec"]["template"]["spec"]["containers"]
}

#[test]
fn a_first_apply_owns_its_fields() {
    let config = config(
        Some(2),
        json!([{"name": "a", "image": "x", "ports": [{"containerPort": 80}], "args": ["q"]}]),
    );
    let applied = apply(None, &[], &config, schema(), &writer("me")).unwrap();
    assert_eq!(applied.object, config);
    assert_eq!(
        applied.owners[0].fields_v1.as_ref().unwrap().0,
        json!({
            "f:metadata": {"f:labels": {"f:a": {}}},
            "f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {
                ".": {}, "f:name": {}, "f:image": {}, "f:args": {},
                "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}
        })
    );
}

#[test]
fn others_keep_their_fields() {
    let mine = config(Some(2), json!([{"name": "a", "image": "x"}]));
    let first = apply(None, &[], &mine, schema(), &writer("me")).unwrap();
    let theirs = json!({"metadata": {"labels": {"b": "2"}}, "spec": {"template": {"spec": {"containers": [{"name": "b"}]}}}});
    let second =
        apply(Some(&first.object), &first.owners, &theirs, schema(), &writer("they")).unwrap();
    assert_eq!(second.owners.len(), 2);
    // I drop my label, my replicas and my image; theirs stays.
    let less = json!({"spec": {"template": {"spec": {"containers": [{"name": "a"}]}}}});
    let third =
        apply(Some(&second.object), &second.owners, &less, schema(), &writer("me")).unwrap();
    assert_eq!(third.object["metadata"]["labels"], json!({"b": "2"}));
    assert_eq!(third.object["spec"].get("replicas"), None);
    assert_eq!(containers(&third.object), &json!([{"name": "a"}, {"name": "b"}]));
    let none =
        apply(Some(&third.object), &third.owners, &json!({}), schema(), &writer("me")).unwrap();
    assert_eq!(containers(&none.object), &json!([{"name": "b"}]));
}

#[test]
fn conflicts_name_the_owner_unless_forced() {
    let first = apply(None, &[], &config(Some(2), json!([])), schema(), &writer("me")).unwrap();
    let mut scaled = first.object.clone();
    scaled["spec"]["replicas"] = 5.into();
    let owners = track(&first.object, &first.owners, &scaled, schema(), &writer("kubectl-edit"));
    let again = config(Some(2), json!([]));
    let conflicts = apply(Some(&scaled), &owners, &again, schema(), &writer("me")).unwrap_err();
    assert_eq!(
        conflicts,
        [Conflict {
            owner: "\"kubectl-edit\" using apps/v1 at 2026-01-02T03:04:05Z".into(),
            field: ".spec.replicas".into()
        }]
    );
    let force = Writer { force: true, ..writer("me") };
    let forced = apply(Some(&scaled), &owners, &again, schema(), &force).unwrap();
    assert_eq!(forced.object["spec"]["replicas"], 2);
    assert_eq!(forced.owners.len(), 1);
    // The same value is shared without a conflict.
    let agreed =
        apply(Some(&scaled), &owners, &config(Some(5), json!([])), schema(), &writer("me"))
            .unwrap();
    assert_eq!(agreed.owners.len(), 2);
}

#[test]
fn legacy_objects_belong_to_before_first_apply() {
    let live = config(Some(2), json!([{"name": "a", "image": "x"}]));
    let conflicts =
        apply(Some(&live), &[], &config(Some(3), json!([])), schema(), &writer("me")).unwrap_err();
    assert!(conflicts[0].owner.starts_with("\"before-first-apply\""), "{conflicts:?}");
    let same = apply(Some(&live), &[], &live, schema(), &writer("me")).unwrap();
    assert_eq!((same.object, same.owners.len()), (live, 2));
}

#[test]
fn kubectl_takes_over_what_it_applied_itself() {
    let mut live = config(Some(2), json!([{"name": "a", "image": "x"}]));
    live["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": live.to_string()});
    live["spec"]["paused"] = true.into();
    let mut next = config(Some(3), json!([{"name": "a", "image": "y"}]));
    let taken = apply(Some(&live), &[], &next, schema(), &writer("kubectl")).unwrap();
    assert_eq!(taken.object["spec"]["replicas"], 3);
    assert!(apply(Some(&live), &[], &next, schema(), &writer("helm")).is_err());
    // But not the fields that it never set.
    next["spec"]["paused"] = false.into();
    let conflicts = apply(Some(&live), &[], &next, schema(), &writer("kubectl")).unwrap_err();
    assert_eq!(conflicts[0].field, ".spec.paused");
}

#[test]
fn applying_the_same_again_changes_nothing() {
    let config = config(Some(2), json!([{"name": "a", "image": "x"}]));
    let first = apply(None, &[], &config, schema(), &writer("me")).unwrap();
    let later = Writer { now: "2027-01-01T00:00:00Z".parse().unwrap(), ..writer("me") };
    let again = apply(Some(&first.object), &first.owners, &config, schema(), &later).unwrap();
    assert_eq!(again.object, first.object);
    assert_eq!(again.owners, first.owners);
}

#[test]
fn lists_get_the_applied_order() {
    let live = json!({"spec": {"template": {"spec": {"containers": [{"name": "a"}, {"name": "s"}, {"name": "b"}]}}}});
    let wanted = json!({"spec": {"template": {"spec": {"containers": [{"name": "b"}, {"name": "n"}, {"name": "a"}]}}}});
    let merged = merge::merge(&live, &wanted, FieldSchema::of_definition(schema()));
    assert_eq!(
        containers(&merged),
        &json!([{"name": "b"}, {"name": "n"}, {"name": "a"}, {"name": "s"}])
    );
}

#[test]
fn a_new_object_belongs_to_its_creator() {
    let mut object = config(
        Some(2),
        json!([{"name": "a", "env": [{"name": "X"}, {"name": "X", "value": "1"}]}]),
    );
    object["status"] = json!({"replicas": 1});
    let owners = create(&object, schema(), true, &writer("kubectl-create"));
    assert_eq!(owners.len(), 1);
    assert_eq!(owners[0].operation.as_deref(), Some("Update"));
    assert_eq!(
        owners[0].fields_v1.as_ref().unwrap().0,
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
            "f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {
                ".": {}, "f:name": {}, "f:env": {".": {}, "k:{\"name\":\"X\"}": {}}}}}}}
        })
    );
    let error = apply(Some(&object), &owners, &config(Some(3), json!([])), schema(), &writer("me"));
    assert!(error.unwrap_err()[0].owner.starts_with("\"kubectl-create\" using apps/v1"));
}

/// Objects may have duplicates in their lists, an applied configuration may not.
#[test]
fn duplicates_are_owned_together() {
    let env = |value: &str| json!([{"name": "a", "env": [{"name": "X", "value": value}, {"name": "X", "value": "2"}, {"name": "Y"}]}]);
    let live = config(None, env("1"));
    let owners = create(&live, schema(), true, &writer("me"));
    let changed = config(None, env("3"));
    let later = track(&live, &owners, &changed, schema(), &writer("they"));
    let own = |manager: &str| {
        let entry = later.iter().find(|entry| entry.manager.as_deref() == Some(manager)).unwrap();
        fields_of(entry).paths().join(" ")
    };
    assert_eq!(own("they"), ".spec.template.spec.containers[name=\"a\"].env[name=\"X\"]");
    assert!(own("me").contains("env[name=\"Y\"]") && !own("me").contains("env[name=\"X\"]"));
    // Applied elements replace all that have their keys; others stay.
    let wanted = config(None, json!([{"name": "a", "env": [{"name": "X", "value": "4"}]}]));
    let force = Writer { force: true, ..writer("third") };
    let applied = apply(Some(&changed), &later, &wanted, schema(), &force).unwrap();
    assert_eq!(
        containers(&applied.object)[0]["env"],
        json!([{"name": "X", "value": "4"}, {"name": "Y"}])
    );
    assert_eq!(
        duplicate(&live, schema()).unwrap(),
        ".spec.template.spec.containers[name=\"a\"].env: duplicate entries for key [name=\"X\"]"
    );
    assert_eq!(duplicate(&wanted, schema()), None);
}

#[test]
fn kubectl_keeps_its_annotation_up_to_date() {
    let mut live = config(Some(1), json!([]));
    live["metadata"]["annotations"] = json!({LAST_APPLIED: "{}", "other": "x"});
    let wanted = config(Some(1), json!([{"name": "a"}]));
    let owners = create(&live, schema(), true, &writer("kubectl-client-side-apply"));
    let applied = apply(Some(&live), &owners, &wanted, schema(), &writer("kubectl")).unwrap();
    let text = applied.object["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap();
    assert_eq!(text, format!("{wanted}\n"));
    let other = apply(Some(&live), &owners, &wanted, schema(), &writer("helm")).unwrap();
    assert_eq!(other.object["metadata"]["annotations"][LAST_APPLIED], "{}");
    let mut without = live.clone();
    without["metadata"]["annotations"] = json!({"other": "x"});
    let none = apply(Some(&without), &owners, &wanted, schema(), &writer("kubectl")).unwrap();
    assert_eq!(none.object["metadata"]["annotations"], json!({"other": "x"}));
    // Too much for annotations: it is dropped.
    let mut long = wanted.clone();
    long["metadata"]["annotations"] = json!({"long": "x".repeat(ANNOTATIONS_MAX / 2)});
    let dropped = apply(Some(&live), &owners, &long, schema(), &writer("kubectl")).unwrap();
    assert_eq!(dropped.object["metadata"]["annotations"].get(LAST_APPLIED), None);
}

#[test]
fn what_a_client_sends_is_judged() {
    let entry = |json: Value| serde_json::from_value::<ManagedFieldsEntry>(json).unwrap();
    let good = json!({"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:a": {".": {}, "k:{\"n\":1}": {}, "v:\"x\"": {}, "i:0": {}}}});
    assert_eq!(Sent::of(None), Sent::Ignored);
    assert_eq!(Sent::of(Some(vec![])), Sent::Cleared);
    assert_eq!(Sent::of(Some(vec![entry(json!({}))])), Sent::Cleared);
    assert_eq!(Sent::of(Some(vec![entry(good.clone())])), Sent::Taken(vec![entry(good.clone())]));
    for (field, value) in [
        ("operation", json!("Patch")),
        ("operation", json!(null)),
        ("apiVersion", json!("")),
        ("fieldsType", json!("FieldsV2")),
        ("fieldsType", json!(null)),
        ("fieldsV1", json!({"a": {}})),
        ("fieldsV1", json!({"f:a": 1})),
        ("fieldsV1", json!({"k:x": {}})),
        ("fieldsV1", json!({"v:x": {}})),
        ("fieldsV1", json!({"i:x": {}})),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        let sent = vec![entry(good.clone()), entry(bad.clone())];
        assert_eq!(Sent::of(Some(sent)), Sent::Ignored, "{bad}");
    }
    assert_eq!(Sent::of(Some(vec![entry(json!({})), entry(json!({}))])), Sent::Ignored);
}

#[test]
fn the_oldest_of_many_updaters_are_united() {
    let mut object = config(Some(0), json!([]));
    let mut owners = create(&object, schema(), true, &writer("m00"));
    for number in 1..15 {
        let before = object.clone();
        object["metadata"]["labels"][format!("l{number}")] = "x".into();
        let manager = format!("m{number:02}");
        let now = writer("").now + jiff::SignedDuration::from_secs(number);
        owners = track(&before, &owners, &object, schema(), &Writer { now, ..writer(&manager) });
    }
    assert_eq!(owners.len(), UPDATERS_MAX);
    assert_eq!(owners[0].manager.as_deref(), Some(ANCIENT));
    let ancient = fields_of(&owners[0]).paths().join(" ");
    assert!(
        ancient.contains(".spec.replicas") && ancient.contains(".metadata.labels.l5"),
        "{ancient}"
    );
    assert_eq!(owners.last().unwrap().manager.as_deref(), Some("m14"));
}

/// A zero value that is applied sets a field back, and owns it, but changes no object without it.
#[test]
fn zero_values_are_applied_like_others() {
    let mut live = config(None, json!([]));
    live["spec"]["paused"] = true.into();
    let owners = create(&live, schema(), true, &writer("they"));
    let mut wanted = json!({"spec": {"paused": false}});
    let conflicts = apply(Some(&live), &owners, &wanted, schema(), &writer("me")).unwrap_err();
    assert_eq!(conflicts[0].field, ".spec.paused");
    let force = Writer { force: true, ..writer("me") };
    let forced = apply(Some(&live), &owners, &wanted, schema(), &force).unwrap();
    assert_eq!(forced.object["spec"].get("paused"), None);
    // Another manager agrees, with the same words or by saying nothing.
    let agreed = apply(Some(&forced.object), &forced.owners, &wanted, schema(), &writer("third"));
    assert_eq!(agreed.unwrap().object, forced.object);
    let again = apply(Some(&forced.object), &forced.owners, &wanted, schema(), &force).unwrap();
    assert_eq!((again.object, again.owners), (forced.object.clone(), forced.owners.clone()));
    wanted["spec"]["paused"] = true.into();
    apply(Some(&forced.object), &forced.owners, &wanted, schema(), &writer("third")).unwrap_err();
}

fn any_config() -> impl Strategy<Value = Value> {
    let container = ("[abc]", prop::option::of("[xy]"), prop::collection::vec("[pq]", 0..3))
        .prop_map(|(name, image, args)| {
            let mut container = json!({"name": name, "args": args});
            if let Some(image) = image {
                container["image"] = image.into();
            }
            container
        });
    let labels = prop::collection::btree_map("[abc]", "[xy]", 0..3);
    (prop::option::of(0..3), prop::collection::vec(container, 0..3), labels).prop_map(
        |(replicas, mut list, labels)| {
            list.sort_by_key(|container| container["name"].to_string());
            list.dedup_by_key(|container| container["name"].clone());
            let mut config = config(replicas, list.into());
            config["metadata"]["labels"] = json!(labels);
            config
        },
    )
}

fn without_empty(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(name, value)| (name.clone(), without_empty(value)))
            .filter(|(_, value)| *value != json!({}) && *value != json!([]))
            .collect(),
        Value::Array(list) => list.iter().map(without_empty).collect(),
        other => other.clone(),
    }
}

proptest! {
    /// With one manager alone, the object becomes what it last applied.
    #[test]
    fn applying_twice_gives_the_second(first in any_config(), second in any_config()) {
        let before = apply(None, &[], &first, schema(), &writer("me")).unwrap();
        let after = apply(Some(&before.object), &before.owners, &second, schema(), &writer("me")).unwrap();
        prop_assert_eq!(without_empty(&after.object), without_empty(&second));
    }

    #[test]
    fn sets_survive_encoding(config in any_config()) {
        let set = merge::set_of(&config, FieldSchema::of_definition(schema()));
        prop_assert_eq!(Set::from_json(&set.to_json()), set);
    }
}

#[test]
fn kubectl_takes_back_what_it_leaves_out_of_its_first_apply() {
    let said = config(Some(2), json!([{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]));
    let mut live = said.clone();
    live["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": said.to_string()});
    live["spec"]["paused"] = true.into();
    for container in 0..2 {
        live["spec"]["template"]["spec"]["containers"][container]["imagePullPolicy"] =
            "Always".into();
    }
    let next = config(None, json!([{"name": "a", "image": "z"}]));
    let applied = apply(Some(&live), &[], &next, schema(), &writer("kubectl")).unwrap();
    assert_eq!(
        containers(&applied.object),
        &json!([{"name": "a", "image": "z", "imagePullPolicy": "Always"}])
    );
    assert_eq!(applied.object["spec"]["replicas"], Value::Null);
    assert_eq!(applied.object["spec"]["paused"], true);
    // Another manager's first apply removes nothing.
    let kept = apply(Some(&live), &[], &config(None, json!([])), schema(), &writer("me")).unwrap();
    assert_eq!(kept.object["spec"]["replicas"], 2);
    // What somebody has changed since is theirs.
    live["spec"]["replicas"] = 5.into();
    let next = config(Some(3), json!([]));
    let conflicts = apply(Some(&live), &[], &next, schema(), &writer("kubectl")).unwrap_err();
    assert_eq!(conflicts.len(), 1);
    assert_eq!(conflicts[0].field, ".spec.replicas");
    let next = config(None, json!([{"name": "a", "image": "x"}]));
    let left = apply(Some(&live), &[], &next, schema(), &writer("kubectl")).unwrap();
    assert_eq!(left.object["spec"]["replicas"], 5);
}

fn custom() -> Structural {
    let list = |list_type: &str| json!({"type": "array", "x-kubernetes-list-type": list_type, "items": {"type": "string"}});
    Structural::new(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "set": list("set"),
        "atomic": list("atomic"),
        "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
        "map": {"type": "object", "additionalProperties": {"type": "string"}},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
            "items": {"type": "object", "properties": {"port": {"type": "integer"}, "name": {"type": "string"},
                "protocol": {"type": "string", "default": "TCP"}}}},
    }}}}))
    .unwrap()
}

#[test]
fn custom_resources_merge_by_their_schema() {
    let schema = custom();
    let mine = json!({"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "a", "labels": {"l": "1"}, "finalizers": ["x/y"]},
        "spec": {"set": ["a"], "atomic": ["a"], "whole": {"a": "1"}, "map": {"a": "1"}, "ports": [{"port": 80, "name": "web"}]}});
    let first = apply(None, &[], &mine, &schema, &writer("me")).unwrap();
    assert_eq!(
        first.owners[0].fields_v1.as_ref().unwrap().0,
        json!({
            "f:metadata": {"f:labels": {"f:l": {}}, "f:finalizers": {"v:\"x/y\"": {}}},
            "f:spec": {
                "f:set": {"v:\"a\"": {}}, "f:atomic": {}, "f:whole": {}, "f:map": {"f:a": {}},
                "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}}},
            },
        })
    );
    let theirs = json!({"spec": {"set": ["b"], "map": {"b": "2"}, "ports": [{"port": 81}]}});
    let second =
        apply(Some(&first.object), &first.owners, &theirs, &schema, &writer("they")).unwrap();
    assert_eq!(second.object["spec"]["set"], json!(["a", "b"]));
    assert_eq!(second.object["spec"]["map"], json!({"a": "1", "b": "2"}));
    assert_eq!(second.object["spec"]["ports"], json!([{"port": 80, "name": "web"}, {"port": 81}]));
    for (conflicting, field) in [
        (json!({"spec": {"atomic": ["b"]}}), ".spec.atomic"),
        (json!({"spec": {"whole": {"b": "1"}}}), ".spec.whole"),
        (
            json!({"spec": {"ports": [{"port": 80, "protocol": "TCP", "name": "x"}]}}),
            ".spec.ports[port=80,protocol=\"TCP\"].name",
        ),
    ] {
        let conflicts =
            apply(Some(&first.object), &first.owners, &conflicting, &schema, &writer("they"))
                .unwrap_err();
        assert_eq!(conflicts[0].field, field);
    }
    let twice = json!({"spec": {"ports": [{"port": 80}, {"port": 80, "protocol": "TCP"}]}});
    assert_eq!(
        duplicate(&twice, &schema).as_deref(),
        Some(".spec.ports: duplicate entries for key [port=80,protocol=\"TCP\"]")
    );
}

/// Two versions, of which the second calls the size `width` and counts in tenths.
struct Sizes;

impl Versions for Sizes {
    type Error = String;

    fn schema(&self, api_version: &str) -> Option<Schema<'_>> {
        matches!(api_version, "a/v1" | "a/v2").then_some(Schema::Untyped)
    }

    async fn convert(&self, object: &Value, to: &str) -> Result<Value, String> {
        let mut object = object.clone();
        if object["apiVersion"] == to {
            return Ok(object);
        }
        object["apiVersion"] = to.into();
        // Without a spec there is nothing to convert.
        let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else {
            return Ok(object);
        };
        if let Some(size) = spec.remove("size").and_then(|size| size.as_i64()) {
            spec.insert("width".to_owned(), (10 * size).into());
        } else if let Some(width) = spec.remove("width").and_then(|width| width.as_i64()) {
            spec.insert("size".to_owned(), (width / 10).into());
        }
        Ok(object)
    }
}

/// Who owns what: manager, version, operation, fields.
fn owned(owners: &[ManagedFieldsEntry]) -> Vec<String> {
    let text = |owner: &ManagedFieldsEntry| {
        let operation = owner.operation.as_deref().unwrap().to_lowercase();
        // Without a schema every map is owned, too.
        let paths = fields_of(owner).paths();
        let paths: Vec<_> = paths.into_iter().filter(|path| *path != ".spec").collect();
        let (manager, paths) = (owner.manager.as_deref().unwrap(), paths.join(" "));
        (!paths.is_empty()).then(|| format!("{manager} {operation} {}: {paths}", version_of(owner)))
    };
    owners.iter().filter_map(text).collect()
}

/// One write: manager, version, operation (`force` is an apply), the spec, and the owners after it or
/// the conflicts.
type Step = (&'static str, &'static str, &'static str, Value, &'static [&'static str]);

#[test]
fn versions_are_compared_in_the_version_of_each_owner() {
    let tables: Vec<Vec<Step>> = vec![
        // The same value in another version is no conflict, and both own it.
        vec![
            ("one", "a/v1", "apply", json!({"size": 3}), &["one apply a/v1: .spec.size"]),
            (
                "two",
                "a/v2",
                "apply",
                json!({"width": 30}),
                &["one apply a/v1: .spec.size", "two apply a/v2: .spec.width"],
            ),
            // One leaves it out: the other still has it.
            ("one", "a/v1", "apply", json!({}), &["two apply a/v2: .spec.width"]),
            // And then it goes.
            ("two", "a/v2", "apply", json!({"color": "red"}), &["two apply a/v2: .spec.color"]),
        ],
        // A conflict names the owner's field in the owner's version.
        vec![
            ("one", "a/v1", "apply", json!({"size": 3}), &["one apply a/v1: .spec.size"]),
            ("two", "a/v2", "apply", json!({"width": 50}), &["\"one\": .spec.size"]),
            ("two", "a/v2", "force", json!({"width": 50}), &["two apply a/v2: .spec.width"]),
            ("one", "a/v1", "apply", json!({"size": 3}), &["\"two\": .spec.width"]),
        ],
        // An applier goes on in another version: its entry moves, and what it leaves out goes.
        vec![
            (
                "one",
                "a/v1",
                "apply",
                json!({"size": 3, "color": "red"}),
                &["one apply a/v1: .spec.color .spec.size"],
            ),
            ("one", "a/v2", "apply", json!({"width": 30}), &["one apply a/v2: .spec.width"]),
            ("one", "a/v1", "apply", json!({"size": 4}), &["one apply a/v1: .spec.size"]),
            ("one", "a/v2", "apply", json!({"color": "red"}), &["one apply a/v2: .spec.color"]),
        ],
        // Updates take fields from the owners in other versions, and an updater has an entry for
        // each version.
        vec![
            (
                "one",
                "a/v1",
                "apply",
                json!({"size": 3, "color": "red"}),
                &["one apply a/v1: .spec.color .spec.size"],
            ),
            (
                "two",
                "a/v2",
                "update",
                json!({"width": 50, "color": "red"}),
                &["one apply a/v1: .spec.color", "two update a/v2: .spec.width"],
            ),
            (
                "two",
                "a/v1",
                "update",
                json!({"size": 5, "color": "blue"}),
                &["two update a/v1: .spec.color", "two update a/v2: .spec.width"],
            ),
            // What is removed in one version is nobody's in the others.
            ("two", "a/v1", "update", json!({"color": "blue"}), &["two update a/v1: .spec.color"]),
        ],
        // Entries of versions that are gone are dropped by the next write of either kind.
        vec![
            ("old", "a/v0", "entry", json!({"f:spec": {"f:color": {}}}), &[]),
            ("one", "a/v1", "update", json!({"size": 5}), &["one update a/v1: .spec.size"]),
            ("old", "a/v0", "entry", json!({"f:spec": {"f:size": {}}}), &[]),
            ("two", "a/v2", "force", json!({"width": 20}), &["two apply a/v2: .spec.width"]),
        ],
    ];
    for (number, table) in tables.into_iter().enumerate() {
        let mut live = json!({"apiVersion": "a/v1", "spec": {}});
        let mut owners: Vec<ManagedFieldsEntry> = Vec::new();
        for (step, (manager, api_version, operation, spec, expected)) in
            table.into_iter().enumerate()
        {
            let writer = Writer { api_version, force: operation == "force", ..writer(manager) };
            let config = json!({"apiVersion": api_version, "spec": spec});
            let here = now(Sizes.convert(&live, api_version)).unwrap();
            let found = match operation {
                "entry" => {
                    owners.push(entry(&writer, "Apply", &Set::from_json(&config["spec"]), None));
                    continue;
                }
                "update" => {
                    owners =
                        now(super::track(&here, &owners, &config, api_version, &Sizes, &writer))
                            .unwrap();
                    live = config;
                    owned(&owners)
                }
                _ => {
                    let first = (!owners.is_empty()).then_some(&here);
                    match now(super::apply(first, &owners, &config, &Sizes, &writer)) {
                        Ok(applied) => {
                            (live, owners) = (applied.object, applied.owners);
                            owned(&owners)
                        }
                        Err(Refused::Conflicts(conflicts)) => {
                            let text = |one: &Conflict| format!("{}: {}", one.owner, one.field);
                            conflicts.iter().map(text).collect()
                        }
                        Err(Refused::Conversion(problem)) => vec![problem],
                    }
                }
            };
            assert_eq!(found, expected, "table {number}, step {step}: {live}");
        }
    }
}

#[test]
fn what_an_applier_leaves_out_goes_in_every_version() {
    let write = |live: Option<&Value>, owners: &[_], api_version, spec: Value| {
        let config = json!({"apiVersion": api_version, "spec": spec});
        let writer = Writer { api_version, ..writer("one") };
        now(super::apply(live, owners, &config, &Sizes, &writer)).unwrap()
    };
    let first = write(None, &[], "a/v1", json!({"size": 3, "color": "red"}));
    let live = now(Sizes.convert(&first.object, "a/v2")).unwrap();
    let second = write(Some(&live), &first.owners, "a/v2", json!({"color": "red"}));
    assert_eq!(second.object["spec"], json!({"color": "red"}));
    // In another version too, to apply the same again changes nothing but the entry.
    let third = write(Some(&second.object), &second.owners, "a/v2", json!({"color": "red"}));
    assert_eq!((third.object, third.owners), (second.object, second.owners));
}
