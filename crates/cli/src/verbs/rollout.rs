//! `skiff rollout`: status, history, undo, pause, resume, restart.

use std::process::ExitCode;

use anyhow::{Context, bail};
use client::{Client, PatchKind};
use rpc::api_v1::{EventType, ListRequest, WatchRequest, WriteOptions};
use serde_json::{Value, json};

use super::Connection;
use super::resources::Resources;
use super::selection::{Named, Selection};
use super::workload::selector_of;

/// Where a Deployment and its ReplicaSets keep their revision.
const REVISION: &str = "deployment.kubernetes.io/revision";
const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Wait until the newest revision is rolled out
    Status {
        #[command(flatten)]
        selection: Selection,
        /// Do not wait, say how it stands
        #[arg(short, long, default_value = "true", action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
        watch: bool,
        /// Give up after this long
        #[arg(long)]
        timeout: Option<String>,
    },
    /// Show revisions
    History {
        #[command(flatten)]
        selection: Selection,
        /// The details of one revision
        #[arg(long)]
        revision: Option<i64>,
    },
    /// Go back to an earlier revision
    Undo {
        #[command(flatten)]
        selection: Selection,
        /// 0: the one before
        #[arg(long, default_value_t = 0)]
        to_revision: i64,
    },
    /// Hold changes back
    Pause {
        #[command(flatten)]
        selection: Selection,
    },
    /// Let changes go on
    Resume {
        #[command(flatten)]
        selection: Selection,
    },
    /// Replace every pod
    Restart {
        #[command(flatten)]
        selection: Selection,
    },
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let client = connection.client()?;
    let resources = Resources::discover(&client).await?;
    let (Action::Status { selection, .. }
    | Action::History { selection, .. }
    | Action::Undo { selection, .. }
    | Action::Pause { selection }
    | Action::Resume { selection }
    | Action::Restart { selection }) = &args.action;
    for named in selection.names(&client, &resources).await? {
        match &args.action {
            Action::Status { watch, timeout, .. } => {
                let waited = status(&client, &named, *watch);
                match timeout {
                    None => waited.await?,
                    Some(text) => {
                        let limit =
                            std::time::Duration::from_millis(super::duration::millis(text)?);
                        tokio::time::timeout(limit, waited)
                            .await
                            .context("timed out waiting for the condition")??;
                    }
                }
            }
            Action::History { revision, .. } => {
                history(&client, &resources, &named, *revision).await?
            }
            Action::Undo { to_revision, .. } => {
                undo(&client, &resources, &named, *to_revision).await?
            }
            Action::Pause { .. } => set_paused(&client, &named, true).await?,
            Action::Resume { .. } => set_paused(&client, &named, false).await?,
            Action::Restart { .. } => restart(&client, &named).await?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn status(client: &Client, named: &Named<'_>, wait: bool) -> anyhow::Result<()> {
    let request = WatchRequest {
        target: Some(named.resource.target(&named.namespace, "", "")),
        field_selector: format!("metadata.name={}", named.name),
        send_initial_events: true,
        resource_version_match: "NotOlderThan".to_owned(),
        allow_watch_bookmarks: true,
        ..Default::default()
    };
    // Says NotFound before a watch would wait for the object to appear.
    client.get_object(named.target("")).await?;
    let mut batches = client
        .resources()
        .watch(request)
        .await
        .map_err(client::Error::from)?
        .into_inner();
    let mut said = String::new();
    while let Some(batch) = batches.message().await.map_err(client::Error::from)? {
        for event in batch.events {
            let kind = event.r#type();
            if kind == EventType::Deleted {
                bail!("object has been deleted");
            }
            if !matches!(kind, EventType::Added | EventType::Modified) {
                continue;
            }
            let object: Value = serde_json::from_slice(&event.object.unwrap_or_default().json)?;
            let (message, done) = progress(&named.resource.kind, &named.name, &object)?;
            if message != said {
                println!("{message}");
                said = message;
            }
            if done || !wait {
                return Ok(());
            }
        }
    }
    bail!("the server ended the watch")
}

/// How far a rollout is, in kubectl's words, and whether it is done.
fn progress(kind: &str, name: &str, object: &Value) -> anyhow::Result<(String, bool)> {
    let status = &object["status"];
    let observed =
        number(&status["observedGeneration"], 0) >= number(&object["metadata"]["generation"], 0);
    let unseen = |kind: &str| {
        (
            format!("Waiting for {kind} spec update to be observed..."),
            false,
        )
    };
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
    let stuck = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|condition| {
            condition["type"] == "Progressing" && condition["reason"] == "ProgressDeadlineExceeded"
        });
    if stuck {
        bail!("deployment {name:?} exceeded its progress deadline");
    }
    let wanted = number(&spec["replicas"], 1);
    let (all, available) = (
        number(&status["replicas"], 0),
        number(&status["availableReplicas"], 0),
    );
    let waiting = |text: String| {
        (
            format!("Waiting for deployment {name:?} rollout to finish: {text}..."),
            false,
        )
    };
    Ok(if updated < wanted {
        waiting(format!(
            "{updated} out of {wanted} new replicas have been updated"
        ))
    } else if all > updated {
        waiting(format!(
            "{} old replicas are pending termination",
            all - updated
        ))
    } else if available < updated {
        waiting(format!(
            "{available} of {updated} updated replicas are available"
        ))
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
    let partition = number(&spec["updateStrategy"]["rollingUpdate"]["partition"], 0);
    Ok(if ready < wanted {
        (
            format!("Waiting for {} pods to be ready...", wanted - ready),
            false,
        )
    } else if partition > 0 && updated < wanted - partition {
        (
            format!(
                "Waiting for partitioned roll out to finish: {updated} out of {} new pods have been updated...",
                wanted - partition
            ),
            false,
        )
    } else if partition > 0 {
        (
            format!("partitioned roll out complete: {updated} new pods have been updated..."),
            true,
        )
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

/// One revision: its number, the pod template, and why it was made.
struct Revision {
    number: i64,
    template: Value,
    cause: String,
}

/// Every revision that the cluster still has, oldest first.
async fn revisions(
    client: &Client,
    resources: &Resources,
    named: &Named<'_>,
    object: &Value,
) -> anyhow::Result<Vec<Revision>> {
    let deployment = named.resource.kind == "Deployment";
    let holder = match named.resource.kind.as_str() {
        "Deployment" => resources.find("replicasets.apps")?,
        "DaemonSet" | "StatefulSet" => resources.find("controllerrevisions.apps")?,
        other => bail!("no history viewer has been implemented for {other}"),
    };
    let request = ListRequest {
        target: Some(holder.target(&named.namespace, "", "")),
        label_selector: selector_of(object)?,
        ..Default::default()
    };
    let uid = &object["metadata"]["uid"];
    let mut found = Vec::new();
    for item in client.list_objects(request).await?.0 {
        let item: Value = serde_json::from_slice(&item.json)?;
        let owners = item["metadata"]["ownerReferences"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        if !owners.iter().any(|owner| owner["uid"] == *uid) {
            continue;
        }
        let annotations = &item["metadata"]["annotations"];
        let number = if deployment {
            annotations[REVISION]
                .as_str()
                .and_then(|text| text.parse().ok())
        } else {
            item["revision"].as_i64()
        };
        let template = if deployment {
            &item["spec"]["template"]
        } else {
            &item["data"]["spec"]["template"]
        };
        found.push(Revision {
            number: number.unwrap_or(0),
            template: template.clone(),
            cause: annotations[CHANGE_CAUSE]
                .as_str()
                .unwrap_or("<none>")
                .to_owned(),
        });
    }
    found.sort_by_key(|revision| revision.number);
    Ok(found)
}

async fn object(client: &Client, named: &Named<'_>) -> anyhow::Result<Value> {
    Ok(serde_json::from_slice(
        &client.get_object(named.target("")).await?.json,
    )?)
}

async fn history(
    client: &Client,
    resources: &Resources,
    named: &Named<'_>,
    revision: Option<i64>,
) -> anyhow::Result<()> {
    let object = object(client, named).await?;
    let revisions = revisions(client, resources, named, &object).await?;
    if let Some(number) = revision {
        let one = revisions.iter().find(|revision| revision.number == number);
        let one = one.with_context(|| format!("unable to find the specified revision {number}"))?;
        println!("{} with revision #{number}", named.path());
        print!("Pod Template:\n{}", super::output::yaml(&one.template));
        return Ok(());
    }
    println!("{} ", named.path());
    let text = super::output::table::Text {
        headers: vec!["REVISION".to_owned(), "CHANGE-CAUSE".to_owned()],
        rows: revisions
            .into_iter()
            .map(|revision| vec![revision.number.to_string(), revision.cause])
            .collect(),
    };
    println!("{}", text.render(true, &mut Vec::new()));
    Ok(())
}

async fn undo(
    client: &Client,
    resources: &Resources,
    named: &Named<'_>,
    to: i64,
) -> anyhow::Result<()> {
    let object = object(client, named).await?;
    if object["spec"]["paused"] == true {
        bail!(
            "you cannot rollback a paused deployment; resume it first with 'skiff rollout resume {}' and try again",
            named.path()
        );
    }
    let revisions = revisions(client, resources, named, &object).await?;
    let chosen = if to > 0 {
        revisions
            .iter()
            .find(|revision| revision.number == to)
            .with_context(|| format!("unable to find specified revision {to} in history"))?
    } else {
        let before = revisions
            .len()
            .checked_sub(2)
            .context("no rollout history found to go back to")?;
        &revisions[before]
    };
    let mut template = chosen.template.clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove("pod-template-hash");
    }
    if template == object["spec"]["template"] {
        println!(
            "{} skipped rollback (current template already matches revision {})",
            named.path(),
            chosen.number
        );
        return Ok(());
    }
    // A replacement, guarded by the version that was read: nothing of the newer template may stay.
    let mut patch = vec![
        json!({"op": "test", "path": "/metadata/resourceVersion", "value": object["metadata"]["resourceVersion"]}),
        json!({"op": "replace", "path": "/spec/template", "value": template}),
    ];
    if chosen.cause != "<none>" {
        let mut annotations = object["metadata"]["annotations"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        annotations.insert(CHANGE_CAUSE.to_owned(), chosen.cause.as_str().into());
        patch.push(json!({"op": "add", "path": "/metadata/annotations", "value": annotations}));
    }
    send(client, named, PatchKind::Json, &Value::Array(patch)).await?;
    println!("{} rolled back", named.path());
    Ok(())
}

async fn set_paused(client: &Client, named: &Named<'_>, paused: bool) -> anyhow::Result<()> {
    if named.resource.kind != "Deployment" {
        bail!("{} pausing is not supported", named.path());
    }
    if (object(client, named).await?["spec"]["paused"] == true) == paused {
        bail!(
            "{} is {} paused",
            named.path(),
            if paused { "already" } else { "not" }
        );
    }
    let value = if paused { json!(true) } else { Value::Null };
    send(
        client,
        named,
        PatchKind::Merge,
        &json!({"spec": {"paused": value}}),
    )
    .await?;
    println!(
        "{} {}",
        named.path(),
        if paused { "paused" } else { "resumed" }
    );
    Ok(())
}

async fn restart(client: &Client, named: &Named<'_>) -> anyhow::Result<()> {
    if !matches!(
        named.resource.kind.as_str(),
        "Deployment" | "DaemonSet" | "StatefulSet"
    ) {
        bail!("{} restarting is not supported", named.path());
    }
    if object(client, named).await?["spec"]["paused"] == true {
        bail!("can't restart paused deployment (run rollout resume first)");
    }
    let now = jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string();
    let annotations = json!({"kubectl.kubernetes.io/restartedAt": now});
    let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
    send(client, named, PatchKind::Strategic, &patch).await?;
    println!("{} restarted", named.path());
    Ok(())
}

async fn send(
    client: &Client,
    named: &Named<'_>,
    kind: PatchKind,
    patch: &Value,
) -> anyhow::Result<()> {
    let options = WriteOptions {
        field_manager: "skiff-rollout".to_owned(),
        ..Default::default()
    };
    client
        .patch_object(named.target(""), kind, serde_json::to_vec(patch)?, options)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployments_progress_in_words() {
        let object = |generation: i64, status: Value| json!({"metadata": {"generation": generation}, "spec": {"replicas": 3}, "status": status});
        for (object, expected, done) in [
            (
                object(2, json!({"observedGeneration": 1})),
                "Waiting for deployment spec update to be observed...",
                false,
            ),
            (
                object(
                    1,
                    json!({"observedGeneration": 1, "updatedReplicas": 1, "replicas": 4}),
                ),
                "Waiting for deployment \"web\" rollout to finish: 1 out of 3 new replicas have been updated...",
                false,
            ),
            (
                object(
                    1,
                    json!({"observedGeneration": 1, "updatedReplicas": 3, "replicas": 4}),
                ),
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
