//! Duplicate fields within one object of a JSON text, which serde would ignore.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// The paths of duplicate fields (`spec.foo`, `spec.containers[0].name`), in order of occurrence.
/// Text that is not JSON has none.
pub fn find(json: &[u8]) -> Vec<String> {
    let mut duplicates = Duplicates::default();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let visitor = PathVisitor { path: &mut String::new(), duplicates: &mut duplicates };
    if visitor.deserialize(&mut deserializer).is_err() {
        return Vec::new();
    }
    duplicates.0
}

/// Paths found so far, in order, each once.
#[derive(Default)]
struct Duplicates(Vec<String>, HashSet<String>);

struct PathVisitor<'a> {
    path: &'a mut String,
    duplicates: &'a mut Duplicates,
}

impl<'de> DeserializeSeed<'de> for PathVisitor<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

macro_rules! scalars {
    ($($name:ident: $ty:ty),*) => { $(fn $name<E>(self, _: $ty) -> Result<(), E> { Ok(()) })* };
}

impl<'de> Visitor<'de> for PathVisitor<'_> {
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
            let item = PathVisitor { path: &mut *self.path, duplicates: &mut *self.duplicates };
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
            if !seen.insert(key) && self.duplicates.1.insert(self.path.clone()) {
                self.duplicates.0.push(self.path.clone());
            }
            members.next_value_seed(PathVisitor {
                path: &mut *self.path,
                duplicates: &mut *self.duplicates,
            })?;
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
