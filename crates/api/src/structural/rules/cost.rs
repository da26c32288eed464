//! What an expression costs at most, estimated before anything is evaluated
//! (`k8s.io/apiserver/pkg/cel/library`, and cel-go's `checker`). Definitions are refused by these
//! figures, so they are upstream's to the last unit.

use cel::common::ast::{Expr, IdedExpr, LiteralValue, operators};

use super::check::{Kind, Known};
use super::value::unescaped;
use crate::structural::node::{Node, Type};
use crate::structural::prune::META_FIELDS;

/// What one rule may cost, over all objects that it is evaluated for.
pub const RULE_MAX: u64 = 10_000_000;
/// What all rules of a version may cost together.
pub const TOTAL_MAX: u64 = 100_000_000;

/// Bytes of the largest request.
const REQUEST: u64 = 3 << 20;
/// Characters of the longest string in a request: its quotes are none.
const TEXT: u64 = REQUEST - 2;
/// Characters of the longest duration and time.
const TIME: u64 = 32;
/// Bytes of a date with its quotes.
const DATE: u32 = 12;
/// What it costs to read a character.
const READ: f64 = 0.1;
/// What a character of a pattern costs for each unit of the text.
const PATTERN: f64 = 0.25;
/// Cost of a list, and of a map, that an expression makes.
pub const LIST: u64 = 10;
pub const MAP: u64 = 30;
pub const STRUCT: u64 = 40;
/// Characters of the longest pattern of a named format, and of its name.
const FORMAT_PATTERN: f64 = 128.0;
const FORMAT: u64 = 64;
/// Cost of a question to the authorizer.
const CHECK: u64 = 350_000;

/// How many elements or characters a value has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub min: u64,
    pub max: u64,
}

impl Size {
    pub const UNKNOWN: Self = Self::up_to(u64::MAX);

    pub const fn exactly(size: u64) -> Self {
        Self { min: size, max: size }
    }

    pub const fn up_to(max: u64) -> Self {
        Self { min: 0, max }
    }

    pub fn plus(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    fn times(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    /// From the smaller to the larger of two.
    pub fn or(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    /// What it costs to read it.
    fn read(self) -> u64 {
        scaled(self.max, READ)
    }
}

/// Rounded up; too large a number is the largest.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "as upstream computes; a float that is too large becomes the largest integer"
)]
fn scaled(number: u64, factor: f64) -> u64 {
    (number as f64 * factor).ceil() as u64
}

/// Where in the schema a value is from.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// `true`: with `apiVersion`, `kind` and `metadata`.
    Node(&'a Node, bool),
    Metadata,
    /// A string of so many characters.
    Text(u64),
    Nowhere,
}

impl<'a> Place<'a> {
    pub fn size(self) -> Option<Size> {
        match self {
            Self::Node(node, _) if node.min_size > 0 => Some(Size::up_to(longest(node))),
            Self::Metadata => Some(Size::up_to(0)),
            Self::Text(longest) => Some(Size::up_to(longest)),
            Self::Node(..) | Self::Nowhere => None,
        }
    }

    pub fn field(self, name: &str) -> Self {
        match self {
            Self::Node(node, resource) if node.ty == Type::Object => {
                let plain = unescaped(name);
                if resource && META_FIELDS.contains(&plain.as_str()) {
                    return if plain == "metadata" { Self::Metadata } else { Self::Text(TEXT) };
                }
                let property = node.property(&plain).filter(|_| node.additional_schema().is_none());
                property.map_or(Self::Nowhere, |property| Self::Node(property, property.embedded))
            }
            Self::Metadata if matches!(name, "name" | "generateName") => Self::Text(TEXT),
            _ => Self::Nowhere,
        }
    }

    /// The elements of a list, or the values of a map.
    pub fn elements(self) -> Self {
        match self {
            Self::Node(node, _) => match node.additional_schema().or(node.items.as_deref()) {
                Some(element) => Self::Node(element, element.embedded),
                None => Self::Nowhere,
            },
            _ => Self::Nowhere,
        }
    }

    pub fn keys(self) -> Self {
        match self {
            Self::Node(node, _) if node.additional_schema().is_some() => Self::Text(0),
            _ => Self::Nowhere,
        }
    }
}

/// How many elements or characters a value of a schema has at most; zero for what has none.
fn longest(node: &Node) -> u64 {
    let limit = |value: Option<i64>| value.map(|value| u64::try_from(value).unwrap_or_default());
    let checks = node.checks.as_deref();
    match node.ty {
        Type::Array => {
            let element = node.items.as_deref().map_or(0, |items| items.min_size);
            limit(checks.and_then(|checks| checks.max_items))
                .unwrap_or(TEXT / (u64::from(element) + 1))
        }
        Type::Object => node.additional_schema().map_or(0, |element| {
            limit(checks.and_then(|checks| checks.max_properties))
                .unwrap_or(TEXT / (u64::from(element.min_size) + 6))
        }),
        Type::String => {
            let length = limit(checks.and_then(|checks| checks.max_length));
            match format(node) {
                "byte" => length.unwrap_or(TEXT),
                "duration" | "date-time" => TIME,
                "date" => u64::from(DATE),
                _ => length.map_or_else(|| longest_value(node), |length| length.saturating_mul(4)),
            }
        }
        Type::IntOrString => limit(checks.and_then(|checks| checks.max_length))
            .map_or(TEXT, |length| length.saturating_mul(4)),
        Type::Any | Type::Integer | Type::Number | Type::Boolean => 0,
    }
}

/// The longest of the values that a string may have.
fn longest_value(node: &Node) -> u64 {
    match node.checks.as_deref() {
        Some(checks) if !checks.values.is_empty() => {
            let lengths = checks.values.iter().filter_map(|value| value.as_str());
            lengths.map(|value| value.len() as u64).max().unwrap_or_default()
        }
        _ => TEXT,
    }
}

/// The format of a string, as it is written.
pub fn format(node: &Node) -> &str {
    let format = node.checks.as_deref().and_then(|checks| checks.format.as_ref());
    format.map_or("", |(_, name)| name)
}

/// Bytes of the smallest value of a schema as JSON; zero if expressions do not see such values.
pub fn smallest(node: &Node) -> u32 {
    match node.ty {
        Type::Any => 0,
        Type::Boolean => 4,
        Type::Integer | Type::Number | Type::IntOrString => 1,
        Type::String => match format(node) {
            "duration" => 3,
            "date" => DATE,
            "date-time" => 21,
            _ => 2,
        },
        Type::Array => match node.items.as_deref() {
            Some(items) if items.min_size > 0 => 2,
            _ => 0,
        },
        Type::Object => match node.additional_schema() {
            Some(element) => {
                if element.min_size > 0 {
                    2
                } else {
                    0
                }
            }
            None => {
                let required = node.checks.as_deref().map_or(&[][..], |checks| &checks.required);
                let fields = required.iter().collect::<std::collections::BTreeSet<_>>();
                let field = |name: &String| {
                    let property = node.property(name)?;
                    let is_counted = property.min_size > 0 && property.default.is_none();
                    let name = u32::try_from(name.len()).unwrap_or(u32::MAX);
                    is_counted.then(|| property.min_size.saturating_add(name).saturating_add(4))
                };
                fields.into_iter().filter_map(field).fold(2, u32::saturating_add)
            }
        },
    }
}

/// How often a value of a schema can be in a request, where no limit above it says so.
pub fn how_often(node: &Node) -> u64 {
    REQUEST / (u64::from(node.min_size) + 1)
}

/// How many values there can be below each value of a schema; `None`: it sets no limit.
pub fn factor(node: &Node) -> Option<u64> {
    let checks = node.checks.as_deref();
    let limit = match node.ty {
        Type::Object if node.additional.is_some() => {
            checks.and_then(|checks| checks.max_properties)?
        }
        Type::Array => checks.and_then(|checks| checks.max_items)?,
        _ => return Some(1),
    };
    Some(u64::try_from(limit).unwrap_or_default())
}

/// A call: its cost without that of its operands, and the size of its result if that is known.
pub fn call(
    name: &str,
    target: Option<&Known<'_>>,
    args: &[Known<'_>],
    sources: &[IdedExpr],
) -> (u64, Option<Size>) {
    match (name, target, args) {
        ("check", Some(_), _) => (CHECK, None),
        (
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" | "includes",
            Some(target),
            _,
        ) => {
            let Some(element) = element_size(target) else {
                let size = target.size();
                // What is included may be in a list.
                return (if name == "includes" { size.max } else { size.read() }, None);
            };
            let each = match target.inner.name() {
                Some("string" | "bytes") => element.read().saturating_add(1),
                _ => 1,
            };
            (target.size().max.saturating_mul(each), None)
        }
        ("url", None, [text]) => (text.size().read(), Some(text.size())),
        ("cidr" | "ip" | "isIP" | "isCIDR", None, [text])
        | ("quantity" | "isQuantity" | "semver" | "isSemver", None, [text, ..]) => {
            (text.size().read(), None)
        }
        ("lowerAscii" | "upperAscii" | "substring" | "trim", Some(target), _) => {
            (target.size().read(), Some(target.size()))
        }
        ("replace", Some(target), [from, to, ..]) => {
            let size = replaced(target.size(), from.size(), to.size());
            (scaled(target.size().max, 2.0 * READ), Some(size))
        }
        ("split", Some(target), _) => {
            let limit = match sources.get(1).map(|source| &source.expr) {
                Some(Expr::Literal(LiteralValue::Int(limit))) => u64::try_from(*limit.inner()).ok(),
                _ => None,
            };
            let size = Size::up_to(limit.unwrap_or(target.size().max));
            (scaled(target.size().max, 2.0 * READ), Some(size))
        }
        ("join", Some(target), _) => {
            let list = target.size();
            let mut size = element_size(target).map_or(Size::exactly(0), |each| list.times(each));
            if let Some(separator) = args.first() {
                let gaps =
                    Size { min: list.min.saturating_sub(1), max: list.max.saturating_sub(1) };
                size = size.plus(separator.size().times(gaps));
            }
            (size.read(), Some(size))
        }
        ("find" | "findAll", Some(target), [pattern, ..]) => {
            (matching(target, pattern), Some(Size::up_to(target.size().max)))
        }
        ("containsIP" | "containsCIDR", Some(_), [other, ..]) => {
            // Two addresses of sixteen bytes are compared; a network is masked before.
            let compared = if name == "containsIP" { 4 } else { 7 };
            let parsed = if other.may_be("string") { other.size().read() } else { 0 };
            (parsed.saturating_add(compared), None)
        }
        ("validate", Some(_), [text, ..]) => {
            (scaled(text.size().read(), FORMAT_PATTERN * PATTERN), None)
        }
        ("format", Some(target), [args]) => {
            (target.size().read(), Some(target.size().plus(args.size())))
        }
        ("bytes", None, [text]) if text.may_be("string") => {
            let size = text.size();
            (size.read(), Some(Size { min: size.min, max: size.max.saturating_mul(4) }))
        }
        ("string", None, [bytes]) if bytes.may_be("bytes") => {
            let size = bytes.size();
            (size.read(), Some(Size { min: size.min / 4, max: size.max }))
        }
        ("startsWith" | "endsWith", Some(_), [text]) => (text.size().read(), None),
        ("matches", Some(target), [pattern]) => (matching(target, pattern), None),
        ("matches", None, [text, pattern]) => (matching(text, pattern), None),
        ("contains", Some(target), [part]) => {
            (target.size().read().saturating_mul(part.size().read()), None)
        }
        _ => operator(name, args),
    }
}

/// The same for an operator, and for functions that cost one unit.
fn operator(name: &str, args: &[Known<'_>]) -> (u64, Option<Size>) {
    match (name, args) {
        (operators::EQUALS, [one, other]) if one.kind.name() == other.kind.name() => {
            let cost = match one.kind.name() {
                Some("net.IP" | "net.CIDR" | "kubernetes.Quantity" | "kubernetes.Semver") => 1,
                Some("kubernetes.NamedFormat") => scaled(FORMAT, READ),
                Some("kubernetes.URL") => one.size().or(other.size()).read(),
                _ => compared(one, other),
            };
            (cost, None)
        }
        (operators::IN, [_, list]) => match list.kind.name() {
            Some("list") => (list.size().max, None),
            Some(_) => (1, None),
            None => (list.size().max.max(1), None),
        },
        (operators::LOGICAL_AND | operators::LOGICAL_OR, _) => (0, None),
        (operators::ADD, [one, other]) => {
            let both = |name| one.may_be(name) && other.may_be(name);
            let size = one.size().plus(other.size());
            match (both("string") || both("bytes"), both("list")) {
                (true, _) => (size.read().max(1), Some(size)),
                (false, true) => (1, Some(size)),
                (false, false) => (1, None),
            }
        }
        (
            operators::LESS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS,
            [one, other],
        ) => {
            let both = |name| one.may_be(name) && other.may_be(name);
            if both("string") || both("bytes") {
                let cost = compared(one, other);
                let is_sure = one.kind.name().is_some() || other.kind.name().is_some();
                (if is_sure { cost } else { cost.max(1) }, None)
            } else {
                (1, None)
            }
        }
        (operators::EQUALS | operators::NOT_EQUALS, [one, other]) => (compared(one, other), None),
        _ => (1, None),
    }
}

/// `sets.contains(...)` and the like: each element of one list is compared with each of the other.
pub fn namespaced(namespace: &str, name: &str, args: &[Known<'_>]) -> u64 {
    match (namespace, name, args) {
        ("ip", _, [text]) => scaled(text.size().max, 2.0 * READ),
        ("jsonpatch", _, [text]) => text.size().read(),
        ("sets", _, [one, other]) => {
            let pairs = one.size().max.saturating_mul(other.size().max);
            let passes = if name == "equivalent" { 2 } else { 1 };
            pairs.saturating_mul(passes).saturating_add(1)
        }
        _ => 1,
    }
}

/// Both are read until they differ.
fn compared(one: &Known<'_>, other: &Known<'_>) -> u64 {
    scaled(one.size().max.min(other.size().max), READ)
}

fn matching(text: &Known<'_>, pattern: &Known<'_>) -> u64 {
    let text = text.size().plus(Size::exactly(1)).read();
    text.saturating_mul(scaled(pattern.size().max, PATTERN))
}

/// The size of a list's elements; `None` if it is none.
fn element_size(list: &Known<'_>) -> Option<Size> {
    let is_list = list.kind.name() == Some("list");
    let size = |place: Place<'_>| place.elements().size();
    is_list.then(|| list.place.and_then(size).unwrap_or(Size::UNKNOWN))
}

/// The size of a text in which something is replaced: as often as possible by the longest, and as
/// rarely by the shortest.
fn replaced(text: Size, from: Size, to: Size) -> Size {
    let times = |length: u64, each: u64| length.div_ceil(each);
    let (most, kept_most) = match from.min {
        // Nothing is between all characters.
        0 => (text.max.saturating_add(1), text.max),
        shortest if to.max <= shortest => (0, text.max),
        shortest => (times(text.max, shortest), 0),
    };
    let (fewest, kept_fewest) = match from.max {
        0 => (text.min.saturating_add(1), text.min),
        longest if longest <= to.min => (0, text.min),
        longest => (times(text.min, longest), 0),
    };
    let count = Size { min: fewest, max: most };
    count.times(to).plus(Size { min: kept_fewest, max: kept_most })
}

/// What a definition says of a cost that is too high.
pub fn exceeded(what: &str, cost: u64, limit: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "only the first digits are shown")]
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

/// The size of a value of a type that has only one.
pub fn of_kind(kind: Kind<'_>) -> Option<Size> {
    let is_scalar =
        matches!(kind.name(), Some("bool" | "int" | "uint" | "double" | "duration" | "timestamp"));
    is_scalar.then_some(Size::exactly(1))
}

#[cfg(test)]
mod tests;
