//! What can be said of an expression before it is evaluated: variables, functions and fields that do
//! not exist, results of the wrong type, and what it costs at most.

mod literals;

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::common::ast::{
    ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, StructExpr, operators,
};

use super::cost::{self, Place, Size};
use super::eval::{self, DEPTH_MAX};
use super::functions::{FUNCTIONS, JSON_PATCH_LIBRARY, NAMESPACED, NAMESPACES};
use super::identifier;
use super::library::FORMATS;
use super::value::{JSON_PATCH, OBJECT, unescaped};
use crate::cel::access;
use crate::schema::Ty;
use crate::structural::node::{Node, Type};
use crate::structural::object_meta;
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
    /// A part of an object that a mutating policy makes, by the name of its type.
    Made(&'a str),
    /// A value of a built-in type: a list, a map or a definition.
    BuiltIn(Ty),
    /// A custom object, with all of its metadata.
    Custom(&'a Node),
    /// What a policy composes.
    Members(&'a Members),
}

/// The types of a policy's variables, by their names.
pub type Members = BTreeMap<String, Arc<Node>>;

impl<'a> Kind<'a> {
    pub fn of(node: &'a Node, resource: bool) -> Self {
        match node.ty {
            Type::String => Self::Named(match cost::format(node) {
                "byte" => "bytes",
                "duration" => "duration",
                "date" | "date-time" => "timestamp",
                _ => "string",
            }),
            Type::Integer => Self::Named("int"),
            Type::Number => Self::Named("double"),
            Type::Boolean => Self::Named("bool"),
            Type::IntOrString | Type::Any => Self::Any,
            Type::Object | Type::Array => Self::Schema(node, resource || node.embedded),
        }
    }

    /// A value of a built-in type.
    pub fn of_built_in(ty: Ty) -> Self {
        match ty {
            Ty::String | Ty::Quantity => Self::Named("string"),
            Ty::Bytes => Self::Named("bytes"),
            Ty::Time | Ty::MicroTime => Self::Named("timestamp"),
            Ty::Int32 | Ty::Int64 => Self::Named("int"),
            Ty::Number => Self::Named("double"),
            Ty::Boolean => Self::Named("bool"),
            Ty::IntOrString | Ty::Any => Self::Any,
            Ty::Ref(_) | Ty::Array(_) | Ty::Map(_) => Self::BuiltIn(ty),
        }
    }

    /// The type's name, if it can only be one.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::BuiltIn(Ty::Array(_)) => Some("list"),
            Self::BuiltIn(_) | Self::Custom(_) | Self::Members(_) => Some("map"),
            Self::Any => None,
            Self::Named("") => None,
            Self::Named(name) => Some(name),
            Self::Schema(node, _) if node.ty == Type::Array => Some("list"),
            Self::Schema(..) | Self::Metadata => Some("map"),
            Self::Made(_) => Some(OBJECT),
        }
    }

    /// The type as errors name it.
    fn described(self, inner: Self) -> String {
        let within = || inner.described(Self::Any);
        match (self, self.name()) {
            (Self::Made(name), _) => name.to_owned(),
            (_, None) => "dyn".to_owned(),
            (_, Some("list")) => format!("list({})", within()),
            (_, Some("map")) => format!("map(string, {})", within()),
            (_, Some("timestamp")) => "google.protobuf.Timestamp".to_owned(),
            (_, Some("null_type")) => "null".to_owned(),
            (_, Some("duration")) => "google.protobuf.Duration".to_owned(),
            (_, Some(name)) => name.to_owned(),
        }
    }
}

/// What is known of a value.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    pub kind: Kind<'a>,
    /// Where it is from, if an object has it.
    pub place: Option<Place<'a>>,
    size: Option<Size>,
    /// What the elements of a list, the values of a map or the content of an optional are.
    pub inner: Kind<'a>,
    /// Their size, if the expression makes them.
    element: Option<Size>,
    /// What it costs to evaluate it.
    pub cost: u64,
}

impl<'a> Known<'a> {
    fn new(kind: Kind<'a>, cost: u64) -> Self {
        let size = cost::of_kind(kind);
        let inner = match kind {
            Kind::Schema(node, _) => {
                let inner = node.additional_schema().or(node.items.as_deref());
                inner.map(|inner| Kind::of(inner, false))
            }
            Kind::BuiltIn(ty) => ty.element().map(Kind::of_built_in),
            _ => None,
        };
        let inner = inner.unwrap_or(Kind::Any);
        Self { kind, place: None, size, inner, element: None, cost }
    }

    /// An optional value.
    fn optional(inner: Kind<'a>, cost: u64) -> Self {
        Self { inner, ..Self::new(Kind::Any, cost) }
    }

    fn of_size(self, size: Option<Size>) -> Self {
        Self { size: size.or(self.size), ..self }
    }

    fn at(self, place: Place<'a>) -> Self {
        Self { place: Some(place), ..self }.of_size(place.size())
    }

    fn of_cost(self, cost: u64) -> Self {
        Self { cost, ..self }
    }

    pub fn size(&self) -> Size {
        self.size.unwrap_or(Size::UNKNOWN)
    }

    /// Its type as errors name it.
    pub fn described(&self) -> String {
        self.kind.described(self.inner)
    }

    /// Whether it is a list of which is not known what is in it.
    pub fn is_open(&self) -> bool {
        self.kind.name() == Some("list") && self.inner.name().is_none()
    }

    /// Whether its type can be the one of that name.
    pub fn may_be(&self, name: &str) -> bool {
        self.kind.name().is_none_or(|known| known == name)
    }
}

/// The checker of one expression.
pub struct Checker<'a, 'b> {
    variables: Vec<(&'b str, Known<'a>)>,
    pub errors: Vec<Problem>,
    /// Where the paths begin that upstream has lost: at the first variable.
    root: Place<'a>,
    depth: usize,
    /// Whether there are types for patches, and their functions.
    patches: bool,
    /// Whether what is checked is an argument of `format`.
    formatted: bool,
}

/// A problem and the name that it is about.
pub struct Problem {
    pub text: String,
    pub about: String,
}

impl<'a, 'b: 'a> Checker<'a, 'b> {
    /// `root`: where the variables are from, for estimates of the cost.
    pub fn new(variables: Vec<(&'b str, Kind<'a>)>, root: Place<'a>) -> Self {
        let variables = variables.into_iter();
        let variables = variables.map(|(name, kind)| (name, Known::new(kind, 1).at(root)));
        let variables = variables.collect();
        Self { variables, errors: Vec::new(), root, depth: 0, patches: false, formatted: false }
    }

    /// Knows the types of patches, too: of mutating policies.
    #[must_use]
    pub fn with_patches(self, patches: bool) -> Self {
        Self { patches, ..self }
    }

    fn error(&mut self, about: &str, text: String) -> Known<'a> {
        self.errors.push(Problem { text, about: about.to_owned() });
        Known::new(Kind::Any, 0)
    }

    pub fn check(&mut self, expr: &'b IdedExpr) -> Known<'a> {
        if self.depth >= DEPTH_MAX {
            return self.error("", "expression is nested too deeply".to_owned());
        }
        self.depth += 1;
        let known = self.expr(expr);
        self.depth -= 1;
        known
    }

    fn expr(&mut self, expr: &'b IdedExpr) -> Known<'a> {
        match &expr.expr {
            Expr::Literal(literal) => {
                let (name, size) = match literal {
                    LiteralValue::Boolean(_) => ("bool", 1),
                    LiteralValue::Bytes(bytes) => ("bytes", bytes.inner().len()),
                    LiteralValue::Double(_) => ("double", 1),
                    LiteralValue::Int(_) => ("int", 1),
                    LiteralValue::Null => ("null_type", 1),
                    LiteralValue::String(text) => ("string", text.inner().chars().count()),
                    LiteralValue::UInt(_) => ("uint", 1),
                };
                Known::new(Kind::Named(name), 0).of_size(Some(Size::exactly(size as u64)))
            }
            Expr::Ident(name) => match self.variables.iter().rev().find(|(known, _)| known == name)
            {
                Some((_, known)) => known.of_cost(1),
                None if eval::is_type(name) => Known::new(Kind::Named("type"), 1),
                None => self.undeclared(name),
            },
            Expr::Select(select) => {
                let operand = self.check(&select.operand);
                if select.test {
                    self.field(operand.kind, &select.field);
                    return Known::new(Kind::Named("bool"), operand.cost);
                }
                if let (Kind::Any, inner @ (Kind::Schema(..) | Kind::Metadata)) =
                    (operand.kind, operand.inner)
                {
                    return Known::optional(self.field(inner, &select.field), operand.cost);
                }
                let field = self.field(operand.kind, &select.field);
                let step = u64::from(operand.kind.name() == Some("map"));
                let place = self.below(&operand, |place| place.field(&select.field));
                Known::new(field, operand.cost.saturating_add(step)).at(place)
            }
            Expr::Call(call) => self.call(&call.func_name, call.target.as_deref(), &call.args),
            Expr::List(list) => {
                let elements: Vec<_> =
                    list.elements.iter().map(|element| self.check(element)).collect();
                let size = Some(Size::exactly(elements.len() as u64));
                let cost = total(cost::LIST, &elements);
                let members: Vec<_> = elements
                    .iter()
                    .enumerate()
                    .map(|(index, element)| match list.optional_indices.contains(&index) {
                        true => Known::new(element.inner, 0),
                        false => *element,
                    })
                    .collect();
                self.homogeneous(list.elements.iter().zip(members));
                let inner = elements.iter().map(|element| element.kind).reduce(common);
                let inner = inner.unwrap_or(Kind::Any);
                let element = elements.iter().map(Known::size).reduce(Size::or);
                let element = element.or(Some(Size::exactly(0)));
                let list = Known::new(Kind::Named("list"), cost).of_size(size);
                Known { element, inner, ..list }
            }
            Expr::Map(map) => {
                let (mut cost, mut element, mut inner) = (cost::MAP, None, None);
                let (mut keys, mut values) = (Vec::new(), Vec::new());
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        let (key, value) = (self.check(&entry.key), self.check(&entry.value));
                        cost = total(cost, &[key, value]);
                        keys.push((&entry.key, key));
                        let plain = !entry.optional;
                        let member = if plain { value } else { Known::new(value.inner, 0) };
                        values.push((&entry.value, member));
                        let size = value.size();
                        element = Some(element.map_or(size, |element: Size| element.or(size)));
                        inner = Some(inner.map_or(value.kind, |inner| common(inner, value.kind)));
                    }
                }
                self.homogeneous(keys.into_iter());
                self.homogeneous(values.into_iter());
                let size = Some(Size::exactly(map.entries.len() as u64));
                let map = Known::new(Kind::Named("map"), cost).of_size(size);
                let inner = inner.unwrap_or(Kind::Any);
                Known { element: element.or(Some(Size::exactly(0))), inner, ..map }
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Struct(message) => self.made(message),
            Expr::Unspecified => self.error("", "invalid expression".to_owned()),
        }
    }

    /// `Object.spec{replicas: 1}`: any fields; `JSONPatch{...}`: its own.
    fn made(&mut self, message: &'b StructExpr) -> Known<'a> {
        let name = eval::type_name(message);
        let is_object =
            name.strip_prefix(OBJECT).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        if !self.patches || !(is_object || name == JSON_PATCH) {
            return self.undeclared(name);
        }
        let mut cost = cost::STRUCT;
        for entry in &message.entries {
            let EntryExpr::StructField(entry) = &entry.expr else { continue };
            let value = self.check(&entry.value);
            cost = total(cost, &[value]);
            if name == JSON_PATCH {
                let wanted = self.field(Kind::Named(JSON_PATCH), &entry.field).name();
                let kind = if entry.optional { value.inner } else { value.kind };
                if let (Some(wanted), Some(kind)) = (wanted, kind.name())
                    && wanted != kind
                {
                    let text = format!(
                        "expected type of field '{}' is '{wanted}' but provided type is '{kind}'",
                        entry.field
                    );
                    self.error(&entry.field, text);
                }
            }
        }
        Known::new(if is_object { Kind::Made(name) } else { Kind::Named(JSON_PATCH) }, cost)
    }

    fn undeclared(&mut self, name: &str) -> Known<'a> {
        self.error(name, format!("undeclared reference to '{name}' (in container '')"))
    }

    fn undefined(&mut self, name: &str) -> Kind<'a> {
        self.error(&format!(".{name}"), format!("undefined field '{name}'")).kind
    }

    /// Where what is read of a value is from. Upstream takes what has no path for a variable.
    fn below(&self, of: &Known<'a>, step: impl FnOnce(Place<'a>) -> Place<'a>) -> Place<'a> {
        of.place.map_or(self.root, step)
    }

    fn field(&mut self, operand: Kind<'a>, name: &str) -> Kind<'a> {
        match operand {
            Kind::Any | Kind::Named("map" | "") | Kind::Made(_) => Kind::Any,
            Kind::Named(JSON_PATCH) => match name {
                "op" | "path" | "from" => Kind::Named("string"),
                "value" => Kind::Any,
                _ => self.undefined(name),
            },
            Kind::Named(of) if access::member(of, name).is_some() => {
                access::member(of, name).map_or(Kind::Any, Kind::Named)
            }
            Kind::Named(of) => {
                self.error(name, format!("type '{of}' does not support field selection")).kind
            }
            Kind::BuiltIn(Ty::Map(value)) => Kind::of_built_in(*value),
            Kind::BuiltIn(ty) => {
                let field = ty.definition().and_then(|row| row.field(&unescaped(name)));
                match field {
                    Some(field) => Kind::of_built_in(field.ty),
                    None => self.undefined(name),
                }
            }
            Kind::Custom(node) => match (unescaped(name).as_str(), object_meta()) {
                ("apiVersion" | "kind", _) => Kind::Named("string"),
                ("metadata", Some(row)) => Ty::of(row).map_or(Kind::Any, Kind::BuiltIn),
                _ => self.field(Kind::Schema(node, false), name),
            },
            Kind::Metadata => match name {
                "name" | "generateName" => Kind::Named("string"),
                _ => self.undefined(name),
            },
            Kind::Members(members) => match members.get(name) {
                Some(node) => Kind::of(node, false),
                None => self.undefined(name),
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
                    None => self.undefined(name),
                }
            }
        }
    }

    /// A variable for the elements of a list or the keys of a map.
    fn iterated(&self, range: &Known<'a>) -> Known<'a> {
        let is_map = range.kind.name() == Some("map");
        let kind = if is_map { Kind::Named("string") } else { range.inner };
        let place = self.below(range, |place| if is_map { place.keys() } else { place.elements() });
        Known::new(kind, 1).of_size(range.element.filter(|_| !is_map)).at(place)
    }

    fn comprehension(&mut self, loop_: &'b ComprehensionExpr) -> Known<'a> {
        let range = self.check(&loop_.iter_range);
        if let Some(name @ ("bool" | "int" | "double" | "string")) = range.kind.name() {
            self.error("", format!("expression of type '{name}' cannot be range of a comprehension (must be list, map, or dynamic)"));
        }
        let start = self.check(&loop_.accu_init);
        let base = self.variables.len();
        self.variables.push((&loop_.accu_var, start));
        self.variables.push((&loop_.iter_var, self.iterated(&range)));
        let condition = self.check(&loop_.loop_cond);
        let step = self.check(&loop_.loop_step);
        self.variables.truncate(base + 1);
        let result = self.check(&loop_.result);
        self.variables.truncate(base);
        let cost =
            total(self.looped(&range, condition.cost.saturating_add(step.cost)), &[start, result]);
        let made = Known::new(result.kind, cost);
        match &loop_.accu_init.expr {
            Expr::List(_) | Expr::Map(_) => {
                let (element, inner) = (step.element, step.inner);
                Known { element, inner, ..made.of_size(Some(range.size())) }
            }
            _ => made.of_size(start.size),
        }
    }

    /// What a loop costs, with what it goes over.
    fn looped(&self, range: &Known<'a>, each: u64) -> u64 {
        range.size().max.saturating_mul(each).saturating_add(range.cost)
    }

    fn with(&mut self, variables: Vec<(&'b str, Known<'a>)>, body: &'b IdedExpr) -> Known<'a> {
        let base = self.variables.len();
        self.variables.extend(variables);
        let known = self.check(body);
        self.variables.truncate(base);
        known
    }

    /// What the parser leaves to its caller, or what has its operands evaluated in its own way.
    fn call(
        &mut self,
        name: &'b str,
        target: Option<&'b IdedExpr>,
        args: &'b [IdedExpr],
    ) -> Known<'a> {
        let qualifier = target.and_then(identifier);
        match (name, qualifier, args) {
            ("bind", Some("cel"), [variable, value, body]) => {
                let Some(variable) = identifier(variable) else {
                    return self.error("bind", "invalid variable name".to_owned());
                };
                let value = self.check(value);
                let body = self.with(vec![(variable, value)], body);
                return body.of_cost(total(cost::LIST, &[value, body]));
            }
            ("optMap" | "optFlatMap", _, [variable, body]) => {
                if let (Some(target), Some(variable)) = (target, identifier(variable)) {
                    let target = self.check(target);
                    let body = self.with(vec![(variable, Known::new(target.inner, 1))], body);
                    // It is asked for its value and for whether it has one, and bound.
                    let calls = if name == "optMap" { 3 } else { 2 };
                    let cost = total(cost::LIST + calls, &[target, target, body]);
                    let inner = if name == "optMap" { body.kind } else { body.inner };
                    return Known::optional(inner, cost);
                }
            }
            ("all" | "exists" | "existsOne" | "exists_one", _, [key, value, body]) => {
                if let (Some(target), Some(key), Some(value)) =
                    (target, identifier(key), identifier(value))
                {
                    let range = self.check(target);
                    let variables = vec![(key, self.key(&range)), (value, self.value(&range))];
                    let body = self.with(variables, body);
                    let (each, end) = match name {
                        "all" => (3, 1),
                        "exists" => (4, 1),
                        _ => (2, 2),
                    };
                    let cost = self.looped(&range, body.cost.saturating_add(each));
                    return Known::new(Kind::Named("bool"), cost.saturating_add(end));
                }
            }
            (
                "transformList" | "transformMap" | "transformMapEntry",
                _,
                [key, value, rest @ ..],
            ) if matches!(rest.len(), 1 | 2) => {
                if let (Some(target), Some(key), Some(value)) =
                    (target, identifier(key), identifier(value))
                {
                    return self.transform(name, target, (key, value), rest);
                }
            }
            ("sortBy", _, [variable, key]) => {
                if let (Some(target), Some(variable)) = (target, identifier(variable)) {
                    let range = self.check(target);
                    let key = self.with(vec![(variable, self.value(&range))], key);
                    // The keys are collected as by `map`, and compared.
                    let each = key.cost.saturating_add(cost::LIST + 3);
                    let cost = self.looped(&range, each).saturating_add(cost::LIST + 1);
                    return range.of_cost(cost);
                }
            }
            (operators::OPT_SELECT, _, [operand, field]) => {
                let operand = self.check(operand);
                let of = if operand.kind.name().is_none() { operand.inner } else { operand.kind };
                let inner = match &field.expr {
                    Expr::Literal(LiteralValue::String(name)) => self.field(of, name.inner()),
                    _ => Kind::Any,
                };
                return Known::optional(inner, operand.cost.saturating_add(1));
            }
            (operators::CONDITIONAL, _, [condition, yes, no]) => {
                let condition = self.check(condition);
                let (yes, no) = (self.check(yes), self.check(no));
                let kind = common(yes.kind, no.kind);
                let inner = joined(yes.inner, no.inner);
                let element = yes.element.zip(no.element).map(|(yes, no)| yes.or(no));
                let cost = condition.cost.saturating_add(yes.cost.max(no.cost));
                let size = Some(yes.size().or(no.size()));
                return Known { element, inner, ..Known::new(kind, cost).of_size(size) };
            }
            (operators::INDEX, _, [operand, index]) => {
                let operand = self.check(operand);
                let index = self.check(index);
                let value = self.value(&operand);
                return value.of_cost(total(1, &[operand, index]));
            }
            _ => {}
        }
        self.function(name, qualifier, target, args)
    }

    /// `list.transformList(index, value, filter, ...)`, `map.transformMap(key, value, ...)`
    fn transform(
        &mut self,
        name: &str,
        target: &'b IdedExpr,
        (key, value): (&'b str, &'b str),
        rest: &'b [IdedExpr],
    ) -> Known<'a> {
        let range = self.check(target);
        let variables = vec![(key, self.key(&range)), (value, self.value(&range))];
        let parts: Vec<Known<'a>> =
            rest.iter().map(|part| self.with(variables.clone(), part)).collect();
        let body = parts.last().copied().unwrap_or_else(|| Known::new(Kind::Any, 0));
        let (kind, inner, start, each) = match name {
            "transformList" => ("list", body.kind, cost::LIST, cost::LIST + 2),
            "transformMap" => ("map", body.kind, cost::MAP, 3),
            _ => ("map", body.inner, cost::MAP, 2),
        };
        let cost = self.looped(&range, total(each, &parts)).saturating_add(start + 1);
        let made = Known::new(Kind::Named(kind), cost).of_size(Some(range.size()));
        Known { inner, element: Some(body.size()), ..made }
    }

    /// An element of a list or a value of a map.
    fn value(&self, of: &Known<'a>) -> Known<'a> {
        let place = self.below(of, Place::elements);
        Known::new(of.inner, 1).at(place).of_size(of.element)
    }

    /// The index of an element, or the key of a value.
    fn key(&self, of: &Known<'a>) -> Known<'a> {
        let kind = match of.kind.name() {
            Some("list") => Kind::Named("int"),
            Some(_) => Kind::Named("string"),
            None => Kind::Any,
        };
        Known::new(kind, 1).at(self.below(of, Place::keys))
    }

    fn function(
        &mut self,
        name: &'b str,
        qualifier: Option<&str>,
        target: Option<&'b IdedExpr>,
        args: &'b [IdedExpr],
    ) -> Known<'a> {
        let sources = args;
        let is_within = self.formatted;
        self.formatted |= name == "format";
        let args: Vec<Known<'a>> = sources.iter().map(|arg| self.check(arg)).collect();
        self.formatted = is_within;
        self.literal(name, sources.first());
        let is_variable = |name: &str| self.variables.iter().any(|(known, _)| *known == name);
        let is_library =
            |name: &str| NAMESPACES.contains(&name) && (self.patches || name != JSON_PATCH_LIBRARY);
        if let Some(qualifier) = qualifier.filter(|name| is_library(name) && !is_variable(name)) {
            let known = NAMESPACED.contains(&(qualifier, name))
                || (qualifier == "format" && FORMATS.contains(&name));
            if !known {
                return self.undeclared(&format!("{qualifier}.{name}"));
            }
            let cost = total(cost::namespaced(qualifier, name, &args), &args);
            return match (qualifier, &args[..]) {
                ("sets" | "ip", _) => Known::new(Kind::Named("bool"), cost),
                (JSON_PATCH_LIBRARY, _) => Known::new(Kind::Named("string"), cost),
                ("optional", [list]) if name == "unwrap" => {
                    Known::new(Kind::Named("list"), cost).of_size(Some(list.size()))
                }
                ("optional", [value]) => Known::optional(value.kind, cost),
                ("format", []) => Known::new(Kind::Named("kubernetes.NamedFormat"), cost),
                _ => Known::new(Kind::Any, cost),
            };
        }
        let target = target.map(|target| self.check(target));
        let kind = self.result(name, &args);
        if name == "reverse"
            && let Some("string") = target.and_then(|target| target.kind.name())
        {
            let text = "found no matching overload for 'reverse' applied to 'string.()'";
            self.error(".reverse", text.to_owned());
        }
        if name == "dyn"
            && let [arg] = args[..]
        {
            return Known { kind, place: None, ..arg.of_cost(arg.cost.saturating_add(1)) };
        }
        let (cost, size) = cost::call(name, target.as_ref(), &args, sources);
        let cost = total(target.map_or(cost, |target| total(cost, &[target])), &args);
        let known = Known::new(kind, cost).of_size(size);
        match (name, &args[..], target) {
            (operators::ADD, [one, other], _) => {
                let element = one.element.zip(other.element).map(|(one, other)| one.or(other));
                let inner = joined(one.inner, other.inner);
                Known { element, inner, ..known }
            }
            ("first" | "last", _, Some(target)) => Known::optional(target.inner, cost),
            ("split" | "findAll", ..) => Known { inner: Kind::Named("string"), ..known },
            // What is in an optional.
            ("orValue" | "value", _, Some(target)) => Known::new(target.inner, cost),
            ("or", _, Some(target)) => Known { inner: target.inner, ..known },
            (operators::OPT_INDEX, [operand, _], _) => Known { inner: operand.inner, ..known },
            // These keep the type of the elements.
            ("slice" | "distinct" | "sort" | "reverse", _, Some(target)) => {
                Known { inner: target.inner, ..known }
            }
            ("sum" | "min" | "max", _, Some(target)) if target.kind.name() == Some("list") => {
                Known::new(target.inner, cost)
            }
            _ => known,
        }
    }

    /// The type of a call's result.
    fn result(&mut self, name: &'b str, args: &[Known<'a>]) -> Kind<'a> {
        let kinds: Vec<Kind<'a>> = args.iter().map(|arg| arg.kind).collect();
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
                [Some("timestamp"), Some("duration")] | [Some("duration"), Some("timestamp")] => {
                    Kind::Named("timestamp")
                }
                [Some("timestamp"), Some("timestamp")] => Kind::Named("duration"),
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
                None => self.undeclared(name).kind,
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

/// A cost with that of operands.
fn total(cost: u64, operands: &[Known<'_>]) -> u64 {
    operands.iter().fold(cost, |total, operand| total.saturating_add(operand.cost))
}

/// The type of what is of one type or of the other.
fn common<'a>(one: Kind<'a>, other: Kind<'a>) -> Kind<'a> {
    match (one, other) {
        (Kind::Made(one), Kind::Made(other)) if one != other => Kind::Any,
        _ if one.name() == other.name() => one,
        _ => Kind::Any,
    }
}

/// The same for elements: those of an empty list are of any type.
fn joined<'a>(one: Kind<'a>, other: Kind<'a>) -> Kind<'a> {
    match (one.name(), other.name()) {
        (None, _) => other,
        (_, None) => one,
        _ => common(one, other),
    }
}
