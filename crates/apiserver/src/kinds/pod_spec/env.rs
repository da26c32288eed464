//! Environment variables and their sources.

use api::names;
use api::status::FieldError;
use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, ObjectFieldSelector, ResourceFieldSelector,
};

use crate::kinds::check::{self, Errors};
use crate::kinds::path::Path;

/// Fields that a variable can refer to, besides labels and annotations.
const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

fn variable_name(name: &str, path: &Path, errors: &mut Errors) {
    if !name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=') {
        let problem = "a valid environment variable name must consist only of printable ASCII characters other than '='";
        errors.push(FieldError::invalid(path, name, problem));
    }
}

pub fn validate(variables: &[EnvVar], path: &Path, errors: &mut Errors) {
    for (index, variable) in variables.iter().enumerate() {
        let path = path.index(index);
        check::required(&variable.name, &path.child("name"), errors);
        variable_name(&variable.name, &path.child("name"), errors);
        value_from(variable, &path.child("valueFrom"), errors);
    }
}

fn value_from(variable: &EnvVar, path: &Path, errors: &mut Errors) {
    let Some(source) = &variable.value_from else {
        return;
    };
    let mut sources = 0;
    if let Some(field) = &source.field_ref {
        sources += 1;
        field_ref(field, FIELDS, &path.child("fieldRef"), errors);
    }
    if let Some(resource) = &source.resource_field_ref {
        sources += 1;
        resource_field_ref(resource, false, &path.child("resourceFieldRef"), errors);
    }
    let keys = [
        ("configMapKeyRef", source.config_map_key_ref.as_ref().map(|key| (&key.name, &key.key))),
        ("secretKeyRef", source.secret_key_ref.as_ref().map(|key| (&key.name, &key.key))),
    ];
    for (field, reference) in keys {
        let Some((name, key)) = reference else {
            continue;
        };
        sources += 1;
        let path = path.child(field);
        check::dns_subdomain(name, &path.child("name"), errors);
        if key.is_empty() {
            errors.push(FieldError::required(path.child("key"), ""));
        } else {
            check::invalid(names::config_map_key(key), key, &path.child("key"), errors);
        }
    }
    if let Some(file) = &source.file_key_ref {
        sources += 1;
        let path = path.child("fileKeyRef");
        check::required(&file.volume_name, &path.child("volumeName"), errors);
        check::required(&file.path, &path.child("path"), errors);
        check::local_non_reserved_path(&file.path, &path.child("path"), errors);
        check::required(&file.key, &path.child("key"), errors);
    }
    let problem = if sources == 0 {
        "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
    } else if !check::text(&variable.value).is_empty() {
        "may not be specified when `value` is not empty"
    } else if sources > 1 {
        "may not have more than one field specified at a time"
    } else {
        return;
    };
    errors.push(FieldError::invalid(path, "", problem));
}

/// `metadata.labels['app']`: the path and the key in the brackets.
fn subscript(field_path: &str) -> Option<(&str, &str)> {
    let (path, rest) = field_path.split_once("['")?;
    Some((path, rest.strip_suffix("']")?))
}

/// `fields` are the paths allowed besides single labels and annotations.
pub fn field_ref(field: &ObjectFieldSelector, fields: &[&str], path: &Path, errors: &mut Errors) {
    if check::text(&field.api_version).is_empty() {
        errors.push(FieldError::required(path.child("apiVersion"), ""));
        return;
    }
    if field.field_path.is_empty() {
        errors.push(FieldError::required(path.child("fieldPath"), ""));
        return;
    }
    match subscript(&field.field_path) {
        Some(("metadata.annotations", key)) => {
            check::qualified_name(&key.to_lowercase(), path, errors)
        }
        Some(("metadata.labels", key)) => check::qualified_name(key, path, errors),
        Some((other, _)) => {
            errors.push(FieldError::invalid(path, other, "does not support subscript"))
        }
        None if fields.contains(&field.field_path.as_str()) => {}
        None if known_label(&field.field_path) => {
            errors.push(FieldError::not_supported(
                path.child("fieldPath"),
                &field.field_path,
                fields,
            ));
        }
        None => {
            let problem = format!(
                "error converting fieldPath: field label not supported: {}",
                field.field_path
            );
            errors.push(FieldError::invalid(path.child("fieldPath"), &field.field_path, problem));
        }
    }
}

/// Paths that the downward API supports, but not everywhere.
fn known_label(path: &str) -> bool {
    FIELDS.contains(&path)
        || matches!(
            path,
            "metadata.labels"
                | "metadata.annotations"
                | "spec.restartPolicy"
                | "spec.schedulerName"
                | "status.phase"
        )
}

/// In a volume the container must be named.
pub fn resource_field_ref(
    field: &ResourceFieldSelector,
    volume: bool,
    path: &Path,
    errors: &mut Errors,
) {
    let huge = ["requests.hugepages-", "limits.hugepages-"]
        .iter()
        .any(|prefix| field.resource.starts_with(prefix));
    if volume && check::text(&field.container_name).is_empty() {
        errors.push(FieldError::required(path.child("containerName"), ""));
    } else if field.resource.is_empty() {
        errors.push(FieldError::required(path.child("resource"), ""));
    } else if !RESOURCES.contains(&field.resource.as_str()) && !huge {
        errors.push(FieldError::not_supported(path.child("resource"), &field.resource, RESOURCES));
    }
    divisor(field, huge, path, errors);
}

fn divisor(field: &ResourceFieldSelector, huge: bool, path: &Path, errors: &mut Errors) {
    const BYTES: &[&str] =
        &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let Some(divisor) =
        field.divisor.as_ref().map(|divisor| divisor.0.as_str()).filter(|text| *text != "0")
    else {
        return;
    };
    let (allowed, what): (&[&str], &str) = match field.resource.as_str() {
        "limits.cpu" | "requests.cpu" => (&["1m", "1"], "cpu"),
        "limits.memory" | "requests.memory" => (BYTES, "memory"),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => {
            (BYTES, "local ephemeral storage")
        }
        _ if huge => (BYTES, "hugepages"),
        _ => return,
    };
    if !allowed.contains(&divisor) {
        let list = if what == "cpu" { "1m and 1".to_owned() } else { allowed.join(", ") };
        let problem =
            format!("only divisor's values {list} are supported with the {what} resource");
        errors.push(FieldError::invalid(path.child("divisor"), &field.resource, problem));
    }
}

pub fn validate_from(sources: &[EnvFromSource], path: &Path, errors: &mut Errors) {
    for (index, source) in sources.iter().enumerate() {
        let own = path.index(index);
        variable_name(check::text(&source.prefix), &own.child("prefix"), errors);
        let references = [
            ("configMapRef", source.config_map_ref.as_ref().map(|reference| &reference.name)),
            ("secretRef", source.secret_ref.as_ref().map(|reference| &reference.name)),
        ];
        let mut count = 0;
        for (field, name) in references {
            let Some(name) = name else { continue };
            count += 1;
            let path = own.child(field).child("name");
            if name.is_empty() {
                errors.push(FieldError::required(path, ""));
            } else {
                check::dns_subdomain(name, &path, errors);
            }
        }
        if count == 0 {
            errors.push(FieldError::invalid(
                path,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            ));
        } else if count > 1 {
            errors.push(FieldError::invalid(
                path,
                "",
                "may not have more than one field specified at a time",
            ));
        }
    }
}
