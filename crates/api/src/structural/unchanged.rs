//! Whether an object is read as it is stored: nothing to prune, no default or null missing.
//!
//! Nearly all stored objects are, and to find that out they are scanned without being built. A
//! scan that stops, for whichever reason, only means that the object has to be read in full.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::node::Node;
use super::prune::{META_FIELDS, member_schema};

/// Whether pruning and defaulting leave an object alone, whose `apiVersion` is this.
pub fn is_read_as_stored(json: &[u8], root: &Node, api_version: &str) -> bool {
    let mut text = serde_json::Deserializer::from_slice(json);
    let scan = Scan { node: Some(root), api_version: Some(api_version) };
    scan.deserialize(&mut text).is_ok() && text.end().is_ok()
}

/// A value with its schema: `None` where nothing is known. `api_version`: it is a whole object.
#[derive(Clone, Copy)]
struct Scan<'a> {
    node: Option<&'a Node>,
    api_version: Option<&'a str>,
}

/// Whether a value is null.
type IsNull = bool;

impl<'de> DeserializeSeed<'de> for Scan<'_> {
    type Value = IsNull;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<IsNull, D::Error> {
        deserializer.deserialize_any(self)
    }
}

fn differs<E: Error>() -> E {
    E::custom("it is read differently")
}

impl<'de> Visitor<'de> for Scan<'_> {
    type Value = IsNull;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<IsNull, E> {
        Ok(true)
    }

    fn visit_bool<E>(self, _: bool) -> Result<IsNull, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<IsNull, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<IsNull, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<IsNull, E> {
        Ok(false)
    }

    fn visit_str<E>(self, _: &str) -> Result<IsNull, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<IsNull, A::Error> {
        let items = self.node.and_then(|node| node.items.as_deref());
        // Without a schema nothing of the elements is kept, unless everything is.
        if items.is_none() && self.node.is_some_and(|node| node.preserve_unknown) {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(false);
        }
        let lacks_default = items.is_some_and(|items| !items.nullable && items.default.is_some());
        let element = Scan { node: items, api_version: None };
        while let Some(is_null) = list.next_element_seed(element)? {
            if is_null && lacks_default {
                return Err(differs());
            }
        }
        Ok(false)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<IsNull, A::Error> {
        if self.node.is_some_and(|node| node.embedded) {
            return Err(differs());
        }
        let mut with_default = 0;
        while let Some(member) = map.next_key_seed(Name(self))? {
            match member {
                Member::ApiVersion(expected) => {
                    map.next_value_seed(Text(expected))?;
                }
                Member::Ignored => {
                    map.next_value::<IgnoredAny>()?;
                }
                Member::Known { node, has_default } => {
                    let is_null = map.next_value_seed(Scan { node, api_version: None })?;
                    if is_null && node.is_some_and(|node| !node.nullable) {
                        return Err(differs());
                    }
                    with_default += usize::from(has_default);
                }
                Member::Unknown => return Err(differs()),
            }
        }
        let has_default = |node: &&Node| node.default.is_some();
        let wanted = self
            .node
            .map_or(0, |node| node.properties().map(|(_, node)| node).filter(has_default).count());
        if with_default == wanted { Ok(false) } else { Err(differs()) }
    }
}

/// What the name of an object's member says about its value.
enum Member<'a> {
    ApiVersion(&'a str),
    /// It may be anything.
    Ignored,
    /// `has_default`: it is a property that has a default.
    Known {
        node: Option<&'a Node>,
        has_default: bool,
    },
    Unknown,
}

struct Name<'a>(Scan<'a>);

impl<'de, 'a> DeserializeSeed<'de> for Name<'a> {
    type Value = Member<'a>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Member<'a>, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl<'a> Visitor<'_> for Name<'a> {
    type Value = Member<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Member<'a>, E> {
        let Self(Scan { node, api_version }) = self;
        if let Some(api_version) = api_version {
            if name == "apiVersion" {
                return Ok(Member::ApiVersion(api_version));
            }
            if META_FIELDS.contains(&name) {
                return Ok(Member::Ignored);
            }
        }
        let Some(node) = node else {
            return Ok(Member::Unknown);
        };
        Ok(match member_schema(node, name) {
            Some(below) => {
                let has_default = node.property(name).is_some_and(|node| node.default.is_some());
                Member::Known { node: below, has_default }
            }
            None if node.preserve_unknown => Member::Ignored,
            None => Member::Unknown,
        })
    }
}

/// A text that has to be this one.
struct Text<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Text<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Text<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if text == self.0 { Ok(()) } else { Err(differs()) }
    }
}
