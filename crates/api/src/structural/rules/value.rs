//! Values of CEL expressions. Those of an object borrow its JSON and are typed by their schema only
//! when they are read, so that a rule pays for what it looks at.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use jiff::Timestamp;
use k8s_openapi::jiff;
use serde_json::{Map as Json, Value};

use super::cost;
use super::eval::Failure;
use super::library::Semver;
use crate::cel::access::{self, Access, Decision};
use crate::quantity::Quantity;
use crate::structural::format::Format;
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

/// Bytes of a text that may be a time: values are parsed whenever they are read.
const TIME_MAX: usize = 1 << 10;
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

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text<'_> {}

impl Hash for Text<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
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

    /// Whether the order of its elements is of no account.
    pub fn is_unordered(&self) -> bool {
        matches!(self, Self::Json(_, Some(node)) if node.list != ListType::Atomic)
    }

    /// Bytes that are decoded when all elements are read.
    pub fn decoded(&self) -> u64 {
        let Self::Json(list, Some(node)) = self else {
            return 0;
        };
        let is_encoded = node.items.as_deref().is_some_and(|items| cost::format(items) == "byte");
        let texts = list.iter().filter(|_| is_encoded).filter_map(Value::as_str);
        texts.map(|text| text.len() as u64).sum()
    }
}

#[derive(Clone, Debug)]
pub enum Object<'a> {
    Json(&'a Json<String, Value>, Option<&'a Node>),
    Owned(Arc<Entries<'a>>),
}

/// The entries of a map that an expression makes, in the order in which they were added.
#[derive(Debug, Default)]
pub struct Entries<'a> {
    list: Vec<(Val<'a>, Val<'a>)>,
    positions: HashMap<Key<'a>, usize>,
}

/// A key by which an entry is found; numbers are equal whatever their type.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Key<'a> {
    Bool(bool),
    Whole(i128),
    /// The bits of a number that is not whole.
    Fraction(u64),
    Text(Text<'a>),
}

impl<'a> Key<'a> {
    /// `None`: such values are no keys.
    #[expect(clippy::cast_possible_truncation, reason = "only of what is whole and small enough")]
    fn of(value: &Val<'a>) -> Option<Self> {
        Some(match value {
            Val::Bool(flag) => Self::Bool(*flag),
            Val::Int(number) => Self::Whole((*number).into()),
            Val::Uint(number) => Self::Whole((*number).into()),
            Val::Double(number) if number.fract() == 0.0 && number.abs() < 1e30 => {
                Self::Whole(*number as i128)
            }
            Val::Double(number) => Self::Fraction(number.to_bits()),
            Val::Text(text) => Self::Text(text.clone()),
            _ => return None,
        })
    }
}

impl<'a> Entries<'a> {
    /// The value of a key.
    pub fn get(&self, key: &Val<'a>) -> Option<&Val<'a>> {
        self.at(&Key::of(key)?)
    }

    fn at(&self, key: &Key<'_>) -> Option<&Val<'a>> {
        // A map of keys that live long is one of keys that live less long.
        let positions: &HashMap<Key<'_>, usize> = &self.positions;
        positions.get(key).and_then(|at| self.list.get(*at)).map(|(_, value)| value)
    }

    /// Adds an entry, in the place of one with the same key.
    ///
    /// # Errors
    /// When such values are no keys.
    pub fn insert(&mut self, key: Val<'a>, value: Val<'a>) -> Result<(), Failure> {
        match self.positions.entry(Key::of(&key).ok_or(Failure::NoOverload)?) {
            Entry::Occupied(known) => self.list[*known.get()].1 = value,
            Entry::Vacant(free) => {
                free.insert(self.list.len());
                self.list.push((key, value));
            }
        }
        Ok(())
    }

    pub fn iter(&self) -> impl Iterator<Item = &(Val<'a>, Val<'a>)> {
        self.list.iter()
    }
}

impl<'a> Object<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Json(map, _) => map.len(),
            Self::Owned(entries) => entries.list.len(),
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
            Self::Owned(entries) => entries.at(&Key::Text(Text::Borrowed(name))).cloned(),
        }
    }

    pub fn entry(&self, key: &Val<'a>) -> Option<Val<'a>> {
        match (self, key) {
            (Self::Json(map, node), Val::Text(name)) => {
                let schema = node.and_then(|node| node.member(name.as_str()));
                map.get(name.as_str()).map(|value| Val::of(value, schema))
            }
            (Self::Json(..), _) => None,
            (Self::Owned(entries), key) => entries.get(key).cloned(),
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

    /// All keys with their values.
    pub fn entries(&self) -> impl Iterator<Item = (Val<'a>, Val<'a>)> + '_ {
        let (json, owned) = match self {
            Self::Json(map, node) => (Some((*map, *node)), None),
            Self::Owned(entries) => (None, Some(entries.iter().cloned())),
        };
        let read = json.into_iter().flat_map(|(map, node)| {
            map.iter().map(move |(name, value)| {
                let schema = node.and_then(|node| node.member(name));
                (Val::Text(Text::Borrowed(name.as_str())), Val::of(value, schema))
            })
        });
        read.chain(owned.into_iter().flatten())
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
            Format::DateTime | Format::Date | Format::Duration if text.len() > TIME_MAX => None,
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
            Self::Map(Object::Owned(entries)) => entries.list.len(),
            Self::Struct(made) => made.fields.len(),
            _ => 0,
        };
        1 + size as u64
    }

    /// Bytes of what is read when it is compared or printed, besides what is in it.
    pub fn length(&self) -> usize {
        match self {
            Self::Text(text) | Self::Url(text) => text.as_str().len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::Semver(version) => version.length(),
            Self::Access(access) => access.length(),
            Self::Decision(decision) => decision.reason.len(),
            _ => 0,
        }
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

/// What it costs to read a value of an object as a whole.
pub fn json_weight(value: &Value) -> usize {
    1 + match value {
        Value::String(text) => text.len() / 10,
        Value::Array(list) => list.iter().map(json_weight).sum(),
        Value::Object(map) => map.values().map(json_weight).sum(),
        _ => 0,
    }
}
