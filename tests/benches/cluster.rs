//! Benchmarks of a whole cluster: pod start compared with the same container started by hand,
//! writes and lists, and what the processes use when idle. Only ratios within one run are
//! meaningful; absolute figures depend on what else the machine does. Arguments select parts:
//! `cargo bench --bench cluster -- volumes scheduling`.

use anyhow::{Context, ensure};
use client::{Api, DeleteOptions, ListOptions};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use serde_json::json;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use testkit::hollow::HollowNode;
use testkit::wait::{self, Selection};
use testkit::{Cluster, Options, manifest};
use tests::pods;

/// Pods that are started one after the other.
const PODS: usize = 15;
/// Pods of the Deployment.
const REPLICAS: usize = 50;
/// Objects that are written and listed.
const OBJECTS: usize = 2000;
/// Hollow nodes, and the pods that are created for them at once by so many writers.
const HOLLOW_NODES: usize = 200;
const SCHEDULED: usize = 2000;
const WRITERS: usize = 50;
const STEPS: usize = 10;
/// Between renewals of the hollow nodes' Leases.
const RENEWAL: Duration = Duration::from_secs(10);
/// How long the idle cluster is watched.
const IDLE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    tests::bench::run(run())
}

async fn run() -> anyhow::Result<()> {
    let started = clock::monotonic();
    let cluster = Cluster::start(options())?;
    println!("cluster up, node Ready           {:>8.0} ms", millis(started));
    let selected: Vec<String> =
        std::env::args().skip(1).filter(|one| !one.starts_with('-')).collect();
    let wants = |part: &str| selected.is_empty() || selected.iter().any(|one| one == part);
    if wants("idle") {
        idle(&cluster).await?;
    }
    cluster.load_image("testserver-v1").await?;
    if wants("pods") {
        compare_pods(&cluster).await?;
    }
    if wants("volumes") {
        volumes(&cluster).await?;
    }
    if wants("deployment") {
        deployment(&cluster).await?;
    }
    if wants("objects") {
        objects(&cluster).await?;
    }
    if wants("scheduling") {
        scheduling(&cluster).await?;
    }
    Ok(())
}

async fn compare_pods(cluster: &Cluster) -> anyhow::Result<()> {
    let by_hand = by_hand(cluster)?;
    let started = pod_starts(cluster).await?;
    println!("container by hand (ctr), median  {by_hand:>8.0} ms");
    println!("pod, create to Ready, median     {started:>8.0} ms   {:.2} x", started / by_hand);
    Ok(())
}

/// With a profile of the scheduler that never preempts.
fn options() -> Options {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/scheduler.yaml");
    Options { flags: vec![format!("--scheduler-config={file}")], ..Options::default() }
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
    let socket = cluster.folder().join("nodes/node-1/containerd/containerd.sock");
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
        let started = clock::monotonic();
        let image = "skiff.test/testserver:v1";
        let ran = ctr(&["run", "--detach", "--cgroup", &group, image, &name])?;
        ensure!(ran, "ctr cannot run the container");
        times.push(millis(started));
        ctr(&["task", "kill", "--signal", "9", &name])?;
        // The kill may already have removed it.
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
        let started = clock::monotonic();
        manifest::create(client, "default", &pod.to_string()).await?;
        let selection = Selection::namespace("default").name(&name);
        wait::until::<Pod>(client, selection, "Ready", |found| found.values().any(pods::is_ready))
            .await?;
        times.push(millis(started));
        let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
        api.delete(&name, &options).await?;
    }
    Ok(median(times))
}

/// A claim and the pod that makes its node known, until the claim is bound and until the pod has the
/// volume and is Ready, compared with the same directory or image made and mounted by hand.
async fn volumes(cluster: &Cluster) -> anyhow::Result<()> {
    for backing in ["directory", "image"] {
        let class = json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": backing},
            "provisioner": "skiff.dev/local-path", "volumeBindingMode": "WaitForFirstConsumer",
            "parameters": {"backing": backing},
        });
        manifest::create(cluster.client(), "default", &class.to_string()).await?;
        let by_hand = volume_by_hand(cluster, backing)?;
        let (bound, ready) = claims(cluster, backing).await?;
        println!("{backing:<9} by hand, median        {by_hand:>8.1} ms");
        let times = |value: f64| format!("{:.2} x by hand", value / by_hand);
        println!("{backing:<9} claim to bound, median {bound:>8.1} ms   {}", times(bound));
        println!("{backing:<9} claim to pod Ready     {ready:>8.1} ms   {}", times(ready));
    }
    Ok(())
}

fn volume_by_hand(cluster: &Cluster, backing: &str) -> anyhow::Result<f64> {
    let make = match backing {
        "directory" => "mkdir v m && mount --bind v m",
        _ => "mkdir m && fallocate -l 16M v && mkfs.ext4 -q -F v && mount -o loop v m",
    };
    let folder = cluster.folder().join("by-hand");
    let mut times = Vec::new();
    for _ in 0..PODS {
        std::fs::create_dir(&folder)?;
        let run = |script: &str| -> anyhow::Result<()> {
            let mut command = Command::new("sh");
            let status = command.args(["-c", script]).current_dir(&folder).status()?;
            ensure!(status.success(), "{script} failed");
            Ok(())
        };
        let started = clock::monotonic();
        run(make)?;
        times.push(millis(started));
        run("umount m")?;
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(median(times))
}

async fn claims(cluster: &Cluster, class: &str) -> anyhow::Result<(f64, f64)> {
    let client = cluster.client();
    let (mut bound, mut ready) = (Vec::new(), Vec::new());
    for number in 0..PODS {
        let name = format!("{class}-{number}");
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
            "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "16Mi"}}},
        });
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": name}}],
                "containers": [{"name": "main", "image": "skiff.test/testserver:v1",
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
            },
        });
        let started = clock::monotonic();
        manifest::create(client, "default", &claim.to_string()).await?;
        manifest::create(client, "default", &pod.to_string()).await?;
        let one = || Selection::namespace("default").name(&name);
        let phase = |claim: &PersistentVolumeClaim| claim.status.clone().and_then(|one| one.phase);
        wait::until::<PersistentVolumeClaim>(client, one(), "Bound", |found| {
            found.values().any(|claim| phase(claim).as_deref() == Some("Bound"))
        })
        .await?;
        bound.push(millis(started));
        wait::until::<Pod>(client, one(), "Ready", |found| found.values().any(pods::is_ready))
            .await?;
        ready.push(millis(started));
        let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
        Api::<Pod>::namespaced(client, "default").delete(&name, &options).await?;
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(client, "default");
        claims.delete(&name, &DeleteOptions::default()).await?;
    }
    Ok((median(bound), median(ready)))
}

async fn objects(cluster: &Cluster) -> anyhow::Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(cluster.client(), "default");
    let data = [("payload".to_owned(), "x".repeat(1000))].into();
    let mut template = ConfigMap { data: Some(data), ..ConfigMap::default() };
    let started = clock::monotonic();
    for number in 0..OBJECTS {
        template.metadata.name = Some(format!("object-{number}"));
        api.create(&template).await?;
    }
    let rate = OBJECTS as f64 / started.elapsed().as_secs_f64();
    println!("creates of 1 KB, one connection  {rate:>8.0} /s");
    let mut times = Vec::new();
    for _ in 0..10 {
        let started = clock::monotonic();
        let listed = api.list(&ListOptions::default()).await?.items.len();
        times.push(millis(started));
        ensure!(listed >= OBJECTS, "{listed} objects");
    }
    println!("list of {OBJECTS}, decoded           {:>8.1} ms", median(times));
    Ok(())
}

/// Times a Deployment of many pods until all are Ready, then its deletion until all are gone.
async fn deployment(cluster: &Cluster) -> anyhow::Result<()> {
    let client = cluster.client();
    let labels = json!({"app": "many"});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "many"},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{"name": "main", "image": "skiff.test/testserver:v1"}],
                },
            },
        },
    });
    let selection = || Selection::namespace("default").labels("app=many");
    let started = clock::monotonic();
    manifest::create(client, "default", &deployment.to_string()).await?;
    wait::until::<Pod>(client, selection(), "all Ready", |found| {
        found.values().filter(|pod| pods::is_ready(pod)).count() == REPLICAS
    })
    .await?;
    println!("Deployment of {REPLICAS}, to all Ready     {:>8.0} ms", millis(started));
    let started = clock::monotonic();
    let deployments: Api<Deployment> = Api::namespaced(client, "default");
    deployments.delete("many", &DeleteOptions::default()).await?;
    wait::until::<Pod>(client, selection(), "all gone", |found| found.is_empty()).await?;
    println!("the same deleted, to all gone    {:>8.0} ms", millis(started));
    Ok(())
}

/// Many pods at once.
struct Batch<'a> {
    name: &'a str,
    scheduler: &'a str,
    class: &'a str,
    cpu: &'a str,
}

/// Times many pods from the first create until all have a node: with preemption off and on, where
/// there is room for all, and where each has to displace another.
async fn scheduling(cluster: &Cluster) -> anyhow::Result<()> {
    let client = cluster.client();
    // Only hollow nodes take part: containers would be another benchmark.
    cluster.skiff(&["cordon", "node-1"])?;
    for (class, value) in [("low", 1), ("high", 1000)] {
        let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": class}, "value": value});
        manifest::create(client, "", &class.to_string()).await?;
    }
    let mut nodes = Vec::new();
    for number in 0..HOLLOW_NODES {
        let name = format!("hollow-{number}");
        nodes.push(HollowNode::start(client, clock::system(), &name, RENEWAL).await?);
    }
    for (what, scheduler) in
        [("preemption off", "without-preemption"), ("preemption on", "default-scheduler")]
    {
        let batch = Batch { name: "plain", scheduler, class: "high", cpu: "10m" };
        batch.schedule(cluster, what).await?;
        batch.delete(cluster).await?;
    }
    // Ten of them fill a node.
    let low = Batch { name: "low", scheduler: "default-scheduler", class: "low", cpu: "6400m" };
    low.schedule(cluster, "filling the nodes").await?;
    let high = Batch { name: "high", class: "high", ..low };
    high.schedule(cluster, "each displaces one").await?;
    nodes.into_iter().for_each(HollowNode::stop);
    Ok(())
}

impl Batch<'_> {
    fn selection(&self) -> Selection {
        Selection::namespace("default").labels(&format!("app={}", self.name))
    }

    async fn schedule(&self, cluster: &Cluster, what: &str) -> anyhow::Result<()> {
        let client = cluster.client();
        let scheduler = cluster.pid("scheduler")?;
        let before = Usage::of(scheduler)?.nanoseconds;
        let started = clock::monotonic();
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let pods = (writer..SCHEDULED).step_by(WRITERS).map(|number| self.pod(number));
            let (client, pods): (_, Vec<String>) = (client.clone(), pods.collect());
            writers.spawn(async move {
                for pod in pods {
                    manifest::create(&client, "default", &pod).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(written) = writers.join_next().await {
            written??;
        }
        // In steps, since all of them may take longer than a wait.
        for step in 1..=STEPS {
            let wanted = SCHEDULED * step / STEPS;
            let what = format!("{wanted} have a node");
            wait::until::<Pod>(client, self.selection(), &what, |found| {
                found.values().filter(|pod| !pods::node(pod).is_empty()).count() >= wanted
            })
            .await?;
        }
        let rate = SCHEDULED as f64 / started.elapsed().as_secs_f64();
        let spent = (Usage::of(scheduler)?.nanoseconds - before) as f64 / 1e3 / SCHEDULED as f64;
        println!(
            "{SCHEDULED} pods on {HOLLOW_NODES} nodes, {what:<18} {rate:>6.0} /s   {spent:.0} us of the scheduler each"
        );
        Ok(())
    }

    fn pod(&self, number: usize) -> String {
        let Self { name, scheduler, class, cpu } = self;
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("{name}-{number}"), "labels": {"app": name}},
            "spec": {"schedulerName": scheduler, "priorityClassName": class, "containers": [
                {"name": "main", "image": "skiff.test/testserver:v1",
                    "resources": {"requests": {"cpu": cpu}}},
            ]},
        });
        pod.to_string()
    }

    async fn delete(&self, cluster: &Cluster) -> anyhow::Result<()> {
        cluster.skiff(&["delete", "pods", "-l", &format!("app={}", self.name), "--wait=false"])?;
        let gone = |found: &std::collections::BTreeMap<String, Pod>| found.is_empty();
        wait::until::<Pod>(cluster.client(), self.selection(), "all are gone", gone).await?;
        Ok(())
    }
}

/// CPU time that a process has used, its own memory, and the memory that it maps from files, mainly
/// its program.
struct Usage {
    nanoseconds: u64,
    own_kb: u64,
    mapped_kb: u64,
}

impl Usage {
    fn of(pid: i32) -> anyhow::Result<Self> {
        let mut nanoseconds = 0;
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let times = std::fs::read_to_string(task?.path().join("schedstat"))?;
            let first = times.split_ascii_whitespace().next().unwrap_or_default();
            nanoseconds += first.parse::<u64>()?;
        }
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kb = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name));
            let number = line.and_then(|line| line.split_ascii_whitespace().nth(1));
            number.and_then(|number| number.parse().ok()).unwrap_or_default()
        };
        Ok(Self { nanoseconds, own_kb: kb("RssAnon:"), mapped_kb: kb("RssFile:") })
    }
}

/// Memory and CPU time of each process while the cluster is idle.
async fn idle(cluster: &Cluster) -> anyhow::Result<()> {
    let mut processes = Vec::new();
    for process in cluster.processes()? {
        let name = process["name"].as_str().context("no name")?.to_owned();
        let pid = cluster.pid(&name)?;
        processes.push((name, pid, Usage::of(pid)?.nanoseconds));
    }
    tokio::time::sleep(IDLE).await;
    let (mut own, mut mapped, mut cpu) = (0.0, 0.0, 0.0);
    println!("idle:                        own memory  mapped files  processor");
    let line = |name: &str, own: f64, mapped: f64, cpu: f64| {
        println!("  {name:<24}   {own:>8.1} MB   {mapped:>8.1} MB   {cpu:>6.3} %");
    };
    for (name, pid, before) in processes {
        let now = Usage::of(pid)?;
        let spent = (now.nanoseconds - before) as f64 / IDLE.as_nanos() as f64 * 100.0;
        let (own_mb, mapped_mb) = (now.own_kb as f64 / 1e3, now.mapped_kb as f64 / 1e3);
        line(&name, own_mb, mapped_mb, spent);
        if !name.starts_with("containerd") {
            own += own_mb;
            mapped += mapped_mb;
            cpu += spent;
        }
    }
    line("all but containerd", own, mapped, cpu);
    Ok(())
}
