//! Custom resources: everything that differs is in their definition.

use api::custom::{Custom, CustomObject};
use api::object::Object;
use api::status::FieldError;
use api::{KindRow, ObjectMeta};
use jiff::Timestamp;
use serde_json::Value;

use super::{AnyStrategy, Column, Context, Dependents, columns};

/// The strategy of all custom kinds.
pub struct Rules;

fn custom(object: &dyn Object) -> &CustomObject {
    object.as_any().downcast_ref().expect("a custom kind has custom objects")
}

fn custom_mut(object: &mut dyn Object) -> &mut CustomObject {
    object.as_any_mut().downcast_mut().expect("a custom kind has custom objects")
}

fn parts(row: &KindRow) -> &Custom {
    row.custom.as_ref().expect("a custom kind has a definition")
}

impl AnyStrategy for Rules {
    fn is_of(&self, row: &KindRow) -> bool {
        row.custom.is_some()
    }

    fn default(&self, object: &mut dyn Object) {
        let object = custom_mut(object);
        let row = object.row();
        let mut body = Value::Object(std::mem::take(&mut object.body));
        parts(&row).schema.default(&mut body);
        if let Value::Object(body) = body {
            object.body = body;
        }
    }

    fn prepare_create(&self, object: &mut dyn Object, _: &Context<'_>) {
        let object = custom_mut(object);
        if object.row().has_subresource("status") {
            object.body.remove("status");
        }
    }

    fn prepare_update(&self, new: &mut dyn Object, old: &dyn Object, _: &Context<'_>) {
        let (new, old) = (custom_mut(new), custom(old));
        if new.row().has_subresource("status") {
            replace(&mut new.body, "status", old.body.get("status"));
        }
    }

    fn prepare_status_update(&self, new: &mut dyn Object, old: &dyn Object, _: &Context<'_>) {
        let (new, old) = (custom_mut(new), custom(old));
        let status = new.body.remove("status");
        let managed_fields = new.metadata.managed_fields.take();
        let revision = new.metadata.resource_version.take();
        new.body = old.body.clone();
        replace(&mut new.body, "status", status.as_ref());
        new.metadata =
            ObjectMeta { managed_fields, resource_version: revision, ..old.metadata.clone() };
    }

    fn validate(&self, _: &dyn Object) -> Vec<FieldError> {
        Vec::new()
    }

    fn validate_create(&self, object: &dyn Object) -> Vec<FieldError> {
        parts(&object.row()).schema.validate(&custom(object).to_value(), None)
    }

    fn validate_update(&self, new: &dyn Object, old: &dyn Object) -> Vec<FieldError> {
        let (row, old) = (new.row(), custom(old).to_value());
        parts(&row).schema.validate(&custom(new).to_value(), Some(&old))
    }

    fn validate_status_update(&self, new: &dyn Object, old: &dyn Object) -> Vec<FieldError> {
        let (row, old) = (new.row(), custom(old).to_value());
        parts(&row).schema.validate_status(&custom(new).to_value(), &old)
    }

    fn warnings(&self, _: &dyn Object, _: Option<&dyn Object>) -> Vec<String> {
        Vec::new()
    }

    /// Without a status of its own, every change outside the metadata counts.
    fn generation_changes(&self, new: &dyn Object, old: &dyn Object) -> Option<bool> {
        let has_status = new.row().has_subresource("status");
        let (new, old) = (&custom(new).body, &custom(old).body);
        let counts = |name: &&String| !has_status || *name != "status";
        let names = new.keys().chain(old.keys()).filter(counts);
        Some(names.into_iter().any(|name| new.get(name) != old.get(name)))
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        api::names::dns_subdomain(name)
    }

    fn default_grace_seconds(&self, _: &dyn Object) -> Option<i64> {
        None
    }

    fn dependents(&self) -> Dependents {
        Dependents::Deleted
    }

    fn allow_create_on_update(&self) -> bool {
        false
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    /// Those of a definition without columns of its own.
    fn columns(&self) -> &'static [Column] {
        &[columns::NAME, Column { kind: "date", ..columns::AGE }]
    }

    fn cells(&self, object: &dyn Object, now: Timestamp) -> Vec<Value> {
        let row = object.row();
        let object = custom(object);
        let columns = &parts(&row).columns;
        let mut cells = vec![columns::name(&object.metadata)];
        if columns.is_empty() {
            cells.push(columns::age(&object.metadata, now));
            return cells;
        }
        let whole = object.to_value();
        cells.extend(columns.iter().map(|column| column.cell(&whole, now)));
        cells
    }
}

fn replace(body: &mut serde_json::Map<String, Value>, name: &str, value: Option<&Value>) {
    match value {
        Some(value) => {
            body.insert(name.to_owned(), value.clone());
        }
        None => {
            body.remove(name);
        }
    }
}
