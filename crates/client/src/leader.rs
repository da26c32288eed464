//! Leader election by Lease: only one of several replicas acts.
//!
//! A candidate watches the Lease. It takes it when it has no holder, when the holder has cleared
//! `holderIdentity` (a graceful exit, noticed at once), when the holder was a process of this
//! machine that has ended ([`process`]: killed, and restarted by its supervisor), or when the Lease
//! has not changed for its duration by the candidate's own clock
//! (`k8s.io/client-go/tools/leaderelection`). A holder that cannot renew within the renew deadline
//! signals [`Leadership::lost`] before another can have taken over: everything that acts under the
//! leadership must end then.

mod process;

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Api, Client, Error, Event, InformerOptions, informer};
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
    /// Between renewals, and between attempts after a failure.
    retry_period: Duration,
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
        }
    }

    /// Waits until this candidate leads. `None`: `stop` was cancelled first.
    pub async fn acquire(&self, client: &Client, stop: &CancellationToken) -> Option<Leadership> {
        let options = InformerOptions {
            namespace: self.namespace.clone(),
            field_selector: format!("metadata.name={}", self.name),
            ..Default::default()
        };
        let mut changes = Box::pin(informer::<Lease>(client.clone(), options));
        let mut observed = ObservedLease::default();
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
                Some(event) = changes.next() => {
                    if let Some(known) = observed.step(event) {
                        try_at = Some(self.attempt_at(known.as_ref()));
                    }
                }
                () = due => match self.take(client, observed.lease.as_ref()).await {
                    Ok(lease) => {
                        tracing::info!(lease = self.name, identity = self.identity, "leading");
                        return Some(Leadership::hold(self.clone(), client.clone(), lease));
                    }
                    Err(error) => {
                        if !error.is_conflict() && !error.is_already_exists() {
                            tracing::warn!(lease = self.name, %error, "cannot take the lease");
                        }
                        try_at = Some(clock::instant() + self.retry_period);
                    }
                },
            }
        }
    }

    /// When to try to take a Lease in this state, which was observed just now.
    fn attempt_at(&self, lease: Option<&Lease>) -> Instant {
        let spec = lease.and_then(|lease| lease.spec.as_ref());
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        let ended = || Process::of_identity(holder)?.is_dead(&Process::own()?).then_some(());
        if holder.is_empty() || holder == self.identity || ended().is_some() {
            return clock::instant();
        }
        let seconds = spec
            .and_then(|spec| spec.lease_duration_seconds)
            .and_then(|seconds| u64::try_from(seconds).ok());
        clock::instant() + seconds.map_or(self.lease_duration, Duration::from_secs)
    }

    async fn take(&self, client: &Client, current: Option<&Lease>) -> Result<Lease, Error> {
        let leases: Api<Lease> = Api::namespaced(client, &self.namespace);
        let Some(current) = current else {
            let mut lease = Lease::default();
            lease.metadata.name = Some(self.name.clone());
            lease.metadata.namespace = Some(self.namespace.clone());
            self.claim(&mut lease);
            return leases.create(&lease).await;
        };
        // The observed resource version is the precondition: whoever wrote in the meantime wins.
        let mut lease = current.clone();
        self.claim(&mut lease);
        leases.replace(&lease).await
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

/// The Lease as the watch reports it.
#[derive(Debug, Default)]
struct ObservedLease {
    lease: Option<Lease>,
    initial: Option<Lease>,
}

impl ObservedLease {
    /// Returns the new state of the Lease, if the event changes it.
    fn step(&mut self, event: Event<Lease>) -> Option<Option<Lease>> {
        match event {
            Event::Init => {
                self.initial = None;
                return None;
            }
            Event::InitApply(lease) => {
                self.initial = Some(lease);
                return None;
            }
            Event::InitDone => self.lease = self.initial.take(),
            Event::Apply(lease) => self.lease = Some(lease),
            Event::Delete(_) => self.lease = None,
        }
        Some(self.lease.clone())
    }
}

/// The leadership, for as long as it is renewed.
#[derive(Debug)]
pub struct Leadership {
    lost: CancellationToken,
    release: CancellationToken,
    renewal: JoinHandle<()>,
}

impl Leadership {
    fn hold(election: Election, client: Client, lease: Lease) -> Self {
        let (lost, release) = (CancellationToken::new(), CancellationToken::new());
        let renewal = tokio::spawn(renew(election, client, lease, lost.clone(), release.clone()));
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

async fn renew(
    election: Election,
    client: Client,
    mut lease: Lease,
    lost: CancellationToken,
    release: CancellationToken,
) {
    let leases: Api<Lease> = Api::namespaced(&client, &election.namespace);
    let mut deadline = clock::instant() + election.renew_deadline;
    loop {
        tokio::select! {
            () = release.cancelled() => break,
            () = tokio::time::sleep(election.retry_period) => {}
        }
        election.claim(&mut lease);
        let started = clock::instant();
        match tokio::time::timeout_at(deadline, leases.replace(&lease)).await {
            Ok(Ok(renewed)) => {
                lease = renewed;
                deadline = started + election.renew_deadline;
            }
            Ok(Err(error)) if error.is_conflict() || error.is_not_found() => {
                match ours(&leases, &election).await {
                    Some(current) => lease = current,
                    None => return lose(&election, &lost),
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(lease = election.name, %error, "cannot renew the lease");
            }
            Err(_) => return lose(&election, &lost),
        }
        if clock::instant() >= deadline {
            return lose(&election, &lost);
        }
    }
    let spec = lease.spec.get_or_insert_default();
    spec.holder_identity = Some(String::new());
    spec.lease_duration_seconds = Some(1);
    spec.renew_time = Some(MicroTime(clock::now()));
    match leases.replace(&lease).await {
        Ok(_) => tracing::info!(lease = election.name, "released the lease"),
        Err(error) => tracing::warn!(lease = election.name, %error, "cannot release the lease"),
    }
}

/// The current Lease, if this candidate still holds it (somebody edited it without taking it).
async fn ours(leases: &Api<Lease>, election: &Election) -> Option<Lease> {
    let lease = leases.get(&election.name).await.ok()?;
    let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
    (holder == election.identity).then_some(lease)
}

fn lose(election: &Election, lost: &CancellationToken) {
    tracing::error!(lease = election.name, "lost the lease");
    lost.cancel();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn election() -> Election {
        Election::for_component("c")
    }

    #[tokio::test(start_paused = true)]
    async fn a_free_or_released_lease_is_tried_at_once_and_a_held_one_after_its_duration() {
        let election = election();
        assert_eq!(election.attempt_at(None), clock::instant());
        let mut lease = Lease::default();
        let mut other = election.clone();
        other.identity = "other".into();
        other.lease_duration = Duration::from_secs(7);
        other.claim(&mut lease);
        assert_eq!(election.attempt_at(Some(&lease)), clock::instant() + Duration::from_secs(7));
        lease.spec.as_mut().unwrap().holder_identity = Some(String::new());
        assert_eq!(election.attempt_at(Some(&lease)), clock::instant());
        // Another process of this machine that has ended: no pid is this high.
        let own = Process::own().unwrap().to_string();
        let mut parts: Vec<&str> = own.split('-').collect();
        parts[2] = "1073741824";
        lease.spec.as_mut().unwrap().holder_identity = Some(format!("h_0_{}", parts.join("-")));
        assert_eq!(election.attempt_at(Some(&lease)), clock::instant());
    }

    #[test]
    fn transitions_count_changes_of_holder() {
        let (mine, mut lease) = (election(), Lease::default());
        mine.claim(&mut lease);
        mine.claim(&mut lease);
        assert_eq!(lease.spec.as_ref().unwrap().lease_transitions, Some(0));
        let other = election();
        other.claim(&mut lease);
        assert_eq!(lease.spec.as_ref().unwrap().lease_transitions, Some(1));
    }
}
