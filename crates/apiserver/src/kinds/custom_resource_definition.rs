//! CustomResourceDefinitions (`k8s.io/apiextensions-apiserver`,
//! `pkg/registry/customresourcedefinition`).

use api::Kind;
use api::structural::definition as rules;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use super::table::{Parts, Rows, created_at, name, value};

/// Objects may be in the storage version from now on.
fn note_storage_version(definition: &mut CustomResourceDefinition) {
    let storage = definition.spec.versions.iter().find(|version| version.storage);
    let Some(name) = storage.map(|version| version.name.clone()) else {
        return;
    };
    let status = definition.status.get_or_insert_default();
    let stored = status.stored_versions.get_or_insert_default();
    if !stored.contains(&name) {
        stored.push(name);
    }
}

pub static RULES: Rows<CustomResourceDefinition> = Rows {
    any_finalizer: true,
    default: |definition| {
        let mut json = value(definition);
        rules::default(&mut json);
        if let Ok(complete) = CustomResourceDefinition::decode(json.to_string().as_bytes()) {
            *definition = complete;
        }
    },
    parts: Parts {
        create: |definition, _| {
            definition.status = None;
            note_storage_version(definition);
        },
        update: |new, old, _| {
            new.status.clone_from(&old.status);
            note_storage_version(new);
        },
        status: |new, old, _| new.spec.clone_from(&old.spec),
    },
    create: |definition, at| at.errors(rules::validate(&value(definition), None)),
    update: |new, old, at| at.errors(rules::validate(&value(new), Some(&value(old)))),
    status_update: |new, _, _, at| at.errors(rules::validate_status(&value(new))),
    generation: |new, old| Some(new.spec != old.spec),
    warnings: |new, old| rules::warnings(&value(new), old.map(value).as_ref()),
    unconditional: false,
    columns: &[name(), created_at()],
    ..Rows::NEW
};
