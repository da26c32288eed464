//! Create, start, list, exit, delete.

use kubelet::containers::{ContainerState, ExitReason, RuntimeError};

use crate::node::Node;

#[tokio::test(flavor = "multi_thread")]
async fn a_container_lives_and_leaves_nothing() {
    let node = Node::new().await;
    let pod = node.pod("life").await;
    assert!(!node.runtime.ensure_pod(&pod.config).await.unwrap().created, "what exists is kept");
    let mut config = node.shell(
        &pod,
        "main",
        "echo out; echo err >&2; echo $FROM_IMAGE $HOSTNAME $X; pwd; exit 3",
    );
    config.env = vec![("X".into(), "y z".into())];
    config.spec_hash = "hash1".into();
    config.annotations = [("a/b".to_string(), "c".repeat(10_000))].into();
    node.runtime.prepare_rootfs(&pod.config.pod, "main", 0, &config.image).await.unwrap();
    let id = node.runtime.create(&pod, &config).await.unwrap();
    assert_eq!(
        node.runtime.create(&pod, &config).await.unwrap(),
        id,
        "a repeated create returns the same id"
    );
    let status = node.runtime.status(&id).await.unwrap();
    assert_eq!(
        (status.state, status.name.as_str(), status.attempt),
        (ContainerState::Created, "main", 0)
    );
    assert_eq!(
        (status.spec_hash.as_str(), &status.annotations, &status.pod),
        ("hash1", &config.annotations, &pod.config.pod)
    );
    assert!(status.image_id.starts_with("sha256:"));

    let pid = node.runtime.start(&id).await.unwrap();
    assert!(pid > 1);
    let exit = node.wait_exit(&id).await;
    assert_eq!((exit.exit_code, exit.reason), (3, ExitReason::Error));
    assert!(exit.started_at.is_some_and(|started| started <= exit.finished_at));
    let log = node.log(&id).await;
    for line in ["out\n", "err\n", "yes life y z\n", "/tmp\n"] {
        assert!(log.contains(line), "{line:?} in {log:?}");
    }
    assert!(
        matches!(node.runtime.start(&id).await, Err(RuntimeError::Start { .. })),
        "an exited container stays exited"
    );
    assert_eq!(node.runtime.list_pod(&pod.config.pod.uid).await.unwrap().len(), 1);

    let log_path = node.runtime.status(&id).await.unwrap().log_path;
    node.runtime.delete(&id).await.unwrap();
    node.runtime.delete(&id).await.unwrap();
    assert!(!log_path.exists());
    assert!(matches!(node.runtime.status(&id).await, Err(RuntimeError::NotFound { .. })));
    assert_eq!(node.runtime.pods().await.unwrap(), std::slice::from_ref(&pod.config.pod.uid));
    node.runtime.remove_pod(&pod.config.pod.uid).await.unwrap();
    node.runtime.remove_pod(&pod.config.pod.uid).await.unwrap();
    assert_eq!(node.pod_mounts(), Vec::<String>::new());
    assert_eq!(node.runtime.pods().await.unwrap(), Vec::<String>::new());
    assert!(!node.cgroups.exists(&pod.config.cgroup));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_says_what_to_run_and_args_replace_its_cmd() {
    let node = Node::new().await;
    let pod = node.pod("image").await;
    let mut config = node.shell(&pod, "default", "");
    config.command.clear();
    let (exit, log) = node.run(&pod, &config).await;
    assert_eq!(
        (exit.exit_code, exit.reason, log.as_str()),
        (0, ExitReason::Completed, "hello from the image\n")
    );
    config.attempt = 1;
    config.args = vec!["other".into()];
    assert!(node.run(&pod, &config).await.1.ends_with("other\n"));
    node.runtime.remove_pod(&pod.config.pod.uid).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_does_not_exist_is_a_start_error() {
    let node = Node::new().await;
    let pod = node.pod("bad").await;
    let mut config = node.shell(&pod, "main", "");
    config.command = vec!["/no/such/command".into()];
    let id = node.runtime.create(&pod, &config).await.unwrap();
    let error = node.runtime.start(&id).await.unwrap_err();
    assert_eq!(error.waiting_reason(), "RunContainerError");
    assert!(error.to_string().contains("no such file or directory"), "{error}");
    let exit = node.wait_exit(&id).await;
    assert_eq!((exit.exit_code, exit.reason), (128, ExitReason::StartError));
    assert!(exit.message.contains("/no/such/command"), "{}", exit.message);

    // With standard input, we have to end its log writer.
    config.stdin = true;
    config.attempt = 2;
    let id = node.runtime.create(&pod, &config).await.unwrap();
    node.runtime.start(&id).await.unwrap_err();
    assert!(
        node.log(&id).await.contains("no such file or directory"),
        "the log ends, and says why"
    );

    config.image = "docker.io/library/absent:1".into();
    config.attempt = 1;
    let error = node.runtime.create(&pod, &config).await.unwrap_err();
    assert!(matches!(error, RuntimeError::ImageMissing { .. }), "{error}");
    node.runtime.remove_pod(&pod.config.pod.uid).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_it_and_removal_kills_it() {
    let node = Node::new().await;
    let pod = node.pod("signals").await;
    let polite = node.shell(
        &pod,
        "polite",
        "trap 'echo bye; exit 0' TERM; echo ready; while true; do sleep 0.1; done",
    );
    let stubborn =
        node.shell(&pod, "stubborn", "trap '' TERM; echo ready; while true; do sleep 1; done");
    let (polite, stubborn) = tokio::join!(node.start(&pod, &polite), node.start(&pod, &stubborn));
    node.wait_log(&polite, "ready").await;
    let signal = node.runtime.status(&polite).await.unwrap().stop_signal;
    node.runtime.kill(&polite, signal, false).await.unwrap();
    assert_eq!(node.wait_exit(&polite).await.exit_code, 0);
    assert!(node.log(&polite).await.ends_with("bye\n"));
    node.runtime.kill(&polite, signal, false).await.unwrap();
    node.wait_log(&stubborn, "ready").await;
    node.runtime.kill(&stubborn, 9, false).await.unwrap();
    assert_eq!(node.wait_exit(&stubborn).await.exit_code, 137);
    let again = node.shell(&pod, "running", "sleep 1000");
    node.start(&pod, &again).await;
    node.runtime.remove_pod(&pod.config.pod.uid).await.unwrap();
    assert!(node.runtime.list().await.unwrap().is_empty());
    assert_eq!(node.pod_mounts(), Vec::<String>::new());
}
