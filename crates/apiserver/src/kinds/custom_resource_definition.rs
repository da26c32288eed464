//! CustomResourceDefinitions (`k8s.io/apiextensions-apiserver`,
//! `pkg/registry/customresourcedefinition`).

use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use super::{Column, Context, Strategy, columns};

/// The strategy of CustomResourceDefinitions.
pub struct Rules;

static COLUMNS: &[Column] = &[columns::NAME, columns::CREATED_AT];

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
        api::structural::definition::default(definition);
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
        api::structural::definition::validate(definition, None)
    }

    fn validate_update(
        &self,
        new: &CustomResourceDefinition,
        old: &CustomResourceDefinition,
    ) -> Vec<FieldError> {
        api::structural::definition::validate(new, Some(old))
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
