//! Environment variables and their sources.

use api::names;
use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, ObjectFieldSelector, ResourceFieldSelector,
};

use crate::kinds::at::At;
use crate::kinds::check;

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

fn variable_name(name: &str, at: &At<'_>) {
    if !name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=') {
        at.invalid(name, "a valid environment variable name must consist only of printable ASCII characters other than '='");
    }
}

pub fn validate(variables: &[EnvVar], at: &At<'_>) {
    for (index, variable) in variables.iter().enumerate() {
        let at = at.index(index);
        at.child("name").not_empty(&variable.name);
        variable_name(&variable.name, &at.child("name"));
        value_from(variable, &at.child("valueFrom"));
    }
}

fn value_from(variable: &EnvVar, at: &At<'_>) {
    let Some(source) = &variable.value_from else {
        return;
    };
    let mut sources = 0;
    if let Some(field) = &source.field_ref {
        sources += 1;
        field_ref(field, FIELDS, &at.child("fieldRef"));
    }
    if let Some(resource) = &source.resource_field_ref {
        sources += 1;
        resource_field_ref(resource, false, &at.child("resourceFieldRef"));
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
        let at = at.child(field);
        at.child("name").dns_subdomain(name);
        if key.is_empty() {
            at.child("key").required("");
        } else {
            at.child("key").texts(names::config_map_key(key), key);
        }
    }
    if let Some(file) = &source.file_key_ref {
        sources += 1;
        let at = at.child("fileKeyRef");
        at.child("volumeName").not_empty(&file.volume_name);
        at.child("path").not_empty(&file.path);
        at.child("path").local_non_reserved_path(&file.path);
        at.child("key").not_empty(&file.key);
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
    at.invalid("", problem);
}

/// `metadata.labels['app']`: the path and the key in the brackets.
fn subscript(field_path: &str) -> Option<(&str, &str)> {
    let (at, rest) = field_path.split_once("['")?;
    Some((at, rest.strip_suffix("']")?))
}

/// `fields` are the paths allowed besides single labels and annotations.
pub fn field_ref(field: &ObjectFieldSelector, fields: &[&str], at: &At<'_>) {
    if check::text(&field.api_version).is_empty() {
        at.child("apiVersion").required("");
        return;
    }
    if field.field_path.is_empty() {
        at.child("fieldPath").required("");
        return;
    }
    match subscript(&field.field_path) {
        Some(("metadata.annotations", key)) => at.qualified_name(&key.to_lowercase()),
        Some(("metadata.labels", key)) => at.qualified_name(key),
        Some((other, _)) => at.invalid(other, "does not support subscript"),
        None if fields.contains(&field.field_path.as_str()) => {}
        None if known_label(&field.field_path) => {
            at.child("fieldPath").not_supported(&field.field_path, fields)
        }
        None => {
            let problem = format!(
                "error converting fieldPath: field label not supported: {}",
                field.field_path
            );
            at.child("fieldPath").invalid(&field.field_path, problem);
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
pub fn resource_field_ref(field: &ResourceFieldSelector, volume: bool, at: &At<'_>) {
    let huge = ["requests.hugepages-", "limits.hugepages-"]
        .iter()
        .any(|prefix| field.resource.starts_with(prefix));
    if volume && check::text(&field.container_name).is_empty() {
        at.child("containerName").required("");
    } else if field.resource.is_empty() {
        at.child("resource").required("");
    } else if !RESOURCES.contains(&field.resource.as_str()) && !huge {
        at.child("resource").not_supported(&field.resource, RESOURCES);
    }
    divisor(field, huge, at);
}

fn divisor(field: &ResourceFieldSelector, huge: bool, at: &At<'_>) {
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
        at.child("divisor").invalid(&field.resource, problem);
    }
}

pub fn validate_from(sources: &[EnvFromSource], at: &At<'_>) {
    for (index, source) in sources.iter().enumerate() {
        let own = at.index(index);
        variable_name(check::text(&source.prefix), &own.child("prefix"));
        let references = [
            ("configMapRef", source.config_map_ref.as_ref().map(|reference| &reference.name)),
            ("secretRef", source.secret_ref.as_ref().map(|reference| &reference.name)),
        ];
        let mut count = 0;
        for (field, name) in references {
            let Some(name) = name else { continue };
            count += 1;
            own.child(field).child("name").required_text(names::dns_subdomain, name);
        }
        if count == 0 {
            at.invalid("", "must specify one of: `configMapRef` or `secretRef`");
        } else if count > 1 {
            at.invalid("", "may not have more than one field specified at a time");
        }
    }
}
