use serde_json::{Value, json};

use super::Structural;
use crate::structural::TooLarge;

fn structural(schema: Value) -> Structural {
    Structural::new(&schema).unwrap_or_else(|error| panic!("{schema}: {error}"))
}

/// A schema with one property `x`.
fn of(x: Value) -> Structural {
    structural(json!({"type": "object", "properties": {"x": x}}))
}

fn errors(schema: &Structural, new: Value, old: Option<Value>) -> Vec<String> {
    schema.validate(&new, old.as_ref()).iter().map(ToString::to_string).collect()
}

#[test]
fn values_are_refused_as_upstream_does() {
    let s = |x: Value, value: Value, expected: &[&str]| {
        let found = errors(&of(x.clone()), json!({"x": value}), None);
        assert_eq!(found, expected, "{x} {value}");
    };
    let int = json!({"type": "integer"});
    s(
        int.clone(),
        json!("a"),
        &[r#"x: Invalid value: "string": x in body must be of type integer: "string""#],
    );
    s(int.clone(), json!(5.0), &[]);
    s(
        int.clone(),
        Value::Null,
        &[r#"x: Invalid value: "null": x in body must be of type integer: "null""#],
    );
    s(
        int,
        json!(1.5),
        &[
            r#"x: Invalid value: "number": x in body must be of type integer: "number""#,
            r#"<nil>: Invalid value: "": Checked value must be of type integer (default format) in x"#,
        ],
    );
    s(
        json!({"type": "integer", "format": "int32"}),
        json!(3_000_000_000_i64),
        &[
            r#"<nil>: Invalid value: "": Checked value must be of type integer with format int32 in x"#,
        ],
    );
    s(json!({"type": "integer", "nullable": true}), Value::Null, &[]);
    s(
        json!({"x-kubernetes-int-or-string": true}),
        json!(true),
        &[r#"x: Invalid value: "boolean": x in body must be of type integer,string: "boolean""#],
    );
    s(
        json!({"type": "string", "maxLength": 2}),
        json!("äöü"),
        &["x: Too long: may not be more than 2 bytes"],
    );
    s(
        json!({"type": "string", "minLength": 2}),
        json!("ä"),
        &[r#"x: Invalid value: "ä": x in body should be at least 2 chars long"#],
    );
    s(
        json!({"type": "string", "pattern": "^a+$"}),
        json!("b"),
        &[r#"x: Invalid value: "b": x in body should match '^a+$'"#],
    );
    s(
        json!({"type": "string", "enum": ["a", "b"]}),
        json!("c"),
        &[r#"x: Unsupported value: "c": supported values: "a", "b""#],
    );
    s(
        json!({"type": "integer", "enum": [1, 2]}),
        json!(3),
        &[r#"x: Unsupported value: 3: supported values: "1", "2""#],
    );
    s(
        json!({"type": "string", "format": "date"}),
        json!("yesterday"),
        &[r#"x: Invalid value: "yesterday": x in body must be of type date: "yesterday""#],
    );
    s(
        json!({"type": "string", "format": "date"}),
        json!(5),
        &[r#"x: Invalid value: "int64": x in body must be of type date: "int64""#],
    );
    s(json!({"type": "string", "format": "whatever"}), json!("x"), &[]);
    s(
        json!({"type": "integer", "minimum": 1, "maximum": 3}),
        json!(0),
        &["x: Invalid value: 0: x in body should be greater than or equal to 1"],
    );
    s(
        json!({"type": "number", "maximum": 1.5, "exclusiveMaximum": true}),
        json!(1.5),
        &["x: Invalid value: 1.5: x in body should be less than 1.5"],
    );
    s(
        json!({"type": "integer", "multipleOf": 5}),
        json!(7),
        &["x: Invalid value: 7: x in body should be a multiple of 5"],
    );
    s(json!({"type": "number", "multipleOf": 0.1}), json!(0.3), &[]);
}

#[test]
fn collections_are_refused_as_upstream_does() {
    let s = |x: Value, value: Value, expected: &[&str]| {
        let found = errors(&of(x.clone()), json!({"x": value}), None);
        assert_eq!(found, expected, "{x} {value}");
    };
    let list = json!({"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 3});
    s(list.clone(), json!(["a"]), &["x: Invalid value: 1: x in body should have at least 2 items"]);
    s(list.clone(), json!(["a", "b", "c", "d"]), &["x: Too many: 4: must have at most 3 items"]);
    s(
        list,
        json!(["a", 1]),
        &[r#"x[1]: Invalid value: "integer": x[1] in body must be of type string: "integer""#],
    );
    let object = json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "object", "required": ["b"]}}});
    s(object.clone(), json!({}), &["x.a: Required value"]);
    s(object, json!({"a": {}}), &["x.a.b: Required value"]);
    let map =
        json!({"type": "object", "additionalProperties": {"type": "boolean"}, "maxProperties": 1});
    s(
        map.clone(),
        json!({"k": 1}),
        &[r#"x.k: Invalid value: "integer": x.k in body must be of type boolean: "integer""#],
    );
    s(map, json!({"a": true, "b": true}), &["x: Too many: 2: must have at most 1 item"]);
    s(
        json!({"type": "object", "additionalProperties": false}),
        json!({"k": 1}),
        &[r#"x: Invalid value: "k": x.k in body is a forbidden property"#],
    );
    let set =
        json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
    s(set, json!(["a", "b", "a", "a"]), &[r#"x[2]: Duplicate value: "a""#]);
    let list_map = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
        "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}}});
    s(
        list_map,
        json!([{"k": "a"}, {"k": "b"}, {"k": "a", "v": 1}]),
        &[r#"x[2]: Duplicate value: {"k":"a"}"#],
    );
}

#[test]
fn alternatives_show_the_best_failure() {
    let s = |x: Value, value: Value, expected: &[&str]| {
        let found = errors(&of(x.clone()), json!({"x": value}), None);
        assert_eq!(found, expected, "{x} {value}");
    };
    let object = |rest: Value| {
        let mut schema = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}});
        schema.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        schema
    };
    let one = object(json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}));
    s(one.clone(), json!({"a": "1"}), &[]);
    s(
        one.clone(),
        json!({"a": "1", "b": "2"}),
        &[
            r#"<nil>: Invalid value: "": "x" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
        ],
    );
    s(
        one,
        json!({}),
        &[
            r#"<nil>: Invalid value: "": "x" must validate one and only one schema (oneOf). Found none valid"#,
            "x.a: Required value",
        ],
    );
    let any = object(
        json!({"anyOf": [{"required": ["a"]}, {"properties": {"b": {"enum": ["x"]}}, "required": ["b"]}]}),
    );
    s(
        any,
        json!({"b": "y"}),
        &[
            r#"<nil>: Invalid value: "": "x" must validate at least one schema (anyOf)"#,
            r#"x.b: Unsupported value: "y": supported values: "x""#,
        ],
    );
    let all = object(json!({"allOf": [{"required": ["a"]}, {"required": ["b"]}]}));
    s(
        all.clone(),
        json!({"a": "1"}),
        &[
            "x.b: Required value",
            r#"<nil>: Invalid value: "": "x" must validate all the schemas (allOf)"#,
        ],
    );
    s(
        all,
        json!({}),
        &[
            "x.a: Required value",
            "x.b: Required value",
            r#"<nil>: Invalid value: "": "x" must validate all the schemas (allOf). None validated"#,
        ],
    );
    s(
        object(json!({"not": {"required": ["a"]}})),
        json!({"a": "1"}),
        &[r#"<nil>: Invalid value: "": "x" must not validate the schema (not)"#],
    );
}

#[test]
fn unchanged_values_are_not_judged_anew() {
    let schema = structural(json!({"type": "object", "properties": {
        "a": {"type": "string", "maxLength": 1},
        "b": {"type": "object", "properties": {"c": {"type": "integer", "minimum": 5}, "d": {"type": "string"}}},
        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer", "minimum": 5}}}},
        "atomic": {"type": "array", "items": {"type": "integer", "minimum": 5}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
    }}));
    let old = json!({"a": "long", "b": {"c": 1}, "list": [{"k": "x", "v": 1}, {"k": "y", "v": 7}],
        "atomic": [1], "set": ["a", "a"]});
    let mut new = old.clone();
    new["b"]["d"] = json!("new");
    new["list"] = json!([{"k": "y", "v": 8}, {"k": "x", "v": 1}]);
    new["set"] = json!(["a", "a", "b", "b"]);
    assert_eq!(errors(&schema, new.clone(), Some(old.clone())), Vec::<String>::new());
    new["b"]["c"] = json!(2);
    new["atomic"] = json!([1, 7]);
    new["list"][1]["v"] = json!(2);
    assert_eq!(
        errors(&schema, new, Some(old)),
        [
            "atomic[0]: Invalid value: 1: atomic[0] in body should be greater than or equal to 5",
            "b.c: Invalid value: 2: b.c in body should be greater than or equal to 5",
            "list[1].v: Invalid value: 2: list[1].v in body should be greater than or equal to 5",
        ]
    );
}

#[test]
fn unknown_fields_are_pruned() {
    let schema = structural(json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "known": {"type": "string"},
            "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "string"}}}},
            "any": {"type": "object", "additionalProperties": true},
            "kept": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"inner": {"type": "object", "properties": {"a": {"type": "string"}}}}},
            "template": {"type": "object", "x-kubernetes-embedded-resource": true,
                "properties": {"spec": {"type": "object", "properties": {"a": {"type": "string"}}}}},
        }},
    }}));
    let mut object = json!({
        "apiVersion": "a/v1", "kind": "A", "metadata": {"name": "a", "foo": 1}, "extra": 1,
        "spec": {
            "known": "x", "foo": 1, "list": [{"a": "1"}, {"bar": 2}], "map": {"k": {"b": 1}},
            "any": {"k": {"lost": 1}, "scalar": 5}, "kept": {"x": {"y": 1}, "inner": {"z": 1}},
            "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "n", "labels": {"a": "b"}, "wrong": 1, "creationTimestamp": null},
                "other": 1, "spec": {"a": "1", "b": 1}},
        },
    });
    let pruned = schema.prune(&mut object);
    assert_eq!(
        pruned,
        [
            "extra",
            "spec.any.k.lost",
            "spec.foo",
            "spec.kept.inner.z",
            "spec.list[1].bar",
            "spec.map.k.b",
            "spec.template.other",
            "spec.template.spec.b",
            "spec.template.metadata.wrong",
        ]
    );
    assert_eq!(
        object,
        json!({
            "apiVersion": "a/v1", "kind": "A", "metadata": {"name": "a", "foo": 1},
            "spec": {
                "known": "x", "list": [{"a": "1"}, {}], "map": {"k": {}}, "any": {"k": {}, "scalar": 5},
                "kept": {"x": {"y": 1}, "inner": {}},
                "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "n", "labels": {"a": "b"}}, "spec": {"a": "1"}},
            },
        })
    );
    assert!(schema.prune(&mut object).is_empty());
}

#[test]
fn defaults_are_set_and_nulls_removed() {
    let schema = structural(json!({"type": "object", "properties": {
        "spec": {"type": "object", "default": {}, "properties": {
            "a": {"type": "string", "default": "A"},
            "b": {"type": "string", "nullable": true, "default": "B"},
            "c": {"type": "string"},
            "d": {"type": "string", "nullable": true},
            "list": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "integer", "default": 1}}}},
            "map": {"type": "object", "additionalProperties": {"type": "integer", "default": 5}},
        }},
    }}));
    for (object, expected) in [
        (json!({}), json!({"spec": {"a": "A", "b": "B"}})),
        (json!({"spec": null}), json!({"spec": {"a": "A", "b": "B"}})),
        (
            json!({"metadata": {"x": null}, "spec": {"a": null, "b": null, "c": null, "d": null, "list": [{}, {"x": 2}], "map": {"k": null}}}),
            json!({"metadata": {"x": null}, "spec": {"a": "A", "b": null, "d": null, "list": [{"x": 1}, {"x": 2}], "map": {"k": 5}}}),
        ),
    ] {
        let mut defaulted = object;
        schema.default(&mut defaulted).unwrap();
        assert_eq!(defaulted, expected);
        let again = defaulted.clone();
        schema.default(&mut defaulted).unwrap();
        assert_eq!(defaulted, again, "idempotent");
    }
}

/// Defaults of many elements are bounded together: an object that would get too large is left as it is,
/// cannot be read, and is refused.
#[test]
fn defaults_do_not_multiply_without_bound() {
    let text = "x".repeat(100 << 10);
    let of = |items: Value, defaults: Value| {
        let list = json!({"type": "array", "items": items, "default": defaults});
        Structural::new(&json!({"type": "object", "properties": {
            "list": list, "status": {"type": "object"}}}))
        .unwrap()
    };
    let element =
        json!({"type": "object", "properties": {"x": {"type": "string", "default": text}}});
    let inner = json!({"type": "array", "default": vec![json!({}); 1000], "items": element});
    let outer = json!({"type": "object", "properties": {"inner": inner}});
    let nullable = json!({"type": "string", "default": text});
    let elements = |count: usize, element: Value| json!({"list": vec![element; count]});
    let plain = of(element, json!([]));
    for (structural, object) in [
        (&plain, elements(300_000, json!({}))),
        (&plain, elements(31, json!({}))),
        (&of(nullable, json!([])), elements(300_000, Value::Null)),
        (&of(outer, json!(vec![json!({}); 100_000])), json!({})),
    ] {
        let mut read = object.clone();
        assert_eq!(structural.default(&mut read), Err(TooLarge));
        assert_eq!(structural.read(&mut read), Err(TooLarge));
        assert_eq!(read, object);
        let message = "<nil>: Forbidden: the defaults of its schema have more than 3145728 bytes";
        let found =
            [structural.validate(&object, None), structural.validate_status(&object, &object)];
        for found in found {
            assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), [message]);
        }
    }
    let mut fits = elements(30, json!({}));
    assert_eq!(plain.default(&mut fits), Ok(true));
    assert_eq!(fits["list"][29]["x"], text);
    assert_eq!(plain.validate(&fits, None), []);
}

#[test]
fn embedded_objects_are_checked() {
    let schema = of(
        json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
    );
    assert_eq!(
        errors(&schema, json!({"x": {}}), None),
        ["x.apiVersion: Required value", "x.kind: Required value"]
    );
    let wrong = json!({"x": {"apiVersion": "a/b/c", "kind": "9", "metadata": {"name": "a/b", "labels": {"a b": "c"}}}});
    let found = errors(&schema, wrong, None);
    assert_eq!(
        found[0],
        r#"x.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c"#
    );
    assert!(found[1].starts_with(
        r#"x.kind: Invalid value: "9": may have mixed case, but should otherwise match: "#
    ));
    assert_eq!(found[2], r#"x.metadata.name: Invalid value: "a/b": may not contain '/'"#);
    assert!(found[3].starts_with(r#"x.metadata.labels: Invalid value: "a b""#));
    let malformed = json!({"x": {"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": 5}}});
    assert!(
        errors(&schema, malformed, None)[0]
            .starts_with("x.metadata: Invalid value: {\"labels\":5}: json: cannot unmarshal")
    );
}

#[test]
fn status_updates_judge_the_status() {
    let schema = structural(json!({"type": "object", "properties": {
        "spec": {"type": "integer"}, "status": {"type": "object", "properties": {"n": {"type": "integer"}}}}}));
    let new = json!({"spec": "wrong", "status": {"n": "x"}});
    let found: Vec<String> =
        schema.validate_status(&new, &json!({})).iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [r#"status.n: Invalid value: "string": n in body must be of type integer: "string""#]
    );
}

#[test]
fn what_is_no_schema_is_refused() {
    for (schema, error) in [
        (json!(5), "a schema must be an object"),
        (json!({"type": "null"}), "unsupported type \"null\""),
        (json!({"$ref": "#/x"}), "OpenAPIV3Schema '$ref' is not supported"),
        (json!({"$schema": "x"}), "OpenAPIV3Schema 'schema' is not supported"),
        (json!({"items": []}), "OpenAPIV3Schema 'items' must be a schema, but is an array"),
    ] {
        assert_eq!(Structural::new(&schema).unwrap_err().to_string(), error);
    }
    let mut deep = json!({});
    for _ in 0..200 {
        deep = json!({"items": deep});
    }
    assert_eq!(Structural::new(&deep).unwrap_err(), super::SchemaError::TooDeep);
}

/// Random schemas with random objects, most of whose fields the schema has.
mod properties {
    use super::*;
    use proptest::prelude::*;

    fn leaf() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(json!({"type": "string", "default": "d"})),
            Just(json!({"type": "string", "nullable": true, "enum": ["a", "b"]})),
            Just(json!({"type": "string", "pattern": "^[a-z]*$", "maxLength": 3})),
            Just(json!({"type": "integer", "minimum": 0, "multipleOf": 2})),
            Just(json!({"type": "number", "maximum": 1.5})),
            Just(json!({"type": "boolean", "default": true})),
            Just(json!({"x-kubernetes-int-or-string": true})),
            Just(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})),
            Just(
                json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true})
            ),
        ]
    }

    fn schema() -> impl Strategy<Value = Value> {
        leaf().prop_recursive(4, 24, 4, |inner| {
            let names = proptest::sample::select(vec!["a", "b", "c", "metadata", "k"]);
            prop_oneof![
                (proptest::collection::btree_map(names, inner.clone(), 0..4), any::<bool>()).prop_map(
                    |(properties, required)| {
                        let required = if required { json!(["a"]) } else { json!([]) };
                        json!({"type": "object", "properties": properties, "required": required,
                            "anyOf": [{"required": ["a"]}, {"properties": {"b": {"enum": [1, "x"]}}}]})
                    }
                ),
                inner.clone().prop_map(|items| json!({"type": "array", "items": items, "maxItems": 2})),
                inner.clone().prop_map(|value| json!({"type": "object", "additionalProperties": value})),
                inner.prop_map(|value| json!({"type": "array", "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["k"],
                    "items": {"type": "object", "properties": {"k": {"type": "string", "default": "key"}, "a": value}}})),
            ]
        })
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-3_i64..9).prop_map(Value::from),
            (-2.0..2.0_f64).prop_map(Value::from),
            "[abx]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let names =
                proptest::sample::select(vec!["a", "b", "c", "k", "metadata", "kind", "zz"]);
            prop_oneof![
                proptest::collection::btree_map(names, inner.clone(), 0..4)
                    .prop_map(|map| json!(map)),
                proptest::collection::vec(inner, 0..4).prop_map(Value::from),
            ]
        })
    }

    proptest! {
        #[test]
        fn walks_are_idempotent(schema in schema(), value in value()) {
            let structural = of(schema);
            let mut object = json!({"apiVersion": "a/v1", "kind": "A", "x": value, "unknown": 1});
            structural.prune(&mut object);
            let pruned = object.clone();
            prop_assert!(structural.prune(&mut object).is_empty());
            prop_assert_eq!(&object, &pruned);
            structural.default(&mut object).unwrap();
            let defaulted = object.clone();
            structural.default(&mut object).unwrap();
            prop_assert_eq!(&object, &defaulted);
        }

        #[test]
        fn what_is_read_as_stored_is_found_without_building_it(schema in schema(), value in value()) {
            let structural = of(schema);
            let mut object = json!({"apiVersion": "a/v1", "kind": "A", "metadata": {"n": [null]}, "x": value});
            let is_kept = |object: &Value| {
                structural.is_read_as_stored(object.to_string().as_bytes(), "a/v1")
            };
            let (found, before) = (is_kept(&object), object.clone());
            let changed = structural.read(&mut object).unwrap();
            prop_assert_eq!(changed, object != before);
            prop_assert!(!found || !changed);
            // What has been read once is, unless there are objects in it with metadata.
            prop_assert!(is_kept(&object) || structural.has.embedded, "{}", object);
            prop_assert!(!structural.is_read_as_stored(object.to_string().as_bytes(), "a/v2"));
        }

        #[test]
        fn what_is_valid_stays_valid(schema in schema(), value in value()) {
            let structural = of(schema);
            let mut object = json!({"apiVersion": "a/v1", "kind": "A", "x": value});
            structural.prune(&mut object);
            structural.default(&mut object).unwrap();
            if structural.validate(&object, None).is_empty() {
                prop_assert!(structural.validate(&object, Some(&object)).is_empty());
            }
            structural.validate(&object, Some(&Value::Null));
            structural.validate_status(&object, &object);
        }

        #[test]
        fn any_json_may_be_a_schema(schema in value(), value in value()) {
            if let Ok(structural) = Structural::new(&json!({"properties": {"x": schema}, "items": value.clone()})) {
                let mut object = json!({"x": value});
                structural.prune(&mut object);
                structural.default(&mut object).unwrap();
                structural.validate(&object, None);
            }
        }
    }
}
