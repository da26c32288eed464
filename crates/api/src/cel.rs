//! CEL expressions about requests: match conditions of admission webhooks, and admission policies
//! (`k8s.io/apiserver/pkg/admission/plugin/cel`).
//!
//! An [`Expression`] is compiled once and evaluated by many requests. Its variables are an object's
//! JSON, untyped; `request`, whose fields are known; and `authorizer`, which asks an
//! [`Authorizer`].

pub mod access;
mod patches;
pub mod type_checking;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, MapExpr, StructExpr, operators};
use serde_json::{Value, json};

use crate::structural::Structural;
use crate::structural::node::Node;
use crate::structural::rules::check::{Checker, Kind, Members};
use crate::structural::rules::cost::Place;
use crate::structural::rules::eval::{Evaluation, Failure};
use crate::structural::rules::value::{OBJECT, Val};
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
    /// The Namespace of an object, as far as it is shown.
    Namespace,
    /// Kubernetes' `AdmissionRequest`, without the objects.
    Request,
    Authorizer,
}

/// What expressions call that which a policy composes.
const VARIABLES_NAME: &str = "variables";
/// The type of the operations of a patch.
const PATCHES: &str = "list(JSONPatch)";

/// The variables of match conditions and policies.
const VARIABLES: [(&str, Variable); 5] = [
    ("object", Variable::Any),
    ("oldObject", Variable::Any),
    ("namespaceObject", Variable::Namespace),
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
    /// Its value is none that can be applied.
    #[error("{0}")]
    Unusable(String),
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
    /// The members of `variables`: those that a policy composes.
    composed: Arc<Members>,
    /// How many variables each of them is made of, one of the other.
    levels: Arc<HashMap<String, usize>>,
    /// Whether there are types for patches.
    patches: bool,
}

/// How many variables may be made of one another: so deep may their values be.
const COMPOSED_MAX: usize = 48;

impl Environment {
    /// That of match conditions and policies. `params`: a policy has parameters.
    pub fn new(params: bool) -> Self {
        let mut variables = VARIABLES.to_vec();
        if params {
            variables.push(("params", Variable::Any));
        }
        Self { variables, ..Self::of(&[]) }
    }

    /// Variables of which nothing is known.
    pub fn of(names: &[&'static str]) -> Self {
        let variables = names.iter().map(|name| (*name, Variable::Any)).collect();
        let (composed, levels) = Default::default();
        Self { variables, composed, levels, patches: false }
    }

    /// The same for messages, which cannot ask the authorizer.
    #[must_use]
    pub fn without_authorizer(&self) -> Self {
        let mut variables = self.variables.clone();
        variables.retain(|(_, kind)| *kind != Variable::Authorizer);
        let (composed, levels) = (self.composed.clone(), self.levels.clone());
        Self { variables, composed, levels, patches: self.patches }
    }

    /// The same for mutations, which make parts of objects and patches.
    #[must_use]
    pub fn with_patches(self) -> Self {
        Self { patches: true, ..self }
    }

    /// Adds a member of `variables`, of the type of an expression.
    pub fn compose(&mut self, name: &str, expression: Option<&Expression>) {
        let schema = expression.map_or_else(|| schema(None, None), Expression::schema);
        Arc::make_mut(&mut self.composed).insert(name.to_owned(), schema);
        let level = expression.map_or(0, |expression| self.level(&expression.program));
        Arc::make_mut(&mut self.levels).insert(name.to_owned(), level);
    }

    /// How many variables an expression is made of, one of the other.
    fn level(&self, program: &IdedExpr) -> usize {
        let mut level = 0;
        walk(program, &mut |part| {
            let read = selected(part, VARIABLES_NAME).and_then(|name| self.levels.get(name));
            level = level.max(read.map_or(0, |level| level + 1));
        });
        level
    }

    /// Compiles an expression. `wanted`: the types that it may have, by their names; none: any.
    ///
    /// # Errors
    /// Why it cannot be compiled, in Kubernetes' words.
    pub fn compile(&self, source: &str, wanted: &[&str]) -> Result<Expression, String> {
        let failed = |why: String| format!("compilation failed: {why}");
        let program = rules::parse(source).map_err(failed)?;
        let variables = self.variables.iter();
        let mut kinds: Vec<_> =
            variables.map(|(name, variable)| (*name, kind(*variable))).collect();
        if !self.composed.is_empty() {
            kinds.push((VARIABLES_NAME, Kind::Members(&self.composed)));
        }
        let mut checker = Checker::new(kinds, Place::Nowhere).with_patches(self.patches);
        let found = checker.check(&program);
        if let Some(why) = problems(source, &checker) {
            return Err(failed(why));
        }
        if self.level(&program) > COMPOSED_MAX {
            return Err(failed(about(source, "", "expression is nested too deeply")));
        }
        let (kind, name) = (found.kind.name(), found.described());
        let is_right = match kind {
            Some("list") if wanted == [PATCHES] => {
                name == PATCHES || (found.is_open() && !is_untyped(&program, &self.variables))
            }
            Some(_) => wanted.contains(&name.as_str()),
            None => !is_untyped(&program, &self.variables),
        };
        if !is_right && !wanted.is_empty() {
            return Err(match wanted {
                [only] => format!("must evaluate to {only} but got {name}"),
                all => format!("must evaluate to one of [{}] but got {name}", all.join(" ")),
            });
        }
        let inner = found.inner.name();
        Ok(Expression { source: source.into(), program, kind, inner })
    }

    /// Compiles a condition.
    ///
    /// # Errors
    /// As [`Self::compile`].
    pub fn condition(&self, source: &str) -> Result<Expression, String> {
        self.compile(source, &["bool"])
    }

    /// Compiles an expression that makes an object to be applied.
    ///
    /// # Errors
    /// As [`Self::compile`].
    pub fn apply_configuration(&self, source: &str) -> Result<Expression, String> {
        self.compile(source, &[OBJECT])
    }

    /// Compiles an expression that makes the operations of a patch.
    ///
    /// # Errors
    /// As [`Self::compile`].
    pub fn json_patch(&self, source: &str) -> Result<Expression, String> {
        self.compile(source, &[PATCHES])
    }
}

/// A compiled expression.
#[derive(Debug)]
pub struct Expression {
    source: Box<str>,
    program: IdedExpr,
    /// Its type, if it can only be one.
    kind: Option<&'static str>,
    /// That of what is in it.
    inner: Option<&'static str>,
}

/// The type of a composed variable.
fn schema(kind: Option<&str>, inner: Option<&str>) -> Arc<Node> {
    fn shape(kind: Option<&str>, inner: Option<&str>) -> Value {
        match kind {
            Some("bool") => json!({"type": "boolean"}),
            Some("string") => json!({"type": "string"}),
            Some("int") => json!({"type": "integer"}),
            Some("double") => json!({"type": "number"}),
            Some("bytes") => json!({"type": "string", "format": "byte"}),
            Some("timestamp") => json!({"type": "string", "format": "date-time"}),
            Some("duration") => json!({"type": "string", "format": "duration"}),
            Some("list") => json!({"type": "array", "items": shape(inner, None)}),
            _ => json!({"x-kubernetes-preserve-unknown-fields": true}),
        }
    }
    let structural = Structural::new(&shape(kind, inner));
    structural.map(|structural| structural.root).unwrap_or_default().into()
}

/// What a checker has found, as CEL prints it.
fn problems(source: &str, checker: &Checker<'_, '_>) -> Option<String> {
    let texts = checker.errors.iter();
    let texts: Vec<String> =
        texts.map(|problem| about(source, &problem.about, &problem.text)).collect();
    (!texts.is_empty()).then(|| texts.join("\n"))
}

impl Expression {
    fn schema(&self) -> Arc<Node> {
        schema(self.kind, self.inner)
    }

    /// Whether a variable is read anywhere in it.
    pub fn reads(&self, variable: &str) -> bool {
        self.program.references().has_variable(variable)
    }

    /// Whether a field of a variable is read anywhere in it.
    pub fn selects(&self, variable: &str, field: &str) -> bool {
        let mut found = false;
        walk(&self.program, &mut |part| found |= selected(part, variable) == Some(field));
        found
    }
}

/// The name of the field of a variable that an expression reads, if it does nothing else.
fn selected<'e>(expression: &'e IdedExpr, variable: &str) -> Option<&'e str> {
    let is_variable =
        |operand: &IdedExpr| matches!(&operand.expr, Expr::Ident(name) if name == variable);
    match &expression.expr {
        Expr::Select(select) if is_variable(&select.operand) => Some(&select.field),
        Expr::Call(call) if call.func_name == operators::OPT_SELECT => {
            match (call.args.first(), call.args.get(1).map(|name| &name.expr)) {
                (Some(operand), Some(Expr::Literal(LiteralValue::String(name))))
                    if is_variable(operand) =>
                {
                    Some(name.inner())
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// Visits an expression and all within it.
fn walk<'e>(expression: &'e IdedExpr, visit: &mut dyn FnMut(&'e IdedExpr)) {
    visit(expression);
    match &expression.expr {
        Expr::Select(select) => walk(&select.operand, visit),
        Expr::Call(call) => {
            call.target.iter().for_each(|target| walk(target, visit));
            call.args.iter().for_each(|arg| walk(arg, visit));
        }
        Expr::List(list) => list.elements.iter().for_each(|element| walk(element, visit)),
        Expr::Map(MapExpr { entries }) | Expr::Struct(StructExpr { entries, .. }) => {
            for entry in entries {
                match &entry.expr {
                    EntryExpr::MapEntry(entry) => {
                        walk(&entry.key, visit);
                        walk(&entry.value, visit);
                    }
                    EntryExpr::StructField(entry) => walk(&entry.value, visit),
                }
            }
        }
        Expr::Comprehension(one) => {
            [&one.iter_range, &one.accu_init, &one.loop_cond, &one.loop_step, &one.result]
                .into_iter()
                .for_each(|part| walk(part, visit));
        }
        _ => {}
    }
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
        values.push((VARIABLES_NAME, Val::Composed));
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
        Ok(match self.value(expression)? {
            Val::Bool(value) => Output::Bool(value),
            Val::Text(text) => Output::Text(text.as_str().to_owned()),
            Val::Null => Output::Null,
            other => Output::Other(other.type_name()),
        })
    }

    /// Evaluates an expression that is a text or a list of texts; `None`: it is something else. What is
    /// not there is an empty list.
    ///
    /// # Errors
    /// As [`Self::eval`].
    pub fn texts(&mut self, expression: &'a Expression) -> Result<Option<Vec<String>>, EvalError> {
        let made = self.value(expression)?;
        self.counted(expression, |evaluation| {
            let mut text = |value: &Val<'_>| match value {
                Val::Text(text) => {
                    evaluation.write(text.as_str().len())?;
                    Ok(Some(text.as_str().to_owned()))
                }
                _ => Ok(None),
            };
            Ok(match made {
                Val::Null => Some(Vec::new()),
                Val::List(list) => {
                    list.iter().map(|item| text(&item)).collect::<Result<_, Failure>>()?
                }
                one => text(&one)?.map(|one| vec![one]),
            })
        })
    }

    /// Does something that costs; the cost is taken from the budget.
    fn counted<T>(
        &mut self,
        expression: &Expression,
        run: impl FnOnce(&mut Evaluation<'a>) -> Result<T, Failure>,
    ) -> Result<T, EvalError> {
        self.evaluation.restart(self.budget);
        let outcome = run(&mut self.evaluation);
        self.budget = self.budget.saturating_sub(self.evaluation.spent());
        outcome.map_err(|failure| self.failure(expression, failure))
    }

    fn value(&mut self, expression: &'a Expression) -> Result<Val<'a>, EvalError> {
        self.counted(expression, |evaluation| evaluation.eval(&expression.program))
    }

    fn failure(&self, expression: &Expression, failure: Failure) -> EvalError {
        if self.budget == 0 {
            return EvalError::Budget;
        }
        let why = match failure {
            Failure::Limit => "operation cancelled: actual cost limit exceeded".to_owned(),
            Failure::NoOverload => "no such overload".to_owned(),
            Failure::Other(why) => why,
        };
        EvalError::Failed { source_text: expression.source.to_string(), why }
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
        Expr::List(list) => list.elements.iter().all(|element| is_untyped(element, variables)),
        _ => false,
    }
}

fn kind(variable: Variable) -> Kind<'static> {
    match variable {
        Variable::Any => Kind::Any,
        Variable::Namespace => Kind::Schema(&NAMESPACE.root, false),
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

static NAMESPACE: LazyLock<Structural> = LazyLock::new(|| {
    let text = || json!({"type": "string"});
    let time = || json!({"type": "string", "format": "date-time"});
    let texts = json!({"type": "array", "items": text()});
    let map = json!({"type": "object", "additionalProperties": text()});
    let condition = json!({"type": "object", "properties": {"status": text(), "type": text(),
        "lastTransitionTime": time(), "message": text(), "reason": text()}});
    let schema = json!({"type": "object", "properties": {
        "metadata": {"type": "object", "properties": {
            "name": text(), "generateName": text(), "namespace": text(), "labels": map,
            "annotations": map, "UID": text(), "creationTimestamp": time(),
            "deletionGracePeriodSeconds": {"type": "integer"}, "deletionTimestamp": time(),
            "generation": {"type": "integer"}, "resourceVersion": text(), "finalizers": texts}},
        "spec": {"type": "object", "properties": {"finalizers": texts}},
        "status": {"type": "object", "properties": {
            "conditions": {"type": "array", "items": condition}, "phase": text()}},
    }});
    Structural::new(&schema).expect("the schema of namespaces is structural")
});

#[cfg(test)]
mod tests;
