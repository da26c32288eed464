use serde_json::{Value, json};

use super::{default, validate};

/// A valid definition with the schema of its one version.
fn definition(schema: Value) -> Value {
    let mut definition = json!({
        "metadata": {"name": "foos.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "foos", "kind": "Foo"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    });
    default(&mut definition);
    definition
}

fn object() -> Value {
    json!({"type": "object"})
}

fn errors(definition: &Value) -> Vec<String> {
    validate(definition, None).iter().map(ToString::to_string).collect()
}

/// The errors of a definition after a change of a valid one.
fn after(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut changed = definition(object());
    change(&mut changed);
    errors(&changed)
}

/// The errors of a schema, without the path to it.
fn of_schema(schema: Value) -> Vec<String> {
    let found = errors(&definition(schema));
    found.iter().map(|error| error.replace("spec.validation.openAPIV3Schema", "")).collect()
}

/// The errors of the schema of a property.
fn of_property(schema: Value) -> Vec<String> {
    let found = of_schema(json!({"type": "object", "properties": {"x": schema}}));
    found.iter().map(|error| error.replace(".properties[x]", "")).collect()
}

#[test]
fn defaults_complete_names_and_status() {
    let found = definition(object());
    assert_eq!(
        found["spec"]["names"],
        json!({"plural": "foos", "kind": "Foo", "singular": "foo", "listKind": "FooList"})
    );
    assert_eq!(found["spec"]["conversion"], json!({"strategy": "None"}));
    assert_eq!(found["status"]["storedVersions"], json!(["v1"]));
    let mut again = found.clone();
    default(&mut again);
    assert_eq!(again, found);
    assert_eq!(errors(&found), Vec::<String>::new());
}

#[test]
fn names_and_groups() {
    let name = after(|d| d["metadata"]["name"] = json!("foo.example.com"));
    assert_eq!(
        name,
        [
            r#"metadata.name: Invalid value: "foo.example.com": must be spec.names.plural+"."+spec.group"#
        ]
    );
    assert_eq!(
        after(|d| {
            d["spec"]["group"] = json!("example");
            d["metadata"]["name"] = json!("foos.example");
        }),
        [r#"spec.group: Invalid value: "example": should be a domain with at least one dot"#]
    );
    assert_eq!(
        after(|d| d["spec"]["scope"] = json!("Global")),
        [r#"spec.scope: Unsupported value: "Global": supported values: "Cluster", "Namespaced""#,]
    );
    assert_eq!(
        after(|d| d["spec"]["names"]["listKind"] = json!("Foo")),
        [r#"spec.names.listKind: Invalid value: "Foo": kind and listKind may not be the same"#,]
    );
    assert!(after(|d| d["spec"]["names"]["kind"] = json!("Foo!"))[0].starts_with(
        r#"spec.names.kind: Invalid value: "Foo!": may have mixed case, but should otherwise match: a DNS-1035 label"#
    ));
    assert!(
        after(|d| d["spec"]["names"]["shortNames"] = json!(["F"]))[0]
            .starts_with("spec.names.shortNames[0]: Invalid value")
    );
    assert_eq!(
        after(|d| d["spec"]["names"]["kind"] = json!("")),
        ["spec.names.kind: Required value"]
    );
    assert_eq!(
        after(|d| d["spec"]["preserveUnknownFields"] = json!(true)),
        [
            "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ]
    );
}

#[test]
fn community_groups_need_approval() {
    let with = |annotation: Option<&str>| {
        after(|d| {
            d["spec"]["group"] = json!("x.k8s.io");
            d["metadata"]["name"] = json!("foos.x.k8s.io");
            if let Some(text) = annotation {
                d["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": text});
            }
        })
    };
    assert_eq!(
        with(None),
        [
            "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111",
        ]
    );
    assert!(with(Some("https://github.com/kubernetes/kubernetes/pull/78458")).is_empty());
    assert!(with(Some("unapproved, experimental")).is_empty());
    assert!(with(Some("yes"))[0].contains("with either a URL or a reason"));
}

#[test]
fn versions_are_checked() {
    assert_eq!(after(|d| d["spec"]["versions"][0]["storage"] = json!(false)).len(), 1);
    assert!(
        after(|d| d["spec"]["versions"][0]["storage"] = json!(false))[0]
            .ends_with("must have exactly one version marked as storage version")
    );
    assert_eq!(
        after(|d| d["spec"]["versions"][0]["schema"] = Value::Null),
        ["spec.versions[0].schema.openAPIV3Schema: Required value",]
    );
    assert_eq!(
        after(|d| d["spec"]["versions"][0]["deprecationWarning"] = json!("x")),
        [
            r#"spec.versions[0].deprecationWarning: Invalid value: "x": can only be set for deprecated versions"#,
        ]
    );
    assert_eq!(
        after(|d| d["status"]["storedVersions"] = json!(["v0"])),
        [
            r#"status.storedVersions: Invalid value: ["v0"]: must have the storage version v1"#,
            "status.storedVersions[0]: Invalid value: \"v0\": missing from spec.versions; v0 was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v0 and removes v0 from status.storedVersions",
        ]
    );
    let twice = after(|d| {
        let first = d["spec"]["versions"][0].clone();
        d["spec"]["versions"].as_array_mut().unwrap().push(first);
    });
    assert!(twice.iter().any(|error| error.ends_with("must contain unique version names")));
    let differing = after(|d| {
        let mut second = d["spec"]["versions"][0].clone();
        second["name"] = json!("v2");
        second["storage"] = json!(false);
        second["schema"]["openAPIV3Schema"] = json!({"type": "string"});
        d["spec"]["versions"].as_array_mut().unwrap().push(second);
    });
    assert_eq!(
        differing,
        [
            r#"spec.versions[1].schema.openAPIV3Schema.type: Invalid value: "string": must be object at the root"#,
        ]
    );
}

#[test]
fn established_names_are_immutable() {
    let mut old = definition(object());
    let mut new = old.clone();
    new["spec"]["scope"] = json!("Cluster");
    assert!(validate(&new, Some(&old)).is_empty());
    old["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
    let found: Vec<String> = validate(&new, Some(&old)).iter().map(ToString::to_string).collect();
    assert_eq!(found, [r#"spec.scope: Invalid value: "Cluster": field is immutable"#]);
}

#[test]
fn schemas_must_be_structural() {
    for (schema, expected) in [
        (json!({}), ".type: Required value: must not be empty at the root"),
        (
            json!({"type": "object", "nullable": true}),
            ".nullable: Forbidden: nullable cannot be true at the root",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            ".additionalProperties: Forbidden: must not be used at the root",
        ),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
            ".properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "not": {"properties": {"b": {}}}}),
            ".properties[b]: Required value: because it is defined in .not.properties[b]",
        ),
        (
            json!({"type": "object", "properties": {"kind": {"type": "object"}}}),
            r#".properties[kind].type: Invalid value: "object": must be string"#,
        ),
    ] {
        assert_eq!(of_schema(schema.clone()), [expected], "{schema}");
    }
    for (schema, expected) in [
        (json!({}), ".type: Required value: must not be empty for specified object fields"),
        (json!({"type": "array"}), ".items: Required value: must be specified"),
        (
            json!({"type": "array", "items": {}}),
            ".items.type: Required value: must not be empty for specified array items",
        ),
        (
            json!({"type": "string", "pattern": "("}),
            ".pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: error parsing regexp: unclosed group: `(`",
        ),
        (
            json!({"type": "object", "anyOf": [{"type": "object"}]}),
            ".anyOf[0].type: Forbidden: must be empty to be structural",
        ),
        (
            json!({"type": "string", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
            r#".type: Invalid value: "string": must be object if x-kubernetes-embedded-resource is true"#,
        ),
        (
            json!({"x-kubernetes-int-or-string": true, "x-kubernetes-preserve-unknown-fields": true}),
            ".x-kubernetes-preserve-unknown-fields: Invalid value: true: must be false if x-kubernetes-int-or-string is true",
        ),
    ] {
        assert_eq!(of_property(schema.clone()), [expected], "{schema}");
    }
    let allowed = json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]});
    assert!(of_property(allowed).is_empty());
}

#[test]
fn extensions_are_checked() {
    for (schema, expected) in [
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
            vec![
                ".additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
            ],
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true}),
            vec![
                ".uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            ],
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "bag"}),
            vec![
                r#".x-kubernetes-list-type: Unsupported value: "bag": supported values: "atomic", "set", "map""#,
            ],
        ),
        (
            json!({"type": "string", "x-kubernetes-list-type": "set"}),
            vec![
                r#".type: Invalid value: "string": must be array if x-kubernetes-list-type is specified"#,
            ],
        ),
        (
            json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "set"}),
            vec![
                r#".items.x-kubernetes-map-type: Invalid value: "null": must be atomic as item of a list with x-kubernetes-list-type=set"#,
            ],
        ),
        (
            json!({"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}}}, "x-kubernetes-list-type": "map"}),
            vec![
                ".x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
            ],
        ),
        (
            json!({"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}}}, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}),
            vec![
                ".items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            ],
        ),
        (
            json!({"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}}}, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["z"]}),
            vec![
                r#".x-kubernetes-list-map-keys: Invalid value: ["z"]: entries must all be names of item properties"#,
            ],
        ),
        (
            json!({"type": "object", "x-kubernetes-map-type": "x"}),
            vec![
                r#".x-kubernetes-map-type: Unsupported value: "x": supported values: "atomic", "granular""#,
            ],
        ),
        (
            json!({"type": "object", "x-kubernetes-validations": [{"rule": " "}]}),
            vec![".x-kubernetes-validations[0].rule: Required value: rule is not specified"],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "x-kubernetes-validations": [{"rule": "true", "fieldPath": ".b"}]}),
            vec![
                r#".x-kubernetes-validations[0].fieldPath: Invalid value: ".b": must be a valid path"#,
            ],
        ),
        (
            json!({"type": "object", "x-kubernetes-validations": [{"rule": "true", "reason": "Because"}]}),
            vec![
                r#".x-kubernetes-validations[0].reason: Unsupported value: "Because": supported values: "FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired""#,
            ],
        ),
    ] {
        assert_eq!(of_property(schema.clone()), expected, "{schema}");
    }
    assert_eq!(
        of_property(json!({"type": "object", "$ref": "#/definitions/x"})),
        [".$ref: Forbidden: $ref is not supported"]
    );
}

#[test]
fn defaults_must_be_valid_and_pruned() {
    for (schema, expected) in [
        (
            json!({"type": "integer", "default": "x"}),
            r#".default: Invalid value: "string": "#.to_owned()
                + r#" in body must be of type integer: "string""#,
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "default": {"b": 1}}),
            r#".default: Invalid value: {"b":1}: must not have unknown fields"#.to_owned(),
        ),
    ] {
        assert_eq!(of_property(schema.clone()), [expected], "{schema}");
    }
    assert_eq!(
        of_schema(
            json!({"type": "object", "properties": {"metadata": {"type": "object", "default": {}}}})
        ),
        [".properties[metadata].default: Forbidden: must not be set in top-level metadata",]
    );
    assert!(of_property(json!({"type": "integer", "default": 5})).is_empty());
}

#[test]
fn conversion_is_checked() {
    let with = |conversion: Value| after(|d| d["spec"]["conversion"] = conversion);
    assert_eq!(
        with(json!({"strategy": "Webhook"})),
        [
            "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
            "spec.conversion.conversionReviewVersions: Required value",
        ]
    );
    let webhook = |client: Value| json!({"strategy": "Webhook", "webhook": {"clientConfig": client, "conversionReviewVersions": ["v1"]}});
    assert!(with(webhook(json!({"url": "https://example.com/convert"}))).is_empty());
    assert!(
        with(webhook(
            json!({"service": {"name": "a", "namespace": "b", "port": 443, "path": "/x"}})
        ))
        .is_empty()
    );
    assert_eq!(
        with(webhook(json!({"url": "http://u@example.com/a?b#c"}))),
        [
            r#"spec.conversion.webhookClientConfig.url: Invalid value: "http": 'https' is the only allowed URL scheme; desired format: https://host[/path]"#,
            r#"spec.conversion.webhookClientConfig.url: Invalid value: "u": user information is not permitted in the URL"#,
            r#"spec.conversion.webhookClientConfig.url: Invalid value: "c": fragments are not permitted in the URL"#,
            r#"spec.conversion.webhookClientConfig.url: Invalid value: "b": query parameters are not permitted in the URL"#,
        ]
    );
    assert_eq!(
        with(webhook(json!({}))),
        [
            "spec.conversion.webhookClientConfig: Required value: exactly one of url or service is required",
        ]
    );
    let reviews = json!({"strategy": "Webhook", "webhook": {"clientConfig": {"url": "https://a"}, "conversionReviewVersions": ["v7", "v7"]}});
    assert_eq!(
        with(reviews),
        [
            r#"spec.conversion.conversionReviewVersions[1]: Invalid value: "v7": duplicate version"#,
            r#"spec.conversion.conversionReviewVersions: Invalid value: ["v7","v7"]: must include at least one of v1, v1beta1"#,
        ]
    );
    assert_eq!(
        with(json!({"strategy": "None", "webhook": {"clientConfig": {"url": "https://a"}}})),
        [
            "spec.conversion.webhookClientConfig: Forbidden: should not be set when strategy is not set to Webhook",
        ]
    );
}

#[test]
fn columns_subresources_and_selectable_fields() {
    assert_eq!(
        after(|d| d["spec"]["versions"][0]["additionalPrinterColumns"] =
            json!([{"name": "A", "type": "text", "jsonPath": "spec"}])),
        [
            r#"spec.additionalPrinterColumns[0].type: Invalid value: "text": must be one of boolean,date,integer,number,string"#,
            r#"spec.additionalPrinterColumns[0].JSONPath: Invalid value: "spec": must be a simple json path starting with ."#,
        ]
    );
    assert_eq!(
        after(|d| d["spec"]["versions"][0]["subresources"] =
            json!({"scale": {"specReplicasPath": ".status.x"}})),
        [
            r#"spec.subresources.scale.specReplicasPath: Invalid value: ".status.x": should be a json path under .spec"#,
            "spec.subresources.scale.statusReplicasPath: Required value",
        ]
    );
    let selectable = |fields: Value| {
        let mut changed = definition(json!({"type": "object", "properties": {
            "metadata": {"type": "object"},
            "spec": {"type": "object", "properties": {"a": {"type": "string"}, "o": {"type": "object"}}}}}));
        changed["spec"]["versions"][0]["selectableFields"] = fields;
        errors(&changed)
    };
    assert!(selectable(json!([{"jsonPath": ".spec.a"}])).is_empty());
    assert_eq!(
        selectable(
            json!([{"jsonPath": ".spec.b"}, {"jsonPath": ".spec.o"}, {"jsonPath": ".spec.a"}, {"jsonPath": ".spec.a"}, {"jsonPath": ".spec['a']"}, {}])
        ),
        [
            r#"spec.selectableFields[0].jsonPath: Invalid value: ".spec.b": is an invalid path: does not refer to a valid field"#,
            r#"spec.selectableFields[1].jsonPath: Invalid value: ".spec.o": must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed."#,
            r#"spec.selectableFields[3].jsonPath: Duplicate value: ".spec.a""#,
            r#"spec.selectableFields[4].jsonPath: Invalid value: ".spec['a']": is an invalid path: array notation is not allowed"#,
            "spec.selectableFields[5].jsonPath: Required value",
        ]
    );
    let status = after(|d| {
        d["spec"]["versions"][0]["subresources"] = json!({"status": {}});
        d["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["oneOf"] =
            json!([{"required": ["a"]}]);
    });
    assert!(
        status[0].contains(
            "fields are allowed at the root of the schema if the status subresource is enabled"
        ),
        "{status:?}"
    );
}

#[test]
fn no_definition_panics() {
    for wrong in [
        json!(null),
        json!(5),
        json!({"spec": 5}),
        json!({"spec": {"versions": [1, {"schema": 7}], "names": []}}),
        json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": {"type": 5, "items": 7, "properties": [], "allOf": {}}}}]}, "status": []}),
    ] {
        let mut changed = wrong.clone();
        default(&mut changed);
        assert!(!validate(&changed, Some(&wrong)).is_empty());
        assert!(!validate(&changed, None).is_empty());
    }
}
