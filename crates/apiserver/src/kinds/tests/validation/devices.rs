use serde_json::{Value, json};

use super::core::object;
use super::{check, check_updates, with};

const V1: &str = "resource.k8s.io/v1";
const ONE: &str = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

fn devices() -> Value {
    json!({"requests": [
        {"name": "one", "exactly": {"deviceClassName": "gpu", "tolerations": [{"key": "k", "operator": "Exists"}]}},
        {"name": "other", "firstAvailable": [{"name": "big", "deviceClassName": "gpu"}, {"name": "all", "deviceClassName": "gpu", "allocationMode": "All"}]},
    ], "constraints": [{"requests": ["one", "other/big"], "matchAttribute": "gpu.example.com/model"}],
        "config": [{"requests": ["one"], "opaque": {"driver": "gpu.example.com", "parameters": {"a": 1}}}]})
}

#[test]
fn claims() {
    let claim = object(V1, "ResourceClaim", json!({"spec": {"devices": devices()}}));
    let exactly = "/spec/devices/requests/0/exactly";
    let at = |field: &str| format!("{exactly}/{field}");
    check(
        &claim,
        &[
            (
                "/spec/devices/requests/0/name",
                json!("A"),
                &[
                    "spec.devices.requests[0].name: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
                    &format!(
                        "spec.devices.constraints[0].requests[0]: Invalid value: \"one\": {ONE}"
                    ),
                    &format!("spec.devices.config[0].requests[0]: Invalid value: \"one\": {ONE}"),
                ],
            ),
            (
                "/spec/devices/requests/1/name",
                json!("one"),
                &[
                    "spec.devices.requests[1]: Duplicate value: \"one\"",
                    &format!(
                        "spec.devices.constraints[0].requests[1]: Invalid value: \"other/big\": {ONE}"
                    ),
                ],
            ),
            (
                exactly,
                Value::Null,
                &[
                    "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
                ],
            ),
            (
                &at("deviceClassName"),
                json!(""),
                &["spec.devices.requests[0].exactly.deviceClassName: Required value"],
            ),
            (
                &at("count"),
                json!(-1),
                &[
                    "spec.devices.requests[0].exactly.count: Invalid value: -1: must be greater than zero",
                ],
            ),
            (
                &at("allocationMode"),
                json!("Some"),
                &[
                    "spec.devices.requests[0].exactly.allocationMode: Unsupported value: \"Some\": supported values: \"All\", \"ExactCount\"",
                ],
            ),
            (
                &at("selectors"),
                json!([{}]),
                &["spec.devices.requests[0].exactly.selectors[0].cel: Required value"],
            ),
            (&at("selectors"), json!([{"cel": {"expression": "device.driver == 'x'"}}]), &[]),
            (
                &at("tolerations/0/value"),
                json!("v"),
                &[
                    "spec.devices.requests[0].exactly.tolerations[0].value: Invalid value: \"v\": must be empty for operator `Exists`",
                ],
            ),
            (
                &at("tolerations/0/effect"),
                json!("Never"),
                &[
                    "spec.devices.requests[0].exactly.tolerations[0].effect: Unsupported value: \"Never\": supported values: \"NoExecute\", \"NoSchedule\", \"None\"",
                ],
            ),
            (
                "/spec/devices/constraints/0/matchAttribute",
                json!("model"),
                &[
                    "spec.devices.constraints[0].matchAttribute: Invalid value: \"model\": a fully qualified name must be a domain and a name separated by a slash",
                ],
            ),
            (
                "/spec/devices/config/0/opaque",
                Value::Null,
                &["spec.devices.config[0].opaque: Required value"],
            ),
            (
                "/spec/devices/config/0/opaque/parameters",
                json!([1]),
                &[
                    "spec.devices.config[0].opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object",
                ],
            ),
        ],
    );
    let many = |count: usize| {
        Value::from(vec![json!({"name": "x", "exactly": {"deviceClassName": "c"}}); count])
    };
    let plain = object(V1, "ResourceClaim", json!({"spec": {"devices": {"requests": []}}}));
    check(
        &plain,
        &[(
            "/spec/devices/requests",
            many(33),
            &["spec.devices.requests: Too many: 33: must have at most 32 items"],
        )],
    );
    let template = object(
        V1,
        "ResourceClaimTemplate",
        json!({"spec": {"metadata": {"labels": {"a": "b"}}, "spec": {"devices": devices()}}}),
    );
    check(
        &template,
        &[(
            "/spec/spec/devices/requests/0/exactly/deviceClassName",
            json!(""),
            &["spec.spec.devices.requests[0].exactly.deviceClassName: Required value"],
        )],
    );
    let changed = with(&claim, "/spec/devices", json!({"requests": []}));
    let shown = "spec: Invalid value: {\"devices\":{\"requests\":[]}}: field is immutable";
    check_updates(&claim, &[("/spec", changed["spec"].clone(), &[shown])]);
}

#[test]
fn slices() {
    let slice = object(
        V1,
        "ResourceSlice",
        json!({"spec": {"driver": "gpu.example.com", "nodeName": "n",
        "pool": {"name": "n/p", "generation": 1, "resourceSliceCount": 1},
        "devices": [{"name": "gpu-0", "attributes": {"model": {"string": "m"}}, "capacity": {"memory": {"value": "1Gi"}},
            "taints": [{"key": "k", "effect": "NoSchedule"}]}]}}),
    );
    let place = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    check(
        &slice,
        &[
            ("/spec/driver", json!(""), &["spec.driver: Required value"]),
            (
                "/spec/pool/resourceSliceCount",
                json!(0),
                &["spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero"],
            ),
            ("/spec/nodeName", Value::Null, &[&format!("spec: Required value: {place}")]),
            (
                "/spec/allNodes",
                json!(true),
                &[&format!(
                    "spec: Invalid value: \"{{`nodeName`, `allNodes`}}\": {place}, but multiple fields are set"
                )],
            ),
            (
                "/spec/allNodes",
                json!(false),
                &["spec.allNodes: Invalid value: false: must be either unset or set to true"],
            ),
            (
                "/spec/sharedCounters",
                json!([]),
                &[
                    "spec: Invalid value: \"\": only one of `sharedCounters` or `devices` is allowed",
                ],
            ),
            (
                "/spec/devices/0/attributes/model",
                json!({}),
                &[
                    "spec.devices[0].attributes[model]: Invalid value: \"\": exactly one value must be specified",
                ],
            ),
            (
                "/spec/devices/0/attributes/model",
                json!({"version": "1.2"}),
                &[
                    "spec.devices[0].attributes[model].version: Invalid value: \"1.2\": must be a string compatible with semver.org spec 2.0.0",
                ],
            ),
            (
                "/spec/devices/0/attributes/model",
                json!({"ints": []}),
                &[
                    "spec.devices[0].attributes[model].ints: Invalid value: []: must not be empty if specified",
                ],
            ),
            (
                "/spec/devices/0/taints/0/effect",
                json!(""),
                &["spec.devices[0].taints[0].effect: Required value"],
            ),
            (
                "/spec/devices/0/nodeName",
                json!("n"),
                &[
                    "spec.devices[0]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
                ],
            ),
            (
                "/spec/devices/0/bindingFailureConditions",
                json!(["bad"]),
                &[
                    "spec.devices[0].bindingConditions: Invalid value: null: bindingConditions are required to use bindingFailureConditions",
                ],
            ),
            (
                "/spec/devices/0/capacity/memory/requestPolicy",
                json!({"default": "1"}),
                &[
                    "spec.devices[0].capacity[memory].requestPolicy: Forbidden: allowMultipleAllocations must be true",
                ],
            ),
        ],
    );
    let shared = with(&slice, "/spec/devices/0/allowMultipleAllocations", json!(true));
    let policy = "/spec/devices/0/capacity/memory/requestPolicy";
    check(
        &shared,
        &[
            (policy, json!({"default": "1Mi", "validRange": {"min": "1Mi", "step": "1Mi"}}), &[]),
            (
                policy,
                json!({"validRange": {"min": "1Mi"}}),
                &[
                    "spec.devices[0].capacity[memory].requestPolicy.default: Required value: required when validRange is defined",
                ],
            ),
            (
                policy,
                json!({"default": "1Mi", "validRange": {"min": "2Gi"}}),
                &[
                    "spec.devices[0].capacity[memory].requestPolicy.validRange.min: Invalid value: \"2Gi\": min is larger than capacity value: 1Gi",
                    "spec.devices[0].capacity[memory].requestPolicy.validRange.min: Invalid value: \"1Mi\": default is less than min: 2Gi",
                ],
            ),
            (
                policy,
                json!({"default": "3Mi", "validValues": ["1Mi", "2Mi"]}),
                &[
                    "spec.devices[0].capacity[memory].requestPolicy.validValues: Invalid value: \"3Mi\": default value is not valid according to the requestPolicy",
                ],
            ),
        ],
    );
    check_updates(
        &slice,
        &[(
            "/spec/nodeName",
            json!("m"),
            &["spec.nodeName: Invalid value: \"m\": field is immutable"],
        )],
    );
}

#[test]
fn classes_and_rules() {
    let class = object(
        V1,
        "DeviceClass",
        json!({"spec": {"selectors": [{"cel": {"expression": "true"}}]}}),
    );
    check(
        &class,
        &[(
            "/spec/extendedResourceName",
            json!("cpu"),
            &[
                "spec.extendedResourceName: Invalid value: \"cpu\": must be a valid extended resource name",
            ],
        )],
    );
    let rule = object(
        V1,
        "DeviceTaintRule",
        json!({"spec": {"deviceSelector": {"pool": "p"}, "taint": {"key": "k", "effect": "None"}}}),
    );
    check(
        &rule,
        &[
            (
                "/spec/taint/effect",
                json!("Some"),
                &[
                    "spec.taint.effect: Unsupported value: \"Some\": supported values: \"NoExecute\", \"NoSchedule\", \"None\"",
                ],
            ),
            ("/spec/deviceSelector/pool", json!(""), &["spec.deviceSelector.pool: Required value"]),
        ],
    );
}

#[test]
fn ranges_and_addresses() {
    let range =
        object("networking.k8s.io/v1", "ServiceCIDR", json!({"spec": {"cidrs": ["10.0.0.0/24"]}}));
    check(
        &range,
        &[
            ("/spec/cidrs", json!([]), &["spec.cidrs: Required value: at least one CIDR required"]),
            (
                "/spec/cidrs",
                json!(["10.0.0.0/24", "10.1.0.0/24"]),
                &[
                    "spec.cidrs: Invalid value: [\"10.0.0.0/24\",\"10.1.0.0/24\"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96",
                ],
            ),
            (
                "/spec/cidrs",
                json!(["x"]),
                &[
                    "spec.cidrs[0]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
                ],
            ),
            (
                "/spec/cidrs",
                json!(["10.0.0.1/24"]),
                &[
                    "spec.cidrs[0]: Invalid value: \"10.0.0.1/24\": must not have bits set beyond the prefix length",
                ],
            ),
        ],
    );
    check_updates(
        &range,
        &[
            ("/spec/cidrs", json!(["10.0.0.0/24", "2001:db8::/96"]), &[]),
            (
                "/spec/cidrs",
                json!(["10.1.0.0/24"]),
                &["spec.cidrs[0]: Invalid value: \"10.1.0.0/24\": field is immutable"],
            ),
        ],
    );
    let address = object(
        "networking.k8s.io/v1",
        "IPAddress",
        json!({"spec": {"parentRef": {"resource": "services", "name": "s"}}}),
    );
    check(
        &address,
        &[(
            "/spec/parentRef",
            json!({}),
            &["spec.parentRef.resource: Required value", "spec.parentRef.name: Required value"],
        )],
    );
    let migration = object(
        "storagemigration.k8s.io/v1",
        "StorageVersionMigration",
        json!({"spec": {"resource": {"group": "apps", "resource": "deployments"}}}),
    );
    check(
        &migration,
        &[(
            "/spec/resource/resource",
            json!(""),
            &["spec.resource.resource: Required value: resource is required to be set"],
        )],
    );
}
