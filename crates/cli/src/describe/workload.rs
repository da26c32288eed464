//! Deployments, ReplicaSets, StatefulSets, DaemonSets, ReplicationControllers, Jobs, CronJobs.

use rpc::api_v1::ListRequest;
use serde_json::Value;

use crate::describe::text::{self, Description, items, moment, or, time, truth, word};
use crate::describe::{DescribeContext, controller, heading, labels, pod};
use crate::output::event::ago;
use crate::request::pods::{REVISION, pods_by_selector, selector_of};
use crate::request::selection::list_values;

/// Bytes of a list of indexes that are never cut off.
const INDEXES_MAX: usize = 50;

pub async fn deployment(
    context: &DescribeContext<'_>,
    out: &mut Description,
) -> anyhow::Result<()> {
    let object = context.object;
    let (spec, status) = (&object["spec"], &object["status"]);
    heading(object, out);
    out.line("CreationTimestamp", moment(&object["metadata"]["creationTimestamp"]));
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
    out.line_or("MinReadySeconds", &spec["minReadySeconds"], "0");
    let rolling = &spec["strategy"]["rollingUpdate"];
    if rolling.is_object() {
        let (unavailable, surge) = (word(&rolling["maxUnavailable"]), word(&rolling["maxSurge"]));
        let text = format!("{unavailable} max unavailable, {surge} max surge");
        out.line("RollingUpdateStrategy", text);
    }
    pod::template(&spec["template"], out);
    reasons(status, out);
    replica_sets(context, out).await
}

/// Type, status and reason of every condition.
fn reasons(status: &Value, out: &mut Description) {
    if items(&status["conditions"]).next().is_none() {
        return;
    }
    out.section("Conditions", |out| {
        out.cells(&["Type", "Status", "Reason"]);
        out.cells(&["----", "------", "------"]);
        for condition in items(&status["conditions"]) {
            let kind = format!("{} ", word(&condition["type"]));
            out.cells(&[&kind, &word(&condition["status"]), &word(&condition["reason"])]);
        }
    });
}

async fn replica_sets(context: &DescribeContext<'_>, out: &mut Description) -> anyhow::Result<()> {
    let metadata = &context.object["metadata"];
    let resource = context.resources.find("replicasets.apps")?;
    let namespace = metadata["namespace"].as_str().unwrap_or_default();
    let request = ListRequest {
        target: Some(resource.target(namespace, "", "")),
        label_selector: selector_of(context.object)?,
        ..Default::default()
    };
    let (mut old, mut new) = (Vec::new(), "<none>".to_owned());
    for set in list_values(context.client, request).await? {
        if !items(&set["metadata"]["ownerReferences"]).any(|owner| owner["uid"] == metadata["uid"])
        {
            continue;
        }
        let (name, created) = (word(&set["metadata"]["name"]), or(&set["status"]["replicas"], "0"));
        let wanted = or(&set["spec"]["replicas"], "0");
        let text = format!("{name} ({created}/{wanted} replicas created)");
        if set["metadata"]["annotations"][REVISION] == metadata["annotations"][REVISION] {
            new = text;
        } else {
            old.push(text);
        }
    }
    let old = if old.is_empty() { "<none>".to_owned() } else { old.join(", ") };
    out.line("OldReplicaSets", old);
    out.line("NewReplicaSet", new);
    Ok(())
}

pub async fn replica_set(
    context: &DescribeContext<'_>,
    out: &mut Description,
) -> anyhow::Result<()> {
    let object = context.object;
    heading(object, out);
    out.line("Selector", selector_of(object)?);
    labels(object, out);
    controller(object, out);
    let (current, wanted) =
        (or(&object["status"]["replicas"], "0"), or(&object["spec"]["replicas"], "1"));
    out.line("Replicas", format!("{current} current / {wanted} desired"));
    pods_status(context, out).await?;
    pod::template(&object["spec"]["template"], out);
    reasons(&object["status"], out);
    Ok(())
}

pub async fn stateful_set(
    context: &DescribeContext<'_>,
    out: &mut Description,
) -> anyhow::Result<()> {
    let object = context.object;
    let (spec, status) = (&object["spec"], &object["status"]);
    heading(object, out);
    out.line("CreationTimestamp", moment(&object["metadata"]["creationTimestamp"]));
    out.line("Selector", selector_of(object)?);
    labels(object, out);
    let (wanted, total) = (or(&spec["replicas"], "1"), or(&status["replicas"], "0"));
    out.line("Replicas", format!("{wanted} desired | {total} total"));
    out.line("Update Strategy", word(&spec["updateStrategy"]["type"]));
    let rolling = &spec["updateStrategy"]["rollingUpdate"];
    if rolling.is_object() {
        out.nested(|out| out.line_or("Partition", &rolling["partition"], "0"));
    }
    pods_status(context, out).await?;
    pod::template(&spec["template"], out);
    let claims = &spec["volumeClaimTemplates"];
    if items(claims).next().is_none() {
        out.line("Volume Claims", "<none>");
        return Ok(());
    }
    out.raw("Volume Claims:");
    for claim in items(claims) {
        out.nested(|out| {
            out.line("Name", word(&claim["metadata"]["name"]));
            out.line("StorageClass", word(&claim["spec"]["storageClassName"]));
            out.map("Labels", &claim["metadata"]["labels"], "=");
            out.annotations(&claim["metadata"]["annotations"]);
            out.line(
                "Capacity",
                or(&claim["spec"]["resources"]["requests"]["storage"], "<default>"),
            );
            out.line("Access Modes", text::bracketed(&claim["spec"]["accessModes"]));
        });
    }
    Ok(())
}

pub async fn daemon_set(
    context: &DescribeContext<'_>,
    out: &mut Description,
) -> anyhow::Result<()> {
    let object = context.object;
    out.line("Name", word(&object["metadata"]["name"]));
    out.line("Namespace", word(&object["metadata"]["namespace"]));
    out.line("Selector", selector_of(object)?);
    let nodes: Vec<String> = text::fields(&object["spec"]["template"]["spec"]["nodeSelector"])
        .map(|(key, value)| format!("{key}={}", word(value)))
        .collect();
    let nodes = if nodes.is_empty() { "<none>".to_owned() } else { nodes.join(",") };
    out.line("Node-Selector", nodes);
    labels(object, out);
    for (title, field) in [
        ("Desired Number of Nodes Scheduled", "desiredNumberScheduled"),
        ("Current Number of Nodes Scheduled", "currentNumberScheduled"),
        ("Number of Nodes Scheduled with Up-to-date Pods", "updatedNumberScheduled"),
        ("Number of Nodes Scheduled with Available Pods", "numberAvailable"),
        ("Number of Nodes Misscheduled", "numberMisscheduled"),
    ] {
        out.raw(&format!("{title}: {}", or(&object["status"][field], "0")));
    }
    pods_status(context, out).await?;
    pod::template(&object["spec"]["template"], out);
    Ok(())
}

async fn pods_status(context: &DescribeContext<'_>, out: &mut Description) -> anyhow::Result<()> {
    let metadata = &context.object["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or_default();
    let mut counts = [0; 4];
    for one in pods_by_selector(context.client, namespace, &selector_of(context.object)?).await? {
        let owners = one.metadata.owner_references.as_ref();
        let ours = owners.into_iter().flatten().any(|owner| metadata["uid"] == owner.uid.as_str());
        if !ours {
            continue;
        }
        let slot = match api::pod::phase(&one) {
            "Running" => 0,
            "Pending" => 1,
            "Succeeded" => 2,
            "Failed" => 3,
            _ => continue,
        };
        counts[slot] += 1;
    }
    let [running, waiting, succeeded, failed] = counts;
    out.line(
        "Pods Status",
        format!("{running} Running / {waiting} Waiting / {succeeded} Succeeded / {failed} Failed"),
    );
    Ok(())
}

pub fn job(object: &Value, out: &mut Description) -> anyhow::Result<()> {
    let (spec, status) = (&object["spec"], &object["status"]);
    heading(object, out);
    out.line("Selector", selector_of(object).unwrap_or_default());
    labels(object, out);
    controller(object, out);
    out.line_or("Parallelism", &spec["parallelism"], "<unset>");
    out.line_or("Completions", &spec["completions"], "<unset>");
    out.line_if("Completion Mode", &spec["completionMode"]);
    out.line_or("Suspend", &spec["suspend"], "false");
    out.line_or("Backoff Limit", &spec["backoffLimit"], "6");
    if let Some(seconds) = spec["ttlSecondsAfterFinished"].as_i64() {
        out.line("TTL Seconds After Finished", seconds.to_string());
    }
    let (started, ended) = (time(&status["startTime"]), time(&status["completionTime"]));
    for (title, field) in [("Start Time", "startTime"), ("Completed At", "completionTime")] {
        let text = moment(&status[field]);
        if !text.is_empty() {
            out.line(title, text);
        }
    }
    if let (Some(started), Some(ended)) = (started, ended) {
        let seconds = ended.as_second() - started.as_second();
        out.line("Duration", api::duration::human(seconds));
    }
    if let Some(seconds) = spec["activeDeadlineSeconds"].as_i64() {
        out.line("Active Deadline Seconds", format!("{seconds}s"));
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
    if spec["completionMode"] == "Indexed" {
        let indexes = or(&status["completedIndexes"], "<none>");
        out.line("Completed Indexes", shortened(&indexes));
    }
    pod::template(&spec["template"], out);
    Ok(())
}

/// A list of indexes, cut off at the first comma after fifty characters.
fn shortened(indexes: &str) -> String {
    let cut = indexes.get(INDEXES_MAX..).and_then(|rest| rest.find(','));
    cut.map_or_else(|| indexes.to_owned(), |at| format!("{}...", &indexes[..=INDEXES_MAX + at]))
}

pub fn cron_job(object: &Value, out: &mut Description) {
    let (spec, status) = (&object["spec"], &object["status"]);
    heading(object, out);
    labels(object, out);
    out.line("Schedule", word(&spec["schedule"]));
    out.line_if("Time Zone", &spec["timeZone"]);
    out.line("Concurrency Policy", word(&spec["concurrencyPolicy"]));
    out.line("Suspend", truth(&spec["suspend"], "<unset>"));
    for (title, field) in [
        ("Successful Job History Limit", "successfulJobsHistoryLimit"),
        ("Failed Job History Limit", "failedJobsHistoryLimit"),
    ] {
        out.line_or(title, &spec[field], "<unset>");
    }
    let deadline = spec["startingDeadlineSeconds"]
        .as_i64()
        .map_or("<unset>".to_owned(), |seconds| format!("{seconds}s"));
    out.line("Starting Deadline Seconds", deadline);
    let job = &spec["jobTemplate"]["spec"];
    out.line("Selector", text::selector(&job["selector"], "<unset>"));
    out.line_or("Parallelism", &job["parallelism"], "<unset>");
    out.line_or("Completions", &job["completions"], "<unset>");
    if let Some(seconds) = job["activeDeadlineSeconds"].as_i64() {
        out.line("Active Deadline Seconds", format!("{seconds}s"));
    }
    pod::template(&job["template"], out);
    let last = time(&status["lastScheduleTime"]);
    let last = last.map_or("<unset>".to_owned(), |_| moment(&status["lastScheduleTime"]));
    out.line("Last Schedule Time", last);
    let active: Vec<String> = items(&status["active"]).map(|job| word(&job["name"])).collect();
    let active = if active.is_empty() { "<none>".to_owned() } else { active.join(", ") };
    out.line("Active Jobs", active);
}

/// How long ago a timestamp was.
pub fn age(value: &Value) -> String {
    ago(time(value))
}
