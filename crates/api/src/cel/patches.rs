//! What the expressions of mutating policies make (`k8s.io/apiserver/pkg/cel/mutation`): an `Object`,
//! whose fields are applied, or a list of `JSONPatch`, the operations of a patch.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};

use super::{EvalError, Expression, Session};
use crate::structural::go;
use crate::structural::rules::eval::{Evaluation, Failure, go_type};
use crate::structural::rules::value::{JSON_PATCH, List, OBJECT, Object, Struct, Val, json_weight};

/// How deep a value may be: decoding allows no more either.
const DEPTH_MAX: usize = 128;

/// Why a value is no JSON.
enum Unwritable {
    Failure(Failure),
    /// In Kubernetes' words.
    Why(String),
}

impl From<Failure> for Unwritable {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl<'a> Session<'a> {
    /// Evaluates an expression that makes an `Object`: its fields. To copy what it refers to costs as
    /// much as to read it.
    ///
    /// # Errors
    /// As [`Session::eval`], and when it is no object of the right types.
    pub fn object(&mut self, expression: &'a Expression) -> Result<Value, EvalError> {
        let made = match self.value(expression)? {
            Val::Struct(made) if made.name == OBJECT => made,
            other => {
                let kind = other.type_name();
                return Err(EvalError::Unusable(format!(
                    "unsupported return type from ApplyConfiguration expression: {kind}"
                )));
            }
        };
        self.check_names(expression, &made)?;
        self.written(expression, &Val::Struct(made), |_| {
            "invalid return type: *dynamic.ObjectVal".to_owned()
        })
    }

    /// Evaluates an expression that makes a list of `JSONPatch`: the operations.
    ///
    /// # Errors
    /// As [`Session::object`].
    pub fn operations(&mut self, expression: &'a Expression) -> Result<Vec<Value>, EvalError> {
        const WANTED: &str = "type mismatch: JSONPatchType.expression should evaluate to array";
        let Val::List(list) = self.value(expression)? else {
            return Err(EvalError::Unusable(WANTED.to_owned()));
        };
        let mut operations = Vec::with_capacity(list.len());
        for item in list.iter() {
            let Val::Struct(made) = item else {
                return Err(EvalError::Unusable(format!("{WANTED} of JSONPatch")));
            };
            if made.name != JSON_PATCH {
                return Err(EvalError::Unusable(format!("{WANTED} of JSONPatch")));
            }
            let mut operation = Map::new();
            // As upstream, these are there even if they are empty.
            operation.insert("op".to_owned(), "".into());
            operation.insert("path".to_owned(), "".into());
            for (name, value) in &made.fields {
                if let Val::Struct(object) = value {
                    self.check_names(expression, object)?;
                }
                let json = self.written(expression, value, |why| {
                    format!(
                        "JSONPath valueExpression evaluated to a type that could not marshal to JSON: {why}"
                    )
                })?;
                if *name != "from" || json != "" {
                    operation.insert((*name).to_owned(), json);
                }
            }
            operations.push(Value::Object(operation));
        }
        Ok(operations)
    }

    /// The types of an object and of what is in it have to be those of the fields' paths.
    fn check_names(
        &mut self,
        expression: &Expression,
        object: &Struct<'a>,
    ) -> Result<(), EvalError> {
        let problems = self.counted(expression, |evaluation| {
            let mut problems = Vec::new();
            name_problems(evaluation, object, object.name, 0, &mut problems)?;
            Ok(problems)
        })?;
        match problems.as_slice() {
            [] => Ok(()),
            all => Err(EvalError::Unusable(format!("type mismatch: {}", all.join("\n")))),
        }
    }

    fn written(
        &mut self,
        expression: &Expression,
        value: &Val<'a>,
        explained: impl FnOnce(String) -> String,
    ) -> Result<Value, EvalError> {
        self.evaluation.restart(self.budget);
        let written = json(&mut self.evaluation, value, 0);
        self.budget = self.budget.saturating_sub(self.evaluation.spent());
        written.map_err(|unwritable| match unwritable {
            Unwritable::Why(why) => EvalError::Unusable(explained(why)),
            Unwritable::Failure(failure) => self.failure(expression, failure),
        })
    }
}

fn name_problems(
    evaluation: &mut Evaluation<'_>,
    object: &Struct<'_>,
    path: &str,
    depth: usize,
    problems: &mut Vec<String>,
) -> Result<(), Failure> {
    if object.name != path {
        evaluation.write(path.len() + object.name.len())?;
        problems.push(format!(
            "unexpected type name {}, expected {}, which matches field name path from root Object type",
            go::quoted(object.name),
            go::quoted(path)
        ));
    }
    for (name, value) in &object.fields {
        evaluation.write(path.len() + name.len())?;
        name_problems_in(evaluation, value, &format!("{path}.{name}"), depth + 1, problems)?;
    }
    Ok(())
}

fn name_problems_in(
    evaluation: &mut Evaluation<'_>,
    value: &Val<'_>,
    path: &str,
    depth: usize,
    problems: &mut Vec<String>,
) -> Result<(), Failure> {
    evaluation.work(1)?;
    if depth > DEPTH_MAX {
        return Ok(());
    }
    match value {
        Val::Struct(object) => name_problems(evaluation, object, path, depth, problems)?,
        Val::List(List::Owned(list)) => {
            for item in list.iter() {
                name_problems_in(evaluation, item, path, depth + 1, problems)?;
            }
        }
        Val::Map(Object::Owned(entries)) => {
            for (_, item) in entries.iter() {
                name_problems_in(evaluation, item, path, depth + 1, problems)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// A value as JSON.
fn json(
    evaluation: &mut Evaluation<'_>,
    value: &Val<'_>,
    depth: usize,
) -> Result<Value, Unwritable> {
    if depth > DEPTH_MAX {
        return Err(Unwritable::Why("exceeded max depth".to_owned()));
    }
    evaluation.charge(1)?;
    let size = |text: &str| text.len() as u64 / 10;
    Ok(match value {
        Val::Null => Value::Null,
        Val::Bool(flag) => (*flag).into(),
        Val::Int(number) => (*number).into(),
        Val::Uint(number) => (*number).into(),
        Val::Double(number) => serde_json::Number::from_f64(*number)
            .map(Value::Number)
            .ok_or_else(|| Unwritable::Why(format!("unsupported value: {}", go::float(*number))))?,
        Val::Text(text) | Val::Url(text) => {
            evaluation.charge(size(text.as_str()))?;
            text.as_str().into()
        }
        Val::Bytes(bytes) => {
            evaluation.charge(bytes.len() as u64 / 10)?;
            BASE64.encode(bytes).into()
        }
        Val::Timestamp(time) => time.to_string().into(),
        Val::Duration(nanos) => format!("{}s", go::float(*nanos as f64 / 1e9)).into(),
        Val::List(List::Json(list, _)) => {
            evaluation.charge(list.iter().map(json_weight).sum::<usize>() as u64)?;
            Value::Array(list.to_vec())
        }
        Val::Map(Object::Json(map, _)) => {
            evaluation.charge(map.values().map(json_weight).sum::<usize>() as u64)?;
            Value::Object((*map).clone())
        }
        Val::List(List::Owned(list)) => {
            let items = list.iter().map(|item| json(evaluation, item, depth + 1));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        Val::Map(Object::Owned(entries)) => {
            let mut map = Map::new();
            for (key, value) in entries.iter() {
                let Val::Text(key) = key else {
                    let kind = go_type(key);
                    return Err(Unwritable::Why(format!("map key is of type {kind}, not string")));
                };
                evaluation.charge(size(key.as_str()))?;
                map.insert(key.as_str().to_owned(), json(evaluation, value, depth + 1)?);
            }
            Value::Object(map)
        }
        Val::Struct(made) if made.name != JSON_PATCH => {
            let mut map = Map::new();
            for (name, value) in &made.fields {
                map.insert((*name).to_owned(), json(evaluation, value, depth + 1)?);
            }
            Value::Object(map)
        }
        other => {
            let kind = other.type_name();
            return Err(Unwritable::Why(format!("type conversion error from '{kind}' to JSON")));
        }
    })
}
