//! Literals that upstream refuses (`k8s.io/apiserver/pkg/cel/environment`, `base.go`): mixed lists and
//! maps, patterns, durations and times that are none.

use cel::common::ast::{Expr, IdedExpr, LiteralValue};

use super::{Checker, Kind, Known};
use crate::structural::pattern;
use crate::structural::rules::library;

impl<'a, 'b: 'a> Checker<'a, 'b> {
    /// The members of a list or map have to be of one type, but for what is formatted.
    pub(super) fn homogeneous<'e>(
        &mut self,
        mut members: impl Iterator<Item = (&'e IdedExpr, Known<'a>)>,
    ) {
        let Some((_, first)) = members.next().filter(|_| !self.formatted) else {
            return;
        };
        if let Some((source, other)) = members.find(|(_, other)| first.differs(other)) {
            let (wanted, found) = (first.described(), other.described());
            let text = format!("expected type '{wanted}' but found '{found}'");
            self.error(&sign(source), text);
        }
    }

    /// Literals that a function can never take.
    pub(super) fn literal(&mut self, name: &str, argument: Option<&IdedExpr>) {
        let Some(IdedExpr { expr: Expr::Literal(LiteralValue::String(text)), .. }) = argument
        else {
            return;
        };
        let is_valid = match name {
            "matches" => pattern::compile(text.inner()).is_ok(),
            "duration" => library::duration(text.inner()).is_some(),
            "timestamp" => library::timestamp(text.inner()).is_some(),
            _ => true,
        };
        if !is_valid {
            self.error(&format!("'{}", text.inner()), format!("invalid {name} argument"));
        }
    }
}

impl<'a> Known<'a> {
    /// Whether its type is certainly another one than that of `other`.
    fn differs(&self, other: &Self) -> bool {
        let differ = |one: Kind<'a>, other: Kind<'a>| {
            one.name().zip(other.name()).is_some_and(|(one, other)| one != other)
        };
        differ(self.kind, other.kind) || differ(self.inner, other.inner)
    }
}

/// What an expression is found by in its source.
fn sign(expression: &IdedExpr) -> String {
    match &expression.expr {
        Expr::Literal(LiteralValue::String(text)) => format!("'{}", text.inner()),
        Expr::Literal(LiteralValue::Int(number)) => number.inner().to_string(),
        Expr::Literal(LiteralValue::Boolean(flag)) => flag.inner().to_string(),
        Expr::Literal(LiteralValue::Null) => "null".to_owned(),
        Expr::Ident(name) => name.clone(),
        Expr::Select(select) => format!(".{}", select.field),
        Expr::Call(call) => call.func_name.trim_matches('_').to_owned(),
        _ => String::new(),
    }
}
