//! The progress of a rollout.

use anyhow::bail;
use serde_json::Value;

/// kubectl's message for the progress of a rollout, and whether it is complete.
pub fn progress(kind: &str, name: &str, object: &Value) -> anyhow::Result<(String, bool)> {
    let status = &object["status"];
    let observed =
        number(&status["observedGeneration"], 0) >= number(&object["metadata"]["generation"], 0);
    let unseen = |kind: &str| (format!("Waiting for {kind} spec update to be observed..."), false);
    match kind {
        "Deployment" if !observed => Ok(unseen("deployment")),
        "Deployment" => deployment_progress(name, &object["spec"], status),
        "DaemonSet" if !observed => Ok(unseen("daemon set")),
        "DaemonSet" => daemon_set_progress(name, &object["spec"], status),
        "StatefulSet" if !observed => Ok(unseen("statefulset")),
        "StatefulSet" => stateful_set_progress(&object["spec"], status),
        other => bail!("no status viewer has been implemented for {other}"),
    }
}

fn number(value: &Value, default: i64) -> i64 {
    value.as_i64().unwrap_or(default)
}

fn deployment_progress(name: &str, spec: &Value, status: &Value) -> anyhow::Result<(String, bool)> {
    let updated = number(&status["updatedReplicas"], 0);
    let stuck = status["conditions"].as_array().into_iter().flatten().any(|condition| {
        condition["type"] == "Progressing" && condition["reason"] == "ProgressDeadlineExceeded"
    });
    if stuck {
        bail!("deployment {name:?} exceeded its progress deadline");
    }
    let wanted = number(&spec["replicas"], 1);
    let (all, available) =
        (number(&status["replicas"], 0), number(&status["availableReplicas"], 0));
    let waiting = |text: String| {
        (format!("Waiting for deployment {name:?} rollout to finish: {text}..."), false)
    };
    Ok(if updated < wanted {
        waiting(format!("{updated} out of {wanted} new replicas have been updated"))
    } else if all > updated {
        waiting(format!("{} old replicas are pending termination", all - updated))
    } else if available < updated {
        waiting(format!("{available} of {updated} updated replicas are available"))
    } else {
        (format!("deployment {name:?} successfully rolled out"), true)
    })
}

fn daemon_set_progress(name: &str, spec: &Value, status: &Value) -> anyhow::Result<(String, bool)> {
    if spec["updateStrategy"]["type"] == "OnDelete" {
        bail!("rollout status is only available for RollingUpdate strategy type");
    }
    let wanted = number(&status["desiredNumberScheduled"], 0);
    let updated = number(&status["updatedNumberScheduled"], 0);
    let available = number(&status["numberAvailable"], 0);
    Ok(if updated < wanted {
        (
            format!(
                "Waiting for daemon set {name:?} rollout to finish: {updated} out of {wanted} new pods have been updated..."
            ),
            false,
        )
    } else if available < wanted {
        (
            format!(
                "Waiting for daemon set {name:?} rollout to finish: {available} of {wanted} updated pods are available..."
            ),
            false,
        )
    } else {
        (format!("daemon set {name:?} successfully rolled out"), true)
    })
}

fn stateful_set_progress(spec: &Value, status: &Value) -> anyhow::Result<(String, bool)> {
    let updated = number(&status["updatedReplicas"], 0);
    if spec["updateStrategy"]["type"] == "OnDelete" {
        bail!("rollout status is only available for RollingUpdate strategy type");
    }
    let wanted = number(&spec["replicas"], 1);
    let ready = number(&status["readyReplicas"], 0);
    let partition = spec["updateStrategy"]["rollingUpdate"]["partition"].as_i64();
    Ok(if ready < wanted {
        (format!("Waiting for {} pods to be ready...", wanted - ready), false)
    } else if let Some(partition) = partition.filter(|partition| updated < wanted - partition) {
        (
            format!(
                "Waiting for partitioned roll out to finish: {updated} out of {} new pods have been updated...",
                wanted - partition
            ),
            false,
        )
    } else if partition.is_some() {
        (format!("partitioned roll out complete: {updated} new pods have been updated..."), true)
    } else if status["updateRevision"] != status["currentRevision"] {
        (
            format!(
                "waiting for statefulset rolling update to complete {updated} pods at revision {}...",
                status["updateRevision"].as_str().unwrap_or_default()
            ),
            false,
        )
    } else {
        (
            format!(
                "statefulset rolling update complete {} pods at revision {}...",
                number(&status["currentReplicas"], 0),
                status["currentRevision"].as_str().unwrap_or_default()
            ),
            true,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_deployments_progress() {
        let object = |generation: i64, status: Value| json!({"metadata": {"generation": generation}, "spec": {"replicas": 3}, "status": status});
        for (object, expected, done) in [
            (
                object(2, json!({"observedGeneration": 1})),
                "Waiting for deployment spec update to be observed...",
                false,
            ),
            (
                object(1, json!({"observedGeneration": 1, "updatedReplicas": 1, "replicas": 4})),
                "Waiting for deployment \"web\" rollout to finish: 1 out of 3 new replicas have been updated...",
                false,
            ),
            (
                object(1, json!({"observedGeneration": 1, "updatedReplicas": 3, "replicas": 4})),
                "Waiting for deployment \"web\" rollout to finish: 1 old replicas are pending termination...",
                false,
            ),
            (
                object(
                    1,
                    json!({"observedGeneration": 1, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 2}),
                ),
                "Waiting for deployment \"web\" rollout to finish: 2 of 3 updated replicas are available...",
                false,
            ),
            (
                object(
                    1,
                    json!({"observedGeneration": 1, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 3}),
                ),
                "deployment \"web\" successfully rolled out",
                true,
            ),
        ] {
            assert_eq!(
                progress("Deployment", "web", &object).unwrap(),
                (expected.to_owned(), done)
            );
        }
        let stuck = json!({"status": {"conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]}});
        assert!(progress("Deployment", "web", &stuck).is_err());
    }
}
