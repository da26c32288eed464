//! `-o go-template`: the part of Go's `text/template` that templates over objects use: fields,
//! variables, pipelines, `if`, `with`, `range`, and the built-in functions with kubectl's two.

mod functions;
mod parse;

use std::cmp::Ordering;

use anyhow::bail;
use serde_json::Value;

/// A parsed template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template(Vec<Node>);

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Text(String),
    /// Prints a pipeline, or sets a variable to it (`true`: a new one).
    Action(Option<(String, bool)>, Pipeline),
    If(Pipeline, Vec<Node>, Vec<Node>),
    With(Option<String>, Pipeline, Vec<Node>, Vec<Node>),
    Range(Vec<String>, Pipeline, Vec<Node>, Vec<Node>),
    Break,
    Continue,
}

/// Commands; the value of each is the last argument of the next.
type Pipeline = Vec<Vec<Operand>>;

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Literal(Value),
    Dot(Vec<String>),
    Variable(String, Vec<String>),
    Group(Pipeline, Vec<String>),
    Function(String),
}

/// How a list of nodes ended.
#[derive(Clone, Copy, PartialEq)]
enum Flow {
    On,
    Break,
    Continue,
}

impl Template {
    /// # Errors
    /// When the template cannot be parsed, or names a function that does not exist.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        if text.is_empty() {
            bail!("template format specified but no template given");
        }
        parse::parse(text).map(Self).map_err(|error| {
            anyhow::anyhow!("error parsing template {text}, template: output:1: {error}")
        })
    }

    /// # Errors
    /// When a function does not accept its arguments.
    pub fn render(&self, object: &Value) -> anyhow::Result<String> {
        let mut run = Run { variables: vec![("$".to_owned(), object.clone())], out: String::new() };
        run.nodes(&self.0, object)
            .map_err(|error| anyhow::anyhow!("error executing template: {error}"))?;
        Ok(run.out)
    }
}

struct Run {
    variables: Vec<(String, Value)>,
    out: String,
}

impl Run {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> anyhow::Result<Flow> {
        let known = self.variables.len();
        for node in nodes {
            let flow = self.node(node, dot)?;
            if flow != Flow::On {
                self.variables.truncate(known);
                return Ok(flow);
            }
        }
        self.variables.truncate(known);
        Ok(Flow::On)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> anyhow::Result<Flow> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Action(None, pipeline) => {
                let text = match self.pipeline(pipeline, dot)? {
                    Some(value) => go_text(&value),
                    None => "<no value>".to_owned(),
                };
                self.out.push_str(&text);
            }
            Node::Action(Some((name, new)), pipeline) => {
                let value = self.pipeline(pipeline, dot)?.unwrap_or_default();
                self.set(name, *new, value)?;
            }
            Node::If(pipeline, then, otherwise) => {
                let value = self.pipeline(pipeline, dot)?.unwrap_or_default();
                return self.nodes(if truth(&value) { then } else { otherwise }, dot);
            }
            Node::With(name, pipeline, then, otherwise) => {
                let value = self.pipeline(pipeline, dot)?.unwrap_or_default();
                if !truth(&value) {
                    return self.nodes(otherwise, dot);
                }
                let known = self.variables.len();
                if let Some(name) = name {
                    self.variables.push((name.clone(), value.clone()));
                }
                let flow = self.nodes(then, &value);
                self.variables.truncate(known);
                return flow;
            }
            Node::Range(names, pipeline, body, otherwise) => {
                let value = self.pipeline(pipeline, dot)?.unwrap_or_default();
                return self.range(names, &value, body, otherwise, dot);
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn range(
        &mut self,
        names: &[String],
        value: &Value,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> anyhow::Result<Flow> {
        let items: Vec<(Value, Value)> = match value {
            Value::Array(items) => {
                items.iter().enumerate().map(|(index, item)| (index.into(), item.clone())).collect()
            }
            Value::Object(map) => {
                map.iter().map(|(key, item)| (key.as_str().into(), item.clone())).collect()
            }
            Value::Null => Vec::new(),
            other => bail!("range can't iterate over {}", go_text(other)),
        };
        if items.is_empty() {
            return self.nodes(otherwise, dot);
        }
        for (key, item) in items {
            let known = self.variables.len();
            match names {
                [one] => self.variables.push((one.clone(), item.clone())),
                [first, second] => {
                    self.variables.push((first.clone(), key));
                    self.variables.push((second.clone(), item.clone()));
                }
                _ => {}
            }
            let flow = self.nodes(body, &item)?;
            self.variables.truncate(known);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn set(&mut self, name: &str, new: bool, value: Value) -> anyhow::Result<()> {
        if new {
            self.variables.push((name.to_owned(), value));
            return Ok(());
        }
        match self.variables.iter_mut().rev().find(|(own, _)| own == name) {
            Some((_, own)) => *own = value,
            None => bail!("undefined variable {name:?}"),
        }
        Ok(())
    }

    /// The value; `None` for a missing field.
    fn pipeline(&self, pipeline: &Pipeline, dot: &Value) -> anyhow::Result<Option<Value>> {
        let mut value: Option<Value> = None;
        for (index, command) in pipeline.iter().enumerate() {
            value = self.command(command, dot, (index > 0).then_some(value))?;
        }
        Ok(value)
    }

    fn command(
        &self,
        command: &[Operand],
        dot: &Value,
        last: Option<Option<Value>>,
    ) -> anyhow::Result<Option<Value>> {
        let Some(Operand::Function(name)) = command.first() else {
            return match command {
                [only] if last.is_none() => self.operand(only, dot),
                _ => bail!("can't give argument to non-function"),
            };
        };
        let mut arguments = Vec::new();
        for operand in &command[1..] {
            arguments.push(self.operand(operand, dot)?);
        }
        arguments.extend(last);
        functions::call(name, arguments)
    }

    fn operand(&self, operand: &Operand, dot: &Value) -> anyhow::Result<Option<Value>> {
        Ok(match operand {
            Operand::Literal(value) => Some(value.clone()),
            Operand::Dot(path) => field(dot.clone(), path)?,
            Operand::Variable(name, path) => {
                let variable = self.variables.iter().rev().find(|(own, _)| own == name);
                match variable {
                    Some((_, value)) => field(value.clone(), path)?,
                    None => bail!("undefined variable {name:?}"),
                }
            }
            Operand::Group(pipeline, path) => match self.pipeline(pipeline, dot)? {
                Some(value) => field(value, path)?,
                None => None,
            },
            Operand::Function(_) => self.command(std::slice::from_ref(operand), dot, None)?,
        })
    }
}

fn field(mut value: Value, path: &[String]) -> anyhow::Result<Option<Value>> {
    for name in path {
        value = match value {
            Value::Object(mut map) => match map.remove(name) {
                Some(inner) => inner,
                None => return Ok(None),
            },
            Value::Null => bail!("nil pointer evaluating interface {{}}.{name}"),
            other => bail!("can't evaluate field {name} in {}", go_text(&other)),
        };
    }
    Ok(Some(value))
}

/// Go's truth: anything but null, zero and empty values.
fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// A value as Go prints it with `%v`.
pub fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let texts: Vec<String> = items.iter().map(go_text).collect();
            format!("[{}]", texts.join(" "))
        }
        Value::Object(map) => {
            let texts: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}:{}", go_text(value))).collect();
            format!("map[{}]", texts.join(" "))
        }
        other => other.to_string(),
    }
}

fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64().partial_cmp(&right.as_f64()),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_kubectl_users_write() {
        let object = json!({
            "kind": "List", "n": 3, "labels": {"b": "2", "a": "1"}, "secret": "aGk=",
            "items": [{"metadata": {"name": "x"}, "ready": true}, {"metadata": {"name": "y"}, "ready": false}],
        });
        for (template, expected) in [
            ("{{.kind}}", "List"),
            ("{{.missing}}|{{.labels}}|{{.n}}", "<no value>|map[a:1 b:2]|3"),
            ("{{range .items}}{{.metadata.name}}{{\"\\n\"}}{{end}}", "x\ny\n"),
            ("{{range $i, $e := .items}}{{if $i}}, {{end}}{{$e.metadata.name}}{{end}}", "x, y"),
            ("{{range $k, $v := .labels}}{{$k}}={{$v}};{{end}}", "a=1;b=2;"),
            ("{{range .none}}x{{else}}nothing{{end}}", "nothing"),
            ("{{with .labels}}{{.a}}{{end}}", "1"),
            ("{{if and (eq .kind \"List\") (gt .n 2)}}yes{{else}}no{{end}}", "yes"),
            ("{{if eq .n 1}}a{{else if eq .n 3}}b{{end}}", "b"),
            ("{{index .labels \"a\"}} {{(index .items 1).metadata.name}} {{len .items}}", "1 y 2"),
            ("{{printf \"%-4s|%d|%v|%q\" .kind .n .labels .kind}}", "List|3|map[a:1 b:2]|\"List\""),
            ("{{.secret | base64decode}} {{exists . \"labels\" \"a\"}}", "hi true"),
            ("a {{- /* no */ -}} b{{$x := 1}}{{$x = 2}}{{$x}}", "ab2"),
            ("{{range .items}}{{if not .ready}}{{break}}{{end}}{{.metadata.name}}{{end}}", "x"),
        ] {
            let rendered = Template::parse(template).and_then(|template| template.render(&object));
            assert_eq!(
                rendered.unwrap_or_else(|error| panic!("{template}: {error}")),
                expected,
                "{template}"
            );
        }
    }

    #[test]
    fn errors_are_reported() {
        for template in ["{{", "{{.a", "{{if .a}}", "{{end}}", "{{nope .a}}", "{{\"a}}"] {
            assert!(Template::parse(template).is_err(), "{template}");
        }
        let template = Template::parse("{{.kind.x}}").unwrap();
        assert!(template.render(&json!({"kind": "a"})).is_err());
    }
}
