//! Rules of `metadata.ownerReferences` (`k8s.io/apimachinery/pkg/api/validation`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};

use crate::status::FieldError;

/// What is wrong with the owners of an object.
pub fn validate(owners: &[OwnerReference], path: &str, errors: &mut Vec<FieldError>) {
    let mut controller: Option<String> = None;
    for (index, owner) in owners.iter().enumerate() {
        let at = |field: &str| format!("{path}[{index}].{field}");
        let (group, version) =
            owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
        if owner.api_version.is_empty() {
            errors.push(FieldError::required(at("apiVersion"), "must not be empty"));
        } else if version.is_empty() || version.contains('/') {
            let problem = "must be <group>/<version> or <version>";
            errors.push(FieldError::invalid(at("apiVersion"), &owner.api_version, problem));
        }
        for (field, value) in [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
            if value.is_empty() {
                errors.push(FieldError::required(at(field), "must not be empty"));
            }
        }
        if (group, version, owner.kind.as_str()) == ("", "v1", "Event") {
            let problem = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(format!("{path}[{index}]"), shown(owner), problem));
        }
        if owner.controller == Some(true) {
            let own = format!("{}/{}", owner.kind, owner.name);
            match &controller {
                Some(first) => {
                    let all: Value = owners.iter().map(shown).collect();
                    let problem = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {own}"
                    );
                    errors.push(FieldError::invalid(path, all, problem));
                }
                None => controller = Some(own),
            }
        }
    }
}

/// Removes references that are equal to an earlier one; returns their UIDs.
pub fn deduplicate(owners: &mut Vec<OwnerReference>) -> Vec<String> {
    let mut kept = std::collections::HashMap::<String, Vec<OwnerReference>>::new();
    let mut duplicates = Vec::new();
    owners.retain(|owner| {
        let same = kept.entry(owner.uid.clone()).or_default();
        let is_new = !same.contains(owner);
        if is_new {
            same.push(owner.clone());
        } else {
            duplicates.push(owner.uid.clone());
        }
        is_new
    });
    duplicates
}

/// An owner as an error shows it.
fn shown(owner: &OwnerReference) -> Value {
    let mut shown = json!({
        "apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid,
    });
    let flags =
        [("controller", owner.controller), ("blockOwnerDeletion", owner.block_owner_deletion)];
    for (name, flag) in flags {
        if let Some(flag) = flag {
            shown[name] = flag.into();
        }
    }
    shown
}
