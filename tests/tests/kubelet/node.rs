//! Events about a node, and its host ports.

use std::collections::BTreeMap;

use client::{Api, DeleteOptions};
use k8s_openapi::api::core::v1::{Event, Pod};
use testkit::suite::Fixture;
use testkit::wait::{self, Selection};
use tests::pods;

use super::create;

pub async fn a_node_reports_events_about_itself(fixture: &Fixture) -> anyhow::Result<()> {
    let wanted = [
        "Starting",
        "NodeHasSufficientMemory",
        "NodeHasNoDiskPressure",
        "NodeHasSufficientPID",
        "NodeReady",
    ];
    let all_there = |events: &BTreeMap<String, Event>| {
        wanted.iter().all(|reason| {
            events.values().any(|event| {
                let about = &event.involved_object;
                event.reason.as_deref() == Some(reason)
                    && about.kind.as_deref() == Some("Node")
                    && about.name.as_deref() == Some("node-1")
            })
        })
    };
    let selection = Selection::namespace("default");
    wait::until(fixture.cluster.client(), selection, "all events are there", all_there).await?;
    Ok(())
}

pub async fn a_forced_deletion_frees_the_ports_of_a_pod(fixture: &Fixture) -> anyhow::Result<()> {
    // It takes long to terminate, and its replacement does not wait for it.
    let yaml = r#"
apiVersion: v1
kind: Pod
metadata: {name: holder}
spec:
  terminationGracePeriodSeconds: 5
  containers:
  - name: main
    image: skiff.test/busybox:1
    command: [sh, -c, 'trap "" TERM; touch /ready; while true; do sleep 0.1; done']
    ports: [{containerPort: 80, hostPort: 7070}]
    readinessProbe: {exec: {command: [cat, /ready]}, periodSeconds: 1}
"#;
    create(fixture, yaml).await?;
    pods::ready(fixture, "holder").await?;
    let api: Api<Pod> = Api::namespaced(fixture.cluster.client(), &fixture.namespace);
    let at_once = DeleteOptions { grace_period_seconds: Some(0), ..Default::default() };
    api.delete("holder", &at_once).await?;
    create(fixture, yaml).await?;
    pods::ready(fixture, "holder").await?;
    Ok(())
}
