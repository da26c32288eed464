//! API aggregation: group versions that other servers answer, as APIServices name them.
//!
//! - What is registered: [`registration`] keeps the APIServices of this server's own groups. All of
//!   them are compiled to a [`Snapshot`], which requests and discovery read.
//! - Whether a server can be reached: one task for each looks after it ([`availability`]), and reads
//!   its discovery and OpenAPI ([`documents`]).
//! - A request to such a group version ([`route`]) is authenticated and authorized as any other, and
//!   then forwarded ([`forward`]) over a connection that proves this server ([`backend`]), with
//!   headers that say whose it is ([`identity`]).
//!
//! Entry points: [`keep`], [`Aggregator::delegated`]. Where no APIService names a Service, nothing
//! here waits for a clock.
//!
//! Upstream: `k8s.io/kube-aggregator`.

mod availability;
mod backend;
pub mod condition;
mod documents;
mod forward;
mod identity;
mod metrics;
mod priorities;
mod registration;
mod route;
mod snapshot;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use api::{ApiError, Kind};
use arc_swap::ArcSwap;
use http::{HeaderMap, Method};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

pub use backend::{Asked, Identities, Identity};
pub use documents::ResourceDocument;
pub use forward::Forward;
pub use identity::RequestHeaders;
pub use metrics::{AggregatorMetrics, Regenerated};
pub use route::Delegated;
pub use snapshot::{Group, GroupVersion, Registered, Snapshot, by_name, groups};

use backend::{Address, Backend};
use condition::Finding;
use registration::Registration;

use crate::bootstrap::system_user;
use crate::cache::{Changes, Filter, Follower, Version};
use crate::connect::slices;
use crate::core::{Call, Core};
use crate::request::{Options, Target, Verb};
use crate::user::{MASTERS, User};
use crate::verbs::update::update_with;

/// How often a server is asked whether it still answers (upstream's resync).
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// How often its documents are read again (upstream's).
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// How soon a server that does not answer is asked again, at first and at last.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = CHECK_INTERVAL;
/// Changes of a Service and its endpoints within that time are one.
const SETTLE: Duration = Duration::from_millis(20);
/// How long a failed write, or a watch that cannot be opened, waits for the next attempt.
const RETRY: Duration = Duration::from_millis(200);

/// As whom this server asks others for its own purposes.
fn aggregator() -> User {
    User {
        name: "system:kube-aggregator".to_owned(),
        groups: vec![MASTERS.to_owned()],
        ..User::default()
    }
}

/// What requests share.
pub struct Aggregator {
    /// What this server proves to others that it is.
    identities: Option<Identities>,
    pub metrics: AggregatorMetrics,
    snapshot: ArcSwap<Snapshot>,
    /// Of no two states of any server in this process the same.
    generation: AtomicU64,
}

impl Aggregator {
    pub fn new(identities: Option<Identities>, metrics: AggregatorMetrics) -> Self {
        let aggregator = Self {
            identities,
            metrics,
            snapshot: ArcSwap::default(),
            generation: AtomicU64::default(),
        };
        aggregator.changed();
        aggregator
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Rises with every change of what discovery shows.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// After the change, so that whoever sees the number sees what it stands for.
    fn changed(&self) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        self.generation.store(NEXT.fetch_add(1, Ordering::AcqRel), Ordering::Release);
    }

    fn set(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
        self.changed();
    }

    /// A request that another server answers; `None`: this one does.
    pub fn delegated(
        &self,
        method: &Method,
        path: &str,
        parameters: &[(String, String)],
        headers: &HeaderMap,
    ) -> Option<Delegated> {
        let service = self.snapshot.load().remote_at(path)?.clone();
        Some(Delegated::new(service, method, (path, parameters), headers))
    }
}

/// Registers this server's own groups, publishes what is registered, and keeps following it until
/// `shutdown`.
///
/// # Errors
/// When the store fails at start.
pub async fn keep(core: &Arc<Core>, shutdown: CancellationToken) -> Result<(), ApiError> {
    let mut registration = Registration::default();
    registration.settle(core).await;
    core.cache.fresh().await?;
    let mut watched = Watched::default();
    watched.refresh(core);
    let core = core.clone();
    let mut changes = Follower::of(&core, &[APIService::ROW, CustomResourceDefinition::ROW]);
    let following = async move {
        let mut later = None;
        loop {
            changes.next(later).await;
            watched.refresh(&core);
            let settled = registration.settle(&core).await && watched.settle_local(&core).await;
            later = (!settled).then_some(RETRY);
        }
    };
    tokio::spawn(async move { shutdown.run_until_cancelled(following).await });
    Ok(())
}

/// The servers that are looked after, by the names of their APIServices.
#[derive(Default)]
struct Watched {
    servers: HashMap<String, Server>,
    /// Those that this server answers, and of which that is not said.
    unsaid: Vec<String>,
}

/// A server, and the task that looks after it.
struct Server {
    backend: Arc<Backend>,
    state: Arc<State>,
    task: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is shared with the task.
#[derive(Default)]
struct State {
    /// What has been found out last.
    found: Mutex<Option<Finding>>,
    /// The condition is no longer what it was set to.
    overwritten: Notify,
}

impl Watched {
    /// Publishes what is registered now, and looks after the servers that it names.
    fn refresh(&mut self, core: &Arc<Core>) {
        let row = APIService::ROW;
        let mut before = std::mem::take(&mut self.servers);
        self.unsaid.clear();
        let mut all = Vec::new();
        for version in core.cache.resource(row).list(&Filter::everything(row, "")) {
            let Ok(service) = APIService::decode(&version.json) else { continue };
            let name = version.name.to_string();
            let Some(address) = service.spec.as_ref().and_then(Address::of) else {
                if !says(&service, &condition::local()) {
                    self.unsaid.push(name);
                }
                all.push(Registered::new(&service, None));
                continue;
            };
            let same = before.remove(&name).filter(|server| server.backend.address == address);
            let server = same.unwrap_or_else(|| Server::start(core, &name, address));
            let found = server.state.found.lock().clone();
            if found.is_some_and(|found| !says(&service, &found)) {
                server.state.overwritten.notify_one();
            }
            all.push(Registered::new(&service, Some(server.backend.clone())));
            self.servers.insert(name, server);
        }
        for (name, server) in &before {
            if server.backend.documents.load().openapi_v2.is_some() {
                core.aggregator.metrics.regenerates(name, Regenerated::Delete);
            }
        }
        core.aggregator.set(Snapshot::new(all));
    }

    /// Says of the others that this server answers them; whether that worked.
    async fn settle_local(&self, core: &Core) -> bool {
        let mut all = true;
        for name in &self.unsaid {
            let outcome = write(core, name, None, &condition::local()).await;
            if let Err(error) = outcome {
                tracing::debug!(name, %error, "cannot set the condition of an APIService");
                all = false;
            }
        }
        all
    }
}

impl Server {
    fn start(core: &Arc<Core>, name: &str, address: Address) -> Self {
        let backend = Arc::new(Backend::new(address, core.aggregator.identities.clone()));
        let state = Arc::new(State::default());
        let task = look_after(core.clone(), name.to_owned(), backend.clone(), state.clone());
        Self { backend, state, task: tokio::spawn(task).abort_handle() }
    }
}

fn says(service: &APIService, found: &Finding) -> bool {
    condition::available(service).is_some_and(|condition| {
        condition.status == if found.available { "True" } else { "False" }
            && condition.reason.as_deref() == Some(found.reason)
            && condition.message.as_deref().unwrap_or_default() == found.message
    })
}

/// Asks a server again and again whether it answers, says so in the condition, and reads its
/// documents.
async fn look_after(core: Arc<Core>, name: String, backend: Arc<Backend>, state: Arc<State>) {
    let (mut pause, mut read) = (BACKOFF_MIN, None);
    loop {
        let Address { namespace, name: service, .. } = &backend.address;
        let service = Filter::one(Service::ROW, namespace, service);
        let slices = slices(&backend.address.namespace, &backend.address.name);
        let changes = core.cache.changes(&[service, slices]);
        let found = check(&core, &name, &backend).await;
        let available = found.available;
        *state.found.lock() = Some(found.clone());
        let written = write(&core, &name, Some(&backend.address), &found).await;
        if let Err(error) = &written {
            tracing::debug!(name, %error, "cannot set the condition of an APIService");
        }
        let is_due = read.is_none_or(|read| clock::instant() >= read + REFRESH_INTERVAL);
        let stale = !backend.documents.load().is_current;
        if available && (is_due || stale) {
            read = Some(clock::instant());
            let change = documents::refresh(&core, &backend, &name).await;
            if let Some(why) = change.openapi_v2 {
                core.aggregator.metrics.regenerates(&name, why);
            }
            if change.any {
                core.aggregator.changed();
            }
        }
        let settled = available && written.is_ok() && backend.documents.load().is_current;
        pause = if settled { BACKOFF_MIN } else { (pause * 2).min(BACKOFF_MAX) };
        let wait = if settled { CHECK_INTERVAL } else { pause };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = state.overwritten.notified() => {}
            () = changed(changes) => {
                pause = BACKOFF_MIN;
                tokio::time::sleep(SETTLE).await;
            }
        }
    }
}

/// Waits for a change. Watches that cannot be opened are tried again soon.
async fn changed(changes: Result<Changes, ApiError>) {
    match changes {
        Ok(mut changes) => drop(changes.next().await),
        Err(_) => tokio::time::sleep(RETRY).await,
    }
}

async fn check(core: &Core, name: &str, backend: &Arc<Backend>) -> Finding {
    let observed = availability::observe(core, &backend.address);
    match availability::judge(&backend.address, &observed) {
        Some(finding) => finding,
        None => availability::ask(core, backend, &discovery_path(name)).await,
    }
}

/// Group and version of an APIService's name.
fn split(name: &str) -> (&str, &str) {
    let (version, group) = name.split_once('.').unwrap_or((name, ""));
    (group, version)
}

/// Where a server has to list the resources of the group version.
fn discovery_path(name: &str) -> String {
    match split(name) {
        ("", version) => format!("/api/{version}"),
        (group, version) => format!("/apis/{group}/{version}"),
    }
}

/// Sets the condition of an APIService, if its server is still at `address` and it says something
/// else.
async fn write(
    core: &Core,
    name: &str,
    address: Option<&Address>,
    found: &Finding,
) -> Result<(), ApiError> {
    let is_about = |service: &APIService| {
        let named = service.spec.as_ref().and_then(Address::of);
        named.as_ref() == address && !says(service, found)
    };
    let Some(version) = core.cache.resource(APIService::ROW).get(name) else {
        return Ok(());
    };
    if !APIService::decode(&version.json).is_ok_and(|service| is_about(&service)) {
        return Ok(());
    }
    let target = Target {
        row: APIService::ROW.into(),
        namespace: String::new(),
        name: name.to_owned(),
        subresource: "status".to_owned(),
        subpath: String::new(),
    };
    let (user, options, lost) = (system_user(), Options::default(), AtomicBool::new(false));
    let call = Call { core, user: &user, verb: Verb::Update, target: &target, options: &options };
    let written = update_with(call, |current, _: &Version| {
        let mut new = current.clone_object();
        if let Some(service) = new.downcast_mut::<APIService>()
            && is_about(service)
        {
            lost.store(condition::is_available(service) && !found.available, Ordering::Relaxed);
            condition::set(service, found, call.now());
        }
        Ok(new)
    });
    match written.await {
        Err(error) if error.is_not_found() => return Ok(()),
        outcome => outcome?,
    };
    if lost.into_inner() {
        core.aggregator.metrics.lost(name, found.reason);
    }
    Ok(())
}
