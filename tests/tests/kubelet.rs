//! What a node does for its pods: environment, volumes, probes, start order, termination; and that
//! none of it depends on the kubelet or containerd staying alive.

#[path = "kubelet/bootstrap.rs"]
mod bootstrap;
#[path = "kubelet/certificates.rs"]
mod certificates;
#[path = "kubelet/devices.rs"]
mod devices;
#[path = "kubelet/image_volumes.rs"]
mod image_volumes;
#[path = "kubelet/node.rs"]
mod node;
#[path = "kubelet/phase.rs"]
mod phase;
#[path = "kubelet/pod_certificates.rs"]
mod pod_certificates;
#[path = "kubelet/probes.rs"]
mod probes;
#[path = "kubelet/resources.rs"]
mod resources;
#[path = "kubelet/start_failures.rs"]
mod start_failures;
#[path = "kubelet/static_pods.rs"]
mod static_pods;
#[path = "kubelet/user_namespaces.rs"]
mod user_namespaces;
#[path = "kubelet/volumes.rs"]
mod volumes;

use anyhow::{Context, ensure};
use bootstrap::a_kubelet_joins_with_a_token_even_if_it_is_killed_meanwhile;
use certificates::{
    a_kubelet_renews_its_certificates, requests_are_approved_and_denied_by_both_tools,
};
use client::{Api, DeleteOptions, PatchKind};
use devices::devices_of_a_plugin_are_given_to_pods;
use image_volumes::an_image_is_mounted_as_a_volume;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use node::{a_forced_deletion_frees_the_ports_of_a_pod, a_node_reports_events_about_itself};
use phase::a_pod_that_the_api_says_has_failed_is_stopped_and_replaced;
use pod_certificates::a_pod_has_a_certificate_that_is_renewed;
use probes::{probes_use_grpc, probes_use_https};
use resources::{
    a_critical_pod_preempts_another, huge_pages_are_a_resource_and_a_volume,
    the_limits_of_a_pod_hold_for_its_containers,
};
use serde_json::json;
use start_failures::{
    a_corrected_annotation_starts_its_pod, pods_that_a_node_does_not_allow_are_rejected,
    probes_that_cannot_run_do_not_count, reasons_for_failed_starts_are_reported,
};
use static_pods::{a_static_pod_starts_without_the_apiserver, static_pods_follow_their_files};
use std::process::ExitCode;
use testkit::suite::Fixture;
use testkit::{Options, manifest, scenarios, suite, wait};
use tests::pods;
use user_namespaces::{
    a_pod_has_users_of_its_own, containers_of_a_pod_with_users_of_its_own_share_processes,
};
use volumes::{
    a_container_restarts_with_the_new_file_of_a_config_map, a_group_gets_the_pods_own_volumes_only,
    secrets_are_in_memory_and_outlive_the_kubelet,
};

fn main() -> ExitCode {
    suite::run(
        Options::default(),
        &["busybox", "testserver-v1"],
        scenarios![
            a_node_reports_events_about_itself,
            a_kubelet_renews_its_certificates,
            a_kubelet_joins_with_a_token_even_if_it_is_killed_meanwhile,
            a_pod_has_a_certificate_that_is_renewed,
            requests_are_approved_and_denied_by_both_tools,
            variables_and_volumes_come_from_objects,
            a_volume_follows_its_config_map,
            a_container_restarts_with_the_new_file_of_a_config_map,
            secrets_are_in_memory_and_outlive_the_kubelet,
            a_group_gets_the_pods_own_volumes_only,
            an_image_is_mounted_as_a_volume,
            devices_of_a_plugin_are_given_to_pods,
            the_limits_of_a_pod_hold_for_its_containers,
            a_critical_pod_preempts_another,
            huge_pages_are_a_resource_and_a_volume,
            static_pods_follow_their_files,
            a_static_pod_starts_without_the_apiserver,
            a_pod_waits_for_missing_objects,
            init_containers_and_sidecars_run_in_order,
            probes_control_readiness_and_restarts,
            probes_use_grpc,
            probes_use_https,
            a_missing_command_is_reported,
            reasons_for_failed_starts_are_reported,
            a_corrected_annotation_starts_its_pod,
            probes_that_cannot_run_do_not_count,
            pods_that_a_node_does_not_allow_are_rejected,
            termination_messages_are_recorded,
            the_last_words_of_a_container_are_waited_for,
            a_deadline_ends_a_pod,
            a_pod_that_the_api_says_has_failed_is_stopped_and_replaced,
            a_volume_over_its_limit_evicts_its_pod,
            users_and_groups_are_applied,
            a_pod_has_users_of_its_own,
            containers_of_a_pod_with_users_of_its_own_share_processes,
            a_pod_gets_its_grace_period,
            a_forced_deletion_frees_the_ports_of_a_pod,
            an_ephemeral_container_joins_its_pod,
            limits_are_resized_in_place,
            a_killed_kubelet_changes_nothing,
            a_killed_containerd_changes_nothing,
        ],
    )
}

async fn create(fixture: &Fixture, yaml: &str) -> anyhow::Result<()> {
    manifest::create(fixture.cluster.client(), &fixture.namespace, yaml).await
}

/// The output of a command in a container.
fn exec(fixture: &Fixture, pod: &str, container: &str, command: &str) -> anyhow::Result<String> {
    let arguments =
        ["exec", "-n", &fixture.namespace, pod, "-c", container, "--", "sh", "-c", command];
    Ok(fixture.cluster.skiff(&arguments)?.trim().to_owned())
}

async fn variables_and_volumes_come_from_objects(fixture: &Fixture) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue, note: "hello"}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {password: pw}
---
apiVersion: v1
kind: Pod
metadata: {name: all, labels: {app: all}}
spec:
  containers:
  - name: main
    image: skiff.test/busybox:1
    command: [sh, -c, "exec sleep $(DURATION)"]
    env:
    - {name: DURATION, value: "1000"}
    - {name: COLOR, valueFrom: {configMapKeyRef: {name: settings, key: color}}}
    - {name: GONE, valueFrom: {configMapKeyRef: {name: settings, key: none, optional: true}}}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: keys, key: password}}}
    - {name: ADDRESS, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: LIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
    envFrom: [{prefix: S_, configMapRef: {name: settings}}]
    resources: {limits: {memory: 32Mi}}
    volumeMounts:
    - {name: settings, mountPath: /settings}
    - {name: settings, mountPath: /one/note.txt, subPath: note}
    - {name: projected, mountPath: /projected}
    - {name: memory, mountPath: /memory}
  volumes:
  - {name: settings, configMap: {name: settings}}
  - {name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
  - name: projected
    projected:
      defaultMode: 288
      sources:
      - {secret: {name: keys, items: [{key: password, path: deep/password}]}}
      - {downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
      - {serviceAccountToken: {path: token, expirationSeconds: 600}}
"#;
    create(fixture, yaml).await?;
    let pod = pods::ready(fixture, "all").await?;
    let sh = |command: &str| exec(fixture, "all", "main", command);
    for (command, expected) in [
        ("echo $COLOR $PASSWORD $S_note $LIMIT", "blue pw hello 32"),
        ("echo ${GONE-unset}", "unset"),
        ("echo $ADDRESS", pods::address(&pod)),
        ("cat /settings/color", "blue"),
        ("cat /one/note.txt", "hello"),
        ("cat /projected/deep/password", "pw"),
        ("stat -L -c %a /projected/labels", "440"),
        ("cat /projected/labels", "app=\"all\""),
        ("cut -c 1-3 /projected/token", "eyJ"),
        ("hostname", "all"),
        ("grep -cw all /etc/hosts", "1"),
        ("echo $KUBERNETES_SERVICE_PORT", "443"),
        ("dd if=/dev/zero of=/memory/x bs=64k count=32 2>/dev/null || echo full", "full"),
    ] {
        let found = sh(command)?;
        ensure!(found == expected, "{command}: {found:?}");
    }
    ensure!(
        sh("cat /etc/resolv.conf")?.contains(&format!("{}.svc.cluster.local", fixture.namespace))
    );
    Ok(())
}

async fn a_volume_follows_its_config_map(fixture: &Fixture) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: live}
data: {key: one}
---
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: skiff.test/busybox:1
    command: [sleep, "1000"]
    volumeMounts: [{name: live, mountPath: /live}, {name: gone, mountPath: /gone}]
  volumes: [{name: gone, configMap: {name: gone}}, {name: live, configMap: {name: live}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: gone}
data: {key: "kept"}
"#;
    create(fixture, yaml).await?;
    pods::ready(fixture, "reader").await?;
    ensure!(exec(fixture, "reader", "main", "cat /live/key")? == "one");
    let maps: Api<ConfigMap> = Api::namespaced(fixture.cluster.client(), &fixture.namespace);
    // Pods keep the contents of a deleted ConfigMap, and their other volumes are still updated.
    maps.delete("gone", &DeleteOptions::default()).await?;
    let change = json!({"data": {"key": "two", "more": "x"}});
    maps.patch("live", PatchKind::Merge, &change).await?;
    wait::eventually("the volume has the new contents", async || {
        let found = exec(fixture, "reader", "main", "cat /live/key; echo; ls /live")?;
        ensure!(found == "two\nkey\nmore", "{found:?}");
        Ok(())
    })
    .await?;
    ensure!(exec(fixture, "reader", "main", "cat /gone/key")? == "kept");
    Ok(())
}

async fn a_pod_waits_for_missing_objects(fixture: &Fixture) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: v1
kind: Pod
metadata: {name: env}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: "skiff.test/busybox:1", command: [sleep, "1000"], envFrom: [{configMapRef: {name: late}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: volume}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: "skiff.test/busybox:1", command: [sleep, "1000"], volumeMounts: [{name: late, mountPath: /late}]}
  volumes: [{name: late, secret: {secretName: late}}]
"#;
    create(fixture, yaml).await?;
    pods::one(fixture, "env", "the missing ConfigMap is reported", |pod| {
        pods::waiting_reason(pod, "main") == "CreateContainerConfigError"
    })
    .await?;
    wait::eventually("there is a FailedMount event", async || {
        let events = fixture.cluster.skiff(&["get", "events", "-n", &fixture.namespace])?;
        ensure!(events.contains("FailedMount"), "{events}");
        ensure!(events.contains("secret \"late\" not found"), "{events}");
        Ok(())
    })
    .await?;
    let late = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: late}
data: {a: b}
---
apiVersion: v1
kind: Secret
metadata: {name: late}
stringData: {a: b}
"#;
    create(fixture, late).await?;
    pods::ready(fixture, "env").await?;
    pods::ready(fixture, "volume").await?;
    Ok(())
}

async fn init_containers_and_sidecars_run_in_order(fixture: &Fixture) -> anyhow::Result<()> {
    // Each container logs when it starts and when it is asked to stop.
    let yaml = r#"
apiVersion: v1
kind: Pod
metadata: {name: order}
spec:
  terminationGracePeriodSeconds: 20
  initContainers:
  - name: first
    image: skiff.test/busybox:1
    command: [sh, -c, "echo first >> /log/log"]
    volumeMounts: &log [{name: log, mountPath: /log}]
  - name: side-one
    image: skiff.test/busybox:1
    restartPolicy: Always
    command: &side [sh, -c, 'trap "echo end-$NAME >> /log/log; exit 0" TERM; echo $NAME >> /log/log; touch /tmp/up; while true; do sleep 0.1; done']
    env: [{name: NAME, value: side-one}]
    startupProbe: &up {exec: {command: [test, -e, /tmp/up]}, periodSeconds: 1}
    volumeMounts: *log
  - name: side-two
    image: skiff.test/busybox:1
    restartPolicy: Always
    command: *side
    env: [{name: NAME, value: side-two}]
    startupProbe: *up
    volumeMounts: *log
  - name: second
    image: skiff.test/busybox:1
    command: [sh, -c, "echo second >> /log/log"]
    volumeMounts: *log
  containers:
  - name: main
    image: skiff.test/busybox:1
    command: *side
    env: [{name: NAME, value: main}]
    lifecycle: {preStop: {exec: {command: [sh, -c, "echo hook >> /log/log"]}}}
    volumeMounts: *log
  volumes: [{name: log, hostPath: {path: LOG, type: DirectoryOrCreate}}]
"#;
    let folder = fixture.cluster.folder().join("order");
    create(fixture, &yaml.replace("LOG", &folder.to_string_lossy())).await?;
    pods::ready(fixture, "order").await?;
    let api: Api<Pod> = Api::namespaced(fixture.cluster.client(), &fixture.namespace);
    api.delete("order", &DeleteOptions::default()).await?;
    pods::until(fixture, "", "the pod is gone", |pods| pods.is_empty()).await?;
    let log = std::fs::read_to_string(folder.join("log"))?;
    let found: Vec<&str> = log.lines().collect();
    let expected = [
        "first",
        "side-one",
        "side-two",
        "second",
        "main",
        "hook",
        "end-main",
        "end-side-two",
        "end-side-one",
    ];
    ensure!(found == expected, "{found:?}");
    Ok(())
}

async fn probes_control_readiness_and_restarts(fixture: &Fixture) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: v1
kind: Pod
metadata: {name: probed}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: ready
    image: skiff.test/busybox:1
    command: [sh, -c, "mkdir /www; touch /www/ok; exec httpd -f -p 8080 -h /www"]
    readinessProbe: {httpGet: {path: /ok, port: 8080}, periodSeconds: 1, failureThreshold: 1}
  - name: alive
    image: skiff.test/busybox:1
    command: [sh, -c, "touch /tmp/alive; exec sleep 1000"]
    livenessProbe: {exec: {command: [test, -e, /tmp/alive]}, periodSeconds: 1, failureThreshold: 1}
"#;
    create(fixture, yaml).await?;
    pods::ready(fixture, "probed").await?;
    exec(fixture, "probed", "ready", "mv /www/ok /www/no")?;
    pods::one(fixture, "probed", "it is not ready", |pod| !pods::is_ready(pod)).await?;
    exec(fixture, "probed", "ready", "mv /www/no /www/ok")?;
    let pod = pods::ready(fixture, "probed").await?;
    ensure!(pods::restarts(&pod, "ready") == 0 && pods::restarts(&pod, "alive") == 0);
    exec(fixture, "probed", "alive", "rm /tmp/alive")?;
    let pod = pods::one(fixture, "probed", "it was restarted", |pod| {
        pods::restarts(pod, "alive") == 1 && pods::is_ready(pod)
    })
    .await?;
    ensure!(pods::restarts(&pod, "ready") == 0);
    Ok(())
}

async fn a_missing_command_is_reported(fixture: &Fixture) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: v1
kind: Pod
metadata: {name: wrong}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "skiff.test/busybox:1", command: [no-such-command]}]
"#;
    create(fixture, yaml).await?;
    let pod = pods::one(fixture, "wrong", "it backs off", |pod| {
        pods::waiting_reason(pod, "main") == "CrashLoopBackOff"
    })
    .await?;
    let last = pods::container(&pod, "main").and_then(|status| status.last_state.clone());
    let ended = last.and_then(|state| state.terminated).context("it has no last state")?;
    ensure!(ended.reason.as_deref() == Some("StartError"), "{ended:?}");
    ensure!(ended.exit_code == 128, "{ended:?}");
    // It has never started, which Kubernetes shows as the epoch.
    let started = ended.started_at.as_ref().map(|time| time.0.to_string());
    ensure!(started.as_deref() == Some("1970-01-01T00:00:00Z"), "{ended:?}");
    ensure!(ended.message.unwrap_or_default().contains("no-such-command"));
    Ok(())
}

async fn termination_messages_are_recorded(fixture: &Fixture) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: v1
kind: Pod
metadata: {name: words}
spec:
  restartPolicy: Never
  containers:
  - {name: file, image: "skiff.test/busybox:1", command: [sh, -c, "echo written > /dev/termination-log; exit 1"]}
  - {name: log, image: "skiff.test/busybox:1", terminationMessagePolicy: FallbackToLogsOnError, command: [sh, -c, "echo logged; exit 1"]}
  - {name: fine, image: "skiff.test/busybox:1", terminationMessagePolicy: FallbackToLogsOnError, command: [echo, unheard]}
"#;
    create(fixture, yaml).await?;
    let pod =
        pods::one(fixture, "words", "it has failed", |pod| pods::phase(pod) == "Failed").await?;
    for (container, expected) in [("file", "written\n"), ("log", "logged\n"), ("fine", "")] {
        let state = pods::container(&pod, container).and_then(|status| status.state.clone());
        let ended = state.and_then(|state| state.terminated).context("it has ended")?;
        let message = ended.message.unwrap_or_default();
        ensure!(message == expected, "{container}: {message:?}");
    }
    Ok(())
}

/// A container that exits while its log is still being written has said all of it.
async fn the_last_words_of_a_container_are_waited_for(fixture: &Fixture) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: v1
kind: Pod
metadata: {name: talks}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: skiff.test/busybox:1
    terminationMessagePolicy: FallbackToLogsOnError
    command: [sh, -c, "seq 1 300000; echo that is all; exit 1"]
"#;
    create(fixture, yaml).await?;
    let failed = |pod: &Pod| pods::phase(pod) == "Failed";
    let pod = pods::one(fixture, "talks", "it has failed", failed).await?;
    let state = pods::container(&pod, "main").and_then(|status| status.state.clone());
    let ended = state.and_then(|state| state.terminated).context("it has ended")?;
    let message = ended.message.unwrap_or_default();
    ensure!(message.ends_with("\n299999\n300000\nthat is all\n"), "{message:?}");
    ensure!(message.lines().count() == 80, "{message:?}");
    Ok(())
}

async fn a_deadline_ends_a_pod(fixture: &Fixture) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: v1
kind: Pod
metadata: {name: late}
spec:
  activeDeadlineSeconds: 1
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "skiff.test/busybox:1", command: [sleep, "1000"]}]
"#;
    create(fixture, yaml).await?;
    let pod =
        pods::one(fixture, "late", "it has failed", |pod| pods::phase(pod) == "Failed").await?;
    let reason = pod.status.and_then(|status| status.reason);
    ensure!(reason.as_deref() == Some("DeadlineExceeded"), "{reason:?}");
    start_failures::event(fixture, "late", "DeadlineExceeded", "longer than the specified").await
}

async fn a_volume_over_its_limit_evicts_its_pod(fixture: &Fixture) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: v1
kind: Pod
metadata: {name: full}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: "skiff.test/busybox:1", command: [sh, -c, "dd if=/dev/zero of=/data/x bs=1M count=2; exec sleep 1000"], volumeMounts: [{name: data, mountPath: /data}]}
  volumes: [{name: data, emptyDir: {sizeLimit: 1Mi}}]
---
apiVersion: v1
kind: Pod
metadata: {name: written}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: "skiff.test/busybox:1", command: [sh, -c, "dd if=/dev/zero of=/x bs=1M count=2; exec sleep 1000"], resources: {limits: {ephemeral-storage: 1Mi}}}
"#;
    create(fixture, yaml).await?;
    let over = "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ";
    for (name, text) in [("full", "exceeds the limit \"1Mi\""), ("written", over)] {
        let pod =
            pods::one(fixture, name, "it has failed", |pod| pods::phase(pod) == "Failed").await?;
        let status = pod.status.unwrap_or_default();
        ensure!(status.reason.as_deref() == Some("Evicted"), "{status:?}");
        let message = status.message.unwrap_or_default();
        ensure!(message.contains(text), "{message}");
    }
    Ok(())
}

async fn users_and_groups_are_applied(fixture: &Fixture) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: v1
kind: Pod
metadata: {name: user}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {runAsUser: 1000, runAsGroup: 3000, fsGroup: 2000, supplementalGroups: [4000]}
  containers:
  - {name: main, image: "skiff.test/busybox:1", command: [sleep, "1000"], volumeMounts: [{name: data, mountPath: /data}]}
  volumes: [{name: data, emptyDir: {}}]
---
apiVersion: v1
kind: Pod
metadata: {name: root}
spec:
  securityContext: {runAsNonRoot: true}
  containers: [{name: main, image: "skiff.test/busybox:1", command: [sleep, "1000"]}]
"#;
    create(fixture, yaml).await?;
    pods::ready(fixture, "user").await?;
    let found = exec(
        fixture,
        "user",
        "main",
        "touch /data/x; id -u; id -g; id -G; stat -c '%u %g' /data/x",
    )?;
    let lines: Vec<&str> = found.lines().collect();
    ensure!(lines[0] == "1000" && lines[1] == "3000", "{found}");
    ensure!(lines[2].contains("2000") && lines[2].contains("4000"), "{found}");
    ensure!(lines[3] == "1000 2000", "{found}");
    pods::one(fixture, "root", "it is rejected", |pod| {
        pods::waiting_reason(pod, "main") == "CreateContainerConfigError"
    })
    .await?;
    Ok(())
}

async fn a_pod_gets_its_grace_period(fixture: &Fixture) -> anyhow::Result<()> {
    // Neither ends on SIGTERM, and both have a longer grace period than the test would wait.
    let yaml = r#"
apiVersion: v1
kind: Pod
metadata: {name: stubborn}
spec:
  terminationGracePeriodSeconds: 600
  containers: [{name: main, image: "skiff.test/busybox:1", command: [sh, -c, 'trap "" TERM; while true; do sleep 1; done']}]
---
apiVersion: v1
kind: Pod
metadata: {name: signalled}
spec:
  os: {name: linux}
  terminationGracePeriodSeconds: 600
  containers:
  - name: main
    image: "skiff.test/busybox:1"
    command: [sh, -c, 'trap "" TERM; trap "exit 0" USR1; touch /ready; while true; do sleep 0.1; done']
    lifecycle: {stopSignal: SIGUSR1}
    readinessProbe: {exec: {command: [cat, /ready]}, periodSeconds: 1}
"#;
    create(fixture, yaml).await?;
    pods::ready(fixture, "stubborn").await?;
    let signalled = pods::ready(fixture, "signalled").await?;
    let signal = pods::container(&signalled, "main").and_then(|one| one.stop_signal.as_deref());
    ensure!(signal == Some("SIGUSR1"), "{signal:?}");
    let api: Api<Pod> = Api::namespaced(fixture.cluster.client(), &fixture.namespace);
    api.delete("signalled", &DeleteOptions::default()).await?;
    api.delete("stubborn", &DeleteOptions::default()).await?;
    pods::one(fixture, "stubborn", "it is being deleted", |pod| {
        pod.metadata.deletion_timestamp.is_some()
    })
    .await?;
    exec(fixture, "stubborn", "main", "true").context("it should still be running")?;
    let sooner = DeleteOptions { grace_period_seconds: Some(1), ..Default::default() };
    api.delete("stubborn", &sooner).await?;
    pods::until(fixture, "", "the pod is gone", |pods| pods.is_empty()).await?;
    Ok(())
}

async fn an_ephemeral_container_joins_its_pod(fixture: &Fixture) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: v1
kind: Pod
metadata: {name: target}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "skiff.test/busybox:1", command: [sleep, "1000"]}]
"#;
    create(fixture, yaml).await?;
    pods::ready(fixture, "target").await?;
    let change = r#"{"spec":{"ephemeralContainers":[{"name":"debug","image":"skiff.test/busybox:1","command":["sh","-c","hostname"]}]}}"#;
    let namespace = fixture.namespace.as_str();
    let arguments = [
        "patch",
        "pod",
        "target",
        "-n",
        namespace,
        "--subresource=ephemeralcontainers",
        "-p",
        change,
    ];
    fixture.cluster.skiff(&arguments)?;
    let ended = |pod: &Pod| {
        let status = pod.status.clone().unwrap_or_default();
        let mut debug = status.ephemeral_container_statuses.into_iter().flatten();
        let state = debug.next().and_then(|status| status.state);
        state.is_some_and(|state| state.terminated.is_some())
    };
    let pod = pods::one(fixture, "target", "the debugging container has ended", ended).await?;
    ensure!(pods::is_ready(&pod), "the pod is no longer Ready");
    let log = fixture.cluster.skiff(&["logs", "-n", namespace, "target", "-c", "debug"])?;
    ensure!(log.trim() == "target", "{log:?}");
    Ok(())
}

async fn limits_are_resized_in_place(fixture: &Fixture) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: v1
kind: Pod
metadata: {name: sized}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: "skiff.test/busybox:1", command: [sleep, "1000"], resources: {requests: {cpu: 10m, memory: 32Mi}, limits: {cpu: 500m, memory: 64Mi}}}
"#;
    create(fixture, yaml).await?;
    let before = pods::ready(fixture, "sized").await?;
    let quota = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d ' ' -f 1 /sys/fs/cgroup/cpu.max";
    ensure!(exec(fixture, "sized", "main", quota)? == "50000");
    let change = r#"{"spec":{"containers":[{"name":"main","resources":{"requests":{"cpu":"20m","memory":"32Mi"},"limits":{"cpu":"700m","memory":"64Mi"}}}]}}"#;
    let namespace = fixture.namespace.as_str();
    let arguments =
        ["patch", "pod", "sized", "-n", namespace, "--subresource=resize", "-p", change];
    fixture.cluster.skiff(&arguments)?;
    wait::eventually("the limit is in force", async || {
        let found = exec(fixture, "sized", "main", quota)?;
        ensure!(found == "70000", "{found}");
        Ok(())
    })
    .await?;
    let after = pods::ready(fixture, "sized").await?;
    ensure!(id(&before, "main") == id(&after, "main"), "it was restarted");
    Ok(())
}

fn id(pod: &Pod, container: &str) -> Option<String> {
    pods::container(pod, container).and_then(|status| status.container_id.clone())
}

const STEADY: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: steady}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: skiff.test/busybox:1
    command: [sleep, "1000"]
    readinessProbe: {exec: {command: ["true"]}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: leaves}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "skiff.test/busybox:1", command: [sleep, "1000"]}]
"#;

/// Kills a process of the node while one pod is running, one is being deleted and one is created.
async fn killed(fixture: &Fixture, process: &str) -> anyhow::Result<()> {
    create(fixture, STEADY).await?;
    let before = pods::ready(fixture, "steady").await?;
    pods::ready(fixture, "leaves").await?;
    let pid = fixture.cluster.pid(process)?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    let api: Api<Pod> = Api::namespaced(fixture.cluster.client(), &fixture.namespace);
    api.delete("leaves", &DeleteOptions::default()).await?;
    let comes = r#"
apiVersion: v1
kind: Pod
metadata: {name: comes}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "skiff.test/busybox:1", command: [sleep, "1000"]}]
"#;
    create(fixture, comes).await?;
    pods::ready(fixture, "comes").await?;
    pods::until(fixture, "", "the deleted pod is gone", |pods| !pods.contains_key("leaves"))
        .await?;
    let after = api.get("steady").await?;
    ensure!(id(&before, "main") == id(&after, "main"));
    ensure!(pods::restarts(&after, "main") == 0);
    ensure!(before.status == after.status, "its status has changed: {:?}", after.status);
    exec(fixture, "steady", "main", "true").map(drop)
}

async fn a_killed_kubelet_changes_nothing(fixture: &Fixture) -> anyhow::Result<()> {
    killed(fixture, "kubelet-node-1").await
}

async fn a_killed_containerd_changes_nothing(fixture: &Fixture) -> anyhow::Result<()> {
    killed(fixture, "containerd-node-1").await
}
