//! A node for a test: containerd, with a runtime and an image service.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::StreamExt;
use kubelet::cgroup::{Cgroups, QosClass};
use kubelet::containers::{
    ContainerConfig, ContainerEventKind, ContainerExit, ContainerId, ContainerState,
    ContainerStatus, PodConfig, PodRef, PodSandbox, Runtime, RuntimeConfig, RuntimeEvent,
};
use kubelet::image::{ImageService, Verification};
use kubelet::logs::{LogConfig, LogQuery, container_log_path, read_log};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::testimage::{self, IMAGE};

/// Timeout, long enough for a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Node {
    pub runtime: Runtime,
    pub images: ImageService,
    pub cgroups: Cgroups,
    cgroup_root: String,
    containerd: Option<Child>,
    directory: tempfile::TempDir,
}

impl Node {
    /// A node without images.
    pub async fn empty() -> Node {
        Self::with(|_| {}, &[]).await
    }

    /// A node with the test image.
    pub async fn new() -> Node {
        Self::with_logs(|_| {}).await
    }

    pub async fn with_logs(change: impl FnOnce(&mut LogConfig)) -> Node {
        let node = Self::with(change, &[]).await;
        let archive = std::io::Cursor::new(testimage::docker_archive());
        assert_eq!(node.images.load_archive(archive).await.unwrap(), [IMAGE]);
        node
    }

    pub async fn with(change: impl FnOnce(&mut LogConfig), insecure_registries: &[String]) -> Node {
        rustls::crypto::ring::default_provider().install_default().ok();
        assert!(nix::unistd::geteuid().is_root(), "these tests need root");
        let directory = tempfile::Builder::new().prefix("skiff-rt-").tempdir_in("/tmp").unwrap();
        let root = directory.path();
        let config = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.snapshotter.v1.aufs\", \
             \"io.containerd.snapshotter.v1.btrfs\", \"io.containerd.snapshotter.v1.devmapper\", \
             \"io.containerd.snapshotter.v1.zfs\"]\n[grpc]\naddress = \"{0}/c.sock\"\n[ttrpc]\naddress = \"{0}/t.sock\"\n",
            root.display()
        );
        fs::write(root.join("config.toml"), config).unwrap();
        let cgroup_root = format!("/skiff-test-{:08x}", rand::random::<u32>());
        let cgroups = Cgroups::detect(&cgroup_root).unwrap();
        let mut logs = LogConfig::new(env!("CARGO_BIN_EXE_skiff-kubelet").into());
        change(&mut logs);
        let containerd = Some(start_containerd(root));
        let config = runtime_config(root, &cgroups, logs);
        let runtime = Runtime::connect(config).await.unwrap();
        let images =
            ImageService::new(&runtime, insecure_registries, Verification::default()).unwrap();
        Node { runtime, images, cgroups, cgroup_root, containerd, directory }
    }

    pub fn root(&self) -> &Path {
        self.directory.path()
    }

    pub fn scratch(&self, name: &str) -> PathBuf {
        let path = self.root().join("scratch").join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// The configuration of this node's runtime.
    pub fn runtime_config(&self) -> RuntimeConfig {
        runtime_config(
            self.root(),
            &self.cgroups,
            LogConfig::new(env!("CARGO_BIN_EXE_skiff-kubelet").into()),
        )
    }

    /// Simulates a kubelet that was killed and restarted.
    pub async fn restart_kubelet(&mut self) {
        self.runtime = Runtime::connect(self.runtime_config()).await.unwrap();
        self.images = ImageService::new(&self.runtime, &[], Verification::default()).unwrap();
    }

    pub fn kill_containerd(&mut self) {
        let mut child = self.containerd.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn start_containerd(&mut self) {
        self.containerd = Some(start_containerd(self.root()));
    }

    /// Ends all processes and mounts at once, like a power failure. What is on disk remains.
    pub fn power_off(&mut self) {
        self.kill_containerd();
        for pid in processes_of(self.root()) {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
        self.cgroups.remove(&kubelet::cgroup::CgroupPath::new(&self.cgroup_root)).unwrap();
        for mount in mounts_below(self.root()).iter().rev() {
            umount2(mount.as_str(), MntFlags::MNT_DETACH).unwrap();
        }
        fs::remove_dir_all(self.root().join("state")).unwrap();
    }

    /// Process id and command line of the one log writer.
    pub fn log_writer(&self) -> (i32, Vec<String>) {
        let command = |pid: i32| -> Vec<String> {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split_terminator('\0').map(String::from).collect()
        };
        let mut writers: Vec<(i32, Vec<String>)> = processes_of(self.root())
            .into_iter()
            .map(|pid| (pid, command(pid)))
            .filter(|(_, line)| line.iter().any(|word| word == "container-log"))
            .collect();
        assert_eq!(writers.len(), 1);
        writers.remove(0)
    }

    /// Kills the one log writer, and waits for it to be gone.
    pub fn kill_log_writer(&self) {
        let (writer, _) = self.log_writer();
        kill(Pid::from_raw(writer), Signal::SIGKILL).unwrap();
        // A process that has closed its files is a zombie or gone.
        let status = || fs::read_to_string(format!("/proc/{writer}/status"));
        while status().is_ok_and(|status| !status.contains("State:\tZ")) {
            std::thread::yield_now();
        }
    }

    /// The number of containers' writable layers.
    pub async fn snapshots_in_use(&self) -> usize {
        use containerd_client::services::v1::snapshots::{Kind, ListSnapshotsRequest};
        let client =
            containerd_client::Client::from_path(self.root().join("c.sock")).await.unwrap();
        let list = ListSnapshotsRequest { snapshotter: "overlayfs".into(), filters: Vec::new() };
        let mut request = tonic::Request::new(list);
        request.metadata_mut().insert("containerd-namespace", "k8s.io".parse().unwrap());
        let mut pages = client.snapshots().list(request).await.unwrap().into_inner();
        let mut count = 0;
        while let Some(page) = pages.message().await.unwrap() {
            count += page.info.iter().filter(|info| info.kind() == Kind::Active).count();
        }
        count
    }

    pub fn pod_config(&self, name: &str) -> PodConfig {
        let uid = format!("{:08x}-{name}", rand::random::<u32>());
        let cgroup = self.cgroups.pod_path(QosClass::Burstable, &uid);
        PodConfig {
            pod: PodRef { uid, namespace: "default".into(), name: name.into() },
            hostname: name.into(),
            cgroup,
            ..PodConfig::default()
        }
    }

    pub async fn pod(&self, name: &str) -> PodSandbox {
        let sandbox = self.runtime.ensure_pod(&self.pod_config(name)).await.unwrap();
        assert!(sandbox.created);
        sandbox
    }

    /// A container of the test image that runs a shell script.
    pub fn shell(&self, pod: &PodSandbox, name: &str, script: &str) -> ContainerConfig {
        ContainerConfig {
            name: name.into(),
            image: IMAGE.into(),
            command: ["/bin/sh", "-c", script].map(String::from).into(),
            log_path: container_log_path(&self.root().join("logs"), &pod.config.pod, name, 0),
            ..ContainerConfig::default()
        }
    }

    pub async fn start(&self, pod: &PodSandbox, config: &ContainerConfig) -> ContainerId {
        let id = self.runtime.create(pod, config).await.unwrap();
        self.runtime.start(&id).await.unwrap();
        id
    }

    /// Starts a container, waits for its exit, and returns the exit and its log.
    pub async fn run(&self, pod: &PodSandbox, config: &ContainerConfig) -> (ContainerExit, String) {
        let id = self.start(pod, config).await;
        let exit = self.wait_exit(&id).await;
        (exit, self.log(&id).await)
    }

    pub async fn wait_exit(&self, id: &ContainerId) -> ContainerExit {
        let status =
            self.wait_for(id, |status| matches!(status.state, ContainerState::Exited(_))).await;
        let ContainerState::Exited(exit) = status.state else { unreachable!("just waited for") };
        exit
    }

    /// Waits, driven by events, until a container's status satisfies a condition.
    pub async fn wait_for(
        &self,
        id: &ContainerId,
        wanted: impl Fn(&ContainerStatus) -> bool,
    ) -> ContainerStatus {
        let mut events = self.runtime.events();
        let wait = async {
            loop {
                let status = self.runtime.status(id).await.unwrap();
                if wanted(&status) {
                    return status;
                }
                while let RuntimeEvent::Container {
                    id: other,
                    kind: ContainerEventKind::Deleted,
                    ..
                }
                | RuntimeEvent::Container { id: other, .. } = events.recv().await.unwrap()
                {
                    if other == *id {
                        break;
                    }
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the container changes in time")
    }

    /// A container's whole log.
    pub async fn log(&self, id: &ContainerId) -> String {
        self.read_log(id, LogQuery { follow: true, ..LogQuery::default() }).await
    }

    pub async fn read_log(&self, id: &ContainerId, query: LogQuery) -> String {
        let path = self.runtime.status(id).await.unwrap().log_path;
        let read = read_log(&path, query).map(|chunk| chunk.unwrap()).collect::<Vec<_>>();
        let chunks = tokio::time::timeout(PATIENCE, read).await.expect("the log ends in time");
        String::from_utf8(chunks.concat()).unwrap()
    }

    /// Waits until a container has written a text.
    pub async fn wait_log(&self, id: &ContainerId, text: &str) {
        let path = self.runtime.status(id).await.unwrap().log_path;
        let wait = async {
            let mut log = read_log(&path, LogQuery { follow: true, ..LogQuery::default() });
            let mut seen = String::new();
            while let Some(chunk) = log.next().await {
                seen.push_str(&String::from_utf8_lossy(&chunk.unwrap()));
                if seen.contains(text) {
                    return;
                }
            }
            panic!("the log ended without {text:?}: {seen:?}");
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("{text:?} is written in time"));
    }

    pub async fn sh(&self, id: &ContainerId, script: &str) -> String {
        let command = ["/bin/sh", "-c", script].map(String::from);
        let output = self.runtime.exec_sync(id, &command, Some(PATIENCE), 1 << 20).await.unwrap();
        assert_eq!(output.exit_code, 0, "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Mounts below the node's directory that are not containerd's own.
    pub fn pod_mounts(&self) -> Vec<String> {
        mounts_below(&self.root().join("kubelet"))
    }
}

fn runtime_config(root: &Path, cgroups: &Cgroups, logs: LogConfig) -> RuntimeConfig {
    RuntimeConfig {
        endpoint: format!("unix://{}/c.sock", root.display()),
        containerd_namespace: "k8s.io".into(),
        root_dir: root.join("kubelet"),
        cgroups: cgroups.clone(),
        logs,
        snapshotter: "overlayfs".into(),
    }
}

fn start_containerd(root: &Path) -> Child {
    let log =
        fs::OpenOptions::new().create(true).append(true).open(root.join("containerd.log")).unwrap();
    Command::new("containerd")
        .args(["--config", &root.join("config.toml").to_string_lossy()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("containerd is installed")
}

fn mounts_below(path: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| Path::new(point).starts_with(path)).map(ToString::to_string).collect()
}

/// Processes whose command line names the node's directory: shims, log writers.
fn processes_of(root: &Path) -> Vec<i32> {
    let needle = root.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if pid != std::process::id() as i32 && String::from_utf8_lossy(&line).contains(&needle) {
            found.push(pid);
        }
    }
    found
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.root().join("containerd.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(15).collect();
            eprintln!(
                "the end of containerd's log:\n{}",
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
        if let Some(mut containerd) = self.containerd.take() {
            containerd.kill().ok();
            containerd.wait().ok();
        }
        for pid in processes_of(self.root()) {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
        let parent = kubelet::cgroup::CgroupPath::new(&self.cgroup_root);
        self.cgroups.remove(&parent).unwrap();
        for mount in mounts_below(self.root()).iter().rev() {
            umount2(mount.as_str(), MntFlags::MNT_DETACH).ok();
        }
    }
}
