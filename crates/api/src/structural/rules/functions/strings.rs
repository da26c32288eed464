//! Functions of strings.

use std::sync::Arc;

use regex::Regex;

use super::printed;
use crate::structural::rules::eval::{ELEMENT_WORK, Evaluation, Failure, Outcome, fail};
use crate::structural::rules::value::{List, Val};

/// Characters of a pattern that are matched in one unit of work for each byte of the text.
const PATTERN_PER_UNIT: usize = 4;

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
                let separator = separator.as_str();
                let count = match rest {
                    [Val::Int(count)] => usize::try_from(*count).unwrap_or(usize::MAX),
                    _ => usize::MAX,
                };
                return Some(if separator.is_empty() {
                    let ends = text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()]);
                    self.texts(ends.take(count))
                } else {
                    self.texts(text.splitn(count, separator))
                });
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
            ("format", [Val::List(args)]) => {
                return Some(self.formatted(text, args).map(Val::text));
            }
            ("find", [Val::Text(pattern)]) => {
                let found = self.matcher(text, pattern.as_str()).map(|regex| regex.find(text));
                let found = found.map(|found| found.map_or("", |found| found.as_str()));
                return Some(found.map(Val::text));
            }
            ("findAll", [Val::Text(pattern), rest @ ..]) => {
                let count = match rest {
                    [Val::Int(count)] => usize::try_from(*count).unwrap_or(usize::MAX),
                    _ => usize::MAX,
                };
                let regex = match self.matcher(text, pattern.as_str()) {
                    Ok(regex) => regex,
                    Err(why) => return Some(Err(why)),
                };
                let found = regex.find_iter(text).take(count).map(|found| found.as_str());
                return Some(self.texts(found));
            }
            _ => return None,
        }))
    }
}

impl<'a> Evaluation<'a> {
    /// A pattern to look for in a text: it costs as much as both are long.
    pub(super) fn matcher(&mut self, text: &str, pattern: &str) -> Result<Arc<Regex>, Failure> {
        let regex = self.regex(pattern)?;
        let each = pattern.len().div_ceil(PATTERN_PER_UNIT) as u64;
        self.work((text.len() as u64 + 1).saturating_mul(each))?;
        Ok(regex)
    }

    /// A list of texts.
    fn texts<'t>(&mut self, texts: impl Iterator<Item = &'t str>) -> Outcome<'a> {
        let mut list = Vec::new();
        for text in texts {
            self.work(ELEMENT_WORK)?;
            self.write(text.len())?;
            list.push(Val::text(text));
        }
        Ok(Val::list(list))
    }

    /// `'%s has %d'.format([...])`
    fn formatted(&mut self, template: &str, args: &List<'a>) -> Result<String, Failure> {
        self.read_list(args)?;
        self.write(template.len())?;
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
            let precision = digits
                .and_then(|digits| rest[1..=digits].parse::<usize>().ok())
                .unwrap_or(6)
                .min(64);
            rest = &rest[digits.map_or(0, |digits| digits + 1)..];
            let Some(verb) = rest.chars().next() else {
                return fail("unexpected end of string");
            };
            rest = &rest[verb.len_utf8()..];
            let Some(value) = args.next() else {
                return fail("index 0 out of range");
            };
            self.write_formatted(verb, precision, &value, &mut out)?;
        }
        out.push_str(rest);
        Ok(out)
    }

    fn write_formatted(
        &mut self,
        verb: char,
        precision: usize,
        value: &Val<'a>,
        out: &mut String,
    ) -> Result<(), Failure> {
        match (verb, value) {
            ('s', value) => self.write_shown(value, out).map_err(|failure| match failure {
                Failure::NoOverload => unformattable(verb),
                other => other,
            }),
            ('x' | 'X', Val::Text(text)) => {
                self.write(2 * text.as_str().len())?;
                for byte in text.as_str().bytes() {
                    for digit in [byte >> 4, byte & 15] {
                        let digit = char::from_digit(digit.into(), 16).unwrap_or_default();
                        out.push(if verb == 'X' { digit.to_ascii_uppercase() } else { digit });
                    }
                }
                Ok(())
            }
            (verb, value) => {
                let text = one_formatted(verb, precision, value);
                let text = text.ok_or_else(|| unformattable(verb))?;
                self.write(text.len())?;
                out.push_str(&text);
                Ok(())
            }
        }
    }
}

/// An index of a code point, or the end.
fn index_of(text: &str, index: i64) -> Option<usize> {
    usize::try_from(index).ok().filter(|index| *index <= text.chars().count())
}

/// What cannot be formatted.
fn unformattable(verb: char) -> Failure {
    Failure::Other(format!("error during formatting: unrecognized formatting clause \"{verb}\""))
}

/// A number or flag as a verb of `format` prints it.
fn one_formatted(verb: char, precision: usize, value: &Val<'_>) -> Option<String> {
    match (verb, value) {
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
        _ => None,
    }
}

/// A position in bytes as one in code points; -1 for none.
fn position<'a>(text: &str, at: Option<usize>) -> Val<'a> {
    Val::Int(at.map_or(-1, |at| text[..at].chars().count() as i64))
}

fn byte_at(text: &str, index: usize) -> usize {
    text.char_indices().nth(index).map_or(text.len(), |(at, _)| at)
}
