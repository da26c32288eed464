//! Exponential back-off as values: restarts (CrashLoopBackOff), image pulls, and other retries.

use jiff::{SignedDuration, Timestamp};

/// Delays double from `first` to `longest`; after `forget` without a failure they start over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub first: SignedDuration,
    pub longest: SignedDuration,
    pub forget: SignedDuration,
}

/// Restarts of containers, and image pulls: 10 s doubling to 5 min, forgotten after 10 min.
pub const RESTART: Policy = Policy {
    first: SignedDuration::from_secs(10),
    longest: SignedDuration::from_secs(300),
    forget: SignedDuration::from_secs(600),
};

/// Starts that fail before there is a container (a missing key, a bad sub path): as often as
/// upstream's pod workers sync.
pub const START: Policy = Policy {
    first: SignedDuration::from_secs(10),
    longest: SignedDuration::from_secs(10),
    forget: SignedDuration::from_secs(600),
};

/// Sandboxes, volumes, deletions: failures that are usually short.
pub const RETRY: Policy = Policy {
    first: SignedDuration::from_millis(500),
    longest: SignedDuration::from_secs(60),
    forget: SignedDuration::from_secs(600),
};

/// The back-off after consecutive failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub delay: SignedDuration,
    /// When the last failure was.
    pub since: Timestamp,
}

impl Backoff {
    /// After one more failure at `now`.
    pub fn next(previous: Option<Backoff>, policy: Policy, now: Timestamp) -> Self {
        let delay = match previous {
            Some(previous) if now.duration_since(previous.until()) < policy.forget => {
                (previous.delay * 2).min(policy.longest)
            }
            _ => policy.first,
        };
        Self { delay, since: now }
    }

    /// When the next attempt may be made.
    pub fn until(self) -> Timestamp {
        self.since.saturating_add(self.delay).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_are_forgotten() {
        let mut now = Timestamp::UNIX_EPOCH;
        let mut backoff = Backoff::next(None, RESTART, now);
        let mut seconds = vec![backoff.delay.as_secs()];
        for _ in 0..6 {
            now = backoff.until();
            backoff = Backoff::next(Some(backoff), RESTART, now);
            seconds.push(backoff.delay.as_secs());
        }
        assert_eq!(seconds, [10, 20, 40, 80, 160, 300, 300]);
        let later = backoff.until() + RESTART.forget;
        assert_eq!(Backoff::next(Some(backoff), RESTART, later).delay, RESTART.first);
    }
}
