//! Validation of workloads' statuses: consistent numbers.

use api::status::FieldError;

use super::check::{self, Errors};
use super::path::Path;

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
