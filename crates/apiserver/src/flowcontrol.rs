//! Priority and fairness: who waits when there are more requests than seats.
//!
//! Each request is classified by the FlowSchemas, the first that matches, to a priority level. A
//! level has a part of all seats; requests that find none wait in its queues, divided into flows,
//! so that a flood fills its own queues only ([`queue_set`]). Levels lend one another what they do
//! not use ([`borrowing`]). Wide requests take several seats ([`estimate`]).
//!
//! What a request reads is one snapshot ([`Snapshot`]), which [`configuration`] makes of the
//! objects; a level's lock is held for the few steps of its queues, and never over I/O.

mod borrowing;
pub mod classify;
pub mod configuration;
mod demand;
pub mod dump;
mod estimate;
mod level;
mod metrics;
pub mod objects;
mod queue_set;
mod retry_after;
pub mod shuffle;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::ApiError;
use arc_swap::ArcSwap;
use clock::SharedClock;
use http::{HeaderName, HeaderValue};
use k8s_openapi::api::flowcontrol::v1::FlowSchemaSpec;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use self::configuration::LevelState;
pub use self::level::Ticket;
use self::level::{Details, Level};
pub use self::metrics::FlowControlMetrics;
use self::metrics::{FlowMetrics, Rejected};
use crate::core::Core;
use crate::deadline;
use crate::inflight::refusal;
use crate::request::{Request, Subject};
use crate::user::User;

const SCHEMA_HEADER: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_HEADER: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");
/// The part of its time that a request may wait: one of so many.
const WAIT_PART: u32 = 4;
/// How long a watch may wait to begin, a quarter of the time of other requests; and the most that
/// any request waits.
const WATCH_WAIT: Duration = Duration::from_secs(15);
const WAIT_MAX: Duration = Duration::from_secs(60);

/// How the requests of a schema are divided into flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distinguisher {
    Nothing,
    User,
    Namespace,
}

/// A FlowSchema, with the level that it leads to.
#[derive(Debug)]
pub struct Flow {
    pub schema: String,
    spec: FlowSchemaSpec,
    distinguisher: Distinguisher,
    level: Arc<Level>,
    exempt: bool,
    /// Whether requests may wait, so that it matters which flow they are of.
    queues: bool,
    /// The most seats that one request is expected to need; 0: no limit of the level's own.
    seats_max: u32,
    headers: [(HeaderName, HeaderValue); 2],
    metrics: FlowMetrics,
}

impl Flow {
    pub fn level(&self) -> &str {
        &self.level.name
    }

    /// What clients are told: only uids, since names may say more than they should know.
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    fn matches(&self, request: &Request) -> bool {
        classify::matches(&self.spec, &request.user, &request.subject)
    }

    /// What tells the flows of the schema apart.
    fn distinguisher_of<'a>(&self, user: &'a User, subject: &'a Subject) -> &'a str {
        match (self.distinguisher, subject) {
            (Distinguisher::User, _) => &user.name,
            (Distinguisher::Namespace, subject) => {
                classify::ResourceInfo::of(subject).map_or("", |info| info.namespace)
            }
            _ => "",
        }
    }
}

/// All schemas, in the order in which they are tried.
struct Snapshot(Vec<Arc<Flow>>);

impl Snapshot {
    fn classify(&self, request: &Request) -> &Arc<Flow> {
        let found = self.0.iter().find(|flow| flow.matches(request));
        // The catch-all matches every user that authentication lets in.
        let catch_all = || self.0.iter().find(|flow| flow.schema == objects::CATCH_ALL);
        found.or_else(catch_all).expect("there is always a schema for all the rest")
    }
}

/// The whole of it.
pub struct FlowControl {
    /// All seats, without those that exempt requests take.
    total: u32,
    snapshot: ArcSwap<Snapshot>,
    levels: Mutex<BTreeMap<String, LevelState>>,
    metrics: FlowControlMetrics,
    hasher: RandomState,
    clock: SharedClock,
    epoch: Instant,
    /// Whether there were requests since the seats were divided the last time.
    busy: AtomicBool,
    begun: Notify,
}

impl FlowControl {
    /// With the mandatory objects alone.
    pub fn new(total: u32, metrics: FlowControlMetrics, clock: SharedClock) -> Self {
        let control = Self {
            total,
            snapshot: ArcSwap::from_pointee(Snapshot(Vec::new())),
            levels: Mutex::default(),
            metrics,
            hasher: RandomState::new(),
            clock,
            epoch: clock::instant(),
            busy: AtomicBool::new(false),
            begun: Notify::new(),
        };
        control.digest(&[], &[]);
        control
    }

    /// Waits for the seats of a request.
    ///
    /// # Errors
    /// 429 if it does not get them in time.
    pub async fn enter(&self, core: &Core, request: &Request) -> Result<Ticket, ApiError> {
        let flow = self.snapshot.load().classify(request).clone();
        request.seat.classified(&flow);
        if !self.busy.swap(true, Ordering::Relaxed) {
            self.begun.notify_one();
        }
        let estimate = estimate::of(core, request, &flow);
        flow.metrics.estimated(estimate.width());
        let hash = if flow.queues {
            self.hasher
                .hash_one((&flow.schema, flow.distinguisher_of(&request.user, &request.subject)))
        } else {
            0
        };
        let details = Details::new(&flow, request, self.clock.now());
        let begun = clock::instant();
        let started = flow.level.start(hash, estimate, details);
        let (ticket, waiting) = match started {
            Ok(started) => started,
            Err(why) => {
                flow.metrics.waited(Duration::ZERO, false);
                flow.metrics.rejected(why.into());
                return Err(self.refuse(&flow));
            }
        };
        if let Some((woken, length)) = waiting {
            flow.metrics.queued(length);
            let until = wait_until(request);
            if !matches!(timeout_at(until, woken).await, Ok(Ok(()))) {
                flow.metrics.waited(begun.elapsed(), false);
                drop(ticket);
                return Err(self.refuse(&flow));
            }
        }
        if !flow.exempt {
            flow.metrics.waited(begun.elapsed(), true);
        }
        flow.metrics.dispatched();
        Ok(ticket.begun())
    }

    fn refuse(&self, flow: &Flow) -> ApiError {
        refusal(flow.level.refused(self.clock.now().as_second()))
    }
}

/// Until when a request may wait for its seats.
fn wait_until(request: &Request) -> Instant {
    let whole = deadline::of(request).map(|due| due.saturating_duration_since(request.arrived));
    let limit = whole.map_or(WATCH_WAIT, |whole| whole / WAIT_PART).min(WAIT_MAX);
    request.arrived + limit
}

impl From<queue_set::Rejection> for Rejected {
    fn from(why: queue_set::Rejection) -> Self {
        match why {
            queue_set::Rejection::ConcurrencyLimit => Self::ConcurrencyLimit,
            queue_set::Rejection::QueueFull => Self::QueueFull,
        }
    }
}

#[cfg(test)]
mod tests;
