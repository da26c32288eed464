use api::Kind;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;

/// `baseline:v1.30` and the like of a pod with this spec: Kubernetes' message, empty if allowed.
fn message(policy: &str, annotations: &Value, spec: &Value) -> String {
    let (level, version) = policy.split_once(':').unwrap();
    let policy = LevelVersion {
        level: Level::parse(level).unwrap(),
        version: Version::parse(version).unwrap(),
    };
    let object = json!({"metadata": {"annotations": annotations}, "spec": spec});
    let pod = Pod::decode(object.to_string().as_bytes()).unwrap();
    let spec = pod.spec.as_ref().unwrap();
    let annotations = pod.metadata.annotations.as_ref();
    details(&violations(policy, &Subject { annotations, spec }))
}

/// A container `name` that the restricted level allows, with changes to its securityContext.
fn hardened(name: &str, change: &Value) -> Value {
    let mut context = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": true,
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    for (key, value) in change.as_object().unwrap() {
        if value.is_null() {
            context.as_object_mut().unwrap().remove(key);
        } else {
            context[key] = value.clone();
        }
    }
    json!({"name": name, "securityContext": context})
}

fn hardened_pod(change: &Value) -> Value {
    json!({"containers": [hardened("c", change)]})
}

#[track_caller]
fn check(spec: &Value, expected: &[(&str, &str)]) {
    for (policy, text) in expected {
        assert_eq!(message(policy, &json!({}), spec), *text, "{policy}: {spec}");
    }
}

#[test]
fn every_revision_is_in_order_and_every_override_exists() {
    let mut sorted: Vec<(&str, Level)> = CHECKS.iter().map(|row| (row.id, row.level)).collect();
    sorted.sort_by_key(|(id, level)| (*level, *id));
    let listed: Vec<(&str, Level)> = CHECKS.iter().map(|row| (row.id, row.level)).collect();
    assert_eq!(listed, sorted);
    for row in CHECKS {
        assert!(row.revisions.is_sorted_by(|left, right| left.0 < right.0), "{}", row.id);
        let overrides = row.overrides;
        let baseline = |other: &Row| other.id == overrides && other.level == Level::Baseline;
        assert!(overrides.is_empty() || CHECKS.iter().any(baseline), "{}", row.id);
    }
}

#[test]
fn a_plain_pod_is_not_restricted() {
    check(
        &json!({"containers": [{"name": "c"}]}),
        &[
            ("privileged:latest", ""),
            ("baseline:latest", ""),
            (
                "restricted:latest",
                "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), \
                 unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), \
                 runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), \
                 seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
            ),
            (
                "restricted:v1.7",
                "runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true)",
            ),
        ],
    );
    check(&hardened_pod(&json!({})), &[("restricted:latest", ""), ("restricted:v1.0", "")]);
}

#[test]
fn host_access_is_not_baseline() {
    check(
        &json!({"containers": [hardened("c", &json!({}))], "hostNetwork": true, "hostPID": true, "hostIPC": true}),
        &[
            ("privileged:latest", ""),
            ("baseline:v1.0", "host namespaces (hostNetwork=true, hostPID=true, hostIPC=true)"),
            ("restricted:latest", "host namespaces (hostNetwork=true, hostPID=true, hostIPC=true)"),
        ],
    );
    let mut spec = hardened_pod(&json!({}));
    spec["volumes"] = json!([
        {"name": "a", "hostPath": {"path": "/a"}}, {"name": "b", "nfs": {"server": "s", "path": "/"}},
        {"name": "c", "emptyDir": {}}, {"name": "d", "image": {"reference": "i"}},
    ]);
    check(
        &spec,
        &[
            ("baseline:latest", "hostPath volumes (volume \"a\")"),
            (
                "restricted:v1.5",
                "restricted volume types (volumes \"a\", \"b\" use restricted volume types \"hostPath\", \"nfs\")",
            ),
        ],
    );
    let ports = json!({"containers": [
        {"name": "a", "ports": [{"containerPort": 1, "hostPort": 9100}]},
        {"name": "b", "ports": [{"containerPort": 1, "hostPort": 80}, {"containerPort": 2}]},
    ]});
    check(
        &ports,
        &[("baseline:latest", "hostPort (containers \"a\", \"b\" use hostPorts 80, 9100)")],
    );
    let probes = json!({"initContainers": [
        {"name": "i", "lifecycle": {"preStop": {"tcpSocket": {"host": "h", "port": 1}}}}],
        "containers": [{"name": "a", "livenessProbe": {"httpGet": {"host": "169.254.169.254", "port": 1}}}]});
    check(
        &probes,
        &[
            ("baseline:v1.33", ""),
            (
                "baseline:v1.34",
                "probe or lifecycle host (containers \"a\", \"i\" use probe or lifecycle hosts \"169.254.169.254\", \"h\")",
            ),
        ],
    );
    let windows = json!({"containers": [{"name": "a", "securityContext": {"windowsOptions": {"hostProcess": true}}}],
        "securityContext": {"windowsOptions": {"hostProcess": true}}});
    check(
        &windows,
        &[(
            "baseline:latest",
            "hostProcess (pod and container \"a\" must not set securityContext.windowsOptions.hostProcess=true)",
        )],
    );
}

#[test]
fn privileges_are_not_baseline() {
    check(
        &json!({"containers": [], "initContainers": [{"name": "i", "securityContext": {"privileged": true}}],
            "ephemeralContainers": [{"name": "e", "securityContext": {"privileged": true}}]}),
        &[(
            "baseline:latest",
            "privileged (containers \"i\", \"e\" must not set securityContext.privileged=true)",
        )],
    );
    let capabilities = json!({"capabilities": {"add": ["NET_ADMIN", "CHOWN", "NET_BIND_SERVICE"], "drop": ["ALL"]}});
    check(
        &hardened_pod(&capabilities),
        &[
            (
                "baseline:latest",
                "non-default capabilities (container \"c\" must not include \"NET_ADMIN\" in securityContext.capabilities.add)",
            ),
            (
                "restricted:v1.21",
                "non-default capabilities (container \"c\" must not include \"NET_ADMIN\" in securityContext.capabilities.add)",
            ),
            (
                "restricted:v1.22",
                "unrestricted capabilities (container \"c\" must not include \"CHOWN\", \"NET_ADMIN\" in securityContext.capabilities.add)",
            ),
        ],
    );
    let mut unmasked = hardened_pod(&json!({"procMount": "Unmasked"}));
    let text = "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")";
    check(&unmasked, &[("baseline:latest", text), ("restricted:latest", text)]);
    unmasked["hostUsers"] = json!(false);
    check(
        &unmasked,
        &[("baseline:v1.34", text), ("baseline:v1.35", ""), ("restricted:v1.35", text)],
    );
}

#[test]
fn kernel_settings_have_allowed_values() {
    let sysctls = |names: &[&str]| {
        let all: Vec<Value> =
            names.iter().map(|name| json!({"name": name, "value": "1"})).collect();
        let mut spec = hardened_pod(&json!({}));
        spec["securityContext"] = json!({"sysctls": all});
        spec
    };
    let all = sysctls(&[
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_notsent_lowat",
        "kernel.msgmax",
    ]);
    check(
        &all,
        &[
            (
                "baseline:v1.26",
                "forbidden sysctls (net.ipv4.ip_local_reserved_ports, net.ipv4.tcp_keepalive_time, net.ipv4.tcp_rmem, net.ipv4.tcp_notsent_lowat, kernel.msgmax)",
            ),
            (
                "baseline:v1.27",
                "forbidden sysctls (net.ipv4.tcp_keepalive_time, net.ipv4.tcp_rmem, net.ipv4.tcp_notsent_lowat, kernel.msgmax)",
            ),
            (
                "baseline:v1.29",
                "forbidden sysctls (net.ipv4.tcp_rmem, net.ipv4.tcp_notsent_lowat, kernel.msgmax)",
            ),
            ("baseline:v1.32", "forbidden sysctls (net.ipv4.tcp_notsent_lowat, kernel.msgmax)"),
            ("restricted:v1.37", "forbidden sysctls (kernel.msgmax)"),
        ],
    );
    let engine = hardened_pod(&json!({"seLinuxOptions": {"type": "container_engine_t"}}));
    check(
        &engine,
        &[
            (
                "baseline:v1.30",
                "seLinuxOptions (container \"c\" set forbidden securityContext.seLinuxOptions: type \"container_engine_t\")",
            ),
            ("baseline:v1.31", ""),
        ],
    );
    let mut options = hardened_pod(&json!({"seLinuxOptions": {"type": "b", "role": "r"}}));
    options["securityContext"] = json!({"seLinuxOptions": {"type": "a", "user": "u"}});
    check(
        &options,
        &[(
            "baseline:latest",
            "seLinuxOptions (pod and container \"c\" set forbidden securityContext.seLinuxOptions: types \"a\", \"b\"; user may not be set; role may not be set)",
        )],
    );
}

#[test]
fn profiles_confine() {
    let mut unconfined = hardened_pod(&json!({"seccompProfile": {"type": "Unconfined"}}));
    let text = "seccompProfile (container \"c\" must not set securityContext.seccompProfile.type to \"Unconfined\")";
    check(
        &unconfined,
        &[("baseline:v1.18", ""), ("baseline:v1.19", text), ("restricted:latest", text)],
    );
    unconfined["securityContext"] = json!({"appArmorProfile": {"type": "Unconfined"}});
    let annotations = json!({
        "container.apparmor.security.beta.kubernetes.io/c": "unconfined",
        "container.apparmor.security.beta.kubernetes.io/d": "localhost/x",
    });
    let armor = "forbidden AppArmor profiles (pod and annotation must not set AppArmor profile type to \"Unconfined\", \"container.apparmor.security.beta.kubernetes.io/c=\"unconfined\"\")";
    assert_eq!(message("baseline:latest", &annotations, &unconfined), format!("{armor}, {text}"));
    let annotations = json!({
        "seccomp.security.alpha.kubernetes.io/pod": "unconfined",
        "container.seccomp.security.alpha.kubernetes.io/c": "runtime/default",
    });
    let plain = json!({"containers": [{"name": "c"}]});
    let text = "seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod=\"unconfined\")";
    assert_eq!(message("baseline:v1.18", &annotations, &plain), text);
    assert_eq!(message("baseline:v1.19", &annotations, &plain), "");
}

#[test]
fn root_needs_a_user_namespace() {
    let mut root = hardened_pod(&json!({"runAsUser": 0, "runAsNonRoot": null}));
    let non_root =
        "runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true)";
    let user = "runAsUser=0 (container \"c\" must not set runAsUser=0)";
    check(
        &root,
        &[("restricted:v1.22", non_root), ("restricted:latest", &format!("{non_root}, {user}"))],
    );
    root["hostUsers"] = json!(false);
    check(&root, &[("restricted:v1.34", &format!("{non_root}, {user}")), ("restricted:v1.35", "")]);
    let mut explicit = hardened_pod(&json!({"runAsNonRoot": false}));
    explicit["securityContext"] = json!({"runAsNonRoot": false, "runAsUser": 0});
    check(
        &explicit,
        &[(
            "restricted:latest",
            "runAsNonRoot != true (pod and container \"c\" must not set securityContext.runAsNonRoot=false), runAsUser=0 (pod must not set runAsUser=0)",
        )],
    );
}

#[test]
fn windows_is_spared_what_it_does_not_have() {
    let spec = json!({"os": {"name": "windows"}, "containers": [{"name": "c", "securityContext": {"runAsNonRoot": true}}]});
    check(&spec, &[("restricted:v1.25", "")]);
    let text = message("restricted:v1.24", &json!({}), &spec);
    for part in ["allowPrivilegeEscalation", "unrestricted capabilities", "seccompProfile"] {
        assert!(text.contains(part), "{text}");
    }
}
