//! Bodies that are malformed, of another kind, or have fields that the kind does not have.

use serde_json::json;

use super::ask::Case;

const MAPS: &str = "v1/configmaps";
const BAD: (u16, &str) = (400, "BadRequest");
const INVALID: (u16, &str) = (422, "Invalid");
const UNTYPED: (u16, &str) = (500, "");

fn unrecognized(why: &str, shown: &str) -> String {
    format!(
        "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: {why} ({shown})"
    )
}

pub fn cases() -> Vec<Case> {
    let new = ("create", MAPS, "");
    let deployment = ("create", "apps/v1/deployments", "");
    let no_struct = "Go value of type struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }";
    let deep = [b"{\"data\":".repeat(50_000), b"1".to_vec(), b"}".repeat(50_000)].concat();
    let deep_list = [b"[".repeat(200_000), b"]".repeat(200_000)].concat();
    let huge = format!("{{\"data\":{{\"k\":\"{}\"}}}}", "x".repeat(3 << 20));
    let scheme = "in scheme \"pkg/api/legacyscheme/scheme.go:30\"";
    let strict = "fieldValidation=Strict";
    vec![
        // Malformed
        Case::new(new, "", BAD, unrecognized("unexpected end of JSON input", "<empty>")),
        Case::new(new, "{", BAD, unrecognized("unexpected end of JSON input", "{")),
        Case::new(new, "{\"metadata\":{\"name\":\"x\",}}", BAD, unrecognized(
            "invalid character '}' looking for beginning of object key string", "{\"metadata\":{\"name\":\"x\",}}")),
        Case::new(new, "metadata: {name: x}", BAD, unrecognized(
            "invalid character 'm' looking for beginning of value", "6d657461646174613a207b6e616d653a20787d")),
        Case::new(new, "[]", BAD, unrecognized(&format!("json: cannot unmarshal array into {no_struct}"), "5b5d")),
        Case::new(new, "5", BAD, unrecognized(&format!("json: cannot unmarshal number into {no_struct}"), "35")),
        Case::new(new, "\"x\"", BAD, unrecognized(&format!("json: cannot unmarshal string into {no_struct}"), "227822")),
        Case::new(new, b"\xff\xfe{}".to_vec(), BAD, "the object provided is unrecognized (must be of type ConfigMap)…"),
        Case::new(new, b"{\"data\":{\"k\":\"\xff\"}}".to_vec(), BAD, "the object provided is unrecognized (must be of type ConfigMap)…"),
        Case::new(new, deep, BAD, "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: exceeded max depth ({\"data\":{\"data\":{\"data\":{\"data ...)"),
        Case::new(new, deep_list, BAD, "the object provided is unrecognized (must be of type ConfigMap)…"),
        Case::new(new, "null", INVALID, "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required"),
        // Too large
        Case::new(new, huge.clone(), (413, "RequestEntityTooLarge"), "Request entity too large: limit is 3145728"),
        Case::new(("merge", MAPS, "plain"), huge, (413, "RequestEntityTooLarge"), "Request entity too large: limit is 3145728"),
        // Of another kind
        Case::new(new, json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}).to_string(), BAD,
            "Pod in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Pod) to (core.ConfigMap): unknown conversion"),
        Case::new(new, json!({"apiVersion": "v1", "kind": "Foo"}).to_string(), BAD,
            format!("Foo in version \"v1\" cannot be handled as a ConfigMap: no kind \"Foo\" is registered for version \"v1\" {scheme}")),
        Case::new(new, json!({"apiVersion": "v2", "kind": "ConfigMap"}).to_string(), BAD,
            format!("ConfigMap in version \"v2\" cannot be handled as a ConfigMap: no kind \"ConfigMap\" is registered for version \"v2\" {scheme}")),
        Case::new(deployment, json!({"apiVersion": "apps/v1beta1", "kind": "Deployment"}).to_string(), BAD,
            format!("Deployment in version \"v1beta1\" cannot be handled as a Deployment: no kind \"Deployment\" is registered for version \"apps/v1beta1\" {scheme}")),
        // Of the wrong type
        Case::new(new, json!({"metadata": {"name": 5}}).to_string(), BAD,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ObjectMeta.metadata.name of type string"),
        Case::new(new, json!({"metadata": []}).to_string(), BAD,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal array into Go struct field ConfigMap.metadata of type v1.ObjectMeta"),
        Case::new(new, json!({"data": {"k": 5}}).to_string(), BAD,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string"),
        Case::new(deployment, json!({"spec": {"replicas": "many"}}).to_string(), BAD,
            "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"),
        Case::new(("create", "v1/pods", ""), json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "lots"}}}]}}).to_string(), BAD,
            "Pod in version \"v1\" cannot be handled as a Pod: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"),
        // With unknown fields
        Case::new(new, json!({"metadata": {"name": "x"}, "nope": 1}).to_string(), BAD,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"nope\"").query(strict),
        Case::new(deployment, json!({"metadata": {"name": "x"}, "spec": {"template": {"spec": {"containers": [{"name": "c", "imagee": "i"}]}}}}).to_string(), BAD,
            "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: unknown field \"spec.template.spec.containers[0].imagee\"").query(strict),
        Case::new(new, "{\"metadata\":{\"name\":\"x\"},\"data\":{\"a\":\"1\",\"a\":\"2\"}}", BAD,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: duplicate field \"data.a\"").query(strict),
        Case::new(("merge", MAPS, "plain"), json!({"nope": 1}).to_string(), INVALID, " \"\" is invalid: patch: Invalid value: \"{…")
            .query(strict).causes(&[("patch", "FieldValueInvalid")]),
        Case::new(("strategic", MAPS, "plain"), json!({"data": 5}).to_string(), INVALID, " \"\" is invalid: patch: Invalid value: …")
            .causes(&[("patch", "FieldValueInvalid")]),
        // Elsewhere
        Case::new(new, json!({"metadata": {"name": "x", "namespace": "elsewhere"}}).to_string(), BAD,
            "the namespace of the provided object does not match the namespace sent on the request"),
        Case::new(("update", MAPS, "plain"), json!({"metadata": {"name": "other"}}).to_string(), BAD,
            "the name of the object (other) does not match the name on the URL (plain)"),
        // Patches
        Case::new(("json", MAPS, "plain"), "{}", BAD, "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"),
        Case::new(("json", MAPS, "plain"), "[", BAD, "error decoding patch: unexpected end of JSON input"),
        Case::new(("json", MAPS, "plain"), json!([{"op": "remove", "path": "/none"}]).to_string(), INVALID,
            "the server rejected our request due to an error in our request"),
        Case::new(("json", MAPS, "plain"), json!([{"op": "fly", "path": "/data"}]).to_string(), INVALID,
            "the server rejected our request due to an error in our request"),
        Case::new(("json", MAPS, "plain"), json!([{"op": "test", "path": "/data/k", "value": "w"}]).to_string(), INVALID,
            "the server rejected our request due to an error in our request"),
        Case::new(("json", MAPS, "plain"), "[{}]", INVALID,
            "the server rejected our request due to an error in our request"),
        Case::new(("json", MAPS, "plain"), format!("[{}{{\"op\":\"remove\",\"path\":\"/x\"}}]", "{\"op\":\"test\",\"path\":\"/data/k\",\"value\":\"v\"},".repeat(10_000)),
            (413, "RequestEntityTooLarge"), "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001"),
        Case::new(("merge", MAPS, "plain"), "[1]", BAD, "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"),
        Case::new(("merge", MAPS, "plain"), "{\"data\":", BAD, "error decoding patch: unexpected end of JSON input"),
        Case::new(("merge", MAPS, "missing"), "{}", (404, "NotFound"), "configmaps \"missing\" not found"),
        Case::new(("strategic", MAPS, "plain"), json!({"$patch": "fly"}).to_string(), BAD, "unknown patch type: fly in map: map[$patch:fly]"),
        Case::new(("apply", MAPS, "plain"), "apiVersion: v1", (422, "Invalid"),
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch").causes(&[("fieldManager", "FieldValueRequired")]),
        Case::new(("apply", "apps/v1/deployments", "web"), json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"nope": 1}}).to_string(), UNTYPED,
            "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): .spec.nope: field not declared in schema").query("fieldManager=me"),
        Case::new(("apply", "apps/v1/deployments", "web"), json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": "two", "paused": 1}}).to_string(), UNTYPED,
            "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): errors:\n  .spec.paused: expected boolean, got &{1}\n  .spec.replicas: expected numeric (int or float), got string").query("fieldManager=me"),
    ]
}
