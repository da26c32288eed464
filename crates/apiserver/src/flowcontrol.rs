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
mod observe;
mod queue_set;
mod retry_after;
pub mod shuffle;
mod timed;
mod traffic;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::ApiError;
use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use self::classify::{Asked, Rules};
use self::configuration::LevelState;
pub use self::level::Ticket;
use self::level::{Details, Level, Waiting};
pub use self::metrics::FlowControlMetrics;
use self::metrics::{FlowMetrics, Rejected};
use self::queue_set::Nanos;
use self::traffic::Traffic;
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
    precedence: i32,
    rules: Rules,
    hasher: RandomState,
    /// Tells the flows of this schema from those of others.
    salt: u64,
    distinguisher: Distinguisher,
    level: Arc<Level>,
    exempt: bool,
    /// Whether requests may wait, so that it matters which flow they are of.
    queues: bool,
    /// The most seats that one request is expected to need; 0: no limit of the level's own.
    seats_max: u32,
    headers: [(HeaderName, HeaderValue); 2],
    metrics: FlowMetrics,
    traffic: Arc<Traffic>,
}

impl Flow {
    pub fn level(&self) -> &str {
        &self.level.name
    }

    /// What clients are told: only uids, since names may say more than they should know.
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
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

    fn hash(&self, request: &Request) -> u64 {
        if self.queues {
            self.salt ^ self.hasher.hash_one(self.distinguisher_of(&request.user, &request.subject))
        } else {
            0
        }
    }
}

/// All schemas, in the order in which they are tried.
struct Snapshot(Vec<Arc<Flow>>);

impl Snapshot {
    fn classify(&self, request: &Request) -> &Arc<Flow> {
        let asked = Asked::new(&request.user, &request.subject);
        for flow in &self.0 {
            if flow.rules.match_with(&asked) {
                return flow;
            }
        }
        // The catch-all matches every user that authentication lets in.
        let catch_all = self.0.iter().find(|flow| flow.schema == objects::CATCH_ALL);
        catch_all.expect("there is always a schema for all the rest")
    }
}

/// The whole of it.
pub struct FlowControl {
    /// All seats, without those that exempt requests take.
    total: u32,
    snapshot: ArcSwap<Snapshot>,
    levels: Mutex<BTreeMap<String, LevelState>>,
    metrics: FlowControlMetrics,
    traffic: Arc<Traffic>,
    hasher: RandomState,
    epoch: Instant,
    /// Whether there were requests since the seats were divided the last time.
    busy: AtomicBool,
    begun: Notify,
}

impl FlowControl {
    /// The time by which levels are kept.
    fn now(&self) -> Nanos {
        level::since(self.epoch, clock::instant())
    }

    /// With the mandatory objects alone.
    pub fn new(total: u32, metrics: FlowControlMetrics) -> Self {
        let control = Self {
            total,
            snapshot: ArcSwap::from_pointee(Snapshot(Vec::new())),
            levels: Mutex::default(),
            metrics,
            traffic: Arc::default(),
            hasher: RandomState::new(),
            epoch: clock::instant(),
            busy: AtomicBool::new(false),
            begun: Notify::new(),
        };
        control.digest(&[], &[]);
        control
    }

    /// Gets the seats of a request, or a place in a queue.
    pub fn enter(&self, core: &Core, request: &Request) -> Entry {
        let flow = self.snapshot.load().classify(request).clone();
        if !self.busy.swap(true, Ordering::Relaxed) {
            self.begun.notify_one();
        }
        let estimate = estimate::of(core, request, &flow);
        flow.metrics.estimated(estimate.width());
        let (hash, now) = (flow.hash(request), clock::instant());
        let started = flow.level.start(now, hash, estimate, Details::new(&flow, request));
        let seats = match started {
            Ok((ticket, None)) => {
                if !flow.exempt {
                    flow.metrics.waited(Duration::ZERO, true);
                }
                flow.metrics.dispatched();
                Ok(Seats::Taken(ticket))
            }
            Ok((ticket, Some(waiting))) => {
                let until = wait_until(request);
                Ok(Seats::Awaited(Box::pin(wait(flow.clone(), ticket, waiting, until))))
            }
            Err(why) => {
                flow.metrics.waited(Duration::ZERO, false);
                flow.metrics.rejected(why.into());
                Err(refuse(&flow))
            }
        };
        Entry { flow, seats }
    }
}

/// What became of a request that wants seats.
pub struct Entry {
    /// How it was classified.
    pub flow: Arc<Flow>,
    /// # Errors
    /// 429 if it gets neither seats nor a place in a queue.
    pub seats: Result<Seats, ApiError>,
}

/// The seats of a request.
pub enum Seats {
    Taken(Ticket),
    /// It waits for them; 429 if it does not get them in time.
    Awaited(BoxFuture<'static, Result<Ticket, ApiError>>),
}

async fn wait(
    flow: Arc<Flow>,
    ticket: Ticket,
    (woken, length): Waiting,
    until: Instant,
) -> Result<Ticket, ApiError> {
    let begun = clock::instant();
    flow.metrics.queued(length);
    let executed = matches!(timeout_at(until, woken).await, Ok(Ok(())));
    flow.metrics.waited(begun.elapsed(), executed);
    if !executed {
        drop(ticket);
        return Err(refuse(&flow));
    }
    flow.metrics.dispatched();
    Ok(ticket.begun())
}

fn refuse(flow: &Flow) -> ApiError {
    refusal(flow.level.refused())
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
