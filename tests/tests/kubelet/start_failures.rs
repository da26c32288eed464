//! What prevents a container from starting, as Kubernetes reports it: reason, message and event.

use std::collections::BTreeMap;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Event, Pod};
use serde_json::json;
use testkit::suite::Fixture;
use testkit::wait::{self, Selection};
use tests::pods;

use super::create;

/// Waits for an event about a pod with this reason and this text.
pub async fn event(fixture: &Fixture, pod: &str, reason: &str, text: &str) -> anyhow::Result<()> {
    let selection = Selection::namespace(&fixture.namespace);
    let what = format!("{pod} has an event {reason}: {text}");
    let matches = |event: &Event| {
        event.involved_object.name.as_deref() == Some(pod)
            && event.reason.as_deref() == Some(reason)
            && event.message.as_deref().is_some_and(|it| it.contains(text))
    };
    let any = |events: &BTreeMap<String, Event>| events.values().any(matches);
    wait::until(fixture.cluster.client(), selection, &what, any).await?;
    Ok(())
}

/// Waits until the container `main` of a pod is waiting for this reason, with this text.
pub async fn waits(fixture: &Fixture, pod: &str, reason: &str, text: &str) -> anyhow::Result<Pod> {
    let what = format!("it is waiting: {reason}: {text}");
    pods::one(fixture, pod, &what, |pod| {
        let state = pods::container(pod, "main").and_then(|status| status.state.as_ref());
        let waiting = state.and_then(|state| state.waiting.as_ref());
        waiting.is_some_and(|waiting| {
            waiting.reason.as_deref() == Some(reason)
                && waiting.message.as_deref().is_some_and(|it| it.contains(text))
        })
    })
    .await
}

pub async fn reasons_for_failed_starts_are_reported(fixture: &Fixture) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: v1
kind: Pod
metadata: {name: misnamed}
spec:
  containers: [{name: main, image: "Not/An/Image"}]
---
apiVersion: v1
kind: Pod
metadata: {name: absent}
spec:
  containers: [{name: main, image: "skiff.test/absent:1", imagePullPolicy: Never}]
---
apiVersion: v1
kind: Pod
metadata: {name: unreachable}
spec:
  containers: [{name: main, image: "127.0.0.1:1/absent:1"}]
---
apiVersion: v1
kind: Pod
metadata: {name: rooted}
spec:
  securityContext: {runAsNonRoot: true}
  containers: [{name: main, image: "skiff.test/busybox:1"}]
---
apiVersion: v1
kind: Pod
metadata: {name: zero}
spec:
  containers: [{name: main, image: "skiff.test/busybox:1", securityContext: {runAsNonRoot: true, runAsUser: 0}}]
"#;
    create(fixture, yaml).await?;
    let parse = "couldn't parse image name \"Not/An/Image\"";
    let root = "container has runAsNonRoot and image will run as root (pod: \"rooted_";
    let zero = "container's runAsUser breaks non-root policy (pod: \"zero_";
    for (pod, reason, text, events) in [
        (
            "misnamed",
            "InvalidImageName",
            parse,
            [("InspectFailed", parse), ("Failed", "Error: InvalidImageName")],
        ),
        (
            "absent",
            "ErrImageNeverPull",
            "is not present with pull policy of Never",
            [
                ("ErrImageNeverPull", "is not present with pull policy"),
                ("Failed", "Error: ErrImageNeverPull"),
            ],
        ),
        (
            "unreachable",
            "ImagePullBackOff",
            "onnection refused",
            [("Failed", "Failed to pull image"), ("Failed", "Error: ErrImagePull")],
        ),
        (
            "rooted",
            "CreateContainerConfigError",
            root,
            [("Failed", root), ("Failed", "container: main)")],
        ),
        (
            "zero",
            "CreateContainerConfigError",
            zero,
            [("Failed", zero), ("Failed", "container: main)")],
        ),
    ] {
        waits(fixture, pod, reason, text).await?;
        for (reason, text) in events {
            event(fixture, pod, reason, text).await?;
        }
    }
    Ok(())
}

/// A subpath from an annotation that is wrong at first and corrected while the pod waits.
pub async fn a_corrected_annotation_starts_its_pod(fixture: &Fixture) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: v1
kind: Pod
metadata: {name: below, annotations: {path: /absolute}}
spec:
  volumes: [{name: work, emptyDir: {}}]
  containers:
  - name: main
    image: skiff.test/busybox:1
    command: [sh, -c, "touch /work/mine && exec sleep 1000"]
    securityContext: {runAsUser: 1000}
    env: [{name: AT, valueFrom: {fieldRef: {fieldPath: "metadata.annotations['path']"}}}]
    volumeMounts: [{name: work, mountPath: /work, subPathExpr: $(AT)}]
    readinessProbe: {exec: {command: [ls, /work/mine]}, periodSeconds: 1}
"#;
    create(fixture, yaml).await?;
    waits(fixture, "below", "CreateContainerConfigError", "/absolute").await?;
    let patch = json!({"metadata": {"annotations": {"path": "a/b"}}});
    let api = client::Api::<Pod>::namespaced(fixture.cluster.client(), &fixture.namespace);
    api.patch("below", client::PatchKind::Merge, &patch).await.context("correct the annotation")?;
    // A folder created below a world-writable one is world-writable too: user 1000 can write.
    pods::ready(fixture, "below").await?;
    Ok(())
}

/// A missing command says nothing about the container, as in Kubernetes; the other probe counts.
pub async fn probes_that_cannot_run_do_not_count(fixture: &Fixture) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: v1
kind: Pod
metadata: {name: unprobed}
spec:
  containers:
  - name: main
    image: skiff.test/testserver:v1
    args: [serve]
    livenessProbe: {exec: {command: [no-such-command]}, periodSeconds: 1, failureThreshold: 1}
    readinessProbe: {httpGet: {port: 8080, path: /ready}, periodSeconds: 1}
"#;
    create(fixture, yaml).await?;
    let errored = "Liveness probe errored and resulted in unknown state: ";
    event(fixture, "unprobed", "Unhealthy", errored).await?;
    let pod = pods::ready(fixture, "unprobed").await?;
    anyhow::ensure!(pods::restarts(&pod, "main") == 0);
    Ok(())
}

/// Settings that a node does not permit, or cannot enforce.
pub async fn pods_that_a_node_does_not_allow_are_rejected(fixture: &Fixture) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: v1
kind: Pod
metadata: {name: tuned}
spec:
  securityContext: {sysctls: [{name: kernel.msgmax, value: "65536"}]}
  containers: [{name: main, image: "skiff.test/testserver:v1", args: [serve]}]
---
apiVersion: v1
kind: Pod
metadata: {name: armoured}
spec:
  containers: [{name: main, image: "skiff.test/testserver:v1", args: [serve], securityContext: {appArmorProfile: {type: RuntimeDefault}}}]
---
apiVersion: v1
kind: Pod
metadata: {name: filtered}
spec:
  containers: [{name: main, image: "skiff.test/testserver:v1", args: [serve], securityContext: {seccompProfile: {type: Localhost, localhostProfile: absent.json}}}]
"#;
    create(fixture, yaml).await?;
    let mut refused = vec![("tuned", "SysctlForbidden")];
    let enforced = std::fs::read("/sys/module/apparmor/parameters/enabled");
    if enforced.is_ok_and(|text| text.starts_with(b"Y")) {
        pods::ready(fixture, "armoured").await?;
    } else {
        refused.push(("armoured", "AppArmor"));
    }
    for (pod, reason) in refused {
        pods::one(fixture, pod, reason, |pod| {
            let status = pod.status.as_ref();
            let found = status.and_then(|status| status.reason.as_deref());
            pods::phase(pod) == "Failed" && found == Some(reason)
        })
        .await?;
    }
    let missing = "absent.json: No such file or directory";
    waits(fixture, "filtered", "CreateContainerError", missing).await?;
    Ok(())
}
