//! String formats of schemas, as upstream's list has them (`k8s.io/kube-openapi`, `strfmt`, and the
//! formats that custom resources support). Others are ignored.

mod email;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use base64::Engine;
use regex::Regex;

use super::pattern;
use crate::duration;

/// A known format of strings or numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    BsonObjectId,
    Uri,
    Email,
    Hostname,
    Ipv4,
    Ipv6,
    Cidr,
    Mac,
    Uuid,
    Uuid3,
    Uuid4,
    Uuid5,
    Isbn,
    Isbn10,
    Isbn13,
    CreditCard,
    Ssn,
    HexColor,
    RgbColor,
    Byte,
    Password,
    Date,
    Duration,
    DateTime,
    ShortName,
    LongName,
    Int32,
    Int64,
    Float,
    Double,
}

impl Format {
    /// The format of that name for values of type `ty` (`""`: any type); `None` if it is ignored.
    pub fn of(name: &str, ty: &str) -> Option<Self> {
        match ty {
            "integer" => match name {
                "int32" => Some(Self::Int32),
                "int64" => Some(Self::Int64),
                _ => None,
            },
            "number" => match name {
                "float" => Some(Self::Float),
                "double" => Some(Self::Double),
                _ => None,
            },
            "string" | "" => Self::of_string(name),
            _ => None,
        }
    }

    fn of_string(name: &str) -> Option<Self> {
        Some(match name.replace('-', "").as_str() {
            "bsonobjectid" => Self::BsonObjectId,
            "uri" => Self::Uri,
            "email" => Self::Email,
            "hostname" => Self::Hostname,
            "ipv4" => Self::Ipv4,
            "ipv6" => Self::Ipv6,
            "cidr" => Self::Cidr,
            "mac" => Self::Mac,
            "uuid" => Self::Uuid,
            "uuid3" => Self::Uuid3,
            "uuid4" => Self::Uuid4,
            "uuid5" => Self::Uuid5,
            "isbn" => Self::Isbn,
            "isbn10" => Self::Isbn10,
            "isbn13" => Self::Isbn13,
            "creditcard" => Self::CreditCard,
            "ssn" => Self::Ssn,
            "hexcolor" => Self::HexColor,
            "rgbcolor" => Self::RgbColor,
            "byte" => Self::Byte,
            "password" => Self::Password,
            "date" => Self::Date,
            "duration" => Self::Duration,
            "datetime" => Self::DateTime,
            "k8sshortname" => Self::ShortName,
            "k8slongname" => Self::LongName,
            _ => return None,
        })
    }

    /// Whether a string has the format; formats of numbers say nothing about strings.
    pub fn matches(self, text: &str) -> bool {
        match self {
            Self::Password | Self::Int32 | Self::Int64 | Self::Float | Self::Double => true,
            Self::BsonObjectId => text.len() == 24 && is_hex(text),
            Self::Uri => is_request_uri(text),
            Self::Email => email::is_address(text),
            Self::Hostname => is_hostname(text),
            Self::Ipv4 => text.parse::<Ipv4Addr>().is_ok(),
            Self::Ipv6 => text.parse::<Ipv6Addr>().is_ok(),
            Self::Cidr => is_cidr(text),
            Self::Mac => is_mac(text),
            Self::Uuid => is_uuid(text, None),
            Self::Uuid3 => is_uuid(text, Some('3')),
            Self::Uuid4 => is_uuid(text, Some('4')),
            Self::Uuid5 => is_uuid(text, Some('5')),
            Self::Isbn => is_isbn10(text) || is_isbn13(text),
            Self::Isbn10 => is_isbn10(text),
            Self::Isbn13 => is_isbn13(text),
            Self::CreditCard => is_credit_card(text),
            Self::Ssn => is_ssn(text),
            Self::HexColor => {
                let digits = text.strip_prefix('#').unwrap_or(text);
                matches!(digits.len(), 3 | 6) && is_hex(digits)
            }
            Self::RgbColor => is_rgb(text),
            Self::Byte => is_base64(text),
            Self::Date => is_date(text),
            Self::Duration => is_duration(text),
            Self::DateTime => is_date_time(text),
            Self::ShortName => text.len() <= 63 && is_name(text),
            Self::LongName => text.len() <= 253 && text.split('.').all(is_name),
        }
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_name(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.bytes().all(|byte| alphanumeric(byte) || byte == b'-')
        && text.bytes().next().is_some_and(alphanumeric)
        && text.bytes().last().is_some_and(alphanumeric)
}

/// As `url.ParseRequestURI`: an absolute URI or an absolute path.
pub(super) fn is_request_uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
        return false;
    }
    if !escapes_are_valid(text) {
        return false;
    }
    let Some((scheme, rest)) = scheme(text) else {
        return text.starts_with('/');
    };
    if scheme.is_empty() {
        return false;
    }
    match rest.strip_prefix("//") {
        Some(rest) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            is_authority(&rest[..end])
        }
        // Opaque: `mailto:a@b`.
        None => true,
    }
}

/// The scheme and what follows the colon.
pub(super) fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let valid = scheme.bytes().all(allowed)
        && scheme.starts_with(|first: char| first.is_ascii_alphabetic());
    valid.then_some((scheme, rest))
}

fn escapes_are_valid(text: &str) -> bool {
    text.split('%')
        .skip(1)
        .all(|after| after.len() >= 2 && after.is_char_boundary(2) && is_hex(&after[..2]))
}

/// `user@host:port`
pub(super) fn is_authority(authority: &str) -> bool {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let port = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((_, port)) => port,
            None => return false,
        },
        None => host.find(':').map_or("", |at| &host[at..]),
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    let bad = |byte: u8| byte == b' ' || b"\"<>\\^`{|}".contains(&byte);
    (port.is_empty() || port.starts_with(':'))
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !host.bytes().any(bad)
}

/// One label with at most one hyphen, which is the second character, or several of which the last
/// one has only letters.
fn is_hostname(text: &str) -> bool {
    static HOSTNAME: LazyLock<Regex> = LazyLock::new(|| {
        let letter = r"a-zA-Z0-9\p{S}\p{L}";
        let labels = format!(r"(?:[{letter}](?:[-{letter}]*[{letter}])?\.)+");
        let text = format!(r"^(?:[{letter}]-?[{letter}]*|{labels}[a-zA-Z\p{{L}}]{{2,}})$");
        pattern::compile(&text).expect("the pattern is valid")
    });
    text.len() <= 255 && text.split('.').all(|label| label.len() <= 63) && HOSTNAME.is_match(text)
}

/// As `net.ParseCIDR`: prefixes have no sign and no leading zeros.
fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return false;
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return false;
    };
    let max = if address.is_ipv4() { 32 } else { 128 };
    let plain =
        bits.bytes().all(|byte| byte.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
    plain && bits.parse::<u8>().is_ok_and(|bits| bits <= max)
}

/// As `net.ParseMAC`: 6, 8 or 20 octets, with `:`, `-` or (in groups of four digits) `.`.
fn is_mac(text: &str) -> bool {
    let split = |separator, width, counts: [usize; 3]| {
        let groups: Vec<&str> = text.split(separator).collect();
        counts.contains(&groups.len())
            && groups.iter().all(|group| group.len() == width && is_hex(group))
    };
    split(':', 2, [6, 8, 20]) || split('-', 2, [6, 8, 20]) || split('.', 4, [3, 4, 10])
}

/// With or without hyphens, at any of their four places.
fn is_uuid(text: &str, version: Option<char>) -> bool {
    let mut digits = String::with_capacity(32);
    for character in text.chars() {
        match character {
            '-' if matches!(digits.len(), 8 | 12 | 16 | 20) => {}
            hex if hex.is_ascii_hexdigit() && digits.len() < 32 => digits.push(hex),
            _ => return false,
        }
    }
    let variant = |digit: Option<char>| digit.is_some_and(|digit| "89abAB".contains(digit));
    digits.len() == 32
        && !text.contains("--")
        && version.is_none_or(|version| digits.chars().nth(12) == Some(version))
        && (!matches!(version, Some('4' | '5')) || variant(digits.chars().nth(16)))
}

fn without_separators(text: &str) -> String {
    text.chars().filter(|character| !character.is_whitespace() && *character != '-').collect()
}

fn is_isbn10(text: &str) -> bool {
    let text = without_separators(text);
    let digit = |(at, character): (usize, char)| match character {
        'X' if at == 9 => Some(10),
        other => other.to_digit(10),
    };
    let digits: Option<Vec<u32>> = text.chars().enumerate().map(digit).collect();
    digits.is_some_and(|digits| {
        let sum: u32 = digits.iter().zip(1..).map(|(digit, weight)| digit * weight).sum();
        digits.len() == 10 && sum.is_multiple_of(11)
    })
}

fn is_isbn13(text: &str) -> bool {
    let text = without_separators(text);
    let digits: Option<Vec<u32>> = text.chars().map(|character| character.to_digit(10)).collect();
    digits.is_some_and(|digits| {
        let weights = [1, 3].into_iter().cycle();
        let sum: u32 = digits.iter().zip(weights).map(|(digit, weight)| digit * weight).sum();
        digits.len() == 13 && sum.is_multiple_of(10)
    })
}

fn is_credit_card(text: &str) -> bool {
    static CARD: LazyLock<Regex> = LazyLock::new(|| {
        let text = r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|(222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11}|6[27][0-9]{14})$";
        pattern::compile(text).expect("the pattern is valid")
    });
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let doubled = |(at, digit): (usize, u32)| match at % 2 {
        0 => digit,
        _ if digit > 4 => digit * 2 - 9,
        _ => digit * 2,
    };
    let sum: u32 =
        digits.chars().rev().filter_map(|digit| digit.to_digit(10)).enumerate().map(doubled).sum();
    CARD.is_match(&digits) && sum.is_multiple_of(10)
}

/// `123-45-6789`, also with spaces or without separators.
fn is_ssn(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digits = |from: usize, count: usize| {
        bytes.get(from..from + count).is_some_and(|part| part.iter().all(u8::is_ascii_digit))
    };
    let after = |at: usize| at + usize::from(matches!(bytes.get(at), Some(b'-' | b' ')));
    let second = after(3);
    let third = after(second + 2);
    digits(0, 3) && digits(second, 2) && digits(third, 4) && bytes.len() == third + 4
}

fn is_rgb(text: &str) -> bool {
    let inner = text.strip_prefix("rgb(").and_then(|text| text.strip_suffix(')'));
    let part = |part: &str| {
        let part = part.trim_matches([' ', '\t', '\n', '\r', '\u{c}']);
        let plain = part == "0" || !part.starts_with('0');
        plain && part.bytes().all(|byte| byte.is_ascii_digit()) && part.parse::<u8>().is_ok()
    };
    inner.is_some_and(|inner| inner.split(',').count() == 3 && inner.split(',').all(part))
}

/// Standard base64, with padding; line breaks are skipped.
fn is_base64(text: &str) -> bool {
    let text: String = text.chars().filter(|character| !matches!(character, '\r' | '\n')).collect();
    !text.is_empty()
        && text.len().is_multiple_of(4)
        && base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok() && !text.starts_with('-')
}

/// What `time.ParseDuration` reads, or any text that has a number with a unit in it (`3 days`).
fn is_duration(text: &str) -> bool {
    static NUMBERS: LazyLock<Regex> = LazyLock::new(|| {
        pattern::compile(r"([0-9]+)\s*([A-Za-zµ]+)").expect("the pattern is valid")
    });
    /// Units; a text that begins with one of the second ones is that unit.
    const EXACT: &[&str] = &["ns", "us", "µs", "ms", "s", "m", "h", "hr", "d", "w", "wk"];
    const PREFIXES: &[&str] = &["nano", "micro", "milli", "sec", "min", "hour", "day", "week"];
    if duration::parse(text).is_ok() {
        return true;
    }
    let mut found = false;
    for number in NUMBERS.captures_iter(text) {
        if number[1].parse::<i64>().is_err() {
            return false;
        }
        let unit = number[2].to_lowercase();
        found |= EXACT.contains(&unit.as_str())
            || PREFIXES.iter().any(|prefix| unit.starts_with(prefix));
    }
    found
}

/// RFC 3339, in any case; laxer about zones than the standard, as upstream.
fn is_date_time(text: &str) -> bool {
    static TIME: LazyLock<Regex> = LazyLock::new(|| {
        let text = "^([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$";
        pattern::compile(text).expect("the pattern is valid")
    });
    let text = text.to_lowercase();
    let mut parts = text.split('t');
    let (Some(date), Some(time)) = (parts.next(), parts.next()) else {
        return false;
    };
    is_date(date)
        && TIME
            .captures(time)
            .is_some_and(|parts| &parts[1] <= "23" && &parts[2] <= "59" && &parts[3] <= "59")
}

#[cfg(test)]
mod tests;
