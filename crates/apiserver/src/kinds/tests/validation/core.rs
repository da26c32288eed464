use serde_json::{Value, json};

use super::{check, check_updates};

pub(crate) fn object(api_version: &str, kind: &str, rest: Value) -> Value {
    let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x", "namespace": "n"}});
    for (field, value) in rest.as_object().unwrap() {
        object[field] = value.clone();
    }
    object
}

#[test]
fn services() {
    let base = object(
        "v1",
        "Service",
        json!({"spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}}),
    );
    check(
        &base,
        &[
            ("/spec/ports", json!([]), &["spec.ports: Required value"]),
            (
                "/spec/ports",
                json!([{"port": 80}, {"port": 81}]),
                &["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"],
            ),
            (
                "/spec/ports/0/port",
                json!(0),
                &[
                    "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                    "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
                ],
            ),
            (
                "/spec/ports/0/nodePort",
                json!(30000),
                &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
            ),
            (
                "/spec/type",
                json!("Nonsense"),
                &[
                    "spec.type: Unsupported value: \"Nonsense\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
                ],
            ),
            (
                "/spec/type",
                json!("ExternalName"),
                &[
                    "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
                    "spec.externalName: Required value",
                ],
            ),
            (
                "/spec/externalIPs",
                json!(["127.0.0.1"]),
                &[
                    "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                ],
            ),
            (
                "/spec/allocateLoadBalancerNodePorts",
                json!(true),
                &[
                    "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'",
                ],
            ),
        ],
    );
    check_updates(
        &base,
        &[
            ("/spec/clusterIP", Value::Null, &[]),
            (
                "/spec/clusterIP",
                json!("10.0.0.2"),
                &["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"],
            ),
            ("/spec/type", json!("NodePort"), &[]),
        ],
    );
}

#[test]
fn config_maps_and_secrets() {
    let map = object("v1", "ConfigMap", json!({"data": {"a": "b"}, "immutable": true}));
    check(
        &map,
        &[
            ("/data", json!({"..": ""}), &["data[..]: Invalid value: \"..\": must not be '..'"]),
            (
                "/data",
                json!({"a": "x".repeat(1 << 20)}),
                &["[]: Too long: may not be more than 1048576 bytes"],
            ),
        ],
    );
    check_updates(
        &map,
        &[
            (
                "/data/a",
                json!("c"),
                &["data: Forbidden: field is immutable when `immutable` is set"],
            ),
            (
                "/immutable",
                Value::Null,
                &["immutable: Forbidden: field is immutable when `immutable` is set"],
            ),
        ],
    );
    let secret = object("v1", "Secret", json!({"stringData": {"a": "b"}}));
    check(
        &secret,
        &[
            (
                "/type",
                json!("kubernetes.io/tls"),
                &["data[tls.crt]: Required value", "data[tls.key]: Required value"],
            ),
            (
                "/type",
                json!("kubernetes.io/dockerconfigjson"),
                &["data[.dockerconfigjson]: Required value"],
            ),
            (
                "/type",
                json!("kubernetes.io/service-account-token"),
                &["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
            ),
        ],
    );
    check_updates(
        &secret,
        &[
            ("/data/a", json!("Yw=="), &[]),
            ("/type", json!("x"), &["type: Invalid value: \"x\": field is immutable"]),
        ],
    );
}

#[test]
fn jobs() {
    let template =
        json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}});
    let job = object("batch/v1", "Job", json!({"spec": {"template": template}}));
    check(
        &job,
        &[
            (
                "/spec/template/spec/restartPolicy",
                Value::Null,
                &[
                    "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
                ],
            ),
            (
                "/spec/backoffLimit",
                json!(-1),
                &["spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0"],
            ),
            ("/spec/completionMode", json!("Indexed"), &[]),
        ],
    );
    check_updates(
        &job,
        &[
            ("/spec/parallelism", json!(2), &[]),
            (
                "/spec/template/spec/containers/0/image",
                json!("y"),
                &["spec.template: Invalid value: \"\": field is immutable"],
            ),
        ],
    );
    let cron = object(
        "batch/v1",
        "CronJob",
        json!({"spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": template}}}}),
    );
    check(
        &cron,
        &[
            ("/spec/schedule", json!("@hourly"), &[]),
            ("/spec/schedule", json!("@every 5m"), &[]),
            ("/spec/schedule", json!(""), &["spec.schedule: Required value"]),
            (
                "/spec/schedule",
                json!("TZ=UTC * * * * *"),
                &[
                    "spec.schedule: Invalid value: \"TZ=UTC * * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
                ],
            ),
            ("/spec/timeZone", json!("Europe/Zurich"), &[]),
            (
                "/spec/timeZone",
                json!("Mars/North"),
                &["spec.timeZone: Invalid value: \"Mars/North\": unknown time zone Mars/North"],
            ),
            (
                "/spec/concurrencyPolicy",
                json!("Maybe"),
                &[
                    "spec.concurrencyPolicy: Unsupported value: \"Maybe\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
                ],
            ),
        ],
    );
}

#[test]
fn rbac() {
    let group = "rbac.authorization.k8s.io/v1";
    let rule = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
    check(
        &object(group, "Role", json!({"rules": [rule]})),
        &[
            (
                "/rules/0/verbs",
                json!([]),
                &["rules[0].verbs: Required value: verbs must contain at least one value"],
            ),
            (
                "/rules/0/apiGroups",
                json!([]),
                &[
                    "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                ],
            ),
            (
                "/rules/0",
                json!({"nonResourceURLs": ["/x"], "verbs": ["get"]}),
                &[
                    "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs",
                ],
            ),
        ],
    );
    let binding = object(
        group,
        "ClusterRoleBinding",
        json!({"roleRef": {"kind": "ClusterRole", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}]}),
    );
    check(
        &binding,
        &[
            (
                "/roleRef/kind",
                json!("Role"),
                &["roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\""],
            ),
            (
                "/subjects/0/kind",
                json!("ServiceAccount"),
                &["subjects[0].namespace: Required value"],
            ),
        ],
    );
    check_updates(
        &binding,
        &[(
            "/roleRef/name",
            json!("s"),
            &[
                "roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"ClusterRole\",\"name\":\"s\"}: cannot change roleRef",
            ],
        )],
    );
}

#[test]
fn policies() {
    check(
        &object("policy/v1", "PodDisruptionBudget", json!({"spec": {"minAvailable": 1}})),
        &[(
            "/spec/minAvailable",
            json!("200%"),
            &["spec.minAvailable: Invalid value: \"200%\": must not be greater than 100%"],
        )],
    );
    check(
        &object(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            json!({"spec": {"podSelector": {}, "ingress": [{}]}}),
        ),
        &[
            (
                "/spec/ingress/0/from",
                json!([
                    {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16", "10.0.0.0/8"]}},
                    {"ipBlock": {"cidr": ""}},
                    {"ipBlock": {"cidr": "10.0.0.0", "except": ["10.1.0.0/16"]}},
                    {},
                    {"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}
                ]),
                &[
                    "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
                    "spec.ingress[0].from[0].ipBlock.except[1]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
                    "spec.ingress[0].from[1].ipBlock.cidr: Required value",
                    "spec.ingress[0].from[2].ipBlock.cidr: Invalid value: \"10.0.0.0\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
                    "spec.ingress[0].from[3]: Required value: must specify a peer",
                    "spec.ingress[0].from[4]: Forbidden: may not specify both ipBlock and another peer",
                ],
            ),
            (
                "/spec/ingress/0/ports",
                json!([
                    {"endPort": 9},
                    {"port": "http", "endPort": 9},
                    {"port": 80, "endPort": 79},
                    {"port": 0},
                    {"port": "-", "protocol": "QUIC"},
                    {"port": 80, "endPort": 65535},
                    {"protocol": "SCTP"}
                ]),
                &[
                    "spec.ingress[0].ports[0].endPort: Invalid value: 9: may not be specified when `port` is not specified",
                    "spec.ingress[0].ports[1].endPort: Invalid value: 9: may not be specified when `port` is non-numeric",
                    "spec.ingress[0].ports[2].endPort: Invalid value: 79: must be greater than or equal to `port`",
                    "spec.ingress[0].ports[3].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                    "spec.ingress[0].ports[4].protocol: Unsupported value: \"QUIC\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                    "spec.ingress[0].ports[4].port: Invalid value: \"-\": must contain at least one letter (a-z)",
                    "spec.ingress[0].ports[4].port: Invalid value: \"-\": must not begin or end with a hyphen",
                ],
            ),
            (
                "/spec/policyTypes",
                json!(["Ingress", "Both"]),
                &[
                    "spec.policyTypes[1]: Unsupported value: \"Both\": supported values: \"Egress\", \"Ingress\"",
                ],
            ),
        ],
    );
    check(
        &object(
            "networking.k8s.io/v1",
            "Ingress",
            json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}}),
        ),
        &[
            (
                "/spec/defaultBackend/service/port",
                json!({}),
                &["spec.defaultBackend.service: Required value: port name or number is required"],
            ),
            ("/spec/rules", json!([{"host": "*.example.com"}]), &[]),
        ],
    );
    check(
        &object(
            "v1",
            "LimitRange",
            json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}}),
        ),
        &[(
            "/spec/limits/0/min",
            json!({"cpu": "2"}),
            &[
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than default request value 1",
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than default value 1",
            ],
        )],
    );
    check_updates(
        &object("scheduling.k8s.io/v1", "PriorityClass", json!({"value": 1})),
        &[("/value", json!(2), &["value: Forbidden: may not be changed in an update."])],
    );
}

#[test]
fn nodes_and_endpoints() {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": {"podCIDRs": ["10.0.0.0/24"]}});
    check(
        &node,
        &[(
            "/spec/taints",
            json!([{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}]),
            &[
                "metadata.taints[1]: Duplicate value: \"a\": taints must be unique by key and effect pair",
            ],
        )],
    );
    check_updates(
        &node,
        &[(
            "/spec/podCIDR",
            json!("10.0.1.0/24"),
            &[
                "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid",
            ],
        )],
    );
    check(
        &object(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}]}),
        ),
        &[
            (
                "/endpoints/0/addresses",
                json!(["::1"]),
                &[
                    "endpoints[0].addresses[0]: Invalid value: \"::1\": must be a valid IPv4 address",
                ],
            ),
            (
                "/addressType",
                json!("IP"),
                &[
                    "addressType: Unsupported value: \"IP\": supported values: \"FQDN\", \"IPv4\", \"IPv6\"",
                ],
            ),
        ],
    );
}

#[test]
fn flow_control() {
    let api = "flowcontrol.apiserver.k8s.io/v1";
    let subject = json!({"kind": "User", "user": {"name": "bob"}});
    let rule = json!({"subjects": [subject], "resourceRules": [{"verbs": ["get"],
        "apiGroups": ["*"], "resources": ["pods"], "namespaces": ["n"]}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["/x/*"]}]});
    let mut schema = object(
        api,
        "FlowSchema",
        json!({"spec": {"matchingPrecedence": 5,
        "priorityLevelConfiguration": {"name": "l"}, "rules": [rule]}}),
    );
    schema["metadata"].as_object_mut().unwrap().remove("namespace");
    let first = "/spec/rules/0/subjects/0";
    let resources = "/spec/rules/0/resourceRules/0";
    check(
        &schema,
        &[
            (
                "/spec/matchingPrecedence",
                json!(-1),
                &["spec.matchingPrecedence: Invalid value: -1: must be a positive value"],
            ),
            (
                "/spec/matchingPrecedence",
                json!(10_001),
                &["spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000"],
            ),
            (
                "/spec/matchingPrecedence",
                json!(1),
                &[
                    "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
                ],
            ),
            (
                "/spec/distinguisherMethod",
                json!({"type": "X"}),
                &[
                    "spec.distinguisherMethod.type: Unsupported value: {\"type\":\"X\"}: supported values: \"ByNamespace\", \"ByUser\"",
                ],
            ),
            (
                "/spec/priorityLevelConfiguration/name",
                json!(""),
                &[
                    "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
                ],
            ),
            (
                "/spec/rules/0/subjects",
                json!([]),
                &[
                    "spec.rules[0].subjects: Required value: subjects must contain at least one value",
                ],
            ),
            (
                first,
                json!({"kind": "Robot"}),
                &[
                    "spec.rules[0].subjects[0].kind: Unsupported value: \"Robot\": supported values: \"Group\", \"ServiceAccount\", \"User\"",
                ],
            ),
            (
                first,
                json!({"kind": "Group", "user": {"name": "x"}}),
                &[
                    "spec.rules[0].subjects[0].group: Required value: group is required when subject kind is 'Group'",
                    "spec.rules[0].subjects[0].user: Forbidden: user is forbidden when subject kind is not 'User'",
                ],
            ),
            (
                first,
                json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": ""}}),
                &[
                    "spec.rules[0].subjects[0].serviceAccount.namespace: Required value: must specify namespace for service account",
                ],
            ),
            (
                &format!("{resources}/verbs"),
                json!(["get", "*"]),
                &[
                    "spec.rules[0].resourceRules[0].verbs: Invalid value: [\"get\",\"*\"]: if '*' is present, must not specify other verbs",
                ],
            ),
            (
                &format!("{resources}/apiGroups"),
                json!([]),
                &[
                    "spec.rules[0].resourceRules[0].apiGroups: Required value: resource rules must supply at least one api group",
                ],
            ),
            (
                &format!("{resources}/namespaces"),
                json!([]),
                &[
                    "spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace",
                ],
            ),
            (
                "/spec/rules/0/nonResourceRules/0/nonResourceURLs",
                json!(["x", "/a*", "/ a"]),
                &[
                    "spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"x\": must start with slash",
                    "spec.rules[0].nonResourceRules[0].nonResourceURLs[1]: Invalid value: \"/a*\": wildcard can only do suffix matching",
                    "spec.rules[0].nonResourceRules[0].nonResourceURLs[2]: Invalid value: \"/ a\": must not contain white-space",
                ],
            ),
        ],
    );
    let mut level = object(
        api,
        "PriorityLevelConfiguration",
        json!({"spec": {"type": "Limited",
        "limited": {"limitResponse": {"type": "Queue", "queuing": {}}}}}),
    );
    level["metadata"].as_object_mut().unwrap().remove("namespace");
    let queuing = "/spec/limited/limitResponse/queuing";
    check(
        &level,
        &[
            (
                "/spec/limited",
                Value::Null,
                &["spec.limited: Required value: must not be empty when type is Limited"],
            ),
            (
                "/spec/exempt",
                json!({}),
                &["spec.exempt: Forbidden: must be nil if the type is Limited"],
            ),
            (
                "/spec/limited/nominalConcurrencyShares",
                json!(-1),
                &[
                    "spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer",
                ],
            ),
            (
                "/spec/limited/lendablePercent",
                json!(101),
                &[
                    "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive",
                ],
            ),
            (
                "/spec/limited/borrowingLimitPercent",
                json!(-1),
                &[
                    "spec.limited.borrowingLimitPercent: Invalid value: -1: if specified, must be a non-negative integer",
                ],
            ),
            (
                "/spec/limited/limitResponse/type",
                json!("Reject"),
                &[
                    "spec.limited.limitResponse.queuing: Forbidden: must be nil if limited.limitResponse.type is not Limited",
                ],
            ),
            (
                queuing,
                json!({"queues": -1}),
                &[
                    "spec.limited.limitResponse.queuing.queues: Invalid value: -1: must be positive",
                    "spec.limited.limitResponse.queuing.handSize: Invalid value: 8: should not be greater than queues (-1)",
                ],
            ),
            (
                queuing,
                json!({"queues": 128, "handSize": 9}),
                &[
                    "spec.limited.limitResponse.queuing.handSize: Invalid value: 9: required entropy bits of deckSize 128 and handSize 9 should not be greater than 60",
                ],
            ),
        ],
    );
}
