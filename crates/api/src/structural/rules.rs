//! `x-kubernetes-validations`: rules in CEL (`k8s.io/apiextensions-apiserver`, `schema/cel`).
//!
//! The `cel` crate parses; evaluation is ours, since that crate's copies what it reads, has no limit
//! and panics on some input. [`read`] compiles the rules of a schema, [`errors`] is what a
//! definition is refused for, and [`judge`] evaluates the rules of an object. An expression that
//! costs more than [`eval::COST_MAX`] fails, and so do all that follow once the object has used up
//! [`BUDGET`].

pub(crate) mod check;
mod compare;
pub(crate) mod cost;
pub(crate) mod eval;
mod functions;
mod library;
pub(crate) mod value;

use std::cell::OnceCell;

use cel::common::ast::{Expr, IdedExpr};
use cel::parser::Parser;
use serde_json::{Map, Value};

use super::correlate;
use super::definition;
use super::go;
use super::node::{Node, Type, text};
use super::path::Path;
use crate::status::{FieldError, FieldErrorType};
use check::{Checker, Kind};
use eval::{Evaluation, Failure};
use value::Val;

/// What the rules of one object may cost together.
const BUDGET: u64 = 10_000_000;
/// Bytes of an expression.
const SOURCE_MAX: usize = 16 << 10;
/// Brackets and operators that may be within one another: the parser recurses for each.
const NESTING_MAX: usize = 120;
/// How many operators a bracket counts as: the grammar has as many levels.
const BRACKET_NESTING: usize = 4;
/// Stack of the thread that parses, in bytes: the parser takes up to 100 KB for each bracket.
const PARSER_STACK: usize = 32 << 20;
/// How many of the rules that cost most are named when all cost too much.
const DEAREST: usize = 4;
/// Bytes of messages for one unit of cost.
const MESSAGE_PER_UNIT: usize = 10;
/// Bytes of an evaluated message.
const MESSAGE_MAX: usize = 5 << 10;

const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// A compiled rule.
#[derive(Debug)]
pub struct Rule {
    source: Box<str>,
    program: Result<IdedExpr, String>,
    message: Box<str>,
    /// `messageExpression`, if there is one.
    message_program: Option<(Box<str>, Result<IdedExpr, String>)>,
    reason: Option<FieldErrorType>,
    /// `spec.foo`
    field: String,
    optional_old: bool,
    uses_old: bool,
}

/// The name, if an expression is nothing but one.
fn identifier(expression: &IdedExpr) -> Option<&str> {
    match &expression.expr {
        Expr::Ident(name) => Some(name),
        _ => None,
    }
}

/// Compiles the rules of one schema.
pub fn read(schema: &Map<String, Value>) -> Box<[Rule]> {
    let rules = schema.get("x-kubernetes-validations").and_then(Value::as_array);
    rules
        .into_iter()
        .flatten()
        .filter_map(Value::as_object)
        .map(|rule| compiled(schema, rule))
        .collect()
}

fn compiled(schema: &Map<String, Value>, rule: &Map<String, Value>) -> Rule {
    let source = text(rule, "rule");
    let message_source = text(rule, "messageExpression");
    let program = parse(source);
    let uses_old = program.as_ref().is_ok_and(|program| {
        let variables = program.references();
        variables.has_variable("oldSelf")
    });
    let path = text(rule, "fieldPath");
    Rule {
        source: source.into(),
        program,
        message: text(rule, "message").trim().into(),
        message_program: (!message_source.is_empty())
            .then(|| (message_source.into(), parse(message_source))),
        reason: match text(rule, "reason") {
            "FieldValueForbidden" => Some(FieldErrorType::Forbidden),
            "FieldValueRequired" => Some(FieldErrorType::Required),
            "FieldValueDuplicate" => Some(FieldErrorType::Duplicate),
            _ => None,
        },
        field: normalized(schema, path),
        optional_old: rule.get("optionalOldSelf").and_then(Value::as_bool).unwrap_or_default(),
        uses_old,
    }
}

/// `.spec['foo']` as errors write it.
fn normalized(schema: &Map<String, Value>, path: &str) -> String {
    if path.is_empty() {
        return String::new();
    }
    definition::field_path(path, &Value::Object(schema.clone())).unwrap_or_default()
}

pub(crate) fn parse(source: &str) -> Result<IdedExpr, String> {
    if source.len() > SOURCE_MAX {
        return Err(format!("ERROR: <input>:1:1: expression is longer than {SOURCE_MAX} bytes"));
    }
    if nesting(source) > NESTING_MAX {
        return Err(about(source, "", "expression is nested too deeply"));
    }
    let parsed = std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(PARSER_STACK);
        let thread = builder.spawn_scoped(scope, || parse_here(source));
        thread.ok().and_then(|thread| thread.join().ok())
    });
    parsed.unwrap_or_else(|| Err(about(source, "", "the expression cannot be parsed")))
}

fn parse_here(source: &str) -> Result<IdedExpr, String> {
    let parser = Parser::new().enable_optional_syntax(true);
    parser.parse(source).map_err(|errors| {
        let located = |error: &cel::ParseError| {
            let text = format!("Syntax error: {}", error.msg);
            located(source, error.pos.0, error.pos.1, &text)
        };
        errors.errors.iter().map(located).collect::<Vec<_>>().join("\n")
    })
}

/// How deep an expression is at most: brackets, and the operators of a chain, of which each takes the
/// one before as its operand. Chains of `&&` and `||` are balanced, so they begin anew.
fn nesting(source: &str) -> usize {
    let mut chains = vec![0_usize];
    let (mut deepest, mut total) = (0, 0);
    let mut rest = source;
    let mut before = ' ';
    while let Some(character) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
            continue;
        }
        if matches!(character, '"' | '\'') {
            rest = after_string(rest, character, matches!(before, 'r' | 'R'));
            before = character;
            continue;
        }
        match character {
            '(' | '[' | '{' => {
                chains.push(0);
                total += BRACKET_NESTING;
            }
            ')' | ']' | '}' if chains.len() > 1 => {
                // What follows takes the bracket as its operand.
                total -= BRACKET_NESTING - 1 + chains.pop().unwrap_or_default();
                chains.last_mut().into_iter().for_each(|chain| *chain += 1);
            }
            '&' | '|' | ',' => {
                total -= chains.last_mut().map(std::mem::take).unwrap_or_default();
            }
            '?' => {
                chains.last_mut().into_iter().for_each(|chain| *chain += BRACKET_NESTING);
                total += BRACKET_NESTING;
            }
            '+' | '-' | '*' | '/' | '%' | '<' | '>' | '=' | '!' | '.' => {
                chains.last_mut().into_iter().for_each(|chain| *chain += 1);
                total += 1;
            }
            _ => {}
        }
        deepest = deepest.max(total);
        before = character;
        rest = &rest[character.len_utf8()..];
    }
    deepest
}

/// What follows a string literal, which may be in triple quotes, and whose backslashes escape unless it is raw.
fn after_string(text: &str, quote: char, raw: bool) -> &str {
    let triple = [quote; 3].iter().collect::<String>();
    let close = if text.starts_with(&triple) { triple } else { quote.to_string() };
    let mut rest = &text[close.len()..];
    while let Some(character) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix(close.as_str()) {
            return after;
        }
        rest = &rest[character.len_utf8()..];
        if character == '\\' && !raw {
            rest = rest.chars().next().map_or("", |escaped| &rest[escaped.len_utf8()..]);
        }
    }
    rest
}

/// An error with the line that it is in, as CEL prints it. Lines count from one, columns from zero.
fn located(source: &str, line: isize, column: isize, text: &str) -> String {
    let (line, column) = (line.max(1), column.max(0));
    let index = usize::try_from(line - 1).unwrap_or_default();
    let shown = source.lines().nth(index).unwrap_or_default();
    let dots = ".".repeat(usize::try_from(column).unwrap_or_default().min(shown.len()));
    format!("ERROR: <input>:{line}:{}: {text}\n | {shown}\n | {dots}^", column + 1)
}

/// An error about the first occurrence of a name; of a selected one (`.name`), about its dot; of a
/// literal (`'text`), about its quote, whichever it is.
pub(crate) fn about(source: &str, name: &str, text: &str) -> String {
    let plain = name.trim_start_matches(['.', '\'']);
    let double = || source.find(&name.replacen('\'', "\"", 1));
    let found = source.find(name).or_else(double).or_else(|| source.find(plain));
    let at = if name.is_empty() { 0 } else { found.unwrap_or_default() };
    let before = &source[..at];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count());
    let position = |number: usize| isize::try_from(number).unwrap_or_default();
    located(source, position(line), position(column), text)
}

/// What is wrong with the rules of a schema at `path`: they do not compile, read the old value where
/// there is none, or cost too much. `unchanged`: what each of them costs has been accepted before.
pub fn errors(node: &Node, path: &str, unchanged: bool) -> Vec<FieldError> {
    let mut check = Check { unchanged, total: 0, dearest: Vec::new(), errors: Vec::new() };
    check.walk(node, path, Above { resource: true, uncorrelated: None, times: Some(1) });
    check.dearest.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
    if check.total > cost::TOTAL_MAX {
        let detail = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        let dearest = check.dearest.into_iter().take(DEAREST);
        check.errors.extend(dearest.map(|(path, _)| FieldError::forbidden(path, detail)));
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        let detail = cost::exceeded(what, check.total, cost::TOTAL_MAX);
        check.errors.push(FieldError::forbidden(path, detail));
    }
    check.errors
}

/// What is known of a schema from those above it.
#[derive(Clone, Copy)]
struct Above<'p> {
    resource: bool,
    /// The path of the schema whose elements cannot be found in the old object.
    uncorrelated: Option<&'p str>,
    /// How many values of it an object may have; `None`: there is no limit.
    times: Option<u64>,
}

/// A check of all rules of a schema.
struct Check {
    unchanged: bool,
    /// What all of them cost.
    total: u64,
    /// Those that cost most, with their paths.
    dearest: Vec<(String, u64)>,
    errors: Vec<FieldError>,
}

impl Check {
    fn walk(&mut self, node: &Node, path: &str, above: Above<'_>) {
        for (index, rule) in node.rules.iter().enumerate() {
            let path = format!("{path}.x-kubernetes-validations[{index}]");
            self.rule(rule, node, &path, above);
        }
        let factor = cost::factor(node);
        let times = above.times.zip(factor).map(|(times, factor)| times.saturating_mul(factor));
        let below = Above { resource: false, times, ..above };
        for (name, property) in node.properties() {
            self.walk(property, &format!("{path}.properties[{name}]"), below);
        }
        if let Some(schema) = node.additional_schema() {
            self.walk(schema, &format!("{path}.additionalProperties"), below);
        }
        if let Some(items) = node.items.as_deref() {
            let is_map = matches!(node.list, super::node::ListType::Map(_));
            let uncorrelated = above.uncorrelated.or((!is_map).then_some(path));
            self.walk(items, &format!("{path}.items"), Above { uncorrelated, ..below });
        }
    }

    fn rule(&mut self, rule: &Rule, node: &Node, path: &str, above: Above<'_>) {
        let kind = Kind::of(node, above.resource);
        let old = if rule.optional_old { Kind::Any } else { kind };
        let variables = vec![("self", kind), ("oldSelf", old)];
        let root = cost::Place::Node(node, above.resource || node.embedded);
        let times = above.times.unwrap_or_else(|| cost::how_often(node));
        let field = format!("{path}.rule");
        match typed(&rule.source, &rule.program, &variables, root, "bool") {
            Ok(each) => self.costs(field, "estimated rule cost", each.saturating_mul(times)),
            Err(why) => {
                let why =
                    why.unwrap_or_else(|| "cel expression must evaluate to a bool".to_owned());
                self.errors.push(FieldError::invalid(field, &*rule.source, why));
            }
        }
        if let Some((source, program)) = &rule.message_program {
            let field = format!("{path}.messageExpression");
            match typed(source, program, &variables, root, "string") {
                Ok(cost) => self.costs(field, "estimated messageExpression cost", cost),
                Err(why) => {
                    let why = match why {
                        Some(why) => format!("messageExpression {why}"),
                        None => "messageExpression must evaluate to a string".to_owned(),
                    };
                    self.errors.push(FieldError::invalid(field, &**source, why));
                }
            }
        }
        if rule.uses_old {
            if let Some(within) = above.uncorrelated {
                let why = format!(
                    "oldSelf cannot be used on the uncorrelatable portion of the schema within {within}"
                );
                self.errors.push(FieldError::invalid(format!("{path}.rule"), &*rule.source, why));
            }
        } else if rule.optional_old {
            let why = "may not be set if oldSelf is not used in rule";
            self.errors.push(FieldError::invalid(format!("{path}.optionalOldSelf"), true, why));
        }
    }

    /// Counts what an expression costs in all objects that it is evaluated for.
    fn costs(&mut self, path: String, what: &str, cost: u64) {
        if cost > cost::RULE_MAX && !self.unchanged {
            let detail = cost::exceeded(what, cost, cost::RULE_MAX);
            self.errors.push(FieldError::forbidden(path.clone(), detail));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= cost::TOTAL_MAX / 100 {
            self.dearest.push((path, cost));
        }
    }
}

/// Checks an expression; returns what it costs at most.
///
/// # Errors
/// Why an expression does not compile, or nothing if only its result is of the wrong type.
fn typed<'a>(
    source: &str,
    program: &Result<IdedExpr, String>,
    variables: &[(&str, Kind<'a>)],
    root: cost::Place<'a>,
    wanted: &str,
) -> Result<u64, Option<String>> {
    let program = match program {
        Ok(program) => program,
        Err(why) => return Err(Some(format!("compilation failed: {why}"))),
    };
    let mut checker = Checker::new(variables.to_vec(), root);
    let known = checker.check(program);
    if !checker.errors.is_empty() {
        let texts: Vec<String> = checker
            .errors
            .iter()
            .map(|problem| about(source, &problem.about, &problem.text))
            .collect();
        return Err(Some(format!("compilation failed: {}", texts.join("\n"))));
    }
    match known.kind.name() {
        Some(name) if name != wanted => Err(None),
        _ => Ok(known.cost),
    }
}

/// Evaluates the rules of an object, or of a part of one at `prefix`.
pub fn judge(node: &Node, new: &Value, old: Option<&Value>, prefix: &str) -> Vec<FieldError> {
    let mut judge = Judge { prefix, budget: Some(BUDGET), errors: Vec::new() };
    let pair = old.map(|old| Pair::new(node, new, old));
    let ratchet = Ratchet { current: pair.as_ref(), parent: None, at_root: true };
    judge.value(node, new, old, ratchet, &Path::ROOT);
    judge.errors
}

/// A schema with its new and old value.
struct Pair<'a> {
    node: &'a Node,
    new: &'a Value,
    old: &'a Value,
    /// Whether the values are equal, once it has been asked: many may fail within a list.
    equal: OnceCell<bool>,
}

impl<'a> Pair<'a> {
    fn new(node: &'a Node, new: &'a Value, old: &'a Value) -> Self {
        Self { node, new, old, equal: OnceCell::new() }
    }

    fn is_equal(&self) -> bool {
        *self.equal.get_or_init(|| correlate::equal(self.node, self.new, self.old))
    }
}

/// Whether errors are about something that an update does not change.
#[derive(Clone, Copy)]
struct Ratchet<'a> {
    /// `None` if the value has no old one.
    current: Option<&'a Pair<'a>>,
    parent: Option<&'a Pair<'a>>,
    at_root: bool,
}

impl<'a> Ratchet<'a> {
    fn below(self, next: Option<&'a Pair<'a>>) -> Self {
        match self.current {
            None => self,
            Some(current) => Self { current: next, parent: Some(current), at_root: false },
        }
    }

    fn is_unchanged(self) -> bool {
        self.current.or(self.parent).is_some_and(Pair::is_equal)
    }
}

struct Judge<'p> {
    prefix: &'p str,
    /// What may still be spent; `None` once it is used up.
    budget: Option<u64>,
    errors: Vec<FieldError>,
}

impl Judge<'_> {
    fn value(
        &mut self,
        node: &Node,
        new: &Value,
        old: Option<&Value>,
        ratchet: Ratchet<'_>,
        path: &Path<'_>,
    ) {
        if new.is_null() || !node.has_rules {
            return;
        }
        self.rules(node, new, old, ratchet, path);
        match new {
            Value::Object(map) => {
                for (name, member) in map {
                    let before = old.and_then(|old| old.as_object()?.get(name));
                    let (schema, path) = match (node.property(name), node.additional_schema()) {
                        (Some(property), _) => (property, path.field(name)),
                        (None, Some(schema)) => (schema, path.key(name)),
                        (None, None) => continue,
                    };
                    let is_type = ratchet.at_root && matches!(name.as_str(), "apiVersion" | "kind");
                    let pair = before.filter(|_| !is_type);
                    let pair = pair.map(|before| Pair::new(schema, member, before));
                    self.value(schema, member, before, ratchet.below(pair.as_ref()), &path);
                }
            }
            Value::Array(list) => {
                let Some(items) = node.items.as_deref() else {
                    return;
                };
                let elements = correlate::Elements::new(node, old);
                for (index, element) in list.iter().enumerate() {
                    let before = elements.as_ref().and_then(|elements| elements.get(element));
                    let pair = before.map(|before| Pair::new(items, element, before));
                    let ratchet = ratchet.below(pair.as_ref());
                    self.value(items, element, before, ratchet, &path.index(index));
                }
            }
            _ => {}
        }
    }

    fn rules(
        &mut self,
        node: &Node,
        new: &Value,
        old: Option<&Value>,
        ratchet: Ratchet<'_>,
        path: &Path<'_>,
    ) {
        for rule in &node.rules {
            let Some(budget) = self.budget else {
                return;
            };
            if rule.uses_old && old.is_none_or(Value::is_null) && !rule.optional_old {
                continue;
            }
            let Ok(program) = &rule.program else {
                self.type_error(node, path, format!("rule compile error: {}", rule.source));
                continue;
            };
            let old = old.filter(|old| !old.is_null()).map(|old| Val::of(old, Some(node)));
            let old = match rule.optional_old {
                true => Some(old.map_or(Val::Optional(None), Val::some)),
                false => old,
            };
            let mut variables = vec![("self", Val::of(new, Some(node)))];
            variables.extend(old.map(|old| ("oldSelf", old)));
            let mut evaluation = Evaluation::new(variables.clone(), budget);
            let outcome = evaluation.eval(program);
            self.spend(evaluation.spent());
            if self.budget.is_none() {
                return self.type_error(node, path, OUT_OF_BUDGET.to_owned());
            }
            match outcome {
                Ok(Val::Bool(true)) => {}
                Err(Failure::Limit) => {
                    self.budget = None;
                    let detail = format!(
                        "'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: {}",
                        rule.named()
                    );
                    return self.type_error(node, path, detail);
                }
                Err(Failure::NoOverload) => {
                    let detail = format!(
                        "'no such overload': call arguments did not match a supported operator, function or macro signature for rule: {}",
                        rule.named()
                    );
                    self.type_error(node, path, detail);
                }
                Err(Failure::Other(why)) => {
                    self.type_error(node, path, format!("{why} evaluating rule: {}", rule.named()));
                }
                Ok(_) if !rule.uses_old && ratchet.is_unchanged() => {}
                Ok(_) => {
                    self.refuse(rule, node, new, variables, path);
                    if self.budget.is_none() {
                        return self.type_error(node, path, OUT_OF_BUDGET.to_owned());
                    }
                }
            }
        }
    }

    fn spend(&mut self, cost: u64) {
        let left = self.budget.and_then(|budget| budget.checked_sub(cost));
        self.budget = left.filter(|budget| *budget > 0);
    }

    /// An error about a rule that could not be evaluated.
    fn type_error(&mut self, node: &Node, path: &Path<'_>, detail: String) {
        let field = path.below(self.prefix);
        let ty = if node.ty == Type::IntOrString { "" } else { node.ty.name() };
        self.errors.push(FieldError::invalid(field, ty, detail));
    }

    fn refuse<'a>(
        &mut self,
        rule: &'a Rule,
        node: &Node,
        new: &Value,
        variables: Vec<(&'a str, Val<'a>)>,
        path: &Path<'_>,
    ) {
        let mut detail = match rule.message.is_empty() {
            true => format!("failed rule: {}", rule.source.trim()),
            false => rule.message.to_string(),
        };
        if let Some((_, Ok(program))) = &rule.message_program {
            let budget = self.budget.unwrap_or_default();
            let mut evaluation = Evaluation::new(variables, budget);
            let outcome = evaluation.eval(program);
            self.spend(evaluation.spent());
            if let Ok(Val::Text(text)) = outcome {
                let text = text.as_str().trim();
                if !text.is_empty() && text.len() <= MESSAGE_MAX && !text.contains('\n') {
                    detail = text.to_owned();
                }
            }
        }
        // What is said of an object is bounded by what its rules may cost.
        self.spend((detail.len() / MESSAGE_PER_UNIT) as u64);
        let field = path.below(self.prefix);
        let field = match (rule.field.as_str(), field.as_str()) {
            ("", _) => field,
            (below, "<nil>") => below.to_owned(),
            (below, field) => format!("{field}.{below}"),
        };
        let shown = match node.ty {
            Type::Object | Type::Array => String::new(),
            _ => go::shown(new),
        };
        self.errors.push(match rule.reason {
            Some(kind @ (FieldErrorType::Forbidden | FieldErrorType::Required)) => {
                FieldError { kind, field, value: String::new(), detail }
            }
            Some(kind) => FieldError { kind, field, value: shown, detail: String::new() },
            None => FieldError { kind: FieldErrorType::Invalid, field, value: shown, detail },
        });
    }
}

impl Rule {
    /// The rule as errors name it.
    fn named(&self) -> &str {
        if self.message.is_empty() { self.source.trim() } else { &self.message }
    }
}

#[cfg(test)]
pub(crate) mod tests;
