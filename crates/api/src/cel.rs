//! CEL expressions about requests: match conditions of admission webhooks
//! (`k8s.io/apiserver/pkg/admission/plugin/cel`).
//!
//! An [`Expression`] is compiled once and evaluated by many requests. Its variables are an object's
//! JSON, untyped; `request`, whose fields are known; and `authorizer`, which asks an
//! [`Authorizer`].

pub mod access;

use std::sync::LazyLock;

use cel::common::ast::{Expr, IdedExpr, operators};
use serde_json::{Map, Value, json};

use crate::structural::Structural;
use crate::structural::rules::check::{Checker, Kind};
use crate::structural::rules::eval::{Evaluation, Failure};
use crate::structural::rules::value::Val;
use crate::structural::rules::{self, about};
pub use access::{Asked, Authorizer, Decision, User};

pub use crate::structural::rules::value::RESERVED;

/// What all match conditions of one webhook may cost together for one request.
pub const MATCH_BUDGET: u64 = 2_500_000;

/// What all expressions of one policy may cost together for one request.
pub const POLICY_BUDGET: u64 = 10_000_000;

/// What is known of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    /// Anything.
    Any,
    /// Kubernetes' `AdmissionRequest`, without the objects.
    Request,
    Authorizer,
}

/// The variables of match conditions and policies.
const VARIABLES: [(&str, Variable); 5] = [
    ("object", Variable::Any),
    ("oldObject", Variable::Any),
    ("namespaceObject", Variable::Any),
    ("request", Variable::Request),
    ("authorizer", Variable::Authorizer),
];

/// What a variable stands for.
#[derive(Clone, Copy)]
pub enum Binding<'a> {
    /// `Value::Null` for what there is not.
    Json(&'a Value),
    /// The authorizer, with the user and the resource of the request.
    Authorizer(&'a dyn Authorizer, &'a User, &'a Asked),
}

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    #[error(
        "validation failed due to running out of cost budget, no further validation rules will be run"
    )]
    Budget,
    #[error("expression '{source_text}' resulted in error: {why}")]
    Failed { source_text: String, why: String },
}

/// The value of an expression, as far as anybody asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    Bool(bool),
    Text(String),
    Null,
    /// Its type.
    Other(&'static str),
}

/// What expressions are compiled in: their variables.
pub struct Environment {
    variables: Vec<(&'static str, Variable)>,
    /// The members of `variables`, as a schema: those that a policy composes.
    composed: Map<String, Value>,
}

impl Environment {
    /// That of match conditions and policies. `params`: a policy has parameters.
    pub fn new(params: bool) -> Self {
        let mut variables = VARIABLES.to_vec();
        if params {
            variables.push(("params", Variable::Any));
        }
        Self { variables, composed: Map::new() }
    }

    /// That of selectors of devices.
    pub fn of_devices() -> Self {
        Self { variables: vec![("device", Variable::Any)], composed: Map::new() }
    }

    /// The same for messages, which cannot ask the authorizer.
    #[must_use]
    pub fn without_authorizer(&self) -> Self {
        let mut variables = self.variables.clone();
        variables.retain(|(_, kind)| *kind != Variable::Authorizer);
        Self { variables, composed: self.composed.clone() }
    }

    /// Adds a member of `variables`, of the type of an expression.
    pub fn compose(&mut self, name: &str, expression: Option<&Expression>) {
        let schema = match expression.and_then(|expression| expression.kind) {
            Some("bool") => json!({"type": "boolean"}),
            Some("string") => json!({"type": "string"}),
            Some("int") => json!({"type": "integer"}),
            Some("double") => json!({"type": "number"}),
            _ => json!({"x-kubernetes-preserve-unknown-fields": true}),
        };
        self.composed.insert(name.to_owned(), schema);
    }

    /// Compiles an expression. `wanted`: the types that it may have, by their names; none: any.
    ///
    /// # Errors
    /// Why it cannot be compiled, in Kubernetes' words.
    pub fn compile(&self, source: &str, wanted: &[&str]) -> Result<Expression, String> {
        let failed = |why: String| format!("compilation failed: {why}");
        let program = rules::parse(source).map_err(failed)?;
        let schema = json!({"type": "object", "properties": self.composed});
        let composed = Structural::new(&schema).map_err(|error| error.to_string())?;
        let variables = self.variables.iter();
        let mut kinds: Vec<_> =
            variables.map(|(name, variable)| (*name, kind(*variable))).collect();
        if !self.composed.is_empty() {
            kinds.push(("variables", Kind::Schema(&composed.root, false)));
        }
        let mut checker = Checker::new(kinds);
        let found = checker.check(&program);
        if !checker.errors.is_empty() {
            let texts = checker.errors.iter();
            let texts: Vec<String> =
                texts.map(|problem| about(source, &problem.about, &problem.text)).collect();
            return Err(failed(texts.join("\n")));
        }
        let kind = found.name();
        let is_right = match kind {
            Some(name) => wanted.contains(&name),
            None => !is_untyped(&program, &self.variables),
        };
        if !is_right && !wanted.is_empty() {
            let name = kind.unwrap_or("dyn");
            return Err(match wanted {
                [only] => format!("must evaluate to {only} but got {name}"),
                all => format!("must evaluate to one of [{}] but got {name}", all.join(" ")),
            });
        }
        Ok(Expression { source: source.into(), program, kind })
    }

    /// Compiles a condition.
    ///
    /// # Errors
    /// As [`Self::compile`].
    pub fn condition(&self, source: &str) -> Result<Expression, String> {
        self.compile(source, &["bool"])
    }
}

/// A compiled expression.
#[derive(Debug)]
pub struct Expression {
    source: Box<str>,
    program: IdedExpr,
    /// Its type, if it can only be one.
    kind: Option<&'static str>,
}

/// Evaluates expressions about one request, which share what they may cost and what their
/// `variables` have come to.
pub struct Session<'a> {
    evaluation: Evaluation<'a>,
    budget: u64,
}

impl<'a> Session<'a> {
    /// `composed`: the members of `variables`, in their order.
    pub fn new(
        variables: &[(&'a str, Binding<'a>)],
        composed: &'a [(String, Expression)],
        budget: u64,
    ) -> Self {
        let mut values: Vec<(&'a str, Val<'a>)> =
            variables.iter().map(|(name, binding)| (*name, value(*binding))).collect();
        values.push(("variables", Val::Composed));
        let composed = composed.iter().map(|(name, expression)| (&**name, &expression.program));
        let mut evaluation = Evaluation::new(values, budget);
        evaluation.compose(composed.collect());
        Self { evaluation, budget }
    }

    /// Evaluates an expression; what it costs is taken from the budget.
    ///
    /// # Errors
    /// When it has no value, or costs more than is left.
    pub fn eval(&mut self, expression: &'a Expression) -> Result<Output, EvalError> {
        self.evaluation.restart(self.budget);
        let outcome = self.evaluation.eval(&expression.program);
        self.budget = self.budget.saturating_sub(self.evaluation.cost);
        let failed = |why: String| {
            Err(EvalError::Failed { source_text: expression.source.to_string(), why })
        };
        match outcome {
            Ok(Val::Bool(value)) => Ok(Output::Bool(value)),
            Ok(Val::Text(text)) => Ok(Output::Text(text.as_str().to_owned())),
            Ok(Val::Null) => Ok(Output::Null),
            Ok(other) => Ok(Output::Other(other.type_name())),
            Err(_) if self.budget == 0 => Err(EvalError::Budget),
            Err(Failure::Limit) => {
                failed("operation cancelled: actual cost limit exceeded".to_owned())
            }
            Err(Failure::NoOverload) => failed("no such overload".to_owned()),
            Err(Failure::Other(why)) => failed(why),
        }
    }

    /// Whether all conditions hold. One that does not decides, whatever is wrong with others.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn all(
        &mut self,
        conditions: impl Iterator<Item = &'a Result<Expression, String>>,
    ) -> Result<bool, String> {
        let mut errors = Vec::new();
        for condition in conditions {
            match condition {
                Err(why) => errors.push(format!("compilation error: {why}")),
                Ok(expression) => match self.eval(expression) {
                    Ok(Output::Bool(true)) => {}
                    Ok(_) => return Ok(false),
                    Err(error) => errors.push(error.to_string()),
                },
            }
        }
        match errors.as_slice() {
            [] => Ok(true),
            [only] => Err(only.clone()),
            all => Err(format!("[{}]", all.join(", "))),
        }
    }
}

/// Whether an expression only reads a part of something untyped.
fn is_untyped(expression: &IdedExpr, variables: &[(&str, Variable)]) -> bool {
    match &expression.expr {
        Expr::Ident(name) => {
            variables.iter().any(|(known, kind)| known == name && *kind == Variable::Any)
        }
        Expr::Select(select) if !select.test => is_untyped(&select.operand, variables),
        Expr::Call(call) if call.func_name == operators::INDEX => {
            call.args.first().is_some_and(|operand| is_untyped(operand, variables))
        }
        _ => false,
    }
}

fn kind(variable: Variable) -> Kind<'static> {
    match variable {
        Variable::Any => Kind::Any,
        Variable::Request => Kind::Schema(&REQUEST.root, false),
        Variable::Authorizer => Kind::Named(access::AUTHORIZER),
    }
}

fn value(binding: Binding<'_>) -> Val<'_> {
    match binding {
        Binding::Json(value) => Val::of(value, None),
        Binding::Authorizer(authorizer, user, asked) => {
            Val::Access(access::Access::root(authorizer, user, asked))
        }
    }
}

static REQUEST: LazyLock<Structural> = LazyLock::new(|| {
    let text = || json!({"type": "string"});
    let object = |names: &[&str]| {
        let properties: serde_json::Map<String, Value> =
            names.iter().map(|name| ((*name).to_owned(), text())).collect();
        json!({"type": "object", "properties": properties})
    };
    let texts = json!({"type": "array", "items": text()});
    let (kind, resource) =
        (object(&["group", "version", "kind"]), object(&["group", "version", "resource"]));
    let schema = json!({"type": "object", "properties": {
        "kind": kind, "resource": resource, "subResource": text(),
        "requestKind": kind, "requestResource": resource, "requestSubResource": text(),
        "name": text(), "namespace": text(), "operation": text(),
        "userInfo": {"type": "object", "properties": {
            "username": text(), "uid": text(), "groups": texts,
            "extra": {"type": "object", "additionalProperties": texts}}},
        "dryRun": {"type": "boolean"},
        "options": {"x-kubernetes-preserve-unknown-fields": true},
    }});
    Structural::new(&schema).expect("the schema of requests is structural")
});

#[cfg(test)]
mod tests;
