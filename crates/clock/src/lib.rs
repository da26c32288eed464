//! Time as a dependency: code that makes decisions takes a [`Clock`], so that tests can control it.
//!
//! The only place that reads the system's clock; clippy rejects that everywhere else. It must not
//! depend on the rest of the workspace.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;

/// A source of wall-clock time.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        now()
    }
}

/// A clock that only advances when a test tells it to.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    pub fn at(start: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(start.as_millisecond())))
    }

    pub fn advance(&self, by: std::time::Duration) {
        let by_ms = i64::try_from(by.as_millis())
            .expect("tests advance the clock by a representable duration");
        self.0.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.0.load(Ordering::SeqCst))
            .expect("tests stay within the range of timestamps")
    }
}

/// A clock shared within a process.
pub type SharedClock = Arc<dyn Clock>;

/// The system's clock, shared.
pub fn system() -> SharedClock {
    Arc::new(SystemClock)
}

/// The system's time, for uses without influence on decisions: the output of a command, the time of
/// an Event.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Monotonic time, for measuring durations in metrics and logs; never for decisions.
#[allow(clippy::disallowed_methods)]
pub fn monotonic() -> std::time::Instant {
    std::time::Instant::now()
}

/// The time of tokio's clock, which is monotonic: for deadlines, delays, and every duration that
/// begins and ends in this process (`docs/clocks.md`). Tests control it with `tokio::time::pause`
/// and `advance`.
#[allow(clippy::disallowed_methods)]
pub fn instant() -> tokio::time::Instant {
    tokio::time::Instant::now()
}
