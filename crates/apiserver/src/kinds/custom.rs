//! Custom resources: everything that differs is in their definition.

use api::custom::{Custom, CustomObject};
use api::object::Object;
use api::status::FieldError;
use api::{KindRow, ObjectMeta};
use jiff::Timestamp;
use serde_json::Value;

use super::{Column, Context, Strategy, columns};

/// The strategy of all custom kinds.
pub struct Rules;

fn parts(row: &KindRow) -> &Custom {
    row.custom.as_ref().expect("a custom kind has a definition")
}

impl Strategy for Rules {
    type Object = CustomObject;

    fn default(&self, object: &mut CustomObject) {
        let row = object.row();
        let mut body = Value::Object(std::mem::take(&mut object.body));
        parts(&row).schema.default(&mut body);
        if let Value::Object(body) = body {
            object.body = body;
        }
    }

    fn prepare_create(&self, object: &mut CustomObject, _: &Context<'_>) {
        if object.row().has_subresource("status") {
            object.body.remove("status");
        }
    }

    fn prepare_update(&self, new: &mut CustomObject, old: &CustomObject, _: &Context<'_>) {
        if new.row().has_subresource("status") {
            replace(&mut new.body, "status", old.body.get("status"));
        }
    }

    fn prepare_status_update(&self, new: &mut CustomObject, old: &CustomObject, _: &Context<'_>) {
        let status = new.body.remove("status");
        let managed_fields = new.metadata.managed_fields.take();
        let revision = new.metadata.resource_version.take();
        new.body = old.body.clone();
        replace(&mut new.body, "status", status.as_ref());
        new.metadata =
            ObjectMeta { managed_fields, resource_version: revision, ..old.metadata.clone() };
    }

    fn validate_create(&self, object: &CustomObject) -> Vec<FieldError> {
        parts(&object.row()).schema.validate(&object.to_judged(), None)
    }

    fn validate_update(&self, new: &CustomObject, old: &CustomObject) -> Vec<FieldError> {
        let old = old.to_judged();
        parts(&new.row()).schema.validate(&new.to_judged(), Some(&old))
    }

    fn validate_status_update(&self, new: &CustomObject, old: &CustomObject) -> Vec<FieldError> {
        let old = old.to_judged();
        parts(&new.row()).schema.validate_status(&new.to_judged(), &old)
    }

    /// Without a status of its own, every change outside the metadata counts.
    fn generation_changes(&self, new: &CustomObject, old: &CustomObject) -> Option<bool> {
        let has_status = new.row().has_subresource("status");
        let (new, old) = (&new.body, &old.body);
        let counts = |name: &&String| !has_status || *name != "status";
        let names = new.keys().chain(old.keys()).filter(counts);
        Some(names.into_iter().any(|name| new.get(name) != old.get(name)))
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    /// Those of a definition without columns of its own.
    fn columns(&self) -> &'static [Column] {
        &[columns::NAME, Column { kind: "date", ..columns::AGE }]
    }

    fn cells(&self, object: &CustomObject, now: Timestamp) -> Vec<Value> {
        let row = object.row();
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
