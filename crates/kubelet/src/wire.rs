//! Puts the kubelet's parts together and runs them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use api::quantity::Quantity;
use client::Client;
use k8s_openapi::api::core::v1::Node;
use runtime::health::{self, Health};
use runtime::notify;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::certificates;
use crate::cgroup::{Cgroups, Resources, cpu_shares};
use crate::config::{Directories, Flags};
use crate::containers::{Runtime, RuntimeConfig};
use crate::devices::{DeviceManager, Topology};
use crate::events::EventRecorder;
use crate::image::{GcPolicy, ImageService, Verification};
use crate::logs::LogConfig;
use crate::node::agent::{Agent, AgentParts, HEALTH_NODE, HEALTH_RUNTIME, described, register};
use crate::node::eviction_manager::EvictionManager;
use crate::node::lease;
use crate::node::machine_info::MachineInfo;
use crate::node::pressure::{Pressures, Thresholds};
use crate::objects::Objects;
use crate::pod::context::{Context, NodeInfo};
use crate::pod::hosts::ClusterDns;
use crate::pod::manager::PodManager;
use crate::pod::static_pods;
use crate::pod::workers::PodWorkers;
use crate::probe::prober::Prober;
use crate::server::{self, ServerParts, pod_resources};
use crate::services::Services;
use crate::volume::VolumeManager;
use crate::volume::mount::make_directory;

/// Pause between attempts to register the node.
const REGISTER_RETRY: Duration = Duration::from_millis(200);

/// Mode of the directories above the pods' volumes: Secrets are below, and containers, also those
/// with users of their own, reach them by their mounts.
const PRIVATE_MODE: u32 = 0o700;

/// Runs the kubelet until `shutdown`. Containers keep running.
pub async fn run(flags: Flags, shutdown: CancellationToken) -> anyhow::Result<()> {
    let clock = clock::system();
    let directories = Directories::new(&flags.root_dir);
    make_directories(&directories)?;
    let health = Health::new(&[HEALTH_NODE, HEALTH_RUNTIME]);
    if let Some(address) = flags.common.health_bind_address {
        let served = health::serve(address, health.clone(), shutdown.clone()).await;
        served.with_context(|| format!("serve health on {address}"))?;
    }
    let [client, watching] = certificates::connect(&flags, &shutdown).await?;
    let objects = Objects::new(&watching, &flags.node_name);

    let cgroups = Cgroups::detect(&flags.cgroup_root)?;
    let runtime = connect(&flags, &directories, &cgroups, &shutdown).await?;
    let version = runtime.version().await?;
    health.set(HEALTH_RUNTIME, true);
    let facts = MachineInfo::read(&flags.root_dir, &version);
    prepare_cgroups(&cgroups, &facts).await?;
    let images = ImageService::new(&runtime, &flags.insecure_registry, verification(&flags))?;

    // As it is before it is registered: enough for static pods.
    let (node_sender, node) =
        watch::channel(Arc::new(described(&flags.node_name, &flags.labels())));
    let (network_sender, network) = watch::channel(None);
    let (pressure_sender, pressures) = watch::channel(Pressures::default());
    let pods = PodManager::default();
    let recorder = client::events::EventRecorder::new(client.clone(), "kubelet", &flags.node_name);
    let topology = Topology::read(flags.topology_manager_policy, flags.topology_manager_scope);
    let topology = topology.map_err(anyhow::Error::msg).context("--topology-manager-policy")?;
    let devices = DeviceManager::start(directories.device_plugins(), topology, shutdown.clone());
    pod_resources::start(&directories.pod_resources(), &pods, &devices, shutdown.clone());
    let context = Arc::new(Context {
        volumes: VolumeManager::new(
            &client,
            &objects,
            &directories,
            &flags.node_name,
            &recorder,
            Arc::clone(&clock),
        ),
        recorder: EventRecorder::new(recorder),
        services: Services::start(client.clone()),
        prober: Prober::new(&runtime)?,
        devices: devices.clone(),
        node: node_info(&flags, &facts),
        client: client.clone(),
        clock: Arc::clone(&clock),
        runtime: runtime.clone(),
        images: images.clone(),
        network,
        cgroups,
        directories: directories.clone(),
        objects,
    });

    let manifests = flags.pod_manifest_path.clone();
    let static_pods =
        manifests.map(|path| static_pods::start(path, flags.node_name.clone(), shutdown.clone()));
    let (of_node, shortages) = (node.clone(), pressures.clone());
    let workers =
        PodWorkers::new(Arc::clone(&context), pods.clone(), of_node, shortages, static_pods);
    let workers = tokio::spawn(workers.run(shutdown.clone()));
    node_sender.send_replace(Arc::new(registered(&client, &flags, &shutdown).await?));

    let pem = certificates::serving(&flags, &shutdown).context("set up the server")?;
    let parts = ServerParts::new(&context, &pods, &flags, pem)?;
    let port = server::start(parts, shutdown.clone()).await.context("start the server")?;
    certificates::rotation::start(&client, &clock, &flags, &shutdown);
    tokio::spawn(context.volumes.clone().follow(shutdown.clone()));
    tokio::spawn(lease::keep(client.clone(), Arc::clone(&clock), node.clone()));
    let agent = Agent::new(AgentParts {
        client,
        recorder: context.recorder.clone(),
        clock,
        runtime,
        images,
        devices,
        facts,
        flags: flags.clone(),
        directories,
        health: health.clone(),
        port,
        pressures,
        network: network_sender,
        node: node_sender,
    });
    let agent = tokio::spawn(agent.run(shutdown.clone()));
    let eviction_manager =
        eviction_manager(&flags, &context, node.clone(), &pods, pressure_sender)?;
    tokio::spawn(eviction_manager.run(shutdown.clone()));
    tokio::spawn(async move {
        health.ready().await;
        notify::ready();
        tracing::info!(port, "the kubelet is ready");
    });
    workers.await?;
    agent.await?;
    Ok(())
}

fn node_info(flags: &Flags, facts: &MachineInfo) -> NodeInfo {
    NodeInfo {
        name: flags.node_name.clone(),
        ips: vec![flags.node_ip],
        memory_bytes: facts.memory_bytes,
        huge_page_sizes: facts.huge_pages.keys().copied().collect(),
        allocatable: facts.allocatable(flags.max_pods),
        resolv_conf: flags.resolv_conf.clone(),
        dns: ClusterDns {
            servers: flags.cluster_dns.clone(),
            domain: flags.cluster_domain.clone(),
        },
        allowed_unsafe_sysctls: flags.allowed_unsafe_sysctls.clone(),
    }
}

fn verification(flags: &Flags) -> Verification {
    Verification {
        policy: flags.image_pull_credentials_verification_policy,
        allowlist: flags.preloaded_images_verification_allowlist.clone(),
    }
}

fn make_directories(directories: &Directories) -> anyhow::Result<()> {
    // Also when they were created by something else, or by an earlier version.
    for path in [directories.root(), &directories.pods()] {
        make_directory(path, PRIVATE_MODE)?;
    }
    for path in [directories.logs(), directories.network()] {
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
    }
    Ok(())
}

async fn connect(
    flags: &Flags,
    directories: &Directories,
    cgroups: &Cgroups,
    shutdown: &CancellationToken,
) -> anyhow::Result<Runtime> {
    let config = RuntimeConfig {
        endpoint: flags.container_runtime_endpoint.clone(),
        containerd_namespace: flags.containerd_namespace.clone(),
        root_dir: directories.root().to_owned(),
        cgroups: cgroups.clone(),
        logs: LogConfig::new(std::env::current_exe().context("find our own executable")?),
        snapshotter: flags.snapshotter.clone(),
    };
    tokio::select! {
        runtime = Runtime::connect(config) => Ok(runtime.context("connect to containerd")?),
        () = shutdown.cancelled() => bail!("stopped while waiting for containerd"),
    }
}

async fn prepare_cgroups(cgroups: &Cgroups, facts: &MachineInfo) -> anyhow::Result<()> {
    let cgroups = cgroups.clone();
    let kubepods =
        Resources { cpu_shares: Some(cpu_shares(facts.cpus * 1000)), ..Default::default() };
    tokio::task::spawn_blocking(move || cgroups.ensure_qos(&kubepods, &Resources::default()))
        .await?
        .context("create the cgroups of pods")
}

/// Registers the node, waiting for the apiserver for as long as it takes.
async fn registered(
    client: &Client,
    flags: &Flags,
    shutdown: &CancellationToken,
) -> anyhow::Result<Node> {
    let mut warned = false;
    loop {
        match register(client, &flags.node_name, &flags.labels()).await {
            Ok(node) => return Ok(node),
            Err(error) if warned => tracing::debug!(%error, "cannot register the node"),
            Err(error) => {
                warned = true;
                tracing::warn!(%error, "cannot register the node yet");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(REGISTER_RETRY) => {}
            () = shutdown.cancelled() => bail!("stopped before the node was registered"),
        }
    }
}

fn eviction_manager(
    flags: &Flags,
    context: &Arc<Context>,
    node: watch::Receiver<Arc<Node>>,
    pods: &PodManager,
    pressures: watch::Sender<Pressures>,
) -> anyhow::Result<EvictionManager> {
    Ok(EvictionManager {
        context: Arc::clone(context),
        node,
        pods: pods.clone(),
        thresholds: thresholds(flags)?,
        images: GcPolicy {
            high_threshold_percent: flags.image_gc_high_threshold,
            low_threshold_percent: flags.image_gc_low_threshold,
            ..Default::default()
        },
        pressures,
        disk: flags.root_dir.clone(),
    })
}

fn thresholds(flags: &Flags) -> anyhow::Result<Thresholds> {
    let memory: Quantity =
        flags.eviction_memory_available.parse().context("--eviction-memory-available")?;
    Ok(Thresholds {
        memory_available_bytes: u64::try_from(memory.units()).unwrap_or(0),
        disk_available_percent: flags.eviction_nodefs_available_percent,
        inodes_free_percent: flags.eviction_nodefs_inodes_free_percent,
    })
}

/// Reads a PEM file named by a flag.
pub(crate) fn read_pem(path: &Path, flag: &str) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("read {flag} {}", path.display()))
}
