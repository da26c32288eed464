//! cgroups: limits, in-place updates, statistics, and what happens at a limit.

use kubelet::cgroup::{CgroupVersion, Resources, cpu_quota_us, cpu_shares};
use kubelet::containers::{ContainerConfig, ContainerEventKind, ExitReason, Mount, RuntimeEvent};

use crate::node::{Node, PATIENCE};

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_and_change_in_place() {
    let node = Node::new().await;
    let mut pod = node.pod_config("limits");
    pod.resources = Resources {
        memory_limit_bytes: Some(256 << 20),
        cpu_shares: Some(cpu_shares(500)),
        ..Default::default()
    };
    let pod = node.runtime.ensure_pod(&pod).await.unwrap();
    let resources = Resources {
        cpu_shares: Some(cpu_shares(250)),
        cpu_quota_us: Some(cpu_quota_us(500)),
        memory_limit_bytes: Some(64 << 20),
        pids_limit: Some(100),
        ..Default::default()
    };
    let config = ContainerConfig {
        resources: resources.clone(),
        ..node.shell(&pod, "main", "echo ready; sleep 1000")
    };
    let id = node.start(&pod, &config).await;
    node.wait_log(&id, "ready").await;
    let limit_file = match node.cgroups.version() {
        CgroupVersion::V1 => "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        CgroupVersion::V2 => "/sys/fs/cgroup/memory.max",
    };
    let seen = || async {
        node.sh(&id, &format!("cat {limit_file}")).await.trim().parse::<u64>().unwrap()
    };
    assert_eq!(seen().await, 64 << 20);
    let stats = node.runtime.stats().await.unwrap();
    assert_eq!(stats.len(), 1);
    assert!(
        stats[0].usage.memory_working_set_bytes > 0
            && stats[0].usage.pids >= 1
            && stats[0].usage.cpu_usage_ns > 0
    );
    assert_eq!(stats[0].usage.memory_limit_bytes, Some(64 << 20));
    let of_pod = node.runtime.cgroup_stats(&pod.config.cgroup).await.unwrap().unwrap();
    assert_eq!(of_pod.memory_limit_bytes, Some(256 << 20));

    let more = Resources { memory_limit_bytes: Some(96 << 20), ..resources };
    node.runtime.update(&id, &more).await.unwrap();
    assert_eq!(seen().await, 96 << 20);
    node.runtime.remove_pod(&pod.config.pod.uid).await.unwrap();
    assert!(node.runtime.stats().await.unwrap().is_empty());
    assert!(!node.cgroups.exists(&pod.config.cgroup));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_out_of_memory_says_so() {
    let node = Node::new().await;
    let pod = node.pod("oom").await;
    let resources = Resources { memory_limit_bytes: Some(20 << 20), ..Default::default() };
    let mut events = node.runtime.events();
    let go = node.scratch("go");
    // The shim watches for OOM kills only once the container is started.
    let script =
        "while [ ! -e /go/now ]; do sleep 0.05; done; exec dd if=/dev/zero of=/dev/null bs=200M";
    let config = ContainerConfig {
        resources,
        mounts: vec![Mount {
            host_path: go.clone(),
            container_path: "/go".into(),
            ..Mount::default()
        }],
        ..node.shell(&pod, "main", script)
    };
    let id = node.start(&pod, &config).await;
    std::fs::write(go.join("now"), "").unwrap();
    let exit = node.wait_exit(&id).await;
    assert_eq!((exit.exit_code, exit.reason), (137, ExitReason::OomKilled));
    let oom = async {
        loop {
            if let RuntimeEvent::Container { kind: ContainerEventKind::Oom, pod_uid, .. } =
                events.recv().await.unwrap()
            {
                return pod_uid;
            }
        }
    };
    let pod_uid = tokio::time::timeout(PATIENCE, oom).await.expect("the event comes");
    assert_eq!(pod_uid, pod.config.pod.uid);
    node.runtime.remove_pod(&pod.config.pod.uid).await.unwrap();
}
