//! What can be said of an expression before it is evaluated: variables, functions and fields that do
//! not exist, and results of the wrong type.

use cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};

use super::eval::{self, DEPTH_MAX};
use super::functions::{FUNCTIONS, NAMESPACED, NAMESPACES};
use super::identifier;
use super::library::FORMATS;
use super::value::unescaped;
use crate::cel::access;
use crate::structural::node::{Node, Type};
use crate::structural::prune::META_FIELDS;

/// What is known of a value's type.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    /// Anything.
    Any,
    /// A type by its name.
    Named(&'static str),
    /// A value of a schema; `true`: with `apiVersion`, `kind` and `metadata`.
    Schema(&'a Node, bool),
    /// Metadata, of which rules see the name only.
    Metadata,
}

impl<'a> Kind<'a> {
    pub fn of(node: &'a Node, resource: bool) -> Self {
        match node.ty {
            Type::String
                if node.checks.as_deref().is_some_and(|checks| checks.format.is_some()) =>
            {
                Self::Any
            }
            Type::String => Self::Named("string"),
            Type::Integer => Self::Named("int"),
            Type::Number => Self::Named("double"),
            Type::Boolean => Self::Named("bool"),
            Type::IntOrString | Type::Any => Self::Any,
            Type::Object | Type::Array => Self::Schema(node, resource || node.embedded),
        }
    }

    /// The type's name, if it can only be one.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Any => None,
            Self::Named("") => None,
            Self::Named(name) => Some(name),
            Self::Schema(node, _) if node.ty == Type::Array => Some("list"),
            Self::Schema(..) | Self::Metadata => Some("map"),
        }
    }
}

/// The checker of one expression.
pub struct Checker<'a, 'b> {
    pub variables: Vec<(&'b str, Kind<'a>)>,
    pub errors: Vec<Problem>,
    depth: usize,
}

/// A problem and the name that it is about.
pub struct Problem {
    pub text: String,
    pub about: String,
}

impl<'a, 'b> Checker<'a, 'b> {
    pub fn new(variables: Vec<(&'b str, Kind<'a>)>) -> Self {
        Self { variables, errors: Vec::new(), depth: 0 }
    }

    fn error(&mut self, about: &str, text: String) -> Kind<'a> {
        self.errors.push(Problem { text, about: about.to_owned() });
        Kind::Any
    }

    pub fn check(&mut self, expr: &'b IdedExpr) -> Kind<'a> {
        if self.depth >= DEPTH_MAX {
            return self.error("", "expression is nested too deeply".to_owned());
        }
        self.depth += 1;
        let kind = self.expr(expr);
        self.depth -= 1;
        kind
    }

    fn expr(&mut self, expr: &'b IdedExpr) -> Kind<'a> {
        match &expr.expr {
            Expr::Literal(literal) => Kind::Named(match literal {
                LiteralValue::Boolean(_) => "bool",
                LiteralValue::Bytes(_) => "bytes",
                LiteralValue::Double(_) => "double",
                LiteralValue::Int(_) => "int",
                LiteralValue::Null => "null_type",
                LiteralValue::String(_) => "string",
                LiteralValue::UInt(_) => "uint",
            }),
            Expr::Ident(name) => match self.variables.iter().rev().find(|(known, _)| known == name)
            {
                Some((_, kind)) => *kind,
                None if eval::is_type(name) => Kind::Named("type"),
                None => self.undeclared(name),
            },
            Expr::Select(select) => {
                let operand = self.check(&select.operand);
                let kind = self.field(operand, &select.field);
                if select.test { Kind::Named("bool") } else { kind }
            }
            Expr::Call(call) => self.call(&call.func_name, call.target.as_deref(), &call.args),
            Expr::List(list) => {
                list.elements.iter().for_each(|element| {
                    self.check(element);
                });
                Kind::Named("list")
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.check(&entry.key);
                        self.check(&entry.value);
                    }
                }
                Kind::Named("map")
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Struct(message) => self.undeclared(&message.type_name),
            Expr::Unspecified => self.error("", "invalid expression".to_owned()),
        }
    }

    fn undeclared(&mut self, name: &str) -> Kind<'a> {
        self.error(name, format!("undeclared reference to '{name}' (in container '')"))
    }

    fn field(&mut self, operand: Kind<'a>, name: &str) -> Kind<'a> {
        match operand {
            Kind::Any | Kind::Named("map" | "") => Kind::Any,
            Kind::Named(of) if access::member(of, name).is_some() => {
                access::member(of, name).map_or(Kind::Any, Kind::Named)
            }
            Kind::Named(of) => {
                self.error(name, format!("type '{of}' does not support field selection"))
            }
            Kind::Metadata => match name {
                "name" | "generateName" => Kind::Named("string"),
                _ => self.error(name, format!("undefined field '{name}'")),
            },
            Kind::Schema(node, resource) => {
                if let Some(schema) = node.additional_schema() {
                    return Kind::of(schema, false);
                }
                let plain = unescaped(name);
                if resource && META_FIELDS.contains(&plain.as_str()) {
                    return if plain == "metadata" {
                        Kind::Metadata
                    } else {
                        Kind::Named("string")
                    };
                }
                match node.property(&plain) {
                    Some(property) => Kind::of(property, false),
                    None => self.error(name, format!("undefined field '{name}'")),
                }
            }
        }
    }

    fn element(&self, range: Kind<'a>) -> Kind<'a> {
        match range {
            Kind::Schema(node, _) => match node.items.as_deref() {
                Some(items) => Kind::of(items, false),
                None => Kind::Named("string"),
            },
            _ => Kind::Any,
        }
    }

    fn comprehension(&mut self, loop_: &'b ComprehensionExpr) -> Kind<'a> {
        let range = self.check(&loop_.iter_range);
        if let Some(name @ ("bool" | "int" | "double" | "string")) = range.name() {
            self.error("", format!("expression of type '{name}' cannot be range of a comprehension (must be list, map, or dynamic)"));
        }
        let accumulator = self.check(&loop_.accu_init);
        let base = self.variables.len();
        self.variables.push((&loop_.accu_var, accumulator));
        self.variables.push((&loop_.iter_var, self.element(range)));
        self.check(&loop_.loop_cond);
        self.check(&loop_.loop_step);
        self.variables.truncate(base + 1);
        let result = self.check(&loop_.result);
        self.variables.truncate(base);
        result
    }

    fn with(&mut self, variables: Vec<(&'b str, Kind<'a>)>, body: &'b IdedExpr) -> Kind<'a> {
        let base = self.variables.len();
        self.variables.extend(variables);
        let kind = self.check(body);
        self.variables.truncate(base);
        kind
    }

    fn call(
        &mut self,
        name: &'b str,
        target: Option<&'b IdedExpr>,
        args: &'b [IdedExpr],
    ) -> Kind<'a> {
        let qualifier = target.and_then(identifier);
        match (name, qualifier, args) {
            ("bind", Some("cel"), [variable, value, body]) => {
                let Some(variable) = identifier(variable) else {
                    return self.error("bind", "invalid variable name".to_owned());
                };
                let value = self.check(value);
                return self.with(vec![(variable, value)], body);
            }
            ("optMap" | "optFlatMap", _, [variable, body]) => {
                if let (Some(target), Some(variable)) = (target, identifier(variable)) {
                    self.check(target);
                    self.with(vec![(variable, Kind::Any)], body);
                    return Kind::Any;
                }
            }
            ("all" | "exists" | "existsOne" | "exists_one", _, [key, value, body]) => {
                if let (Some(target), Some(key), Some(value)) =
                    (target, identifier(key), identifier(value))
                {
                    self.check(target);
                    self.with(vec![(key, Kind::Any), (value, Kind::Any)], body);
                    return Kind::Named("bool");
                }
            }
            (operators::OPT_SELECT, _, [operand, _]) => {
                self.check(operand);
                return Kind::Any;
            }
            (operators::CONDITIONAL, _, [condition, yes, no]) => {
                self.check(condition);
                let (yes, no) = (self.check(yes), self.check(no));
                return if yes.name() == no.name() { yes } else { Kind::Any };
            }
            (operators::INDEX, _, [operand, index]) => {
                let operand = self.check(operand);
                self.check(index);
                return match operand {
                    Kind::Schema(node, _) => match node.additional_schema() {
                        Some(schema) => Kind::of(schema, false),
                        None => self.element(operand),
                    },
                    _ => Kind::Any,
                };
            }
            _ => {}
        }
        self.function(name, qualifier, target, args)
    }

    fn function(
        &mut self,
        name: &'b str,
        qualifier: Option<&str>,
        target: Option<&'b IdedExpr>,
        args: &'b [IdedExpr],
    ) -> Kind<'a> {
        let kinds: Vec<Kind<'a>> = args.iter().map(|arg| self.check(arg)).collect();
        let is_variable = |name: &str| self.variables.iter().any(|(known, _)| *known == name);
        if let Some(qualifier) =
            qualifier.filter(|name| NAMESPACES.contains(name) && !is_variable(name))
        {
            let known = NAMESPACED.contains(&(qualifier, name))
                || (qualifier == "format" && FORMATS.contains(&name));
            return match (known, qualifier) {
                (false, _) => self.undeclared(&format!("{qualifier}.{name}")),
                (true, "sets" | "ip") => Kind::Named("bool"),
                _ => Kind::Any,
            };
        }
        if let Some(target) = target {
            self.check(target);
        }
        let has_authorizer = self.variables.iter().any(|(known, _)| *known == "authorizer");
        let of_authorizer: &[(&str, &str)] = if has_authorizer { access::FUNCTIONS } else { &[] };
        match name {
            operators::LOGICAL_AND | operators::LOGICAL_OR | operators::LOGICAL_NOT => {
                if kinds.iter().any(|kind| kind.name().is_some_and(|name| name != "bool")) {
                    self.no_overload(name, &kinds);
                }
                Kind::Named("bool")
            }
            operators::EQUALS | operators::NOT_EQUALS => {
                if let [Some(one), Some(other)] = [kinds[0].name(), kinds[1].name()]
                    && one != other
                    && one != "null_type"
                    && other != "null_type"
                {
                    self.no_overload(name, &kinds);
                }
                Kind::Named("bool")
            }
            operators::LESS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS => {
                let number = |name: &str| matches!(name, "int" | "uint" | "double");
                if let [Some(one), Some(other)] = [kinds[0].name(), kinds[1].name()]
                    && one != other
                    && !(number(one) && number(other))
                {
                    self.no_overload(name, &kinds);
                }
                Kind::Named("bool")
            }
            operators::IN | operators::NOT_STRICTLY_FALSE => Kind::Named("bool"),
            operators::ADD
            | operators::SUBSTRACT
            | operators::MULTIPLY
            | operators::DIVIDE
            | operators::MODULO => match [kinds[0].name(), kinds[1].name()] {
                [Some(one), Some(other)] if one != other => {
                    self.no_overload(name, &kinds);
                    Kind::Any
                }
                [Some(one), Some(_)] => Kind::Named(one),
                _ => Kind::Any,
            },
            operators::NEGATE => kinds.first().copied().unwrap_or(Kind::Any),
            operators::OPT_INDEX => Kind::Any,
            _ => match FUNCTIONS.iter().chain(of_authorizer).find(|(known, _)| *known == name) {
                Some((_, "")) => Kind::Any,
                Some((_, result)) => Kind::Named(result),
                None => self.undeclared(name),
            },
        }
    }

    fn no_overload(&mut self, name: &str, kinds: &[Kind<'a>]) {
        let names: Vec<&str> = kinds.iter().map(|kind| kind.name().unwrap_or("dyn")).collect();
        let sign = name.trim_matches('_').trim_start_matches('@');
        let text =
            format!("found no matching overload for '{name}' applied to '({})'", names.join(", "));
        self.error(sign, text);
    }
}
