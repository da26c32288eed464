//! How Go prints numbers and strings, since messages that clients see contain them.

use std::fmt::Write;

use serde_json::Value;

use super::numbers::Decoded;

/// A float as `%v` prints it: the shortest text that reads back as the same number, with an
/// exponent below `1e-4` and from `1e21` on.
pub fn float(number: f64) -> String {
    if number == 0.0 {
        return if number.is_sign_negative() { "-0".to_owned() } else { "0".to_owned() };
    }
    let magnitude = number.abs();
    if !number.is_finite() || (1e-4..1e21).contains(&magnitude) {
        return plain(number);
    }
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

/// A float without exponent.
pub fn plain(number: f64) -> String {
    if number.is_nan() {
        "NaN".to_owned()
    } else if number.is_infinite() {
        if number > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() }
    } else {
        format!("{number}")
    }
}

/// A string as `%q` prints it.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            control if control.is_control() => {
                let code = u32::from(control);
                let width = if code < 0x80 { 2 } else { 4 };
                let letter = if code < 0x80 { 'x' } else { 'u' };
                write!(out, "\\{letter}{code:0width$x}").expect("strings take any text");
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// A value as errors show it.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => "\"null\"".to_owned(),
        Value::String(text) => quoted(text),
        Value::Number(number) => Decoded::of(number).text(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_look_as_go_prints_them() {
        for (number, text) in [
            (0.0, "0"),
            (5.0, "5"),
            (1.5, "1.5"),
            (-0.25, "-0.25"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
        ] {
            assert_eq!(float(number), text);
        }
        assert_eq!(plain(1e21), "1000000000000000000000");
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        assert_eq!(quoted("a\"b\\c\nd\u{1}\u{7f}ü"), r#""a\"b\\c\nd\x01\x7fü""#);
    }
}
