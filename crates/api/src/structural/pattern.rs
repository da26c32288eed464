//! Regular expressions of schemas: Go's dialect (RE2), matched by the `regex` crate, which has the
//! same linear-time guarantee but a slightly different syntax.

use std::sync::OnceLock;

use regex::{Regex, RegexBuilder};

/// Largest compiled form of one pattern, in bytes.
const SIZE_MAX: usize = 4 << 20;
/// Largest count in a repetition; Go's limit.
const REPEAT_MAX: u32 = 1000;

/// A pattern that is compiled when it is first needed.
#[derive(Debug)]
pub struct Pattern {
    text: Box<str>,
    regex: OnceLock<Result<Regex, String>>,
}

impl Pattern {
    pub fn new(text: &str) -> Self {
        Self { text: text.into(), regex: OnceLock::new() }
    }

    /// As the schema has it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// # Errors
    /// Why the pattern is invalid.
    pub fn regex(&self) -> Result<&Regex, &str> {
        self.regex.get_or_init(|| compile(&self.text)).as_ref().map_err(String::as_str)
    }
}

/// Compiles a pattern of Go's dialect.
///
/// # Errors
/// Why it is invalid, as `error parsing regexp: ...`.
pub fn compile(text: &str) -> Result<Regex, String> {
    let translated = Translator::new(text).translate()?;
    let built = RegexBuilder::new(&translated).size_limit(SIZE_MAX).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => {
            format!("error parsing regexp: expression too large: `{text}`")
        }
        error => {
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("error parsing regexp: {why}: `{text}`")
        }
    })
}

/// Rewrites what the two dialects read differently.
struct Translator<'a> {
    source: &'a str,
    rest: &'a str,
    out: String,
}

impl<'a> Translator<'a> {
    fn new(text: &'a str) -> Self {
        Self { source: text, rest: text, out: String::with_capacity(text.len() + 16) }
    }

    fn next(&mut self) -> Option<char> {
        let character = self.rest.chars().next()?;
        self.rest = &self.rest[character.len_utf8()..];
        Some(character)
    }

    fn error(&self, why: &str) -> String {
        format!("error parsing regexp: {why}: `{}`", self.source)
    }

    fn translate(mut self) -> Result<String, String> {
        // Where the repetition that has just been read begins.
        let mut repeated = None;
        loop {
            let start = self.at();
            let Some(character) = self.next() else {
                return Ok(self.out);
            };
            let is_repetition = match character {
                '\\' => self.escape(false).map(|()| false)?,
                '[' => self.class().map(|()| false)?,
                '{' => self.repetition()?,
                other => {
                    self.out.push(other);
                    matches!(other, '*' | '+' | '?')
                }
            };
            if is_repetition && self.rest.starts_with('?') {
                let lazy = self.next();
                self.out.extend(lazy);
            }
            if let Some(first) = repeated.filter(|_| is_repetition) {
                let nested = &self.source[first..self.at()];
                return Err(format!(
                    "error parsing regexp: invalid nested repetition operator: `{nested}`"
                ));
            }
            // `(?` begins a group.
            let opens_group = self.source[..start].ends_with('(') && character == '?';
            repeated = Some(start).filter(|_| is_repetition && !opens_group);
        }
    }

    /// The position in the source.
    fn at(&self) -> usize {
        self.source.len() - self.rest.len()
    }

    /// Whether `{` begins a repetition; if not, it stands for itself in Go.
    fn repetition(&mut self) -> Result<bool, String> {
        let split = self.rest.split_once('}').filter(|(count, _)| {
            let (low, high) = count.split_once(',').unwrap_or((count, ""));
            let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            !low.is_empty() && number(low) && number(high)
        });
        let Some((count, rest)) = split else {
            self.out.push_str("\\{");
            return Ok(false);
        };
        for bound in count.split(',').filter(|text| !text.is_empty()) {
            if bound.parse::<u32>().map_or(true, |bound| bound > REPEAT_MAX) {
                return Err(self.error("invalid repeat count"));
            }
        }
        self.out.extend(["{", count, "}"]);
        self.rest = rest;
        Ok(true)
    }

    fn escape(&mut self, in_class: bool) -> Result<(), String> {
        let Some(character) = self.next() else {
            return Err(self.error("trailing backslash at end of expression"));
        };
        match character {
            // Perl's classes are ASCII in Go.
            'd' => self.out.push_str(if in_class { "0-9" } else { "[0-9]" }),
            'w' => self.out.push_str(if in_class { "0-9A-Za-z_" } else { "[0-9A-Za-z_]" }),
            's' => self.out.push_str(if in_class { "\\t\\n\\f\\r " } else { "[\\t\\n\\f\\r ]" }),
            'D' => self.out.push_str("[^0-9]"),
            'W' => self.out.push_str("[^0-9A-Za-z_]"),
            'S' => self.out.push_str("[^\\t\\n\\f\\r ]"),
            'b' if !in_class => self.out.push_str("(?-u:\\b)"),
            'Q' if !in_class => {
                let (literal, rest) = self.rest.split_once("\\E").unwrap_or((self.rest, ""));
                self.out.push_str(&regex::escape(literal));
                self.rest = rest;
            }
            'C' if !in_class => return Err(self.error("invalid escape sequence")),
            digit @ '0'..='7' => self.octal(digit)?,
            // Words boundaries in the crate, themselves in Go.
            '<' | '>' => self.out.push(character),
            other => {
                self.out.push('\\');
                self.out.push(other);
            }
        }
        Ok(())
    }

    /// `\123`, `\07`; a single digit other than zero would be a back-reference.
    fn octal(&mut self, first: char) -> Result<(), String> {
        let mut code = first.to_digit(8).unwrap_or(0);
        let follows = self.rest.starts_with(|next: char| next.is_digit(8));
        if first != '0' && !follows {
            return Err(self.error("invalid escape sequence"));
        }
        for _ in 0..2 {
            let Some(digit) = self.rest.chars().next().and_then(|next| next.to_digit(8)) else {
                break;
            };
            code = code * 8 + digit;
            self.rest = &self.rest[1..];
        }
        self.out.push_str(&format!("\\x{{{code:X}}}"));
        Ok(())
    }

    /// A class up to its `]`. The crate's set operations and nested classes do not exist in Go.
    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if let Some(rest) = self.rest.strip_prefix('^') {
            self.out.push('^');
            self.rest = rest;
        }
        if let Some(rest) = self.rest.strip_prefix(']') {
            self.out.push_str("\\]");
            self.rest = rest;
        }
        while let Some(character) = self.next() {
            match character {
                ']' => {
                    self.out.push(']');
                    return Ok(());
                }
                '\\' => self.escape(true)?,
                '[' if self.rest.starts_with(':') && self.rest.contains(":]") => {
                    let end = self.rest.find(":]").map_or(0, |at| at + 2);
                    self.out.push('[');
                    self.out.push_str(&self.rest[..end]);
                    self.rest = &self.rest[end..];
                }
                '[' | '&' | '~' => {
                    self.out.push('\\');
                    self.out.push(character);
                }
                // At the end, or next to another one, it does not make a range.
                '-' if self.rest.starts_with([']', '-']) => self.out.push_str("\\-"),
                other => self.out.push(other),
            }
        }
        Err(self.error("missing closing ]"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go() {
        for (pattern, text, matches) in [
            ("^[a-z]+$", "abc", true),
            ("b", "abc", true),
            (r"^\d+$", "٣", false),
            (r"^\w+$", "é", false),
            (r"^[\w-]+$", "a-b_1", true),
            (r"^[^\s]+$", "a b", false),
            (r"^[\D]$", "x", true),
            (r"^a{2}$", "aa", true),
            ("^a{$", "a{", true),
            ("^{}$", "{}", true),
            ("^{{x}}$", "{{x}}", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.b\E$", "axb", false),
            ("^[[]$", "[", true),
            ("^[a&&b]+$", "&ab", true),
            ("^[]a]+$", "]a", true),
            ("^[a-]+$", "a-", true),
            ("^[[:alpha:]]+$", "ab", true),
            (r"^\<x\>$", "<x>", true),
            (r"^\x41\101$", "AA", true),
            (r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", "a.b-c", true),
            (r"^(([0-9]+)y)?(([0-9]+)ms)?$", "1y2ms", true),
            (r"^\S+/\S+$", "a/b", true),
            (r"^[\/a]$", "/", true),
            (r"\bfoo\b", "a foo b", true),
            (r"^\pL+$", "é", true),
            ("(?i)^ABC$", "abc", true),
            (r"^(a*)*(?:b+?)*[*]?\*{1,2}?$", "aab**", true),
        ] {
            let regex = compile(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            assert_eq!(regex.is_match(text), matches, "{pattern} on {text}");
        }
    }

    #[test]
    fn invalid_patterns_are_refused() {
        for pattern in [
            "(",
            "[a",
            "a{1001}",
            "a{2,1}",
            r"\",
            r"\1",
            "(?=a)",
            "*",
            r"\C",
            "(?<a",
            "((a{100}){100}){100}",
            "x++",
            "a{2}{3}",
            "a*?*",
            "a{1,2}??",
        ] {
            let error = compile(pattern).expect_err(pattern);
            assert!(error.starts_with("error parsing regexp: "), "{error}");
        }
    }
}
