//! Evaluates a policy about one request with one parameter: pure functions.

use api::cel::{Binding, Expression, MATCH_BUDGET, Output, POLICY_BUDGET, Session};
use serde_json::Value;

use super::compiled::{Compiled, Policy};
use super::mutating::{Mutation, Patch};
use super::validating::{Validating, Validation};
use crate::admission::webhooks::select::Facts;

/// Longest message that an expression may make, in bytes.
const MESSAGE_MAX: usize = 5 << 10;
/// Longest value of an audit annotation that is kept, in bytes.
const ANNOTATION_MAX: usize = 10 << 10;

/// A rule that a request violates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub message: String,
    pub reason: Option<String>,
    /// The rule could not be evaluated.
    pub error: bool,
    /// Its place among the policy's rules.
    pub index: usize,
}

/// What a policy comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Evaluated {
    pub violations: Vec<Violation>,
    /// For the audit log, by key.
    pub annotations: Vec<(String, String)>,
    /// Why an audit annotation could not be made.
    pub annotation_error: Option<String>,
}

/// `objects`: the object, its former state and its namespace.
pub fn evaluate(
    policy: &Policy<Validating>,
    facts: &Facts<'_>,
    [new, old, namespace]: [&Value; 3],
    param: Option<&Value>,
) -> Evaluated {
    let variables = variables(policy, facts, [new, old, namespace], param);
    let failed = |message: String, index| Violation { message, reason: None, error: true, index };
    let mut evaluated = Evaluated::default();
    match holds(policy, &variables) {
        Ok(true) => {}
        Ok(false) => return evaluated,
        Err(why) => {
            evaluated.violations.push(failed(why, 0));
            return evaluated;
        }
    }
    let mut session = Session::new(&variables, &policy.variables, POLICY_BUDGET);
    for (index, validation) in policy.rules.validations.iter().enumerate() {
        match judged(policy, &mut session, &validation.expression) {
            Ok(Output::Bool(true)) => {}
            Ok(_) => evaluated.violations.push(Violation {
                message: message(&mut session, validation),
                reason: validation.reason.clone(),
                error: false,
                index,
            }),
            Err(_) if policy.ignores_failures => {}
            Err(why) => evaluated.violations.push(failed(why, index)),
        }
    }
    let mut session = Session::new(&variables, &policy.variables, POLICY_BUDGET);
    for (key, annotation) in &policy.rules.annotations {
        let why = match judged(policy, &mut session, annotation) {
            Ok(Output::Text(text)) => {
                let text = text.trim();
                if !text.is_empty() {
                    let text = shortened(text, ANNOTATION_MAX);
                    evaluated.annotations.push((key.clone(), text.to_owned()));
                }
                continue;
            }
            Ok(Output::Null) => continue,
            Ok(_) => "the value of an audit annotation must be either string or null".to_owned(),
            Err(why) => why,
        };
        if !policy.ignores_failures {
            evaluated.annotation_error.get_or_insert(why);
        }
    }
    evaluated
}

/// The beginning of a text, of at most so many bytes.
fn shortened(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn judged<'a, R>(
    policy: &Policy<R>,
    session: &mut Session<'a>,
    compiled: &'a Compiled,
) -> Result<Output, String> {
    let expression = compiled.as_ref().map_err(|why| format!("compilation error: {why}"))?;
    check_variables(policy)?;
    session.eval(expression).map_err(|error| error.to_string())
}

fn check_variables<R>(policy: &Policy<R>) -> Result<(), String> {
    match &policy.broken {
        None => Ok(()),
        Some((name, why)) => Err(format!("composited variable {name:?} fails to compile: {why}")),
    }
}

/// What a policy's expressions may read. `objects`: the object, its former state and its namespace.
pub fn variables<'b, R>(
    policy: &Policy<R>,
    facts: &'b Facts<'_>,
    [new, old, namespace]: [&'b Value; 3],
    param: Option<&'b Value>,
) -> Vec<(&'b str, Binding<'b>)> {
    let mut variables = facts.variables(new, old, namespace);
    if policy.param_kind.is_some() {
        variables.push(("params", Binding::Json(param.unwrap_or(&Value::Null))));
    }
    variables
}

/// Whether the conditions of a policy hold, or are to be taken as if they did not.
///
/// # Errors
/// Why that is not known, unless it is to be ignored.
pub fn holds<R>(policy: &Policy<R>, variables: &[(&str, Binding<'_>)]) -> Result<bool, String> {
    match Session::new(variables, &[], MATCH_BUDGET).all(policy.conditions.iter()) {
        Err(_) if policy.ignores_failures => Ok(false),
        holds => holds,
    }
}

/// What a mutation makes: the configuration to apply, or the operations of a patch.
pub enum Made {
    Configuration(Value),
    Operations(Vec<Value>),
}

/// Evaluates a mutation.
///
/// # Errors
/// Why it makes nothing.
pub fn mutation<R>(
    policy: &Policy<R>,
    mutation: &Mutation,
    variables: &[(&str, Binding<'_>)],
) -> Result<Made, String> {
    let expression: &Expression = mutation.expression.as_ref().map_err(Clone::clone)?;
    check_variables(policy)?;
    let mut session = Session::new(variables, &policy.variables, POLICY_BUDGET);
    let made = match mutation.patch {
        Patch::Configuration => session.object(expression).map(Made::Configuration),
        Patch::Operations => session.operations(expression).map(Made::Operations),
    };
    made.map_err(|error| error.to_string())
}

/// What a violation says: the message of the expression, if that is one, or else the fixed one.
fn message<'a>(session: &mut Session<'a>, validation: &'a Validation) -> String {
    if let Some(Ok(expression)) = &validation.message_expression
        && let Ok(Output::Text(text)) = session.eval(expression)
    {
        let text = text.trim();
        if !text.is_empty() && text.len() <= MESSAGE_MAX && !text.contains('\n') {
            return text.to_owned();
        }
    }
    match validation.message.as_deref().map(str::trim) {
        Some(text) if !text.is_empty() => text.to_owned(),
        _ => format!("failed expression: {}", validation.source.trim()),
    }
}
