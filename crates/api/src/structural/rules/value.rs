//! Values of CEL expressions. Those of an object borrow its JSON and are typed by their schema only
//! when they are read, so that a rule pays for what it looks at.

use std::cmp::Ordering;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use jiff::Timestamp;
use k8s_openapi::jiff;
use serde_json::{Map as Json, Value};

use super::library::Semver;
use crate::cel::access::{self, Access, Decision};
use crate::quantity::Quantity;
use crate::structural::format::Format;
use crate::structural::go;
use crate::structural::node::{ListType, Node, Type};

/// A value.
#[derive(Clone, Debug)]
pub enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Text<'a>),
    Bytes(Arc<[u8]>),
    List(List<'a>),
    Map(Object<'a>),
    /// Nanoseconds.
    Duration(i64),
    Timestamp(Timestamp),
    Type(&'static str),
    Optional(Option<Arc<Val<'a>>>),
    Quantity(Quantity),
    Ip(IpAddr),
    /// Address and length of the prefix.
    Cidr(IpAddr, u8),
    Url(Text<'a>),
    Semver(Arc<Semver>),
    /// A named format of strings.
    Format(&'static str),
    /// The authorizer of admission, or a question to it.
    Access(Access<'a>),
    Decision(Arc<Decision>),
    /// What a policy composes: its members are evaluated when they are first read.
    Composed,
    /// What a mutating policy makes: a part of an object, or an operation of a patch.
    Struct(Arc<Struct<'a>>),
}

/// The type of the operations of a patch.
pub const JSON_PATCH: &str = "JSONPatch";
/// The type of a whole object; those of its parts begin with it.
pub const OBJECT: &str = "Object";

/// A value with a named type: `Object.spec{replicas: 1}`.
#[derive(Debug)]
pub struct Struct<'a> {
    pub name: &'a str,
    pub fields: Vec<(&'a str, Val<'a>)>,
}

impl<'a> Struct<'a> {
    pub fn field(&self, name: &str) -> Option<&Val<'a>> {
        self.fields.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

#[derive(Clone, Debug)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

impl Text<'_> {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

#[derive(Clone, Debug)]
pub enum List<'a> {
    Json(&'a [Value], Option<&'a Node>),
    Owned(Arc<Vec<Val<'a>>>),
}

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Json(list, _) => list.len(),
            Self::Owned(list) => list.len(),
        }
    }

    pub fn get(&self, index: usize) -> Option<Val<'a>> {
        match self {
            Self::Json(list, node) => {
                let items = node.and_then(|node| node.items.as_deref());
                list.get(index).map(|value| Val::of(value, items))
            }
            Self::Owned(list) => list.get(index).cloned(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Val<'a>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// The list with another one added, as its type merges: what a set has already is not added, and
    /// of elements with the same keys the other list's stays.
    pub fn merged(&self, other: &Self, list_type: &ListType) -> Vec<Val<'a>> {
        let key = |element: &Val<'a>| match (list_type, element) {
            (ListType::Map(keys), Val::Map(map)) => {
                let part = |key: &String| map.field(key).map(|value| value.canonical());
                keys.iter().map(|key| part(key).unwrap_or_default()).collect::<Vec<_>>().join(",")
            }
            (_, element) => element.canonical(),
        };
        let mut merged: Vec<Val<'a>> = self.iter().collect();
        let mut positions: HashMap<String, usize> =
            merged.iter().enumerate().map(|(at, element)| (key(element), at)).collect();
        for element in other.iter() {
            match positions.entry(key(&element)) {
                Entry::Occupied(known) => merged[*known.get()] = element,
                Entry::Vacant(free) => {
                    free.insert(merged.len());
                    merged.push(element);
                }
            }
        }
        merged
    }

    /// The elements of a list whose order is of no account.
    fn unordered(&self) -> Option<&'a [Value]> {
        match self {
            Self::Json(list, Some(node)) if node.list != ListType::Atomic => Some(list),
            _ => None,
        }
    }
}

#[derive(Clone, Debug)]
pub enum Object<'a> {
    Json(&'a Json<String, Value>, Option<&'a Node>),
    Owned(Arc<Vec<(Val<'a>, Val<'a>)>>),
}

impl<'a> Object<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Json(map, _) => map.len(),
            Self::Owned(entries) => entries.len(),
        }
    }

    /// A field of an object, whose name may be escaped, or an entry of a map.
    pub fn field(&self, name: &str) -> Option<Val<'a>> {
        match self {
            Self::Json(map, node) => {
                let name = match node {
                    Some(node) if node.additional_schema().is_some() => name.to_owned(),
                    _ => unescaped(name),
                };
                let schema = node.and_then(|node| node.member(&name));
                map.get(&name).map(|value| Val::of(value, schema))
            }
            Self::Owned(_) => self.entry(&Val::Text(Text::Shared(name.into()))),
        }
    }

    pub fn entry(&self, key: &Val<'a>) -> Option<Val<'a>> {
        match (self, key) {
            (Self::Json(map, node), Val::Text(name)) => {
                let schema = node.and_then(|node| node.member(name.as_str()));
                map.get(name.as_str()).map(|value| Val::of(value, schema))
            }
            (Self::Json(..), _) => None,
            (Self::Owned(entries), key) => {
                let found = entries.iter().find(|(known, _)| known.equals(key));
                found.map(|(_, value)| value.clone())
            }
        }
    }

    pub fn keys(&self) -> Vec<Val<'a>> {
        match self {
            Self::Json(map, _) => {
                map.keys().map(|key| Val::Text(Text::Borrowed(key.as_str()))).collect()
            }
            Self::Owned(entries) => entries.iter().map(|(key, _)| key.clone()).collect(),
        }
    }
}

/// Words that CEL reserves; fields with such names are written `__name__`.
pub const RESERVED: &[&str] = &[
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The name of a field that a rule writes with escapes (`a__dash__b`, `__namespace__`).
pub fn unescaped(name: &str) -> String {
    if !name.contains("__") {
        return name.to_owned();
    }
    let inner = name.strip_prefix("__").and_then(|name| name.strip_suffix("__"));
    if let Some(word) = inner.filter(|word| RESERVED.contains(word)) {
        return word.to_owned();
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find("__") {
        out.push_str(&rest[..at]);
        let after = &rest[at..];
        let escapes =
            [("__underscores__", "__"), ("__dot__", "."), ("__dash__", "-"), ("__slash__", "/")];
        match escapes.iter().find(|(escape, _)| after.starts_with(escape)) {
            Some((escape, plain)) => {
                out.push_str(plain);
                rest = &after[escape.len()..];
            }
            None => {
                out.push_str("__");
                rest = &after[2..];
            }
        }
    }
    out.push_str(rest);
    out
}

impl<'a> Val<'a> {
    /// A value of an object, typed by its schema.
    pub fn of(value: &'a Value, node: Option<&'a Node>) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Bool(*flag),
            Value::Number(number) => match number.as_i64() {
                Some(integer) if !node.is_some_and(|node| node.ty == Type::Number) => {
                    Self::Int(integer)
                }
                _ => Self::Double(number.as_f64().unwrap_or_default()),
            },
            Value::String(text) => Self::of_text(text, node),
            Value::Array(list) => Self::List(List::Json(list, node)),
            Value::Object(map) => Self::Map(Object::Json(map, node)),
        }
    }

    fn of_text(text: &'a str, node: Option<&Node>) -> Self {
        let plain = Self::Text(Text::Borrowed(text));
        let checks =
            node.filter(|node| node.ty == Type::String).and_then(|node| node.checks.as_deref());
        let Some((format, _)) = checks.and_then(|checks| checks.format.as_ref()) else {
            return plain;
        };
        let typed = match format {
            Format::DateTime => super::library::timestamp(text).map(Self::Timestamp),
            Format::Date => {
                super::library::timestamp(&format!("{text}T00:00:00Z")).map(Self::Timestamp)
            }
            Format::Duration => super::library::duration(text).map(Self::Duration),
            Format::Byte => {
                let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok();
                bytes.map(|bytes| Self::Bytes(bytes.into()))
            }
            _ => None,
        };
        typed.unwrap_or(plain)
    }

    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text(Text::Shared(text.into()))
    }

    pub fn list(list: Vec<Val<'a>>) -> Self {
        Self::List(List::Owned(Arc::new(list)))
    }

    pub fn some(value: Val<'a>) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    /// As `type()` names it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Type(_) => "type",
            Self::Optional(_) => "optional_type",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Ip(_) => "net.IP",
            Self::Cidr(..) => "net.CIDR",
            Self::Url(_) => "kubernetes.URL",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Access(access) => access.kind,
            Self::Decision(_) => access::DECISION,
            Self::Composed => "kubernetes.variables",
            Self::Struct(made) if made.name == JSON_PATCH => JSON_PATCH,
            Self::Struct(_) => OBJECT,
        }
    }

    /// What it costs to read the value as a whole.
    pub fn weight(&self) -> u64 {
        let size = match self {
            Self::Text(text) | Self::Url(text) => text.as_str().len() / 10,
            Self::Bytes(bytes) => bytes.len() / 10,
            Self::List(List::Json(list, _)) => list.iter().map(json_weight).sum(),
            Self::Map(Object::Json(map, _)) => map.values().map(json_weight).sum(),
            Self::List(List::Owned(list)) => list.len(),
            Self::Map(Object::Owned(entries)) => entries.len(),
            Self::Struct(made) => made.fields.len(),
            _ => 0,
        };
        1 + size as u64
    }

    /// What it costs to compare two values: as much as the first one has, unless their sizes differ.
    pub fn cost_of_comparison(&self, other: &Self) -> u64 {
        match (self, other) {
            (Self::List(one), Self::List(other)) if one.len() != other.len() => 1,
            (Self::Map(one), Self::Map(other)) if one.len() != other.len() => 1,
            (Self::List(_), Self::List(_)) | (Self::Map(_), Self::Map(_)) => self.weight(),
            (Self::Text(_), Self::Text(_)) | (Self::Bytes(_), Self::Bytes(_)) => self.weight(),
            _ => 1,
        }
    }

    pub fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(one), Self::Bool(other)) => one == other,
            (Self::Text(one), Self::Text(other)) | (Self::Url(one), Self::Url(other)) => {
                one.as_str() == other.as_str()
            }
            (Self::Bytes(one), Self::Bytes(other)) => one == other,
            (Self::Type(one), Self::Type(other)) | (Self::Format(one), Self::Format(other)) => {
                one == other
            }
            (Self::Ip(one), Self::Ip(other)) => one == other,
            (Self::Cidr(one, bits), Self::Cidr(other, more)) => one == other && bits == more,
            (Self::List(one), Self::List(other)) => lists_equal(one, other),
            (Self::Map(one), Self::Map(other)) => {
                one.len() == other.len()
                    && one.keys().iter().all(|key| {
                        one.entry(key)
                            .zip(other.entry(key))
                            .is_some_and(|(one, other)| one.equals(&other))
                    })
            }
            (Self::Optional(one), Self::Optional(other)) => match (one, other) {
                (None, None) => true,
                (Some(one), Some(other)) => one.equals(other),
                _ => false,
            },
            (Self::Struct(one), Self::Struct(other)) => {
                one.name == other.name
                    && one.fields.len() == other.fields.len()
                    && one.fields.iter().all(|(name, value)| {
                        other.field(name).is_some_and(|other| value.equals(other))
                    })
            }
            _ => self.compare(other) == Some(Ordering::Equal),
        }
    }

    /// The order of values of the same type, and of numbers of any.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(one), Self::Bool(other)) => Some(one.cmp(other)),
            (Self::Int(one), Self::Int(other)) => Some(one.cmp(other)),
            (Self::Uint(one), Self::Uint(other)) => Some(one.cmp(other)),
            (Self::Text(one), Self::Text(other)) => Some(one.as_str().cmp(other.as_str())),
            (Self::Bytes(one), Self::Bytes(other)) => Some(one.cmp(other)),
            (Self::Duration(one), Self::Duration(other)) => Some(one.cmp(other)),
            (Self::Timestamp(one), Self::Timestamp(other)) => Some(one.cmp(other)),
            (Self::Quantity(one), Self::Quantity(other)) => Some(one.cmp(other)),
            (Self::Semver(one), Self::Semver(other)) => Some(one.cmp(other)),
            (Self::Int(one), Self::Uint(other)) => Some(i128::from(*one).cmp(&i128::from(*other))),
            (Self::Uint(one), Self::Int(other)) => Some(i128::from(*one).cmp(&i128::from(*other))),
            _ => self.as_double()?.partial_cmp(&other.as_double()?),
        }
    }

    /// A text that equal values share.
    fn canonical(&self) -> String {
        match self {
            Self::Text(text) => go::quoted(text.as_str()),
            Self::List(list) => {
                let parts: Vec<String> = list.iter().map(|element| element.canonical()).collect();
                format!("[{}]", parts.join(","))
            }
            Self::Map(map) => {
                let value = |key: &Self| map.entry(key).map(|value| value.canonical());
                let part =
                    |key: &Self| format!("{}:{}", key.canonical(), value(key).unwrap_or_default());
                let mut parts: Vec<String> = map.keys().iter().map(part).collect();
                parts.sort_unstable();
                format!("{{{}}}", parts.join(","))
            }
            other => match other.as_double() {
                Some(number) => go::float(number),
                None => format!("{other:?}"),
            },
        }
    }

    /// A number as a double.
    pub fn as_double(&self) -> Option<f64> {
        match self {
            Self::Int(integer) => Some(*integer as f64),
            Self::Uint(integer) => Some(*integer as f64),
            Self::Double(double) => Some(*double),
            _ => None,
        }
    }
}

fn lists_equal(one: &List<'_>, other: &List<'_>) -> bool {
    if one.len() != other.len() {
        return false;
    }
    if let (Some(one), Some(other)) = (one.unordered(), other.unordered()) {
        let texts: HashSet<String> = one.iter().map(Value::to_string).collect();
        return other.iter().all(|element| texts.contains(&element.to_string()));
    }
    one.iter().zip(other.iter()).all(|(one, other)| one.equals(&other))
}

/// What it costs to read a value of an object as a whole.
pub fn json_weight(value: &Value) -> usize {
    1 + match value {
        Value::String(text) => text.len() / 10,
        Value::Array(list) => list.iter().map(json_weight).sum(),
        Value::Object(map) => map.values().map(json_weight).sum(),
        _ => 0,
    }
}
