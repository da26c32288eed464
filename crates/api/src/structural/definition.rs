//! CustomResourceDefinitions themselves: defaults and validation
//! (`k8s.io/apiextensions-apiserver`, `pkg/apis/apiextensions`).
//!
//! Kubernetes validates an internal form, in which what all versions have alike is moved to the
//! `spec`: errors about a schema that all versions share begin with `spec.validation`.

mod approval;
mod columns;
mod conversion;
mod defaults;
mod openapi;
mod schema;
mod shape;
#[cfg(test)]
mod tests;
mod warnings;

use serde_json::{Map, Value, json};

use super::go;
use crate::names;
use crate::status::FieldError;
pub use approval::{ANNOTATION as APPROVAL_ANNOTATION, Approval};
pub use conversion::{has_invalid_ca_bundle, webhook_service, webhook_url};
use schema::Schema;
pub use warnings::warnings;

/// The errors found so far.
type Errors = Vec<FieldError>;

/// Characters of a deprecation warning.
const WARNING_MAX: usize = 256;

/// Sets the defaults of a definition: names, conversion, stored versions.
pub fn default(definition: &mut Value) {
    let Some(spec) = definition.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    let names = spec.entry("names").or_insert_with(|| json!({}));
    if let Some(names) = names.as_object_mut() {
        let kind = text(names.get("kind")).to_owned();
        if text(names.get("singular")).is_empty() && !kind.is_empty() {
            names.insert("singular".to_owned(), kind.to_lowercase().into());
        }
        if text(names.get("listKind")).is_empty() && !kind.is_empty() {
            names.insert("listKind".to_owned(), format!("{kind}List").into());
        }
    }
    if spec.get("conversion").is_none_or(Value::is_null) {
        spec.insert("conversion".to_owned(), json!({"strategy": "None"}));
    }
    let service = definition.pointer_mut("/spec/conversion/webhook/clientConfig/service");
    if let Some(service) = service.and_then(Value::as_object_mut)
        && service.get("port").is_none_or(Value::is_null)
    {
        service.insert("port".to_owned(), 443.into());
    }
    let stored = definition.pointer("/status/storedVersions").and_then(Value::as_array);
    if stored.is_none_or(Vec::is_empty) {
        let storage = versions(definition).find(|version| flag(version.get("storage")));
        let name = storage.map(|version| text(version.get("name")).to_owned());
        if let (Some(name), Some(definition)) = (name, definition.as_object_mut()) {
            let status = definition.entry("status").or_insert_with(|| json!({}));
            if status.is_null() {
                *status = json!({});
            }
            if let Some(status) = status.as_object_mut() {
                status.insert("storedVersions".to_owned(), json!([name]));
            }
        }
    }
}

/// What is wrong with a definition but its metadata's general rules. `old`: before an update.
pub fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = &new["spec"];
    let name = text(new.pointer("/metadata/name"));
    let wanted = format!("{}.{}", text(spec.pointer("/names/plural")), text(spec.get("group")));
    if old.is_none() && name != wanted {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", name, detail));
    }
    let options = Options::of(new, old);
    validate_spec(spec, &options, &mut errors);
    if let Some(old) = old {
        immutable(new, old, &options, &mut errors);
    }
    names_of(&new["status"]["acceptedNames"], "status.acceptedNames", &mut errors);
    stored_versions(new, &mut errors);
    approval::validate(new, old, &mut errors);
    if flag(spec.get("preserveUnknownFields"))
        && !old.is_some_and(|old| flag(old["spec"].get("preserveUnknownFields")))
    {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(FieldError::invalid("spec.preserveUnknownFields", true, detail));
    }
    errors
}

/// What is wrong with a definition whose status is updated.
pub fn validate_status(new: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    names_of(&new["status"]["acceptedNames"], "status.acceptedNames", &mut errors);
    errors
}

/// How strictly a definition is judged: what the old one got wrong already may stay.
struct Options {
    established: bool,
    recognized_review_version: bool,
    requires_schema: bool,
    valid_types: bool,
    structural: bool,
    pruned_defaults: bool,
    atomic_sets: bool,
    map_keys: bool,
    allow_invalid_ca_bundle: bool,
    /// Versions whose selectable fields were too many before, and are unchanged.
    too_many_selectable: Vec<String>,
    /// Versions whose schemas are those of the old definition.
    unchanged: Vec<String>,
}

impl Options {
    fn of(new: &Value, old: Option<&Value>) -> Self {
        let established = old.is_some_and(is_established);
        let any = |wrong: fn(Schema<'_>) -> bool| {
            old.into_iter().flat_map(schemas).any(|schema| schema.any(&wrong))
        };
        let preserves = flag(new["spec"].get("preserveUnknownFields"));
        let extended = schemas(new).any(|schema| schema.any(&openapi::is_extended));
        Self {
            established,
            recognized_review_version: old.is_none_or(conversion::had_recognized_version),
            requires_schema: old
                .is_none_or(|old| versions(old).all(|version| schema_of(version).is_some())),
            valid_types: !any(openapi::has_invalid_type),
            structural: !preserves
                || extended
                || !old.into_iter().flat_map(schemas).any(shape::is_wrong),
            pruned_defaults: !old.into_iter().flat_map(schemas).any(defaults::are_unpruned),
            atomic_sets: !any(openapi::has_granular_set),
            map_keys: !any(openapi::has_loose_map_keys),
            allow_invalid_ca_bundle: !established
                || old.is_some_and(conversion::has_invalid_ca_bundle),
            too_many_selectable: columns::too_many_before(new, old),
            unchanged: unchanged(new, old),
        }
    }
}

/// The names of the versions whose schemas an update leaves as they are.
fn unchanged(new: &Value, old: Option<&Value>) -> Vec<String> {
    let name = |version: &Value| text(version.get("name")).to_owned();
    let is_same = |version: &&Value| {
        let mut before = old.into_iter().flat_map(versions);
        before.any(|old| name(old) == name(version) && old.get("schema") == version.get("schema"))
    };
    versions(new).filter(is_same).map(name).collect()
}

/// The versions of a definition.
fn versions(definition: &Value) -> impl Iterator<Item = &Value> {
    definition.pointer("/spec/versions").and_then(Value::as_array).into_iter().flatten()
}

/// The schema of a version, if it has one.
fn schema_of(version: &Value) -> Option<Schema<'_>> {
    let schema = version.pointer("/schema/openAPIV3Schema")?;
    (!schema.is_null()).then_some(Schema(schema))
}

fn schemas(definition: &Value) -> impl Iterator<Item = Schema<'_>> {
    versions(definition).filter_map(schema_of)
}

fn is_established(definition: &Value) -> bool {
    let conditions = definition.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| {
        text(condition.get("type")) == "Established" && text(condition.get("status")) == "True"
    })
}

fn text(value: Option<&Value>) -> &str {
    value.and_then(Value::as_str).unwrap_or_default()
}

fn flag(value: Option<&Value>) -> bool {
    value.and_then(Value::as_bool).unwrap_or_default()
}

/// An invalid value, printed as Go does.
fn invalid(field: impl Into<String>, value: &Value, detail: impl Into<String>) -> FieldError {
    FieldError { value: go::shown(value), ..FieldError::invalid(field, "", detail) }
}

/// A name that is set must be a DNS label.
fn label(value: &str, field: String, errors: &mut Errors) {
    let problems = names::dns_1035_label(value);
    if !problems.is_empty() {
        errors.push(FieldError::invalid(field, value, problems.join(",")));
    }
}

/// Parts of the versions that Kubernetes moves to the `spec` if all versions have the same.
struct Shared<'a> {
    schema: Option<Option<&'a Value>>,
    subresources: Option<Option<&'a Value>>,
    columns: Option<Option<&'a Value>>,
    selectable: Option<Option<&'a Value>>,
}

impl<'a> Shared<'a> {
    fn of(versions: &'a [Value]) -> Self {
        let set = |value: &&Value| !value.is_null() && !value.as_array().is_some_and(Vec::is_empty);
        let shared = |name: &str| {
            let first = versions.first()?.get(name).filter(set);
            let same = versions.iter().all(|version| version.get(name).filter(set) == first);
            same.then_some(first)
        };
        Self {
            schema: shared("schema"),
            subresources: shared("subresources"),
            columns: shared("additionalPrinterColumns"),
            selectable: shared("selectableFields"),
        }
    }
}

fn has_status(subresources: Option<&Value>) -> bool {
    subresources.and_then(|all| all.get("status")).is_some_and(|status| !status.is_null())
}

fn validate_spec(spec: &Value, options: &Options, errors: &mut Errors) {
    group_and_scope(spec, errors);
    let none = Vec::new();
    let versions = spec.get("versions").and_then(Value::as_array).unwrap_or(&none);
    if options.requires_schema || !flag(spec.get("preserveUnknownFields")) {
        for (index, version) in versions.iter().enumerate() {
            let field = format!("spec.versions[{index}].schema.openAPIV3Schema");
            if schema_of(version).is_some() {
                continue;
            }
            if options.requires_schema {
                errors.push(FieldError::required(field, ""));
            } else if flag(version.get("served")) {
                errors.push(FieldError::required(field, "because otherwise all fields are pruned"));
            }
        }
    }
    let shared = Shared::of(versions);
    let mut seen = std::collections::HashSet::new();
    let mut unique = true;
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        unique &= seen.insert(text(version.get("name")));
        label(text(version.get("name")), format!("{path}.name"), errors);
        validate_version(version, &shared, &path, options, errors);
    }
    let all = spec.get("versions").unwrap_or(&Value::Null);
    if !unique {
        errors.push(invalid("spec.versions", all, "must contain unique version names"));
    }
    if versions.iter().filter(|version| flag(version.get("storage"))).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.push(invalid("spec.versions", all, detail));
    }
    if let Some(first) = versions.first().map(|version| text(version.get("name")))
        && !first.is_empty()
    {
        label(first, "spec.version".to_owned(), errors);
    }
    for name in ["plural", "singular", "kind", "listKind"] {
        if text(spec["names"].get(name)).is_empty() {
            errors.push(FieldError::required(format!("spec.names.{name}"), ""));
        }
    }
    names_of(&spec["names"], "spec.names", errors);
    validate_shared(&shared, options, errors);
    conversion::validate(spec, options, errors);
}

fn group_and_scope(spec: &Value, errors: &mut Errors) {
    let group = text(spec.get("group"));
    let problems = names::dns_subdomain(group);
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
    } else if !problems.is_empty() {
        errors.push(FieldError::invalid("spec.group", group, problems.join(",")));
    } else if !group.contains('.') {
        let detail = "should be a domain with at least one dot";
        errors.push(FieldError::invalid("spec.group", group, detail));
    }
    match text(spec.get("scope")) {
        "" => errors.push(FieldError::required("spec.scope", "")),
        "Cluster" | "Namespaced" => {}
        other => {
            let supported = &["Cluster", "Namespaced"];
            errors.push(FieldError::not_supported("spec.scope", other, supported));
        }
    }
}

/// What a version has for itself.
fn validate_version(
    version: &Value,
    shared: &Shared<'_>,
    path: &str,
    options: &Options,
    errors: &mut Errors,
) {
    deprecation(version, path, errors);
    let own = |name: &str, shared: Option<Option<&Value>>| match shared {
        Some(_) => None,
        None => version.get(name).filter(|value| !value.is_null()),
    };
    let schema = own("schema", shared.schema);
    let subresources = own("subresources", shared.subresources);
    if let Some(schema) = schema {
        let status = has_status(subresources.or(shared.subresources.flatten()));
        let unchanged = options.unchanged.iter().any(|name| name == text(version.get("name")));
        let path = format!("{path}.schema");
        openapi::validate_version(schema, status, &path, options, unchanged, errors);
    }
    columns::subresources(subresources, &format!("{path}.subresources"), errors);
    let list = own("additionalPrinterColumns", shared.columns);
    columns::columns(list, &format!("{path}.additionalPrinterColumns"), errors);
    if let Some(fields) = own("selectableFields", shared.selectable) {
        let path = format!("{path}.selectableFields");
        let schema = schema.and_then(|schema| schema.get("openAPIV3Schema"));
        let Some(schema) = schema.filter(|schema| !schema.is_null()) else {
            let detail = "may only be set when `version.schema.openAPIV3Schema` is not included";
            return errors.push(FieldError::invalid(path, "", detail));
        };
        let allowed =
            options.too_many_selectable.iter().any(|name| name == text(version.get("name")));
        columns::selectable(fields, Schema(schema), &path, allowed, errors);
    }
}

/// What all versions have alike.
fn validate_shared(shared: &Shared<'_>, options: &Options, errors: &mut Errors) {
    let schema = shared.schema.flatten();
    if let Some(schema) = schema {
        let status = has_status(shared.subresources.flatten());
        let unchanged = !options.unchanged.is_empty();
        openapi::validate_version(schema, status, "spec.validation", options, unchanged, errors);
    }
    columns::subresources(shared.subresources.flatten(), "spec.subresources", errors);
    columns::columns(shared.columns.flatten(), "spec.additionalPrinterColumns", errors);
    if let Some(fields) = shared.selectable.flatten() {
        let path = "spec.selectableFields";
        match schema.and_then(|schema| schema.get("openAPIV3Schema")) {
            Some(schema) if !schema.is_null() => {
                let allowed = options.too_many_selectable.iter().any(String::is_empty);
                columns::selectable(fields, Schema(schema), path, allowed, errors);
            }
            _ => {
                let detail = "may only be set when validations.schema is included";
                errors.push(FieldError::invalid(path, "", detail));
            }
        }
    }
}

fn deprecation(version: &Value, path: &str, errors: &mut Errors) {
    let Some(warning) = version.get("deprecationWarning").and_then(Value::as_str) else {
        return;
    };
    let path = format!("{path}.deprecationWarning");
    let mut refuse =
        |detail: String| errors.push(FieldError::invalid(path.clone(), warning, detail));
    if !flag(version.get("deprecated")) {
        return refuse("can only be set for deprecated versions".to_owned());
    }
    if warning.len() > WARNING_MAX {
        refuse(format!("must be <= {WARNING_MAX} characters long"));
    }
    if warning.is_empty() {
        refuse("must not be an empty string".to_owned());
    }
    let unprintable = |(_, character): &(usize, char)| {
        character.is_control() || (character.is_whitespace() && *character != ' ')
    };
    if let Some((index, _)) = warning.char_indices().find(unprintable) {
        refuse(format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {index}"
        ));
    }
}

fn names_of(names: &Value, path: &str, errors: &mut Errors) {
    for name in ["plural", "singular"] {
        let value = text(names.get(name));
        if !value.is_empty() {
            label(value, format!("{path}.{name}"), errors);
        }
    }
    let (kind, list_kind) = (text(names.get("kind")), text(names.get("listKind")));
    for (name, value) in [("kind", kind), ("listKind", list_kind)] {
        let problems = names::dns_1035_label(&value.to_lowercase());
        if !value.is_empty() && !problems.is_empty() {
            let detail = super::metadata::mixed_case(&problems);
            errors.push(FieldError::invalid(format!("{path}.{name}"), value, detail));
        }
    }
    let list = |list: &str, errors: &mut Errors| {
        let values = names.get(list).and_then(Value::as_array);
        for (index, value) in values.into_iter().flatten().enumerate() {
            label(text(Some(value)), format!("{path}.{list}[{index}]"), errors);
        }
    };
    list("shortNames", errors);
    if !kind.is_empty() && kind == list_kind {
        let detail = "kind and listKind may not be the same";
        errors.push(FieldError::invalid(format!("{path}.listKind"), list_kind, detail));
    }
    list("categories", errors);
}

fn immutable(new: &Value, old: &Value, options: &Options, errors: &mut Errors) {
    let mut check = |path: &str| {
        let (new, old) = (&new["spec"].pointer(path), &old["spec"].pointer(path));
        if text(*new) != text(*old) {
            let field = format!("spec{}", path.replace('/', "."));
            errors.push(FieldError::invalid(field, text(*new), "field is immutable"));
        }
    };
    if options.established {
        check("/scope");
        check("/names/kind");
    }
    check("/group");
    check("/names/plural");
}

fn stored_versions(definition: &Value, errors: &mut Errors) {
    const FIELD: &str = "status.storedVersions";
    let none = Value::Array(Vec::new());
    let list = definition.pointer("/status/storedVersions").filter(|list| list.is_array());
    let list = list.unwrap_or(&none);
    let stored: Vec<&str> =
        list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if stored.is_empty() {
        return errors.push(invalid(FIELD, list, "must have at least one stored version"));
    }
    for version in versions(definition).filter(|version| flag(version.get("storage"))) {
        let name = text(version.get("name"));
        if !stored.contains(&name) {
            errors.push(invalid(FIELD, list, format!("must have the storage version {name}")));
        }
    }
    for (index, name) in stored.iter().enumerate() {
        if !versions(definition).any(|version| text(version.get("name")) == *name) {
            let detail = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            errors.push(FieldError::invalid(format!("{FIELD}[{index}]"), name, detail));
        }
    }
}

/// The path of a validation rule's `fieldPath`, as errors write it; `None` if it leads nowhere.
pub(super) fn field_path(path: &str, schema: &Value) -> Option<String> {
    columns::field_path(path, Schema(schema), true).ok().map(|(steps, _)| steps.join("."))
}

/// A member that is an object.
fn object<'a>(value: &'a Value, name: &str) -> Option<&'a Map<String, Value>> {
    value.get(name).and_then(Value::as_object)
}
