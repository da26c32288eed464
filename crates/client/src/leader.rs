//! Leader election by Lease: only one of several replicas acts.
//!
//! A candidate watches the Lease. It takes it when it has no holder, when the holder has cleared
//! `holderIdentity` (a graceful exit, noticed at once), when the holder was a process of this
//! machine that has ended ([`process`]: killed, and restarted by its supervisor), or when the Lease
//! has not changed for its duration by the candidate's own clock
//! (`k8s.io/client-go/tools/leaderelection`). A holder that cannot renew within the renew deadline
//! signals [`Leadership::lost`] before another can have taken over: everything that acts under the
//! leadership must end then. The deadline counts from the moment at which the last successful
//! request was sent, and covers every call of the holder, so that no server can delay it by not
//! answering.

mod process;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::{Api, Client, Error, mirror};
use process::Process;

/// The Lease, the identity of the candidate, and the timing.
#[derive(Clone, Debug)]
pub struct Election {
    namespace: String,
    name: String,
    /// Unique among the candidates.
    identity: String,
    /// How long others wait after the last renewal that they observed.
    lease_duration: Duration,
    /// How long the holder tries to renew before it gives up; less than `lease_duration`.
    renew_deadline: Duration,
    /// Between renewals, and between a candidate's attempts after a failure.
    retry_period: Duration,
    /// For [`Election::holder`].
    holder: watch::Sender<String>,
    /// When the Lease was last renewed, while this candidate leads.
    renewed: watch::Sender<Option<Instant>>,
}

impl Election {
    /// For a component's Lease in `kube-system`, with Kubernetes' durations (15 s, 10 s). The
    /// identity consists of the host name, a random number, and the process.
    pub fn for_component(name: &str) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let process = Process::own().map_or_else(String::new, |own| format!("_{own}"));
        Self {
            namespace: "kube-system".into(),
            name: name.into(),
            identity: format!("{}_{:016x}{process}", host.trim(), rand::random::<u64>()),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(5),
            holder: watch::Sender::default(),
            renewed: watch::Sender::default(),
        }
    }

    /// The holder of the Lease that this candidate has seen last, while it was waiting; empty for
    /// none.
    pub fn holder(&self) -> watch::Receiver<String> {
        self.holder.subscribe()
    }

    /// A health check: that the Lease is renewed, as long as this candidate leads. It fails when
    /// nothing has renewed the Lease, or given it up, until long after it ended.
    pub fn is_renewed(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        let (renewed, limit) = (self.renewed.subscribe(), self.lease_duration + EXPIRED_FOR);
        move || renewed.borrow().is_none_or(|at| clock::instant() <= at + limit)
    }

    /// Waits until this candidate leads. `None`: `stop` was cancelled first.
    pub async fn acquire(&self, client: &Client, stop: &CancellationToken) -> Option<Leadership> {
        let mut changes = mirror::object::<Lease>(client, &self.namespace, &self.name);
        let leases: Api<Lease> = Api::namespaced(client, &self.namespace);
        let mut observed = None;
        let mut try_at: Option<Instant> = None;
        loop {
            let due = async {
                match try_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return None,
                Some(changed) = changes.next() => {
                    observed = changed;
                    try_at = Some(self.attempt_at(observed.as_deref()));
                    self.holder.send_replace(holder(observed.as_deref()).to_owned());
                }
                () = due => {
                    let taken = tokio::select! {
                        () = stop.cancelled() => return None,
                        taken = self.take(&leases, observed.as_deref()) => taken,
                    };
                    match taken {
                        Ok(held) => {
                            tracing::info!(lease = self.name, identity = self.identity, "leading");
                            return Some(Leadership::hold(self.clone(), leases, held));
                        }
                        Err(error) => {
                            if !error.is_conflict() && !error.is_already_exists() {
                                tracing::warn!(lease = self.name, %error, "cannot take the lease");
                            }
                            try_at = Some(clock::instant() + self.retry_period);
                        }
                    }
                }
            }
        }
    }

    /// When to try to take a Lease in this state, which was observed just now.
    fn attempt_at(&self, lease: Option<&Lease>) -> Instant {
        let holder = holder(lease);
        let ended = || Process::of_identity(holder)?.is_dead(&Process::own()?).then_some(());
        if holder.is_empty() || holder == self.identity || ended().is_some() {
            return clock::instant();
        }
        let seconds = lease
            .and_then(|lease| lease.spec.as_ref()?.lease_duration_seconds)
            .and_then(|seconds| u64::try_from(seconds).ok());
        clock::instant() + seconds.map_or(self.lease_duration, Duration::from_secs)
    }

    async fn take(&self, leases: &impl Leases, current: Option<&Lease>) -> Result<Held, Error> {
        let until = clock::instant() + self.renew_deadline;
        let mut lease = current.cloned().unwrap_or_default();
        lease.metadata.name = Some(self.name.clone());
        lease.metadata.namespace = Some(self.namespace.clone());
        self.claim(&mut lease);
        let taking = async {
            match current {
                None => leases.create(&lease).await,
                // The observed resource version is the precondition: whoever wrote in the meantime
                // wins.
                Some(_) => leases.replace(&lease).await,
            }
        };
        let late = |_| Error::Transport(tonic::Status::deadline_exceeded("no answer in time"));
        Ok(Held { lease: timeout_at(until, taking).await.map_err(late)??, until })
    }

    /// Renews the Lease once; again if somebody has edited it without taking it.
    async fn renew(&self, leases: &impl Leases, lease: &mut Lease) -> Renewal {
        let failed = |error: Error| {
            tracing::warn!(lease = self.name, %error, "cannot renew the lease");
            Renewal::Failed
        };
        for _ in 0..RENEWALS {
            self.claim(lease);
            match leases.replace(lease).await {
                Ok(renewed) => {
                    *lease = renewed;
                    return Renewal::Done;
                }
                Err(error) if error.is_conflict() || error.is_not_found() => {}
                Err(error) => return failed(error),
            }
            match leases.get(&self.name).await {
                Ok(current) if holder(Some(&current)) == self.identity => *lease = current,
                Ok(_) => return Renewal::Taken,
                Err(error) if error.is_not_found() => return Renewal::Taken,
                Err(error) => return failed(error),
            }
        }
        Renewal::Failed
    }

    fn claim(&self, lease: &mut Lease) {
        let now = Some(MicroTime(clock::now()));
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            spec.lease_transitions =
                Some(spec.lease_transitions.map_or(0, |count| count.saturating_add(1)));
            spec.acquire_time.clone_from(&now);
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds =
            Some(i32::try_from(self.lease_duration.as_secs()).unwrap_or(i32::MAX));
        spec.renew_time = now;
    }
}

/// How long a Lease may have ended before its holder counts as stuck, as upstream.
const EXPIRED_FOR: Duration = Duration::from_secs(20);
/// How often a Lease that others edit is renewed again at once.
const RENEWALS: usize = 3;
/// How long the holder waits after a failed renewal.
const RETRY_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// A Lease that this candidate holds, and until when it may act on that.
#[derive(Debug)]
struct Held {
    lease: Lease,
    until: Instant,
}

/// What has come of a renewal.
#[derive(Debug, PartialEq, Eq)]
enum Renewal {
    Done,
    /// The server refused or could not be reached: it is tried again.
    Failed,
    /// Another candidate has the Lease, or somebody has deleted it.
    Taken,
}

/// The calls of a candidate.
trait Leases: Send + Sync + 'static {
    fn get(&self, name: &str) -> impl Future<Output = Result<Lease, Error>> + Send;
    fn create(&self, lease: &Lease) -> impl Future<Output = Result<Lease, Error>> + Send;
    fn replace(&self, lease: &Lease) -> impl Future<Output = Result<Lease, Error>> + Send;
}

impl Leases for Api<Lease> {
    async fn get(&self, name: &str) -> Result<Lease, Error> {
        Api::get(self, name).await
    }

    async fn create(&self, lease: &Lease) -> Result<Lease, Error> {
        Api::create(self, lease).await
    }

    async fn replace(&self, lease: &Lease) -> Result<Lease, Error> {
        Api::replace(self, lease).await
    }
}

fn holder(lease: Option<&Lease>) -> &str {
    lease.and_then(|lease| lease.spec.as_ref()?.holder_identity.as_deref()).unwrap_or_default()
}

/// The leadership, for as long as it is renewed.
#[derive(Debug)]
pub struct Leadership {
    lost: CancellationToken,
    release: CancellationToken,
    renewal: JoinHandle<()>,
}

impl Leadership {
    fn hold(election: Election, leases: impl Leases, held: Held) -> Self {
        let (lost, release) = (CancellationToken::new(), CancellationToken::new());
        election.renewed.send_replace(Some(held.until - election.renew_deadline));
        let renewal = tokio::spawn(keep(election, leases, held, lost.clone(), release.clone()));
        Self { lost, release, renewal }
    }

    /// Cancelled when the Lease could not be renewed in time, or another candidate took it.
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Releases the Lease, so that another candidate takes over at once. Call it after everything
    /// that acted under the leadership has ended.
    pub async fn release(self) {
        self.release.cancel();
        if let Err(error) = self.renewal.await {
            tracing::error!(%error, "the task that renews the lease failed");
        }
    }
}

/// Renews the Lease until it is lost or to be released.
async fn keep(
    election: Election,
    leases: impl Leases,
    Held { mut lease, mut until }: Held,
    lost: CancellationToken,
    release: CancellationToken,
) {
    let mut next = until - election.renew_deadline + election.retry_period;
    loop {
        tokio::select! {
            () = release.cancelled() => break,
            () = tokio::time::sleep_until(next.min(until)) => {}
        }
        let started = clock::instant();
        match timeout_at(until, election.renew(&leases, &mut lease)).await {
            Ok(Renewal::Done) => {
                election.renewed.send_replace(Some(started));
                until = started + election.renew_deadline;
                next = started + election.retry_period;
            }
            Ok(Renewal::Failed) if clock::instant() < until => {
                next = clock::instant() + RETRY_AFTER_FAILURE;
            }
            Ok(_) | Err(_) => {
                tracing::error!(lease = election.name, "lost the lease");
                election.renewed.send_replace(None);
                return lost.cancel();
            }
        }
    }
    election.renewed.send_replace(None);
    let spec = lease.spec.get_or_insert_default();
    spec.holder_identity = Some(String::new());
    spec.lease_duration_seconds = Some(1);
    spec.renew_time = Some(MicroTime(clock::now()));
    match timeout_at(until, leases.replace(&lease)).await {
        Ok(Ok(_)) => tracing::info!(lease = election.name, "released the lease"),
        Ok(Err(error)) => tracing::warn!(lease = election.name, %error, "cannot release the lease"),
        Err(_) => tracing::warn!(lease = election.name, "cannot release the lease in time"),
    }
}
