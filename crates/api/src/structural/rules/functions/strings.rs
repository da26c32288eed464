//! Functions of strings.

use super::printed;
use crate::structural::rules::eval::{Evaluation, Failure, Outcome, fail};
use crate::structural::rules::value::{List, Val};

impl<'a> Evaluation<'a> {
    pub(super) fn strings(&mut self, name: &str, values: &[Val<'a>]) -> Option<Outcome<'a>> {
        let (Val::Text(text), args) = values.split_first()? else {
            return None;
        };
        let text = text.as_str();
        let at = |index: &i64| index_of(text, *index);
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
            _ => return None,
        }))
    }

    /// Parts of strings, and patterns.
    pub(super) fn parts(&mut self, name: &str, values: &[Val<'a>]) -> Option<Outcome<'a>> {
        let (Val::Text(text), args) = values.split_first()? else {
            return None;
        };
        let text = text.as_str();
        let at = |index: &i64| index_of(text, *index);
        let out_of_range = |index: &i64| Some(fail(format!("index out of range: {index}")));
        Some(Ok(match (name, args) {
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
}

/// An index of a code point, or the end.
fn index_of(text: &str, index: i64) -> Option<usize> {
    usize::try_from(index).ok().filter(|index| *index <= text.chars().count())
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
