//! The embedded store: etcd's v3 API over one redb file, in this process.
//!
//! [`Embedded::open`] opens it, [`Embedded::store`] returns a client that needs no socket, and
//! [`Embedded::serve_tcp`] serves other clients, such as `etcdctl`.
//!
//! Inside, the path of a request:
//! - a service (`kv`, `watch`, `lease_service`, `maintenance`, `cluster`) takes it from the wire and hands it to the
//!   `engine`, which checks it (`check`);
//! - a read looks into the `index` (all keys and versions, without values, in memory), and takes the values from the
//!   newest durable `View` of the file; no read waits for a write or a flush;
//! - a write goes to the `writer`, one thread, which applies what has gathered (`apply`, `txn`, `range`) to one redb
//!   transaction, flushes once, publishes, and answers;
//! - a watch (`watcher`) is a position in history that its stream's task takes forward when history has grown, from the
//!   `recent` changes or the file.
//!
//! On disk (`tables`, `record`) there is one record per version of a key, by revision. Compaction deletes the records
//! that no read can see any more, some at a time, along with the writes that happen meanwhile.

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
use tokio::{net::TcpListener, sync::mpsc, task};
use tonic::transport::server::{Router, TcpIncoming};
use tonic::transport::{Server, ServerTlsConfig};
use tower::util::BoxCloneSyncService;

use self::{
    dispatch::Dispatch,
    engine::Engine,
    leases::Leases,
    shared::Shared,
    tables::View,
    writer::{Pruning, QUEUE_LENGTH, Writer},
};
use crate::{Error, Result, Revision, Store};

pub use self::snapshot::{RestoreError, restore};

/// The store's file in its folder.
const FILE_NAME: &str = "store.redb";
/// The access mode of a new folder.
const DIRECTORY_MODE: u32 = 0o700;
/// How much of the file is kept in memory, besides what the kernel caches of it.
const CACHE_BYTES: usize = 4 << 20;
/// How much all records together may take; etcd recommends no more.
const QUOTA_BYTES: u64 = 8 << 30;
/// How often a quiet watch is told how far it has come, as in etcd.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(600);

/// How an embedded store is kept.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// The folder of its file. It is made if it is missing.
    pub directory: PathBuf,
    /// How much of the file is kept in memory, in bytes.
    pub cache_bytes: usize,
    /// How much all records, history included, may take, in bytes. Beyond it puts are refused.
    pub quota_bytes: u64,
    /// How often a quiet watch is told how far it has come.
    pub progress_interval: Duration,
}

impl EmbeddedConfig {
    /// A store in a folder, with the defaults.
    pub fn new(directory: impl Into<PathBuf>) -> EmbeddedConfig {
        EmbeddedConfig {
            directory: directory.into(),
            cache_bytes: CACHE_BYTES,
            quota_bytes: QUOTA_BYTES,
            progress_interval: PROGRESS_INTERVAL,
        }
    }
}

/// A running embedded store. Clones share it; it closes when the last clone and the last client of it are gone, or by
/// [`Embedded::stop`].
#[derive(Clone)]
pub struct Embedded {
    engine: Arc<Engine>,
    dispatch: Dispatch,
    urls: Arc<Mutex<Vec<String>>>,
}

/// The embedded store's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// It cannot be read or written, or is damaged.
    #[error("{} cannot be opened", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// The folder cannot be made.
    #[error("the folder {} cannot be made", path.display())]
    Directory {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Store {
    /// Opens an embedded store in a folder, with the defaults; it closes when the last clone of the client is gone.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub async fn embedded(directory: &Path) -> Result<Store> {
        Embedded::open(EmbeddedConfig::new(directory)).await?.store().await
    }
}

impl Embedded {
    /// Opens the store, after a crash too: what was acknowledged is there.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub async fn open(config: EmbeddedConfig) -> Result<Embedded> {
        let EmbeddedConfig { directory, cache_bytes, quota_bytes, progress_interval } = config;
        let loading = task::spawn_blocking(move || start(&directory, cache_bytes, quota_bytes));
        let engine = loading.await.map_err(|_| stopped())??;
        task::spawn(expiry::run(Arc::downgrade(&engine)));
        let urls = Arc::new(Mutex::new(Vec::new()));
        let dispatch = Dispatch::new(&engine, progress_interval, urls.clone());
        Ok(Embedded { engine, dispatch, urls })
    }

    /// A client in this process, without a socket.
    pub async fn store(&self) -> Result<Store> {
        let channel = Channel::Custom(BoxCloneSyncService::new(self.dispatch.clone()));
        let client = Client::from_channel(channel, None).await;
        Ok(Store::from_client(client.map_err(|error| Error::from_wire(error, Revision::NONE))?))
    }

    /// Serves the API on a TCP socket until `shutdown` or the store stops. Without TLS with client certificates, only
    /// listen where nobody but root can connect.
    ///
    /// # Errors
    /// [`Error::Configuration`] for certificates that cannot be used.
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

    /// Ends the watches, finishes the writes that have been taken, and closes the file. The folder can be opened again
    /// when this returns. Every later request fails with [`Error::Unavailable`].
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
fn start(directory: &Path, cache_bytes: usize, quota_bytes: u64) -> Result<Arc<Engine>, OpenError> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(directory)
        .map_err(|source| OpenError::Directory { path: directory.to_owned(), source })?;
    let path = directory.join(FILE_NAME);
    let failed = |error: redb::Error| match error {
        redb::Error::DatabaseAlreadyOpen => OpenError::InUse(path.clone()),
        error => OpenError::File { path: path.clone(), source: Box::new(error) },
    };
    let loaded = tables::load(&path, cache_bytes, rand::random).map_err(failed)?;
    // A file whose name is not on the disk is lost with the power, however well its content is.
    for folder in [Some(directory), directory.parent()].into_iter().flatten() {
        sync_directory(folder).map_err(|error| failed(error.into()))?;
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
        path: path.clone(),
        cache_bytes,
        database: Some(loaded.database),
        pruning: loaded.pruning.then(Pruning::default),
        expected: 0,
    };
    thread::Builder::new()
        .name("store-writer".to_owned())
        .spawn(move || writer.run())
        .map_err(|error| failed(error.into()))?;
    Ok(Arc::new(Engine::new(shared, sender, path, quota_bytes)))
}

/// Makes the names in a folder durable. A relative path's parent may be the empty path: the working folder.
fn sync_directory(directory: &Path) -> std::io::Result<()> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    File::open(directory)?.sync_all()
}

fn stopped() -> Error {
    Error::Unavailable(Box::new(etcd_client::Error::Internal(
        "the store was stopped while it was opened".to_owned(),
    )))
}
