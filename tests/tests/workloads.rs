//! A web application on three nodes: Deployment, Service, configuration, and what happens to
//! it: scaling, updates, failures, deletion.

#[path = "workloads/autoscaling.rs"]
mod autoscaling;
#[path = "workloads/database.rs"]
mod database;
#[path = "workloads/drain.rs"]
mod drain;
#[path = "workloads/kills.rs"]
mod kills;
#[path = "workloads/node_death.rs"]
mod node_death;
#[path = "workloads/preemption.rs"]
mod preemption;
#[path = "workloads/profiles.rs"]
mod profiles;
#[path = "workloads/stateful.rs"]
mod stateful;

use anyhow::{Context, ensure};
use autoscaling::a_deployment_grows_under_load_and_shrinks_again;
use client::{Api, DeleteOptions, PatchKind};
use database::a_database_loses_no_acknowledged_row;
use drain::draining_a_node_evicts_pods_one_by_one;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use kills::killing_any_process_disturbs_nothing;
use node_death::the_pods_of_a_killed_node_are_replaced;
use preemption::a_high_priority_displaces_a_low_one;
use profiles::each_profile_places_its_pods;
use serde_json::json;
use stateful::{a_job_reaches_its_completions, a_stateful_set_keeps_names_and_volumes};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use testkit::suite::Fixture;
use testkit::wait::{self, Selection};
use testkit::{Options, manifest, scenarios, suite};
use tests::web::Load;
use tests::{pods, web};

fn main() -> ExitCode {
    suite::run(
        Options { nodes: 3, flags: profiles::flags(), ..Options::default() },
        &["busybox", "testserver-v1", "testserver-v2"],
        scenarios![
            an_application_serves,
            a_deployment_scales_up_and_down,
            a_deployment_grows_under_load_and_shrinks_again,
            an_update_loses_no_request,
            a_killed_container_is_restarted,
            a_deleted_namespace_leaves_nothing,
            a_stateful_set_keeps_names_and_volumes,
            a_database_loses_no_acknowledged_row,
            a_job_reaches_its_completions,
            draining_a_node_evicts_pods_one_by_one,
            each_profile_places_its_pods,
            a_high_priority_displaces_a_low_one,
            killing_any_process_disturbs_nothing,
            the_pods_of_a_killed_node_are_replaced,
        ],
    )
}

async fn start(fixture: &Fixture, replicas: u8) -> anyhow::Result<()> {
    let yaml = web::manifest(replicas, "v1");
    manifest::create(fixture.cluster.client(), &fixture.namespace, &yaml).await?;
    all_ready(fixture, replicas).await
}

async fn all_ready(fixture: &Fixture, replicas: u8) -> anyhow::Result<()> {
    let what = format!("{replicas} pods are Ready and there are no others");
    pods::until(fixture, "app=web", &what, |pods| {
        pods.len() == usize::from(replicas) && pods.values().all(pods::is_ready)
    })
    .await?;
    Ok(())
}

async fn service(fixture: &Fixture) -> anyhow::Result<(String, i32)> {
    let api: Api<Service> = Api::namespaced(fixture.cluster.client(), &fixture.namespace);
    let spec = api.get("web").await?.spec.context("the Service has no spec")?;
    let address = spec.cluster_ip.context("the Service has no address")?;
    let port = spec.ports.iter().flatten().next().and_then(|port| port.node_port);
    Ok((address, port.context("the Service has no node port")?))
}

async fn patch(fixture: &Fixture, change: serde_json::Value) -> anyhow::Result<()> {
    let api: Api<Deployment> = Api::namespaced(fixture.cluster.client(), &fixture.namespace);
    api.patch("web", PatchKind::Strategic, &change).await?;
    Ok(())
}

fn image(version: &str) -> serde_json::Value {
    let image = format!("skiff.test/testserver:{version}");
    json!({"spec": {"template": {"spec": {"containers": [{"name": "server", "image": image}]}}}})
}

async fn an_application_serves(fixture: &Fixture) -> anyhow::Result<()> {
    start(fixture, 3).await?;
    let cluster = &fixture.cluster;
    let (address, node_port) = service(fixture).await?;
    let found = pods::until(fixture, "app=web", "any", |_| true).await?;
    let nodes: BTreeSet<&str> = found.values().map(pods::node).collect();
    ensure!(nodes.len() == 3, "the pods are on {nodes:?} only");

    for node in cluster.nodes() {
        let url = format!("http://{}:{node_port}/env/GREETING", cluster.node_address(&node));
        wait::eventually("the node port answers", async || {
            let body = web::get(cluster, &url)?;
            ensure!(body == "hello", "{url}: {body:?}");
            Ok(())
        })
        .await?;
    }
    let body = web::get(cluster, &format!("http://{address}/env/PASSWORD"))?;
    ensure!(body == "open sesame", "the secret is {body:?}");
    for (page, expected) in
        [("shared/page.txt", "from the sidecar"), ("config/page.txt", "from the config map")]
    {
        let body = web::get(cluster, &format!("http://{address}/file/{page}"))?;
        ensure!(body == expected, "{page}: {body:?}");
    }
    for node in cluster.nodes() {
        let name = format!("web.{}.svc.cluster.local", fixture.namespace);
        ask_from_pod(
            fixture,
            &node,
            &[
                &format!("http://{address}/version"),
                &format!("http://{name}/version"),
                "http://web/version",
            ],
        )
        .await?;
    }
    Ok(())
}

/// Runs a pod on the node that requests each page once and succeeds only if all respond.
async fn ask_from_pod(fixture: &Fixture, node: &str, urls: &[&str]) -> anyhow::Result<()> {
    let commands: Vec<String> =
        urls.iter().map(|url| format!("timeout 10 wget -q -O - {url}")).collect();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("ask-{node}"), "labels": {"role": "ask"}},
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "containers": [{
                "name": "ask", "image": "skiff.test/busybox:1",
                "command": ["sh", "-c", commands.join(" && ")],
            }],
        },
    });
    let client = fixture.cluster.client();
    manifest::create(client, &fixture.namespace, &pod.to_string()).await?;
    let name = format!("ask-{node}");
    let ended = |pod: &Pod| matches!(pods::phase(pod), "Succeeded" | "Failed");
    let pod = pods::one(fixture, &name, "it has ended", ended).await?;
    ensure!(pods::phase(&pod) == "Succeeded", "from {node}: {:?}", pod.status);
    Ok(())
}

async fn a_deployment_scales_up_and_down(fixture: &Fixture) -> anyhow::Result<()> {
    start(fixture, 1).await?;
    patch(fixture, json!({"spec": {"replicas": 6}})).await?;
    all_ready(fixture, 6).await?;
    patch(fixture, json!({"spec": {"replicas": 2}})).await?;
    all_ready(fixture, 2).await?;
    patch(fixture, json!({"spec": {"replicas": 0}})).await?;
    pods::until(fixture, "app=web", "no pod is left", |pods| pods.is_empty()).await?;
    Ok(())
}

async fn an_update_loses_no_request(fixture: &Fixture) -> anyhow::Result<()> {
    start(fixture, 3).await?;
    let (_, node_port) = service(fixture).await?;
    let cluster = &fixture.cluster;
    let url = format!("http://{}:{node_port}/version", cluster.node_address("node-1"));
    wait::eventually("the node port answers", async || web::get(cluster, &url)).await?;

    let load = Load::until_finished(cluster, &url, 50, 60)?;
    patch(fixture, image("v2")).await?;
    let updated = |pod: &Pod| {
        let spec = pod.spec.as_ref();
        spec.is_some_and(|s| s.containers[0].image.as_deref() == Some("skiff.test/testserver:v2"))
    };
    pods::until(fixture, "app=web", "all pods run the new version", |pods| {
        pods.len() == 3 && pods.values().all(|pod| updated(pod) && pods::is_ready(pod))
    })
    .await?;
    let report = load.finish().await?;
    ensure!(report["sent"].as_u64() > Some(50), "{report}");
    ensure!(report["failed"] == 0, "{report}");
    let seen = |version: &str| report["bodies"][version].as_u64().unwrap_or(0) > 0;
    ensure!(seen("v1") && seen("v2"), "{report}");

    let api: Api<ReplicaSet> = Api::namespaced(cluster.client(), &fixture.namespace);
    let sets = api.list(&client::ListOptions::default()).await?.items;
    ensure!(sets.len() == 2, "there are {} replica sets", sets.len());
    Ok(())
}

async fn a_killed_container_is_restarted(fixture: &Fixture) -> anyhow::Result<()> {
    start(fixture, 1).await?;
    let found = pods::until(fixture, "app=web", "any", |_| true).await?;
    let (name, pod) = found.iter().next().context("there is no pod")?;
    let url = format!("http://{}:8080/exit/1", pods::address(pod));
    // The server exits instead of answering.
    ensure!(web::get(&fixture.cluster, &url).is_err());
    let pod = pods::one(fixture, name, "it has been restarted", |pod| {
        pods::restarts(pod, "server") == 1 && pods::is_ready(pod)
    })
    .await?;
    ensure!(pods::restarts(&pod, "sidecar") == 0);
    Ok(())
}

async fn a_deleted_namespace_leaves_nothing(fixture: &Fixture) -> anyhow::Result<()> {
    start(fixture, 3).await?;
    let client = fixture.cluster.client();
    let found = pods::until(fixture, "app=web", "any", |_| true).await?;
    let uids: Vec<String> = found.values().filter_map(|pod| pod.metadata.uid.clone()).collect();
    ensure!(uids.len() == 3);
    let api: Api<Namespace> = Api::all(client);
    api.delete(&fixture.namespace, &DeleteOptions::default()).await?;
    let selection = Selection::default().name(&fixture.namespace);
    wait::until::<Namespace>(client, selection, "the namespace is gone", |found| found.is_empty())
        .await?;
    let found: Api<Pod> = Api::namespaced(client, &fixture.namespace);
    ensure!(found.list(&client::ListOptions::default()).await?.items.is_empty());

    // Folders, namespaces and control groups of a pod have its uid in their names.
    let cluster = &fixture.cluster;
    let folders = [cluster.folder().join("nodes"), PathBuf::from("/sys/fs/cgroup")];
    wait::eventually("nothing of the pods is left", async || {
        for uid in &uids {
            for folder in &folders {
                let left = find(folder, uid);
                ensure!(left.is_empty(), "{left:?}");
            }
        }
        Ok(())
    })
    .await
}

/// Paths below the folder whose file name contains the text, except in image layers.
fn find(folder: &Path, text: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if name.to_string_lossy().contains(text) {
            found.push(path);
        } else if is_folder && name != "snapshots" && name != "rootfs" {
            found.extend(find(&path, text));
        }
    }
    found
}
