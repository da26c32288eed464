//! Syntax errors of JSON, in the words of Go's `encoding/json`, which Kubernetes passes on and
//! users search for.

/// Go refuses text that nests deeper than this.
const MAX_DEPTH: usize = 10_000;

/// The first error of `text`; `None`: it is valid JSON.
pub fn error(text: &[u8]) -> Option<String> {
    let mut scanner = Scanner { text, at: 0 };
    scanner.document().err()
}

/// What a container expects next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Container {
    Array,
    Object,
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

type Checked<T = ()> = Result<T, String>;

impl Scanner<'_> {
    /// Parses the whole text with a stack of its own: depth costs no recursion.
    fn document(&mut self) -> Checked {
        let mut open: Vec<Container> = Vec::new();
        loop {
            // A value begins here.
            match self.skip()? {
                b'[' => {
                    self.at += 1;
                    if self.skip()? == b']' {
                        self.at += 1;
                    } else {
                        open.push(Container::Array);
                        self.check_depth(&open)?;
                        continue;
                    }
                }
                b'{' => {
                    self.at += 1;
                    if self.skip()? == b'}' {
                        self.at += 1;
                    } else {
                        open.push(Container::Object);
                        self.check_depth(&open)?;
                        self.key()?;
                        continue;
                    }
                }
                b'"' => self.string()?,
                b'-' | b'0'..=b'9' => self.number()?,
                b't' => self.literal("true")?,
                b'f' => self.literal("false")?,
                b'n' => self.literal("null")?,
                other => return Err(unexpected(other, "looking for beginning of value")),
            }
            // A value has ended.
            loop {
                let Some(inner) = open.last() else {
                    return match self.skip() {
                        Ok(byte) => Err(unexpected(byte, "after top-level value")),
                        Err(_) => Ok(()),
                    };
                };
                match (inner, self.skip()?) {
                    (Container::Array, b',') => {
                        self.at += 1;
                        break;
                    }
                    (Container::Object, b',') => {
                        self.at += 1;
                        self.key()?;
                        break;
                    }
                    (Container::Array, b']') | (Container::Object, b'}') => {
                        self.at += 1;
                        open.pop();
                    }
                    (Container::Array, byte) => {
                        return Err(unexpected(byte, "after array element"));
                    }
                    (Container::Object, byte) => {
                        return Err(unexpected(byte, "after object key:value pair"));
                    }
                }
            }
        }
    }

    fn check_depth(&self, open: &[Container]) -> Checked {
        if open.len() > MAX_DEPTH {
            return Err("exceeded max depth".to_owned());
        }
        Ok(())
    }

    fn byte(&self) -> Checked<u8> {
        let byte = self.text.get(self.at).copied();
        byte.ok_or_else(|| "unexpected end of JSON input".to_owned())
    }

    /// Skips white space; returns the byte after it.
    fn skip(&mut self) -> Checked<u8> {
        while matches!(self.byte()?, b' ' | b'\t' | b'\r' | b'\n') {
            self.at += 1;
        }
        self.byte()
    }

    fn key(&mut self) -> Checked {
        match self.skip()? {
            b'"' => self.string()?,
            other => {
                return Err(unexpected(other, "looking for beginning of object key string"));
            }
        }
        match self.skip()? {
            b':' => self.at += 1,
            other => return Err(unexpected(other, "after object key")),
        }
        Ok(())
    }

    fn string(&mut self) -> Checked {
        self.at += 1;
        loop {
            match self.byte()? {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => {
                    self.at += 1;
                    match self.byte()? {
                        b'u' => {
                            for _ in 0..4 {
                                self.at += 1;
                                let digit = self.byte()?;
                                if !digit.is_ascii_hexdigit() {
                                    let place = "in \\u hexadecimal character escape";
                                    return Err(unexpected(digit, place));
                                }
                            }
                        }
                        b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                        other => return Err(unexpected(other, "in string escape code")),
                    }
                    self.at += 1;
                }
                byte if byte < 0x20 => return Err(unexpected(byte, "in string literal")),
                _ => self.at += 1,
            }
        }
    }

    fn number(&mut self) -> Checked {
        if self.byte()? == b'-' {
            self.at += 1;
        }
        match self.byte()? {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits(),
            other => return Err(unexpected(other, "in numeric literal")),
        }
        if self.byte() == Ok(b'.') {
            self.at += 1;
            self.some_digits("after decimal point in numeric literal")?;
        }
        if matches!(self.byte(), Ok(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.byte(), Ok(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits("in exponent of numeric literal")?;
        }
        Ok(())
    }

    fn some_digits(&mut self, place: &str) -> Checked {
        let first = self.byte()?;
        if !first.is_ascii_digit() {
            return Err(unexpected(first, place));
        }
        self.digits();
        Ok(())
    }

    fn digits(&mut self) {
        while matches!(self.byte(), Ok(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn literal(&mut self, word: &str) -> Checked {
        for expected in word.bytes() {
            let byte = self.byte()?;
            if byte != expected {
                let place = format!("in literal {word} (expecting '{}')", char::from(expected));
                return Err(unexpected(byte, &place));
            }
            self.at += 1;
        }
        Ok(())
    }
}

fn unexpected(byte: u8, place: &str) -> String {
    let shown = match byte {
        b'\'' => "\\'".to_owned(),
        b'"' => "\"".to_owned(),
        b'\\' => "\\\\".to_owned(),
        b'\n' => "\\n".to_owned(),
        b'\r' => "\\r".to_owned(),
        b'\t' => "\\t".to_owned(),
        0x20..=0x7e | 0xa1..=0xff => char::from(byte).to_string(),
        other => format!("\\x{other:02x}"),
    };
    format!("invalid character '{shown}' {place}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    #[test]
    fn errors_are_gos() {
        for (text, expected) in [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("{\"a\":1", "unexpected end of JSON input"),
            ("{a:1}", "invalid character 'a' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 \"b\"}", "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("{\"a\":}", "invalid character '}' looking for beginning of value"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("nul!", "invalid character '!' in literal null (expecting 'l')"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("1.", "unexpected end of JSON input"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("1ex", "invalid character 'x' in exponent of numeric literal"),
            ("\"\\x\"", "invalid character 'x' in string escape code"),
            ("\"\\u12g\"", "invalid character 'g' in \\u hexadecimal character escape"),
            ("\"\n\"", "invalid character '\\n' in string literal"),
        ] {
            assert_eq!(super::error(text.as_bytes()).as_deref(), Some(expected), "{text}");
        }
        let deep = "[".repeat(1 << 20);
        assert_eq!(super::error(deep.as_bytes()).as_deref(), Some("exceeded max depth"));
    }

    proptest! {
        /// Agrees with serde on every text, except for depth and numbers that are too large.
        #[test]
        fn agrees_with_serde(text in "[\\[\\]{}:,\"a1.e\\-\\\\ tru]{0,24}") {
            let read = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            prop_assert_eq!(super::error(text.as_bytes()).is_none(), read, "{}", text);
        }
    }
}
