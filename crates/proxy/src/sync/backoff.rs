//! The delay before a retry.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

const MIN: Duration = Duration::from_millis(250);
const MAX: Duration = Duration::from_secs(30);
const PAUSES: ExponentialBuilder =
    ExponentialBuilder::new().with_min_delay(MIN).with_max_delay(MAX).without_max_times();

/// Delays that grow with each consecutive failure.
#[derive(Debug, Default)]
pub struct Backoff {
    until: Option<Instant>,
    /// The following delays; `None` before the first failure.
    pauses: Option<ExponentialBackoff>,
}

impl Backoff {
    /// Whether a delay is pending.
    pub fn is_waiting(&self) -> bool {
        self.until.is_some_and(|until| clock::instant() < until)
    }

    /// Whether a delay has elapsed.
    pub fn is_due(&self) -> bool {
        self.until.is_some_and(|until| until <= clock::instant())
    }

    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Starts the next delay and returns it.
    pub fn failed(&mut self) -> Duration {
        let pauses = self.pauses.get_or_insert_with(|| PAUSES.build());
        let pause = pauses.next().unwrap_or(MAX);
        self.until = Some(clock::instant() + pause);
        pause
    }

    /// Starts a short delay, unless one is pending.
    pub fn delay(&mut self, pause: Duration) {
        self.until.get_or_insert(clock::instant() + pause);
    }

    /// Waits until the delay has elapsed; forever if there is none.
    pub async fn elapsed(&self) {
        match self.until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn delays_grow_until_success() {
        let mut backoff = Backoff::default();
        assert!(!backoff.is_waiting());
        for expected_ms in [250, 500, 1000] {
            assert_eq!(backoff.failed().as_millis(), expected_ms);
            assert!(backoff.is_waiting());
            backoff.elapsed().await;
            assert!(!backoff.is_waiting());
        }
        for _ in 0..10 {
            backoff.failed();
        }
        assert_eq!(backoff.failed(), MAX);
        backoff.succeeded();
        assert_eq!(backoff.failed(), MIN);
    }
}
