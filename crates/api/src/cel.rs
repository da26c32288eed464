//! CEL expressions about requests: match conditions of admission webhooks
//! (`k8s.io/apiserver/pkg/admission/plugin/cel`).
//!
//! An [`Expression`] is compiled once and evaluated by many requests. Its variables are an object's
//! JSON, untyped; `request`, whose fields are known; and `authorizer`, which asks an
//! [`Authorizer`].

pub mod access;

use std::sync::LazyLock;

use cel::common::ast::{Expr, IdedExpr, operators};
use serde_json::{Value, json};

use crate::structural::Structural;
use crate::structural::rules::check::{Checker, Kind};
use crate::structural::rules::eval::{Evaluation, Failure};
use crate::structural::rules::value::Val;
use crate::structural::rules::{self, about};
pub use access::{Asked, Authorizer, Decision, User};

/// What all match conditions of one webhook may cost together for one request.
pub const MATCH_BUDGET: u64 = 2_500_000;

/// A variable of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    /// Anything.
    Any,
    /// Kubernetes' `AdmissionRequest`, without the objects.
    Request,
    Authorizer,
}

/// The variables of match conditions.
pub const MATCH_VARIABLES: &[(&str, Variable)] = &[
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

/// A compiled expression.
#[derive(Debug)]
pub struct Expression {
    source: Box<str>,
    program: IdedExpr,
}

impl Expression {
    /// Compiles an expression that must be a `bool`.
    ///
    /// # Errors
    /// Why it cannot be compiled, in Kubernetes' words.
    pub fn condition(source: &str, variables: &[(&str, Variable)]) -> Result<Self, String> {
        let failed = |why: String| format!("compilation failed: {why}");
        let program = rules::parse(source).map_err(failed)?;
        let kinds = variables.iter().map(|(name, variable)| (*name, kind(*variable))).collect();
        let mut checker = Checker::new(kinds);
        let found = checker.check(&program);
        if !checker.errors.is_empty() {
            let texts = checker.errors.iter();
            let texts: Vec<String> =
                texts.map(|problem| about(source, &problem.about, &problem.text)).collect();
            return Err(failed(texts.join("\n")));
        }
        match found.name() {
            Some("bool") => {}
            None if !is_untyped(&program, variables) => {}
            name => {
                let name = name.unwrap_or("dyn");
                return Err(format!("must evaluate to bool but got {name}"));
            }
        }
        Ok(Self { source: source.into(), program })
    }

    /// Evaluates it; what it costs is taken from the budget.
    ///
    /// # Errors
    /// When it has no value, no `bool`, or costs more than is left.
    pub fn holds(
        &self,
        variables: &[(&str, Binding<'_>)],
        budget: &mut u64,
    ) -> Result<bool, EvalError> {
        let values = variables.iter().map(|(name, binding)| (*name, value(*binding))).collect();
        let mut evaluation = Evaluation::new(values, *budget);
        let outcome = evaluation.eval(&self.program);
        *budget = budget.saturating_sub(evaluation.cost);
        let failed = |why: String| EvalError::Failed { source_text: self.source.to_string(), why };
        match outcome {
            Ok(Val::Bool(holds)) => Ok(holds),
            Ok(_) => Err(failed("the result is no bool".to_owned())),
            Err(_) if *budget == 0 => Err(EvalError::Budget),
            Err(Failure::Limit) => {
                Err(failed("operation cancelled: actual cost limit exceeded".to_owned()))
            }
            Err(Failure::NoOverload) => Err(failed("no such overload".to_owned())),
            Err(Failure::Other(why)) => Err(failed(why)),
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
