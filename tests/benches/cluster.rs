//! Figures of a whole cluster: pod start against the same container started by hand, writes and
//! lists, and what the processes use when nothing happens. Ratios of one run count; absolute
//! figures depend on what else the machine does.

use anyhow::{Context, ensure};
use client::{Api, DeleteOptions, ListOptions};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use serde_json::{Value, json};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use testkit::wait::{self, Selection};
use testkit::{Cluster, Options, manifest};
use tests::pods;

/// Pods that are started one after the other.
const PODS: usize = 15;
/// Objects that are written and listed.
const OBJECTS: usize = 2000;
/// How long the idle cluster is watched.
const IDLE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    runtime::init("warn");
    let threads = tokio::runtime::Runtime::new().expect("the operating system gives threads");
    match threads.block_on(run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let started = runtime::clock::monotonic();
    let cluster = Cluster::start(Options::default())?;
    println!(
        "cluster up, node Ready           {:>8.0} ms",
        millis(started)
    );
    cluster.load_image("testserver-v1").await?;

    let by_hand = by_hand(&cluster)?;
    let started = pod_starts(&cluster).await?;
    println!("container by hand (ctr), median  {by_hand:>8.0} ms");
    println!(
        "pod, create to Ready, median     {started:>8.0} ms   {:.2} x",
        started / by_hand
    );
    objects(&cluster).await?;
    idle(&cluster).await
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Starts the same container with containerd's own tool.
fn by_hand(cluster: &Cluster) -> anyhow::Result<f64> {
    let socket = cluster
        .folder()
        .join("nodes/node-1/containerd/containerd.sock");
    let ctr = |arguments: &[&str]| -> anyhow::Result<bool> {
        let status = Command::new("ctr")
            .arg("--address")
            .arg(&socket)
            .args(["--namespace", "k8s.io"])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .context("cannot run ctr")?;
        Ok(status.success())
    };
    let group = format!("/skiff/{}/by-hand", cluster.name());
    let mut times = Vec::new();
    for number in 0..PODS {
        let name = format!("by-hand-{number}");
        let started = runtime::clock::monotonic();
        let image = "skiff.test/testserver:v1";
        let ran = ctr(&["run", "--detach", "--cgroup", &group, image, &name])?;
        ensure!(ran, "ctr cannot run the container");
        times.push(millis(started));
        ctr(&["task", "kill", "--signal", "9", &name])?;
        // Gone already when the kill has waited for it.
        ctr(&["task", "delete", "--force", &name])?;
        ctr(&["container", "delete", &name])?;
    }
    Ok(median(times))
}

async fn pod_starts(cluster: &Cluster) -> anyhow::Result<f64> {
    let client = cluster.client();
    let api: Api<Pod> = Api::namespaced(client, "default");
    let mut times = Vec::new();
    for number in 0..PODS {
        let name = format!("pod-{number}");
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"containers": [{"name": "main", "image": "skiff.test/testserver:v1"}]},
        });
        let started = runtime::clock::monotonic();
        manifest::create(client, "default", &pod.to_string()).await?;
        let selection = Selection::namespace("default").name(&name);
        wait::until::<Pod>(client, selection, "Ready", |found| {
            found.values().any(pods::is_ready)
        })
        .await?;
        times.push(millis(started));
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            ..DeleteOptions::default()
        };
        api.delete(&name, &options).await?;
    }
    Ok(median(times))
}

async fn objects(cluster: &Cluster) -> anyhow::Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(cluster.client(), "default");
    let data = [("payload".to_owned(), "x".repeat(1000))].into();
    let mut template = ConfigMap {
        data: Some(data),
        ..ConfigMap::default()
    };
    let started = runtime::clock::monotonic();
    for number in 0..OBJECTS {
        template.metadata.name = Some(format!("object-{number}"));
        api.create(&template).await?;
    }
    let rate = OBJECTS as f64 / started.elapsed().as_secs_f64();
    println!("creates of 1 KB, one connection  {rate:>8.0} /s");
    let mut times = Vec::new();
    for _ in 0..10 {
        let started = runtime::clock::monotonic();
        let listed = api.list(&ListOptions::default()).await?.items.len();
        times.push(millis(started));
        ensure!(listed >= OBJECTS, "{listed} objects");
    }
    println!(
        "list of {OBJECTS}, decoded           {:>8.1} ms",
        median(times)
    );
    Ok(())
}

/// Memory and processor time of each process while nothing happens.
async fn idle(cluster: &Cluster) -> anyhow::Result<()> {
    let before = cluster.processes()?;
    tokio::time::sleep(IDLE).await;
    let after = cluster.processes()?;
    let number = |state: &Value, name: &str| state[name].as_f64().unwrap_or_default();
    let (mut memory, mut cpu) = (0.0, 0.0);
    println!("idle:");
    for (before, after) in before.iter().zip(&after) {
        let own_cpu = number(after, "cpuSeconds") - number(before, "cpuSeconds");
        let percent = own_cpu / IDLE.as_secs_f64() * 100.0;
        let own_memory = number(after, "memoryBytes") / 1e6;
        println!(
            "  {:<24}     {own_memory:>8.1} MB  {percent:>6.2} %",
            after["name"].as_str().unwrap_or("?")
        );
        if !after["name"]
            .as_str()
            .unwrap_or_default()
            .starts_with("containerd")
        {
            memory += own_memory;
            cpu += percent;
        }
    }
    println!("  all but containerd           {memory:>8.1} MB  {cpu:>6.2} %");
    Ok(())
}
