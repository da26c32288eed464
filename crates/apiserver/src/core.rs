//! What every verb works with: the store, the cache, the clock, and the parts of the configuration
//! that requests depend on.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use api::object::Object;
use api::{ApiError, KindRef, KindRow};
use clock::SharedClock;
use jiff::Timestamp;
use store::Store;

use crate::admission::Admission;
use crate::aggregation::Aggregator;
use crate::allocate::Allocator;
use crate::audit::Audit;
use crate::authn::{Authentication, ServiceAccountTokens};
use crate::authz::{Authorizers, Rbac};
use crate::cache::{Cache, Version};
use crate::component_statuses::Components;
use crate::encryption::{self, Encryption};
use crate::error::store_error;
use crate::flowcontrol::FlowControl;
use crate::inflight::Inflight;
use crate::keys;
use crate::kubelet::Kubelets;
use crate::metrics::Metrics;
use crate::paths::StoreProbe;
use crate::request::{Options, Target, Verb};
use crate::resource_metrics::Sampler;
use crate::scheduler::Schedulers;
use crate::user::User;
use crate::webhook::Webhooks;

/// The state that all requests share.
pub struct Core {
    pub store: Store,
    /// How values are stored, if not as they are.
    pub encryption: Option<Arc<Encryption>>,
    pub cache: Arc<Cache>,
    pub clock: SharedClock,
    pub rbac: Rbac,
    /// Who decides what is allowed, `rbac` among them.
    pub authorizers: Arc<Authorizers>,
    pub admission: Admission,
    pub aggregator: Aggregator,
    pub allocator: Allocator,
    pub tokens: Option<ServiceAccountTokens>,
    /// Tokens of other issuers, and who may come without credentials.
    pub authentication: Arc<Authentication>,
    /// Whether bootstrap tokens are accepted.
    pub bootstrap_tokens: bool,
    /// Whether there are profiles of this process.
    pub profiling: bool,
    pub kubelets: Kubelets,
    pub sampler: Sampler,
    pub schedulers: Schedulers,
    pub webhooks: Webhooks,
    pub metrics: Metrics,
    /// The address at which clients in the cluster reach this server.
    pub advertised: SocketAddr,
    pub inflight: Inflight,
    /// `None`: nothing is recorded.
    pub audit: Option<Arc<Audit>>,
    /// `None`: requests are only counted.
    pub flow_control: Option<FlowControl>,
    pub probe: StoreProbe,
    pub components: Components,
    /// Whether other apiservers may write to the store.
    pub shares_store: bool,
    /// For what outlives the call: watches.
    pub itself: Weak<Core>,
}

/// One authorized request to a resource.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    pub core: &'a Core,
    pub user: &'a User,
    pub verb: Verb,
    pub target: &'a Target,
    pub options: &'a Options,
}

impl<'a> Call<'a> {
    pub fn row(&self) -> &'a KindRef {
        &self.target.row
    }

    pub fn now(&self) -> Timestamp {
        self.core.clock.now()
    }

    /// The target's current version, as every write acknowledged before the call has left it. A
    /// write starts from [`Current`](crate::verbs::current::Current) instead, without the wait.
    ///
    /// # Errors
    /// 404 when there is none.
    pub async fn current(&self) -> Result<Arc<Version>, ApiError> {
        self.core.cache.fresh().await?;
        let version = self.core.cache.resource(self.row()).get(&self.target.key());
        let version = version.ok_or_else(|| self.not_found())?;
        self.core.converted(self.row(), &version).await
    }

    /// The target's version in the store, as it is stored.
    ///
    /// # Errors
    /// 404 when there is none.
    pub async fn stored(&self) -> Result<Arc<Version>, ApiError> {
        self.core.stored(self.row(), &self.target.key()).await?.ok_or_else(|| self.not_found())
    }

    pub fn not_found(&self) -> ApiError {
        ApiError::not_found(self.row(), &self.target.name)
    }
}

impl Core {
    /// Catches up with definitions that others may have made, where the kinds known here are not
    /// enough. Whether there can be any.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn learn_kinds(&self) -> Result<bool, ApiError> {
        if self.shares_store {
            self.cache.fresh().await?;
        }
        Ok(self.shares_store)
    }

    /// An object that a request refers to, by its key within the resource: from the cache, which
    /// may be behind, or else from the store.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn find(&self, row: &KindRow, key: &str) -> Result<Option<Arc<Version>>, ApiError> {
        match self.cache.resource(row).get(key) {
            Some(version) => Ok(Some(version)),
            None => self.stored(row, key).await,
        }
    }

    /// An object's version in the store, bypassing the cache.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn stored(&self, row: &KindRow, key: &str) -> Result<Option<Arc<Version>>, ApiError> {
        let fetched =
            self.store.get(keys::object(row, key)).await.map_err(|error| store_error(&error))?;
        fetched.entry.map(|entry| version_of(row, key, &entry)).transpose()
    }
}

/// Converts a store entry to a version.
///
/// # Errors
/// 500 when the entry is not an object.
pub fn version_of(
    row: &KindRow,
    key: &str,
    entry: &store::Entry,
) -> Result<Arc<Version>, ApiError> {
    read_entry(row, key, entry).map_err(ApiError::internal)
}

/// A store entry as a version.
///
/// # Errors
/// Why it cannot be read, in upstream's words where it is encrypted.
pub fn read_entry(row: &KindRow, key: &str, entry: &store::Entry) -> Result<Arc<Version>, String> {
    let unreadable = |reason: &dyn std::fmt::Display| {
        format!("unable to transform key {:?}: {reason}", String::from_utf8_lossy(&entry.key))
    };
    if let Some(reason) = &entry.unreadable {
        return Err(unreadable(reason));
    }
    let version = Version::from_stored(row, key, &entry.value, entry.mod_revision.get());
    version.map(Arc::new).map_err(|error| {
        if entry.value.starts_with(encryption::PREFIX) {
            return unreadable(&encryption::ENCRYPTED);
        }
        error.to_string()
    })
}

/// Decodes a version to an object.
///
/// # Errors
/// 500 when the stored bytes are not an object of the kind.
pub fn decode(kind: impl Into<KindRef>, version: &Version) -> Result<Box<dyn Object>, ApiError> {
    let kind = kind.into();
    api::kind::decode(&kind, &version.json).map_err(|error| {
        tracing::error!(kind = &*kind.kind, key = %version.key(), error = %error.source, "stored object cannot be decoded");
        ApiError::internal(error)
    })
}
