//! What containers of a pod share and do not share.

use kubelet::containers::{ContainerConfig, Mount, MountPropagation};

use crate::node::Node;

fn namespace(path: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).unwrap().ino()
}

#[tokio::test(flavor = "multi_thread")]
async fn net_ipc_uts_and_shm_are_shared() {
    let node = Node::new().await;
    let mut config = node.pod_config("shared");
    config.sysctls =
        [("kernel.shm_rmid_forced", "1"), ("net.ipv4.ip_unprivileged_port_start", "0")]
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .into();
    config.shm_size_bytes = Some(1 << 20);
    let pod = node.runtime.ensure_pod(&config).await.unwrap();
    let netns = namespace(pod.netns().unwrap());
    assert_ne!(netns, namespace("/proc/self/ns/net".as_ref()));
    let one = node.shell(&pod, "one", "echo secret > /dev/shm/file; echo ready; sleep 1000");
    let two = node.shell(&pod, "two", "sleep 1000");
    let (one, two) = tokio::join!(node.start(&pod, &one), node.start(&pod, &two));
    node.wait_log(&one, "ready").await;
    let look = "hostname; cat /dev/shm/file /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_unprivileged_port_start; \
                readlink /proc/self/ns/net; ps | wc -l";
    let seen = node.sh(&two, look).await;
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[..4], ["shared", "secret", "1", "0"]);
    assert_eq!(lines[4], format!("net:[{netns}]"));
    assert!(lines[5].trim().parse::<u32>().unwrap() < 6, "processes are not shared: {seen}");
    assert!(
        node.sh(&one, "head -c 2000000 /dev/zero > /dev/shm/big; stat -c %s /dev/shm/big")
            .await
            .trim()
            .parse::<u32>()
            .unwrap()
            <= 1 << 20
    );
    assert_eq!(shims(&node), 1, "one shim serves the pod");
    node.runtime.remove_pod(&config.pod.uid).await.unwrap();
    assert_eq!(node.pod_mounts(), Vec::<String>::new());
}

/// Shims of the node.
fn shims(node: &Node) -> usize {
    let needle = format!("{}/c.sock", node.root().display());
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).into_owned());
    lines.filter(|line| line.contains("containerd-shim") && line.contains(&needle)).count()
}

/// Two shims that start at the same moment may both believe to be the first.
#[tokio::test(flavor = "multi_thread")]
async fn containers_that_start_at_once_share_a_shim() {
    let node = Node::new().await;
    for round in 0..5 {
        let pod = node.pod(&format!("at-once-{round}")).await;
        let configs: Vec<_> =
            (0..4).map(|number| node.shell(&pod, &format!("c{number}"), "sleep 1000")).collect();
        futures::future::join_all(configs.iter().map(|config| node.start(&pod, config))).await;
        assert_eq!(shims(&node), 1, "round {round}");
        node.runtime.remove_pod(&pod.config.pod.uid).await.unwrap();
        let exited = async {
            while shims(&node) > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(crate::node::PATIENCE, exited).await.expect("the shim exits");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_are_shared_on_request_and_reaped() {
    let mut node = Node::new().await;
    let mut config = node.pod_config("pid");
    config.share_process_namespace = true;
    let pod = node.runtime.ensure_pod(&config).await.unwrap();
    let one = node.start(&pod, &node.shell(&pod, "one", "echo ready; sleep 1111")).await;
    let two = node.start(&pod, &node.shell(&pod, "two", "(sleep 0.1 &) ; sleep 1000")).await;
    node.wait_log(&one, "ready").await;
    let seen = node.sh(&two, "ps").await;
    assert!(seen.contains("/pause") && seen.contains("sleep 1111"), "{seen}");
    assert_eq!(node.sh(&two, "cat /proc/1/comm").await, "pause\n");
    let orphan_gone = "while ps | grep -q '[s]leep 0.1'; do sleep 0.05; done; ps | grep -c '[Z]ombie\\|\\[sleep\\]' || true";
    assert_eq!(node.sh(&two, orphan_gone).await, "0\n");
    assert_eq!(
        node.runtime.list().await.unwrap().len(),
        2,
        "the pause process is not listed as a container"
    );
    node.restart_kubelet().await;
    let again = node.runtime.ensure_pod(&config).await.unwrap();
    assert!(!again.created);
    assert_eq!(again.pidns, pod.pidns);
    // The exit of a container does not affect the others.
    node.runtime.kill(&one, 9, false).await.unwrap();
    node.wait_exit(&one).await;
    assert_eq!(node.sh(&two, "echo alive").await, "alive\n");
    node.runtime.remove_pod(&config.pod.uid).await.unwrap();
    assert_eq!(node.pod_mounts(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nodes_own_namespaces() {
    let node = Node::new().await;
    let mut config = node.pod_config("host");
    (config.host_network, config.host_ipc, config.host_pid) = (true, true, true);
    config.host_uts = true;
    let pod = node.runtime.ensure_pod(&config).await.unwrap();
    assert!(pod.netns().is_none());
    let id = node.start(&pod, &node.shell(&pod, "main", "echo ready; sleep 1000")).await;
    node.wait_log(&id, "ready").await;
    let own = |kind: &str| {
        std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string()
    };
    let seen =
        node.sh(&id, "for kind in net ipc uts pid; do readlink /proc/self/ns/$kind; done").await;
    assert_eq!(seen.lines().collect::<Vec<_>>(), [own("net"), own("ipc"), own("uts"), own("pid")]);
    node.runtime.remove_pod(&config.pod.uid).await.unwrap();
    assert_eq!(node.pod_mounts(), Vec::<String>::new());
}

/// Nodes that share a machine can be told apart by pods that share their networks.
#[tokio::test(flavor = "multi_thread")]
async fn the_nodes_network_with_a_host_name_of_its_own() {
    let node = Node::new().await;
    let mut config = node.pod_config("host-name");
    config.host_network = true;
    config.hostname = "node-7".into();
    let pod = node.runtime.ensure_pod(&config).await.unwrap();
    assert!(pod.netns().is_none() && pod.utsns.is_some());
    let id = node.start(&pod, &node.shell(&pod, "main", "echo ready; sleep 1000")).await;
    node.wait_log(&id, "ready").await;
    let seen = node.sh(&id, "hostname; echo $HOSTNAME; readlink /proc/self/ns/net").await;
    let net = std::fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    assert_eq!(seen.lines().collect::<Vec<_>>(), ["node-7", "node-7", net.as_str()]);
    node.runtime.remove_pod(&config.pod.uid).await.unwrap();
    assert_eq!(node.pod_mounts(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_mounted_as_asked() {
    let node = Node::new().await;
    let pod = node.pod("mounts").await;
    let data = node.scratch("data");
    std::fs::write(data.join("file"), "content").unwrap();
    let mount = |container_path: &str, change: fn(&mut Mount)| {
        let mut mount = Mount {
            host_path: data.clone(),
            container_path: container_path.into(),
            ..Mount::default()
        };
        change(&mut mount);
        mount
    };
    let mut file = mount("/etc/one-file", |_| {});
    file.host_path = data.join("file");
    let config = ContainerConfig {
        mounts: vec![
            mount("/a/inner", |mount| mount.read_only = true),
            mount("/a", |_| {}),
            mount("/slave", |mount| mount.propagation = MountPropagation::HostToContainer),
            mount("/rro", |mount| mount.recursive_read_only = true),
            file,
        ],
        ..node.shell(&pod, "main", "echo ready; sleep 1000")
    };
    use nix::mount::{MsFlags, mount as mount_at};
    // Mounts propagate only between shared ones, as every node's root is.
    mount_at(Some(&data), &data, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    mount_at(None::<&str>, &data, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
    std::fs::create_dir(data.join("inner")).unwrap();
    std::fs::create_dir(data.join("late")).unwrap();
    let id = node.start(&pod, &config).await;
    node.wait_log(&id, "ready").await;
    assert_eq!(
        node.sh(&id, "cat /a/file /a/inner/file /etc/one-file; touch /a/new && ls /a/inner/new")
            .await,
        "contentcontentcontent/a/inner/new\n"
    );
    for path in ["/a/inner/x", "/rro/x"] {
        let script = format!("touch {path} 2>&1 || true");
        assert!(node.sh(&id, &script).await.contains("Read-only file system"), "{path}");
    }
    let late = data.join("late");
    mount_at(Some("tmpfs"), &late, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    std::fs::write(late.join("there"), "").unwrap();
    let seen = node.sh(&id, "ls /slave/late; ls /a/late").await;
    nix::mount::umount(&late).unwrap();
    assert_eq!(seen, "there\n", "only the slave mount sees later mounts");
    node.runtime.remove_pod(&pod.config.pod.uid).await.unwrap();
}

/// The way an image of several layers is mounted for a volume.
#[tokio::test(flavor = "multi_thread")]
async fn layers_are_mounted_for_reading_only() {
    let node = Node::new().await;
    let (upper, lower, target) =
        (node.scratch("upper"), node.scratch("lower"), node.scratch("target"));
    for (directory, file) in [(&lower, "both"), (&lower, "low"), (&upper, "both")] {
        let text = directory.file_name().unwrap().to_str().unwrap();
        std::fs::write(directory.join(file), text).unwrap();
    }
    let layers = format!("lowerdir={}:{}", upper.display(), lower.display());
    for _ in 0..2 {
        let options = [layers.clone()];
        kubelet::volume::mount::read_only("overlay", "overlay", &options, &target).unwrap();
    }
    let read = |file: &str| std::fs::read_to_string(target.join(file)).unwrap();
    assert_eq!((read("both"), read("low")), ("upper".into(), "lower".into()));
    let refused = std::fs::write(target.join("new"), "").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    kubelet::volume::mount::unmount_all(&target).unwrap();
    assert!(std::fs::read_dir(&target).unwrap().next().is_none());
}
