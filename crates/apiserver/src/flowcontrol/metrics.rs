//! Metrics of flow control, under upstream's names (`apiserver_flowcontrol_*`). What a request
//! counts is resolved once per schema; what can be read off the levels is, when somebody asks.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::timed::Shown;

const SECONDS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const LENGTHS: [f64; 8] = [0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0];
const SEATS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];
const WATCHES: [f64; 6] = [0.0, 1.0, 10.0, 100.0, 1_000.0, 10_000.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LevelLabels {
    pub priority_level: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FlowLabels {
    pub flow_schema: String,
    pub priority_level: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectedLabels {
    #[prometheus(flatten)]
    flow: FlowLabels,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WaitLabels {
    execute: &'static str,
    #[prometheus(flatten)]
    flow: FlowLabels,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ExecutionLabels {
    #[prometheus(flatten)]
    flow: FlowLabels,
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PhaseLabels {
    pub phase: &'static str,
    #[prometheus(flatten)]
    pub level: LevelLabels,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BoundLabels {
    pub bound: &'static str,
    #[prometheus(flatten)]
    pub level: LevelLabels,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TrafficLabels {
    pub phase: &'static str,
    pub request_kind: &'static str,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    ConcurrencyLimit,
    QueueFull,
    TimeOut,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;
/// A number with fractions.
pub type Number = Gauge<f64, std::sync::atomic::AtomicU64>;

/// All metrics.
#[derive(Clone, Debug)]
pub struct FlowControlMetrics {
    rejected: Family<RejectedLabels, Counter>,
    dispatched: Family<FlowLabels, Counter>,
    waits: Histograms<WaitLabels>,
    executions: Histograms<ExecutionLabels>,
    lengths: Histograms<FlowLabels>,
    seats: Histograms<FlowLabels>,
    watches: Histograms<FlowLabels>,
    pub waiting: Family<FlowLabels, Gauge>,
    pub waiting_seats: Family<FlowLabels, Gauge>,
    pub executing: Family<FlowLabels, Gauge>,
    pub executing_seats: Family<FlowLabels, Gauge>,
    without_room: Family<FlowLabels, Counter>,
    pub progress: Family<LevelLabels, Number>,
    pub dispatch_progress: Family<LevelLabels, Number>,
    pub dispatch_start: Family<LevelLabels, Number>,
    pub starts: Family<BoundLabels, Number>,
    pub discounted: Family<BoundLabels, Number>,
    pub seat_utilization: Family<PhaseLabels, Shown>,
    pub request_utilization: Family<PhaseLabels, Shown>,
    pub demand: Family<LevelLabels, Shown>,
    pub traffic: Family<TrafficLabels, Shown>,
    pub nominal: Family<LevelLabels, Gauge>,
    pub lower: Family<LevelLabels, Gauge>,
    pub upper: Family<LevelLabels, Gauge>,
    pub current: Family<LevelLabels, Gauge>,
    pub high_watermark: Family<LevelLabels, Number>,
    pub average: Family<LevelLabels, Number>,
    pub deviation: Family<LevelLabels, Number>,
    pub smoothed: Family<LevelLabels, Number>,
    pub target: Family<LevelLabels, Number>,
    pub fraction: Number,
}

impl Default for FlowControlMetrics {
    fn default() -> Self {
        Self {
            rejected: Family::default(),
            dispatched: Family::default(),
            waits: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            executions: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            lengths: Family::new_with_constructor(|| Histogram::new(LENGTHS)),
            seats: Family::new_with_constructor(|| Histogram::new(SEATS)),
            watches: Family::new_with_constructor(|| Histogram::new(WATCHES)),
            waiting: Family::default(),
            waiting_seats: Family::default(),
            executing: Family::default(),
            executing_seats: Family::default(),
            without_room: Family::default(),
            progress: Family::default(),
            dispatch_progress: Family::default(),
            dispatch_start: Family::default(),
            starts: Family::default(),
            discounted: Family::default(),
            seat_utilization: Family::default(),
            request_utilization: Family::default(),
            demand: Family::default(),
            traffic: Family::default(),
            nominal: Family::default(),
            lower: Family::default(),
            upper: Family::default(),
            current: Family::default(),
            high_watermark: Family::default(),
            average: Family::default(),
            deviation: Family::default(),
            smoothed: Family::default(),
            target: Family::default(),
            fraction: Number::default(),
        }
    }
}

impl FlowControlMetrics {
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("apiserver_flowcontrol");
        macro_rules! register {
            ($($name:literal $field:ident $help:literal;)*) => {
                $(registry.register($name, $help, self.$field.clone());)*
            };
        }
        register! {
            "rejected_requests" rejected "Requests that were refused";
            "dispatched_requests" dispatched "Requests that were executed";
            "request_wait_duration_seconds" waits "Time that requests waited in a queue";
            "request_execution_seconds" executions "Time that requests were executed, of watches until their initial state was sent";
            "request_queue_length_after_enqueue" lengths "Length of the queue that a request came into";
            "work_estimated_seats" seats "Seats that requests were expected to need";
            "watch_count_samples" watches "Watches that a write concerns";
            "current_inqueue_requests" waiting "Requests that wait";
            "current_inqueue_seats" waiting_seats "Seats that requests wait for";
            "current_executing_requests" executing "Requests that are being executed";
            "current_executing_seats" executing_seats "Seats that are taken";
            "request_dispatch_no_accommodation" without_room "Times that the next request needed more seats than were free";
            "current_r" progress "Virtual time of the level";
            "dispatch_r" dispatch_progress "Virtual time of the level when a request was executed last";
            "latest_s" dispatch_start "Virtual time at which the request began that was executed last";
            "next_s_bounds" starts "Least and greatest virtual time at which the next request of a queue begins";
            "next_discounted_s_bounds" discounted "The same, less the work that is expected of what is executed";
            "priority_level_seat_utilization" seat_utilization "Seats that are taken, as a part of those of the level, at the end of every nanosecond";
            "priority_level_request_utilization" request_utilization "Requests that wait or are executed, as a part of the limit on them, at the end of every nanosecond";
            "demand_seats" demand "Seats that the level could use, as a part of those that it has, at the end of every nanosecond";
            "read_vs_write_current_requests" traffic "Requests that wait or are executed, as a part of the limit on them, at the end of every nanosecond";
            "nominal_limit_seats" nominal "Seats that the level is configured to have";
            "lower_limit_seats" lower "Seats that the level does not lend";
            "upper_limit_seats" upper "Seats that the level can have with all that it may borrow";
            "current_limit_seats" current "Seats that the level has now";
            "demand_seats_high_watermark" high_watermark "Most seats that the level could use, in the last period";
            "demand_seats_average" average "Seats that the level could use, on average in the last period";
            "demand_seats_stdev" deviation "Standard deviation of the seats that the level could use, in the last period";
            "demand_seats_smoothed" smoothed "Seats that the level could use, smoothed";
            "target_seats" target "Seats that the level should have";
            "seat_fair_frac" fraction "Fraction of its target that a level gets whose limits do not matter";
        }
    }

    /// Forgets levels and schemas that have gone.
    pub fn clear(&self) {
        for family in [&self.waiting, &self.waiting_seats, &self.executing, &self.executing_seats] {
            family.clear();
        }
        let levels = [&self.nominal, &self.lower, &self.upper, &self.current];
        levels.into_iter().for_each(Family::clear);
        let numbers = [
            &self.progress,
            &self.dispatch_progress,
            &self.dispatch_start,
            &self.high_watermark,
            &self.average,
            &self.deviation,
            &self.smoothed,
            &self.target,
        ];
        numbers.into_iter().for_each(Family::clear);
        [&self.starts, &self.discounted].into_iter().for_each(Family::clear);
        [&self.seat_utilization, &self.request_utilization].into_iter().for_each(Family::clear);
        self.demand.clear();
    }

    /// What the requests of a schema count.
    pub fn of(&self, schema: &str, level: &str) -> FlowMetrics {
        let flow = FlowLabels { flow_schema: schema.to_owned(), priority_level: level.to_owned() };
        let wait =
            |execute| self.waits.get_or_create_owned(&WaitLabels { execute, flow: flow.clone() });
        let execution = |r#type| {
            self.executions.get_or_create_owned(&ExecutionLabels { flow: flow.clone(), r#type })
        };
        FlowMetrics {
            dispatched: self.dispatched.get_or_create_owned(&flow),
            waits: [wait("false"), wait("true")],
            executions: [execution("regular"), execution("watch")],
            lengths: self.lengths.get_or_create_owned(&flow),
            seats: self.seats.get_or_create_owned(&flow),
            watches: self.watches.get_or_create_owned(&flow),
            without_room: self.without_room.get_or_create_owned(&flow),
            rejected: self.rejected.clone(),
            labels: flow,
        }
    }
}

/// The metrics of one schema.
#[derive(Debug)]
pub struct FlowMetrics {
    labels: FlowLabels,
    rejected: Family<RejectedLabels, Counter>,
    dispatched: Counter,
    waits: [Histogram; 2],
    executions: [Histogram; 2],
    lengths: Histogram,
    seats: Histogram,
    watches: Histogram,
    /// Times that the next request needed more seats than were free.
    pub without_room: Counter,
}

#[allow(clippy::cast_precision_loss)]
impl FlowMetrics {
    pub fn labels(&self) -> &FlowLabels {
        &self.labels
    }

    pub fn rejected(&self, why: Rejected) {
        let reason = match why {
            Rejected::ConcurrencyLimit => "concurrency-limit",
            Rejected::QueueFull => "queue-full",
            Rejected::TimeOut => "time-out",
        };
        let labels = RejectedLabels { flow: self.labels.clone(), reason };
        self.rejected.get_or_create(&labels).inc();
    }

    pub fn dispatched(&self) {
        self.dispatched.inc();
    }

    pub fn waited(&self, time: Duration, executed: bool) {
        self.waits[usize::from(executed)].observe(time.as_secs_f64());
    }

    pub fn executed(&self, time: Duration, watches: bool) {
        self.executions[usize::from(watches)].observe(time.as_secs_f64());
    }

    pub fn queued(&self, length: usize) {
        self.lengths.observe(length as f64);
    }

    pub fn estimated(&self, seats: u32) {
        self.seats.observe(f64::from(seats));
    }

    pub fn watched(&self, count: usize) {
        self.watches.observe(count as f64);
    }
}
