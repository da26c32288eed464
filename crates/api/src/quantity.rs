//! Resource quantities: `100m`, `1.5Gi`, `2e3` (`k8s.io/apimachinery/pkg/api/resource`).
//!
//! A quantity is an integer of nano-units, the smallest step that Kubernetes supports, and the
//! suffix family it was written with, which its canonical text keeps.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

/// Nano-units in one unit.
const NANO: i128 = 1_000_000_000;
/// Kubernetes caps quantities at 2^63-1 units.
const MAX: i128 = i64::MAX as i128 * NANO;

/// The family of suffixes a quantity is printed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `m`, `k`, `M`, ...
    #[default]
    DecimalSi,
    /// `Ki`, `Mi`, ...
    BinarySi,
    /// `e3`, `E6`, ...
    DecimalExponent,
}

/// An amount of a resource. Equality and order are by amount.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// The text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)]
pub struct ParseQuantityError;

impl Quantity {
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    pub fn from_units(units: i64) -> Self {
        Self { nanos: i128::from(units) * NANO, format: Format::DecimalSi }
    }

    pub fn from_millis(millis: i64) -> Self {
        Self { nanos: i128::from(millis) * (NANO / 1000), format: Format::DecimalSi }
    }

    /// Billionths of a unit.
    pub fn from_nanos(nanos: u64) -> Self {
        Self { nanos: nanos.into(), format: Format::DecimalSi }
    }

    /// A number of bytes, printed with binary suffixes.
    pub fn from_bytes(bytes: u64) -> Self {
        Self { nanos: (i128::from(bytes) * NANO).min(MAX), format: Format::BinarySi }
    }

    /// Whole units, rounded up (away from zero), as Kubernetes' `Value()`.
    pub fn units(self) -> i64 {
        self.scaled(NANO)
    }

    /// Thousandths, rounded up (away from zero), as Kubernetes' `MilliValue()`.
    pub fn millis(self) -> i64 {
        self.scaled(NANO / 1000)
    }

    fn scaled(self, step: i128) -> i64 {
        let up = if self.nanos >= 0 {
            (self.nanos + step - 1) / step
        } else {
            (self.nanos - step + 1) / step
        };
        i64::try_from(up).unwrap_or(if up > 0 { i64::MAX } else { i64::MIN })
    }

    /// Rounded up to whole thousandths, as resource lists are stored.
    pub fn rounded_to_millis(self) -> Self {
        self.rounded_up(NANO / 1000)
    }

    /// Rounded up to whole units, as storage is counted.
    pub(crate) fn rounded_to_units(self) -> Self {
        self.rounded_up(NANO)
    }

    fn rounded_up(self, step: i128) -> Self {
        let rest = self.nanos.rem_euclid(step);
        let nanos = if rest == 0 { self.nanos } else { self.nanos - rest + step };
        Self { nanos, ..self }
    }

    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Whether the amount is a whole number of units.
    pub fn is_whole(self) -> bool {
        self.nanos % NANO == 0
    }

    pub fn format(self) -> Format {
        self.format
    }

    /// Parses the text inside an object; an invalid one counts as zero, since stored objects have
    /// been validated.
    pub fn of(text: &Text) -> Self {
        text.0.parse().unwrap_or_default()
    }

    /// The text for inside an object.
    pub fn to_text(self) -> Text {
        Text(self.to_string())
    }
}

/// The sum, in the format of the first operand that is not zero, clamped to Kubernetes' range.
impl std::ops::Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: (self.nanos + other.nanos).clamp(-MAX, MAX), format }
    }
}

impl std::ops::Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + Self { nanos: -other.nanos, format: other.format }
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::ZERO, |sum, item| sum + item)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// Multiplier of a suffix as (base, power), and its family.
fn suffix(text: &str) -> Option<((i128, i32), Format)> {
    Some(match text {
        "n" => ((10, -9), Format::DecimalSi),
        "u" => ((10, -6), Format::DecimalSi),
        "m" => ((10, -3), Format::DecimalSi),
        "" => ((10, 0), Format::DecimalSi),
        "k" => ((10, 3), Format::DecimalSi),
        "M" => ((10, 6), Format::DecimalSi),
        "G" => ((10, 9), Format::DecimalSi),
        "T" => ((10, 12), Format::DecimalSi),
        "P" => ((10, 15), Format::DecimalSi),
        "E" => ((10, 18), Format::DecimalSi),
        "Ki" => ((2, 10), Format::BinarySi),
        "Mi" => ((2, 20), Format::BinarySi),
        "Gi" => ((2, 30), Format::BinarySi),
        "Ti" => ((2, 40), Format::BinarySi),
        "Pi" => ((2, 50), Format::BinarySi),
        "Ei" => ((2, 60), Format::BinarySi),
        exponent => {
            let digits = exponent.strip_prefix(['e', 'E'])?;
            let power: i32 = digits.parse().ok().filter(|power: &i32| power.abs() <= 1000)?;
            ((10, power), Format::DecimalExponent)
        }
    })
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest
            .find(|character: char| !character.is_ascii_digit() && character != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(ParseQuantityError);
        }
        let ((base, power), format) = suffix(tail).ok_or(ParseQuantityError)?;
        let nanos = nanos(whole, fraction, base, power);
        // Amounts below one of a binary unit are printed in decimal, as upstream does.
        let format = if format == Format::BinarySi && nanos < 1024 * NANO && nanos % NANO != 0 {
            Format::DecimalSi
        } else {
            format
        };
        Ok(Self { nanos: if negative { -nanos } else { nanos }, format })
    }
}

/// `whole.fraction * base^power` in nano-units, rounded up, capped at [`MAX`].
fn nanos(whole: &str, fraction: &str, base: i128, power: i32) -> i128 {
    let mut mantissa: i128 = 0;
    // Decimal digits still to shift by: every fraction digit makes it one less.
    let mut shift: i32 = 9 + if base == 10 { power } else { 0 };
    let mut inexact = false;
    let binary = if base == 2 { 1i128 << power } else { 1 };
    for (index, digit) in whole.bytes().chain(fraction.bytes()).enumerate() {
        let in_fraction = index >= whole.len();
        if mantissa > MAX {
            // Past the cap already: only the position of the point matters.
            shift += i32::from(!in_fraction);
            inexact |= digit != b'0';
            continue;
        }
        mantissa = mantissa * 10 + i128::from(digit - b'0');
        shift -= i32::from(in_fraction);
    }
    let mut value = match mantissa.checked_mul(binary) {
        Some(value) => value,
        None if shift >= 0 => return MAX,
        None => {
            // Too many digits for the multiplication: drop those below a nano first.
            let drop = 10i128.pow(u32::try_from(-shift).unwrap_or(0).min(18));
            inexact |= mantissa % drop != 0;
            shift += i32::try_from(drop.ilog10()).unwrap_or(0);
            match (mantissa / drop).checked_mul(binary) {
                Some(value) => value,
                None => return MAX,
            }
        }
    };
    while shift > 0 && value != 0 {
        if value > MAX {
            return MAX;
        }
        value *= 10;
        shift -= 1;
    }
    while shift < 0 && value != 0 {
        inexact |= value % 10 != 0;
        value /= 10;
        shift += 1;
    }
    if mantissa != 0 && inexact {
        value += 1;
    }
    value.min(MAX)
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let sign = if self.nanos < 0 { "-" } else { "" };
        let magnitude = self.nanos.abs();
        if self.format == Format::BinarySi && magnitude % NANO == 0 && magnitude >= 1024 * NANO {
            let (mut units, mut step) = (magnitude / NANO, 0);
            while units % 1024 == 0 && step < 6 {
                units /= 1024;
                step += 1;
            }
            return write!(f, "{sign}{units}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][step]);
        }
        let (mut value, mut power) = (magnitude, -9);
        while value % 1000 == 0 && power < 18 {
            value /= 1000;
            power += 3;
        }
        match (self.format, power) {
            (Format::DecimalExponent, 0) => write!(f, "{sign}{value}"),
            (Format::DecimalExponent, power) => write!(f, "{sign}{value}e{power}"),
            (_, power) => {
                let names = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
                let index = usize::try_from((power + 9) / 3).expect("powers run from -9 to 18");
                write!(f, "{sign}{value}{}", names[index])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Quantity {
        text.parse().unwrap_or_else(|_| panic!("{text}"))
    }

    #[test]
    fn canonical_text() {
        for (text, canonical) in [
            ("0", "0"),
            ("100m", "100m"),
            ("0.1", "100m"),
            ("1000m", "1"),
            ("1.5Gi", "1536Mi"),
            ("1024Ki", "1Mi"),
            ("1000Ki", "1000Ki"),
            ("2e3", "2e3"),
            ("2E3", "2e3"),
            ("1E", "1E"),
            ("1.5", "1500m"),
            ("12e6", "12e6"),
            ("-1Ki", "-1Ki"),
            ("+5", "5"),
            ("0.5Ki", "512"),
            ("123456789", "123456789"),
            ("5000000k", "5G"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("100", "100"),
            (".5", "500m"),
            ("5.", "5"),
            ("0.001Ki", "1024m"),
            ("1e-3", "1e-3"),
            ("9223372036854775807", "9223372036854775807"),
            ("99999999999999999999E", "9223372036854775807"),
        ] {
            assert_eq!(parse(text).to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn values_round_up() {
        assert_eq!(
            (parse("1m").units(), parse("1500u").millis(), parse("250m").millis()),
            (1, 2, 250)
        );
        assert_eq!(
            (parse("1Gi").units(), parse("1.1").units(), parse("-1500m").units()),
            (1 << 30, 2, -2)
        );
    }

    #[test]
    fn invalid_text_is_refused() {
        for text in
            ["", "m", "1x", "1..2", "1 Gi", "1Gib", "e3", "1e", "--1", "0x10", "1e99999", "\u{663}"]
        {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn canonical_text_keeps_the_amount(nanos in -MAX..MAX, exponent in 0..3u8) {
            let format = [Format::DecimalSi, Format::BinarySi, Format::DecimalExponent][usize::from(exponent)];
            let quantity = Quantity { nanos, format };
            prop_assert_eq!(parse(&quantity.to_string()), quantity);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[-+]?[0-9.]{0,40}[a-zA-Z]{0,3}[0-9]{0,4}") {
            if let Ok(quantity) = text.parse::<Quantity>() {
                prop_assert_eq!(parse(&quantity.to_string()), quantity);
            }
        }
    }
}
