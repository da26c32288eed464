//! Validation of workloads' statuses: consistent numbers.

use api::names;
use serde::Serialize;
use serde_json::Value;

use super::at::At;
use super::check;
use super::table::{self, Check, Row, items, text_at, value};

/// As [`counts`]; in addition, those after `replicas` in the list may not exceed it, nor
/// `available` exceed `ready`.
pub fn replicas<S: Serialize>(new: &S, old: &S, fields: &[&str], ready: &str, at: &At<'_>) {
    let (status, at) = (value(new), at.child("status"));
    not_negative(&status, fields, &at);
    let of = |field: &str| status[field].as_i64().unwrap_or_default();
    for field in fields.iter().skip_while(|field| **field != "replicas").skip(1) {
        if of(field) > of("replicas") {
            at.child(field).invalid(of(field), "cannot be greater than status.replicas");
        }
    }
    let available = "availableReplicas";
    if of(available) > of("readyReplicas") {
        at.child(available).invalid(of(available), format!("cannot be greater than {ready}"));
    }
    collisions(&status, &value(old), &at);
}

/// Counts of a status that must not be negative. The count of collisions never decreases.
pub fn counts<S: Serialize>(new: &S, old: &S, fields: &[&str], at: &At<'_>) {
    let (status, at) = (value(new), at.child("status"));
    not_negative(&status, fields, &at);
    collisions(&status, &value(old), &at);
}

fn not_negative(status: &Value, fields: &[&str], at: &At<'_>) {
    for field in ["observedGeneration"].iter().chain(fields) {
        at.child(field).not_negative(status[*field].as_i64().unwrap_or_default());
    }
}

fn collisions(new: &Value, old: &Value, at: &At<'_>) {
    let (at, new, old) =
        (at.child("collisionCount"), &new["collisionCount"], &old["collisionCount"]);
    at.not_negative(new.as_i64().unwrap_or_default());
    if old.as_i64().is_some_and(|old| new.as_i64().is_none_or(|new| new < old)) {
        at.invalid(new, "cannot be decremented");
    }
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
pub fn conditions(list: &Value, at: &At<'_>) {
    let mut unique = check::Unique::default();
    for (index, condition) in items(list).iter().enumerate() {
        let at = at.index(index);
        let ty = text_at(condition, "type");
        unique.add(ty, &at.child("type"));
        table::run(CONDITION, condition, &at);
    }
}

fn a_time(time: &Value, at: &At<'_>) {
    // What a missing time is decoded as.
    if matches!(time.as_str(), None | Some("1970-01-01T00:00:00Z")) {
        at.required("must be set");
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
