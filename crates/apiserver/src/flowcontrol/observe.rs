//! The metrics that can be read off the levels, when somebody asks.

use super::FlowControl;
use super::configuration::LevelState;
use super::metrics::{BoundLabels, FlowControlMetrics, LevelLabels, PhaseLabels, TrafficLabels};
use super::queue_set::{Phase, seat_seconds};

impl FlowControl {
    /// Sets the metrics that can be read off the levels.
    pub fn observe(&self) {
        let states = self.levels.lock();
        let metrics = &self.metrics;
        metrics.clear();
        for flow in &self.snapshot.load().0 {
            let labels = flow.metrics.labels();
            for family in [&metrics.waiting, &metrics.executing, &metrics.executing_seats] {
                family.get_or_create(labels).set(0);
            }
        }
        for (name, state) in states.iter() {
            let labels = LevelLabels { priority_level: name.clone() };
            limits(metrics, state, &labels);
            times(metrics, state, &labels);
            requests(metrics, state);
        }
        let now = self.now();
        for (request_kind, writes) in [("mutating", true), ("readOnly", false)] {
            let traffic = self.traffic.of(writes);
            for (phase, gauge) in [("executing", &traffic.executing), ("waiting", &traffic.waiting)]
            {
                let labels = TrafficLabels { phase, request_kind };
                metrics.traffic.get_or_create(&labels).set(gauge.read(now));
            }
        }
    }
}

fn limits(metrics: &FlowControlMetrics, state: &LevelState, labels: &LevelLabels) {
    for (family, seats) in [
        (&metrics.nominal, state.limits.nominal),
        (&metrics.lower, state.limits.min),
        (&metrics.upper, state.limits.max),
        (&metrics.current, state.current),
    ] {
        family.get_or_create(labels).set(seats.into());
    }
    let demand = state.demand;
    for (family, value) in [
        (&metrics.high_watermark, demand.high_watermark),
        (&metrics.average, demand.average),
        (&metrics.deviation, demand.deviation),
        (&metrics.smoothed, demand.smoothed),
        (&metrics.target, state.target),
    ] {
        family.get_or_create(labels).set(value);
    }
}

/// Virtual times, and numbers over time.
fn times(metrics: &FlowControlMetrics, state: &LevelState, labels: &LevelLabels) {
    let now = state.level.now();
    let mut set = state.level.set();
    let last = set.dispatched();
    for (family, time) in [
        (&metrics.progress, set.progress()),
        (&metrics.dispatch_progress, last.progress),
        (&metrics.dispatch_start, last.start),
    ] {
        family.get_or_create(labels).set(seat_seconds(time));
    }
    for (family, (least, greatest)) in
        [(&metrics.starts, last.starts), (&metrics.discounted, last.discounted)]
    {
        for (bound, time) in [("min", least), ("max", greatest)] {
            let labels = BoundLabels { bound, level: labels.clone() };
            family.get_or_create(&labels).set(seat_seconds(time));
        }
    }
    let readings = set.readings(now);
    metrics.demand.get_or_create(labels).set(readings.demand);
    let phase = |phase| PhaseLabels { phase, level: labels.clone() };
    metrics.seat_utilization.get_or_create(&phase("executing")).set(readings.seats);
    metrics.request_utilization.get_or_create(&phase("executing")).set(readings.executing);
    metrics.request_utilization.get_or_create(&phase("waiting")).set(readings.waiting);
}

fn requests(metrics: &FlowControlMetrics, state: &LevelState) {
    for (_, entry) in state.level.set().entries() {
        let labels = entry.request.flow.metrics.labels();
        let seats = i64::from(entry.estimate.width());
        let (requests, of_seats, ended) = match entry.phase {
            Phase::Waiting => (&metrics.waiting, &metrics.waiting_seats, false),
            Phase::Executing { .. } => (&metrics.executing, &metrics.executing_seats, false),
            Phase::Lingering => (&metrics.executing, &metrics.executing_seats, true),
        };
        requests.get_or_create(labels).inc_by(i64::from(!ended));
        of_seats.get_or_create(labels).inc_by(seats);
    }
}
