//! Rules of `ObjectMeta` for all kinds (`k8s.io/apiserver/pkg/registry/rest` and
//! `k8s.io/apimachinery/pkg/api/validation`).

use api::status::FieldError;
use api::{ApiError, KindRow, ObjectMeta, names, owners};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rand::RngExt;

use crate::core::Call;
use crate::kinds::Strategy;
use crate::request::Target;

/// Maximum total size of an object's annotations, in bytes.
const MAX_ANNOTATIONS_BYTES: usize = 256 << 10;
/// Longest part of `generateName` that is kept before the suffix.
const MAX_GENERATED_BASE: usize = 58;
const SUFFIX_LENGTH: usize = 5;
/// Letters of generated names: no vowels, so that they never spell a word.
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

pub const FOREGROUND: &str = "foregroundDeletion";
/// Finalizers that need no domain.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", ORPHAN, FOREGROUND];
pub const ORPHAN: &str = "orphan";

/// `base` and five random characters.
pub fn generated_name(base: &str) -> String {
    let mut end = base.len().min(MAX_GENERATED_BASE);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &base[..end], random_suffix())
}

/// Five random characters.
pub fn random_suffix() -> String {
    let mut rng = rand::rng();
    (0..SUFFIX_LENGTH)
        .map(|_| char::from(SUFFIX_ALPHABET[rng.random_range(0..SUFFIX_ALPHABET.len())]))
        .collect()
}

/// Completes a body's namespace and name from the request's path.
///
/// # Errors
/// 400 when they contradict it.
pub fn place(metadata: &mut ObjectMeta, target: &Target) -> Result<(), ApiError> {
    if target.row.namespaced() {
        match metadata.namespace.as_deref() {
            None | Some("") => metadata.namespace = Some(target.namespace.clone()),
            Some(namespace) if namespace == target.namespace => {}
            Some(_) => {
                return Err(ApiError::bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
        }
    } else {
        metadata.namespace = None;
    }
    if !target.name.is_empty() {
        match metadata.name.as_deref() {
            None | Some("") => metadata.name = Some(target.name.clone()),
            Some(name) if name == target.name => {}
            Some(name) => {
                return Err(ApiError::bad_request(format!(
                    "the name of the object ({name}) does not match the name on the URL ({})",
                    target.name
                )));
            }
        }
    }
    Ok(())
}

/// Removes the fields of a new object that only the server decides.
///
/// # Errors
/// 400 for a resourceVersion.
pub fn clear_new(metadata: &mut ObjectMeta) -> Result<(), ApiError> {
    if metadata.resource_version.as_deref().is_some_and(|version| !version.is_empty()) {
        return Err(ApiError::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    metadata.resource_version = None;
    metadata.uid = None;
    metadata.creation_timestamp = None;
    metadata.deletion_timestamp = None;
    metadata.deletion_grace_period_seconds = None;
    metadata.self_link = None;
    metadata.generation = None;
    Ok(())
}

/// Sets the fields of a new object that only the server decides, and its name if it has none.
/// Called after the mutating plugins, which do not see them yet.
pub fn fill_new(metadata: &mut ObjectMeta, now: Timestamp) {
    metadata.uid = Some(uuid::Uuid::new_v4().to_string());
    metadata.creation_timestamp = Some(Time(whole_seconds(now)));
    if metadata.name.as_deref().unwrap_or_default().is_empty()
        && let Some(base) = metadata.generate_name.as_deref().filter(|base| !base.is_empty())
    {
        metadata.name = Some(generated_name(base));
    }
}

/// Timestamps of metadata have no fractions.
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Keeps what an update leaves out or cannot change.
pub fn carry_over(new: &mut ObjectMeta, old: &ObjectMeta) {
    new.generation = old.generation;
    new.self_link = None;
    if new.uid.as_deref().unwrap_or_default().is_empty() {
        new.uid.clone_from(&old.uid);
    }
    if old.creation_timestamp.is_some() {
        new.creation_timestamp.clone_from(&old.creation_timestamp);
    }
    if new.generate_name.is_none() {
        new.generate_name.clone_from(&old.generate_name);
    }
    if old.deletion_timestamp.is_some() {
        new.deletion_timestamp.clone_from(&old.deletion_timestamp);
    }
    if new.deletion_grace_period_seconds.is_none() {
        new.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    }
}

/// Keeps one of references to owners that are equal in all; warns the client. `admitted`: after the
/// mutating plugins.
pub fn deduplicate_owners(call: Call<'_>, metadata: &mut ObjectMeta, admitted: bool) {
    let duplicates = metadata.owner_references.as_mut().map(owners::deduplicate);
    let Some(duplicates) = duplicates.filter(|duplicates| !duplicates.is_empty()) else {
        return;
    };
    let when = if admitted { " after mutating admission happens" } else { "" };
    call.options.notes.add(format!(
        ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
        duplicates.join(", ")
    ));
}

/// What is wrong with the metadata of an object that is about to be written.
pub fn validate(row: &KindRow, strategy: &dyn Strategy, metadata: &ObjectMeta) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(base) = metadata.generate_name.as_deref().filter(|base| !base.is_empty()) {
        // The base is valid if a name that extends it is.
        for problem in strategy.validate_name(&format!("{}x", base.trim_end_matches('-'))) {
            errors.push(FieldError::invalid("metadata.generateName", base, problem));
        }
    }
    match metadata.name.as_deref().unwrap_or_default() {
        "" => {
            errors.push(FieldError::required("metadata.name", "name or generateName is required"))
        }
        name => {
            for problem in strategy.validate_name(name) {
                errors.push(FieldError::invalid("metadata.name", name, problem));
            }
        }
    }
    if row.namespaced() {
        match metadata.namespace.as_deref().unwrap_or_default() {
            "" => errors.push(FieldError::required("metadata.namespace", "")),
            namespace => {
                for problem in names::dns_label(namespace) {
                    errors.push(FieldError::invalid("metadata.namespace", namespace, problem));
                }
            }
        }
    }
    validate_maps(metadata, &mut errors);
    if let Some(owners) = &metadata.owner_references {
        owners::validate(owners, "metadata.ownerReferences", &mut errors);
    }
    for (index, finalizer) in metadata.finalizers.iter().flatten().enumerate() {
        for problem in names::qualified_name(finalizer) {
            errors.push(FieldError::invalid("metadata.finalizers", finalizer, problem));
        }
        if !strategy.any_finalizer() && needs_domain(finalizer) {
            errors.push(FieldError::invalid(
                format!("metadata.finalizers[{index}]"),
                finalizer,
                "name is neither a standard finalizer name nor is it fully qualified",
            ));
        }
    }
    let has = |wanted: &str| {
        let mut all = metadata.finalizers.iter().flatten();
        all.any(|finalizer| finalizer == wanted)
    };
    if has(FOREGROUND) && has(ORPHAN) {
        errors.push(FieldError::invalid(
            "metadata.finalizers",
            &metadata.finalizers,
            format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set"),
        ));
    }
    errors
}

/// Whether a finalizer may collide with that of somebody else.
pub fn needs_domain(finalizer: &str) -> bool {
    !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(&finalizer)
}

/// Labels and annotations.
pub fn validate_maps(metadata: &ObjectMeta, errors: &mut Vec<FieldError>) {
    for (key, value) in metadata.labels.iter().flatten() {
        for problem in names::qualified_name(key) {
            errors.push(FieldError::invalid("metadata.labels", key, problem));
        }
        for problem in names::label_value(value) {
            errors.push(FieldError::invalid("metadata.labels", value, problem));
        }
    }
    let mut size = 0;
    for (key, value) in metadata.annotations.iter().flatten() {
        for problem in names::qualified_name(&key.to_lowercase()) {
            errors.push(FieldError::invalid("metadata.annotations", key, problem));
        }
        size += key.len() + value.len();
    }
    if size > MAX_ANNOTATIONS_BYTES {
        errors.push(FieldError::too_long("metadata.annotations", MAX_ANNOTATIONS_BYTES));
    }
}

/// Changes of the metadata that an update may not make.
pub fn validate_update(new: &ObjectMeta, old: &ObjectMeta) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let immutable = "field is immutable";
    if new.uid != old.uid {
        errors.push(FieldError::invalid("metadata.uid", &new.uid, immutable));
    }
    if new.creation_timestamp != old.creation_timestamp {
        errors.push(FieldError::invalid(
            "metadata.creationTimestamp",
            &new.creation_timestamp,
            immutable,
        ));
    }
    if new.deletion_timestamp != old.deletion_timestamp {
        errors.push(FieldError::invalid(
            "metadata.deletionTimestamp",
            &new.deletion_timestamp,
            immutable,
        ));
    }
    if new.deletion_grace_period_seconds != old.deletion_grace_period_seconds {
        errors.push(FieldError::invalid(
            "metadata.deletionGracePeriodSeconds",
            new.deletion_grace_period_seconds,
            immutable,
        ));
    }
    if old.deletion_timestamp.is_some() {
        let before = old.finalizers.as_deref().unwrap_or_default();
        let added: Vec<_> =
            new.finalizers.iter().flatten().filter(|name| !before.contains(name)).collect();
        if !added.is_empty() {
            errors.push(FieldError::forbidden(
                "metadata.finalizers",
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    added.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
                ),
            ));
        }
    }
    errors
}

/// Whether something other than the API server still has to finish before the object can be
/// removed.
pub fn has_finalizers(metadata: &ObjectMeta) -> bool {
    metadata.finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_keep_their_base() {
        let name = generated_name("web-");
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert_eq!(generated_name(&"x".repeat(80)).len(), 63);
        assert!(generated_name(&"ü".repeat(40)).len() <= 63);
    }
}
