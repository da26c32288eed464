//! Users and privileges of containers.

use kubelet::containers::{
    ContainerConfig, ContainerUser, RuntimeError, SeccompProfile, SecurityContext,
};

use crate::node::Node;

#[tokio::test(flavor = "multi_thread")]
async fn users_and_groups() {
    let node = Node::new().await;
    let pod = node.pod("users").await;
    let mut attempt = 0;
    let mut run = async |security: SecurityContext| {
        let mut config = ContainerConfig {
            security,
            ..node.shell(&pod, "main", "id -u; id -g; id -G; touch /root/x 2>&1")
        };
        config.attempt = attempt;
        config.log_path.set_file_name(format!("{attempt}.log"));
        attempt += 1;
        let (exit, log) = node.run(&pod, &config).await;
        (exit.exit_code, log)
    };
    assert_eq!(run(SecurityContext::default()).await, (0, "0\n0\n0\n".into()));
    let web = SecurityContext {
        run_as_user: Some(101),
        supplemental_groups: vec![3000],
        run_as_non_root: true,
        ..Default::default()
    };
    let (code, log) = run(web).await;
    assert_eq!(code, 1);
    assert!(
        log.starts_with("101\n102\n102 7 3000\n") && log.contains("Permission denied"),
        "{log}"
    );
    let other =
        SecurityContext { run_as_user: Some(4000), run_as_group: Some(5000), ..Default::default() };
    assert!(run(other).await.1.starts_with("4000\n5000\n5000\n"));

    let non_root = SecurityContext { run_as_non_root: true, ..Default::default() };
    let mut config =
        ContainerConfig { security: non_root, attempt: 9, ..node.shell(&pod, "main", "true") };
    let error = node.runtime.create(&pod, &config).await.unwrap_err();
    assert!(matches!(error, RuntimeError::RunAsNonRoot));
    assert_eq!(error.waiting_reason(), "CreateContainerConfigError");
    config.security.run_as_user = Some(101);
    let id = node.runtime.create(&pod, &config).await.unwrap();
    let user = node.runtime.status(&id).await.unwrap().user;
    assert_eq!(user, ContainerUser { uid: 101, gid: 102, additional_gids: vec![7, 102] });
    node.runtime.remove_pod(&pod.config.pod.uid).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_are_what_was_asked() {
    let node = Node::new().await;
    let pod = node.pod("rights").await;
    let strings = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let start = async |name: &str, security: SecurityContext| {
        let config =
            ContainerConfig { security, ..node.shell(&pod, name, "echo ready; sleep 1000") };
        let id = node.start(&pod, &config).await;
        node.wait_log(&id, "ready").await;
        id
    };
    let capabilities = "grep CapEff /proc/self/status";
    let default = start("default", SecurityContext::default()).await;
    assert_eq!(node.sh(&default, capabilities).await, "CapEff:\t00000000a80425fb\n");
    assert!(
        node.sh(&default, "(echo 1 > /proc/sys/kernel/panic) 2>&1 || true")
            .await
            .contains("Read-only")
    );
    assert_eq!(
        node.sh(&default, "cat /proc/kcore | wc -c; grep Seccomp: /proc/self/status").await,
        "0\nSeccomp:\t0\n"
    );

    let tight = SecurityContext {
        drop_capabilities: strings(&["ALL"]),
        add_capabilities: strings(&["KILL"]),
        no_new_privileges: true,
        read_only_root_filesystem: true,
        seccomp: SeccompProfile::RuntimeDefault,
        ..Default::default()
    };
    let tight = start("tight", tight).await;
    assert_eq!(node.sh(&tight, capabilities).await, "CapEff:\t0000000000000020\n");
    assert_eq!(
        node.sh(&tight, "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status").await,
        "NoNewPrivs:\t1\nSeccomp:\t2\n"
    );
    assert!(node.sh(&tight, "touch /x 2>&1 || true").await.contains("Read-only file system"));
    assert!(
        node.sh(&tight, "unshare -m true 2>&1 || true").await.contains("Operation not permitted")
    );

    let privileged =
        start("privileged", SecurityContext { privileged: true, ..Default::default() }).await;
    assert_eq!(node.sh(&privileged, "mkdir /m && mount -t tmpfs x /m && echo mounted; ls /dev/kmsg /dev/loop-control 2>/dev/null | head -1").await, "mounted\n/dev/kmsg\n");
    node.runtime.remove_pod(&pod.config.pod.uid).await.unwrap();
}
