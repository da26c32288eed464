//! How many seats a priority level could use: moments of that number over time.

use super::queue_set::Nanos;

/// How slowly the smoothed demand falls: half of it within five minutes of adjustments
/// (upstream's).
const SMOOTHING: f64 = 0.977;

/// Integrates the demand since its last reset.
#[derive(Clone, Debug, Default)]
pub struct Integrator {
    value: f64,
    since: Nanos,
    elapsed: f64,
    sum: f64,
    squares: f64,
    max: f64,
}

/// Moments of the demand in a period.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    pub seconds: f64,
    pub average: f64,
    pub deviation: f64,
    pub max: f64,
}

impl Integrator {
    /// The demand is `value` from `now` on.
    pub fn set(&mut self, now: Nanos, value: f64) {
        self.advance(now);
        self.value = value;
        self.max = self.max.max(value);
    }

    #[allow(clippy::cast_precision_loss)]
    fn advance(&mut self, now: Nanos) {
        let seconds = now.saturating_sub(self.since) as f64 / 1e9;
        self.since = self.since.max(now);
        self.elapsed += seconds;
        self.sum += seconds * self.value;
        self.squares += seconds * self.value * self.value;
    }

    /// The moments up to `now`, where a new period begins.
    pub fn reset(&mut self, now: Nanos) -> Moments {
        self.advance(now);
        let seconds = self.elapsed;
        let average = if seconds > 0.0 { self.sum / seconds } else { 0.0 };
        let variance = if seconds > 0.0 { self.squares / seconds - average * average } else { 0.0 };
        let moments =
            Moments { seconds, average, deviation: variance.max(0.0).sqrt(), max: self.max };
        *self = Self { value: self.value, since: self.since, max: self.value, ..Self::default() };
        moments
    }
}

/// What the demand of several periods comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    pub average: f64,
    pub deviation: f64,
    pub high_watermark: f64,
    pub smoothed: f64,
}

impl Demand {
    /// Adds a period.
    pub fn update(&mut self, period: Moments) {
        self.high_watermark = period.max.round();
        if period.seconds <= 0.0 {
            return;
        }
        (self.average, self.deviation) = (period.average, period.deviation);
        let envelope = period.average + period.deviation;
        let decayed = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * envelope;
        self.smoothed = envelope.max(decayed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    #[test]
    fn moments_are_weighted_by_time() {
        let mut integrator = Integrator::default();
        integrator.set(SECOND, 4.0);
        integrator.set(3 * SECOND, 1.0);
        let moments = integrator.reset(4 * SECOND);
        // 1 s of 0, 2 s of 4, 1 s of 1.
        assert!((moments.average - 2.25).abs() < 1e-9, "{moments:?}");
        assert!((moments.deviation - (33.0 / 4.0 - 2.25_f64.powi(2)).sqrt()).abs() < 1e-9);
        assert!((moments.max - 4.0).abs() < 1e-9 && (moments.seconds - 4.0).abs() < 1e-9);
        let next = integrator.reset(5 * SECOND);
        assert!((next.max - 1.0).abs() < 1e-9 && (next.average - 1.0).abs() < 1e-9, "{next:?}");
    }

    #[test]
    fn smoothed_demand_rises_at_once_and_falls_slowly() {
        let mut demand = Demand::default();
        let period =
            |average: f64| Moments { seconds: 10.0, average, deviation: 0.0, max: average };
        demand.update(period(100.0));
        assert!((demand.smoothed - 100.0).abs() < 1e-9);
        (0..30).for_each(|_| demand.update(period(0.0)));
        assert!((45.0..55.0).contains(&demand.smoothed), "{demand:?}");
    }
}
