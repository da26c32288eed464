//! The embedded store: etcd's v3 API on top of a redb file, in this process.
//!
//! [`Embedded::open`] opens it, [`Embedded::store`] returns a client that needs no socket, and
//! [`Embedded::serve_tcp`] serves other clients, such as `etcdctl`.
//!
//! The path of a request:
//! - a service (`kv`, `watch`, `lease_service`, `maintenance`, `cluster`) decodes it and passes it
//!   to the `engine`, which validates it (`check`);
//! - a read consults the in-memory `index` (all keys and versions, without values) and fetches the
//!   values from the newest durable `View` of the file; reads never wait for a write or a flush;
//! - a write goes to the `writer`, a single thread that applies a batch of writes (`apply`, `txn`,
//!   `range`) to one redb transaction, flushes once, publishes the new state, and responds;
//! - a watch (`watcher`) is a position in history that the task of its stream advances as history
//!   grows, reading the `recent` changes or the file.
//!
//! On disk (`tables`, `record`) there is one record per version of a key, ordered by revision.
//! Compaction deletes records that are no longer visible to any read, in small steps alongside
//! regular writes.

mod apply;
mod check;
mod cluster;
mod dispatch;
mod engine;
mod expiry;
mod index;
mod key_range;
mod kv;
mod lease_service;
mod leases;
mod maintenance;
mod range;
mod recent;
mod record;
mod refusal;
mod shared;
mod snapshot;
mod tables;
mod txn;
mod watch;
mod watcher;
mod writer;

use std::{
    fs::{DirBuilder, File},
    future::Future,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use etcd_client::{Channel, Client};
use parking_lot::Mutex;
use redb::StorageBackend;
use tokio::{net::TcpListener, sync::mpsc, task};
use tonic::transport::server::{Router, TcpIncoming};
use tonic::transport::{Server, ServerTlsConfig};
use tower::util::BoxCloneSyncService;

use self::{
    dispatch::Dispatch,
    engine::Engine,
    leases::Leases,
    shared::Shared,
    tables::{Place, View},
    writer::{Pruning, QUEUE_LENGTH, Writer},
};
use crate::{Error, Result, Revision, Store};

pub use self::snapshot::{RestoreError, restore};

/// The name of the store's file within its directory.
const FILE_NAME: &str = "store.redb";
/// The access mode of a new directory.
const DIRECTORY_MODE: u32 = 0o700;
/// The size of the page cache, on top of what the kernel caches.
const CACHE_BYTES: usize = 1 << 20;
/// The maximum total size of all records; etcd recommends no more.
const QUOTA_BYTES: u64 = 8 << 30;
/// The interval of progress notifications to idle watches, as in etcd.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(600);

/// The configuration of an embedded store.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// The directory of the store's file. Created if missing.
    pub directory: PathBuf,
    /// The size of the page cache, in bytes.
    pub cache_bytes: usize,
    /// The maximum total size of all records including history, in bytes. Puts beyond it are
    /// rejected.
    pub quota_bytes: u64,
    /// The interval of progress notifications to idle watches.
    pub progress_interval: Duration,
    /// In place of the file in the directory: a disk whose failures a test decides.
    pub device: Option<Arc<dyn StorageBackend>>,
}

impl EmbeddedConfig {
    /// The default configuration for a store in this directory.
    pub fn new(directory: impl Into<PathBuf>) -> EmbeddedConfig {
        EmbeddedConfig {
            directory: directory.into(),
            cache_bytes: CACHE_BYTES,
            quota_bytes: QUOTA_BYTES,
            progress_interval: PROGRESS_INTERVAL,
            device: None,
        }
    }
}

/// A running embedded store. Clones share it. It closes when the last clone and the last client are
/// dropped, or on [`Embedded::stop`].
#[derive(Clone)]
pub struct Embedded {
    engine: Arc<Engine>,
    dispatch: Dispatch,
    urls: Arc<Mutex<Vec<String>>>,
}

/// The embedded store's file is unusable.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the file open.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The file cannot be read or written, or is corrupted.
    #[error("cannot open {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<redb::Error>,
    },
    /// The directory cannot be created.
    #[error("cannot create the directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// Asks whether the writer is alive.
#[derive(Clone)]
pub(crate) struct Pulse(Arc<Engine>);

impl Pulse {
    pub(crate) async fn beat(&self) -> Result<()> {
        self.0.ping().await.map_err(|status| Error::from_status(status, Revision::NONE))
    }

    /// The newest durable revision: what any read begun now would see.
    pub(crate) fn revision(&self) -> Result<Revision> {
        let newest =
            self.0.newest().map_err(|status| Error::from_status(status, Revision::NONE))?;
        Ok(Revision::new(newest))
    }
}

impl Store {
    /// Opens an embedded store with the default configuration; it closes when the last clone of the
    /// client is dropped.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub async fn embedded(directory: &Path) -> Result<Store> {
        Embedded::open(EmbeddedConfig::new(directory)).await?.store().await
    }
}

impl Embedded {
    /// Opens the store. All acknowledged writes are present, even after a crash.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub async fn open(config: EmbeddedConfig) -> Result<Embedded> {
        let EmbeddedConfig { directory, cache_bytes, quota_bytes, progress_interval, device } =
            config;
        let place = Place { path: directory.join(FILE_NAME), cache_bytes, device };
        let loading = task::spawn_blocking(move || start(&directory, place, quota_bytes));
        let engine = loading.await.map_err(|_| stopped())??;
        task::spawn(expiry::run(Arc::downgrade(&engine)));
        let (shared, stopped) = (engine.shared.clone(), engine.stopped.clone());
        task::spawn(async move { shared.recent.run(stopped).await });
        let urls = Arc::new(Mutex::new(Vec::new()));
        let dispatch = Dispatch::new(&engine, progress_interval, urls.clone());
        Ok(Embedded { engine, dispatch, urls })
    }

    /// A client within this process, without a socket.
    pub async fn store(&self) -> Result<Store> {
        let channel = Channel::Custom(BoxCloneSyncService::new(self.dispatch.clone()));
        let client = Client::from_channel(channel, None).await;
        let client = client.map_err(|error| Error::from_wire(error, Revision::NONE))?;
        Ok(Store::from_client(client).with_pulse(Pulse(self.engine.clone())))
    }

    /// Serves the API on a TCP socket until `shutdown` or the store stops. Without TLS and client
    /// certificates, listen only where no user but root can connect.
    ///
    /// # Errors
    /// [`Error::Configuration`] for unusable certificates.
    pub async fn serve_tcp(
        &self,
        listener: TcpListener,
        tls: Option<ServerTlsConfig>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<()> {
        let scheme = if tls.is_some() { "https" } else { "http" };
        if let Ok(address) = listener.local_addr() {
            self.urls.lock().push(format!("{scheme}://{address}"));
        }
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let serving =
            self.router(tls)?.serve_with_incoming_shutdown(incoming, self.until(shutdown));
        serving.await.map_err(|error| Error::Unavailable(Box::new(error.into())))
    }

    /// Ends the watches, finishes the writes that have been accepted, and closes the file, which
    /// can then be opened again. Later requests fail with [`Error::Unavailable`].
    pub async fn stop(&self) -> Result<()> {
        self.engine.stop().await.map_err(|status| Error::from_status(status, Revision::NONE))
    }

    fn router(&self, tls: Option<ServerTlsConfig>) -> Result<Router> {
        let mut server = Server::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls).map_err(|error| Error::Configuration {
                reason: format!("TLS of the store's socket: {error}"),
            })?;
        }
        Ok(server.add_routes(self.dispatch.clone().routes()))
    }

    fn until(&self, shutdown: impl Future<Output = ()>) -> impl Future<Output = ()> {
        let stopped = self.engine.stopped.clone();
        async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = shutdown => {}
            }
        }
    }
}

/// Loads the file and starts its writer.
fn start(directory: &Path, place: Place, quota_bytes: u64) -> Result<Arc<Engine>, OpenError> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(directory)
        .map_err(|source| OpenError::Directory { path: directory.to_owned(), source })?;
    let path = place.path.clone();
    let failed = |error: redb::Error| match error {
        redb::Error::DatabaseAlreadyOpen => OpenError::InUse(path.clone()),
        error => OpenError::File { path: path.clone(), source: Box::new(error) },
    };
    let loaded = tables::load(&place, rand::random).map_err(failed)?;
    // If the directory entry is not on disk, power loss loses the file, no matter how durable its
    // content is.
    for directory in [Some(directory), directory.parent()].into_iter().flatten() {
        sync_directory(directory).map_err(|error| failed(error.into()))?;
    }
    let view = View::open(&loaded.database, loaded.revision).map_err(failed)?;
    let leases = Leases::default();
    let now = clock::instant();
    loaded.leases.iter().for_each(|(id, ttl)| leases.grant(*id, *ttl, now));
    let shared =
        Arc::new(Shared::new(loaded.cluster_id, loaded.member_id, loaded.index, view, leases));
    let (sender, commands) = mpsc::channel(QUEUE_LENGTH);
    let writer = Writer {
        shared: shared.clone(),
        commands,
        place: place.clone(),
        database: Some(loaded.database),
        pruning: loaded.pruning.then(Pruning::default),
        expected: 0,
    };
    thread::Builder::new()
        .name("store-writer".to_owned())
        .spawn(move || writer.run())
        .map_err(|error| failed(error.into()))?;
    Ok(Arc::new(Engine::new(shared, sender, place, quota_bytes)))
}

/// Makes the entries of a directory durable. The parent of a relative path may be the empty path,
/// which stands for the working directory.
fn sync_directory(directory: &Path) -> std::io::Result<()> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    File::open(directory)?.sync_all()
}

fn stopped() -> Error {
    Error::Unavailable(Box::new(etcd_client::Error::Internal(
        "the store was stopped while it was being opened".to_owned(),
    )))
}
