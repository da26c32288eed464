//! Maintains the Node object: registration, status, and the pod network, whose range it holds.

mod register;
mod write;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, mirror};
use clock::SharedClock;
use futures::StreamExt;
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerImage, Node};
use runtime::health::Health;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::events::schedulable_event;
use super::machine_info::MachineInfo;
use super::pressure::Pressures;
use super::status::IMAGES_MAX;
use crate::config::{Directories, Flags};
use crate::containers::Runtime;
use crate::devices::DeviceManager;
use crate::events::EventRecorder;
use crate::image::{Image, ImageService};
use crate::network::PodNetwork;

pub use register::{described, register};

/// How often the node's state is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// The status is written at least this often, changed or not.
const WRITE_AT_LEAST: SignedDuration = SignedDuration::from_secs(300);
/// The images are listed on every n-th check.
const CHECKS_PER_IMAGE_LIST: u32 = 6;

/// The parts that the agent uses.
pub struct AgentParts {
    pub client: Client,
    pub recorder: EventRecorder,
    pub clock: SharedClock,
    pub runtime: Runtime,
    pub images: ImageService,
    pub devices: DeviceManager,
    pub facts: MachineInfo,
    pub flags: Flags,
    pub directories: Directories,
    pub health: Health,
    /// Port of the kubelet's server.
    pub port: u16,
    pub pressures: watch::Receiver<Pressures>,
    pub network: watch::Sender<Option<Arc<PodNetwork>>>,
    pub node: watch::Sender<Arc<Node>>,
}

/// See the module documentation.
pub struct Agent {
    parts: AgentParts,
    ips: Vec<IpAddr>,
    images: Vec<ContainerImage>,
    runtime_ready: bool,
    /// `spec.unschedulable`, as last reported by an event.
    unschedulable: bool,
    /// When the status was written last.
    written_at: Option<Timestamp>,
}

/// Names of health checks.
pub const HEALTH_NODE: &str = "node";
pub const HEALTH_RUNTIME: &str = "container-runtime";

impl Agent {
    pub fn new(parts: AgentParts) -> Self {
        Self {
            ips: vec![parts.flags.node_ip],
            images: Vec::new(),
            runtime_ready: true,
            unschedulable: false,
            written_at: None,
            parts,
        }
    }

    /// Runs until `shutdown`. The node has been registered already.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut objects =
            mirror::object::<Node>(&self.parts.client, "", &self.parts.flags.node_name);
        let mut pressures = self.parts.pressures.clone();
        let mut devices = self.parts.devices.changes();
        let mut checks = 0_u32;
        let mut timer = tokio::time::interval(CHECK_INTERVAL);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.open_network().await;
        self.parts.health.set(HEALTH_NODE, true);
        let begins = ("Normal", "Starting", "Starting kubelet.".to_owned());
        self.parts.recorder.node(&self.parts.node.borrow(), begins);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(object) = objects.next() => match object {
                    Some(node) => {
                        self.record_schedulable(&node);
                        self.parts.node.send_replace(node);
                        self.open_network().await;
                        self.write_status().await;
                    }
                    None => self.register_again().await,
                },
                Ok(()) = pressures.changed() => self.write_status().await,
                Ok(()) = devices.changed() => self.write_status().await,
                _ = timer.tick() => {
                    self.check(checks.is_multiple_of(CHECKS_PER_IMAGE_LIST)).await;
                    checks = checks.wrapping_add(1);
                }
            }
        }
    }

    fn record_schedulable(&mut self, node: &Node) {
        let unschedulable = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
        let name = &self.parts.flags.node_name;
        if let Some(event) = schedulable_event(name, self.unschedulable, unschedulable) {
            self.parts.recorder.node(node, event);
        }
        self.unschedulable = unschedulable;
    }

    async fn check(&mut self, list_images: bool) {
        self.runtime_ready = self.parts.runtime.version().await.is_ok();
        self.parts.health.set(HEALTH_RUNTIME, self.runtime_ready);
        if list_images && let Ok(images) = self.parts.images.list().await {
            self.images = named(images);
        }
        self.open_network().await;
        self.write_status().await;
    }

    /// Opens the pod network once the node has a pod CIDR.
    async fn open_network(&self) {
        if self.parts.network.borrow().is_some() {
            return;
        }
        let ranges = pod_ranges(&self.parts.node.borrow());
        if ranges.is_empty() {
            return;
        }
        let state = self.parts.directories.network();
        match PodNetwork::open(&ranges, self.parts.flags.node_ip, &state).await {
            Ok(network) => {
                tracing::info!(?ranges, "the pod network is open");
                self.parts.network.send_replace(Some(Arc::new(network)));
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, cause, "cannot open the pod network");
            }
        }
    }

    /// The object was deleted although the node exists.
    async fn register_again(&mut self) {
        let labels = self.parts.flags.labels();
        match register(&self.parts.client, &self.parts.flags.node_name, &labels).await {
            Ok(node) => {
                self.parts.node.send_replace(Arc::new(node));
                self.write_status().await;
            }
            Err(error) => tracing::warn!(%error, "cannot register the node again"),
        }
    }
}

/// `spec.podCIDRs`, or `spec.podCIDR` alone.
fn pod_ranges(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else {
        return Vec::new();
    };
    let many: Vec<IpNet> =
        spec.pod_cidrs.iter().flatten().filter_map(|text| text.parse().ok()).collect();
    if many.is_empty() {
        spec.pod_cidr.iter().filter_map(|text| text.parse().ok()).collect()
    } else {
        many
    }
}

/// Largest images first.
fn named(mut images: Vec<Image>) -> Vec<ContainerImage> {
    images.sort_by(|a, b| (b.size_bytes, &a.id).cmp(&(a.size_bytes, &b.id)));
    images
        .into_iter()
        .take(IMAGES_MAX)
        .map(|image| ContainerImage {
            names: Some(image.repo_digests.into_iter().chain(image.repo_tags).collect()),
            size_bytes: i64::try_from(image.size_bytes).ok(),
        })
        .collect()
}
