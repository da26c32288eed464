//! kubectl's JSONPath dialect: text with `{...}` in it, relaxed paths, `range`, filters
//! (`k8s.io/client-go/util/jsonpath`). It is not RFC 9535. Printer columns of custom resources are
//! written in it, too.

use serde_json::Value;

/// Filters within one path, which may be nested.
const FILTERS_MAX: usize = 16;
/// Values that one step finds at most.
const FOUND_MAX: usize = 100_000;

/// Why a template cannot be read or rendered.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct JsonPathError(String);

type Result<T> = std::result::Result<T, JsonPathError>;

macro_rules! bail {
    ($($text:tt)*) => { return Err(JsonPathError(format!($($text)*))) };
}

fn error(text: impl Into<String>) -> JsonPathError {
    JsonPathError(text.into())
}

/// A template: text, paths and ranges.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    parts: Vec<Part>,
    source: String,
    /// Missing fields are errors.
    strict: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Path(Vec<Step>),
    Range(Vec<Step>, Vec<Part>),
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// Back to the whole document.
    Root,
    Field(String),
    Recursive,
    Wildcard,
    /// `[a:b:c]`; an index is a slice of one.
    Slice(Option<i64>, Option<i64>, i64),
    Index(i64),
    Union(Vec<Step>),
    Filter(Operand, Comparison, Operand),
    Has(Operand),
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Path(Vec<Step>),
    Literal(Value),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Template {
    /// Parses a template: anything outside braces is text.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            bail!("template format specified but no template given");
        }
        let mut parser = Parser { rest: text };
        let parts = parser
            .parts(false)
            .map_err(|why| JsonPathError(format!("error parsing jsonpath {text}, {why}")))?;
        Ok(Self::new(parts, text))
    }

    fn new(parts: Vec<Part>, source: &str) -> Self {
        Self { parts, source: source.to_owned(), strict: false }
    }

    /// The same template, with missing fields as errors.
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// Parses one path, with or without braces and leading dot.
    pub fn parse_path(text: &str) -> Result<Self> {
        let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
        let dotted = if inner.starts_with(['.', '$', '@', '[']) {
            inner.to_owned()
        } else {
            format!(".{inner}")
        };
        Ok(Self::new(vec![Part::Path(path(&dotted)?)], text))
    }

    /// Renders a document.
    ///
    /// # Errors
    /// When a path names an index that is out of bounds or, if strict, a missing field.
    pub fn render(&self, document: &Value) -> Result<String> {
        let mut out = String::new();
        self.parts(&self.parts, document, document, &mut out).map_err(|why| {
            error(format!(
                "error executing jsonpath {:?}: Error executing template: {why}",
                self.source
            ))
        })?;
        Ok(out)
    }

    /// The values that a template of one path finds; missing ones are skipped.
    pub fn find<'a>(&self, document: &'a Value) -> Vec<&'a Value> {
        match self.parts.as_slice() {
            [Part::Path(steps)] => walk(steps, document, document),
            _ => Vec::new(),
        }
    }

    fn parts(
        &self,
        parts: &[Part],
        document: &Value,
        here: &Value,
        out: &mut String,
    ) -> Result<()> {
        for part in parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Path(steps) => {
                    let found = walk(steps, document, here);
                    if found.is_empty() {
                        self.check(steps, document, here)?;
                    }
                    let texts: Vec<String> = found.into_iter().map(print).collect();
                    out.push_str(&texts.join(" "));
                }
                Part::Range(steps, body) => {
                    for item in walk(steps, document, here) {
                        self.parts(body, document, item, out)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// # Errors
    /// When a path that finds nothing has an index out of bounds or, if strict, a missing field.
    fn check(&self, steps: &[Step], document: &Value, here: &Value) -> Result<()> {
        let mut found = vec![here];
        for step in steps {
            for value in &found {
                match (step, value) {
                    (Step::Index(index), Value::Array(items)) => {
                        let length = items.len();
                        if usize::try_from(from_end(*index, length)).is_ok_and(|at| at >= length) {
                            bail!("array index out of bounds: index {index}, length {length}");
                        }
                    }
                    (Step::Field(name), value) if self.strict && value.get(name).is_none() => {
                        bail!("{name} is not found");
                    }
                    _ => {}
                }
            }
            found = found.into_iter().flat_map(|value| advance(step, document, value)).collect();
        }
        Ok(())
    }
}

/// Strings bare, everything else as JSON.
pub fn print(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn walk<'a>(steps: &[Step], document: &'a Value, here: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![here];
    for step in steps {
        let next = found.into_iter().flat_map(|value| advance(step, document, value));
        found = next.take(FOUND_MAX).collect();
    }
    found
}

fn advance<'a>(step: &Step, document: &'a Value, value: &'a Value) -> Vec<&'a Value> {
    match step {
        Step::Root => vec![document],
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::Recursive => {
            let mut all = vec![value];
            all.extend(
                children(value).into_iter().flat_map(|child| advance(step, document, child)),
            );
            all
        }
        Step::Wildcard => children(value),
        Step::Index(index) => {
            let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
            usize::try_from(from_end(*index, items.len()))
                .ok()
                .and_then(|index| items.get(index))
                .into_iter()
                .collect()
        }
        Step::Slice(start, end, stride) => {
            let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
            let bound = |index: Option<i64>, default: usize| {
                let index = index.map_or(default as i64, |index| from_end(index, items.len()));
                usize::try_from(index).unwrap_or(0).min(items.len())
            };
            let (start, end) = (bound(*start, 0), bound(*end, items.len()));
            let stride = usize::try_from(*stride).unwrap_or(1).max(1);
            if start < end {
                items[start..end].iter().step_by(stride).collect()
            } else {
                Vec::new()
            }
        }
        Step::Union(steps) => {
            steps.iter().flat_map(|step| advance(step, document, value)).collect()
        }
        Step::Filter(left, comparison, right) => children(value)
            .into_iter()
            .filter(|item| {
                compare(operand(left, document, item), *comparison, operand(right, document, item))
            })
            .collect(),
        Step::Has(path) => children(value)
            .into_iter()
            .filter(|item| operand(path, document, item).is_some())
            .collect(),
    }
}

fn from_end(index: i64, length: usize) -> i64 {
    if index < 0 { index + length as i64 } else { index }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    }
}

fn operand<'a>(operand: &'a Operand, document: &'a Value, item: &'a Value) -> Option<&'a Value> {
    match operand {
        Operand::Literal(value) => Some(value),
        Operand::Path(steps) => walk(steps, document, item).into_iter().next(),
    }
}

fn compare(left: Option<&Value>, comparison: Comparison, right: Option<&Value>) -> bool {
    let (Some(left), Some(right)) = (left, right) else {
        return false;
    };
    let order = match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64().partial_cmp(&right.as_f64()),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (left, right) => (left == right).then_some(std::cmp::Ordering::Equal),
    };
    match comparison {
        Comparison::Equal => order.is_some_and(|order| order.is_eq()),
        Comparison::NotEqual => !order.is_some_and(|order| order.is_eq()),
        Comparison::Less => order.is_some_and(|order| order.is_lt()),
        Comparison::LessOrEqual => order.is_some_and(|order| order.is_le()),
        Comparison::Greater => order.is_some_and(|order| order.is_gt()),
        Comparison::GreaterOrEqual => order.is_some_and(|order| order.is_ge()),
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn parts(&mut self, in_range: bool) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        while !self.rest.is_empty() {
            let Some(open) = self.rest.find('{') else {
                parts.push(Part::Text(std::mem::take(&mut self.rest).to_owned()));
                break;
            };
            if open > 0 {
                parts.push(Part::Text(self.rest[..open].to_owned()));
            }
            let after = &self.rest[open + 1..];
            let close = outside_quotes(after, '}').ok_or_else(|| error("unclosed action"))?;
            let action = after[..close].trim();
            self.rest = &after[close + 1..];
            if action == "end" {
                if !in_range {
                    bail!("not in range, nothing to end");
                }
                return Ok(parts);
            }
            match action.strip_prefix("range ") {
                Some(steps) => parts.push(Part::Range(path(steps.trim())?, self.parts(true)?)),
                None if action.starts_with(['"', '\'']) => parts.push(Part::Text(quoted(action)?)),
                None => parts.push(Part::Path(path(action)?)),
            }
        }
        if in_range {
            bail!("unexpected end of input: a range has no {{end}}");
        }
        Ok(parts)
    }
}

/// Position of `wanted` outside quotes and brackets' quotes.
fn outside_quotes(text: &str, wanted: char) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (index, character) in text.char_indices() {
        match (quote, character) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), character) if open == character => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(character),
            (None, character) if character == wanted => return Some(index),
            (None, _) => {}
        }
    }
    None
}

/// A quoted text with Go's escapes.
fn quoted(text: &str) -> Result<String> {
    let quote = text.chars().next().unwrap_or('"');
    let inner = text[1..]
        .strip_suffix(quote)
        .ok_or_else(|| JsonPathError(format!("unterminated quoted string {text}")))?;
    let mut out = String::new();
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            out.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some(other) => out.push(other),
            None => bail!("unterminated escape in {text}"),
        }
    }
    Ok(out)
}

/// `.a.b[0]['c.d']..e[*][?(@.x=="y")]`
fn path(text: &str) -> Result<Vec<Step>> {
    if text.matches("?(").count() > FILTERS_MAX {
        bail!("more than {FILTERS_MAX} filters in one path");
    }
    let mut steps = Vec::new();
    let mut rest = text;
    if let Some(after) = rest.strip_prefix('$') {
        steps.push(Step::Root);
        rest = after;
    }
    rest = rest.strip_prefix('@').unwrap_or(rest);
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("..") {
            steps.push(Step::Recursive);
            rest = after;
            if !rest.starts_with(['[', '.', '*']) {
                rest = field(rest, &mut steps)?;
            }
        } else if let Some(after) = rest.strip_prefix('.') {
            rest = if after.is_empty() || after.starts_with('[') {
                after
            } else {
                field(after, &mut steps)?
            };
        } else if let Some(after) = rest.strip_prefix('[') {
            let close = closing_bracket(after)
                .ok_or_else(|| JsonPathError(format!("unterminated array in {text}")))?;
            steps.push(bracket(after[..close].trim())?);
            rest = &after[close + 1..];
        } else if steps.is_empty() || matches!(steps.last(), Some(Step::Recursive)) {
            rest = field(rest, &mut steps)?;
        } else {
            bail!("unrecognized character in action: {rest:?}");
        }
    }
    Ok(steps)
}

/// Reads a field name (with `\.` escapes) or `*`; returns what follows.
fn field<'a>(text: &'a str, steps: &mut Vec<Step>) -> Result<&'a str> {
    let mut name = String::new();
    let mut characters = text.char_indices();
    let mut end = text.len();
    while let Some((index, character)) = characters.next() {
        match character {
            '\\' => name.extend(characters.next().map(|(_, next)| next)),
            '.' | '[' => {
                end = index;
                break;
            }
            ' ' | '{' | '}' | '(' | ')' => bail!("unrecognized character in action: {character:?}"),
            other => name.push(other),
        }
    }
    if name.is_empty() {
        bail!("a field name is missing in {text:?}");
    }
    steps.push(if name == "*" { Step::Wildcard } else { Step::Field(name) });
    Ok(&text[end..])
}

fn closing_bracket(text: &str) -> Option<usize> {
    let mut depth = 0;
    let mut from = 0;
    loop {
        let close = from + outside_quotes(&text[from..], ']')?;
        depth += text[from..close].matches('[').count();
        if depth == 0 {
            return Some(close);
        }
        depth -= 1;
        from = close + 1;
    }
}

fn bracket(text: &str) -> Result<Step> {
    if text == "*" {
        return Ok(Step::Wildcard);
    }
    if let Some(filter) = text.strip_prefix("?(").and_then(|text| text.strip_suffix(')')) {
        return self::filter(filter.trim());
    }
    if outside_quotes(text, ',').is_some() {
        let mut steps = Vec::new();
        let mut rest = text;
        while let Some(comma) = outside_quotes(rest, ',') {
            steps.push(bracket(rest[..comma].trim())?);
            rest = &rest[comma + 1..];
        }
        steps.push(bracket(rest.trim())?);
        return Ok(Step::Union(steps));
    }
    if text.starts_with(['\'', '"']) {
        return Ok(Step::Field(quoted(text)?));
    }
    let number = |text: &str| -> Result<Option<i64>> {
        if text.is_empty() {
            Ok(None)
        } else {
            Ok(Some(
                text.parse().map_err(|_| JsonPathError(format!("invalid array index {text}")))?,
            ))
        }
    };
    let bounds: Vec<&str> = text.split(':').collect();
    match bounds.as_slice() {
        [index] => {
            Ok(Step::Index(number(index)?.ok_or_else(|| error("an array index is missing"))?))
        }
        [start, end] => Ok(Step::Slice(number(start)?, number(end)?, 1)),
        [start, end, stride] => {
            Ok(Step::Slice(number(start)?, number(end)?, number(stride)?.unwrap_or(1)))
        }
        _ => bail!("invalid array index {text}"),
    }
}

fn filter(text: &str) -> Result<Step> {
    for (sign, comparison) in [
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ] {
        let mut from = 0;
        while let Some(at) = outside_quotes(&text[from..], sign.chars().next().unwrap_or('=')) {
            let at = from + at;
            if text[at..].starts_with(sign) {
                let (left, right) = (text[..at].trim(), text[at + sign.len()..].trim());
                return Ok(Step::Filter(self::side(left)?, comparison, self::side(right)?));
            }
            from = at + 1;
        }
    }
    Ok(Step::Has(side(text)?))
}

fn side(text: &str) -> Result<Operand> {
    if text.starts_with(['@', '$', '.']) {
        return Ok(Operand::Path(path(text)?));
    }
    if text.starts_with(['"', '\'']) {
        return Ok(Operand::Literal(Value::String(quoted(text)?)));
    }
    serde_json::from_str(text)
        .map(Operand::Literal)
        .map_err(|_| JsonPathError(format!("cannot read {text:?} in a filter")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document() -> Value {
        json!({
            "kind": "List",
            "items": [
                {"metadata": {"name": "a", "labels": {"k8s.io/x": "1"}}, "status": {"n": 1, "conditions": [{"type": "Ready", "status": "True"}]}},
                {"metadata": {"name": "b"}, "status": {"n": 2, "conditions": [{"type": "Ready", "status": "False"}]}},
                {"metadata": {"name": "c"}, "status": {"n": 3}},
            ],
        })
    }

    #[test]
    fn what_kubectl_users_write() {
        for (template, expected) in [
            ("{.kind}", "List"),
            ("kind", "kind"),
            ("{.nope}|{.items[0].nope.x}", "|"),
            ("{.items[*].metadata.name}", "a b c"),
            ("{.items[0].metadata.name}", "a"),
            ("{.items[-1].metadata.name}", "c"),
            ("{.items[0:2].metadata.name}", "a b"),
            ("{.items[::2].metadata.name}", "a c"),
            ("{.items[0,2].metadata.name}", "a c"),
            ("{.items[*]['metadata.name','status.n']}", ""),
            ("{..name}", "a b c"),
            (
                "{range .items[*]}{.metadata.name}{\"\\t\"}{.status.n}{'\\n'}{end}",
                "a\t1\nb\t2\nc\t3\n",
            ),
            ("{.items[?(@.status.n>1)].metadata.name}", "b c"),
            ("{.items[?(@.metadata.name==\"b\")].status.n}", "2"),
            ("{.items[?(@.metadata.name!='b')].status.n}", "1 3"),
            ("{.items[?(@.status.conditions)].metadata.name}", "a b"),
            ("{.items[0].status.conditions[?(@.type==\"Ready\")].status}", "True"),
            ("{.items[0].metadata.labels.k8s\\.io/x}", "1"),
            ("{.items[0].metadata.labels['k8s.io/x']}", "1"),
            ("{$.kind}: {.items[2].status}", "List: {\"n\":3}"),
        ] {
            let rendered =
                Template::parse(template).and_then(|template| template.render(&document()));
            assert_eq!(
                rendered.unwrap_or_else(|error| panic!("{template}: {error}")),
                expected,
                "{template}"
            );
        }
    }

    #[test]
    fn paths_are_bounded() {
        let nested = format!("{{.a{}@.b{}}}", "[?(@.x".repeat(5000), ")]".repeat(5000));
        assert!(Template::parse(&nested).is_err());
        let wide = json!({"a": vec![vec![1; 400]; 400]});
        let path = Template::parse_path(".a[*][*]").unwrap();
        assert_eq!(path.find(&wide).len(), FOUND_MAX);
    }

    #[test]
    fn errors_are_reported() {
        for template in [
            "",
            "{",
            "{range .items[*]}",
            "{end}",
            "{.a[}",
            "{.a[x]}",
            "{\"a}",
            "{.items[?(@.n==)]}",
        ] {
            assert!(Template::parse(template).is_err(), "{template}");
        }
        for (template, expected) in [
            ("{.items[9].x}", "array index out of bounds: index 9, length 3"),
            ("{.kind.foo}", "foo is not found"),
        ] {
            let template = Template::parse(template).unwrap().strict();
            let error = template.render(&document()).unwrap_err().to_string();
            assert!(error.ends_with(expected), "{error}");
        }
    }
}
