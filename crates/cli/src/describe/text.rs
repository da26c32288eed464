//! The text of a description: keys and values at several depths, aligned as kubectl aligns them.

use serde_json::Value;

use crate::output::escaped;
use crate::output::tabwriter::align;
use crate::request::last_applied::LAST_APPLIED;

/// Spaces between a key and its value, at least.
const GAP: usize = 2;
const INDENT: usize = 2;
/// Annotations longer than this go below their key.
const ANNOTATION_MAX: usize = 140;

/// Collects lines, whose neighbouring keys and values are aligned when rendered.
#[derive(Clone, Debug, Default)]
pub struct Description {
    /// Cells are separated by tabs.
    out: String,
    depth: usize,
}

impl Description {
    /// `Key:   value`
    pub fn line(&mut self, key: &str, value: impl AsRef<str>) {
        self.cells(&[&format!("{key}:"), value.as_ref()]);
    }

    /// `Key:   value`, unless there is no value.
    pub fn line_if(&mut self, key: &str, value: &Value) {
        let value = word(value);
        if !value.is_empty() {
            self.line(key, value);
        }
    }

    /// `Key:   value`, or `none` when there is no value.
    pub fn line_or(&mut self, key: &str, value: &Value, none: &str) {
        self.line(key, or(value, none));
    }

    /// One line of cells, at the current depth.
    pub fn cells(&mut self, cells: &[&str]) {
        self.out.push_str(&" ".repeat(self.depth * INDENT));
        // A cell ends where its line does.
        let cells: Vec<String> = cells.iter().map(|cell| cell.replace('\n', " ")).collect();
        self.out.push_str(&cells.join("\t"));
        self.out.push('\n');
    }

    /// A verbatim line, at the current depth.
    pub fn raw(&mut self, text: &str) {
        self.out.push_str(&" ".repeat(self.depth * INDENT));
        self.out.push_str(text);
        self.out.push('\n');
    }

    /// Indents what `body` writes by one step.
    pub fn nested(&mut self, body: impl FnOnce(&mut Self)) {
        self.deeper(1, body);
    }

    /// Indents what `body` writes by several steps.
    pub fn deeper(&mut self, steps: usize, body: impl FnOnce(&mut Self)) {
        self.depth += steps;
        body(self);
        self.depth -= steps;
    }

    /// `Key:`, and below it, indented, what `body` writes.
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

    /// Annotations; long ones go below their key.
    pub fn annotations(&mut self, map: &Value) {
        let mut lines = Vec::new();
        for (name, value) in map.as_object().into_iter().flatten() {
            let value = word(value);
            if name == LAST_APPLIED {
                continue;
            }
            if value.len() + name.len() + 2 <= ANNOTATION_MAX && !value.contains('\n') {
                lines.push(format!("{name}: {value}"));
                continue;
            }
            lines.push(format!("{name}:"));
            for line in value.trim_end_matches('\n').split('\n') {
                let mut line: String = format!("  {line}");
                if line.chars().count() > ANNOTATION_MAX {
                    line = line.chars().take(ANNOTATION_MAX).collect::<String>() + "...";
                }
                lines.push(line);
            }
        }
        self.list("Annotations", &lines);
    }

    /// Values over several lines, the key only in the first; `<none>` when there are none.
    pub fn list<T: AsRef<str>>(&mut self, key: &str, values: &[T]) {
        match values.split_first() {
            None => self.line(key, "<none>"),
            Some((first, rest)) => {
                self.line(key, first.as_ref());
                for value in rest {
                    self.out.push_str(&format!("\t{}\n", value.as_ref()));
                }
            }
        }
    }

    /// Rows of cells.
    pub fn table<const N: usize>(&mut self, rows: &[[String; N]]) {
        for row in rows {
            let cells: Vec<&str> = row.iter().map(String::as_str).collect();
            self.cells(&cells);
        }
    }

    /// The lines with tabs between their cells.
    pub fn unaligned(&self) -> String {
        escaped(&self.out)
    }

    pub fn render(&self) -> String {
        align(&escaped(&self.out), 0, GAP)
    }
}

/// A value as text: strings without quotes, null as nothing.
pub fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A value as text, or `none` when it is empty.
pub fn or(value: &Value, none: &str) -> String {
    let word = word(value);
    if word.is_empty() { none.to_owned() } else { word }
}

/// `True` or `False`, or `none` for anything else.
pub fn truth(value: &Value, none: &str) -> String {
    match value.as_bool() {
        Some(true) => "True".to_owned(),
        Some(false) => "False".to_owned(),
        None => none.to_owned(),
    }
}

/// The elements of a list; empty for anything else.
pub fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The fields of an object; empty for anything else.
pub fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// The elements joined, or `none` when there are none.
pub fn joined(value: &Value, between: &str, none: &str) -> String {
    let words: Vec<String> = items(value).map(word).collect();
    if words.is_empty() { none.to_owned() } else { words.join(between) }
}

/// A list as Go prints it: `[a b]`.
pub fn bracketed(value: &Value) -> String {
    format!("[{}]", joined(value, " ", ""))
}

/// A timestamp as kubectl writes it in descriptions.
pub fn moment(value: &Value) -> String {
    time(value)
        .map(|time| time.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string())
        .unwrap_or_default()
}

/// Parses a timestamp.
pub fn time(value: &Value) -> Option<jiff::Timestamp> {
    value.as_str()?.parse().ok()
}

/// A label selector as text: `app=web,tier in (a,b)`.
pub fn selector(value: &Value, none: &str) -> String {
    let text = serde_json::to_vec(value).unwrap_or_default();
    let selector = api::labels::decode_label_selector(&text).ok();
    selector
        .and_then(|selector| api::labels::Selector::from_label_selector(Some(&selector)).ok())
        .map(|selector| selector.to_string())
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| none.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_line_up_with_their_neighbours() {
        let mut text = Description::default();
        text.line("Name", "web");
        text.map("Labels", &json!({"a": "1", "b": "2"}), "=");
        text.annotations(&json!({}));
        text.section("Containers", |out| {
            out.section("main", |out| {
                out.line("Image", "x");
                out.line("Ready", "True");
            });
        });
        text.line("Events", "<none>");
        assert_eq!(
            text.render(),
            "Name:         web\nLabels:       a=1\n              b=2\nAnnotations:  <none>\nContainers:\n  main:\n    Image:  x\n    Ready:  True\nEvents:     <none>\n"
        );
    }

    #[test]
    fn nothing_is_a_command_to_the_terminal() {
        let mut text = Description::default();
        text.annotations(&json!({"a": "\u{1b}[31mred"}));
        assert_eq!(text.render(), "Annotations:  a: ^[[31mred\n");
        assert!(!text.unaligned().contains('\u{1b}'));
    }
}
