//! When to try again what has failed.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

const MIN: Duration = Duration::from_millis(250);
const MAX: Duration = Duration::from_secs(30);
const PAUSES: ExponentialBuilder =
    ExponentialBuilder::new().with_min_delay(MIN).with_max_delay(MAX).without_max_times();

/// Pauses that grow with each failure in a row.
#[derive(Debug, Default)]
pub struct Backoff {
    until: Option<Instant>,
    /// The pauses that are still to come; none before the first failure.
    pauses: Option<ExponentialBackoff>,
}

impl Backoff {
    /// Whether there is a pause that is not over.
    pub fn is_waiting(&self) -> bool {
        self.until.is_some_and(|until| clock::instant() < until)
    }

    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Begins the next pause; returns how long it is.
    pub fn failed(&mut self) -> Duration {
        let pauses = self.pauses.get_or_insert_with(|| PAUSES.build());
        let pause = pauses.next().unwrap_or(MAX);
        self.until = Some(clock::instant() + pause);
        pause
    }

    /// Begins a short pause, unless there is one.
    pub fn delay(&mut self, pause: Duration) {
        self.until.get_or_insert(clock::instant() + pause);
    }

    /// Returns when the pause is over; never, if there is none.
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
    async fn pauses_grow_until_it_succeeds() {
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
