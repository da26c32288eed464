//! Cron schedules as Kubernetes reads them (`github.com/robfig/cron`'s standard parser): five
//! fields, macros such as `@hourly`, and `@every 1h30m`.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// When a CronJob is due.
#[derive(Clone, Debug)]
pub struct Schedule {
    kind: Kind,
    zone: TimeZone,
}

#[derive(Clone, Debug)]
enum Kind {
    Cron(Box<croner::Cron>),
    /// A fixed interval in whole seconds, counted from the last run.
    Every(SignedDuration),
}

/// Missed times are counted up to this number; beyond it only the latest matters.
pub const MISSED_MAX: usize = 100;

/// The latest time that is due, and how many were missed (at most one more than [`MISSED_MAX`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    pub at: Timestamp,
    pub missed: usize,
}

/// Why there is no schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScheduleError {
    Zone { zone: String, message: String },
    Text(String),
}

impl Kind {
    fn parse(text: &str) -> Result<Self, String> {
        if text.contains("TZ=") {
            return Err("a time zone belongs in spec.timeZone".into());
        }
        let kind = match text.strip_prefix("@every ") {
            Some(span) => {
                let span: SignedDuration =
                    span.trim().parse().map_err(|error| format!("{error}"))?;
                if span.as_secs() < 1 {
                    return Err(format!("{text}: shorter than a second"));
                }
                Kind::Every(SignedDuration::from_secs(span.as_secs()))
            }
            None => {
                let cron: croner::Cron =
                    text.parse().map_err(|error| format!("{text}: {error}"))?;
                Kind::Cron(Box::new(cron))
            }
        };
        Ok(kind)
    }
}

impl Schedule {
    /// `zone`: an IANA name; `None`: UTC.
    ///
    /// # Errors
    /// When the schedule or the time zone is malformed.
    pub fn parse(text: &str, zone: Option<&str>) -> Result<Self, ScheduleError> {
        let zone = match zone {
            None => TimeZone::UTC,
            Some(zone) => TimeZone::get(zone).map_err(|error| ScheduleError::Zone {
                zone: zone.to_owned(),
                message: error.to_string(),
            })?,
        };
        let kind = Kind::parse(text).map_err(ScheduleError::Text)?;
        Ok(Self { kind, zone })
    }

    /// The first time after `after`. `None`: there is none (February 30th).
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.kind {
            Kind::Every(span) => after.checked_add(*span).ok(),
            Kind::Cron(cron) => {
                let after = after.to_zoned(self.zone.clone());
                let next = cron.find_next_occurrence(&after, false).ok()?;
                Some(next.timestamp())
            }
        }
    }

    /// The latest time after `after` and not after `now`.
    pub fn due(&self, after: Timestamp, now: Timestamp) -> Option<Due> {
        let first = self.next(after).filter(|first| *first <= now)?;
        if let Kind::Every(span) = &self.kind {
            let more = now.duration_since(first).as_secs() / span.as_secs();
            let at = first.checked_add(SignedDuration::from_secs(more * span.as_secs())).ok()?;
            let missed = usize::try_from(more).unwrap_or(usize::MAX).saturating_add(1);
            return Some(Due { at, missed: missed.min(MISSED_MAX + 1) });
        }
        let mut due = Due { at: first, missed: 1 };
        while let Some(next) = self.next(due.at).filter(|next| *next <= now) {
            due.at = next;
            due.missed += 1;
            if due.missed > MISSED_MAX {
                due.at = self.last_before(now).unwrap_or(due.at);
                break;
            }
        }
        Some(due)
    }

    fn last_before(&self, now: Timestamp) -> Option<Timestamp> {
        let Kind::Cron(cron) = &self.kind else {
            return None;
        };
        let now = now.to_zoned(self.zone.clone());
        let last = cron.find_previous_occurrence(&now, true).ok()?;
        Some(last.timestamp())
    }

    /// How long until the next time after `now`.
    pub fn wait(&self, last: Timestamp, now: Timestamp) -> Option<Duration> {
        let from = match &self.kind {
            Kind::Every(_) => last,
            Kind::Cron(_) => now,
        };
        let mut next = self.next(from)?;
        if next <= now {
            next = self.next(now)?;
        }
        Duration::try_from(next.duration_since(now)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_next_time() {
        let after = time("2026-03-01T10:07:30Z");
        for (text, zone, next) in [
            ("*/5 * * * *", None, "2026-03-01T10:10:00Z"),
            ("0 9 * * 1-5", None, "2026-03-02T09:00:00Z"),
            ("@hourly", None, "2026-03-01T11:00:00Z"),
            ("@every 90s", None, "2026-03-01T10:09:00Z"),
            ("0 0 * * *", Some("America/New_York"), "2026-03-02T05:00:00Z"),
            ("0 12 13 * 5", None, "2026-03-06T12:00:00Z"),
        ] {
            let schedule = Schedule::parse(text, zone).unwrap();
            assert_eq!(schedule.next(after), Some(time(next)), "{text}");
        }
        assert!(Schedule::parse("0 0 30 2 *", None).is_ok_and(|s| s.next(after).is_none()));
        for text in ["", "* * * *", "61 * * * *", "TZ=UTC * * * * *", "@every 10ms"] {
            assert!(Schedule::parse(text, None).is_err(), "{text}");
        }
        assert!(Schedule::parse("* * * * *", Some("Nowhere/Town")).is_err());
    }

    #[test]
    fn the_last_due_time_counts_what_was_missed() {
        let schedule = Schedule::parse("*/10 * * * *", None).unwrap();
        let from = time("2026-03-01T10:00:00Z");
        assert_eq!(schedule.due(from, time("2026-03-01T10:09:59Z")), None);
        assert_eq!(
            schedule.due(from, time("2026-03-01T10:35:00Z")),
            Some(Due { at: time("2026-03-01T10:30:00Z"), missed: 3 })
        );
        let late = schedule.due(from, time("2026-04-01T10:35:00Z")).unwrap();
        assert_eq!((late.at, late.missed), (time("2026-04-01T10:30:00Z"), 101));
        let every = Schedule::parse("@every 1m", None).unwrap();
        assert_eq!(
            every.due(from, time("2026-03-01T10:03:30Z")),
            Some(Due { at: time("2026-03-01T10:03:00Z"), missed: 3 })
        );
    }
}
