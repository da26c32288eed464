//! Field selectors: `metadata.name=web,status.phase!=Running` (`k8s.io/apimachinery/pkg/fields`).

use std::fmt;

use crate::kind::KindRow;
use crate::labels::SelectorError;

/// One requirement on a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub field: String,
    pub value: String,
    pub equal: bool,
}

/// All requirements must match; none: everything matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(pub Vec<Requirement>);

impl Selector {
    /// Selects objects with this value in this field.
    pub fn equal(field: &str, value: &str) -> Self {
        Self(vec![Requirement { field: field.to_owned(), value: value.to_owned(), equal: true }])
    }

    /// Parses the text format; `\` escapes `,`, `=` and itself in values.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for term in split_unescaped(text, ',').into_iter().filter(|term| !term.is_empty()) {
            let Some(at) = find_unescaped(term, '=') else {
                return Err(SelectorError(format!(
                    "invalid selector: '{text}'; can't understand '{term}'"
                )));
            };
            let (left, right) = (&term[..at], &term[at + 1..]);
            let (field, equal) = match left.strip_suffix('!') {
                Some(field) => (field, false),
                None => (left, true),
            };
            let value = if equal { right.strip_prefix('=').unwrap_or(right) } else { right };
            requirements.push(Requirement {
                field: field.to_owned(),
                value: unescape(value)?,
                equal,
            });
        }
        Ok(Self(requirements))
    }

    /// Refuses fields that the kind does not support in selectors.
    pub fn check(&self, row: &KindRow) -> Result<(), SelectorError> {
        let selectable = match &row.custom {
            Some(custom) => &custom.selectable[..],
            None => &row.selectable,
        };
        for requirement in &self.0 {
            let field = requirement.field.as_str();
            let known = field == "metadata.name"
                || (field == "metadata.namespace" && row.namespaced())
                || selectable.iter().any(|known| known == field);
            // Upstream words it differently for kinds with selectable fields of their own.
            if !known && selectable.is_empty() {
                let fields = ["metadata.name", "metadata.namespace"];
                return Err(SelectorError(format!(
                    "{field:?} is not a known field selector: only {:?}, {:?}",
                    fields[0], fields[1]
                )));
            }
            if !known {
                return Err(SelectorError(format!("field label not supported: {field}")));
            }
        }
        Ok(())
    }

    /// Matches, with fields looked up by `get`; a missing field is the empty string.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> &'a str) -> bool {
        self.0
            .iter()
            .all(|requirement| (get(&requirement.field) == requirement.value) == requirement.equal)
    }

    /// The value that `field` must equal, if the selector requires one.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|requirement| requirement.equal && requirement.field == field)
            .map(|requirement| requirement.value.as_str())
    }

    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let sign = if requirement.equal { "=" } else { "!=" };
            let value =
                requirement.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{comma}{}{sign}{value}", requirement.field)?;
        }
        Ok(())
    }
}

fn find_unescaped(text: &str, wanted: char) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(index, character)| {
        let hit = !escaped && character == wanted;
        escaped = !escaped && character == '\\';
        hit.then_some(index)
    })
}

fn split_unescaped(mut text: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    while let Some(at) = find_unescaped(text, separator) {
        parts.push(&text[..at]);
        text = &text[at + separator.len_utf8()..];
    }
    parts.push(text);
    parts
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(next @ ('\\' | ',' | '=')) => out.push(next),
                _ => {
                    return Err(SelectorError(format!(
                        "invalid field selector: invalid escape sequence in value: {value}"
                    )));
                }
            },
            ',' | '=' => {
                return Err(SelectorError(format!(
                    "invalid field selector: unescaped character in value: {character}"
                )));
            }
            other => out.push(other),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn selectors_match_and_print_as_written() {
        let selector = Selector::parse(r"metadata.name==a\,b,status.phase!=Running").unwrap();
        assert!(selector.matches(|field| if field == "metadata.name" { "a,b" } else { "Pending" }));
        assert!(!selector.matches(|_| "Running"));
        assert_eq!(selector.to_string(), r"metadata.name=a\,b,status.phase!=Running");
        assert_eq!(selector.exact("metadata.name"), Some("a,b"));
        assert!(Selector::parse("nonsense").is_err());
        assert!(Selector::parse(r"a=\x").is_err());
    }

    #[test]
    fn unknown_fields_are_refused() {
        let row = k8s_openapi::api::core::v1::Pod::ROW;
        assert!(Selector::parse("spec.nodeName=n").unwrap().check(row).is_ok());
        let error = Selector::parse("spec.foo=n").unwrap().check(row).unwrap_err();
        assert_eq!(error.to_string(), "field label not supported: spec.foo");
    }
}
