//! After how many seconds a refused client should try again: twice as many while requests keep
//! being refused, one less when fewer are (upstream's `dropped_requests_tracker.go`).

use std::collections::VecDeque;

const MAX_SECONDS: i64 = 32;

/// The refusals of one priority level.
#[derive(Debug, Default)]
pub struct RetryAfter {
    /// Refusals by second, the oldest first.
    history: VecDeque<(i64, i64)>,
    second: i64,
    count: i64,
    seconds: Option<i64>,
    raised: i64,
}

impl RetryAfter {
    /// Counts a refusal in second `now`, and says when to try again.
    pub fn refused(&mut self, now: i64) -> i32 {
        if self.second == now {
            self.count += 1;
        } else {
            self.history.push_back((self.second, self.count));
            let kept = (2 * self.seconds.unwrap_or(1)).min(MAX_SECONDS);
            while self.history.front().is_some_and(|(second, _)| now - second > kept) {
                self.history.pop_front();
            }
            (self.second, self.count) = (now, 1);
            self.update(now);
        }
        i32::try_from(self.seconds.unwrap_or(1)).unwrap_or(1)
    }

    fn update(&mut self, now: i64) {
        let seconds = self.seconds.unwrap_or(1);
        let recent = self.history.iter().filter(|(second, _)| now - second <= seconds);
        let refused: i64 = recent.map(|(_, count)| count).sum();
        if now - self.raised >= seconds && refused >= 3 * seconds {
            self.seconds = Some((2 * seconds).min(MAX_SECONDS));
            self.raised = now;
        } else if refused < seconds && seconds > 1 {
            self.seconds = Some(seconds - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_doubles_and_falls() {
        let mut retry = RetryAfter::default();
        let mut ask =
            |second: i64, times: i64| (0..times).map(|_| retry.refused(second)).last().unwrap();
        assert_eq!(ask(100, 10), 1);
        assert_eq!(ask(101, 100), 2);
        assert_eq!(ask(102, 100), 2, "not before two seconds have passed");
        assert_eq!(ask(103, 100), 4);
        let raised: Vec<i32> = (104..300).map(|second| ask(second, 100)).collect();
        assert_eq!(*raised.last().unwrap(), 32);
        let fallen: Vec<i32> = (300..400).map(|second| ask(second * 40, 1)).collect();
        assert_eq!(*fallen.last().unwrap(), 1);
        assert!(retry.history.len() <= 33);
    }
}
