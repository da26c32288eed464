//! Validation of workloads' statuses: consistent numbers.

use api::names;
use api::status::FieldError;
use serde_json::Value;

use super::check::{self, Errors};
use super::path::Path;
use super::table::{self, Check, Row};

/// Counts of a status; `observed`: its `observedGeneration`. None may be negative; the counts
/// before `replicas` in the list stand alone, those after it may not exceed it, nor `available`
/// exceed `ready`.
pub fn replicas(
    counts: &[(&'static str, Option<i32>)],
    observed: Option<i64>,
    ready: &str,
) -> Vec<FieldError> {
    let path = Path::new("status");
    let mut errors = not_negative(counts, observed);
    let of = |name: &str| {
        let found = counts.iter().find(|(field, _)| *field == name);
        found.and_then(|(_, count)| *count).unwrap_or_default()
    };
    let parts = counts.iter().skip_while(|(field, _)| *field != "replicas").skip(1);
    let mut more = |field: &str, than: i32, problem: String| {
        if of(field) > than {
            errors.push(FieldError::invalid(path.child(field), of(field), problem));
        }
    };
    for (field, _) in parts {
        let problem = "cannot be greater than status.replicas".to_owned();
        more(field, of("replicas"), problem);
    }
    let problem = format!("cannot be greater than {ready}");
    more("availableReplicas", of("readyReplicas"), problem);
    errors
}

/// What every condition has (`k8s.io/apimachinery/pkg/apis/meta/v1/validation`).
const CONDITION: &[Row] = &[
    ("type", Check::Text(names::qualified_name)),
    ("status", Check::OneOf(&["False", "True", "Unknown"])),
    ("observedGeneration", Check::AtLeast(0, "must be greater than or equal to zero")),
    ("lastTransitionTime", Check::Relation(a_time)),
    ("reason", Check::Required("must be set")),
    ("reason", Check::TextIfAny(reason)),
    ("reason", Check::MaxBytes(1024)),
    ("message", Check::MaxBytes(32 << 10)),
];

/// Conditions, each type once.
pub fn conditions(list: &Value, path: &Path, errors: &mut Errors) {
    let mut unique = check::Unique::default();
    for (index, condition) in list.as_array().into_iter().flatten().enumerate() {
        let path = path.index(index);
        let ty = condition["type"].as_str().unwrap_or_default();
        unique.insert(ty, &path.child("type"), errors);
        table::run(CONDITION, condition, &path, errors);
    }
}

fn a_time(time: &Value, path: &Path, errors: &mut Errors) {
    // What a missing time is decoded as.
    if matches!(time.as_str(), None | Some("1970-01-01T00:00:00Z")) {
        errors.push(FieldError::required(path, "must be set"));
    }
}

fn reason(reason: &str) -> Vec<String> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_,:".contains(&byte);
    let starts = reason.starts_with(|first: char| first.is_ascii_alphabetic());
    let ends = reason.ends_with(|last: char| last.is_ascii_alphanumeric() || last == '_');
    if starts && ends && reason.bytes().all(inner) {
        return Vec::new();
    }
    vec!["a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')".to_owned()]
}

/// Counts of a status that must not be negative.
pub fn not_negative(counts: &[(&'static str, Option<i32>)], observed: Option<i64>) -> Errors {
    let path = Path::new("status");
    let mut errors = Errors::new();
    check::not_negative(observed.unwrap_or(0), &path.child("observedGeneration"), &mut errors);
    for (field, count) in counts {
        check::not_negative(count.unwrap_or(0), &path.child(field), &mut errors);
    }
    errors
}

/// The collision count never decreases.
pub fn collisions(new: Option<i32>, old: Option<i32>) -> Errors {
    let path = Path::new("status").child("collisionCount");
    let mut errors = Errors::new();
    check::not_negative(new.unwrap_or(0), &path, &mut errors);
    if old.is_some_and(|old| new.is_none_or(|new| new < old)) {
        errors.push(FieldError::invalid(path, new, "cannot be decremented"));
    }
    errors
}
