//! Resources of whole pods, huge pages, and room for critical pods.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use api::quantity::Quantity;
use client::{Api, ListOptions};
use k8s_openapi::api::core::v1::{Node, Pod};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::suite::Fixture;
use testkit::wait::{self, Selection};
use tests::pods;

use super::static_pods::Manifest;
use super::{create, exec, start_failures::event};

pub async fn the_limits_of_a_pod_hold_for_its_containers(fixture: &Fixture) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: v1
kind: Pod
metadata: {name: whole}
spec:
  terminationGracePeriodSeconds: 1
  resources: {requests: {cpu: 250m, memory: 64Mi}, limits: {cpu: 300m, memory: 64Mi}}
  containers:
  - name: own
    image: skiff.test/busybox:1
    command: [sleep, "1000"]
    resources: {limits: {cpu: 200m}}
  - name: main
    image: skiff.test/busybox:1
    command: [sleep, "1000"]
    env: [{name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}]
---
apiVersion: v1
kind: Pod
metadata: {name: full}
spec:
  restartPolicy: Never
  resources: {limits: {memory: 32Mi}}
  containers:
  - name: main
    image: skiff.test/busybox:1
    command: [sh, -c, "head -c 60000000 /dev/zero | tail -c 60000000 > /dev/null"]
"#;
    create(fixture, yaml).await?;
    let pod = pods::ready(fixture, "whole").await?;
    let status = pod.status.context("it has one")?;
    ensure!(status.qos_class.as_deref() == Some("Burstable"), "{:?}", status.qos_class);
    let quota = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d ' ' -f 1 /sys/fs/cgroup/cpu.max";
    ensure!(exec(fixture, "whole", "own", quota)? == "20000");
    ensure!(exec(fixture, "whole", "main", quota)? == "30000");
    ensure!(exec(fixture, "whole", "main", "echo $MEMORY")? == "64");
    let uid = pod.metadata.uid.unwrap_or_default();
    let of_pod = of_pod("memory", "memory.limit_in_bytes", "memory.max", &uid)?;
    ensure!(of_pod == "67108864", "{of_pod}");
    let pod =
        pods::one(fixture, "full", "it has failed", |pod| pods::phase(pod) == "Failed").await?;
    let state = pods::container(&pod, "main").and_then(|status| status.state.as_ref());
    let reason = state.and_then(|state| state.terminated.as_ref()?.reason.as_deref());
    ensure!(reason == Some("OOMKilled"), "{reason:?}");
    Ok(())
}

/// A setting of the pod's cgroup, by its file in cgroup v1 and v2.
fn of_pod(controller: &str, v1: &str, v2: &str, uid: &str) -> anyhow::Result<String> {
    let legacy = format!("/sys/fs/cgroup/{controller}");
    let (root, file) = match std::path::Path::new(&legacy).is_dir() {
        true => (legacy.as_str(), v1),
        false => ("/sys/fs/cgroup", v2),
    };
    let output =
        std::process::Command::new("find").args([root, "-name", &format!("pod{uid}")]).output()?;
    let found = String::from_utf8(output.stdout)?;
    let directory = found.lines().next().context("the pod has no cgroup")?;
    let text = std::fs::read_to_string(format!("{directory}/{file}"))?;
    Ok(text.trim().to_owned())
}

/// The node's CPUs that no pod of this or another scenario requests, in thousandths, and all of them.
async fn free_cpu(fixture: &Fixture) -> anyhow::Result<(i64, i64)> {
    let nodes: Api<Node> = Api::all(fixture.cluster.client());
    let status = nodes.get("node-1").await?.status.context("it has a status")?;
    let all = status.allocatable.and_then(|all| all.get("cpu").map(Quantity::of));
    let all = all.context("it has cpus")?.millis();
    let pods: Api<Pod> = Api::all(fixture.cluster.client());
    let requests = |pod: &Pod| {
        let spec = pod.spec.as_ref().filter(|_| !api::pod::is_terminal(pod))?;
        let all = api::pod::resources(spec, api::pod::Side::Requests);
        all.get("cpu").map(|amount| amount.millis())
    };
    let pods = pods.list(&ListOptions::default()).await?.items;
    let used: i64 = pods.iter().filter_map(requests).sum();
    Ok((all - used, all))
}

/// A critical pod that does not fit takes the place of one that is not.
pub async fn a_critical_pod_preempts_another(fixture: &Fixture) -> anyhow::Result<()> {
    let (free, all) = free_cpu(fixture).await?;
    let pod = |name: &str, more: &str, cpu: i64| {
        format!(
            r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeName: node-1
  terminationGracePeriodSeconds: 1{more}
  containers:
  - {{name: main, image: "skiff.test/busybox:1", command: [sleep, "1000"], resources: {{requests: {{cpu: {cpu}m}}}}}}
"#
        )
    };
    let small = 50;
    let most = free - 2 * small;
    create(fixture, &pod("filler", "", most)).await?;
    create(fixture, &pod("bystander", "", small)).await?;
    pods::ready(fixture, "filler").await?;
    pods::ready(fixture, "bystander").await?;
    create(fixture, &pod("ordinary", "", 2 * small)).await?;
    let failed = |pod: &Pod| pods::phase(pod) == "Failed";
    let rejected = pods::one(fixture, "ordinary", "it is rejected", failed).await?;
    let reason = rejected.status.and_then(|status| status.reason);
    ensure!(reason.as_deref() == Some("OutOfcpu"), "{reason:?}");

    let critical = "\n  priorityClassName: system-node-critical";
    create(fixture, &pod("critical", critical, most)).await?;
    pods::ready(fixture, "critical").await?;
    let filler = pods::one(fixture, "filler", "it is preempted", failed).await?;
    let status = filler.status.context("it has a status")?;
    let text = "Preempted in order to admit critical pod";
    ensure!(status.reason.as_deref() == Some("Preempting"), "{:?}", status.reason);
    ensure!(status.message.as_deref() == Some(text), "{:?}", status.message);
    let conditions = status.conditions.unwrap_or_default();
    let target = conditions.iter().find(|one| one.type_ == "DisruptionTarget");
    let target = target.context("it was disrupted")?;
    ensure!(target.reason.as_deref() == Some("TerminationByKubelet") && target.status == "True");
    event(fixture, "filler", "Preempting", text).await?;
    let bystander = pods::ready(fixture, "bystander").await?;
    ensure!(pods::restarts(&bystander, "main") == 0);

    // Nothing is left to preempt.
    create(fixture, &pod("too-much", critical, all)).await?;
    let rejected = pods::one(fixture, "too-much", "it is rejected", failed).await?;
    let status = rejected.status.context("it has a status")?;
    ensure!(status.reason.as_deref() == Some("UnexpectedAdmissionError"), "{:?}", status.reason);
    let text = "no set of running pods found to reclaim resources: [(res: cpu, q: ";
    ensure!(status.message.is_some_and(|message| message.contains(text)));

    // A static pod is critical whatever its priority.
    let api: Api<Pod> = Api::namespaced(fixture.cluster.client(), &fixture.namespace);
    api.delete("critical", &client::DeleteOptions::default()).await?;
    pods::until(fixture, "", "it is gone", |pods| !pods.contains_key("critical")).await?;
    create(fixture, &pod("filler-2", "", most)).await?;
    pods::ready(fixture, "filler-2").await?;
    let manifest = Manifest::write(fixture, "preemptor", &format!("requests: {{cpu: {most}m}}"))?;
    pods::ready(fixture, "preemptor-node-1").await?;
    let filler = pods::one(fixture, "filler-2", "it is preempted", failed).await?;
    let reason = filler.status.and_then(|status| status.reason);
    ensure!(reason.as_deref() == Some("Preempting"), "{reason:?}");
    drop(manifest);
    let gone = |pods: &BTreeMap<String, Pod>| !pods.contains_key("preemptor-node-1");
    pods::until(fixture, "", "the static pod is gone", gone).await?;
    Ok(())
}

/// The machine's huge pages of 2 MiB, as they were before when it is dropped.
struct HugePages(String);

const NUMBER: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

impl HugePages {
    fn reserve(number: u32) -> anyhow::Result<Self> {
        let before = Self(std::fs::read_to_string(NUMBER)?);
        std::fs::write(NUMBER, number.to_string())?;
        let reserved = std::fs::read_to_string(NUMBER)?;
        ensure!(reserved.trim() == number.to_string(), "the machine has only {reserved} to spare");
        Ok(before)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        if let Err(error) = std::fs::write(NUMBER, &self.0) {
            eprintln!("{NUMBER}: {error}");
        }
    }
}

pub async fn huge_pages_are_a_resource_and_a_volume(fixture: &Fixture) -> anyhow::Result<()> {
    let reserved = HugePages::reserve(4)?;
    restarted_with(fixture, "8Mi").await?;
    let yaml = r#"
apiVersion: v1
kind: Pod
metadata: {name: huge}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: skiff.test/busybox:1
    command: [sleep, "1000"]
    resources: {limits: {hugepages-2Mi: 4Mi, memory: 32Mi, cpu: 50m}}
    volumeMounts: [{name: single, mountPath: /single}, {name: named, mountPath: /named}]
  volumes:
  - {name: single, emptyDir: {medium: HugePages}}
  - {name: named, emptyDir: {medium: HugePages-2Mi}}
"#;
    create(fixture, yaml).await?;
    pods::ready(fixture, "huge").await?;
    let greedy = r#"
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  nodeName: node-1
  containers:
  - name: main
    image: skiff.test/busybox:1
    resources: {limits: {hugepages-2Mi: 6Mi, memory: 32Mi}}
"#;
    create(fixture, greedy).await?;
    for path in ["/single", "/named"] {
        let mounted = exec(fixture, "huge", "main", &format!("grep ' {path} ' /proc/mounts"))?;
        ensure!(mounted.contains(" hugetlbfs rw") && mounted.contains("pagesize=2M"), "{mounted}");
        exec(fixture, "huge", "main", &format!("touch {path}/x"))?;
    }
    let rejected =
        pods::one(fixture, "greedy", "it is rejected", |pod| pods::phase(pod) == "Failed").await?;
    let reason = rejected.status.and_then(|status| status.reason);
    ensure!(reason.as_deref() == Some("OutOfhugepages-2Mi"), "{reason:?}");
    let api: Api<Pod> = Api::namespaced(fixture.cluster.client(), &fixture.namespace);
    api.delete("huge", &client::DeleteOptions::default()).await?;
    pods::until(fixture, "", "it is gone", |pods| !pods.contains_key("huge")).await?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains("empty-dir/single"), "its volume is still mounted");
    drop(reserved);
    restarted_with(fixture, "0").await
}

/// Restarts the kubelet, which looks at the machine when it starts.
async fn restarted_with(fixture: &Fixture, pages: &str) -> anyhow::Result<()> {
    kill(Pid::from_raw(fixture.cluster.pid("kubelet-node-1")?), Signal::SIGKILL)?;
    let what = format!("the node has {pages} of huge pages");
    let selection = Selection::default().name("node-1");
    let has = |nodes: &BTreeMap<String, Node>| {
        nodes.values().filter_map(|node| node.status.as_ref()).any(|status| {
            [&status.capacity, &status.allocatable].iter().all(|list| {
                let amount = list.as_ref().and_then(|list| list.get("hugepages-2Mi"));
                amount.is_some_and(|amount| amount.0 == pages)
            })
        })
    };
    wait::until(fixture.cluster.client(), selection, &what, has).await?;
    Ok(())
}
