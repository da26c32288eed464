//! How priority levels lend one another seats: from time to time, the seats are divided anew by what
//! the levels could use (upstream's KEP-1040).

use super::demand::Demand;

/// The least target, so that nothing is divided by zero.
const TARGET_MIN: f64 = 0.001;
const EPSILON: f64 = 1e-7;

/// The limits of a level, in seats.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    pub exempt: bool,
    pub nominal: u32,
    /// What it keeps, whoever else needs seats.
    pub min: u32,
    /// What it can have with all that it may borrow.
    pub max: u32,
}

/// What a level gets.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Allocation {
    pub seats: u32,
    pub target: f64,
}

/// Divides the seats among levels. Also returns the fraction of its target that a level gets whose
/// limits do not matter.
///
/// A level that needs seats it has lent gets them back before anybody borrows: none is given less
/// than it used lately, up to its nominal limit, unless exempt requests took the seats.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub fn adjust(levels: &[(Limits, Demand)]) -> (Vec<Allocation>, f64) {
    let wanted = |limits: &Limits, demand: &Demand| -> u32 {
        let high = demand.high_watermark as u32;
        limits.min.max(if limits.exempt { high } else { limits.nominal.min(high) })
    };
    let total: i64 = levels.iter().map(|(limits, _)| i64::from(limits.nominal)).sum();
    let (mut left, mut min_sum, mut wanted_sum) = (total, 0_i64, 0_i64);
    let mut items = Vec::new();
    for (limits, demand) in levels {
        let lower = wanted(limits, demand);
        if limits.exempt {
            left -= i64::from(lower);
            continue;
        }
        let target = f64::from(lower).max(demand.smoothed);
        items.push(Item { target, lower: f64::from(lower), upper: f64::from(limits.max) });
        min_sum += i64::from(limits.min);
        wanted_sum += i64::from(lower);
    }
    let mut fraction = 0.0;
    let shared = if left <= wanted_sum {
        None
    } else {
        #[allow(clippy::cast_precision_loss)]
        let shared = allocate(total as f64, &items);
        fraction = shared.as_ref().map_or(0.0, |(_, fraction)| *fraction);
        shared.map(|(seats, _)| seats)
    };
    let mut index = 0;
    let allocations = levels.iter().map(|(limits, demand)| {
        let lower = wanted(limits, demand);
        if limits.exempt {
            return Allocation { seats: lower, target: f64::from(lower) };
        }
        let (item, at) = (items[index], index);
        index += 1;
        #[allow(clippy::cast_precision_loss)]
        let seats = if left <= min_sum {
            limits.min
        } else if left <= wanted_sum {
            let part = (left - min_sum) as f64 / (wanted_sum - min_sum) as f64;
            limits.min + (f64::from(lower - limits.min) * part).round() as u32
        } else {
            shared.as_ref().map_or(limits.nominal, |seats| seats[at].round() as u32)
        };
        Allocation { seats, target: item.target }
    });
    (allocations.collect(), fraction)
}

#[derive(Clone, Copy, Debug)]
struct Item {
    target: f64,
    lower: f64,
    upper: f64,
}

impl Item {
    /// What it gets of a fraction of its target.
    fn at(&self, fraction: f64) -> f64 {
        (fraction * self.target.max(TARGET_MIN)).clamp(self.lower, self.upper)
    }
}

/// The allocations that add up to `sum` and are the same fraction of each target, as far as the
/// bounds allow, and that fraction. `None`: the bounds do not allow any.
fn allocate(sum: f64, items: &[Item]) -> Option<(Vec<f64>, f64)> {
    let low: f64 = items.iter().map(|item| item.lower).sum();
    let high: f64 = items.iter().map(|item| item.upper).sum();
    if items.is_empty() || low - sum > EPSILON || sum - high > EPSILON {
        return None;
    }
    let at = |fraction: f64| items.iter().map(|item| item.at(fraction)).sum::<f64>();
    // The sum rises with the fraction, in straight lines between the bounds of the items.
    let mut bounds: Vec<f64> = items
        .iter()
        .flat_map(|item| [item.lower, item.upper].map(|bound| bound / item.target.max(TARGET_MIN)))
        .collect();
    bounds.sort_by(f64::total_cmp);
    let above = bounds.iter().position(|bound| at(*bound) >= sum - EPSILON)?;
    let to = bounds[above];
    let from = if above == 0 { 0.0 } else { bounds[above - 1] };
    let (lower, upper) = (at(from), at(to));
    let fraction = if upper - lower > EPSILON {
        from + (to - from) * ((sum - lower) / (upper - lower)).clamp(0.0, 1.0)
    } else {
        to
    };
    Some((items.iter().map(|item| item.at(fraction)).collect(), fraction))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn level(nominal: u32, lent: u32, high: f64, smoothed: f64) -> (Limits, Demand) {
        let limits = Limits { exempt: false, nominal, min: nominal - lent, max: 1_000 };
        let demand = Demand { high_watermark: high, smoothed, ..Demand::default() };
        (limits, demand)
    }

    fn seats(levels: &[(Limits, Demand)]) -> Vec<u32> {
        adjust(levels).0.iter().map(|allocation| allocation.seats).collect()
    }

    #[test]
    fn idle_seats_are_lent_and_come_back() {
        // The first could use all, the second uses none and lends half.
        let busy = level(50, 25, 200.0, 200.0);
        let idle = level(50, 25, 0.0, 0.0);
        assert_eq!(seats(&[busy, idle]), [75, 25]);
        // Both could use more than they have: each has its own.
        assert_eq!(seats(&[busy, busy]), [50, 50]);
    }

    #[test]
    fn exempt_requests_take_seats_first() {
        let exempt = (
            Limits { exempt: true, ..Limits::default() },
            Demand { high_watermark: 60.0, ..Demand::default() },
        );
        assert_eq!(
            seats(&[exempt, level(50, 25, 50.0, 50.0), level(50, 25, 50.0, 50.0)]),
            [60, 25, 25]
        );
    }

    proptest! {
        /// Nobody has less than its minimum or more than its maximum, and all together have what
        /// there is, but for rounding.
        #[test]
        fn allocations_keep_their_bounds(
            given in prop::collection::vec((1_u32..200, 0_u32..=100, 0_u32..400, 0.0_f64..400.0), 1..9)
        ) {
            let levels: Vec<_> = given
                .iter()
                .map(|(nominal, percent, high, smoothed)| {
                    level(*nominal, nominal * percent / 100, f64::from(*high), *smoothed)
                })
                .collect();
            let all = seats(&levels);
            for (seats, (limits, demand)) in all.iter().zip(&levels) {
                prop_assert!(*seats >= limits.min && *seats <= limits.max);
                // What it used it has, up to its nominal limit.
                prop_assert!(f64::from(*seats) >= demand.high_watermark.min(f64::from(limits.nominal)));
            }
            let total: u32 = levels.iter().map(|(limits, _)| limits.nominal).sum();
            let sum: u32 = all.iter().sum();
            prop_assert!(sum.abs_diff(total) <= u32::try_from(levels.len()).unwrap(), "{} {}", sum, total);
        }
    }
}
