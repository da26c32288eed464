//! Histograms of a number over time: for how long it was within which bounds (upstream's
//! `TimingRatioHistogram`, which observes it at the end of every nanosecond).

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

use super::queue_set::Nanos;

/// The most bounds of a histogram.
const BOUNDS_MAX: usize = 15;

/// A ratio over time.
#[derive(Clone, Debug)]
pub struct Timed {
    bounds: &'static [f64],
    /// Time within each bucket; the last is above all bounds.
    nanos: [Nanos; BOUNDS_MAX + 1],
    sum: f64,
    numerator: f64,
    denominator: f64,
    bucket: usize,
    since: Nanos,
}

impl Timed {
    /// Of zero, since the beginning of time.
    pub fn new(bounds: &'static [f64]) -> Self {
        debug_assert!(bounds.len() <= BOUNDS_MAX);
        Self {
            bounds,
            nanos: [0; BOUNDS_MAX + 1],
            sum: 0.0,
            numerator: 0.0,
            denominator: 1.0,
            bucket: 0,
            since: 0,
        }
    }

    /// The numerator is another one from `now` on.
    pub fn set(&mut self, now: Nanos, numerator: f64) {
        self.advance(now);
        self.numerator = numerator;
        let ratio = self.ratio();
        let mut bucket = 0;
        while bucket < self.bounds.len() && ratio > self.bounds[bucket] {
            bucket += 1;
        }
        self.bucket = bucket;
    }

    pub fn add(&mut self, now: Nanos, difference: f64) {
        self.set(now, self.numerator + difference);
    }

    pub fn set_denominator(&mut self, now: Nanos, denominator: u32) {
        self.advance(now);
        self.denominator = f64::from(denominator.max(1));
        self.set(now, self.numerator);
    }

    fn ratio(&self) -> f64 {
        self.numerator / self.denominator
    }

    #[allow(clippy::cast_precision_loss)]
    fn advance(&mut self, now: Nanos) {
        let elapsed = now.saturating_sub(self.since);
        self.since = self.since.max(now);
        self.nanos[self.bucket] += elapsed;
        self.sum += elapsed as f64 * self.ratio();
    }

    /// What it comes to up to `now`.
    pub fn read(&mut self, now: Nanos) -> Reading {
        self.advance(now);
        let buckets = self.nanos.iter().zip(self.bounds.iter().chain([&f64::MAX]));
        Reading {
            sum: self.sum,
            count: self.nanos.iter().sum(),
            buckets: buckets.map(|(nanos, bound)| (*bound, *nanos)).collect(),
        }
    }
}

/// What a histogram came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    pub sum: f64,
    pub count: u64,
    /// Upper bounds and the counts between them.
    pub buckets: Vec<(f64, u64)>,
}

/// The metric that shows the last reading.
#[derive(Clone, Debug, Default)]
pub struct Shown(Arc<Mutex<Reading>>);

impl Shown {
    pub fn set(&self, reading: Reading) {
        *self.0.lock() = reading;
    }
}

impl TypedMetric for Shown {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Shown {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> std::fmt::Result {
        let Reading { sum, count, buckets } = &*self.0.lock();
        encoder.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_nanosecond_is_observed() {
        let mut timed = Timed::new(&[0.0, 0.5, 1.0]);
        timed.set_denominator(10, 4);
        timed.set(10, 2.0);
        timed.add(30, 1.0);
        timed.set(40, 8.0);
        let reading = timed.read(45);
        // 10 ns of none, 20 of a half, 10 of three quarters, 5 of twice as many as there may be.
        assert_eq!(reading.buckets, [(0.0, 10), (0.5, 20), (1.0, 10), (f64::MAX, 5)]);
        assert_eq!(reading.count, 45);
        assert!((reading.sum - (10.0 + 7.5 + 10.0)).abs() < 1e-9, "{reading:?}");
        // With twice the limit the same number is half as much; a clock never goes back.
        timed.set_denominator(45, 8);
        timed.set(40, 8.0);
        assert_eq!(timed.read(47).buckets[2], (1.0, 12));
    }
}
