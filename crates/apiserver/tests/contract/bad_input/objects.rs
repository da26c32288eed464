//! Objects that decode but are not valid, and changes of immutable fields.

use serde_json::{Value, json};

use super::ask::Case;

const INVALID: (u16, &str) = (422, "Invalid");
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

/// A valid pod `x` with `change` merged into its spec.
fn pod(change: Value) -> String {
    let mut spec = json!({"containers": [{"name": "c", "image": "i"}]});
    spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    json!({"metadata": {"name": "x"}, "spec": spec}).to_string()
}

/// A pod `x` with one container, which `change` is merged into.
fn container(change: Value) -> String {
    let mut container = json!({"name": "c", "image": "i"});
    container.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    pod(json!({"containers": [container]}))
}

pub fn cases() -> Vec<Case> {
    [metadata(), pods(), workloads(), services(), updates()].concat()
}

fn metadata() -> Vec<Case> {
    let new = ("create", "v1/configmaps", "");
    let of = |metadata: Value| json!({"metadata": metadata}).to_string();
    let long = "x".repeat(254);
    let value = "y".repeat(64);
    let big = "z".repeat(256 << 10);
    vec![
        Case::new(new, of(json!({})), INVALID, "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required")
            .causes(&[("metadata.name", "FieldValueRequired")]),
        Case::new(new, of(json!({"name": "Not_Good"})), INVALID, format!("ConfigMap \"Not_Good\" is invalid: metadata.name: Invalid value: \"Not_Good\": {SUBDOMAIN}"))
            .causes(&[("metadata.name", "FieldValueInvalid")]),
        Case::new(new, of(json!({"name": long})), INVALID, format!("ConfigMap \"{long}\" is invalid: metadata.name: Invalid value: \"{long}\": must be no more than 253 bytes")),
        Case::new(new, of(json!({"name": "a/b"})), INVALID, "ConfigMap \"a/b\" is invalid: metadata.name: Invalid value: \"a/b\": …"),
        Case::new(new, of(json!({"name": ".."})), INVALID, "ConfigMap \"..\" is invalid: …"),
        Case::new(("create", "v1/namespaces", ""), of(json!({"name": "a.b"})), INVALID, format!("Namespace \"a.b\" is invalid: metadata.name: Invalid value: \"a.b\": {LABEL}")),
        Case::new(new, of(json!({"name": "x", "labels": {"a b": "c"}})), INVALID, "ConfigMap \"x\" is invalid: metadata.labels: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')")
            .causes(&[("metadata.labels", "FieldValueInvalid")]),
        Case::new(new, of(json!({"name": "x", "labels": {"a": value}})), INVALID, format!("ConfigMap \"x\" is invalid: metadata.labels: Invalid value: \"{value}\": must be no more than 63 bytes")),
        Case::new(new, of(json!({"name": "x", "annotations": {"a b": "c"}})), INVALID, "ConfigMap \"x\" is invalid: metadata.annotations: Invalid value: \"a b\": …"),
        Case::new(new, of(json!({"name": "x", "annotations": {"a": big}})), INVALID, "ConfigMap \"x\" is invalid: metadata.annotations: Too long: may not be more than 262144 bytes")
            .causes(&[("metadata.annotations", "FieldValueTooLong")]),
        Case::new(new, of(json!({"name": "x", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "", "uid": "u"}]})), INVALID,
            "ConfigMap \"x\" is invalid: metadata.ownerReferences[0].name: Required value: must not be empty"),
        Case::new(new, of(json!({"name": "x", "finalizers": ["a b"]})), INVALID, "ConfigMap \"x\" is invalid: [metadata.finalizers: Invalid value: \"a b\": …"),
        Case::new(new, of(json!({"name": "x", "resourceVersion": "5"})), (400, "BadRequest"), "resourceVersion should not be set on objects to be created"),
        Case::new(new, of(json!({"name": "plain"})), (409, "AlreadyExists"), "configmaps \"plain\" already exists"),
    ]
}

fn pods() -> Vec<Case> {
    let new = ("create", "v1/pods", "");
    let port = |port: Value| container(json!({"ports": [port]}));
    let twice = json!({"containers": [{"name": "c", "image": "i"}, {"name": "c", "image": "i"}]});
    let gone = json!({"name": "x", "image": "i"});
    vec![
        Case::new(new, json!({"metadata": {"name": "x"}, "spec": {"containers": []}}).to_string(), INVALID, "Pod \"x\" is invalid: spec.containers: Required value")
            .causes(&[("spec.containers", "FieldValueRequired")]),
        Case::new(new, json!({"metadata": {"name": "x"}, "spec": {"containers": [{}]}}).to_string(), INVALID,
            "Pod \"x\" is invalid: [spec.containers[0].name: Required value, spec.containers[0].image: Required value]")
            .causes(&[("spec.containers[0].name", "FieldValueRequired"), ("spec.containers[0].image", "FieldValueRequired")]),
        Case::new(new, pod(twice), INVALID, "Pod \"x\" is invalid: spec.containers[1].name: Duplicate value: \"c\"")
            .causes(&[("spec.containers[1].name", "FieldValueDuplicate")]),
        Case::new(new, container(json!({"name": "A"})), INVALID, format!("Pod \"x\" is invalid: spec.containers[0].name: Invalid value: \"A\": {LABEL}")),
        Case::new(new, container(json!({"image": " i"})), INVALID, "Pod \"x\" is invalid: spec.containers[0].image: Invalid value: \" i\": must not have leading or trailing whitespace"),
        Case::new(new, port(json!({"containerPort": 70_000})), INVALID, "Pod \"x\" is invalid: spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive")
            .causes(&[("spec.containers[0].ports[0].containerPort", "FieldValueInvalid")]),
        Case::new(new, port(json!({"containerPort": 80, "protocol": "ICMP"})), INVALID,
            "Pod \"x\" is invalid: spec.containers[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"")
            .causes(&[("spec.containers[0].ports[0].protocol", "FieldValueNotSupported")]),
        Case::new(new, port(json!({"containerPort": 80, "name": "too-long-a-port-name"})), INVALID,
            "Pod \"x\" is invalid: spec.containers[0].ports[0].name: Invalid value: \"too-long-a-port-name\": must be no more than 15 bytes"),
        Case::new(new, pod(json!({"restartPolicy": "Sometimes"})), INVALID,
            "Pod \"x\" is invalid: spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\""),
        Case::new(new, pod(json!({"dnsPolicy": "Maybe"})), INVALID, "Pod \"x\" is invalid: spec.dnsPolicy: Unsupported value: \"Maybe\": supported values: …"),
        Case::new(new, container(json!({"imagePullPolicy": "Often"})), INVALID,
            "Pod \"x\" is invalid: spec.containers[0].imagePullPolicy: Unsupported value: \"Often\": supported values: \"Always\", \"IfNotPresent\", \"Never\""),
        Case::new(new, container(json!({"volumeMounts": [{"name": "v", "mountPath": "/m"}]})), INVALID, "Pod \"x\" is invalid: spec.containers[0].volumeMounts[0].name: Not found: \"v\"")
            .causes(&[("spec.containers[0].volumeMounts[0].name", "FieldValueNotFound")]),
        Case::new(new, container(json!({"env": [{"name": "", "value": "v"}]})), INVALID, "Pod \"x\" is invalid: spec.containers[0].env[0].name: Required value"),
        Case::new(new, container(json!({"env": [{"name": "A", "value": "v", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]})), INVALID,
            "Pod \"x\" is invalid: spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty"),
        Case::new(new, container(json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}})), INVALID,
            "Pod \"x\" is invalid: spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"),
        Case::new(new, container(json!({"resources": {"requests": {"cpu": "-1"}}})), INVALID,
            "Pod \"x\" is invalid: spec.containers[0].resources.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"),
        Case::new(new, container(json!({"livenessProbe": {"httpGet": {"port": 80}, "exec": {"command": ["x"]}}})), INVALID, "Pod \"x\" is invalid: spec.containers[0].livenessProbe.httpGet: Forbidden: may not specify more than 1 handler type"),
        Case::new(new, pod(json!({"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}]})), INVALID, "Pod \"x\" is invalid: spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"),
        Case::new(new, pod(json!({"activeDeadlineSeconds": 0})), INVALID, "Pod \"x\" is invalid: spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"),
        Case::new(new, pod(json!({"ephemeralContainers": [gone]})), INVALID, "Pod \"x\" is invalid: spec.ephemeralContainers: Forbidden: cannot be set on create"),
        Case::new(new, pod(json!({"serviceAccountName": "nobody"})), (403, "Forbidden"), "pods \"x\" is forbidden: error looking up service account default/nobody: serviceaccount \"nobody\" not found"),
        Case::new(new, pod(json!({"priorityClassName": "none"})), (403, "Forbidden"), "pods \"x\" is forbidden: no PriorityClass with name none was found"),
        Case::new(new, pod(json!({"priority": 5})), (403, "Forbidden"), "pods \"x\" is forbidden: the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 0 from the given PriorityClass name"),
        Case::new(new, pod(json!({"runtimeClassName": "none"})), (403, "Forbidden"), "pods \"x\" is forbidden: pod rejected: RuntimeClass \"none\" not found"),
    ]
}

fn workloads() -> Vec<Case> {
    let template = |labels: Value| json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let new = ("create", "apps/v1/deployments", "");
    let of = |spec: Value| json!({"metadata": {"name": "x"}, "spec": spec}).to_string();
    let good = template(json!({"app": "x"}));
    let selector = json!({"matchLabels": {"app": "x"}});
    let job = |spec: Value| {
        json!({"metadata": {"name": "x"}, "spec": {"template": {"spec": spec}}}).to_string()
    };
    vec![
        Case::new(new, of(json!({"selector": selector, "template": template(json!({"app": "y"}))})), INVALID,
            "Deployment.apps \"x\" is invalid: spec.template.metadata.labels: Invalid value: {\"app\":\"y\"}: `selector` does not match template `labels`")
            .causes(&[("spec.template.metadata.labels", "FieldValueInvalid")]),
        Case::new(new, of(json!({"template": good})), INVALID, "Deployment.apps \"x\" is invalid: [spec.selector: Required value, …"),
        Case::new(new, of(json!({"selector": {}, "template": good})), INVALID, "Deployment.apps \"x\" is invalid: [spec.selector: Required value, …"),
        Case::new(new, of(json!({"selector": selector, "template": good, "replicas": -1})), INVALID, "Deployment.apps \"x\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        Case::new(new, of(json!({"selector": selector, "template": good, "strategy": {"type": "Yolo"}})), INVALID,
            "Deployment.apps \"x\" is invalid: spec.strategy.type: Unsupported value: \"Yolo\": supported values: \"Recreate\", \"RollingUpdate\""),
        Case::new(new, of(json!({"selector": selector, "template": good, "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}})), INVALID,
            "Deployment.apps \"x\" is invalid: spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"),
        Case::new(new, of(json!({"selector": selector, "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}})), INVALID,
            "Deployment.apps \"x\" is invalid: spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""),
        Case::new(("create", "batch/v1/jobs", ""), job(json!({"containers": [{"name": "c", "image": "i"}]})), INVALID,
            "Job.batch \"x\" is invalid: spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""),
        Case::new(("create", "batch/v1/cronjobs", ""), json!({"metadata": {"name": "x"}, "spec": {"schedule": "often", "jobTemplate": {"spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}}}).to_string(), INVALID,
            "CronJob.batch \"x\" is invalid: spec.schedule: Invalid value: \"often\": …"),
        Case::new(("update", "apps/v1/deployments/scale", "web"), json!({"metadata": {"name": "web"}, "spec": {"replicas": -1}}).to_string(), INVALID,
            "Scale.autoscaling \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        Case::new(("merge", "apps/v1/deployments/status", "web"), json!({"status": {"replicas": -1}}).to_string(), INVALID,
            "Deployment.apps \"web\" is invalid: [status.replicas: Invalid value: -1: must be greater than or equal to 0, status.updatedReplicas: Invalid value: 0: cannot be greater than status.replicas, …"),
    ]
}

fn services() -> Vec<Case> {
    let new = ("create", "v1/services", "");
    let of = |spec: Value| json!({"metadata": {"name": "x"}, "spec": spec}).to_string();
    vec![
        Case::new(
            new,
            of(json!({})),
            INVALID,
            "Service \"x\" is invalid: spec.ports: Required value",
        )
        .causes(&[("spec.ports", "FieldValueRequired")]),
        Case::new(
            new,
            of(json!({"ports": [{"port": 0}]})),
            INVALID,
            "Service \"x\" is invalid: [spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive…",
        ),
        Case::new(
            new,
            of(json!({"ports": [{"port": 80}, {"port": 81}]})),
            INVALID,
            "Service \"x\" is invalid: [spec.ports[0].name: Required value, spec.ports[1].name: Required value]",
        ),
        Case::new(
            new,
            of(json!({"ports": [{"port": 80}], "type": "Balanced"})),
            INVALID,
            "Service \"x\" is invalid: spec.type: Unsupported value: \"Balanced\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ),
        Case::new(
            new,
            of(json!({"ports": [{"port": 80}], "clusterIP": "10.96.0.50"})),
            INVALID,
            "Service \"x\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.50\"]: failed to allocate IP 10.96.0.50: provided IP is already allocated",
        ),
        Case::new(
            new,
            of(json!({"ports": [{"port": 80}], "clusterIP": "1.2.3.4"})),
            INVALID,
            "Service \"x\" is invalid: spec.clusterIPs: Invalid value: [\"1.2.3.4\"]: failed to allocate IP 1.2.3.4: the provided network does not match the current range",
        ),
        Case::new(
            new,
            of(json!({"ports": [{"port": 80, "nodePort": 80}], "type": "NodePort"})),
            INVALID,
            "Service \"x\" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767",
        ),
        Case::new(
            new,
            of(json!({"ports": [{"port": 80}], "sessionAffinity": "Sticky"})),
            INVALID,
            "Service \"x\" is invalid: spec.sessionAffinity: Unsupported value: \"Sticky\": supported values: \"ClientIP\", \"None\"",
        ),
        Case::new(
            new,
            json!({"metadata": {"name": "1x"}, "spec": {"ports": [{"port": 80}]}}).to_string(),
            INVALID,
            "Service \"1x\" is invalid: metadata.name: Invalid value: \"1x\": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
        ),
    ]
}

fn updates() -> Vec<Case> {
    let merge = |resource: &'static str, name: &'static str| ("merge", resource, name);
    vec![
        Case::new(merge("v1/configmaps", "fixed"), json!({"data": {"k": "w"}}).to_string(), INVALID,
            "ConfigMap \"fixed\" is invalid: data: Forbidden: field is immutable when `immutable` is set").causes(&[("data", "FieldValueForbidden")]),
        Case::new(merge("v1/configmaps", "fixed"), json!({"immutable": false}).to_string(), INVALID,
            "ConfigMap \"fixed\" is invalid: immutable: Forbidden: field is immutable when `immutable` is set"),
        Case::new(merge("v1/secrets", "typed"), json!({"type": "other"}).to_string(), INVALID,
            "Secret \"typed\" is invalid: type: Invalid value: \"other\": field is immutable").causes(&[("type", "FieldValueInvalid")]),
        Case::new(merge("v1/services", "svc"), json!({"spec": {"clusterIP": "10.96.0.51", "clusterIPs": ["10.96.0.51"]}}).to_string(), INVALID,
            "Service \"svc\" is invalid: spec.clusterIPs[0]: Invalid value: [\"10.96.0.51\"]: may not change once set"),
        Case::new(merge("apps/v1/deployments", "web"), json!({"spec": {"selector": {"matchLabels": {"app": "other"}}}}).to_string(), INVALID,
            "Deployment.apps \"web\" is invalid: [spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`, spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"other\"}}: field is immutable]"),
        Case::new(merge("batch/v1/jobs", "once"), json!({"spec": {"template": {"spec": {"restartPolicy": "OnFailure"}}}}).to_string(), INVALID,
            "Job.batch \"once\" is invalid: spec.template: Invalid value: …"),
        Case::new(merge("v1/pods", "p"), json!({"spec": {"nodeName": "elsewhere"}}).to_string(), INVALID,
            "Pod \"p\" is invalid: spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,…")
            .causes(&[("spec", "FieldValueForbidden")]),
        Case::new(merge("v1/configmaps", "plain"), json!({"metadata": {"uid": "other"}}).to_string(), INVALID,
            "ConfigMap \"plain\" is invalid: metadata.uid: Invalid value: \"other\": field is immutable")
            .causes(&[("metadata.uid", "FieldValueInvalid")]),
        Case::new(merge("v1/configmaps", "plain"), json!({"metadata": {"resourceVersion": "1"}}).to_string(), (409, "Conflict"),
            "Operation cannot be fulfilled on configmaps \"plain\": the object has been modified; please apply your changes to the latest version and try again"),
        Case::new(merge("v1/configmaps", "plain"), json!({"metadata": {"resourceVersion": "x"}}).to_string(), INVALID,
            "ConfigMap \"plain\" is invalid: metadata.resourceVersion: Invalid value: \"x\": …"),
        Case::new(("update", "v1/configmaps", "missing"), json!({"metadata": {"name": "missing"}}).to_string(), (404, "NotFound"), "configmaps \"missing\" not found"),
        Case::new(("delete", "v1/configmaps", "plain"), json!({"preconditions": {"uid": "other"}}).to_string(), (409, "Conflict"),
            "Operation cannot be fulfilled on configmaps \"plain\": Precondition failed: UID in precondition: other, UID in object meta: …"),
        Case::new(("delete", "v1/namespaces", "default"), "", (403, "Forbidden"), "namespaces \"default\" is forbidden: this namespace may not be deleted"),
    ]
}
