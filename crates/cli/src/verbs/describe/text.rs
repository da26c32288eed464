//! The text of a description: keys and values at several depths, values aligned.

use serde_json::Value;

/// Spaces between a key and its value, at least.
const GAP: usize = 2;
const INDENT: usize = 2;

#[derive(Clone, Debug)]
enum Line {
    Raw(String),
    Pair {
        depth: usize,
        key: String,
        value: String,
    },
}

/// Collects lines; values of neighbouring lines at one depth are aligned when rendered.
#[derive(Clone, Debug, Default)]
pub struct Text {
    lines: Vec<Line>,
    depth: usize,
}

impl Text {
    /// `Key:   value`
    pub fn line(&mut self, key: &str, value: impl Into<String>) {
        self.lines.push(Line::Pair {
            depth: self.depth,
            key: format!("{key}:"),
            value: value.into(),
        });
    }

    /// `Key:   value`, unless there is no value.
    pub fn line_if(&mut self, key: &str, value: &Value) {
        let value = word(value);
        if !value.is_empty() {
            self.line(key, value);
        }
    }

    /// A line as it is, at the present depth.
    pub fn raw(&mut self, text: &str) {
        self.lines.push(Line::Raw(format!(
            "{}{text}",
            " ".repeat(self.depth * INDENT)
        )));
    }

    /// What `body` writes stands one step deeper.
    pub fn nested(&mut self, body: impl FnOnce(&mut Self)) {
        self.depth += 1;
        body(self);
        self.depth -= 1;
    }

    /// `Key:` and below it what `body` writes.
    pub fn section(&mut self, key: &str, body: impl FnOnce(&mut Self)) {
        self.raw(&format!("{key}:"));
        self.nested(body);
    }

    /// A map over several lines, the key only in the first; `<none>` when it is empty.
    pub fn map(&mut self, key: &str, map: &Value, between: &str) {
        let pairs: Vec<String> = map
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| format!("{name}{between}{}", word(value)))
            .collect();
        self.list(key, &pairs);
    }

    /// Values over several lines, the key only in the first; `<none>` when there are none.
    pub fn list(&mut self, key: &str, values: &[String]) {
        match values.split_first() {
            None => self.line(key, "<none>"),
            Some((first, rest)) => {
                self.line(key, first.clone());
                for value in rest {
                    self.lines.push(Line::Pair {
                        depth: self.depth,
                        key: String::new(),
                        value: value.clone(),
                    });
                }
            }
        }
    }

    /// Aligned columns at a depth of their own.
    pub fn table<const N: usize>(&mut self, depth: usize, rows: &[[String; N]]) {
        let widths: Vec<usize> = (0..N)
            .map(|column| {
                rows.iter()
                    .map(|row| row[column].chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        for row in rows {
            let mut text = " ".repeat((self.depth + depth) * INDENT);
            for (column, cell) in row.iter().enumerate() {
                text.push_str(cell);
                if column + 1 < N {
                    text.push_str(&" ".repeat(widths[column] + GAP - cell.chars().count()));
                }
            }
            self.lines.push(Line::Raw(text));
        }
    }

    pub fn render(&self) -> String {
        let mut out = String::new();
        for (index, line) in self.lines.iter().enumerate() {
            match line {
                Line::Raw(text) => out.push_str(text),
                Line::Pair { depth, key, value } => {
                    let width = self.width(index, *depth);
                    out.push_str(&" ".repeat(depth * INDENT));
                    out.push_str(key);
                    if !value.is_empty() {
                        out.push_str(&" ".repeat(width + GAP - key.chars().count()));
                        out.push_str(value);
                    }
                }
            }
            out.push('\n');
        }
        out
    }

    /// The widest key among the neighbours of a line at its depth; deeper lines do not part them.
    fn width(&self, index: usize, depth: usize) -> usize {
        let key = |line: &Line| match line {
            Line::Pair {
                depth: other, key, ..
            } if *other == depth => Some(key.chars().count()),
            Line::Pair { depth: other, .. } if *other < depth => None,
            Line::Raw(text)
                if text
                    .chars()
                    .take_while(|character| *character == ' ')
                    .count()
                    < depth * INDENT =>
            {
                None
            }
            Line::Pair { .. } | Line::Raw(_) => Some(0),
        };
        let before = self.lines[..index].iter().rev().map_while(key);
        let after = self.lines[index..].iter().map_while(key);
        before.chain(after).max().unwrap_or(0)
    }
}

/// A value in words: text bare, nothing for null.
pub fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A value in words, or what to say when there is none.
pub fn or(value: &Value, none: &str) -> String {
    let word = word(value);
    if word.is_empty() {
        none.to_owned()
    } else {
        word
    }
}

/// The elements of a list; none for anything else.
pub fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A moment as kubectl writes it in descriptions.
pub fn moment(value: &Value) -> String {
    value
        .as_str()
        .and_then(|text| text.parse::<jiff::Timestamp>().ok())
        .map(|time| time.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_line_up_at_each_depth() {
        let mut text = Text::default();
        text.line("Name", "web");
        text.map("Labels", &json!({"a": "1", "b": "2"}), "=");
        text.map("Annotations", &json!({}), ": ");
        text.section("Containers", |out| {
            out.section("main", |out| {
                out.line("Image", "x");
                out.line("Ready", "True");
            });
        });
        text.line("Events", "<none>");
        assert_eq!(
            text.render(),
            "Name:         web\nLabels:       a=1\n              b=2\nAnnotations:  <none>\nContainers:\n  main:\n    Image:  x\n    Ready:  True\nEvents:       <none>\n"
        );
    }
}
