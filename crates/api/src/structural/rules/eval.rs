//! Evaluation of CEL expressions. Every step costs, reading a value costs by its size, and an
//! expression that costs too much fails; nothing in it can panic or run for ever.
//!
//! Costs are upstream's, which are no bound of time or memory: they count a list that contains another
//! one many times by its length. So [`Evaluation::work`] counts beside them what is really visited,
//! read and written, and an expression costs what that is worth if it is more.

mod macros;

use std::collections::HashMap;
use std::sync::Arc;

use cel::common::ast::{
    ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, StructExpr, operators,
};
use regex::Regex;

use super::cost;
use super::identifier;
use super::value::{Entries, JSON_PATCH, List, Object, Struct, Text, Val};
use crate::structural::node::ListType;

/// What one expression may cost.
pub const COST_MAX: u64 = 1_000_000;
/// How much work one unit of cost pays for.
const WORK_PER_COST: u64 = 10;
/// What it is to make an element of a list or an entry of a map; to visit one is 1.
pub const ELEMENT_WORK: u64 = 10;
/// Bytes that are read for one unit of work; one byte is written for it.
const READ_PER_WORK: usize = 10;
/// Deepest nesting of an expression.
pub const DEPTH_MAX: usize = 100;
/// Compiled patterns that one expression keeps.
const PATTERNS_MAX: usize = 64;
/// Cost of compiling a pattern.
const PATTERN_COST: u64 = 500;
/// Accumulator of the parser's macros.
const ACCUMULATOR: &str = "@result";

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An operator or function does not take such values.
    NoOverload,
    /// It costs too much.
    Limit,
    Other(String),
}

pub type Outcome<'a> = Result<Val<'a>, Failure>;

pub fn fail<T>(text: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Other(text.into()))
}

/// One evaluation.
pub struct Evaluation<'a> {
    variables: Vec<(&'a str, Val<'a>)>,
    patterns: HashMap<String, Arc<Regex>>,
    /// The members of [`Val::Composed`], and what has been read of them.
    composed: HashMap<&'a str, &'a IdedExpr>,
    read: HashMap<&'a str, Outcome<'a>>,
    /// The variables that are there from the beginning.
    base: usize,
    depth: usize,
    limit: u64,
    cost: u64,
    worked: u64,
}

impl<'a> Evaluation<'a> {
    /// `limit`: the most that it may cost.
    pub fn new(variables: Vec<(&'a str, Val<'a>)>, limit: u64) -> Self {
        let limit = limit.min(COST_MAX);
        let base = variables.len();
        let (patterns, composed, read) = Default::default();
        Self { variables, patterns, composed, read, base, depth: 0, limit, cost: 0, worked: 0 }
    }

    /// Sets what `variables` consists of.
    pub fn compose(&mut self, composed: HashMap<&'a str, &'a IdedExpr>) {
        self.composed = composed;
    }

    /// Begins another expression with the same variables.
    pub fn restart(&mut self, limit: u64) {
        (self.limit, self.depth) = (limit.min(COST_MAX), 0);
        (self.cost, self.worked) = (0, 0);
        self.variables.truncate(self.base);
    }

    /// A member of what a policy composes.
    fn member(&mut self, name: &str, test: bool) -> Outcome<'a> {
        let found = self.composed.get_key_value(name);
        let Some((name, program)) = found.map(|(name, program)| (*name, *program)) else {
            return if test { Ok(Val::Bool(false)) } else { fail(format!("no such key: {name}")) };
        };
        if test {
            return Ok(Val::Bool(true));
        }
        if let Some(known) = self.read.get(name) {
            return known.clone();
        }
        // It sees the variables that the whole policy has, not those of a macro around it.
        let hidden = self.variables.split_off(self.base);
        let outcome = self.eval(program);
        self.variables.truncate(self.base);
        self.variables.extend(hidden);
        let outcome = outcome.map_err(|failure| match failure {
            Failure::Other(why) => {
                Failure::Other(format!("composited variable {name:?} fails to evaluate: {why}"))
            }
            other => other,
        });
        if !matches!(outcome, Err(Failure::Limit)) {
            self.read.insert(name, outcome.clone());
        }
        outcome
    }

    pub fn charge(&mut self, cost: u64) -> Result<(), Failure> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit { Err(Failure::Limit) } else { Ok(()) }
    }

    /// Counts what is done beyond that which costs.
    pub fn work(&mut self, work: u64) -> Result<(), Failure> {
        self.worked = self.worked.saturating_add(work);
        if self.worked / WORK_PER_COST > self.limit { Err(Failure::Limit) } else { Ok(()) }
    }

    /// Counts bytes that are read.
    pub fn read(&mut self, bytes: usize) -> Result<(), Failure> {
        self.work((bytes / READ_PER_WORK) as u64)
    }

    /// Counts bytes that are written, before they are.
    pub fn write(&mut self, bytes: usize) -> Result<(), Failure> {
        self.work(bytes as u64)
    }

    /// Counts a key that something is looked up by.
    pub fn read_key(&mut self, key: &Val<'a>) -> Result<(), Failure> {
        self.read(key.length())
    }

    /// Counts what is decoded when the elements of a list are read.
    pub fn read_list(&mut self, list: &List<'a>) -> Result<(), Failure> {
        self.work(list.decoded())
    }

    /// What it has cost so far.
    pub fn spent(&self) -> u64 {
        self.cost.max(self.worked / WORK_PER_COST)
    }

    pub fn eval(&mut self, expr: &'a IdedExpr) -> Outcome<'a> {
        self.charge(1)?;
        if self.depth >= DEPTH_MAX {
            return Err(Failure::Limit);
        }
        self.depth += 1;
        let outcome = self.step(expr);
        self.depth -= 1;
        // Whatever is not in a variable has been made or decoded.
        if let Ok(Val::Bytes(bytes)) = &outcome
            && !matches!(expr.expr, Expr::Ident(_))
        {
            self.write(bytes.len())?;
        }
        outcome
    }

    fn step(&mut self, expr: &'a IdedExpr) -> Outcome<'a> {
        match &expr.expr {
            Expr::Literal(literal) => Ok(self::literal(literal)),
            Expr::Ident(name) => self.variable(name),
            Expr::Select(select) => {
                let operand = self.eval(&select.operand)?;
                self.select(operand, &select.field, select.test)
            }
            Expr::Call(call) => self.call(&call.func_name, call.target.as_deref(), &call.args),
            Expr::List(list) => {
                let mut elements = Vec::with_capacity(list.elements.len());
                for (index, element) in list.elements.iter().enumerate() {
                    let value = self.eval(element)?;
                    match value {
                        Val::Optional(value) if list.optional_indices.contains(&index) => {
                            elements.extend(value.map(|value| (*value).clone()));
                        }
                        value => elements.push(value),
                    }
                }
                Ok(Val::list(elements))
            }
            Expr::Map(map) => {
                let mut entries = Entries::default();
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else {
                        return Err(Failure::NoOverload);
                    };
                    let (key, value) = (self.eval(&entry.key)?, self.eval(&entry.value)?);
                    self.read_key(&key)?;
                    match value {
                        Val::Optional(None) if entry.optional => {}
                        Val::Optional(Some(value)) if entry.optional => {
                            entries.insert(key, (*value).clone())?;
                        }
                        value => entries.insert(key, value)?,
                    }
                }
                Ok(Val::Map(Object::Owned(Arc::new(entries))))
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Struct(message) => self.made(message),
            Expr::Unspecified => Err(Failure::NoOverload),
        }
    }

    /// `Object.spec{replicas: 1}`, `JSONPatch{op: "remove", path: "/spec"}`
    fn made(&mut self, message: &'a StructExpr) -> Outcome<'a> {
        self.charge(cost::STRUCT)?;
        let name = type_name(message);
        let mut fields = Vec::with_capacity(message.entries.len());
        for entry in &message.entries {
            let EntryExpr::StructField(entry) = &entry.expr else {
                return Err(Failure::NoOverload);
            };
            let value = match self.eval(&entry.value)? {
                Val::Optional(None) if entry.optional => continue,
                Val::Optional(Some(value)) if entry.optional => (*value).clone(),
                value => value,
            };
            if name == JSON_PATCH && entry.field != "value" && !matches!(value, Val::Text(_)) {
                let kind = go_type(&value);
                return fail(format!(
                    "unexpected type {kind} for JSONPatchType '{}' field",
                    entry.field
                ));
            }
            fields.push((entry.field.as_str(), value));
        }
        Ok(Val::Struct(Arc::new(Struct { name, fields })))
    }

    fn variable(&mut self, name: &str) -> Outcome<'a> {
        if let Some((_, value)) = self.variables.iter().rev().find(|(known, _)| *known == name) {
            return Ok(value.clone());
        }
        match TYPES.iter().find(|known| **known == name) {
            Some(name) => Ok(Val::Type(name)),
            None => fail(format!("no such attribute: {name}")),
        }
    }

    fn select(&mut self, operand: Val<'a>, name: &str, test: bool) -> Outcome<'a> {
        self.read(name.len())?;
        match operand {
            Val::Map(map) => match (map.field(name), test) {
                (found, true) => Ok(Val::Bool(found.is_some())),
                (Some(found), false) => Ok(found),
                (None, false) => fail(format!("no such key: {name}")),
            },
            Val::Composed => self.member(name, test),
            Val::Struct(made) if made.name == JSON_PATCH => match (made.field(name), name) {
                (found, _) if test => Ok(Val::Bool(found.is_some())),
                (Some(found), _) => Ok(found.clone()),
                (None, "value") => Err(Failure::NoOverload),
                (None, _) => Ok(Val::text("")),
            },
            Val::Access(access) if !test => {
                let member = access.member(name).ok_or(Failure::NoOverload)?;
                self.write(member.length())?;
                Ok(Val::Access(member))
            }
            Val::Optional(None) if test => Ok(Val::Bool(false)),
            Val::Optional(Some(inner)) if test => self.select((*inner).clone(), name, test),
            inner @ Val::Optional(_) => self.optional(inner, |map| map.field(name), |_| None),
            _ => Err(Failure::NoOverload),
        }
    }

    fn comprehension(&mut self, loop_: &'a ComprehensionExpr) -> Outcome<'a> {
        let range = self.eval(&loop_.iter_range)?;
        let init = self.eval(&loop_.accu_init)?;
        let keys = match &range {
            Val::List(_) => None,
            Val::Map(map) => Some(map.keys()),
            _ => return Err(Failure::NoOverload),
        };
        let length = match (&range, &keys) {
            (Val::List(list), _) => list.len(),
            (_, keys) => keys.as_ref().map_or(0, Vec::len),
        };
        self.charge(length as u64 / 10)?;
        if let Val::List(list) = &range {
            self.read_list(list)?;
        }
        let base = self.variables.len();
        self.variables.push((&loop_.accu_var, init));
        let outcome = self.iterate(loop_, &range, keys.as_deref(), length, base);
        let result = outcome.and_then(|()| self.eval(&loop_.result));
        self.variables.truncate(base);
        result
    }

    fn iterate(
        &mut self,
        loop_: &'a ComprehensionExpr,
        range: &Val<'a>,
        keys: Option<&[Val<'a>]>,
        length: usize,
        base: usize,
    ) -> Result<(), Failure> {
        for index in 0..length {
            if !matches!(self.eval(&loop_.loop_cond)?, Val::Bool(true)) {
                break;
            }
            let element = match (keys, range) {
                (Some(keys), _) => keys.get(index).cloned(),
                (None, Val::List(list)) => list.get(index),
                _ => None,
            };
            let Some(element) = element else {
                break;
            };
            self.variables.push((&loop_.iter_var, element));
            let accumulated = self.eval(&loop_.loop_step);
            self.variables.truncate(base + 1);
            self.variables[base].1 = accumulated?;
        }
        Ok(())
    }

    fn call(
        &mut self,
        name: &'a str,
        target: Option<&'a IdedExpr>,
        args: &'a [IdedExpr],
    ) -> Outcome<'a> {
        match (name, args) {
            (operators::CONDITIONAL, [condition, yes, no]) => match self.eval(condition)? {
                Val::Bool(true) => self.eval(yes),
                Val::Bool(false) => self.eval(no),
                _ => Err(Failure::NoOverload),
            },
            (operators::LOGICAL_OR, [left, right]) => self.logical(left, right, true),
            (operators::LOGICAL_AND, [left, right]) => self.logical(left, right, false),
            (operators::NOT_STRICTLY_FALSE, [value]) => match self.eval(value) {
                Err(Failure::Limit) => Err(Failure::Limit),
                Ok(Val::Bool(false)) => Ok(Val::Bool(false)),
                _ => Ok(Val::Bool(true)),
            },
            (operators::ADD, [left, right]) => {
                // The list that a macro collects grows in place.
                if let Expr::Ident(name) = &left.expr
                    && name == ACCUMULATOR
                    && let Some(at) = self.variables.iter().rposition(|(known, _)| *known == name)
                {
                    let right = self.eval(right)?;
                    let left = std::mem::replace(&mut self.variables[at].1, Val::Null);
                    return self.add(left, right);
                }
                let (left, right) = (self.eval(left)?, self.eval(right)?);
                self.add(left, right)
            }
            (operators::OPT_SELECT, [operand, field]) => {
                let operand = self.eval(operand)?;
                let (Expr::Literal(field), inner) = (&field.expr, operand) else {
                    return Err(Failure::NoOverload);
                };
                let Val::Text(field) = literal(field) else {
                    return Err(Failure::NoOverload);
                };
                self.optional(inner, |map| map.field(field.as_str()), |_| None)
            }
            (operators::OPT_INDEX, [operand, index]) => {
                let (operand, index) = (self.eval(operand)?, self.eval(index)?);
                self.read_key(&index)?;
                let element = |list: &List<'a>| match &index {
                    Val::Int(index) => list.get(usize::try_from(*index).ok()?),
                    _ => None,
                };
                self.optional(operand, |map| map.entry(&index), element)
            }
            _ => self.macro_or_function(name, target, args),
        }
    }

    /// The part of a value that may be missing.
    fn optional(
        &mut self,
        operand: Val<'a>,
        entry: impl Fn(&Object<'a>) -> Option<Val<'a>>,
        element: impl Fn(&List<'a>) -> Option<Val<'a>>,
    ) -> Outcome<'a> {
        let inner = match operand {
            Val::Optional(None) => return Ok(Val::Optional(None)),
            Val::Optional(Some(inner)) => (*inner).clone(),
            other => other,
        };
        let found = match &inner {
            Val::Map(map) => entry(map),
            Val::List(list) => element(list),
            _ => return Err(Failure::NoOverload),
        };
        if let Some(Val::Bytes(bytes)) = &found {
            self.write(bytes.len())?;
        }
        Ok(Val::Optional(found.map(Arc::new)))
    }

    /// Macros that the parser does not expand.
    fn macro_or_function(
        &mut self,
        name: &'a str,
        target: Option<&'a IdedExpr>,
        args: &'a [IdedExpr],
    ) -> Outcome<'a> {
        let qualifier = target.and_then(identifier);
        match (name, qualifier, args) {
            ("bind", Some("cel"), [variable, value, body]) => {
                let Some(variable) = identifier(variable) else {
                    return Err(Failure::NoOverload);
                };
                let value = self.eval(value)?;
                self.with(vec![(variable, value)], body)
            }
            ("optMap" | "optFlatMap", _, [variable, body]) => {
                let (Some(target), Some(variable)) = (target, identifier(variable)) else {
                    return Err(Failure::NoOverload);
                };
                match self.eval(target)? {
                    Val::Optional(None) => Ok(Val::Optional(None)),
                    Val::Optional(Some(value)) => {
                        let body = self.with(vec![(variable, (*value).clone())], body)?;
                        Ok(if name == "optMap" { Val::some(body) } else { body })
                    }
                    _ => Err(Failure::NoOverload),
                }
            }
            ("all" | "exists" | "existsOne" | "exists_one", _, [key, value, body]) => {
                self.two_variables(name, target, key, value, body)
            }
            (
                "transformList" | "transformMap" | "transformMapEntry",
                _,
                [key, value, rest @ ..],
            ) if matches!(rest.len(), 1 | 2) => self.transform(name, target, (key, value), rest),
            ("sortBy", _, [variable, key]) => self.sort_by(target, variable, key),
            _ => self.function(name, qualifier, target, args),
        }
    }

    /// `||` and `&&`: a side that decides makes up for an error of the other one.
    fn logical(&mut self, left: &'a IdedExpr, right: &'a IdedExpr, decides: bool) -> Outcome<'a> {
        let left = self.eval(left);
        match left {
            Err(Failure::Limit) => return Err(Failure::Limit),
            Ok(Val::Bool(flag)) if flag == decides => return Ok(Val::Bool(flag)),
            _ => {}
        }
        let right = self.eval(right)?;
        match (left, right) {
            (_, Val::Bool(flag)) if flag == decides => Ok(Val::Bool(flag)),
            (Ok(Val::Bool(_)), Val::Bool(flag)) => Ok(Val::Bool(flag)),
            (Err(why), _) => Err(why),
            _ => Err(Failure::NoOverload),
        }
    }

    fn function(
        &mut self,
        name: &'a str,
        qualifier: Option<&str>,
        target: Option<&'a IdedExpr>,
        args: &'a [IdedExpr],
    ) -> Outcome<'a> {
        let namespace = qualifier.filter(|name| {
            super::functions::NAMESPACES.contains(name)
                && !self.variables.iter().any(|(known, _)| known == name)
        });
        let mut values = Vec::with_capacity(args.len() + 1);
        if namespace.is_none()
            && let Some(target) = target
        {
            values.push(self.eval(target)?);
        }
        for arg in args {
            values.push(self.eval(arg)?);
        }
        match namespace {
            Some(namespace) => self.namespaced(namespace, name, &values),
            None => match self.operator(name, &values)? {
                Some(value) => Ok(value),
                None => self.library(name, target.is_some(), values),
            },
        }
    }

    pub fn regex(&mut self, pattern: &str) -> Result<Arc<Regex>, Failure> {
        if let Some(known) = self.patterns.get(pattern) {
            return Ok(known.clone());
        }
        self.charge(PATTERN_COST)?;
        self.write(pattern.len())?;
        let regex = crate::structural::pattern::compile(pattern).map_err(Failure::Other)?;
        let regex = Arc::new(regex);
        if self.patterns.len() < PATTERNS_MAX {
            self.patterns.insert(pattern.to_owned(), regex.clone());
        }
        Ok(regex)
    }

    /// Operators on values; `None` if there is none of that name.
    fn operator(&mut self, name: &str, values: &[Val<'a>]) -> Result<Option<Val<'a>>, Failure> {
        Ok(Some(match (name, values) {
            (operators::EQUALS | operators::NOT_EQUALS, [left, right]) => {
                self.charge(left.cost_of_comparison(right))?;
                Val::Bool(self.equal(left, right)? == (name == operators::EQUALS))
            }
            (operators::LESS, [left, right]) => Val::Bool(self.ordered(left, right)?.is_lt()),
            (operators::LESS_EQUALS, [left, right]) => {
                Val::Bool(self.ordered(left, right)?.is_le())
            }
            (operators::GREATER, [left, right]) => Val::Bool(self.ordered(left, right)?.is_gt()),
            (operators::GREATER_EQUALS, [left, right]) => {
                Val::Bool(self.ordered(left, right)?.is_ge())
            }
            (operators::LOGICAL_NOT, [Val::Bool(flag)]) => Val::Bool(!flag),
            (operators::NEGATE, [value]) => negate(value)?,
            (
                operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE | operators::MODULO,
                [left, right],
            ) => arithmetic(name, left, right)?,
            (operators::INDEX, [operand, index]) => {
                self.read_key(index)?;
                self::index(operand, index)?
            }
            (operators::IN, [element, Val::List(list)]) => {
                if list.len() > 0 {
                    self.charge((list.len() as u64).saturating_mul(element.weight()))?;
                }
                self.read_list(list)?;
                Val::Bool(self.has(list, element)?)
            }
            (operators::IN, [key, Val::Map(map)]) => {
                self.read_key(key)?;
                Val::Bool(map.entry(key).is_some())
            }
            (
                operators::LESS
                | operators::LESS_EQUALS
                | operators::GREATER
                | operators::GREATER_EQUALS
                | operators::LOGICAL_NOT
                | operators::IN,
                _,
            ) => return Err(Failure::NoOverload),
            _ => return Ok(None),
        }))
    }

    fn add(&mut self, left: Val<'a>, right: Val<'a>) -> Outcome<'a> {
        let overflow = || Failure::Other("integer overflow".to_owned());
        if let (Val::List(left), Val::List(right)) = (&left, &right) {
            self.read_list(left)?;
            self.read_list(right)?;
        }
        match (left, right) {
            (Val::Int(left), Val::Int(right)) => {
                left.checked_add(right).map(Val::Int).ok_or_else(overflow)
            }
            (Val::Uint(left), Val::Uint(right)) => {
                left.checked_add(right).map(Val::Uint).ok_or_else(overflow)
            }
            (Val::Double(left), Val::Double(right)) => Ok(Val::Double(left + right)),
            (Val::Text(left), Val::Text(right)) => {
                let (left, right) = (left.as_str(), right.as_str());
                self.charge((left.len() + right.len()) as u64 / 10)?;
                Ok(Val::text([left, right].concat()))
            }
            (Val::Bytes(left), Val::Bytes(right)) => {
                self.charge((left.len() + right.len()) as u64 / 10)?;
                Ok(Val::Bytes([&*left, &*right].concat().into()))
            }
            (Val::Duration(left), Val::Duration(right)) => {
                left.checked_add(right).map(Val::Duration).ok_or_else(overflow)
            }
            (Val::Timestamp(time), Val::Duration(nanos))
            | (Val::Duration(nanos), Val::Timestamp(time)) => moved(time, nanos),
            (Val::List(left @ List::Json(_, Some(node))), Val::List(right))
                if node.list != ListType::Atomic =>
            {
                self.charge((left.len() + right.len()) as u64)?;
                self.merged(&left, &right, &node.list).map(Val::list)
            }
            (Val::List(List::Owned(mut left)), Val::List(right)) => {
                let copied = if Arc::get_mut(&mut left).is_some() { 0 } else { left.len() };
                self.charge((copied + right.len()) as u64)?;
                Arc::make_mut(&mut left).extend(right.iter());
                Ok(Val::List(List::Owned(left)))
            }
            (Val::List(left), Val::List(right)) => {
                self.charge((left.len() + right.len()) as u64)?;
                Ok(Val::list(left.iter().chain(right.iter()).collect()))
            }
            _ => Err(Failure::NoOverload),
        }
    }
}

/// Names of types as expressions.
const TYPES: &[&str] =
    &["int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type"];

/// Whether a name is that of a type.
pub fn is_type(name: &str) -> bool {
    TYPES.contains(&name)
}

/// The type that an expression makes, without the dot that may begin it.
pub fn type_name(message: &StructExpr) -> &str {
    message.type_name.strip_prefix('.').unwrap_or(&message.type_name)
}

/// The type of a value in Go, as errors of Kubernetes show it.
pub fn go_type(value: &Val<'_>) -> &'static str {
    match value {
        Val::Bool(_) => "bool",
        Val::Int(_) => "int64",
        Val::Uint(_) => "uint64",
        Val::Double(_) => "float64",
        Val::Text(_) => "string",
        Val::Bytes(_) => "[]uint8",
        Val::Null => "structpb.NullValue",
        Val::List(_) => "[]ref.Val",
        Val::Map(_) => "map[ref.Val]ref.Val",
        Val::Struct(_) => "map[string]interface {}",
        Val::Timestamp(_) => "time.Time",
        Val::Duration(_) => "time.Duration",
        _ => "ref.Val",
    }
}

fn literal(literal: &LiteralValue) -> Val<'_> {
    match literal {
        LiteralValue::Boolean(flag) => Val::Bool(*flag.inner()),
        LiteralValue::Bytes(bytes) => Val::Bytes(bytes.inner().into()),
        LiteralValue::Double(double) => Val::Double(*double.inner()),
        LiteralValue::Int(integer) => Val::Int(*integer.inner()),
        LiteralValue::Null => Val::Null,
        LiteralValue::String(text) => Val::Text(Text::Borrowed(text.inner())),
        LiteralValue::UInt(integer) => Val::Uint(*integer.inner()),
    }
}

fn negate<'a>(value: &Val<'a>) -> Outcome<'a> {
    match value {
        Val::Int(integer) => match integer.checked_neg() {
            Some(integer) => Ok(Val::Int(integer)),
            None => fail("integer overflow"),
        },
        Val::Double(double) => Ok(Val::Double(-double)),
        _ => Err(Failure::NoOverload),
    }
}

fn moved<'a>(time: jiff::Timestamp, nanos: i64) -> Outcome<'a> {
    match time.checked_add(jiff::SignedDuration::from_nanos(nanos)) {
        Ok(time) => Ok(Val::Timestamp(time)),
        Err(_) => fail("timestamp overflow"),
    }
}

fn arithmetic<'a>(name: &str, left: &Val<'a>, right: &Val<'a>) -> Outcome<'a> {
    let overflow = || Failure::Other("integer overflow".to_owned());
    match (left, right) {
        (Val::Int(_), Val::Int(0)) | (Val::Uint(_), Val::Uint(0)) => match name {
            operators::DIVIDE => return fail("division by zero"),
            operators::MODULO => return fail("modulus by zero"),
            _ => {}
        },
        _ => {}
    }
    match (left, right) {
        (Val::Int(left), Val::Int(right)) => match name {
            operators::SUBSTRACT => left.checked_sub(*right),
            operators::MULTIPLY => left.checked_mul(*right),
            operators::DIVIDE => left.checked_div(*right),
            _ => left.checked_rem(*right),
        }
        .map(Val::Int)
        .ok_or_else(overflow),
        (Val::Uint(left), Val::Uint(right)) => match name {
            operators::SUBSTRACT => left.checked_sub(*right),
            operators::MULTIPLY => left.checked_mul(*right),
            operators::DIVIDE => left.checked_div(*right),
            _ => left.checked_rem(*right),
        }
        .map(Val::Uint)
        .ok_or_else(overflow),
        (Val::Double(left), Val::Double(right)) => match name {
            operators::SUBSTRACT => Ok(Val::Double(left - right)),
            operators::MULTIPLY => Ok(Val::Double(left * right)),
            operators::DIVIDE => Ok(Val::Double(left / right)),
            _ => Err(Failure::NoOverload),
        },
        (Val::Duration(left), Val::Duration(right)) if name == operators::SUBSTRACT => {
            left.checked_sub(*right).map(Val::Duration).ok_or_else(overflow)
        }
        (Val::Timestamp(time), Val::Duration(nanos)) if name == operators::SUBSTRACT => {
            moved(*time, nanos.checked_neg().ok_or_else(overflow)?)
        }
        (Val::Timestamp(left), Val::Timestamp(right)) if name == operators::SUBSTRACT => {
            let nanos = left.as_nanosecond() - right.as_nanosecond();
            i64::try_from(nanos).map(Val::Duration).map_err(|_| overflow())
        }
        _ => Err(Failure::NoOverload),
    }
}

fn index<'a>(operand: &Val<'a>, index: &Val<'a>) -> Outcome<'a> {
    match (operand, index) {
        (Val::List(list), Val::Int(at)) => {
            let found = usize::try_from(*at).ok().and_then(|at| list.get(at));
            found.map_or_else(|| fail(format!("index out of bounds: {at}")), Ok)
        }
        (Val::Map(map), key) => match (map.entry(key), key) {
            (Some(found), _) => Ok(found),
            (None, Val::Text(name)) => fail(format!("no such key: {}", name.as_str())),
            (None, _) => fail("no such key"),
        },
        (Val::Optional(None), _) => Ok(Val::Optional(None)),
        (Val::Optional(Some(inner)), key) => {
            Ok(Val::Optional(self::index(inner, key).ok().map(Arc::new)))
        }
        _ => Err(Failure::NoOverload),
    }
}

use k8s_openapi::jiff;
