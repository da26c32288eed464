//! How many requests are executed and wait, in all levels together.

use parking_lot::Mutex;

use super::queue_set::Nanos;
use super::timed::{Reading, Timed};

/// Bounds of the histograms (upstream's).
const BOUNDS: [f64; 15] =
    [0.0, 0.001, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];

/// Requests of one kind.
#[derive(Debug)]
pub struct OfKind {
    pub executing: Gauge,
    pub waiting: Gauge,
}

/// A number over time.
#[derive(Debug)]
pub struct Gauge(Mutex<Timed>);

/// All requests.
#[derive(Debug, Default)]
pub struct Traffic {
    pub reads: OfKind,
    pub writes: OfKind,
}

impl Default for OfKind {
    fn default() -> Self {
        let gauge = || Gauge(Mutex::new(Timed::new(&BOUNDS)));
        Self { executing: gauge(), waiting: gauge() }
    }
}

impl Gauge {
    pub fn add(&self, now: Nanos, difference: f64) {
        self.0.lock().add(now, difference);
    }

    pub fn read(&self, now: Nanos) -> Reading {
        self.0.lock().read(now)
    }
}

impl Traffic {
    pub fn of(&self, writes: bool) -> &OfKind {
        if writes { &self.writes } else { &self.reads }
    }

    /// As parts of how many the numbers are shown.
    pub fn set_limits(&self, now: Nanos, executing: u32, waiting: u32) {
        for kind in [&self.reads, &self.writes] {
            kind.executing.0.lock().set_denominator(now, executing);
            kind.waiting.0.lock().set_denominator(now, waiting);
        }
    }
}
