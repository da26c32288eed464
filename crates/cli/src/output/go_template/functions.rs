//! The functions of templates: Go's, and kubectl's `exists` and `base64decode`.

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use crate::output::go_template::{go_text, order, truth};

/// Every name that [`call`] knows.
pub const NAMES: [&str; 20] = [
    "and",
    "or",
    "not",
    "len",
    "index",
    "slice",
    "print",
    "println",
    "printf",
    "html",
    "js",
    "urlquery",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "exists",
    "base64decode",
];

/// Calls a function; an argument that is `None` is a missing field.
pub fn call(name: &str, arguments: Vec<Option<Value>>) -> anyhow::Result<Option<Value>> {
    let values: Vec<Value> = arguments.into_iter().map(Option::unwrap_or_default).collect();
    let one =
        || values.first().with_context(|| format!("wrong number of args for {name}: want 1 got 0"));
    Ok(Some(match name {
        "and" => chosen(&values, false)?,
        "or" => chosen(&values, true)?,
        "not" => (!truth(one()?)).into(),
        "len" => match one()? {
            Value::String(text) => text.len().into(),
            Value::Array(items) => items.len().into(),
            Value::Object(map) => map.len().into(),
            other => bail!("error calling len: len of type {}", go_text(other)),
        },
        "index" => return index(one()?, &values[1..]),
        "slice" => slice(one()?, &values[1..])?,
        "print" => values.iter().map(go_text).collect::<String>().into(),
        "println" => {
            let texts: Vec<String> = values.iter().map(go_text).collect();
            format!("{}\n", texts.join(" ")).into()
        }
        "printf" => printf(&go_text(one()?), &values[1..])?.into(),
        "html" => escaped(
            &values,
            &[('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&#34;"), ('\'', "&#39;")],
        ),
        "js" => {
            escaped(&values, &[('\\', "\\\\"), ('\'', "\\'"), ('"', "\\\""), ('\n', "\\u000A")])
        }
        "urlquery" => {
            escaped(&values, &[('%', "%25"), (' ', "+"), ('&', "%26"), ('/', "%2F"), ('?', "%3F")])
        }
        "eq" | "ne" | "lt" | "le" | "gt" | "ge" => compare(name, &values)?.into(),
        "exists" => exists(one()?, &values[1..]).into(),
        "base64decode" => {
            let bytes = BASE64.decode(go_text(one()?)).context("error calling base64decode")?;
            String::from_utf8_lossy(&bytes).into_owned().into()
        }
        _ => bail!("function {name:?} not defined"),
    }))
}

/// `and` and `or` return the argument that decides.
fn chosen(values: &[Value], decides: bool) -> anyhow::Result<Value> {
    let decided = values.iter().find(|value| truth(value) == decides);
    decided.or(values.last()).cloned().context("wrong number of args: want at least 1 got 0")
}

fn index(value: &Value, keys: &[Value]) -> anyhow::Result<Option<Value>> {
    let mut here = value;
    for key in keys {
        let next = match (here, key) {
            (Value::Object(map), Value::String(key)) => map.get(key),
            (Value::Array(items), Value::Number(number)) => {
                let at = number.as_u64().and_then(|at| usize::try_from(at).ok());
                let found = at.and_then(|at| items.get(at));
                Some(found.with_context(|| {
                    format!("error calling index: index out of range: {number}")
                })?)
            }
            (Value::Null, _) => bail!("error calling index: index of untyped nil"),
            (other, _) => bail!("error calling index: can't index item of {}", go_text(other)),
        };
        match next {
            Some(next) => here = next,
            None => return Ok(None),
        }
    }
    Ok(Some(here.clone()))
}

fn slice(value: &Value, bounds: &[Value]) -> anyhow::Result<Value> {
    let bound = |at: usize, default: usize| {
        bounds
            .get(at)
            .and_then(Value::as_u64)
            .and_then(|bound| usize::try_from(bound).ok())
            .unwrap_or(default)
    };
    let outside = "error calling slice: index out of range";
    Ok(match value {
        Value::String(text) => text.get(bound(0, 0)..bound(1, text.len())).context(outside)?.into(),
        Value::Array(items) => {
            items.get(bound(0, 0)..bound(1, items.len())).context(outside)?.into()
        }
        other => bail!("error calling slice: can't slice item of {}", go_text(other)),
    })
}

fn escaped(values: &[Value], escapes: &[(char, &str)]) -> Value {
    let text: String = values.iter().map(go_text).collect();
    text.chars()
        .map(|character| {
            let escape = escapes.iter().find(|(from, _)| *from == character);
            escape.map_or_else(|| character.to_string(), |(_, to)| (*to).to_owned())
        })
        .collect::<String>()
        .into()
}

fn compare(name: &str, values: &[Value]) -> anyhow::Result<bool> {
    let [left, rest @ ..] = values else {
        bail!("missing argument for comparison");
    };
    let first = rest.first().context("missing argument for comparison")?;
    let equal =
        |right: &Value| left == right || order(left, right).is_some_and(|order| order.is_eq());
    if matches!(name, "eq" | "ne") {
        return Ok(rest.iter().any(equal) == (name == "eq"));
    }
    let order = order(left, first)
        .with_context(|| format!("error calling {name}: incompatible types for comparison"))?;
    Ok(match name {
        "lt" => order.is_lt(),
        "le" => order.is_le(),
        "gt" => order.is_gt(),
        _ => order.is_ge(),
    })
}

fn exists(value: &Value, keys: &[Value]) -> bool {
    let mut here = Some(value);
    for key in keys {
        here = match (here, key) {
            (Some(Value::Object(map)), Value::String(key)) => map.get(key),
            (Some(Value::Array(items)), Value::Number(number)) => {
                number.as_u64().and_then(|at| items.get(usize::try_from(at).ok()?))
            }
            _ => None,
        };
    }
    here.is_some()
}

/// Go's verbs `%s %v %d %q %t %f %x %%` with flags `-` and `0` and a width.
fn printf(format: &str, arguments: &[Value]) -> anyhow::Result<String> {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut characters = format.chars().peekable();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let mut spec = String::new();
        while let Some(next) = characters.next_if(|next| "-+0123456789.".contains(*next)) {
            spec.push(next);
        }
        let verb = characters.next().unwrap_or('%');
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(argument) = arguments.next() else {
            out.push_str(&format!("%!{verb}(MISSING)"));
            continue;
        };
        let (size, precision) = spec.split_once('.').unwrap_or((&spec, ""));
        let text = match verb {
            'q' => format!("{:?}", go_text(argument)),
            'f' => {
                let digits = precision.parse().unwrap_or(6);
                format!("{:.digits$}", argument.as_f64().unwrap_or_default())
            }
            'x' => format!("{:x}", argument.as_i64().unwrap_or_default()),
            's' | 'v' | 'd' | 't' => go_text(argument),
            other => bail!("printf does not know %{other}"),
        };
        let width = size.trim_start_matches(['-', '+']).parse().unwrap_or(0);
        let fill = |count: usize, with: char| std::iter::repeat_n(with, count).collect::<String>();
        let missing = usize::saturating_sub(width, text.chars().count());
        if size.starts_with('-') {
            out.push_str(&text);
            out.push_str(&fill(missing, ' '));
        } else {
            let with = if size.starts_with('0') { '0' } else { ' ' };
            out.push_str(&fill(missing, with));
            out.push_str(&text);
        }
    }
    Ok(out)
}
