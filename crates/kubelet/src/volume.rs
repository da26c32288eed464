//! Volumes: what a pod's containers find at their mount paths.
//!
//! - [`VolumeManager::sync`] mounts what is missing and brings contents up to date; it may be
//!   repeated at any time, and returns where each volume is. [`VolumeManager::tear_down`] undoes
//!   it.
//! - Contents from objects ([`content`], pure) are written by [`atomic`], so that a reader sees
//!   either the old set of files or the new one.
//!   Secrets, tokens and the downward API are in memory only, as upstream.
//! - [`sub_path`] opens a path below a volume without following links out of it; [`tree`] walks
//!   through a volume that containers may be changing.
//! - [`local_path`] makes, keeps and removes the volumes on demand of this node.
//! - Nothing that comes from an object is ever an option of a program: see [`mount`].
//!
//! Layout as upstream: `<root>/pods/<uid>/volumes/kubernetes.io~<plugin>/<name>`.
//! It must not know the container layer.

mod atomic;
mod claim;
mod content;
mod directory;
mod error;
mod expansion;
mod local_path;
pub mod mount;
mod once;
mod ownership;
mod pod_certificate;
mod sources;
pub(crate) mod sub_path;
mod sync;
#[cfg(test)]
mod tests;
mod token;
pub(crate) mod tree;
mod trust_bundle;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use client::Client;
use client::events::EventRecorder;
use clock::SharedClock;
use jiff::Timestamp;

use crate::config::Directories;
use crate::objects::Objects;
pub use error::VolumeError;
use local_path::Store;
use local_path::follow::Users;
use pod_certificate::PodCertificates;
use token::Tokens;

/// A volume that can be mounted into containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    pub path: PathBuf,
    /// Read only, whatever the mount says.
    pub read_only: bool,
}

/// Where the volumes of a pod are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountedVolumes {
    pub by_name: BTreeMap<String, Mounted>,
    /// When a token or a certificate must be renewed at the latest.
    pub renew_at: Option<Timestamp>,
}

/// The volumes of the node's pods. Cheap to clone.
#[derive(Clone)]
pub struct VolumeManager {
    client: Client,
    objects: Objects,
    tokens: Arc<Tokens>,
    certificates: Arc<PodCertificates>,
    directories: Directories,
    clock: SharedClock,
    node_name: Arc<str>,
    recorder: EventRecorder,
    store: Store,
    users: Arc<Users>,
}

impl VolumeManager {
    pub fn new(
        client: &Client,
        objects: &Objects,
        directories: &Directories,
        node_name: &str,
        recorder: &EventRecorder,
        clock: SharedClock,
    ) -> Self {
        let node_name = Arc::<str>::from(node_name);
        let certificates = PodCertificates::new(client, &node_name, recorder, Arc::clone(&clock));
        Self {
            client: client.clone(),
            objects: objects.clone(),
            tokens: Arc::new(Tokens::new(client, Arc::clone(&clock))),
            certificates: Arc::new(certificates),
            directories: directories.clone(),
            clock,
            node_name,
            recorder: recorder.clone(),
            store: Store::new(directories.local_path(), directories.pods()),
            users: Arc::default(),
        }
    }
}
