//! Duplicate fields within one object of a JSON text, which serde would ignore.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// The paths of duplicate fields (`spec.foo`, `spec.containers[0].name`), in order of occurrence.
/// Text that is not JSON has none.
pub fn find(json: &[u8]) -> Vec<String> {
    let mut found = Found::default();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let walk = Walk { path: &mut String::new(), found: &mut found };
    if walk.deserialize(&mut deserializer).is_err() {
        return Vec::new();
    }
    found.0
}

/// What was found, in order, each once.
#[derive(Default)]
struct Found(Vec<String>, HashSet<String>);

struct Walk<'a> {
    path: &'a mut String,
    found: &'a mut Found,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

macro_rules! scalars {
    ($($name:ident: $ty:ty),*) => { $(fn $name<E>(self, _: $ty) -> Result<(), E> { Ok(()) })* };
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    scalars!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let length = self.path.len();
        for index in 0_usize.. {
            self.path.push_str(&format!("[{index}]"));
            let item = Walk { path: &mut *self.path, found: &mut *self.found };
            let more = items.next_element_seed(item)?.is_some();
            self.path.truncate(length);
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let length = self.path.len();
        let mut seen = HashSet::new();
        while let Some(key) = members.next_key::<String>()? {
            if length > 0 {
                self.path.push('.');
            }
            self.path.push_str(&key);
            if !seen.insert(key) && self.found.1.insert(self.path.clone()) {
                self.found.0.push(self.path.clone());
            }
            members.next_value_seed(Walk { path: &mut *self.path, found: &mut *self.found })?;
            self.path.truncate(length);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn duplicates_are_named_by_path() {
        let json = br#"{"a":1,"b":{"c":[{"d":1,"d":2}],"e":null},"a":{"x":[],"x":[]}}"#;
        assert_eq!(super::find(json), ["b.c[0].d", "a", "a.x"]);
        assert!(super::find(b"{").is_empty());
    }
}
