//! Functions of CEL's standard library and of Kubernetes' libraries.

mod kubernetes;
mod lists;
mod strings;

use std::sync::Arc;

use jiff::tz::TimeZone;
use k8s_openapi::jiff;

use super::eval::{Evaluation, Failure, Outcome, fail};
use super::library;
use super::value::{List, Val};
use crate::cel::access;
use crate::structural::go;

/// What functions with a dot in their name begin with.
pub const NAMESPACES: &[&str] =
    &["optional", "sets", "format", "ip", "strings", "lists", JSON_PATCH_LIBRARY];
/// What only mutating policies have.
pub const JSON_PATCH_LIBRARY: &str = "jsonpatch";

/// Functions with a dot.
pub const NAMESPACED: &[(&str, &str)] = &[
    ("optional", "of"),
    ("optional", "none"),
    ("optional", "ofNonZeroValue"),
    ("optional", "unwrap"),
    ("sets", "contains"),
    ("sets", "equivalent"),
    ("sets", "intersects"),
    ("format", "named"),
    ("ip", "isCanonical"),
    ("strings", "quote"),
    ("lists", "range"),
    (JSON_PATCH_LIBRARY, "escapeKey"),
];

/// Functions and methods, with what they return if that is known.
pub const FUNCTIONS: &[(&str, &str)] = &[
    ("size", "int"),
    ("contains", "bool"),
    ("startsWith", "bool"),
    ("endsWith", "bool"),
    ("matches", "bool"),
    ("string", "string"),
    ("int", "int"),
    ("uint", "uint"),
    ("double", "double"),
    ("bool", "bool"),
    ("bytes", "bytes"),
    ("dyn", ""),
    ("type", "type"),
    ("duration", "duration"),
    ("timestamp", "timestamp"),
    ("getFullYear", "int"),
    ("getMonth", "int"),
    ("getDayOfYear", "int"),
    ("getDayOfMonth", "int"),
    ("getDate", "int"),
    ("getDayOfWeek", "int"),
    ("getHours", "int"),
    ("getMinutes", "int"),
    ("getSeconds", "int"),
    ("getMilliseconds", "int"),
    ("charAt", "string"),
    ("indexOf", "int"),
    ("lastIndexOf", "int"),
    ("join", "string"),
    ("lowerAscii", "string"),
    ("upperAscii", "string"),
    ("replace", "string"),
    ("split", "list"),
    ("substring", "string"),
    ("trim", "string"),
    ("format", "string"),
    ("reverse", "list"),
    ("isSorted", "bool"),
    ("sum", ""),
    ("min", ""),
    ("max", ""),
    ("slice", "list"),
    ("flatten", "list"),
    ("distinct", "list"),
    ("sort", "list"),
    ("first", ""),
    ("last", ""),
    ("includes", "bool"),
    ("unwrapOpt", "list"),
    ("find", "string"),
    ("findAll", "list"),
    ("url", "kubernetes.URL"),
    ("isURL", "bool"),
    ("getScheme", "string"),
    ("getHost", "string"),
    ("getHostname", "string"),
    ("getPort", "string"),
    ("getEscapedPath", "string"),
    ("getQuery", "map"),
    ("quantity", "kubernetes.Quantity"),
    ("isQuantity", "bool"),
    ("sign", "int"),
    ("isInteger", "bool"),
    ("asInteger", "int"),
    ("asApproximateFloat", "double"),
    ("add", "kubernetes.Quantity"),
    ("sub", "kubernetes.Quantity"),
    ("compareTo", "int"),
    ("isGreaterThan", "bool"),
    ("isLessThan", "bool"),
    ("ip", "net.IP"),
    ("isIP", "bool"),
    ("family", "int"),
    ("isUnspecified", "bool"),
    ("isLoopback", "bool"),
    ("isLinkLocalMulticast", "bool"),
    ("isLinkLocalUnicast", "bool"),
    ("isGlobalUnicast", "bool"),
    ("cidr", "net.CIDR"),
    ("isCIDR", "bool"),
    ("containsIP", "bool"),
    ("containsCIDR", "bool"),
    ("masked", "net.CIDR"),
    ("prefixLength", "int"),
    ("semver", "kubernetes.Semver"),
    ("isSemver", "bool"),
    ("major", "int"),
    ("minor", "int"),
    ("patch", "int"),
    ("validate", ""),
    ("value", ""),
    ("hasValue", "bool"),
    ("or", ""),
    ("orValue", ""),
];

/// Functions that belong together; `None` if there is none of that name for such values.
type Family<'a> = fn(&mut Evaluation<'a>, &str, &[Val<'a>]) -> Option<Outcome<'a>>;

/// Limit of `lists.range`.
const RANGE_MAX: i64 = 100_000;

impl<'a> Evaluation<'a> {
    /// `sets.contains(...)` and the like.
    pub fn namespaced(&mut self, namespace: &str, name: &str, args: &[Val<'a>]) -> Outcome<'a> {
        Ok(match (namespace, name, args) {
            ("optional", "of", [value]) => Val::some(value.clone()),
            ("optional", "none", []) => Val::Optional(None),
            ("optional", "ofNonZeroValue", [value]) => {
                if is_zero(value) {
                    Val::Optional(None)
                } else {
                    Val::some(value.clone())
                }
            }
            ("optional", "unwrap", [Val::List(list)]) => {
                self.charge(list.len() as u64)?;
                self.read_list(list)?;
                return lists::unwrapped(list);
            }
            ("sets", _, [Val::List(one), Val::List(other)]) => {
                self.charge((one.len() as u64).saturating_mul(other.len() as u64))?;
                Val::Bool(match name {
                    "contains" => self.within(other, one)?,
                    "equivalent" => self.within(one, other)? && self.within(other, one)?,
                    _ => self.intersects(one, other)?,
                })
            }
            ("format", "named", [Val::Text(text)]) => {
                Val::Optional(named(text.as_str()).map(Arc::new))
            }
            ("format", name, []) => return named(name).ok_or(Failure::NoOverload),
            ("ip", "isCanonical", [Val::Text(text)]) => match library::ip(text.as_str()) {
                Some(ip) => Val::Bool(ip.to_string() == text.as_str()),
                None => {
                    self.write(text.as_str().len())?;
                    return fail(format!("IP Address {} parse error", go::quoted(text.as_str())));
                }
            },
            (JSON_PATCH_LIBRARY, _, [Val::Text(key)]) => {
                self.charge(args[0].weight())?;
                Val::text(key.as_str().replace('~', "~0").replace('/', "~1"))
            }
            ("strings", "quote", [Val::Text(text)]) => {
                self.write(text.as_str().len())?;
                let quoted = go::quoted(text.as_str());
                self.write(quoted.len())?;
                Val::text(quoted)
            }
            ("lists", "range", [Val::Int(count)]) if (0..=RANGE_MAX).contains(count) => {
                self.charge(count.unsigned_abs())?;
                Val::list((0..*count).map(Val::Int).collect())
            }
            _ => return Err(Failure::NoOverload),
        })
    }

    /// Whether all elements of one list are in the other.
    fn within(&mut self, one: &List<'a>, other: &List<'a>) -> Result<bool, Failure> {
        for element in one.iter() {
            self.read_list(other)?;
            if !self.has(other, &element)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn intersects(&mut self, one: &List<'a>, other: &List<'a>) -> Result<bool, Failure> {
        for element in one.iter() {
            self.read_list(other)?;
            if self.has(other, &element)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Functions by name; of a method the first value is the target.
    pub fn library(&mut self, name: &str, method: bool, values: Vec<Val<'a>>) -> Outcome<'a> {
        for value in &values {
            // Only what is read as a whole costs by its size.
            if matches!(value, Val::Text(_) | Val::Bytes(_)) {
                self.charge(value.weight())?;
            } else {
                self.read(value.length())?;
            }
        }
        let families: [Family<'a>; 8] = [
            Self::standard,
            Self::conversion,
            Self::strings,
            Self::parts,
            Self::lists,
            Self::time,
            Self::kubernetes,
            Self::access,
        ];
        let all = FUNCTIONS.iter().chain(access::FUNCTIONS);
        let known = all.into_iter().any(|(known, _)| *known == name);
        if !known || (method && values.is_empty()) {
            return Err(Failure::NoOverload);
        }
        for family in families {
            if let Some(outcome) = family(self, name, &values) {
                return outcome;
            }
        }
        Err(Failure::NoOverload)
    }

    fn standard(&mut self, name: &str, values: &[Val<'a>]) -> Option<Outcome<'a>> {
        Some(Ok(match (name, values) {
            ("size", [Val::Text(text)]) => Val::Int(text.as_str().chars().count() as i64),
            ("size", [Val::Bytes(bytes)]) => Val::Int(bytes.len() as i64),
            ("size", [Val::List(list)]) => Val::Int(list.len() as i64),
            ("size", [Val::Map(map)]) => Val::Int(map.len() as i64),
            // Of what is no list.
            ("includes", [one, other]) if !matches!(one, Val::List(_)) => {
                return Some(self.equal(one, other).map(Val::Bool));
            }
            ("contains", [Val::Text(text), Val::Text(part)]) => {
                Val::Bool(text.as_str().contains(part.as_str()))
            }
            ("startsWith", [Val::Text(text), Val::Text(part)]) => {
                Val::Bool(text.as_str().starts_with(part.as_str()))
            }
            ("endsWith", [Val::Text(text), Val::Text(part)]) => {
                Val::Bool(text.as_str().ends_with(part.as_str()))
            }
            ("matches", [Val::Text(text), Val::Text(pattern)]) => {
                let regex = self.matcher(text.as_str(), pattern.as_str());
                return Some(regex.map(|regex| Val::Bool(regex.is_match(text.as_str()))));
            }
            ("type", [value]) => Val::Type(value.type_name()),
            ("dyn", [value]) => value.clone(),
            ("hasValue", [Val::Optional(value)]) => Val::Bool(value.is_some()),
            ("value", [Val::Optional(Some(value))]) => (**value).clone(),
            ("value", [Val::Optional(None)]) => return Some(fail("optional.none() dereference")),
            ("orValue", [Val::Optional(value), other]) => value.as_deref().unwrap_or(other).clone(),
            ("or", [one @ Val::Optional(value), other]) => {
                if value.is_some() {
                    one.clone()
                } else {
                    other.clone()
                }
            }
            _ => return None,
        }))
    }

    fn conversion(&mut self, name: &str, values: &[Val<'a>]) -> Option<Outcome<'a>> {
        let [value] = values else {
            return None;
        };
        let bad =
            |what: &str| Some(fail(format!("type conversion error from 'string' to '{what}'")));
        Some(Ok(match (name, value) {
            ("string", Val::Text(_))
            | ("int", Val::Int(_))
            | ("uint", Val::Uint(_))
            | ("double", Val::Double(_))
            | ("bool", Val::Bool(_))
            | ("bytes", Val::Bytes(_))
            | ("timestamp", Val::Timestamp(_))
            | ("duration", Val::Duration(_)) => value.clone(),
            ("string", Val::Bytes(bytes)) => match std::str::from_utf8(bytes) {
                Ok(text) => Val::text(text),
                Err(_) => return Some(fail("invalid UTF-8 in bytes, cannot convert to string")),
            },
            ("string", value) => match printed(value) {
                Some(text) => Val::text(text),
                None => return None,
            },
            ("int", Val::Uint(number)) => match i64::try_from(*number) {
                Ok(number) => Val::Int(number),
                Err(_) => return Some(fail("integer overflow")),
            },
            ("int", Val::Double(number)) if number.abs() < 9.2e18 => Val::Int(*number as i64),
            ("int" | "uint", Val::Double(_)) => return Some(fail("integer overflow")),
            ("int", Val::Text(text)) => match text.as_str().parse() {
                Ok(number) => Val::Int(number),
                Err(_) => return bad("int"),
            },
            ("int", Val::Timestamp(time)) => Val::Int(time.as_second()),
            ("uint", Val::Int(number)) => match u64::try_from(*number) {
                Ok(number) => Val::Uint(number),
                Err(_) => return Some(fail("unsigned integer overflow")),
            },
            ("uint", Val::Text(text)) => match text.as_str().parse() {
                Ok(number) => Val::Uint(number),
                Err(_) => return bad("uint"),
            },
            ("double", Val::Int(_) | Val::Uint(_)) => Val::Double(value.as_double()?),
            ("double", Val::Text(text)) => match text.as_str().parse() {
                Ok(number) => Val::Double(number),
                Err(_) => return bad("double"),
            },
            ("bool", Val::Text(text)) => match text.as_str() {
                "true" | "True" | "TRUE" | "t" | "1" => Val::Bool(true),
                "false" | "False" | "FALSE" | "f" | "0" => Val::Bool(false),
                _ => return bad("bool"),
            },
            ("bytes", Val::Text(text)) => Val::Bytes(text.as_str().as_bytes().into()),
            ("timestamp", Val::Int(seconds)) => match jiff::Timestamp::from_second(*seconds) {
                Ok(time) => Val::Timestamp(time),
                Err(_) => return Some(fail("timestamp overflow")),
            },
            ("timestamp", Val::Text(text)) => match library::timestamp(text.as_str()) {
                Some(time) => Val::Timestamp(time),
                None => return bad("google.protobuf.Timestamp"),
            },
            ("duration", Val::Text(text)) => match library::duration(text.as_str()) {
                Some(nanos) => Val::Duration(nanos),
                None => return bad("google.protobuf.Duration"),
            },
            _ => return None,
        }))
    }

    fn time(&mut self, name: &str, values: &[Val<'a>]) -> Option<Outcome<'a>> {
        if let [Val::Duration(nanos)] = values {
            let seconds = nanos / 1_000_000_000;
            return Some(Ok(Val::Int(match name {
                "getHours" => seconds / 3600,
                "getMinutes" => seconds / 60,
                "getSeconds" => seconds,
                "getMilliseconds" => nanos / 1_000_000 % 1000,
                _ => return None,
            })));
        }
        let (time, zone) = match values {
            [Val::Timestamp(time)] => (time, Some(TimeZone::UTC)),
            [Val::Timestamp(time), Val::Text(zone)] => (time, self::zone(zone.as_str())),
            _ => return None,
        };
        let Some(zone) = zone else {
            return Some(fail("unknown time zone"));
        };
        let at = time.to_zoned(zone);
        Some(Ok(Val::Int(match name {
            "getFullYear" => i64::from(at.year()),
            "getMonth" => i64::from(at.month()) - 1,
            "getDate" => i64::from(at.day()),
            "getDayOfMonth" => i64::from(at.day()) - 1,
            "getDayOfYear" => i64::from(at.day_of_year()) - 1,
            "getDayOfWeek" => i64::from(at.weekday().to_sunday_zero_offset()),
            "getHours" => i64::from(at.hour()),
            "getMinutes" => i64::from(at.minute()),
            "getSeconds" => i64::from(at.second()),
            "getMilliseconds" => i64::from(at.millisecond()),
            _ => return None,
        })))
    }
}

fn named<'a>(name: &str) -> Option<Val<'a>> {
    library::FORMATS.iter().find(|known| **known == name).map(|name| Val::Format(name))
}

fn is_zero(value: &Val<'_>) -> bool {
    match value {
        Val::Null => true,
        Val::Bool(flag) => !flag,
        Val::Text(text) => text.as_str().is_empty(),
        Val::Bytes(bytes) => bytes.is_empty(),
        Val::List(list) => list.len() == 0,
        Val::Map(map) => map.len() == 0,
        Val::Duration(nanos) => *nanos == 0,
        other => other.as_double() == Some(0.0),
    }
}

/// The text of a scalar.
pub(super) fn printed(value: &Val<'_>) -> Option<String> {
    Some(match value {
        Val::Bool(flag) => flag.to_string(),
        Val::Int(number) => number.to_string(),
        Val::Uint(number) => number.to_string(),
        Val::Double(number) => go::float(*number),
        Val::Text(text) => text.as_str().to_owned(),
        Val::Timestamp(time) => time.to_string(),
        Val::Duration(nanos) => format!("{}s", go::float(*nanos as f64 / 1e9)),
        Val::Quantity(amount) => amount.to_string(),
        Val::Ip(ip) => ip.to_string(),
        Val::Cidr(address, bits) => format!("{address}/{bits}"),
        Val::Type(name) => (*name).to_owned(),
        Val::Null => "null".to_owned(),
        _ => return None,
    })
}

/// A zone by its name or offset (`+02:00`).
fn zone(name: &str) -> Option<TimeZone> {
    let offset = name.strip_prefix(['+', '-']).unwrap_or(name);
    if let Some((hours, minutes)) = offset.split_once(':') {
        let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
        let sign = if name.starts_with('-') { -1 } else { 1 };
        let seconds = sign * (hours.checked_mul(3600)? + minutes.checked_mul(60)?);
        return jiff::tz::Offset::from_seconds(seconds).ok().map(TimeZone::fixed);
    }
    TimeZone::get(name).ok()
}
