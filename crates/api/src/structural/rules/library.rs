//! Types of Kubernetes' CEL libraries, and conversions of strings.

use std::cmp::Ordering;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::jiff;

use crate::duration as go_duration;
use crate::names;
use crate::structural::format::Format;

/// A semantic version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Semver {
    pub major: u64,
    pub minor: u64,
    pub patch: u64,
    /// Identifiers with dots between them.
    pre: Box<str>,
}

impl Semver {
    /// `1.2.3-rc.1+build`; `normalize`: also `v1.2`.
    pub fn parse(text: &str, normalize: bool) -> Option<Self> {
        let text = if normalize { text.strip_prefix('v').unwrap_or(text) } else { text };
        let (text, build) =
            text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
        let (core, pre) =
            text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let plain = normalize || text.len() == 1 || !text.starts_with('0');
            (digits && plain).then(|| text.parse().ok()).flatten()
        };
        let parts = core.split('.').take(4).map(number);
        let mut parts: Vec<u64> = parts.collect::<Option<_>>()?;
        if normalize {
            parts.resize(parts.len().max(3), 0);
        }
        let [major, minor, patch] = parts.try_into().ok()?;
        let identifier = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        let strict = |part: &str| {
            let numeric = part.bytes().all(|byte| byte.is_ascii_digit());
            identifier(part) && !(numeric && part.len() > 1 && part.starts_with('0'))
        };
        let valid = pre.is_none_or(|pre| pre.split('.').all(strict))
            && build.is_none_or(|build| build.split('.').all(identifier));
        let pre = pre.unwrap_or_default();
        valid.then(|| Self { major, minor, patch, pre: pre.into() })
    }

    /// Bytes of what is compared of it.
    pub fn length(&self) -> usize {
        self.pre.len()
    }
}

impl Ord for Semver {
    fn cmp(&self, other: &Self) -> Ordering {
        let core = |version: &Self| (version.major, version.minor, version.patch);
        core(self).cmp(&core(other)).then_with(|| {
            match (self.pre.is_empty(), other.pre.is_empty()) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) => {
                    let (ours, theirs) = (self.pre.split('.'), other.pre.split('.'));
                    let differs = ours
                        .clone()
                        .zip(theirs.clone())
                        .map(|(one, other)| identifiers(one, other))
                        .find(|order| order.is_ne());
                    differs.unwrap_or_else(|| ours.count().cmp(&theirs.count()))
                }
            }
        })
    }
}

impl PartialOrd for Semver {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn identifiers(one: &str, other: &str) -> Ordering {
    match (one.parse::<u64>(), other.parse::<u64>()) {
        (Ok(one), Ok(other)) => one.cmp(&other),
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        (Err(_), Err(_)) => one.cmp(other),
    }
}

/// RFC 3339.
pub fn timestamp(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// A Go duration, in nanoseconds.
pub fn duration(text: &str) -> Option<i64> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let nanos = go_duration::parse(rest).ok()?.as_nanos();
    Some(sign * i64::try_from(nanos).ok()?)
}

/// An address as Kubernetes accepts it: no zones, and no IPv4 addresses in IPv6.
pub fn ip(text: &str) -> Option<IpAddr> {
    let ip: IpAddr = text.parse().ok()?;
    match ip {
        IpAddr::V6(six) if six.to_ipv4_mapped().is_some() => None,
        ip => Some(ip),
    }
}

pub fn cidr(text: &str) -> Option<(IpAddr, u8)> {
    if !Format::Cidr.matches(text) {
        return None;
    }
    let (address, bits) = text.split_once('/')?;
    Some((ip(address)?, bits.parse().ok()?))
}

/// The address with everything after the prefix zero.
pub fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(four) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((u32::from(four) & mask).into())
        }
        IpAddr::V6(six) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((u128::from(six) & mask).into())
        }
    }
}

pub fn contains((network, bits): (IpAddr, u8), address: IpAddr) -> bool {
    network.is_ipv4() == address.is_ipv4() && masked(network, bits) == masked(address, bits)
}

/// The parts of a URL.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Url<'a> {
    pub scheme: &'a str,
    /// With the port.
    pub host: &'a str,
    pub path: &'a str,
    pub query: &'a str,
}

impl<'a> Url<'a> {
    /// As `url.ParseRequestURI`.
    pub fn parse(text: &'a str) -> Option<Self> {
        if !Format::Uri.matches(text) {
            return None;
        }
        let (scheme, rest) = crate::structural::format::scheme(text).unwrap_or(("", text));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (host, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => ("", rest),
        };
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        Some(Self { scheme, host, path, query })
    }

    pub fn host_name(&self) -> &'a str {
        match self.host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => self.host.split(':').next().unwrap_or_default(),
        }
    }

    pub fn port(&self) -> &'a str {
        let after = self.host.rsplit(']').next().unwrap_or_default();
        after.rsplit_once(':').map_or("", |(_, port)| port)
    }
}

/// Named formats of strings.
pub const FORMATS: &[&str] = &[
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
];

/// What is wrong with a string of a named format.
pub fn validate(format: &str, text: &str) -> Vec<String> {
    let prefix =
        || text.strip_suffix('-').map(|rest| format!("{rest}a")).unwrap_or_else(|| text.to_owned());
    let of = |format: Format, problem: &str| {
        if format.matches(text) { Vec::new() } else { vec![problem.to_owned()] }
    };
    match format {
        "dns1123Label" => names::dns_label(text),
        "dns1123Subdomain" => names::dns_subdomain(text),
        "dns1035Label" => names::dns_1035_label(text),
        "dns1123LabelPrefix" => names::dns_label(&prefix()),
        "dns1123SubdomainPrefix" => names::dns_subdomain(&prefix()),
        "dns1035LabelPrefix" => names::dns_1035_label(&prefix()),
        "qualifiedName" => names::qualified_name(text),
        "labelValue" => names::label_value(text),
        "uri" => of(Format::Uri, "invalid URI"),
        "uuid" => of(Format::Uuid, "does not match the UUID format"),
        "byte" => of(Format::Byte, "invalid base64"),
        "date" => of(Format::Date, "invalid date"),
        _ => of(Format::DateTime, "invalid datetime"),
    }
}
