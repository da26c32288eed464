//! Validation of values by a schema, with the errors that `k8s.io/kube-openapi` reports
//! (`validation/validate`) as `k8s.io/apiextensions-apiserver` translates them.
//!
//! Of `anyOf` and `oneOf` the errors of the alternative with the most passed checks are shown, so
//! passed checks are counted just as upstream counts them.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::correlate;
use super::format::Format;
use super::go;
use super::node::{Additional, Checks, Node, Type};
use super::numbers::{self, Decoded};
use super::path::Path;
use super::prune::META_FIELDS;
use crate::status::{FieldError, FieldErrorType};

/// Errors that are recorded for one value; upstream has no limit.
const ERRORS_MAX: usize = 1000;

/// Validates a value. `prefix` is the path of the value, which errors' fields begin with; `old` is
/// the value before an update.
pub fn validate(node: &Node, value: &Value, old: Option<&Value>, prefix: &str) -> Vec<FieldError> {
    let mut outcome = Outcome::default();
    Validator { prefix }.ratcheted(node, value, old, &Path::ROOT, &mut outcome);
    let mut seen = HashSet::new();
    outcome.errors.retain(|error| seen.insert(error.to_string()));
    outcome.errors
}

/// What was found.
#[derive(Default)]
struct Outcome {
    errors: Vec<FieldError>,
    /// Passed checks.
    matches: u64,
}

impl Outcome {
    fn push(&mut self, error: FieldError) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(error);
        }
    }

    fn merge(&mut self, other: Self) {
        self.matches += other.matches;
        other.errors.into_iter().for_each(|error| self.push(error));
    }
}

struct Validator<'a> {
    prefix: &'a str,
}

impl Validator<'_> {
    /// Errors of a value that an update does not change are dropped.
    fn ratcheted(
        &self,
        node: &Node,
        value: &Value,
        old: Option<&Value>,
        path: &Path<'_>,
        out: &mut Outcome,
    ) {
        let before = out.errors.len();
        self.value(node, value, old, path, out);
        if out.errors.len() > before && old.is_some_and(|old| correlate::equal(node, value, old)) {
            out.errors.truncate(before);
        }
    }

    fn value(
        &self,
        node: &Node,
        value: &Value,
        old: Option<&Value>,
        path: &Path<'_>,
        out: &mut Outcome,
    ) {
        let checks = node.checks.as_deref();
        let format = checks.and_then(|checks| checks.format.as_ref());
        if value.is_null() {
            self.null(node, path, out);
            return self.member_of_enum(checks, value, path, out);
        }
        if node.ty != Type::Any || format.is_some() {
            self.type_of(node, value, path, out);
            out.matches += 1;
        }
        // The validators that apply to every schema: alternatives (which pass themselves, too), enum.
        out.matches += 3;
        if let Some(checks) = checks {
            self.alternatives(checks, value, old, path, out);
        }
        match value {
            Value::String(text) => self.string(checks, text, path, out),
            Value::Number(number) => self.number(node, checks, Decoded::of(number), path, out),
            Value::Array(list) => self.list(node, list, old, path, out),
            _ => {}
        }
        self.member_of_enum(checks, value, path, out);
        if let Value::Object(map) = value {
            self.object(node, map, old, path, out);
            out.matches += 1;
        }
        out.matches += 1;
    }

    fn error(
        &self,
        kind: FieldErrorType,
        path: &Path<'_>,
        value: String,
        detail: String,
    ) -> FieldError {
        FieldError { kind, field: path.below(self.prefix), value, detail }
    }

    fn invalid(&self, path: &Path<'_>, value: String, detail: String) -> FieldError {
        self.error(FieldErrorType::Invalid, path, value, detail)
    }

    /// An error about the schema's logic, which has no path of its own.
    fn composite(&self, detail: String) -> FieldError {
        self.invalid(&Path::ROOT, "\"\"".to_owned(), detail)
    }

    fn of_type(&self, path: &Path<'_>, wanted: &str, found: &str) -> FieldError {
        let found = go::quoted(found);
        let detail = format!("{path} in body must be of type {wanted}: {found}");
        self.error(FieldErrorType::TypeInvalid, path, found, detail)
    }

    fn null(&self, node: &Node, path: &Path<'_>, out: &mut Outcome) {
        if node.ty == Type::Any || node.nullable {
            out.matches += 1;
        } else {
            out.push(self.of_type(path, node.ty.name(), "null"));
        }
    }

    fn type_of(&self, node: &Node, value: &Value, path: &Path<'_>, out: &mut Outcome) {
        let (found, found_format) = match value {
            Value::Null => ("null", ""),
            Value::Bool(_) => ("boolean", ""),
            Value::String(_) => ("string", ""),
            Value::Array(_) => ("array", ""),
            Value::Object(_) => ("object", ""),
            Value::Number(number) => match Decoded::of(number) {
                Decoded::Integer(_) => ("integer", "int64"),
                Decoded::Float(_) => ("number", "float64"),
            },
        };
        let whole = found == "number"
            && node.ty.has_integer()
            && value.as_f64().is_some_and(numbers::is_integer);
        let fits = node.ty.name().split(',').any(|name| name == found)
            || whole
            || (found == "integer" && node.ty == Type::Number);
        let is_text = matches!(value, Value::String(_) | Value::Array(_));
        let format = node.checks.as_deref().and_then(|checks| checks.format.as_ref());
        match format {
            Some((_, format)) if !is_text && !fits && **format != *found_format => {
                out.push(self.of_type(path, format, found_format));
            }
            Some(_) if is_text && !node.ty.has_integer() && node.ty != Type::Number => {
                out.matches += 1
            }
            _ if fits => out.matches += 1,
            _ => out.push(self.of_type(path, node.ty.name(), found)),
        }
    }

    fn string(&self, checks: Option<&Checks>, text: &str, path: &Path<'_>, out: &mut Outcome) {
        out.matches += 1;
        let Some(checks) = checks else {
            return;
        };
        if let Some(error) = self.text(checks, text, path) {
            out.push(error);
        }
        match &checks.format {
            None | Some((Format::Int32 | Format::Int64 | Format::Float | Format::Double, _)) => {}
            Some((format, name)) => {
                if !format.matches(text) {
                    out.push(self.of_type(path, name, text));
                }
                out.matches += 1;
            }
        }
    }

    /// The first of the checks of a string that fails.
    fn text(&self, checks: &Checks, text: &str, path: &Path<'_>) -> Option<FieldError> {
        let length = || i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
        if let Some(max) = checks.max_length.filter(|max| length() > *max) {
            return Some(FieldError {
                field: path.below(self.prefix),
                ..FieldError::too_long("", usize::try_from(max).unwrap_or_default())
            });
        }
        if let Some(min) = checks.min_length.filter(|min| length() < *min) {
            let detail = format!("{path} in body should be at least {min} chars long");
            return Some(self.invalid(path, go::quoted(text), detail));
        }
        let pattern = checks.pattern.as_deref()?;
        let shown = match pattern.regex() {
            Ok(regex) if regex.is_match(text) => return None,
            Ok(_) => pattern.text().to_owned(),
            Err(why) => format!("{}, but pattern is invalid: {why}", pattern.text()),
        };
        let detail = format!("{path} in body should match '{shown}'");
        Some(self.invalid(path, go::quoted(text), detail))
    }

    fn number(
        &self,
        node: &Node,
        checks: Option<&Checks>,
        number: Decoded,
        path: &Path<'_>,
        out: &mut Outcome,
    ) {
        out.matches += 2;
        let none = Checks::default();
        for refusal in numbers::check(number, node.ty, checks.unwrap_or(&none), path) {
            out.push(match refusal.about_value {
                true => self.invalid(path, number.text(), refusal.detail),
                false => self.composite(refusal.detail),
            });
        }
    }

    fn list(
        &self,
        node: &Node,
        list: &[Value],
        old: Option<&Value>,
        path: &Path<'_>,
        out: &mut Outcome,
    ) {
        if let Some(items) = node.items.as_deref() {
            let before = correlate::Elements::new(node, old);
            for (index, element) in list.iter().enumerate() {
                let old = before.as_ref().and_then(|before| before.get(element));
                self.ratcheted(items, element, old, &path.index(index), out);
            }
        }
        out.matches += 2;
        let Some(checks) = node.checks.as_deref() else {
            return;
        };
        let size = i64::try_from(list.len()).unwrap_or(i64::MAX);
        if let Some(min) = checks.min_items.filter(|min| size < *min) {
            let detail = format!("{path} in body should have at least {min} items");
            out.push(self.invalid(path, size.to_string(), detail));
        }
        if let Some(max) = checks.max_items.filter(|max| size > *max) {
            out.push(self.too_many(path, list.len(), max));
        }
        let mut seen = HashSet::new();
        if checks.unique_items && !list.iter().all(|element| seen.insert(element.to_string())) {
            let detail = format!("{path} in body shouldn't contain duplicates");
            out.push(self.invalid(path, "\"\"".to_owned(), detail));
        }
    }

    fn too_many(&self, path: &Path<'_>, actual: usize, max: i64) -> FieldError {
        let max = usize::try_from(max).unwrap_or_default();
        FieldError { field: path.below(self.prefix), ..FieldError::too_many("", actual, max) }
    }

    fn member_of_enum(
        &self,
        checks: Option<&Checks>,
        value: &Value,
        path: &Path<'_>,
        out: &mut Outcome,
    ) {
        let values = checks.map(|checks| checks.values.as_slice()).unwrap_or_default();
        if values.is_empty() || values.iter().any(|allowed| same(value, allowed)) {
            return;
        }
        let texts: Vec<String> = values
            .iter()
            .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            .collect();
        let texts: Vec<String> = texts.iter().map(|text| go::quoted(text)).collect();
        let detail = format!("supported values: {}", texts.join(", "));
        out.push(self.error(FieldErrorType::NotSupported, path, go::shown(value), detail));
    }

    fn object(
        &self,
        node: &Node,
        map: &Map<String, Value>,
        old: Option<&Value>,
        path: &Path<'_>,
        out: &mut Outcome,
    ) {
        let checks = node.checks.as_deref();
        let size = i64::try_from(map.len()).unwrap_or(i64::MAX);
        if let Some(min) = checks.and_then(|checks| checks.min_properties).filter(|min| size < *min)
        {
            let detail = format!("{path} in body should have at least {min} properties");
            out.push(self.invalid(path, size.to_string(), detail));
        }
        if let Some(max) = checks.and_then(|checks| checks.max_properties).filter(|max| size > *max)
        {
            out.push(self.too_many(path, map.len(), max));
        }
        let old_member = |name: &str| {
            let is_type = path.is_root() && META_FIELDS[..2].contains(&name);
            correlate::member(node, old, name).filter(|_| !is_type)
        };
        match &node.additional {
            Some(Additional::Allowed(false)) => {
                for name in map.keys().filter(|name| node.property(name).is_none()) {
                    let detail = format!("{path}.{name} in body is a forbidden property");
                    out.push(self.invalid(path, go::quoted(name), detail));
                }
            }
            Some(Additional::Schema(schema)) => {
                for (name, member) in map.iter().filter(|(name, _)| node.property(name).is_none()) {
                    self.ratcheted(schema, member, old_member(name), &path.field(name), out);
                }
            }
            _ => {}
        }
        for (name, member) in map {
            if let Some(property) = node.property(name) {
                self.ratcheted(property, member, old_member(name), &path.field(name), out);
            }
        }
        let required = checks.map(|checks| checks.required.as_slice()).unwrap_or_default();
        for name in required.iter().filter(|name| !map.contains_key(*name)) {
            let path = path.field(name);
            out.push(self.error(FieldErrorType::Required, &path, String::new(), String::new()));
        }
    }

    fn alternatives(
        &self,
        checks: &Checks,
        value: &Value,
        old: Option<&Value>,
        path: &Path<'_>,
        out: &mut Outcome,
    ) {
        let judge = |node: &Node| {
            let mut outcome = Outcome::default();
            self.value(node, value, old, path, &mut outcome);
            outcome
        };
        if !checks.any_of.is_empty() {
            let mut best = None;
            let passed = checks.any_of.iter().map(judge).find_map(|outcome| {
                if outcome.errors.is_empty() {
                    return Some(outcome);
                }
                keep_best(&mut best, outcome);
                None
            });
            if passed.is_none() {
                let text = format!(
                    "{} must validate at least one schema (anyOf)",
                    go::quoted(&path.to_string())
                );
                out.push(self.composite(text));
            }
            passed.or(best).into_iter().for_each(|outcome| out.merge(outcome));
        }
        if !checks.one_of.is_empty() {
            self.one_of(checks.one_of.iter().map(judge), path, out);
        }
        let mut passed = 0;
        for outcome in checks.all_of.iter().map(judge) {
            passed += usize::from(outcome.errors.is_empty());
            out.merge(outcome);
        }
        if passed < checks.all_of.len() {
            let none = if passed == 0 { ". None validated" } else { "" };
            let text = format!(
                "{} must validate all the schemas (allOf){none}",
                go::quoted(&path.to_string())
            );
            out.push(self.composite(text));
        }
        if checks.not.as_deref().is_some_and(|not| judge(not).errors.is_empty()) {
            let text =
                format!("{} must not validate the schema (not)", go::quoted(&path.to_string()));
            out.push(self.composite(text));
        }
    }

    fn one_of(&self, outcomes: impl Iterator<Item = Outcome>, path: &Path<'_>, out: &mut Outcome) {
        let (mut best, mut first, mut passed) = (None, None, 0);
        for outcome in outcomes {
            if outcome.errors.is_empty() {
                passed += 1;
                best = None;
                first.get_or_insert(outcome);
            } else if passed == 0 {
                keep_best(&mut best, outcome);
            }
        }
        if passed == 1 {
            return first.into_iter().for_each(|outcome| out.merge(outcome));
        }
        let count = match passed {
            0 => "Found none valid".to_owned(),
            passed => format!("Found {passed} valid alternatives"),
        };
        let path = go::quoted(&path.to_string());
        let text = format!("{path} must validate one and only one schema (oneOf). {count}");
        out.push(self.composite(text));
        best.into_iter().for_each(|outcome| out.merge(outcome));
    }
}

/// Keeps the outcome with more passed checks, the first of equal ones.
fn keep_best(best: &mut Option<Outcome>, outcome: Outcome) {
    if best.as_ref().is_none_or(|best| outcome.matches > best.matches) {
        *best = Some(outcome);
    }
}

/// Whether a value is an enum's; numbers are converted to the type of the enum's first. A null is
/// none, even if the enum has it.
fn same(value: &Value, allowed: &Value) -> bool {
    match (value, allowed) {
        (Value::Null, _) => false,
        (Value::Number(value), Value::Number(allowed)) => {
            match (Decoded::of(value), Decoded::of(allowed)) {
                (Decoded::Float(value), Decoded::Integer(allowed)) => value as i64 == allowed,
                (value, Decoded::Float(allowed)) => value.as_float() == allowed,
                (value, allowed) => value == allowed,
            }
        }
        _ => value == allowed,
    }
}
