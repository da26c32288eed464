//! The kubelet and containerd may die at any moment; containers keep running.

use kubelet::containers::{ContainerState, ExitReason, RuntimeError};

use crate::node::{Node, PATIENCE};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_kubelet_finds_everything() {
    let mut node = Node::new().await;
    let pod = node.pod("kubelet").await;
    let counting =
        node.shell(&pod, "counting", "i=0; while true; do i=$((i+1)); echo $i; sleep 0.05; done");
    let id = node.start(&pod, &counting).await;
    node.wait_log(&id, "2\n").await;
    let before = node.runtime.status(&id).await.unwrap();
    node.restart_kubelet().await;
    let sandbox = node.runtime.ensure_pod(&pod.config).await.unwrap();
    assert!(!sandbox.created, "the namespaces are still pinned");
    let after = node.runtime.list().await.unwrap();
    assert_eq!(after, std::slice::from_ref(&before));
    assert_eq!(node.sh(&id, "echo still here").await, "still here\n");
    node.wait_log(&id, "\n10\n").await;
    node.runtime.remove_pod(&pod.config.pod.uid).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn containerd_may_be_killed() {
    let mut node = Node::new().await;
    let pod = node.pod("containerd").await;
    let go = node.scratch("go");
    let mut ending = node.shell(
        &pod,
        "ending",
        "echo ready; while [ ! -e /go/now ]; do sleep 0.05; done; echo done; exit 9",
    );
    ending.mounts = vec![kubelet::containers::Mount {
        host_path: go.clone(),
        container_path: "/go".into(),
        ..Default::default()
    }];
    let ending = node.start(&pod, &ending).await;
    let staying = node.start(&pod, &node.shell(&pod, "staying", "echo ready; sleep 1000")).await;
    node.wait_log(&ending, "ready").await;
    node.kill_containerd();
    let error = node.runtime.list().await.unwrap_err();
    assert!(matches!(error, RuntimeError::Unavailable { .. }), "{error}");
    // It exits while nobody watches; its log is written nevertheless.
    let log =
        kubelet::logs::container_log_path(&node.root().join("logs"), &pod.config.pod, "ending", 0);
    std::fs::write(go.join("now"), "").unwrap();
    wait_written(&log, "done\n").await;
    let mut events = node.runtime.events();
    events.recv().await.unwrap();
    node.start_containerd();
    tokio::time::timeout(PATIENCE, events.recv()).await.expect("the events come back").unwrap();
    let exit = node.wait_exit(&ending).await;
    assert_eq!((exit.exit_code, exit.reason), (9, ExitReason::Error));
    assert_eq!(node.log(&ending).await, "ready\ndone\n");
    assert!(matches!(
        node.runtime.status(&staying).await.unwrap().state,
        ContainerState::Running { .. }
    ));
    assert_eq!(node.sh(&staying, "echo still here").await, "still here\n");
    let more = node.start(&pod, &node.shell(&pod, "more", "echo more")).await;
    assert_eq!(node.wait_exit(&more).await.exit_code, 0);
    node.runtime.remove_pod(&pod.config.pod.uid).await.unwrap();
    assert_eq!(node.pod_mounts(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_may_be_switched_off() {
    let mut node = Node::new().await;
    let pod = node.pod("power").await;
    let id = node.start(&pod, &node.shell(&pod, "main", "echo ready; sleep 1000")).await;
    node.wait_log(&id, "ready").await;
    let prepared =
        node.runtime.prepare_rootfs(&pod.config.pod, "never", 0, crate::testimage::IMAGE);
    prepared.await.unwrap();
    node.power_off();
    node.start_containerd();
    node.restart_kubelet().await;
    let exit = node.wait_exit(&id).await;
    assert_eq!((exit.exit_code, exit.reason), (255, ExitReason::Unknown));
    let pod = node.runtime.ensure_pod(&pod.config).await.unwrap();
    assert!(pod.created, "the namespaces have to be created again");
    let mut config = node.shell(&pod, "main", "echo again");
    config.attempt = 1;
    let (exit, log) = node.run(&pod, &config).await;
    assert_eq!(exit.exit_code, 0);
    assert!(log.ends_with("again\n"));
    node.runtime.remove_pod(&pod.config.pod.uid).await.unwrap();
    assert_eq!(node.pod_mounts(), Vec::<String>::new());
    assert_eq!(node.snapshots_in_use().await, 0, "what was only prepared is removed too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_log_writer_is_started_again() {
    let mut node = Node::new().await;
    let pod = node.pod("writer").await;
    let go = node.scratch("go");
    let script = "echo one; while [ ! -e /go/now ]; do sleep 0.05; done; echo two; sleep 1000";
    let mut config = node.shell(&pod, "main", script);
    config.stdin = true;
    config.mounts = vec![kubelet::containers::Mount {
        host_path: go.clone(),
        container_path: "/go".into(),
        ..Default::default()
    }];
    let id = node.start(&pod, &config).await;
    node.wait_log(&id, "one").await;
    node.kill_log_writer();
    std::fs::write(go.join("now"), "").unwrap();
    node.restart_kubelet().await;
    let log = node.runtime.status(&id).await.unwrap().log_path;
    wait_written(&log, "two\n").await;
    node.runtime.remove_pod(&pod.config.pod.uid).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_writer_that_comes_late_does_not_take_over_from_a_newer_one() {
    let node = Node::new().await;
    let pod = node.pod("late").await;
    let mut config = node.shell(&pod, "main", "echo one; cat");
    config.stdin = true;
    let id = node.start(&pod, &config).await;
    node.wait_log(&id, "one\n").await;
    let (writer, line) = node.log_writer();
    // As if started by a previous kubelet, on a machine so busy that it runs only now.
    let mut spec: serde_json::Value = serde_json::from_str(&line[2]).unwrap();
    let number = spec["number"].as_u64().unwrap();
    spec["number"] = (number - 1).into();
    let late =
        std::process::Command::new(&line[0]).args([&line[1], &spec.to_string()]).output().unwrap();
    let said = String::from_utf8_lossy(&late.stderr);
    assert!(said.contains("another writer does not give way"), "{said}");
    assert_eq!(node.log_writer().0, writer);
    node.runtime.remove_pod(&pod.config.pod.uid).await.unwrap();
}

/// Waits until a log file ends with a text, without a runtime.
async fn wait_written(log: &std::path::Path, end: &str) {
    let written = async {
        while !std::fs::read_to_string(log).unwrap().ends_with(end) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, written).await.expect("the log goes on");
}

/// A kubelet that starts a container and dies after a given time, whatever it is doing.
async fn live_for(
    life: std::time::Duration,
    runtime: kubelet::containers::RuntimeConfig,
    pod: kubelet::containers::PodConfig,
    container: kubelet::containers::ContainerConfig,
) {
    let lived = tokio::task::spawn_blocking(move || {
        let kubelet = tokio::runtime::Runtime::new().unwrap();
        let runtime = kubelet.block_on(kubelet::containers::Runtime::connect(runtime)).unwrap();
        kubelet.spawn(async move {
            let pod = runtime.ensure_pod(&pod).await.unwrap();
            let id = runtime.create(&pod, &container).await.unwrap();
            runtime.start(&id).await.unwrap();
        });
        // Not a synchronisation: this is when it dies.
        std::thread::sleep(life);
        kubelet.shutdown_timeout(PATIENCE);
    });
    lived.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_cut_off_anywhere_is_made_good_by_the_next() {
    let mut node = Node::new().await;
    for step in 0..16_u64 {
        let config = node.pod_config(&format!("cut{step}"));
        let container = {
            let sandbox =
                kubelet::containers::PodSandbox { config: config.clone(), ..Default::default() };
            let mut container = node.shell(&sandbox, "main", "echo ready; cat; sleep 1000");
            // Half of them with the other kind of streams.
            container.stdin = step % 2 == 1;
            container
        };
        let life = std::time::Duration::from_millis(step * 8);
        live_for(life, node.runtime_config(), config.clone(), container.clone()).await;
        node.restart_kubelet().await;
        let pod = node.runtime.ensure_pod(&config).await.unwrap();
        let id = node.runtime.create(&pod, &container).await.unwrap();
        node.runtime.start(&id).await.unwrap_or_else(|error| panic!("step {step}: {error}"));
        node.wait_log(&id, "ready\n").await;
        assert_eq!(node.runtime.list().await.unwrap().len(), 1, "step {step}");
        assert_eq!(node.sh(&id, "echo works").await, "works\n", "step {step}");
        node.runtime.remove_pod(&config.pod.uid).await.unwrap();
        assert_eq!(node.pod_mounts(), Vec::<String>::new(), "step {step}");
        assert_eq!(node.snapshots_in_use().await, 0, "step {step}");
    }
}
