//! Validation of single kinds: limits of Jobs, paths of Ingresses, families of Services, ...

use serde_json::{Value, json};

use super::ask::Case;

const INVALID: (u16, &str) = (422, "Invalid");

/// An object `x` with `parts` merged into its metadata.
fn object(parts: Value) -> String {
    let mut object = json!({"metadata": {"name": "x"}});
    object.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
    object.to_string()
}

/// A valid spec of a Job with `change` merged into it.
fn job_spec(change: Value) -> Value {
    let mut spec = json!({"template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}],
    }}});
    spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    spec
}

pub fn cases() -> Vec<Case> {
    [jobs(), cron_jobs(), volumes(), network(), limits(), rest()].concat()
}

fn jobs() -> Vec<Case> {
    let case = |change: Value, message: &str| {
        let body = object(json!({"spec": job_spec(change)}));
        let message = format!("Job.batch \"x\" is invalid: {message}");
        Case::new(("create", "batch/v1/jobs", ""), body, INVALID, message)
    };
    let indexed = |rules: Value| json!({"completionMode": "Indexed", "completions": 3, "successPolicy": {"rules": rules}});
    let rule = |rule: Value| json!({"podFailurePolicy": {"rules": [rule]}});
    vec![
        case(json!({"completionMode": "Indexed", "completions": 100_001, "parallelism": 100_001}),
            "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed"),
        case(json!({"maxFailedIndexes": 1}),
            "[spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified, spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode]"),
        case(rule(json!({"action": "Stop", "onPodConditions": [{"type": "x", "status": "True"}]})),
            "spec.podFailurePolicy.rules[0].action: Unsupported value: \"Stop\": supported values: \"Count\", \"FailIndex\", \"FailJob\", \"Ignore\""),
        case(rule(json!({"action": "FailJob"})),
            "spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required"),
        case(rule(json!({"action": "FailIndex", "onPodConditions": [{"type": "x", "status": "Yes"}]})),
            "[spec.podFailurePolicy.rules[0].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set, spec.podFailurePolicy.rules[0].onPodConditions[0].status: Unsupported value: \"Yes\": supported values: \"False\", \"True\", \"Unknown\"]"),
        case(rule(json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2, 0, 2], "containerName": "other"}})),
            "[spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: \"other\": must be one of the container or initContainer names in the pod template, \
             spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator, \
             spec.podFailurePolicy.rules[0].onExitCodes.values[2]: Duplicate value: 2, \
             spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,0,2]: must be ordered]"),
        case(json!({"podFailurePolicy": {"rules": []}, "podReplacementPolicy": "TerminatingOrFailed"}),
            "spec.podReplacementPolicy: Unsupported value: \"TerminatingOrFailed\": supported values: \"Failed\""),
        case(json!({"successPolicy": {"rules": [{"succeededCount": 1}]}}), "spec.successPolicy: Invalid value: …"),
        case(indexed(json!([])),
            "spec.successPolicy.rules: Required value: at least one rules must be specified when the successPolicy is specified"),
        case(indexed(json!([{"succeededIndexes": "0-9", "succeededCount": 5}])),
            "[spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"0-9\": error parsing succeededIndexes: too large index: \"9\", \
             spec.successPolicy.rules[0].succeededCount: Invalid value: 5: must be less than or equal to 3 (the number of specified completions), \
             spec.successPolicy.rules[0].succeededCount: Invalid value: 5: must be less than or equal to 0 (the number of indexes in the specified succeededIndexes field)]"),
        case(json!({"managedBy": "me"}), "spec.managedBy: Invalid value: \"me\": must be a domain-prefixed path (such as \"acme.io/foo\")"),
        Case::new(("create", "batch/v1/jobs", ""),
            json!({"metadata": {"name": "j".repeat(62)}, "spec": job_spec(json!({"completionMode": "Indexed", "completions": 2}))}).to_string(),
            INVALID, format!("Job.batch \"{0}\" is invalid: metadata.name: Invalid value: \"{0}\": will not able to create pod with invalid DNS label: {0}-1", "j".repeat(62))),
    ]
}

fn cron_jobs() -> Vec<Case> {
    let case = |change: Value, message: &str| {
        let mut spec =
            json!({"schedule": "* * * * *", "jobTemplate": {"spec": job_spec(json!({}))}});
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let message = format!("CronJob.batch \"x\" is invalid: {message}");
        Case::new(
            ("create", "batch/v1/cronjobs", ""),
            object(json!({"spec": spec})),
            INVALID,
            message,
        )
    };
    vec![
        case(
            json!({"schedule": "* * * * * *"}),
            "spec.schedule: Invalid value: \"* * * * * *\": expected exactly 5 fields, found 6: [* * * * * *]",
        ),
        case(
            json!({"jobTemplate": {"spec": job_spec(json!({"manualSelector": true}))}}),
            "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\"",
        ),
    ]
}

fn volumes() -> Vec<Case> {
    let claim = |change: Value, message: &str| {
        let mut spec =
            json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}});
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let message = format!("PersistentVolumeClaim \"x\" is invalid: {message}");
        Case::new(
            ("create", "v1/persistentvolumeclaims", ""),
            object(json!({"spec": spec})),
            INVALID,
            message,
        )
    };
    vec![
        claim(
            json!({"dataSource": {"kind": "Foo", "name": ""}}),
            "[spec.dataSource.name: Required value, spec.dataSource: Invalid value: \"Foo\": must be 'PersistentVolumeClaim' when referencing the default apiGroup, …",
        ),
        claim(
            json!({"volumeAttributesClassName": "A"}),
            "spec.volumeAttributesClassName: Invalid value: \"A\": …",
        ),
        Case::new(
            ("create", "v1/persistentvolumes", ""),
            object(json!({"spec": {
                "capacity": {"storage": "1"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/"}, "persistentVolumeReclaimPolicy": "Recycle",
            }})),
            INVALID,
            "PersistentVolume \"x\" is invalid: spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'",
        ),
    ]
}

fn network() -> Vec<Case> {
    let service = |change: Value, message: &str| {
        let mut spec = json!({"ports": [{"port": 80}], "selector": {"a": "b"}});
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let message = format!("Service \"x\" is invalid: {message}");
        Case::new(("create", "v1/services", ""), object(json!({"spec": spec})), INVALID, message)
    };
    let path = |path: &str| {
        object(json!({"spec": {"rules": [{"http": {"paths": [
            {"path": path, "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}},
        ]}}]}}))
    };
    let class = |parameters: Value| {
        object(json!({"spec": {"controller": "a/b", "parameters": parameters}}))
    };
    let ingresses = ("create", "networking.k8s.io/v1/ingresses", "");
    let classes = ("create", "networking.k8s.io/v1/ingressclasses", "");
    vec![
        service(json!({"ipFamilies": ["IPv6"]}), "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"),
        service(json!({"ipFamilies": ["IPv4", "IPv4"]}), "spec.ipFamilies[1]: Duplicate value: \"IPv4\""),
        service(json!({"ipFamilyPolicy": "RequireDualStack"}),
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services"),
        service(json!({"clusterIPs": ["10.96.0.77"]}),
            "spec.clusterIPs: Invalid value: [\"10.96.0.77\"]: must be empty when `clusterIP` is not specified"),
        Case::new(ingresses, path("/a//b"), INVALID,
            "Ingress.networking.k8s.io \"x\" is invalid: spec.rules[0].http.paths[0].path: Invalid value: \"/a//b\": must not contain '//'"),
        Case::new(ingresses, path("/a/.."), INVALID,
            "Ingress.networking.k8s.io \"x\" is invalid: spec.rules[0].http.paths[0].path: Invalid value: \"/a/..\": cannot end with '/..'"),
        Case::new(ingresses, json!({"metadata": {"name": "x", "annotations": {"kubernetes.io/ingress.class": "a"}},
            "spec": {"ingressClassName": "b", "tls": [{"hosts": ["A"]}], "defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}}).to_string(), INVALID,
            "Ingress.networking.k8s.io \"x\" is invalid: [spec.tls[0].hosts[0]: Invalid value: \"A\": …"),
        Case::new(classes, class(json!({"kind": "k", "name": "n", "scope": "Namespace"})), INVALID,
            "IngressClass.networking.k8s.io \"x\" is invalid: spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"),
        Case::new(classes, class(json!({"kind": "k", "name": "n", "namespace": "x"})), INVALID,
            "IngressClass.networking.k8s.io \"x\" is invalid: spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"),
        Case::new(("create", "discovery.k8s.io/v1/endpointslices", ""), object(json!({"addressType": "IPv4", "endpoints": [
            {"addresses": ["1.2.3.4"], "hints": {"forZones": [{"name": "a"}, {"name": "a"}]}},
        ]})), INVALID, "EndpointSlice.discovery.k8s.io \"x\" is invalid: endpoints[0].hints.forZones[1].name: Duplicate value: \"a\""),
    ]
}

fn limits() -> Vec<Case> {
    let case = |limit: Value, message: &str| {
        let message = format!("LimitRange \"x\" is invalid: {message}");
        let body = object(json!({"spec": {"limits": [limit]}}));
        Case::new(("create", "v1/limitranges", ""), body, INVALID, message)
    };
    vec![
        case(
            json!({"type": "Foo"}),
            "spec.limits[0].type: Invalid value: \"Foo\": must be a standard limit type or fully qualified",
        ),
        case(
            json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "500m"}}),
            "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1",
        ),
        case(
            json!({"type": "Container", "min": {"cpu": "500m"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "5"}}),
            "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"5\": ratio 5 is greater than max/min = 2.000000",
        ),
        case(
            json!({"type": "PersistentVolumeClaim"}),
            "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
        ),
    ]
}

fn rest() -> Vec<Case> {
    let review = ("create", "authorization.k8s.io/v1/subjectaccessreviews", "");
    vec![
        Case::new(("create", "v1/configmaps", ""), json!({"metadata": {"name": "x", "finalizers": ["mine"]}}).to_string(), INVALID,
            "ConfigMap \"x\" is invalid: metadata.finalizers[0]: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified"),
        Case::new(("create", "rbac.authorization.k8s.io/v1/clusterroles", ""), object(json!({"aggregationRule": {"clusterRoleSelectors": []}})), INVALID,
            "ClusterRole.rbac.authorization.k8s.io \"x\" is invalid: aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil"),
        Case::new(("create", "node.k8s.io/v1/runtimeclasses", ""), object(json!({"handler": "h", "overhead": {"podFixed": {"cpu": "-1"}}})), INVALID,
            "RuntimeClass.node.k8s.io \"x\" is invalid: overhead.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"),
        Case::new(review, json!({"spec": {"user": "u"}}).to_string(), INVALID,
            "SubjectAccessReview.authorization.k8s.io \"\" is invalid: spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified"),
        Case::new(review, json!({"spec": {"resourceAttributes": {"verb": "get"}}}).to_string(), INVALID,
            "SubjectAccessReview.authorization.k8s.io \"\" is invalid: spec.user: Invalid value: \"\": at least one of user or group must be specified"),
        Case::new(("create", "authorization.k8s.io/v1/localsubjectaccessreviews", ""),
            json!({"spec": {"user": "u", "resourceAttributes": {"verb": "get", "namespace": "other"}}}).to_string(), INVALID,
            "LocalSubjectAccessReview.authorization.k8s.io \"\" is invalid: spec.resourceAttributes.namespace: Invalid value: \"other\": must match metadata.namespace"),
        Case::new(("deletecollection", "v1/namespaces", ""), "", (405, "MethodNotAllowed"), "the server does not allow this method on the requested resource")
            .query("propagationPolicy=Background"),
        Case::new(("update", "v1/configmaps", "plain"), json!({"metadata": {}, "data": {}}).to_string(), (400, "BadRequest"),
            "the name of the object (plain based on URL) was undeterminable: name must be provided"),
        Case::new(("merge", "v1/configmaps", "plain"), "{\"foo\":1,\"data\":{\"a\":\"1\",\"a\":\"2\"}}", INVALID, " \"\" is invalid: patch: Invalid value: …")
            .query("fieldValidation=Strict").causes(&[("patch", "FieldValueInvalid")]),
        Case::new(("json", "v1/configmaps", "plain"), "[{\"op\":\"test\",\"op\":\"add\",\"path\":\"/data/x\",\"value\":\"1\",\"more\":1}]", INVALID,
            " \"\" is invalid: patch: Invalid value: …").query("fieldValidation=Strict"),
        Case::new(("apply", "v1/configmaps", "plain"), "apiVersion: v1\nkind: ConfigMap\ndata:\n  a: b\n  a: c\n", (400, "BadRequest"),
            "error strict decoding YAML: error converting YAML to JSON: yaml: …").query("fieldManager=m&force=true&fieldValidation=Strict"),
        Case::new(("apply", "v1/configmaps", "fresh"), r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"uid":"u"}}"#, (409, "Conflict"),
            "Operation cannot be fulfilled on configmaps \"fresh\": uid mismatch: the provided object specified uid u, and no existing object was found").query("fieldManager=m"),
    ]
}
