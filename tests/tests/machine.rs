//! What `skiff up`, `down` and `status` do to the machine, without any pod.

#[path = "machine/memory.rs"]
mod memory;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use memory::memory_comes_back_after_a_load;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use testkit::suite::Fixture;
use testkit::wait::Selection;
use testkit::{Cluster, Options, Store, manifest, scenarios, suite, wait};
use tests::pods;

/// An unprivileged user.
const NOBODY: u32 = 65534;

fn main() -> ExitCode {
    suite::run(
        Options::default(),
        &[],
        scenarios![
            up_again_is_harmless,
            up_again_starts_replaced_programs,
            up_again_rejects_other_options,
            conflicts_are_reported_before_anything_starts,
            memory_comes_back_after_a_load,
            dead_processes_are_restarted,
            a_stopped_cluster_restarts_with_its_data,
            a_cluster_on_etcd_leaves_nothing,
            a_cluster_whose_supervisor_was_killed_leaves_nothing,
        ],
    )
}

async fn up_again_is_harmless(fixture: &Fixture) -> anyhow::Result<()> {
    let before = fixture.cluster.pid("apiserver")?;
    let output = fixture.cluster.up_again(&[])?;
    ensure!(output.success, "{}", output.stderr);
    ensure!(output.stdout.contains("is up already"), "{}", output.stdout);
    ensure!(fixture.cluster.pid("apiserver")? == before, "the apiserver was restarted");
    Ok(())
}

/// A build or an upgrade replaces programs; the next `skiff up` starts the new ones, and containers
/// keep running.
async fn up_again_starts_replaced_programs(_: &Fixture) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let programs = folder.path().to_owned();
    for entry in std::fs::read_dir(testkit::cluster::built_programs()?)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("skiff") && path.extension().is_none() {
            std::fs::copy(&path, programs.join(name))?;
        }
    }
    let options = Options { programs: Some(programs.clone()), ..Options::default() };
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || runtime.block_on(replace_a_program(options, programs)))
        .await?
}

/// Replaces a program of a running cluster.
async fn replace_a_program(options: Options, programs: PathBuf) -> anyhow::Result<()> {
    let cluster = Cluster::start(options)?;
    cluster.load_image("busybox").await?;
    manifest::create(cluster.client(), "default", POD).await?;
    let selection = || Selection::namespace("default").name("any");
    let ready = |pods: &BTreeMap<String, Pod>| pods.values().any(pods::is_ready);
    wait::until::<Pod>(cluster.client(), selection(), "the pod runs", ready).await?;
    let before = [cluster.pid("scheduler")?, cluster.pid("apiserver")?];

    let program = programs.join("skiff-scheduler");
    let new = programs.join("new");
    std::fs::copy(&program, &new)?;
    std::fs::rename(&new, &program)?;
    let output = cluster.up_again(&[])?;
    ensure!(output.success, "{}", output.stderr);
    ensure!(output.stdout.contains("is up with 1 node"), "{}", output.stdout);
    let after = [cluster.pid("scheduler")?, cluster.pid("apiserver")?];
    ensure!(before[0] != after[0] && before[1] != after[1], "{before:?} {after:?}");
    let steady = |pods: &BTreeMap<String, Pod>| {
        ready(pods) && pods.values().all(|pod| pods::restarts(pod, "main") == 0)
    };
    wait::until::<Pod>(cluster.client(), selection(), "the pod still runs", steady).await?;
    cluster.stop()
}

async fn up_again_rejects_other_options(fixture: &Fixture) -> anyhow::Result<()> {
    let output = fixture.cluster.up_again(&["--nodes", "2"])?;
    ensure!(!output.success);
    ensure!(output.stderr.contains("--nodes: \"1\" now, \"2\" asked for"), "{}", output.stderr);
    Ok(())
}

/// A second cluster on the addresses of the first, and one that an unprivileged user starts.
async fn conflicts_are_reported_before_anything_starts(fixture: &Fixture) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let options = std::fs::read_to_string(fixture.cluster.folder().join("cluster.json"))?;
    let options: serde_json::Value = serde_json::from_str(&options)?;
    let node_cidr = options["nodeCidr"].as_str().context("no nodeCidr")?;
    let skiff = fixture.cluster.program("skiff");
    let up = |program: &Path| {
        let mut command = std::process::Command::new(program);
        command.args(["up", "--no-kubeconfig", "--name", "in-the-way"]);
        command.args(["--node-cidr", node_cidr, "--data-dir"]).arg(&data);
        command
    };
    let rejected = |command: &mut std::process::Command| {
        let output = command.output()?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success(), "{stderr}");
        ensure!(!data.exists(), "something was created: {stderr}");
        Ok(stderr)
    };
    let stderr = rejected(&mut up(&skiff))?;
    for expected in [
        "this machine is not ready for a cluster:",
        "in use by another program",
        "or choose another --node-cidr",
        &format!("--node-cidr {node_cidr} overlaps the route to"),
    ] {
        ensure!(stderr.contains(expected), "{expected}: {stderr}");
    }

    // The built program may be in a folder that only root can read.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
    let copy = folder.path().join("skiff");
    std::fs::copy(&skiff, &copy)?;
    let stderr = rejected(up(&copy).uid(NOBODY).gid(NOBODY))?;
    ensure!(stderr.contains("skiff up needs root"), "{stderr}");
    Ok(())
}

async fn dead_processes_are_restarted(fixture: &Fixture) -> anyhow::Result<()> {
    for process in ["scheduler", "kubelet-node-1", "apiserver"] {
        let before = fixture.cluster.pid(process)?;
        kill(Pid::from_raw(before), Signal::SIGKILL)?;
        wait::eventually(&format!("{process} runs again"), async || {
            let states = fixture.cluster.processes()?;
            let state = states.iter().find(|state| state["name"] == process);
            let state = state.ok_or_else(|| anyhow::anyhow!("no {process}"))?;
            ensure!(state["phase"] == "ready", "{state}");
            ensure!(state["pid"] != before, "{state}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: any, namespace: default}\nspec:\n  \
                   volumes: [{name: v, emptyDir: {medium: Memory}}]\n  containers:\n  - {name: main, \
                   image: 'skiff.test/busybox:1', command: [sleep, '1000'], volumeMounts: [{name: \
                   v, mountPath: /v}]}\n";

/// As after a reboot of the machine.
async fn a_stopped_cluster_restarts_with_its_data(_: &Fixture) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Handle::current();
    let check = move || runtime.block_on(stop_and_restart());
    tokio::task::spawn_blocking(check).await?
}

async fn stop_and_restart() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default())?;
    cluster.load_image("busybox").await?;
    manifest::create(cluster.client(), "default", POD).await?;
    let found = |what: &'static str, holds: fn(&Pod) -> bool| {
        let selection = Selection::namespace("default").name("any");
        let client = cluster.client();
        async move {
            let there = |pods: &BTreeMap<String, Pod>| pods.get("any").is_some_and(holds);
            let mut pods = wait::until::<Pod>(client, selection, what, there).await?;
            pods.remove("any").context("it has just been seen")
        }
    };
    let before = found("the pod runs", pods::is_ready).await?;
    let (name, folder) = (cluster.name(), cluster.folder());
    cluster.skiff(&["down", "--keep-data", "--no-kubeconfig"])?;
    let left = traces(&name, &folder)?;
    ensure!(left == [folder.to_string_lossy()], "{left:#?}");

    let output = cluster.up_again(&[])?;
    ensure!(output.success, "{}", output.stderr);
    let after =
        found("the pod runs again", |pod| pods::is_ready(pod) && pods::restarts(pod, "main") == 1)
            .await?;
    ensure!(after.metadata.uid == before.metadata.uid);
    Ok(())
}

async fn a_cluster_on_etcd_leaves_nothing(_: &Fixture) -> anyhow::Result<()> {
    leaves_nothing(Options { nodes: 2, store: Store::Etcd, ..Options::default() }, false).await
}

async fn a_cluster_whose_supervisor_was_killed_leaves_nothing(_: &Fixture) -> anyhow::Result<()> {
    leaves_nothing(Options::default(), true).await
}

/// [`check_removal`] on a thread of its own, since starting and removing a cluster blocks.
async fn leaves_nothing(options: Options, crash: bool) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || runtime.block_on(check_removal(options, crash))).await?
}

/// Starts a cluster of its own with a pod on it, removes it, and looks for what is left.
async fn check_removal(options: Options, crash: bool) -> anyhow::Result<()> {
    let cluster = Cluster::start(options)?;
    cluster.load_image("busybox").await?;
    manifest::create(cluster.client(), "default", POD).await?;
    let running = |pods: &BTreeMap<String, Pod>| pods.values().any(pods::is_ready);
    let selection = Selection::namespace("default").name("any");
    wait::until::<Pod>(cluster.client(), selection, "the pod runs", running).await?;
    let (name, folder) = (cluster.name(), cluster.folder());
    ensure!(!traces(&name, &folder)?.is_empty(), "a running cluster leaves traces");
    if crash {
        let record = std::fs::read_to_string(folder.join("run/records/supervisor.json"))?;
        let record: serde_json::Value = serde_json::from_str(&record)?;
        let pid = record["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        kill(Pid::from_raw(pid.context("the record has no pid")?), Signal::SIGKILL)?;
    }
    cluster.stop()?;
    let left = traces(&name, &folder)?;
    ensure!(left.is_empty(), "{left:#?}");
    // Removing it again is harmless.
    let again = ["down", "--no-kubeconfig"];
    ensure!(cluster.skiff(&again)?.contains("There is no cluster"));
    Ok(())
}

/// Everything on the machine that belongs to the cluster: files, mounts, links, namespaces, control
/// groups, rules and processes.
fn traces(name: &str, folder: &Path) -> anyhow::Result<Vec<String>> {
    let folder = folder.to_string_lossy();
    let mut found = Vec::new();
    found.extend(Path::new(&*folder).exists().then(|| folder.to_string()));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let own = format!("{folder}/");
    found.extend(mounts.lines().filter(|line| line.contains(&own)).map(str::to_owned));
    for (parent, prefix) in
        [("/sys/class/net", format!("sk-{name}")), ("/run/netns", format!("skiff.{name}."))]
    {
        for entry in std::fs::read_dir(parent)? {
            let entry = entry?.file_name().to_string_lossy().into_owned();
            found.extend(
                (entry.starts_with(&prefix) && (prefix.ends_with('.') || entry == prefix))
                    .then_some(entry),
            );
        }
    }
    for hierarchy in ["", "memory", "pids", "cpu", "devices", "freezer", "unified"] {
        let group = Path::new("/sys/fs/cgroup").join(hierarchy).join("skiff").join(name);
        found.extend(group.exists().then(|| group.display().to_string()));
    }
    let rules = std::process::Command::new("nft").args(["list", "tables"]).output()?;
    let rules = String::from_utf8_lossy(&rules.stdout).into_owned();
    let table = format!("table ip skiff-{name}");
    found.extend(rules.lines().filter(|line| *line == table).map(str::to_owned));
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path().join("cmdline");
        let Ok(arguments) = std::fs::read(&path) else {
            continue;
        };
        let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
        let is_own = arguments.contains(&own) && !arguments.contains("/deps/machine");
        found.extend(is_own.then_some(arguments));
    }
    Ok(found)
}
