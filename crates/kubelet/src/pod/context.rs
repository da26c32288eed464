//! The services and settings shared by all pod workers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use api::quantity::Quantity;
use client::Client;
use clock::SharedClock;
use tokio::sync::watch;

use super::hosts::ClusterDns;
use crate::cgroup::Cgroups;
use crate::config::Directories;
use crate::containers::Runtime;
use crate::devices::DeviceManager;
use crate::events::EventRecorder;
use crate::image::ImageService;
use crate::network::PodNetwork;
use crate::objects::Objects;
use crate::probe::prober::Prober;
use crate::services::Services;
use crate::volume::VolumeManager;

/// The node's settings, fixed at start.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    pub name: String,
    /// Primary family first.
    pub ips: Vec<IpAddr>,
    pub memory_bytes: u64,
    /// In bytes.
    pub huge_page_sizes: Vec<u64>,
    /// Allocatable resources, by name.
    pub allocatable: BTreeMap<String, Quantity>,
    /// The node's own resolv.conf.
    pub resolv_conf: PathBuf,
    pub dns: ClusterDns,
    /// Names, or prefixes that end in `*`.
    pub allowed_unsafe_sysctls: Vec<String>,
}

/// See the module documentation.
pub struct Context {
    pub client: Client,
    pub clock: SharedClock,
    pub recorder: EventRecorder,
    pub runtime: Runtime,
    pub images: ImageService,
    /// `None` until the node has a pod CIDR.
    pub network: watch::Receiver<Option<Arc<PodNetwork>>>,
    pub cgroups: Cgroups,
    pub directories: Directories,
    pub objects: Objects,
    pub services: Services,
    pub volumes: VolumeManager,
    pub prober: Prober,
    pub devices: DeviceManager,
    pub node: NodeInfo,
}

impl Context {
    pub fn network(&self) -> Option<Arc<PodNetwork>> {
        self.network.borrow().clone()
    }
}
