//! The requests of one priority level: fair queuing of requests that take several seats for some
//! time (upstream's `fairqueuing/queueset`, whose `doc.go` derives it).
//!
//! Each queue has a virtual time at which its next request would begin if all queues with requests
//! were served at once, in equal parts. The queue whose next request would be finished first is
//! served next. How long a request takes is not known before it ends, so that an estimate is used
//! and corrected then.
//!
//! Only queues with requests are in memory. Nothing here waits, reads a clock or knows requests:
//! the caller says what time it is.

mod entries;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use tokio::sync::oneshot;

use self::entries::Entries;
use super::demand::{Integrator, Moments};
use super::shuffle;
use super::timed::{Reading, Timed};

/// A moment, in nanoseconds.
pub type Nanos = u64;
/// Seats times nanoseconds.
pub type Work = i128;

/// In seats times seconds.
#[allow(clippy::cast_precision_loss)]
pub fn seat_seconds(work: Work) -> f64 {
    work as f64 / 1e9
}

/// How long a request is expected to take (upstream's).
const EXPECTED: Duration = Duration::from_millis(3);
/// Requests that wait in one level, however many queues it has.
pub const WAITING_MAX: usize = 10_000;
/// Bounds of the histograms over time (upstream's).
const REQUESTS: [f64; 10] = [0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 1.0];
const SEATS: [f64; 13] = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];
const DEMAND: [f64; 12] = [0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0, 2.8, 4.0, 6.0];

/// What becomes of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// All are executed at once.
    Exempt,
    /// Those that find no seat are refused.
    Reject,
    Queue(Queuing),
}

/// The queues of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queuing {
    pub queues: u32,
    pub hand: u32,
    pub length: u32,
}

/// What a request is expected to cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Seats while it is executed.
    pub initial: u32,
    /// Seats afterwards, and for how long.
    pub last: u32,
    pub lingers: Duration,
}

impl Estimate {
    /// A request that takes seats while it is executed.
    pub fn seats(initial: u32) -> Self {
        Self { initial, last: 0, lingers: Duration::ZERO }
    }

    /// The most seats that it has at once.
    pub fn width(&self) -> u32 {
        self.initial.max(self.last)
    }

    fn work(&self) -> Work {
        work(self.initial, EXPECTED) + work(self.last, self.lingers)
    }
}

fn work(seats: u32, time: Duration) -> Work {
    Work::from(seats) * time.as_nanos().cast_signed()
}

/// Why a request is not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    ConcurrencyLimit,
    QueueFull,
}

/// What became of a request that its caller has given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was still waiting.
    Cancelled,
    /// It has been executed.
    Finished,
    /// It has been executed, and keeps its seats for some time: [`QueueSet::release`].
    Lingers(Duration),
}

/// What a request is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Waiting,
    Executing { since: Nanos },
    Lingering,
}

/// A request of the level.
#[derive(Debug)]
pub struct Entry<R> {
    pub request: R,
    pub estimate: Estimate,
    pub phase: Phase,
    /// Index of its queue; `None`: it came while the level had none.
    pub queue: Option<u32>,
    /// Progress of the level when it came.
    arrived: Work,
    wake: Option<oneshot::Sender<()>>,
}

/// A queue with requests.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: VecDeque<u64>,
    /// Work of those.
    work: Work,
    pub executing: u32,
    pub seats: u32,
    /// Virtual time at which its next request begins.
    next: Work,
}

impl Queue {
    fn is_active(&self) -> bool {
        !self.waiting.is_empty() || self.executing > 0
    }

    /// Ids of the requests that wait, the oldest first.
    pub fn waiting(&self) -> impl ExactSizeIterator<Item = u64> {
        self.waiting.iter().copied()
    }

    /// Work of the requests that wait, and virtual time of the next one, in seats times seconds.
    pub fn seat_seconds(&self) -> (f64, f64) {
        (seat_seconds(self.work), seat_seconds(self.next))
    }
}

/// What the caller knows about a request.
pub trait Queued {
    /// It was the next one, and needs more seats than are free.
    fn found_no_room(&self) {}
}

/// The virtual times when a request of a queue was executed the last time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dispatch {
    pub progress: Work,
    /// At which it began.
    pub start: Work,
    /// The least and the greatest start of the queues' next requests.
    pub starts: (Work, Work),
    /// The same, less the work that is being done for the queue.
    pub discounted: (Work, Work),
}

/// Numbers of a level over time, as parts of their limits.
#[derive(Debug)]
struct Gauges {
    waiting: Timed,
    executing: Timed,
    seats: Timed,
    demand: Timed,
}

/// What they came to.
pub struct Readings {
    pub waiting: Reading,
    pub executing: Reading,
    pub seats: Reading,
    pub demand: Reading,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub dispatched: u64,
    pub rejected: u64,
    pub cancelled: u64,
}

/// All requests of a level. `R`: what the caller knows about a request.
#[derive(Debug)]
pub struct QueueSet<R> {
    policy: Policy,
    limit: u32,
    queues: BTreeMap<u32, Queue>,
    requests: Entries<R>,
    /// Work done for each queue since the start.
    progress: Work,
    seen: Nanos,
    /// Queues with requests that wait or are executed.
    active: u32,
    /// The queue that was served last.
    served: u32,
    deals: u32,
    waiting: usize,
    executing: usize,
    seats: u32,
    seats_waiting: u32,
    totals: Totals,
    demand: Integrator,
    gauges: Gauges,
    dispatched: Dispatch,
}

impl<R: Queued> QueueSet<R> {
    pub fn new(policy: Policy, limit: u32) -> Self {
        Self {
            policy,
            limit,
            queues: BTreeMap::new(),
            requests: Entries::default(),
            progress: 0,
            seen: 0,
            active: 0,
            served: 0,
            deals: 0,
            waiting: 0,
            executing: 0,
            seats: 0,
            seats_waiting: 0,
            totals: Totals::default(),
            demand: Integrator::default(),
            gauges: Gauges {
                waiting: Timed::new(&REQUESTS),
                executing: Timed::new(&REQUESTS),
                seats: Timed::new(&SEATS),
                demand: Timed::new(&DEMAND),
            },
            dispatched: Dispatch::default(),
        }
    }

    /// Changes the policy and the limit, and what numbers of seats are shown as parts of. Requests
    /// stay in the queues that they are in.
    pub fn configure(&mut self, now: Nanos, policy: Policy, limit: u32, whole: u32) {
        self.sync(now);
        (self.policy, self.limit) = (policy, limit);
        let places = match policy {
            Policy::Queue(queuing) => queuing.length.max(1).saturating_mul(queuing.queues.max(1)),
            Policy::Exempt | Policy::Reject => 1,
        };
        let Gauges { waiting, executing, seats, demand } = &mut self.gauges;
        waiting.set_denominator(now, places);
        for gauge in [executing, seats, demand] {
            gauge.set_denominator(now, whole);
        }
        self.dispatch(now);
        self.note(now);
    }

    /// Takes a request: its id, and whether it is being executed already.
    ///
    /// # Errors
    /// When it is refused.
    pub fn start(
        &mut self,
        now: Nanos,
        hash: u64,
        estimate: Estimate,
        request: R,
    ) -> Result<(u64, bool), Rejection> {
        self.sync(now);
        let mut entry = Entry {
            request,
            estimate,
            phase: Phase::Waiting,
            queue: None,
            arrived: self.progress,
            wake: None,
        };
        let Policy::Queue(queuing) = self.policy else {
            if !self.fits(estimate.width()) {
                self.totals.rejected += 1;
                return Err(Rejection::ConcurrencyLimit);
            }
            self.execute(estimate);
            self.note(now);
            entry.phase = Phase::Executing { since: now };
            return Ok((self.requests.insert(entry), true));
        };
        let index = self.choose(hash, queuing);
        entry.queue = Some(index);
        // Whoever finds seats while nobody waits does not wait either.
        if self.waiting == 0 && self.seats < self.limit && self.fits(estimate.width()) {
            let start = self.start_of(index);
            let discounted = start - work(self.seats_of(index), EXPECTED);
            self.note_dispatch(start, (start, start), (discounted, discounted));
            entry.estimate = self.execute_of(index, estimate, false);
            entry.phase = Phase::Executing { since: now };
            self.note(now);
            return Ok((self.requests.insert(entry), true));
        }
        let length = self.queues.get(&index).map_or(0, |queue| queue.waiting.len());
        let full = self.seats >= self.limit && length >= queuing.length as usize;
        if full || self.waiting >= WAITING_MAX {
            self.totals.rejected += 1;
            return Err(Rejection::QueueFull);
        }
        let start = self.start_of(index);
        let id = self.requests.insert(entry);
        self.waiting += 1;
        self.seats_waiting += estimate.width();
        self.change(index, |queue| {
            queue.next = start;
            queue.waiting.push_back(id);
            queue.work += estimate.work();
        });
        self.bound(index);
        // The demand was as high as this, even if there are seats.
        self.note_demand(now);
        self.dispatch(now);
        self.note(now);
        Ok((id, self.requests.get(id).is_some_and(|entry| entry.phase != Phase::Waiting)))
    }

    /// When the next request of a queue begins.
    fn start_of(&self, index: u32) -> Work {
        match self.queues.get(&index) {
            Some(queue) if queue.is_active() => queue.next,
            _ => self.progress,
        }
    }

    fn seats_of(&self, index: u32) -> u32 {
        self.queues.get(&index).map_or(0, |queue| queue.seats)
    }

    fn note_dispatch(&mut self, start: Work, starts: (Work, Work), discounted: (Work, Work)) {
        self.dispatched = Dispatch { progress: self.progress, start, starts, discounted };
    }

    /// Tells when a request that waits is executed.
    pub fn wake(&mut self, id: u64) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        if let Some(entry) = self.requests.get_mut(id) {
            entry.wake = Some(sender);
        }
        receiver
    }

    /// Takes a request back, whatever it is doing.
    pub fn end(&mut self, now: Nanos, id: u64) -> End {
        self.sync(now);
        let Some(entry) = self.requests.get_mut(id) else { return End::Finished };
        let (estimate, queue) = (entry.estimate, entry.queue);
        match entry.phase {
            Phase::Waiting => {
                self.requests.remove(id);
                self.waiting -= 1;
                self.seats_waiting -= estimate.width();
                self.totals.rejected += 1;
                self.totals.cancelled += 1;
                if let Some(index) = queue {
                    self.change(index, |queue| {
                        queue.waiting.retain(|other| *other != id);
                        queue.work -= estimate.work();
                    });
                    self.bound(index);
                    self.clean(index);
                }
                self.dispatch(now);
                self.note(now);
                End::Cancelled
            }
            Phase::Lingering => End::Finished,
            Phase::Executing { since } => {
                entry.phase = Phase::Lingering;
                self.executing -= 1;
                if let Some(index) = queue {
                    let took = Duration::from_nanos(now.saturating_sub(since));
                    self.change(index, |queue| {
                        queue.executing -= 1;
                        let (expected, took) =
                            (work(estimate.initial, EXPECTED), work(estimate.initial, took));
                        queue.next -= expected - took;
                    });
                    self.bound(index);
                }
                if estimate.lingers.is_zero() {
                    self.give_back(now, id);
                    return End::Finished;
                }
                self.dispatch(now);
                self.note(now);
                End::Lingers(estimate.lingers)
            }
        }
    }

    /// Frees the seats of a request that has ended.
    pub fn release(&mut self, now: Nanos, id: u64) {
        self.sync(now);
        if self.requests.get(id).is_some_and(|entry| entry.phase == Phase::Lingering) {
            self.give_back(now, id);
        }
    }

    fn give_back(&mut self, now: Nanos, id: u64) {
        let Some(entry) = self.requests.remove(id) else { return };
        let seats = entry.estimate.width();
        self.seats -= seats;
        if let Some(index) = entry.queue {
            self.change(index, |queue| queue.seats -= seats);
            self.clean(index);
        }
        self.dispatch(now);
        self.note(now);
    }

    /// Moments of the demand since the last call.
    pub fn take_demand(&mut self, now: Nanos) -> Moments {
        self.demand.reset(now)
    }

    /// The numbers over time, up to `now`.
    pub fn readings(&mut self, now: Nanos) -> Readings {
        let Gauges { waiting, executing, seats, demand } = &mut self.gauges;
        Readings {
            waiting: waiting.read(now),
            executing: executing.read(now),
            seats: seats.read(now),
            demand: demand.read(now),
        }
    }

    /// Advances the virtual time: nothing has changed since the last call of anything.
    fn sync(&mut self, now: Nanos) {
        let elapsed = now.saturating_sub(self.seen);
        self.seen = self.seen.max(now);
        if self.active > 0 {
            let seats = (self.seats + self.seats_waiting).min(self.limit);
            self.progress += Work::from(seats) * Work::from(elapsed) / Work::from(self.active);
        }
    }

    /// The queue of a flow's hand in which the least work waits.
    fn choose(&mut self, hash: u64, queuing: Queuing) -> u32 {
        let mut hand = [0; 15];
        let mut count = 0;
        shuffle::deal(hash, queuing.queues.max(1), queuing.hand.max(1), |card| {
            hand[count] = card;
            count += 1;
        });
        let hand = &hand[..count];
        // Not always in the order of the deal, which would favour flows whose hands overlap.
        let first = self.deals as usize % count;
        self.deals = self.deals.wrapping_add(1);
        if self.waiting == 0 {
            return hand[first];
        }
        let (after, before) = (&hand[first..], &hand[..first]);
        let waiting = |index: &&u32| self.queues.get(*index).map_or(0, |queue| queue.work);
        let least = after.iter().chain(before).min_by_key(waiting);
        *least.expect("a hand has cards")
    }

    /// Changes a queue, and keeps count of those with requests.
    fn change(&mut self, index: u32, change: impl FnOnce(&mut Queue)) {
        let queue = self.queues.entry(index).or_default();
        let before = queue.is_active();
        change(queue);
        match (before, queue.is_active()) {
            (false, true) => self.active += 1,
            (true, false) => self.active -= 1,
            _ => {}
        }
    }

    fn clean(&mut self, index: u32) {
        if self.queues.get(&index).is_some_and(|queue| !queue.is_active() && queue.seats == 0) {
            self.queues.remove(&index);
        }
    }

    /// A request does not begin before it has come, not even virtually: a queue saves up nothing.
    fn bound(&mut self, index: u32) {
        let Some(queue) = self.queues.get_mut(&index) else { return };
        let oldest = queue.waiting.front().and_then(|id| self.requests.get(*id));
        if let Some(oldest) = oldest {
            queue.next = queue.next.max(oldest.arrived);
        }
    }

    fn note_demand(&mut self, now: Nanos) {
        self.demand.set(now, f64::from(self.seats + self.seats_waiting));
    }

    /// The numbers are these from `now` on.
    #[allow(clippy::cast_precision_loss)]
    fn note(&mut self, now: Nanos) {
        self.note_demand(now);
        let demand = f64::from(self.seats + self.seats_waiting);
        self.gauges.demand.set(now, demand);
        self.gauges.seats.set(now, f64::from(self.seats));
        self.gauges.executing.set(now, self.executing as f64);
        self.gauges.waiting.set(now, self.waiting as f64);
    }

    /// Whether so many seats are free. A request that needs more than there are is executed alone.
    fn fits(&self, seats: u32) -> bool {
        match self.policy {
            Policy::Exempt => true,
            _ if seats > self.limit => self.executing == 0,
            _ => self.seats + seats <= self.limit,
        }
    }

    fn execute(&mut self, estimate: Estimate) {
        self.executing += 1;
        self.seats += estimate.width();
        self.totals.dispatched += 1;
    }

    /// Executes a request of a queue. Returns what it takes then.
    fn execute_of(&mut self, index: u32, mut estimate: Estimate, waited: bool) -> Estimate {
        let (start, work) = (self.start_of(index), estimate.work());
        if estimate.last > self.limit {
            // The same work, with the seats that there are.
            let nanos = self::work(estimate.last, estimate.lingers) / Work::from(self.limit.max(1));
            estimate.last = self.limit;
            estimate.lingers = Duration::from_nanos(nanos.try_into().unwrap_or(Nanos::MAX));
        }
        self.served = index;
        self.change(index, |queue| {
            if waited {
                queue.waiting.pop_front();
                queue.work -= work;
            }
            queue.executing += 1;
            queue.seats += estimate.width();
            queue.next = start + work;
        });
        self.execute(estimate);
        estimate
    }

    /// Executes as many requests as there are seats for.
    fn dispatch(&mut self, now: Nanos) {
        while self.waiting > 0 && self.seats < self.limit && self.dispatch_next(now) {}
    }

    /// Executes the request that would be finished first. False: there is no room for it.
    fn dispatch_next(&mut self, now: Nanos) -> bool {
        let Some(Next { index, id, dispatch }) = self.next_queue() else { return false };
        let Some(entry) = self.requests.get(id) else { return false };
        let waited = entry.estimate;
        if !self.fits(waited.width()) {
            entry.request.found_no_room();
            return false;
        }
        self.dispatched = dispatch;
        self.waiting -= 1;
        self.seats_waiting -= waited.width();
        let estimate = self.execute_of(index, waited, true);
        if let Some(entry) = self.requests.get_mut(id) {
            (entry.estimate, entry.phase) = (estimate, Phase::Executing { since: now });
            if let Some(wake) = entry.wake.take() {
                // A caller that has gone takes the request back.
                wake.send(()).ok();
            }
        }
        self.bound(index);
        true
    }

    /// The queue whose next request would be finished first, and that request. The queues take
    /// turns where several would.
    fn next_queue(&self) -> Option<Next> {
        let after = self.queues.range((Bound::Excluded(self.served), Bound::Unbounded));
        let rest = self.queues.range(..=self.served);
        let mut first: Option<(Work, Next)> = None;
        let (mut starts, mut discounted) = ((Work::MAX, Work::MIN), (Work::MAX, Work::MIN));
        for (index, queue) in after.chain(rest) {
            let Some(id) = queue.waiting.front() else { continue };
            let Some(entry) = self.requests.get(*id) else { continue };
            starts = (starts.0.min(queue.next), starts.1.max(queue.next));
            let rest = queue.next - work(queue.seats, EXPECTED);
            discounted = (discounted.0.min(rest), discounted.1.max(rest));
            let finished = queue.next + entry.estimate.work();
            if first.as_ref().is_none_or(|(earliest, _)| finished < *earliest) {
                let dispatch = Dispatch { start: queue.next, ..Dispatch::default() };
                first = Some((finished, Next { index: *index, id: *id, dispatch }));
            }
        }
        first.map(|(_, next)| {
            let start = next.dispatch.start;
            let dispatch = Dispatch { progress: self.progress, start, starts, discounted };
            Next { dispatch, ..next }
        })
    }
}

/// A request that is to be executed.
struct Next {
    index: u32,
    id: u64,
    dispatch: Dispatch,
}

/// What is there now.
impl<R: Queued> QueueSet<R> {
    pub fn entries(&self) -> impl Iterator<Item = (u64, &Entry<R>)> {
        self.requests.iter()
    }

    pub fn entry(&self, id: u64) -> Option<&Entry<R>> {
        self.requests.get(id)
    }

    /// The queues with requests, by index.
    pub fn queues(&self) -> &BTreeMap<u32, Queue> {
        &self.queues
    }

    pub fn policy(&self) -> Policy {
        self.policy
    }

    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Requests that wait in the queue of another one.
    pub fn length_beside(&self, id: u64) -> usize {
        let index = self.requests.get(id).and_then(|entry| entry.queue);
        let queue = index.and_then(|index| self.queues.get(&index));
        queue.map_or(0, |queue| queue.waiting.len())
    }

    pub fn waiting(&self) -> usize {
        self.waiting
    }

    pub fn executing(&self) -> usize {
        self.executing
    }

    /// Seats that are taken, and that those who wait need.
    #[cfg(test)]
    pub fn seats(&self) -> (u32, u32) {
        (self.seats, self.seats_waiting)
    }

    pub fn is_idle(&self) -> bool {
        self.waiting == 0 && self.executing == 0
    }

    /// The progress of the level.
    pub fn progress(&self) -> Work {
        self.progress
    }

    pub fn dispatched(&self) -> Dispatch {
        self.dispatched
    }
}

#[cfg(test)]
mod tests;
