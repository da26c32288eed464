//! YAML as kubectl writes it, so that files made by either tool are the same: block style, two
//! spaces, lists not indented, keys in natural order, text folded after column 80, and quotes only
//! where a YAML 1.1 reader would otherwise not read a string (`goyaml.v2`'s rules).

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};

/// Text is folded at the first space after this column.
const WIDTH: usize = 80;
const INDENT: usize = 2;

/// The document of a value, with a newline at its end.
pub fn yaml(value: &Value) -> String {
    let mut writer = Writer::default();
    match value {
        Value::Object(map) if !map.is_empty() => writer.mapping(map, 0),
        Value::Array(items) if !items.is_empty() => writer.sequence(items, 0),
        scalar => writer.scalar(scalar, 0, false),
    }
    if !writer.out.ends_with('\n') {
        writer.out.push('\n');
    }
    writer.out
}

#[derive(Default)]
struct Writer {
    out: String,
    column: usize,
}

impl Writer {
    fn put(&mut self, text: &str) {
        self.out.push_str(text);
        match text.rsplit_once('\n') {
            Some((_, last)) => self.column = last.chars().count(),
            None => self.column += text.chars().count(),
        }
    }

    fn start(&mut self, indent: usize) {
        if self.column > 0 {
            self.put("\n");
        }
        self.put(&" ".repeat(indent));
    }

    /// A block mapping; its first key continues the current line when that is at its indentation.
    fn mapping(&mut self, map: &Map<String, Value>, indent: usize) {
        let mut keys: Vec<&String> = map.keys().collect();
        keys.sort_by(|left, right| natural(left, right));
        for (index, key) in keys.into_iter().enumerate() {
            if index > 0 || self.column != indent {
                self.start(indent);
            }
            self.text(key, indent, true);
            self.put(":");
            match &map[key] {
                Value::Object(inner) if !inner.is_empty() => {
                    self.mapping_below(inner, indent + INDENT);
                }
                Value::Array(items) if !items.is_empty() => {
                    self.start(indent);
                    self.sequence(items, indent);
                }
                scalar => {
                    self.put(" ");
                    self.scalar(scalar, indent, false);
                }
            }
        }
    }

    fn mapping_below(&mut self, map: &Map<String, Value>, indent: usize) {
        self.start(indent);
        self.mapping(map, indent);
    }

    fn sequence(&mut self, items: &[Value], indent: usize) {
        for (index, item) in items.iter().enumerate() {
            if index > 0 || self.column != indent {
                self.start(indent);
            }
            self.put("- ");
            match item {
                Value::Object(map) if !map.is_empty() => self.mapping(map, indent + INDENT),
                Value::Array(items) if !items.is_empty() => self.sequence(items, indent + INDENT),
                scalar => self.scalar(scalar, indent, false),
            }
        }
    }

    fn scalar(&mut self, value: &Value, indent: usize, key: bool) {
        match value {
            Value::String(text) => self.text(text, indent, key),
            Value::Object(_) => self.put("{}"),
            Value::Array(_) => self.put("[]"),
            other => self.put(&other.to_string()),
        }
    }

    fn text(&mut self, text: &str, indent: usize, key: bool) {
        let shape = Shape::of(text);
        let below = indent + INDENT;
        if text.contains('\n') && shape.block && !key {
            return self.literal(text, below);
        }
        if text.contains('\n') || !is_text(text) || !shape.quotable {
            return self.double_quoted(text, below, key);
        }
        if shape.plain {
            self.folded(text, below, key, false);
        } else {
            self.put("'");
            self.folded(text, below, key, true);
            self.put("'");
        }
    }

    /// Plain or single-quoted text: a line ends at a lone space after [`WIDTH`].
    fn folded(&mut self, text: &str, indent: usize, key: bool, quoted: bool) {
        let characters: Vec<char> = text.chars().collect();
        let mut after_space = false;
        for (index, character) in characters.iter().enumerate() {
            let inside = !quoted || (index > 0 && index + 1 < characters.len());
            let lone = !after_space && characters.get(index + 1) != Some(&' ');
            if *character == ' ' && !key && self.column > WIDTH && inside && lone {
                self.start(indent);
            } else if *character == '\'' && quoted {
                self.put("''");
            } else {
                self.put(character.encode_utf8(&mut [0; 4]));
            }
            after_space = *character == ' ';
        }
    }

    fn double_quoted(&mut self, text: &str, indent: usize, key: bool) {
        self.put("\"");
        let characters: Vec<char> = text.chars().collect();
        let mut after_space = false;
        for (index, character) in characters.iter().enumerate() {
            let inside = index > 0 && index + 1 < characters.len();
            if let Some(escape) = escape(*character) {
                self.put(&escape);
            } else if *character == ' ' && !key && !after_space && self.column > WIDTH && inside {
                self.start(indent);
                if characters.get(index + 1) == Some(&' ') {
                    self.put("\\");
                }
            } else {
                self.put(character.encode_utf8(&mut [0; 4]));
            }
            after_space = *character == ' ';
        }
        self.put("\"");
    }

    /// `|`, with the indentation and chomping indicators that the text needs.
    fn literal(&mut self, text: &str, indent: usize) {
        self.put("|");
        if text.starts_with([' ', '\n']) {
            self.put("2");
        }
        if !text.ends_with('\n') {
            self.put("-");
        } else if text.len() == 1 || text.ends_with("\n\n") {
            self.put("+");
        }
        for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
            self.put("\n");
            if !line.is_empty() {
                self.put(&" ".repeat(indent));
                self.put(line);
            }
        }
        // What follows begins on a line of its own.
        self.put("\n");
    }
}

/// Which styles can hold a text.
struct Shape {
    plain: bool,
    /// Single quotes.
    quotable: bool,
    block: bool,
}

impl Shape {
    fn of(text: &str) -> Self {
        let characters: Vec<char> = text.chars().collect();
        let blank =
            |index: usize| characters.get(index).is_none_or(|c| matches!(c, ' ' | '\t' | '\n'));
        let mut indicators = text.starts_with("---") || text.starts_with("...");
        let (mut special, mut space_break, mut break_space) = (false, false, false);
        for (index, character) in characters.iter().enumerate() {
            indicators |= match character {
                '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"'
                | '%' | '@' | '`'
                    if index == 0 =>
                {
                    true
                }
                '?' | '-' if index == 0 => blank(index + 1),
                ':' => blank(index + 1),
                '#' => blank(index - 1),
                _ => false,
            };
            special |= !printable(*character);
            let before = index.checked_sub(1).map(|before| characters[before]);
            space_break |= *character == '\n' && before == Some(' ');
            break_space |= *character == ' ' && before == Some('\n');
        }
        let edges = text.starts_with([' ', '\n']) || text.ends_with([' ', '\n']);
        let clean = !special && !space_break;
        Self {
            plain: clean && !edges && !indicators && !text.contains('\n'),
            quotable: clean && !break_space,
            block: clean && !text.ends_with(' '),
        }
    }
}

fn printable(character: char) -> bool {
    matches!(character, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}')
}

fn escape(character: char) -> Option<String> {
    let short = match character {
        '\0' => "\\0",
        '\u{7}' => "\\a",
        '\u{8}' => "\\b",
        '\t' => "\\t",
        '\n' => "\\n",
        '\u{b}' => "\\v",
        '\u{c}' => "\\f",
        '\r' => "\\r",
        '\u{1b}' => "\\e",
        '"' => "\\\"",
        '\\' => "\\\\",
        '\u{85}' => "\\N",
        other if printable(other) => return None,
        other => {
            let code = u32::from(other);
            return Some(match code {
                0..=0xff => format!("\\x{code:02X}"),
                0x100..=0xffff => format!("\\u{code:04X}"),
                _ => format!("\\U{code:08X}"),
            });
        }
    };
    Some(short.to_owned())
}

/// Whether unquoted text is read as a string: not a number, a boolean, a date or null.
fn is_text(text: &str) -> bool {
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(
            r"^[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*|(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?|\.(inf|Inf|INF))$",
        )
        .expect("the pattern is constant")
    });
    static DATE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(
            r"^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ][0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(\.[0-9]+)?(Z|[-+][0-9]{2}:[0-9]{2})?)?$",
        )
        .expect("the pattern is constant")
    });
    let word = matches!(
        text,
        "" | "~"
            | "null"
            | "Null"
            | "NULL"
            | "<<"
            | ".nan"
            | ".NaN"
            | ".NAN"
            | "y"
            | "Y"
            | "yes"
            | "Yes"
            | "YES"
            | "true"
            | "True"
            | "TRUE"
            | "on"
            | "On"
            | "ON"
            | "n"
            | "N"
            | "no"
            | "No"
            | "NO"
            | "false"
            | "False"
            | "FALSE"
            | "off"
            | "Off"
            | "OFF"
    );
    !word && !NUMBER.is_match(text) && !DATE.is_match(text)
}

/// Numbers in names by their value, letters after everything else.
fn natural(left: &str, right: &str) -> std::cmp::Ordering {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut digits = false;
    for (index, (a, b)) in left.iter().zip(&right).enumerate() {
        if a == b {
            digits = a.is_numeric();
            continue;
        }
        return match (a.is_alphabetic(), b.is_alphabetic()) {
            (true, true) => a.cmp(b),
            (a_letter, b_letter) if a_letter || b_letter => {
                if digits == a_letter {
                    std::cmp::Ordering::Less
                } else {
                    std::cmp::Ordering::Greater
                }
            }
            _ => {
                let number = |text: &[char]| -> String {
                    text.iter().take_while(|c| c.is_ascii_digit()).collect()
                };
                let (x, y) = (number(&left[index..]), number(&right[index..]));
                x.len().cmp(&y.len()).then(x.cmp(&y)).then(a.cmp(b))
            }
        };
    }
    left.len().cmp(&right.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_as_kubectl_writes_them() {
        let object = json!({
            "apiVersion": "v1", "data": {"a": "1", "on": "y", "t": "one\ntwo\n", "u": "x\n\ny", "e": ""},
            "list": [{"name": "a", "args": ["sh", "-c", "x: y"]}, [1, 2], "- z"], "empty": {}, "none": [],
            "time": "2026-01-01T00:00:00Z", "n": null, "cron": "*/5 * * * *", "tab": "a\tb", "flag": true,
            "port": "1:30", "float": "1e3", "word": "1a", "colon": "a:b", "hash": "a #b", "quote": "it's",
        });
        assert_eq!(
            yaml(&object),
            "apiVersion: v1\ncolon: a:b\ncron: '*/5 * * * *'\ndata:\n  a: \"1\"\n  e: \"\"\n  \"on\": \"y\"\n  t: |\n    one\n    two\n  u: |-\n    x\n\n    y\n\
             empty: {}\nflag: true\nfloat: \"1e3\"\nhash: 'a #b'\nlist:\n- args:\n  - sh\n  - -c\n  - 'x: y'\n  name: a\n- - 1\n  - 2\n- '- z'\n\
             \"n\": null\nnone: []\nport: \"1:30\"\nquote: it's\ntab: \"a\\tb\"\ntime: \"2026-01-01T00:00:00Z\"\nword: 1a\n"
        );
    }

    #[test]
    fn long_text_is_folded_after_column_80() {
        let text = "word ".repeat(20) + "end";
        let folded = yaml(&json!({"key": text}));
        assert_eq!(
            folded,
            format!("key: {}word\n  {}end\n", "word ".repeat(15), "word ".repeat(4))
        );
    }

    #[test]
    fn keys_in_natural_order() {
        let document = yaml(&json!({"a10": 1, "a2": 1, "a.b": 1, "ab": 1, "B": 1}));
        assert_eq!(document, "B: 1\na.b: 1\na2: 1\na10: 1\nab: 1\n");
    }
}
