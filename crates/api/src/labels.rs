//! Label selectors: the text format of queries and the structured form inside objects
//! (`k8s.io/apimachinery/pkg/labels`).

mod parse;

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Decodes a `LabelSelector` from JSON.
pub fn decode_label_selector(json: &[u8]) -> Result<LabelSelector, serde_json::Error> {
    serde_json::from_slice(json)
}

/// One requirement on labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Requirement {
    Exists(String),
    NotExists(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    /// Greater or less than an integer: node affinity and text selectors.
    Greater(String, i64),
    Less(String, i64),
}

impl Requirement {
    pub fn matches(&self, get: impl Fn(&str) -> Option<String>) -> bool {
        let number = |key: &str| get(key).and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::Exists(key) => get(key).is_some(),
            Self::NotExists(key) => get(key).is_none(),
            Self::In(key, values) => get(key).is_some_and(|value| values.contains(&value)),
            Self::NotIn(key, values) => get(key).is_none_or(|value| !values.contains(&value)),
            Self::Greater(key, bound) => number(key).is_some_and(|value| value > *bound),
            Self::Less(key, bound) => number(key).is_some_and(|value| value < *bound),
        }
    }

    fn matches_map(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        let get = |key: &str| labels.and_then(|labels| labels.get(key));
        let number = |key: &str| get(key).and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::Exists(key) => get(key).is_some(),
            Self::NotExists(key) => get(key).is_none(),
            Self::In(key, values) => get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => get(key).is_none_or(|value| !values.contains(value)),
            Self::Greater(key, bound) => number(key).is_some_and(|value| value > *bound),
            Self::Less(key, bound) => number(key).is_some_and(|value| value < *bound),
        }
    }
}

/// All requirements must match; none: everything matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

/// Why a selector is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

impl Selector {
    /// Matches everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Matches nothing: the meaning of a missing `LabelSelector`.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    pub fn new(requirements: Vec<Requirement>) -> Self {
        Self { requirements, nothing: false }
    }

    /// `matchLabels` only: selectors of Services and ReplicationControllers.
    pub fn from_map(labels: &BTreeMap<String, String>) -> Self {
        Self::new(
            labels
                .iter()
                .map(|(key, value)| Requirement::In(key.clone(), vec![value.clone()]))
                .collect(),
        )
    }

    /// The selector inside an object. `None` matches nothing, an empty one everything.
    pub fn from_label_selector(selector: Option<&LabelSelector>) -> Result<Self, SelectorError> {
        let Some(selector) = selector else {
            return Ok(Self::nothing());
        };
        let mut all = Self::from_map(selector.match_labels.as_ref().unwrap_or(&BTreeMap::new()));
        for expression in selector.match_expressions.iter().flatten() {
            let key = expression.key.clone();
            let values = expression.values.clone().unwrap_or_default();
            all.requirements.push(match (expression.operator.as_str(), values.is_empty()) {
                ("In", false) => Requirement::In(key, values),
                ("NotIn", false) => Requirement::NotIn(key, values),
                ("Exists", true) => Requirement::Exists(key),
                ("DoesNotExist", true) => Requirement::NotExists(key),
                ("In" | "NotIn", true) => {
                    return Err(SelectorError(
                        "for 'in', 'notin' operators, values set can't be empty".into(),
                    ));
                }
                ("Exists" | "DoesNotExist", false) => {
                    return Err(SelectorError(
                        "values set must be empty for exists and does not exist".into(),
                    ));
                }
                (operator, _) => {
                    return Err(SelectorError(format!(
                        "{operator:?} is not a valid label selector operator"
                    )));
                }
            });
        }
        Ok(all)
    }

    /// Parses the text format: `a=b,c!=d,e in (f,g),!h,i>3`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = parse::parse(text)?;
        requirements.sort();
        Ok(Self::new(requirements))
    }

    pub fn matches(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        !self.nothing && self.requirements.iter().all(|requirement| requirement.matches_map(labels))
    }

    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match requirement {
                Requirement::Exists(key) => f.write_str(key)?,
                Requirement::NotExists(key) => write!(f, "!{key}")?,
                Requirement::In(key, values) if values.len() == 1 => {
                    write!(f, "{key}={}", values[0])?
                }
                Requirement::In(key, values) => write!(f, "{key} in ({})", values.join(","))?,
                Requirement::NotIn(key, values) if values.len() == 1 => {
                    write!(f, "{key}!={}", values[0])?
                }
                Requirement::NotIn(key, values) => write!(f, "{key} notin ({})", values.join(","))?,
                Requirement::Greater(key, bound) => write!(f, "{key}>{bound}")?,
                Requirement::Less(key, bound) => write!(f, "{key}<{bound}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }

    #[test]
    fn selectors_match_as_written() {
        let map = labels(&[("app", "web"), ("tier", "front"), ("n", "5")]);
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app in (web, api),tier notin (back)", true),
            ("missing notin (x)", true),
            ("!missing,app", true),
            ("n>4,n<6", true),
            ("app=api", false),
            ("!app", false),
            ("n>5", false),
        ] {
            let selector = Selector::parse(text).unwrap();
            assert_eq!(selector.matches(Some(&map)), expected, "{text}");
            assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector, "{text}");
        }
    }

    #[test]
    fn bad_selectors_are_refused() {
        for text in ["a=b,", "a in b", "a in (b", "=x", "a b", "a=b c", "a>x", ",", "a)"] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_missing_selector_matches_nothing_and_an_empty_one_everything() {
        assert!(!Selector::from_label_selector(None).unwrap().matches(None));
        assert!(
            Selector::from_label_selector(Some(&LabelSelector::default())).unwrap().matches(None)
        );
    }
}
