//! Values that are numbers or percentages (`k8s.io/apimachinery/pkg/util/intstr`).

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// How a percentage is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    Up,
    Down,
}

/// `value` itself if it is a number, or that percentage of `total`. A malformed percentage counts
/// as 0.
pub fn scaled(value: &IntOrString, total: i32, round: Round) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent =
                text.strip_suffix('%').and_then(|number| number.parse::<i64>().ok()).unwrap_or(0);
            let product = percent * i64::from(total);
            let share = match round {
                Round::Up => (product + 99).div_euclid(100),
                Round::Down => product.div_euclid(100),
            };
            i32::try_from(share).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_rounded() {
        let text = |text: &str| IntOrString::String(text.into());
        for (value, total, up, down) in [
            (IntOrString::Int(3), 10, 3, 3),
            (text("25%"), 10, 3, 2),
            (text("0%"), 10, 0, 0),
            (text("100%"), 7, 7, 7),
            (text("1%"), 1, 1, 0),
            (text("many"), 9, 0, 0),
        ] {
            assert_eq!(scaled(&value, total, Round::Up), up, "{value:?}");
            assert_eq!(scaled(&value, total, Round::Down), down, "{value:?}");
        }
    }
}
