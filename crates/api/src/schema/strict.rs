//! What strict field validation refuses: fields that a kind does not have, and fields that occur
//! twice in one object; and whether there are zero values that Go takes for unset (see
//! [`zero`](super::zero)). One pass over the JSON along the schema finds all of it.
//!
//! A decoder that tracks fields (`serde_ignored`) is compiled once more for every type; this is one
//! function for all of them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::{self, Write};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::zero::{is_number, is_zero_float, is_zero_text};
use super::{Field, Ty, TypeRow};

/// Paths of fields (`spec.foo`, `spec.containers[0].bar`), each once and in the order of the text.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Problems {
    pub unknown: Vec<String>,
    pub duplicates: Vec<String>,
    /// Whether some field or element has another form than the one that is kept.
    pub zeros: bool,
}

/// The problems of an object whose definition is `row`; without one no field is unknown.
///
/// Text that is not JSON has none, and a value of another type than the schema's is not a problem
/// either: decoding reports both.
pub fn find(json: &[u8], row: Option<&'static TypeRow>) -> Problems {
    let mut walk = Walk::default();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let root = Node { walk: &mut walk, ty: Ty::Any, row, unset: Unset::Nothing };
    if root.deserialize(&mut deserializer).is_err() {
        return Problems::default();
    }
    walk.problems
}

#[derive(Default)]
struct Walk {
    /// Where the walk is; extended and cut back as it goes.
    path: String,
    problems: Problems,
    reported: HashSet<String>,
    /// Bytes of the paths in `problems`.
    recorded: usize,
}

/// Bytes of paths after which further problems are not recorded: a long name over many small fields would
/// otherwise cost its length for each of them.
const RECORDED_MAX: usize = 1 << 20;

impl Walk {
    /// Always for the first problem, so that none makes an object pass.
    fn has_room(&self) -> bool {
        self.recorded == 0 || self.recorded + self.path.len() <= RECORDED_MAX
    }

    /// The path, to be recorded.
    fn recorded(&mut self) -> String {
        self.recorded += self.path.len();
        self.path.clone()
    }
}

/// A value of type `ty`; `row` is its definition.
struct Node<'a> {
    walk: &'a mut Walk,
    ty: Ty,
    row: Option<&'static TypeRow>,
    unset: Unset,
}

/// Which values at a place are not in the form that is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unset {
    Nothing,
    /// Of a list or map: it has no absent elements.
    Null,
    /// Of a field that is not a pointer in Go.
    Zero,
}

impl<'a> Node<'a> {
    fn field(walk: &'a mut Walk, field: Option<&'static Field>) -> Self {
        let ty = field.map_or(Ty::Any, |field| field.ty);
        let optional = field.is_some_and(Field::has_zero);
        let unset = if optional { Unset::Zero } else { Unset::Nothing };
        Self { walk, ty, row: ty.definition(), unset }
    }

    fn element(walk: &'a mut Walk, ty: Ty) -> Self {
        let unset = if ty == Ty::Any { Unset::Nothing } else { Unset::Null };
        Self { walk, ty, row: ty.definition(), unset }
    }

    /// Notes a value that is or is not the zero of its type.
    fn zero(self, is_zero: bool) -> Found {
        self.walk.problems.zeros |= is_zero && self.unset == Unset::Zero;
        if is_zero { Found::Zero } else { Found::Other }
    }
}

/// What was found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Null,
    /// The zero value of its type.
    Zero,
    Other,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Found, E> {
        let is_zero = self.ty == Ty::Boolean && !flag;
        Ok(self.zero(is_zero))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Found, E> {
        let is_zero = number == 0 && is_number(self.ty);
        Ok(self.zero(is_zero))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Found, E> {
        let is_zero = number == 0 && is_number(self.ty);
        Ok(self.zero(is_zero))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Found, E> {
        let is_zero = is_zero_float(self.ty, number);
        Ok(self.zero(is_zero))
    }

    fn visit_str<E>(self, text: &str) -> Result<Found, E> {
        let is_zero = is_zero_text(self.ty, text);
        Ok(self.zero(is_zero))
    }

    fn visit_unit<E>(self) -> Result<Found, E> {
        self.walk.problems.zeros |= self.unset == Unset::Null;
        Ok(Found::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Found, A::Error> {
        let ty = match self.ty {
            Ty::Array(element) => *element,
            _ => Ty::Any,
        };
        let length = self.walk.path.len();
        for index in 0_usize.. {
            write!(self.walk.path, "[{index}]").map_err(serde::de::Error::custom)?;
            let next = elements.next_element_seed(Node::element(self.walk, ty))?;
            self.walk.path.truncate(length);
            if next.is_none() {
                let is_zero = index == 0 && matches!(self.ty, Ty::Array(_));
                return Ok(self.zero(is_zero));
            }
        }
        Ok(Found::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Found, A::Error> {
        let length = self.walk.path.len();
        let mut names = Names::default();
        let mut all_zero = true;
        while let Some(name) = members.next_key_seed(Name)? {
            if length > 0 {
                self.walk.path.push('.');
            }
            self.walk.path.push_str(&name);
            let field = self.row.and_then(|row| row.field(&name));
            let unknown = self.row.is_some() && field.is_none();
            let duplicate = !names.insert(name);
            if duplicate
                && self.walk.has_room()
                && self.walk.reported.insert(self.walk.path.clone())
            {
                let path = self.walk.recorded();
                self.walk.problems.duplicates.push(path);
            }
            if unknown && !duplicate && self.walk.has_room() {
                let path = self.walk.recorded();
                self.walk.problems.unknown.push(path);
            }
            let found = members.next_value_seed(match self.ty {
                Ty::Map(value) => Node::element(self.walk, *value),
                _ => Node::field(self.walk, field),
            })?;
            all_zero &= match found {
                Found::Null => field.is_some(),
                Found::Zero => field.is_some_and(|field| !field.pointer),
                Found::Other => false,
            };
            self.walk.path.truncate(length);
        }
        let is_zero = all_zero && matches!(self.ty, Ty::Ref(_) | Ty::Map(_));
        Ok(self.zero(is_zero))
    }
}

/// The names of one object's members.
#[derive(Default)]
struct Names<'de> {
    few: Vec<Cow<'de, str>>,
    /// All of them, once they are many.
    many: HashSet<Cow<'de, str>>,
}

/// From this many names on they are hashed.
const MANY: usize = 16;

impl<'de> Names<'de> {
    /// Whether the name is new.
    fn insert(&mut self, name: Cow<'de, str>) -> bool {
        if !self.many.is_empty() {
            return self.many.insert(name);
        }
        let new = !self.few.contains(&name);
        self.few.push(name);
        if self.few.len() == MANY {
            self.many.extend(self.few.drain(..));
        }
        new
    }
}

/// A member's name, borrowed from the text unless it has escapes.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::KINDS;

    fn pod(json: &str) -> Problems {
        find(json.as_bytes(), crate::schema::kind("", "v1", "Pod"))
    }

    #[test]
    fn unknown_fields_are_named_by_path() {
        let found = pod(r#"{"metadata":{"name":"a","x":1,"labels":{"y":"z"}},
            "spec":{"containers":[{"name":"c","foo":{"a":1}},{"env":[{"b":1}]}],"bar":[]},"s\u0070ec2":null}"#);
        let unknown = [
            "metadata.x",
            "spec.containers[0].foo",
            "spec.containers[1].env[0].b",
            "spec.bar",
            "spec2",
        ];
        assert_eq!(found.unknown, unknown);
        assert!(found.duplicates.is_empty());
        assert_eq!(pod(r#"{"spec":null,"metadata":[{"a":1}],"status":7}"#), Problems::default());
    }

    #[test]
    fn duplicates_are_named_by_path() {
        let json = br#"{"a":1,"b":{"c":[{"d":1,"d":2}],"e":null},"a":{"x":[],"x":[]}}"#;
        assert_eq!(find(json, None).duplicates, ["b.c[0].d", "a", "a.x"]);
        assert_eq!(find(b"{", None), Problems::default());
        let mut many: Vec<String> = (0..40).map(|index| format!("\"n{index}\":1")).collect();
        many.push("\"n3\":2".into());
        many.push("\"n30\":2".into());
        let json = format!("{{{}}}", many.join(","));
        assert_eq!(find(json.as_bytes(), None).duplicates, ["n3", "n30"]);
    }

    #[test]
    fn a_long_name_over_many_fields_costs_no_more_than_the_limit() {
        let long = "x".repeat(100_000);
        let fields: Vec<String> = (0..2000).map(|n| format!("\"f{n}\":1,\"f{n}\":2")).collect();
        let json = format!("{{\"{long}\":{{{}}}}}", fields.join(","));
        let found = find(json.as_bytes(), None).duplicates;
        assert!(!found.is_empty());
        assert!(found.iter().map(String::len).sum::<usize>() <= RECORDED_MAX);

        let longer = "x".repeat(RECORDED_MAX + 1);
        let found = pod(&format!("{{\"{longer}\":1}}"));
        assert_eq!(found.unknown.len(), 1, "a name beyond the limit is still unknown");
    }

    #[test]
    fn a_field_is_known_exactly_when_the_definition_has_it() {
        for kind in KINDS {
            let row = kind.schema().unwrap();
            let mut object: serde_json::Map<_, _> = row
                .fields
                .iter()
                .map(|field| (field.name.to_owned(), serde_json::json!({})))
                .collect();
            let find = |object: &_| find(&serde_json::to_vec(object).unwrap(), Some(row)).unknown;
            assert!(find(&object).is_empty(), "{kind}");
            object.insert("noSuchField".to_owned(), serde_json::json!([1]));
            assert_eq!(find(&object), ["noSuchField"], "{kind}");
        }
    }
}
