//! Tables from the server, and aligned text in general.

use serde_json::Value;

/// Spaces between columns, and the least width of a column including them, as in kubectl.
const GAP: usize = 3;
const MIN_WIDTH: usize = 6;

/// How a server's Table is shown.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub wide: bool,
    pub namespace: bool,
    pub show_labels: bool,
    pub label_columns: Vec<String>,
    /// Prefix of names (`pod/`), when several kinds are shown.
    pub kind_prefix: Option<String>,
}

/// Headers and rows of text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextTable {
    pub headers: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// Turns Tables of one kind into text columns.
pub fn text(tables: &[Value], options: &Options) -> TextTable {
    let mut out = TextTable::default();
    for table in tables {
        let definitions = table["columnDefinitions"].as_array().cloned().unwrap_or_default();
        let shown: Vec<usize> = (0..definitions.len())
            .filter(|index| {
                options.wide || definitions[*index]["priority"].as_i64().unwrap_or(0) == 0
            })
            .collect();
        if out.headers.is_empty() {
            let names = shown.iter().map(|index| {
                definitions[*index]["name"].as_str().unwrap_or_default().to_uppercase()
            });
            out.headers = framed(names.collect(), options, "NAMESPACE", "LABELS", |label| {
                label.rsplit('/').next().unwrap_or(label).to_uppercase()
            });
        }
        for row in table["rows"].as_array().into_iter().flatten() {
            let metadata = &row["object"]["metadata"];
            let mut cells: Vec<String> =
                shown.iter().map(|index| cell(&row["cells"][*index])).collect();
            if let (Some(prefix), Some(first)) = (&options.kind_prefix, cells.first_mut()) {
                first.insert_str(0, prefix);
            }
            let labels = &metadata["labels"];
            let all = labels_text(labels);
            let namespace = metadata["namespace"].as_str().unwrap_or_default();
            out.rows.push(framed(cells, options, namespace, &all, |label| cell(&labels[label])));
        }
    }
    out
}

fn framed(
    cells: Vec<String>,
    options: &Options,
    namespace: &str,
    labels: &str,
    label: impl Fn(&str) -> String,
) -> Vec<String> {
    let mut row = Vec::with_capacity(cells.len() + 2);
    if options.namespace {
        row.push(namespace.to_owned());
    }
    row.extend(cells);
    row.extend(options.label_columns.iter().map(|name| label(name)));
    if options.show_labels {
        row.push(labels.to_owned());
    }
    row
}

fn labels_text(labels: &Value) -> String {
    let pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", cell(value)))
        .collect();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

/// A cell as kubectl shows it: missing values are empty, long ones end at the first line's end, and
/// nothing is a command to the terminal.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => {
            let line = text.split(['\n', '\r', '\u{c}']).next().unwrap_or_default();
            let more = if line.len() < text.len() { "..." } else { "" };
            format!("{}{more}", super::escaped(line))
        }
        other => other.to_string(),
    }
}

impl TextTable {
    /// Aligned columns; `widths` keeps those of earlier output, so that a watch stays aligned.
    pub fn render(&self, headers: bool, widths: &mut Vec<usize>) -> String {
        let mut rows: Vec<&Vec<String>> = Vec::with_capacity(self.rows.len() + 1);
        if headers {
            rows.push(&self.headers);
        }
        rows.extend(&self.rows);
        let columns = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        widths.resize(columns.max(widths.len()), 0);
        for row in &rows {
            for (width, text) in widths.iter_mut().zip(row.iter()) {
                *width = (*width).max(text.chars().count() + GAP).max(MIN_WIDTH);
            }
        }
        let mut out = String::new();
        for row in rows {
            let last = row.len().saturating_sub(1);
            for (index, text) in row.iter().enumerate() {
                out.push_str(text);
                if index < last {
                    let padding = widths[index] - text.chars().count();
                    out.extend(std::iter::repeat_n(' ', padding));
                }
            }
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_cell_is_one_line_without_commands_to_the_terminal() {
        for (text, shown) in [
            ("one", "one"),
            ("one\ntwo", "one..."),
            ("one\r", "one..."),
            ("\u{c}", "..."),
            ("\u{1b}[31mred", "^[[31mred"),
        ] {
            assert_eq!(cell(&text.into()), shown);
        }
    }

    fn table() -> Value {
        json!({
            "columnDefinitions": [
                {"name": "Name", "priority": 0}, {"name": "Ready", "priority": 0}, {"name": "IP", "priority": 1},
            ],
            "rows": [
                {"cells": ["web", "1/1", "10.0.0.1"], "object": {"metadata": {"namespace": "a", "labels": {"app": "x"}}}},
                {"cells": ["longer-name", "0/1", null], "object": {"metadata": {"namespace": "b"}}},
            ],
        })
    }

    #[test]
    fn columns_are_aligned() {
        let text = text(&[table()], &Options::default());
        assert_eq!(
            text.render(true, &mut Vec::new()),
            "NAME          READY\nweb           1/1\nlonger-name   0/1\n"
        );
    }

    #[test]
    fn wide_namespaces_labels_and_prefixes() {
        let options = Options {
            wide: true,
            namespace: true,
            show_labels: true,
            label_columns: vec!["app".into()],
            kind_prefix: Some("pod/".into()),
        };
        let text = text(&[table()], &options);
        assert_eq!(text.headers, ["NAMESPACE", "NAME", "READY", "IP", "APP", "LABELS"]);
        assert_eq!(text.rows[0], ["a", "pod/web", "1/1", "10.0.0.1", "x", "app=x"]);
        assert_eq!(text.rows[1], ["b", "pod/longer-name", "0/1", "", "", "<none>"]);
    }
}
