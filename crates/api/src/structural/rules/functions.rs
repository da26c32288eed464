//! Functions of CEL's standard library and of Kubernetes' libraries.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::tz::TimeZone;
use k8s_openapi::jiff;

use super::eval::{Evaluation, Failure, Outcome, fail};
use super::library::{self, Semver, Url};
use super::value::{List, Text, Val};
use crate::quantity::Quantity;
use crate::structural::go;

/// What functions with a dot in their name begin with.
pub const NAMESPACES: &[&str] = &["optional", "sets", "format", "ip", "strings", "lists", "math"];

/// Functions with a dot.
pub const NAMESPACED: &[(&str, &str)] = &[
    ("optional", "of"),
    ("optional", "none"),
    ("optional", "ofNonZeroValue"),
    ("sets", "contains"),
    ("sets", "equivalent"),
    ("sets", "intersects"),
    ("format", "named"),
    ("ip", "isCanonical"),
    ("strings", "quote"),
    ("lists", "range"),
    ("math", "greatest"),
    ("math", "least"),
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
    ("duration", ""),
    ("timestamp", ""),
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
    ("reverse", ""),
    ("isSorted", "bool"),
    ("sum", ""),
    ("min", ""),
    ("max", ""),
    ("slice", "list"),
    ("flatten", "list"),
    ("distinct", "list"),
    ("sort", "list"),
    ("find", "string"),
    ("findAll", "list"),
    ("url", ""),
    ("isURL", "bool"),
    ("getScheme", "string"),
    ("getHost", "string"),
    ("getHostname", "string"),
    ("getPort", "string"),
    ("getEscapedPath", "string"),
    ("getQuery", "map"),
    ("quantity", ""),
    ("isQuantity", "bool"),
    ("sign", "int"),
    ("isInteger", "bool"),
    ("asInteger", "int"),
    ("asApproximateFloat", "double"),
    ("add", ""),
    ("sub", ""),
    ("compareTo", "int"),
    ("isGreaterThan", "bool"),
    ("isLessThan", "bool"),
    ("ip", ""),
    ("isIP", "bool"),
    ("family", "int"),
    ("isUnspecified", "bool"),
    ("isLoopback", "bool"),
    ("isLinkLocalMulticast", "bool"),
    ("isLinkLocalUnicast", "bool"),
    ("isGlobalUnicast", "bool"),
    ("cidr", ""),
    ("isCIDR", "bool"),
    ("containsIP", "bool"),
    ("containsCIDR", "bool"),
    ("masked", ""),
    ("prefixLength", "int"),
    ("semver", ""),
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
            ("sets", _, [Val::List(one), Val::List(other)]) => {
                self.charge((one.len() * other.len()) as u64)?;
                let within = |one: &List<'a>, other: &List<'a>| {
                    one.iter().all(|element| other.iter().any(|same| same.equals(&element)))
                };
                Val::Bool(match name {
                    "contains" => within(other, one),
                    "equivalent" => within(one, other) && within(other, one),
                    _ => one.iter().any(|element| other.iter().any(|same| same.equals(&element))),
                })
            }
            ("format", "named", [Val::Text(text)]) => {
                Val::Optional(named(text.as_str()).map(Arc::new))
            }
            ("format", name, []) => return named(name).ok_or(Failure::NoOverload),
            ("ip", "isCanonical", [Val::Text(text)]) => match library::ip(text.as_str()) {
                Some(ip) => Val::Bool(ip.to_string() == text.as_str()),
                None => {
                    return fail(format!("IP Address {} parse error", go::quoted(text.as_str())));
                }
            },
            ("strings", "quote", [Val::Text(text)]) => Val::text(go::quoted(text.as_str())),
            ("lists", "range", [Val::Int(count)]) if (0..=RANGE_MAX).contains(count) => {
                self.charge(count.unsigned_abs())?;
                Val::list((0..*count).map(Val::Int).collect())
            }
            ("math", _, [Val::List(list)]) => return self.extreme(list, name == "least"),
            ("math", _, values) => {
                let list = List::Owned(Arc::new(values.to_vec()));
                return self.extreme(&list, name == "least");
            }
            _ => return Err(Failure::NoOverload),
        })
    }

    /// Functions by name; of a method the first value is the target.
    pub fn library(&mut self, name: &str, method: bool, values: Vec<Val<'a>>) -> Outcome<'a> {
        for value in &values {
            // Only what is read as a whole costs by its size.
            if matches!(value, Val::Text(_) | Val::Bytes(_)) {
                self.charge(value.weight())?;
            }
        }
        let families: [fn(&mut Self, &str, &[Val<'a>]) -> Option<Outcome<'a>>; 6] = [
            Self::standard,
            Self::conversion,
            Self::strings,
            Self::lists,
            Self::time,
            Self::kubernetes,
        ];
        let known = FUNCTIONS.iter().any(|(known, _)| *known == name);
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
                return Some(
                    self.regex(pattern.as_str())
                        .map(|regex| Val::Bool(regex.is_match(text.as_str()))),
                );
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

    fn strings(&mut self, name: &str, values: &[Val<'a>]) -> Option<Outcome<'a>> {
        let (Val::Text(text), args) = values.split_first()? else {
            return None;
        };
        let text = text.as_str();
        let at = |index: &i64| {
            usize::try_from(*index).ok().filter(|index| *index <= text.chars().count())
        };
        let out_of_range = |index: &i64| Some(fail(format!("index out of range: {index}")));
        Some(Ok(match (name, args) {
            ("charAt", [Val::Int(index)]) => match at(index) {
                Some(at) => Val::text(text.chars().nth(at).map(String::from).unwrap_or_default()),
                None => return out_of_range(index),
            },
            ("indexOf", [Val::Text(part)]) => position(text, text.find(part.as_str())),
            ("indexOf", [Val::Text(part), Val::Int(from)]) => match at(from) {
                Some(from) => {
                    let start = byte_at(text, from);
                    position(text, text[start..].find(part.as_str()).map(|found| found + start))
                }
                None => return out_of_range(from),
            },
            ("lastIndexOf", [Val::Text(part)]) => position(text, text.rfind(part.as_str())),
            ("lastIndexOf", [Val::Text(part), Val::Int(until)]) => match at(until) {
                Some(until) => {
                    let end = (byte_at(text, until) + part.as_str().len()).min(text.len());
                    let end = (end..=text.len())
                        .find(|end| text.is_char_boundary(*end))
                        .unwrap_or(text.len());
                    position(text, text[..end].rfind(part.as_str()))
                }
                None => return out_of_range(until),
            },
            ("lowerAscii", []) => Val::text(text.to_ascii_lowercase()),
            ("upperAscii", []) => Val::text(text.to_ascii_uppercase()),
            ("trim", []) => Val::text(text.trim()),
            ("reverse", []) => Val::text(text.chars().rev().collect::<String>()),
            ("replace", [Val::Text(from), Val::Text(to), rest @ ..]) => {
                let count = match rest {
                    [] => usize::MAX,
                    [Val::Int(count)] => usize::try_from(*count).unwrap_or(usize::MAX),
                    _ => return None,
                };
                let found = text.matches(from.as_str()).take(count).count();
                if let Err(why) = self.charge((text.len() + found * to.as_str().len()) as u64 / 10)
                {
                    return Some(Err(why));
                }
                Val::text(text.replacen(from.as_str(), to.as_str(), count))
            }
            ("split", [Val::Text(separator), rest @ ..]) => {
                let parts = split(text, separator.as_str());
                let parts: Vec<String> = match rest {
                    [] => parts,
                    [Val::Int(0)] => Vec::new(),
                    [Val::Int(count)] if *count > 0 && separator.as_str().is_empty() => {
                        parts.into_iter().take(*count as usize).collect()
                    }
                    [Val::Int(count)] if *count > 0 => text
                        .splitn(*count as usize, separator.as_str())
                        .map(str::to_owned)
                        .collect(),
                    _ => parts,
                };
                Val::list(parts.into_iter().map(Val::text).collect())
            }
            ("substring", [Val::Int(from), rest @ ..]) => {
                let until = match rest {
                    [] => text.chars().count() as i64,
                    [Val::Int(until)] => *until,
                    _ => return None,
                };
                match (at(from), at(&until)) {
                    (Some(start), Some(end)) if start <= end => {
                        Val::text(&text[byte_at(text, start)..byte_at(text, end)])
                    }
                    (None, _) => return out_of_range(from),
                    _ => return out_of_range(&until),
                }
            }
            ("format", [Val::List(args)]) => return Some(formatted(text, args).map(Val::text)),
            ("find", [Val::Text(pattern)]) => {
                return Some(
                    self.regex(pattern.as_str()).map(|regex| {
                        Val::text(regex.find(text).map_or("", |found| found.as_str()))
                    }),
                );
            }
            ("findAll", [Val::Text(pattern), rest @ ..]) => {
                let count = match rest {
                    [Val::Int(count)] => usize::try_from(*count).unwrap_or(usize::MAX),
                    _ => usize::MAX,
                };
                return Some(self.regex(pattern.as_str()).map(|regex| {
                    Val::list(
                        regex
                            .find_iter(text)
                            .take(count)
                            .map(|found| Val::text(found.as_str()))
                            .collect(),
                    )
                }));
            }
            _ => return None,
        }))
    }

    fn lists(&mut self, name: &str, values: &[Val<'a>]) -> Option<Outcome<'a>> {
        let (Val::List(list), args) = values.split_first()? else {
            return None;
        };
        if let Err(why) = self.charge(list.len() as u64) {
            return Some(Err(why));
        }
        Some(Ok(match (name, args) {
            ("isSorted", []) => {
                let ordered = list
                    .iter()
                    .zip(list.iter().skip(1))
                    .all(|(one, other)| one.compare(&other).is_some_and(Ordering::is_le));
                Val::Bool(ordered)
            }
            ("sum", []) => return Some(self.sum(list)),
            ("min" | "max", []) => return Some(self.extreme(list, name == "min")),
            ("indexOf", [value]) => Val::Int(
                list.iter().position(|element| element.equals(value)).map_or(-1, |at| at as i64),
            ),
            ("lastIndexOf", [value]) => {
                let elements: Vec<_> = list.iter().collect();
                Val::Int(
                    elements
                        .iter()
                        .rposition(|element| element.equals(value))
                        .map_or(-1, |at| at as i64),
                )
            }
            ("join", rest) => {
                let separator = match rest {
                    [] => "",
                    [Val::Text(separator)] => separator.as_str(),
                    _ => return None,
                };
                let texts: Option<Vec<String>> = list
                    .iter()
                    .map(|element| match element {
                        Val::Text(text) => Some(text.as_str().to_owned()),
                        _ => None,
                    })
                    .collect();
                let joined = texts?.join(separator);
                if let Err(why) = self.charge(joined.len() as u64 / 10) {
                    return Some(Err(why));
                }
                Val::text(joined)
            }
            ("reverse", []) => {
                let mut elements: Vec<_> = list.iter().collect();
                elements.reverse();
                Val::list(elements)
            }
            ("slice", [Val::Int(from), Val::Int(until)]) => {
                let range = usize::try_from(*from).ok().zip(usize::try_from(*until).ok());
                match range.filter(|(from, until)| from <= until && *until <= list.len()) {
                    Some((from, until)) => {
                        Val::list(list.iter().skip(from).take(until - from).collect())
                    }
                    None => {
                        return Some(fail(format!(
                            "cannot slice({from}, {until}), list has length {}",
                            list.len()
                        )));
                    }
                }
            }
            ("flatten", []) => {
                let flat = list.iter().flat_map(|element| match element {
                    Val::List(inner) => inner.iter().collect(),
                    other => vec![other],
                });
                Val::list(flat.collect())
            }
            ("distinct", []) => {
                if let Err(why) = self.charge((list.len() * list.len() / 2) as u64) {
                    return Some(Err(why));
                }
                let mut kept: Vec<Val<'a>> = Vec::new();
                for element in list.iter() {
                    if !kept.iter().any(|known| known.equals(&element)) {
                        kept.push(element);
                    }
                }
                Val::list(kept)
            }
            ("sort", []) => {
                let mut elements: Vec<_> = list.iter().collect();
                if elements.windows(2).any(|pair| pair[0].compare(&pair[1]).is_none()) {
                    return Some(Err(Failure::NoOverload));
                }
                elements.sort_by(|one, other| one.compare(other).unwrap_or(Ordering::Equal));
                Val::list(elements)
            }
            _ => return None,
        }))
    }

    fn sum(&mut self, list: &List<'a>) -> Outcome<'a> {
        let mut elements = list.iter();
        let Some(mut sum) = elements.next() else {
            return Ok(Val::Int(0));
        };
        for element in elements {
            sum = match (&sum, &element) {
                (Val::Int(one), Val::Int(other)) => Val::Int(
                    one.checked_add(*other)
                        .ok_or_else(|| Failure::Other("integer overflow".to_owned()))?,
                ),
                (Val::Uint(one), Val::Uint(other)) => Val::Uint(
                    one.checked_add(*other)
                        .ok_or_else(|| Failure::Other("integer overflow".to_owned()))?,
                ),
                (Val::Double(one), Val::Double(other)) => Val::Double(one + other),
                (Val::Duration(one), Val::Duration(other)) => Val::Duration(
                    one.checked_add(*other)
                        .ok_or_else(|| Failure::Other("integer overflow".to_owned()))?,
                ),
                _ => return Err(Failure::NoOverload),
            };
        }
        Ok(sum)
    }

    fn extreme(&mut self, list: &List<'a>, least: bool) -> Outcome<'a> {
        let wanted = if least { Ordering::Less } else { Ordering::Greater };
        let mut elements = list.iter();
        let Some(mut best) = elements.next() else {
            let name = if least { "min" } else { "max" };
            return fail(format!("{name} called on empty list"));
        };
        for element in elements {
            if element.compare(&best).ok_or(Failure::NoOverload)? == wanted {
                best = element;
            }
        }
        Ok(best)
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

    fn kubernetes(&mut self, name: &str, values: &[Val<'a>]) -> Option<Outcome<'a>> {
        if let [Val::Text(text), rest @ ..] = values
            && let Some(outcome) = parsed(name, text, rest)
        {
            return Some(outcome);
        }
        Some(Ok(match (name, values) {
            ("sign", [Val::Quantity(amount)]) => {
                Val::Int(i64::from(!amount.is_zero()) * if amount.is_negative() { -1 } else { 1 })
            }
            ("isInteger", [Val::Quantity(amount)]) => Val::Bool(amount.is_whole()),
            ("asInteger", [Val::Quantity(amount)]) if amount.is_whole() => Val::Int(amount.units()),
            ("asInteger", [Val::Quantity(_)]) => {
                return Some(fail("cannot convert value to integer"));
            }
            ("asApproximateFloat", [Val::Quantity(amount)]) => Val::Double(approximately(*amount)),
            ("add", [Val::Quantity(one), other]) => Val::Quantity(*one + amount(other)?),
            ("sub", [Val::Quantity(one), other]) => Val::Quantity(*one - amount(other)?),
            ("compareTo", [one, other]) => Val::Int(match one.compare(other)? {
                Ordering::Less => -1,
                Ordering::Equal => 0,
                Ordering::Greater => 1,
            }),
            ("isGreaterThan", [one, other]) => Val::Bool(one.compare(other)?.is_gt()),
            ("isLessThan", [one, other]) => Val::Bool(one.compare(other)?.is_lt()),
            ("major", [Val::Semver(version)]) => Val::Int(version.major as i64),
            ("minor", [Val::Semver(version)]) => Val::Int(version.minor as i64),
            ("patch", [Val::Semver(version)]) => Val::Int(version.patch as i64),
            ("validate", [Val::Format(format), Val::Text(text)]) => {
                let problems = library::validate(format, text.as_str());
                match problems.is_empty() {
                    true => Val::Optional(None),
                    false => Val::some(Val::list(problems.into_iter().map(Val::text).collect())),
                }
            }
            (name, [Val::Url(text)]) => return url_part(name, text.as_str()),
            (name, [Val::Ip(ip)]) => return of_ip(name, *ip),
            (name, [Val::Cidr(address, bits), rest @ ..]) => {
                return of_cidr(name, (*address, *bits), rest);
            }
            _ => return None,
        }))
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
fn printed(value: &Val<'_>) -> Option<String> {
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

/// A value as `%s` of `format` prints it.
fn shown(value: &Val<'_>) -> Option<String> {
    Some(match value {
        Val::List(list) => {
            let parts: Option<Vec<String>> = list.iter().map(|element| shown(&element)).collect();
            format!("[{}]", parts?.join(", "))
        }
        Val::Map(map) => {
            let part = |key: &Val<'_>| {
                Some((shown(key)?, map.keys().iter().position(|other| other.equals(key))?))
            };
            let mut keys: Vec<(String, usize)> =
                map.keys().iter().map(part).collect::<Option<_>>()?;
            keys.sort();
            let all = map.keys();
            let parts: Option<Vec<String>> = keys
                .into_iter()
                .map(|(name, at)| Some(format!("{name}: {}", shown(&map.entry(all.get(at)?)?)?)))
                .collect();
            format!("{{{}}}", parts?.join(", "))
        }
        other => printed(other)?,
    })
}

/// `'%s has %d'.format([...])`
fn formatted(template: &str, args: &List<'_>) -> Result<String, Failure> {
    let mut out = String::new();
    let mut args = args.iter();
    let mut rest = template;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let digits = rest
            .strip_prefix('.')
            .map(|rest| rest.find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |end| end));
        let precision =
            digits.and_then(|digits| rest[1..=digits].parse::<usize>().ok()).unwrap_or(6).min(64);
        rest = &rest[digits.map_or(0, |digits| digits + 1)..];
        let Some(verb) = rest.chars().next() else {
            return fail("unexpected end of string");
        };
        rest = &rest[verb.len_utf8()..];
        let Some(value) = args.next() else {
            return fail("index 0 out of range");
        };
        out.push_str(&one_formatted(verb, precision, &value)?);
    }
    out.push_str(rest);
    Ok(out)
}

fn one_formatted(verb: char, precision: usize, value: &Val<'_>) -> Result<String, Failure> {
    let text = match (verb, value) {
        ('s', value) => shown(value),
        ('d', Val::Int(_) | Val::Uint(_)) => printed(value),
        ('f', value) => value.as_double().map(|number| format!("{number:.precision$}")),
        ('e', value) => value.as_double().map(|number| {
            let text = format!("{number:.precision$e}");
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let exponent: i32 = exponent.parse().unwrap_or_default();
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }),
        ('b', Val::Int(number)) => Some(format!("{number:b}")),
        ('b', Val::Uint(number)) => Some(format!("{number:b}")),
        ('b', Val::Bool(flag)) => Some(i32::from(*flag).to_string()),
        ('o', Val::Int(number)) => Some(format!("{number:o}")),
        ('x', Val::Int(number)) => Some(format!("{number:x}")),
        ('X', Val::Int(number)) => Some(format!("{number:X}")),
        ('x', Val::Text(text)) => {
            Some(text.as_str().bytes().map(|byte| format!("{byte:02x}")).collect())
        }
        ('X', Val::Text(text)) => {
            Some(text.as_str().bytes().map(|byte| format!("{byte:02X}")).collect())
        }
        _ => None,
    };
    let failed = || {
        Failure::Other(format!(
            "error during formatting: unrecognized formatting clause \"{verb}\""
        ))
    };
    text.ok_or_else(failed)
}

/// A position in bytes as one in code points; -1 for none.
fn position<'a>(text: &str, at: Option<usize>) -> Val<'a> {
    Val::Int(at.map_or(-1, |at| text[..at].chars().count() as i64))
}

fn byte_at(text: &str, index: usize) -> usize {
    text.char_indices().nth(index).map_or(text.len(), |(at, _)| at)
}

fn split(text: &str, separator: &str) -> Vec<String> {
    match separator.is_empty() {
        true => text.chars().map(String::from).collect(),
        false => text.split(separator).map(str::to_owned).collect(),
    }
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

/// Types that are made of strings: `quantity('1Gi')`, `isURL('x')`.
fn parsed<'a>(name: &str, text: &Text<'a>, rest: &[Val<'a>]) -> Option<Outcome<'a>> {
    let source = text.as_str();
    let normalize = match (name, rest) {
        ("semver" | "isSemver", [Val::Bool(flag)]) => *flag,
        (_, []) => false,
        _ => return None,
    };
    let amount = || source.parse::<Quantity>().ok();
    let semver = || Semver::parse(source, normalize);
    let made = |value: Option<Val<'a>>, what: &str| match value {
        Some(value) => Ok(value),
        None => fail(format!("{what} {} parse error", go::quoted(source))),
    };
    Some(match name {
        "quantity" => made(amount().map(Val::Quantity), "quantity"),
        "isQuantity" => Ok(Val::Bool(amount().is_some())),
        "semver" => made(semver().map(|version| Val::Semver(Arc::new(version))), "semver"),
        "isSemver" => Ok(Val::Bool(semver().is_some())),
        "url" => made(Url::parse(source).map(|_| Val::Url(text.clone())), "URL"),
        "isURL" => Ok(Val::Bool(Url::parse(source).is_some())),
        "ip" => made(library::ip(source).map(Val::Ip), "IP Address"),
        "isIP" => Ok(Val::Bool(library::ip(source).is_some())),
        "cidr" => made(
            library::cidr(source).map(|(address, bits)| Val::Cidr(address, bits)),
            "network address",
        ),
        "isCIDR" => Ok(Val::Bool(library::cidr(source).is_some())),
        _ => return None,
    })
}

fn amount(value: &Val<'_>) -> Option<Quantity> {
    match value {
        Val::Quantity(amount) => Some(*amount),
        Val::Int(units) => Some(Quantity::from_units(*units)),
        _ => None,
    }
}

fn approximately(amount: Quantity) -> f64 {
    if amount.is_whole() { amount.units() as f64 } else { amount.millis() as f64 / 1000.0 }
}

fn url_part<'a>(name: &str, text: &str) -> Option<Outcome<'a>> {
    let url = Url::parse(text).unwrap_or_default();
    Some(Ok(match name {
        "getScheme" => Val::text(url.scheme),
        "getHost" => Val::text(url.host),
        "getHostname" => Val::text(url.host_name()),
        "getPort" => Val::text(url.port()),
        "getEscapedPath" => Val::text(url.path),
        "getQuery" => {
            let mut entries: Vec<(Val<'a>, Vec<Val<'a>>)> = Vec::new();
            for pair in url.query.split('&').filter(|pair| !pair.is_empty()) {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                let (key, value) = (Val::text(decoded(key)), Val::text(decoded(value)));
                match entries.iter_mut().find(|(known, _)| known.equals(&key)) {
                    Some((_, values)) => values.push(value),
                    None => entries.push((key, vec![value])),
                }
            }
            let entries = entries.into_iter().map(|(key, values)| (key, Val::list(values)));
            Val::Map(super::value::Object::Owned(Arc::new(entries.collect())))
        }
        _ => return None,
    }))
}

/// A part of a query without its escapes.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits: Vec<u8> = rest.by_ref().take(2).collect();
                let digits = std::str::from_utf8(&digits).unwrap_or_default();
                u8::from_str_radix(digits, 16).unwrap_or(b'%')
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn of_ip<'a>(name: &str, ip: IpAddr) -> Option<Outcome<'a>> {
    let link_local = match ip {
        IpAddr::V4(four) => four.is_link_local(),
        IpAddr::V6(six) => six.is_unicast_link_local(),
    };
    let link_multicast = match ip {
        IpAddr::V4(four) => four.octets()[..3] == [224, 0, 0],
        IpAddr::V6(six) => six.segments()[0] & 0xff0f == 0xff02,
    };
    let broadcast = matches!(ip, IpAddr::V4(four) if four.is_broadcast());
    Some(Ok(match name {
        "family" => Val::Int(if ip.is_ipv4() { 4 } else { 6 }),
        "isUnspecified" => Val::Bool(ip.is_unspecified()),
        "isLoopback" => Val::Bool(ip.is_loopback()),
        "isLinkLocalMulticast" => Val::Bool(link_multicast),
        "isLinkLocalUnicast" => Val::Bool(link_local),
        "isGlobalUnicast" => Val::Bool(
            !broadcast
                && !ip.is_unspecified()
                && !ip.is_loopback()
                && !ip.is_multicast()
                && !link_local,
        ),
        _ => return None,
    }))
}

fn of_cidr<'a>(name: &str, network: (IpAddr, u8), rest: &[Val<'a>]) -> Option<Outcome<'a>> {
    let (address, bits) = network;
    let other_ip = |value: &Val<'a>| match value {
        Val::Ip(ip) => Some(*ip),
        Val::Text(text) => library::ip(text.as_str()),
        _ => None,
    };
    let other_cidr = |value: &Val<'a>| match value {
        Val::Cidr(address, bits) => Some((*address, *bits)),
        Val::Text(text) => library::cidr(text.as_str()),
        _ => None,
    };
    Some(Ok(match (name, rest) {
        ("ip", []) => Val::Ip(address),
        ("prefixLength", []) => Val::Int(i64::from(bits)),
        ("masked", []) => Val::Cidr(library::masked(address, bits), bits),
        ("containsIP", [other]) => match other_ip(other) {
            Some(ip) => Val::Bool(library::contains(network, ip)),
            None => return Some(fail("IP Address parse error")),
        },
        ("containsCIDR", [other]) => match other_cidr(other) {
            Some((other, more)) => Val::Bool(more >= bits && library::contains(network, other)),
            None => return Some(fail("network address parse error")),
        },
        _ => return None,
    }))
}
