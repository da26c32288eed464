//! Deployments, ReplicaSets, StatefulSets, DaemonSets, ReplicationControllers, Jobs.

use rpc::api_v1::ListRequest;
use serde_json::Value;

use super::super::workload::{pods_by_selector, selector_of};
use super::text::{Text, items, moment, or, word};
use super::{Scene, heading, labels, pod};

pub async fn deployment(scene: &Scene<'_>, out: &mut Text) -> anyhow::Result<()> {
    let object = scene.object;
    let (spec, status) = (&object["spec"], &object["status"]);
    heading(object, out);
    out.line(
        "CreationTimestamp",
        moment(&object["metadata"]["creationTimestamp"]),
    );
    labels(object, out);
    out.line("Selector", selector_of(object)?);
    out.line(
        "Replicas",
        format!(
            "{} desired | {} updated | {} total | {} available | {} unavailable",
            or(&spec["replicas"], "1"),
            or(&status["updatedReplicas"], "0"),
            or(&status["replicas"], "0"),
            or(&status["availableReplicas"], "0"),
            or(&status["unavailableReplicas"], "0"),
        ),
    );
    out.line("StrategyType", word(&spec["strategy"]["type"]));
    out.line("MinReadySeconds", or(&spec["minReadySeconds"], "0"));
    let rolling = &spec["strategy"]["rollingUpdate"];
    if rolling.is_object() {
        let text = format!(
            "{} max unavailable, {} max surge",
            word(&rolling["maxUnavailable"]),
            word(&rolling["maxSurge"])
        );
        out.line("RollingUpdateStrategy", text);
    }
    if spec["paused"] == true {
        out.line("Paused", "true");
    }
    pod::template(&spec["template"], out);
    let mut rows = vec![
        ["Type", "Status", "Reason"].map(str::to_owned),
        ["----", "------", "------"].map(str::to_owned),
    ];
    rows.extend(items(&status["conditions"]).map(|condition| {
        [
            word(&condition["type"]),
            word(&condition["status"]),
            word(&condition["reason"]),
        ]
    }));
    out.raw("Conditions:");
    out.table(1, &rows);
    replica_sets(scene, out).await
}

async fn replica_sets(scene: &Scene<'_>, out: &mut Text) -> anyhow::Result<()> {
    let metadata = &scene.object["metadata"];
    let resource = scene.resources.find("replicasets.apps")?;
    let request = ListRequest {
        target: Some(resource.target(metadata["namespace"].as_str().unwrap_or_default(), "", "")),
        label_selector: selector_of(scene.object)?,
        ..Default::default()
    };
    let revision = &metadata["annotations"]["deployment.kubernetes.io/revision"];
    let (mut old, mut new) = (Vec::new(), "<none>".to_owned());
    for set in scene.client.list_objects(request).await?.0 {
        let set: Value = serde_json::from_slice(&set.json)?;
        if !items(&set["metadata"]["ownerReferences"]).any(|owner| owner["uid"] == metadata["uid"])
        {
            continue;
        }
        let (name, created) = (
            word(&set["metadata"]["name"]),
            or(&set["status"]["replicas"], "0"),
        );
        let text = format!(
            "{name} ({created}/{} replicas created)",
            or(&set["spec"]["replicas"], "0")
        );
        if set["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == *revision {
            new = text;
        } else {
            old.push(text);
        }
    }
    out.line(
        "OldReplicaSets",
        if old.is_empty() {
            "<none>".to_owned()
        } else {
            old.join(", ")
        },
    );
    out.line("NewReplicaSet", new);
    Ok(())
}

pub async fn replicated(scene: &Scene<'_>, out: &mut Text) -> anyhow::Result<()> {
    let object = scene.object;
    let (spec, status) = (&object["spec"], &object["status"]);
    heading(object, out);
    out.line("Selector", selector_of(object)?);
    labels(object, out);
    for owner in
        items(&object["metadata"]["ownerReferences"]).filter(|owner| owner["controller"] == true)
    {
        out.line(
            "Controlled By",
            format!("{}/{}", word(&owner["kind"]), word(&owner["name"])),
        );
    }
    if object["kind"] == "DaemonSet" {
        for (title, field) in [
            (
                "Desired Number of Nodes Scheduled",
                "desiredNumberScheduled",
            ),
            (
                "Current Number of Nodes Scheduled",
                "currentNumberScheduled",
            ),
            (
                "Number of Nodes Scheduled with Up-to-date Pods",
                "updatedNumberScheduled",
            ),
            (
                "Number of Nodes Scheduled with Available Pods",
                "numberAvailable",
            ),
            ("Number of Nodes Misscheduled", "numberMisscheduled"),
        ] {
            out.line(title, or(&status[field], "0"));
        }
    } else {
        let current = or(&status["replicas"], "0");
        out.line(
            "Replicas",
            format!("{} desired | {current} total", or(&spec["replicas"], "1")),
        );
    }
    out.line_if("Update Strategy", &spec["updateStrategy"]["type"]);
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
    let mut counts = [0; 4];
    for one in pods_by_selector(scene.client, namespace, &selector_of(object)?).await? {
        let slot = match api::pod::phase(&one) {
            "Running" => 0,
            "Succeeded" => 2,
            "Failed" => 3,
            _ => 1,
        };
        counts[slot] += 1;
    }
    let [running, waiting, succeeded, failed] = counts;
    out.line(
        "Pods Status",
        format!("{running} Running / {waiting} Waiting / {succeeded} Succeeded / {failed} Failed"),
    );
    pod::template(&spec["template"], out);
    let claims: Vec<String> = items(&spec["volumeClaimTemplates"])
        .map(|claim| word(&claim["metadata"]["name"]))
        .collect();
    if object["kind"] == "StatefulSet" {
        out.list("Volume Claims", &claims);
    }
    pod::conditions(&status["conditions"], out);
    Ok(())
}

pub fn job(object: &Value, out: &mut Text) {
    let (spec, status) = (&object["spec"], &object["status"]);
    heading(object, out);
    out.map("Selector", &spec["selector"]["matchLabels"], "=");
    labels(object, out);
    out.line("Parallelism", or(&spec["parallelism"], "1"));
    out.line("Completions", or(&spec["completions"], "<unset>"));
    out.line("Completion Mode", or(&spec["completionMode"], "NonIndexed"));
    out.line("Suspend", or(&spec["suspend"], "false"));
    out.line("Backoff Limit", or(&spec["backoffLimit"], "6"));
    for (title, field) in [
        ("Start Time", "startTime"),
        ("Completed At", "completionTime"),
    ] {
        let text = moment(&status[field]);
        if !text.is_empty() {
            out.line(title, text);
        }
    }
    out.line(
        "Pods Statuses",
        format!(
            "{} Active ({} Ready) / {} Succeeded / {} Failed",
            or(&status["active"], "0"),
            or(&status["ready"], "0"),
            or(&status["succeeded"], "0"),
            or(&status["failed"], "0"),
        ),
    );
    pod::template(&spec["template"], out);
    pod::conditions(&status["conditions"], out);
}
