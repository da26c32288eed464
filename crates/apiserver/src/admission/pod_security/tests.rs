use serde_json::{Value, json};

use super::*;

fn labels(value: &Value) -> BTreeMap<String, String> {
    let prefix = "pod-security.kubernetes.io";
    let all = value.as_object().unwrap().iter();
    all.map(|(key, value)| (format!("{prefix}/{key}"), value.as_str().unwrap().to_owned()))
        .collect()
}

#[test]
fn labels_choose_the_policy() {
    let defaults = Policy::default();
    for (given, [enforce, audit, warn], bad) in [
        (json!({}), ["privileged:latest", "privileged:latest", "privileged:latest"], vec![]),
        (
            json!({"enforce": "baseline", "enforce-version": "v1.30"}),
            ["baseline:v1.30", "privileged:latest", "baseline:v1.30"],
            vec![],
        ),
        (
            json!({"enforce": "baseline", "warn": "privileged", "audit": "restricted", "audit-version": "v1.0"}),
            ["baseline:latest", "restricted:v1.0", "privileged:latest"],
            vec![],
        ),
        (
            json!({"enforce": "strict", "audit": "x", "warn": "y", "warn-version": "1.2"}),
            ["restricted:latest", "privileged:latest", "privileged:latest"],
            vec!["enforce", "audit", "warn", "warn-version"],
        ),
        (
            json!({"enforce": "baseline", "enforce-version": "v1.030"}),
            ["baseline:latest", "privileged:latest", "baseline:latest"],
            vec!["enforce-version"],
        ),
    ] {
        let (policy, errors) = Policy::of_labels(Some(&labels(&given)), &defaults);
        let all = [policy.enforce, policy.audit, policy.warn].map(|part| part.to_string());
        assert_eq!(all, [enforce, audit, warn], "{given}");
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        let expected: Vec<String> = bad
            .iter()
            .map(|label| format!("metadata.labels[pod-security.kubernetes.io/{label}]"))
            .collect();
        assert_eq!(fields, expected, "{given}");
    }
}

#[test]
fn an_update_that_changes_no_container_is_not_checked() {
    let pod = |change: Value| -> Pod {
        let mut object = json!({"metadata": {"labels": {}}, "spec": {
            "containers": [{"name": "c", "image": "i"}], "initContainers": [{"name": "d", "image": "i"}],
            "ephemeralContainers": [{"name": "e", "image": "i"}]}});
        json_patch::merge(&mut object, &change);
        Pod::decode(object.to_string().as_bytes()).unwrap()
    };
    let old = pod(json!({}));
    let containers = |image: &str| json!([{"name": "c", "image": image}]);
    for (change, significant) in [
        (json!({}), false),
        (json!({"metadata": {"labels": {"a": "b"}, "annotations": {"a": "b"}}}), false),
        (json!({"spec": {"activeDeadlineSeconds": 5}}), false),
        (json!({"spec": {"containers": containers("j")}}), true),
        (json!({"spec": {"initContainers": [{"name": "d", "image": "j"}]}}), true),
        (json!({"spec": {"ephemeralContainers": [{"name": "f", "image": "i"}]}}), true),
        (json!({"metadata": {"annotations": {SECCOMP: "unconfined"}}}), true),
        (json!({"metadata": {"annotations": {format!("{SECCOMP_CONTAINER}e"): "x"}}}), true),
    ] {
        assert_eq!(is_significant(&pod(change.clone()), &old), significant, "{change}");
    }
}

#[test]
fn every_workload_has_a_template() {
    for row in api::kind::KINDS.iter().filter(|row| row.stored) {
        let definition = row.schema().unwrap();
        let path = match &*row.kind {
            "CronJob" => "/spec/jobTemplate/spec/template",
            "PodTemplate" => "/template",
            _ => "/spec/template",
        };
        let spec = definition.field("spec").and_then(|field| field.ty.definition());
        let nested = spec.is_some_and(|spec| {
            spec.field("jobTemplate").is_some()
                || spec
                    .field("template")
                    .and_then(|field| field.ty.definition())
                    .is_some_and(|template| template.name == "io.k8s.api.core.v1.PodTemplateSpec")
        });
        if !nested && row.kind != "PodTemplate" {
            continue;
        }
        let mut object = json!({"metadata": {}, "spec": {"schedule": "* * * * *"}});
        let pod = json!({"spec": {"containers": []}});
        let mut at = &mut object;
        for part in path.split('/').skip(1) {
            at = &mut at[part];
        }
        *at = pod;
        let object = api::kind::decode(&(*row).into(), object.to_string().as_bytes()).unwrap();
        assert!(template(&*object).is_some(), "{}", row.kind);
    }
}
