//! The objects that configure flow control by default (upstream's
//! `pkg/apis/flowcontrol/bootstrap`): the mandatory ones, without which there is no place for every
//! request, and the suggested ones, which administrators may change.

use std::sync::LazyLock;

use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// `false` on an object that the apiserver must not bring back to its default.
pub const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
pub const EXEMPT: &str = "exempt";
pub const CATCH_ALL: &str = "catch-all";

/// Name, shares, lendable percent, queues and hand of the suggested levels.
const LEVELS: [(&str, i32, i32, i32, i32); 6] = [
    ("system", 30, 33, 64, 6),
    ("node-high", 40, 25, 64, 6),
    ("leader-election", 10, 0, 16, 4),
    ("workload-high", 40, 50, 128, 6),
    ("workload-low", 100, 90, 128, 6),
    ("global-default", 20, 50, 128, 6),
];
const QUEUE_LENGTH: i32 = 50;

/// A default object, and whether it is mandatory.
pub struct Default<K> {
    pub object: K,
    pub mandatory: bool,
}

/// All default levels.
pub static LEVEL_OBJECTS: LazyLock<Vec<Default<PriorityLevelConfiguration>>> =
    LazyLock::new(|| {
        let exempt = json!({"type": "Exempt",
            "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
        let catch_all = json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 5,
            "lendablePercent": 0, "limitResponse": {"type": "Reject"}}});
        let suggested = LEVELS.iter().map(|(name, shares, lendable, queues, hand)| {
            let queuing =
                json!({"queues": queues, "handSize": hand, "queueLengthLimit": QUEUE_LENGTH});
            let spec = json!({"type": "Limited", "limited": {"nominalConcurrencyShares": shares,
                "lendablePercent": lendable,
                "limitResponse": {"type": "Queue", "queuing": queuing}}});
            default(false, "PriorityLevelConfiguration", name, spec)
        });
        let kind = "PriorityLevelConfiguration";
        let mandatory =
            [default(true, kind, CATCH_ALL, catch_all), default(true, kind, EXEMPT, exempt)];
        mandatory.into_iter().chain(suggested).collect()
    });

/// All default schemas.
pub static SCHEMA_OBJECTS: LazyLock<Vec<Default<FlowSchema>>> = LazyLock::new(|| {
    let group = |name: &str| json!({"kind": "Group", "group": {"name": name}});
    let user = |name: &str| json!({"kind": "User", "user": {"name": name}});
    let everybody = || vec![group("system:unauthenticated"), group("system:authenticated")];
    let accounts = || {
        json!({"kind": "ServiceAccount",
            "serviceAccount": {"name": "*", "namespace": "kube-system"}})
    };
    let (manager, scheduler) = ("system:kube-controller-manager", "system:kube-scheduler");
    let nodes = || vec![group("system:nodes")];
    let everything = |subjects: Vec<Value>| {
        json!([{"subjects": subjects, "resourceRules": [resources("*", "*", "*", true)],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}])
    };
    let probes = json!([{"subjects": everybody(), "nonResourceRules": [{"verbs": ["get"],
        "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]}]);
    let elections = json!([{"subjects": [user(manager), user(scheduler), accounts()],
        "resourceRules": [resources("get,create,update", "coordination.k8s.io", "leases", false)]}]);
    let heartbeats = json!([{"subjects": nodes(), "resourceRules": [
        resources("*", "", "nodes,nodes/status", true),
        resources("*", "coordination.k8s.io", "leases", false)]}]);
    let masters = vec![group("system:masters")];
    let of = |name: &str| everything(vec![user(name)]);
    [
        (true, EXEMPT, EXEMPT, 1, "", everything(masters)),
        (true, CATCH_ALL, CATCH_ALL, 10_000, "ByUser", everything(everybody())),
        (false, "system-nodes", "system", 500, "ByUser", everything(nodes())),
        (false, "system-node-high", "node-high", 400, "ByUser", heartbeats),
        (false, "probes", EXEMPT, 2, "", probes),
        (false, "system-leader-election", "leader-election", 100, "ByUser", elections),
        (false, "kube-controller-manager", "workload-high", 800, "ByNamespace", of(manager)),
        (false, "kube-scheduler", "workload-high", 800, "ByNamespace", of(scheduler)),
        (
            false,
            "kube-system-service-accounts",
            "workload-high",
            900,
            "ByNamespace",
            everything(vec![accounts()]),
        ),
        (
            false,
            "service-accounts",
            "workload-low",
            9_000,
            "ByUser",
            everything(vec![group("system:serviceaccounts")]),
        ),
        (false, "global-default", "global-default", 9_900, "ByUser", everything(everybody())),
    ]
    .into_iter()
    .map(|(mandatory, name, level, precedence, method, rules)| {
        let mut spec = json!({"priorityLevelConfiguration": {"name": level},
            "matchingPrecedence": precedence, "rules": rules});
        if !method.is_empty() {
            spec["distinguisherMethod"] = json!({"type": method});
        }
        default(mandatory, "FlowSchema", name, spec)
    })
    .collect()
});

/// A rule from comma-separated lists, about all namespaces.
fn resources(verbs: &str, group: &str, resources: &str, cluster: bool) -> Value {
    let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    let mut rule = json!({"verbs": list(verbs), "apiGroups": [group],
        "resources": list(resources), "namespaces": ["*"]});
    if cluster {
        rule["clusterScope"] = true.into();
    }
    rule
}

fn default<K: DeserializeOwned>(
    mandatory: bool,
    kind: &str,
    name: &str,
    spec: Value,
) -> Default<K> {
    let object = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": kind,
        "metadata": {"name": name, "annotations": {AUTOUPDATE: "true"}}, "spec": spec});
    let object = serde_json::from_value(object).expect("the defaults are objects of their kinds");
    Default { object, mandatory }
}

/// The mandatory schema of a name.
pub fn mandatory_flow_schema(name: &str) -> Option<FlowSchema> {
    let mut mandatory = SCHEMA_OBJECTS.iter().filter(|default| default.mandatory);
    let found = mandatory.find(|default| default.object.metadata.name.as_deref() == Some(name));
    found.map(|default| default.object.clone())
}

/// The mandatory level of a name.
pub fn mandatory_priority_level(name: &str) -> Option<PriorityLevelConfiguration> {
    let mut mandatory = LEVEL_OBJECTS.iter().filter(|default| default.mandatory);
    let found = mandatory.find(|default| default.object.metadata.name.as_deref() == Some(name));
    found.map(|default| default.object.clone())
}
