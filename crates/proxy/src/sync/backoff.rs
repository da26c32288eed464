//! When to try again what has failed.

use std::time::Duration;

use tokio::time::Instant;

/// After a failure; doubled up to the maximum.
const MIN: Duration = Duration::from_millis(250);
const MAX: Duration = Duration::from_secs(30);

/// Pauses that grow with each failure in a row.
#[derive(Debug, Default)]
pub struct Backoff {
    /// When the pause is over, and how long it was.
    until: Option<(Instant, Duration)>,
}

impl Backoff {
    /// Whether there is a pause that is not over.
    pub fn is_waiting(&self) -> bool {
        self.until.is_some_and(|(until, _)| Instant::now() < until)
    }

    pub fn succeeded(&mut self) {
        self.until = None;
    }

    /// Begins the next pause; returns how long it is.
    pub fn failed(&mut self) -> Duration {
        let pause = self.until.map_or(MIN, |(_, pause)| (pause * 2).min(MAX));
        self.until = Some((Instant::now() + pause, pause));
        pause
    }

    /// Begins a short pause, unless there is one.
    pub fn settle(&mut self, pause: Duration) {
        self.until.get_or_insert((Instant::now() + pause, MIN));
    }

    /// Returns when the pause is over; never, if there is none.
    pub async fn over(&self) {
        match self.until {
            Some((until, _)) => tokio::time::sleep_until(until).await,
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
            backoff.over().await;
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
