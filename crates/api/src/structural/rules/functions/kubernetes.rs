//! Kubernetes' libraries: quantities, addresses, URLs, versions, formats.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::quantity::Quantity;
use crate::structural::go;
use crate::structural::rules::eval::{ELEMENT_WORK, Evaluation, Failure, Outcome, fail};
use crate::structural::rules::library::{self, Semver, Url};
use crate::structural::rules::value::{Entries, Object, Text, Val};

impl<'a> Evaluation<'a> {
    pub(super) fn kubernetes(&mut self, name: &str, values: &[Val<'a>]) -> Option<Outcome<'a>> {
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
            ("compareTo" | "isGreaterThan" | "isLessThan", [one, other]) => {
                let order = match self.compared(one, other).transpose()? {
                    Ok(order) => order,
                    Err(why) => return Some(Err(why)),
                };
                match name {
                    "isGreaterThan" => Val::Bool(order.is_gt()),
                    "isLessThan" => Val::Bool(order.is_lt()),
                    _ => Val::Int(order as i64),
                }
            }
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
            (name, [Val::Url(text)]) => return self.url_part(name, text.as_str()).transpose(),
            (name, [Val::Ip(ip)]) => return of_ip(name, *ip),
            (name, [Val::Cidr(address, bits), rest @ ..]) => {
                return of_cidr(name, (*address, *bits), rest);
            }
            _ => return None,
        }))
    }
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

impl<'a> Evaluation<'a> {
    /// A part of a URL; `None` if there is none of that name.
    fn url_part(&mut self, name: &str, text: &str) -> Result<Option<Val<'a>>, Failure> {
        // It is parsed again for each of them, and parts are copied.
        self.write(text.len())?;
        let url = Url::parse(text).unwrap_or_default();
        Ok(Some(match name {
            "getScheme" => Val::text(url.scheme),
            "getHost" => Val::text(url.host),
            "getHostname" => Val::text(url.host_name()),
            "getPort" => Val::text(url.port()),
            "getEscapedPath" => Val::text(url.path),
            "getQuery" => {
                let mut keys: Vec<(String, Vec<Val<'a>>)> = Vec::new();
                let mut positions: HashMap<String, usize> = HashMap::new();
                for pair in url.query.split('&').filter(|pair| !pair.is_empty()) {
                    self.work(3 * ELEMENT_WORK)?;
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    let (key, value) = (decoded(key), Val::text(decoded(value)));
                    match positions.get(&key) {
                        Some(at) => keys[*at].1.push(value),
                        None => {
                            positions.insert(key.clone(), keys.len());
                            keys.push((key, vec![value]));
                        }
                    }
                }
                let mut entries = Entries::default();
                for (key, values) in keys {
                    entries.insert(Val::text(key), Val::list(values))?;
                }
                Val::Map(Object::Owned(Arc::new(entries)))
            }
            _ => return Ok(None),
        }))
    }
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
