//! Hollow nodes: kubelets without containers, for tests of what runs above them.
//!
//! A hollow node registers itself, renews its Lease, and immediately makes every pod that is bound
//! to it Running and Ready, unless annotations on the pod say otherwise ([`EXIT`], [`READY`]).
//! Deleted pods are removed immediately. Stopping a node is like cutting its power: nothing is
//! cleaned up.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use client::{Api, Client, DeleteOptions, Event, InformerOptions, PatchKind, informer};
use clock::SharedClock;
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Annotation: the pod's containers exit immediately with this code.
pub const EXIT: &str = "hollow/exit";
/// Annotation: `false` for a pod that runs without becoming ready.
pub const READY: &str = "hollow/ready";

const LEASES: &str = "kube-node-lease";

/// Pod addresses are unique only within the process.
static NEXT_ADDRESS: AtomicU32 = AtomicU32::new(1);

/// A running hollow node; dropping it stops it.
pub struct HollowNode {
    pub name: String,
    tasks: JoinSet<()>,
}

impl HollowNode {
    /// Registers the node and watches its pods; `lease_period` is the time between renewals.
    ///
    /// # Errors
    /// When the node cannot be registered.
    pub async fn start(
        client: &Client,
        clock: SharedClock,
        name: &str,
        lease_period: Duration,
    ) -> anyhow::Result<Self> {
        register(client, &clock, name).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(renew(client.clone(), clock.clone(), name.to_owned(), lease_period));
        tasks.spawn(follow(client.clone(), clock, name.to_owned()));
        Ok(Self { name: name.to_owned(), tasks })
    }

    /// Stops the node without cleaning up.
    pub fn stop(mut self) {
        self.tasks.abort_all();
    }
}

async fn register(client: &Client, clock: &SharedClock, name: &str) -> anyhow::Result<()> {
    let nodes = Api::<Node>::all(client);
    let mut node = Node::default();
    node.metadata.name = Some(name.to_owned());
    node.metadata.labels = Some([("kubernetes.io/hostname".to_owned(), name.to_owned())].into());
    match nodes.create(&node).await {
        Err(error) if error.is_already_exists() => {}
        outcome => {
            outcome?;
        }
    }
    let now = clock.now().to_string();
    let amounts =
        json!({"cpu": "64", "memory": "256Gi", "pods": "1000", "ephemeral-storage": "1Ti"});
    let status = json!({"status": {
        "capacity": amounts,
        "allocatable": amounts,
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "KubeletReady",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        }],
    }});
    nodes.patch_status(name, PatchKind::Strategic, &status).await?;
    Ok(())
}

async fn renew(client: Client, clock: SharedClock, name: String, period: Duration) {
    let leases = Api::<Lease>::namespaced(&client, LEASES);
    loop {
        let now = MicroTime(clock.now());
        let patch = json!({"spec": {"renewTime": now}});
        let renewed = leases.patch(&name, PatchKind::Merge, &patch).await;
        if renewed.is_err_and(|error| error.is_not_found()) {
            let mut lease = Lease::default();
            lease.metadata.name = Some(name.clone());
            lease.spec = Some(LeaseSpec {
                holder_identity: Some(name.clone()),
                renew_time: Some(now),
                ..Default::default()
            });
            // If this fails, the next renewal tries again.
            leases.create(&lease).await.ok();
        }
        tokio::time::sleep(period).await;
    }
}

async fn follow(client: Client, clock: SharedClock, name: String) {
    let options =
        InformerOptions { field_selector: format!("spec.nodeName={name}"), ..Default::default() };
    let mut events = std::pin::pin!(informer::<Pod>(client.clone(), options));
    while let Some(event) = events.next().await {
        let (Event::Apply(pod) | Event::InitApply(pod)) = event else {
            continue;
        };
        // A failure shows as a state that is never reached; the next event tries again.
        if let Err(error) = serve(&client, &clock, &pod).await {
            tracing::debug!(pod = name_of(&pod), %error, "hollow node");
        }
    }
}

/// Moves one pod a step forward.
async fn serve(client: &Client, clock: &SharedClock, pod: &Pod) -> Result<(), client::Error> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let pods = Api::<Pod>::namespaced(client, &namespace);
    let phase = api::pod::phase(pod);
    if pod.metadata.deletion_timestamp.is_some() {
        let held = pod.metadata.finalizers.as_ref().is_some_and(|all| !all.is_empty());
        if held && phase == "Running" {
            let status = status(pod, clock, "Failed", Some(137));
            pods.patch_status(name_of(pod), PatchKind::Strategic, &status).await?;
        }
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            precondition_uid: pod.metadata.uid.clone(),
            ..Default::default()
        };
        return match pods.delete(name_of(pod), &options).await {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome,
        };
    }
    let exit: Option<i32> = annotation(pod, EXIT).and_then(|code| code.parse().ok());
    let patch = match (phase, exit) {
        ("Pending", _) => status(pod, clock, "Running", None),
        ("Running", Some(0)) => status(pod, clock, "Succeeded", Some(0)),
        ("Running", Some(code)) => status(pod, clock, "Failed", Some(code)),
        _ => return Ok(()),
    };
    pods.patch_status(name_of(pod), PatchKind::Strategic, &patch).await?;
    Ok(())
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

fn name_of(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

fn status(pod: &Pod, clock: &SharedClock, phase: &str, exit: Option<i32>) -> Value {
    let now = clock.now().to_string();
    let wants_ready = annotation(pod, READY).is_none_or(|value| value != "false");
    let ready = phase == "Running" && wants_ready;
    let truth = if ready { "True" } else { "False" };
    let state = match exit {
        None => json!({"running": {"startedAt": now}}),
        Some(code) => {
            json!({"running": null, "terminated": {"exitCode": code, "finishedAt": now, "startedAt": now}})
        }
    };
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let containers: Vec<Value> = containers
        .map(|container| {
            json!({
                "name": container.name, "image": container.image, "imageID": "", "ready": ready,
                "restartCount": 0, "state": state,
            })
        })
        .collect();
    let mut status = json!({
        "phase": phase,
        "containerStatuses": containers,
        "conditions": [
            {"type": "Initialized", "status": "True", "lastTransitionTime": now},
            {"type": "ContainersReady", "status": truth, "lastTransitionTime": now},
            {"type": "Ready", "status": truth, "lastTransitionTime": now},
        ],
    });
    if phase == "Running" {
        let number = NEXT_ADDRESS.fetch_add(1, Ordering::Relaxed);
        let address = format!("10.200.{}.{}", number / 250, number % 250 + 1);
        status["podIP"] = address.as_str().into();
        status["podIPs"] = json!([{"ip": address}]);
        status["startTime"] = now.into();
    }
    json!({"metadata": {"uid": pod.metadata.uid}, "status": status})
}
