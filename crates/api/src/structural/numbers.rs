//! Ranges and multiples of numbers (`k8s.io/kube-openapi`, `validation/validate/values.go`).
//! Integers are compared as integers, to which the schema's bounds are then cut.

use serde_json::Number;

use super::format::Format;
use super::go;
use super::node::{Checks, Type};
use super::path::Path;

/// A number as Go decodes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decoded {
    Integer(i64),
    Float(f64),
}

impl Decoded {
    pub fn of(number: &Number) -> Self {
        match number.as_i64() {
            Some(integer) => Self::Integer(integer),
            None => Self::Float(number.as_f64().unwrap_or(f64::MAX)),
        }
    }

    pub fn as_float(self) -> f64 {
        match self {
            Self::Integer(integer) => integer as f64,
            Self::Float(float) => float,
        }
    }

    /// As errors show it.
    pub fn text(self) -> String {
        match self {
            Self::Integer(integer) => integer.to_string(),
            Self::Float(float) => go::float(float),
        }
    }
}

/// Whether a float is an integer for JSON: within what it represents exactly, and to within a
/// relative error.
pub fn is_integer(number: f64) -> bool {
    const LARGEST: f64 = 9_007_199_254_740_991.0;
    const EPSILON: f64 = 1e-9;
    if !number.is_finite() || number.abs() > LARGEST {
        return false;
    }
    let whole = number.trunc();
    if number == whole {
        return true;
    }
    let difference = (number - whole).abs();
    whole != 0.0 && difference / (number.abs() + whole.abs()) < EPSILON
}

/// A number that is refused.
pub struct Refusal {
    /// Whether the value is at fault, and not the schema's own bound.
    pub about_value: bool,
    pub detail: String,
}

/// What is wrong with a number.
pub fn check(number: Decoded, ty: Type, checks: &Checks, path: &Path<'_>) -> Vec<Refusal> {
    let format = checks.format.as_ref().map(|(format, _)| *format);
    let range = |number: Decoded, prefix: &str| out_of_range(number, ty, format, prefix, path);
    let mut found: Vec<Refusal> = range(number, "Checked").into_iter().collect();
    let of_value = |detail: String| Refusal { about_value: true, detail };
    if let Some(factor) = checks.multiple_of {
        let misfit = range(Decoded::Float(factor), "MultipleOf");
        let native = misfit.is_none();
        found.extend(misfit);
        found.extend(multiple(number, factor, native, path).map(of_value));
    }
    for (bound, exclusive, is_minimum) in [
        (checks.minimum, checks.exclusive_minimum, true),
        (checks.maximum, checks.exclusive_maximum, false),
    ] {
        let Some(bound) = bound else {
            continue;
        };
        let prefix = if is_minimum { "Minimum boundary" } else { "Maximum boundary" };
        let misfit = range(Decoded::Float(bound), prefix);
        let native = misfit.is_none();
        found.extend(misfit);
        found.extend(self::bound(number, bound, exclusive, is_minimum, native, path).map(of_value));
    }
    found
}

/// The error of a number that its type or format cannot hold.
fn out_of_range(
    number: Decoded,
    ty: Type,
    format: Option<Format>,
    prefix: &str,
    path: &Path<'_>,
) -> Option<Refusal> {
    let integer = || match number {
        Decoded::Integer(integer) => Some(integer),
        // Below two to the 63rd, where the conversion is exact.
        Decoded::Float(float) if float.trunc() == float && float.abs() < 9.2e18 => {
            Some(float as i64)
        }
        Decoded::Float(_) => None,
    };
    let (fits, name) = match (ty, format) {
        (Type::Integer, Some(Format::Int32)) => {
            (integer().is_some_and(|integer| i32::try_from(integer).is_ok()), "int32")
        }
        (Type::Integer, Some(Format::Int64)) => (integer().is_some(), "int64"),
        (Type::Integer, _) => (integer().is_some(), ""),
        (Type::Number, Some(Format::Float)) => {
            (number.as_float().abs() <= f64::from(f32::MAX), "float")
        }
        _ => (true, ""),
    };
    let kind = ty.name();
    (!fits).then(|| Refusal {
        about_value: false,
        detail: match name {
            "" => format!("{prefix} value must be of type {kind} (default format) in {path}"),
            name => format!("{prefix} value must be of type {kind} with format {name} in {path}"),
        },
    })
}

fn multiple(number: Decoded, factor: f64, native: bool, path: &Path<'_>) -> Option<String> {
    let negative = |factor: String| {
        format!("factor MultipleOf declared for {path} must be positive: {factor}")
    };
    let not = |factor: String| format!("{path} in body should be a multiple of {factor}");
    if let (Decoded::Integer(integer), true) = (number, native) {
        let factor = factor as i64;
        return match factor {
            ..=0 => Some(negative(factor.to_string())),
            _ if integer % factor != 0 => Some(not(factor.to_string())),
            _ => None,
        };
    }
    let number = number.as_float();
    if factor <= 0.0 {
        return Some(negative(go::float(factor)));
    }
    let quotient = if factor < 1.0 { 1.0 / factor * number } else { number / factor };
    (!is_integer(quotient)).then(|| not(go::float(factor)))
}

fn bound(
    number: Decoded,
    bound: f64,
    exclusive: bool,
    is_minimum: bool,
    native: bool,
    path: &Path<'_>,
) -> Option<String> {
    let (order, text) = match (number, native) {
        (Decoded::Integer(integer), true) => {
            let bound = bound as i64;
            (integer.partial_cmp(&bound), bound.to_string())
        }
        (number, _) => (number.as_float().partial_cmp(&bound), go::float(bound)),
    };
    let order = if is_minimum { order.map(std::cmp::Ordering::reverse) } else { order };
    let beyond = order.is_some_and(|order| order.is_gt() || (exclusive && order.is_eq()));
    let relation = match (is_minimum, exclusive) {
        (true, true) => "greater than",
        (true, false) => "greater than or equal to",
        (false, true) => "less than",
        (false, false) => "less than or equal to",
    };
    beyond.then(|| format!("{path} in body should be {relation} {text}"))
}
