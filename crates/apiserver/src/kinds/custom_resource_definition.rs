//! CustomResourceDefinitions (`k8s.io/apiextensions-apiserver`,
//! `pkg/registry/customresourcedefinition`).

use api::Kind;
use api::status::FieldError;
use api::structural::definition as rules;
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use super::{Column, Context, Strategy, columns};

/// The strategy of CustomResourceDefinitions.
pub struct Rules;

static COLUMNS: &[Column] = &[columns::NAME, columns::CREATED_AT];

/// The rules are about JSON: a schema is data.
fn value(definition: &CustomResourceDefinition) -> Value {
    serde_json::from_slice(&definition.encode()).expect("what was encoded is JSON")
}

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

impl Strategy for Rules {
    type Object = CustomResourceDefinition;

    fn default(&self, definition: &mut CustomResourceDefinition) {
        let mut json = value(definition);
        rules::default(&mut json);
        if let Ok(complete) = CustomResourceDefinition::decode(json.to_string().as_bytes()) {
            *definition = complete;
        }
    }

    fn prepare_create(&self, definition: &mut CustomResourceDefinition, _: &Context<'_>) {
        definition.status = None;
        note_storage_version(definition);
    }

    fn prepare_update(
        &self,
        new: &mut CustomResourceDefinition,
        old: &CustomResourceDefinition,
        _: &Context<'_>,
    ) {
        new.status.clone_from(&old.status);
        note_storage_version(new);
    }

    fn prepare_status_update(
        &self,
        new: &mut CustomResourceDefinition,
        old: &CustomResourceDefinition,
        _: &Context<'_>,
    ) {
        new.spec = old.spec.clone();
    }

    fn validate_create(&self, definition: &CustomResourceDefinition) -> Vec<FieldError> {
        rules::validate(&value(definition), None)
    }

    fn validate_update(
        &self,
        new: &CustomResourceDefinition,
        old: &CustomResourceDefinition,
    ) -> Vec<FieldError> {
        rules::validate(&value(new), Some(&value(old)))
    }

    fn validate_status_update(
        &self,
        new: &CustomResourceDefinition,
        _: &CustomResourceDefinition,
    ) -> Vec<FieldError> {
        rules::validate_status(&value(new))
    }

    fn generation_changes(
        &self,
        new: &CustomResourceDefinition,
        old: &CustomResourceDefinition,
    ) -> Option<bool> {
        Some(new.spec != old.spec)
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, definition: &CustomResourceDefinition, _: Timestamp) -> Vec<Value> {
        let metadata = &definition.metadata;
        vec![columns::name(metadata), columns::created_at(metadata)]
    }
}
