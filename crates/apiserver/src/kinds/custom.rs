//! Custom resources: everything that differs is in their definition.

use api::custom::{Custom, CustomObject};
use api::object::Object;
use api::{KindRow, ObjectMeta};
use jiff::Timestamp;
use serde_json::Value;

use super::table::{Parts, Rows, Table};
use super::{Column, columns};

pub static RULES: Rows<CustomObject> = Rows {
    default: |object| {
        let row = object.row();
        let mut body = Value::Object(std::mem::take(&mut object.body));
        // Without defaults that are too large; validation refuses the object for them.
        parts(&row).schema.default(&mut body).ok();
        if let Value::Object(body) = body {
            object.body = body;
        }
    },
    parts: Parts {
        create: |object, _| {
            if object.row().has_subresource("status") {
                object.body.remove("status");
            }
        },
        update: |new, old, _| {
            if new.row().has_subresource("status") {
                replace(&mut new.body, "status", old.body.get("status"));
            }
        },
        status: |new, old, _| {
            let status = new.body.remove("status");
            let managed_fields = new.metadata.managed_fields.take();
            let resource_version = new.metadata.resource_version.take();
            new.body = old.body.clone();
            replace(&mut new.body, "status", status.as_ref());
            new.metadata = ObjectMeta { managed_fields, resource_version, ..old.metadata.clone() };
        },
    },
    create: |object, at| {
        at.errors(parts(&object.row()).schema.validate(&object.to_judged(), None));
    },
    update: |new, old, at| {
        let old = old.to_judged();
        at.errors(parts(&new.row()).schema.validate(&new.to_judged(), Some(&old)));
    },
    status_update: |new, old, _, at| {
        let old = old.to_judged();
        at.errors(parts(&new.row()).schema.validate_status(&new.to_judged(), &old));
    },
    // Without a status of its own, every change outside the metadata counts.
    generation: |new, old| {
        let has_status = new.row().has_subresource("status");
        let (new, old) = (&new.body, &old.body);
        let counts = |name: &&String| !has_status || *name != "status";
        let names = new.keys().chain(old.keys()).filter(counts);
        Some(names.into_iter().any(|name| new.get(name) != old.get(name)))
    },
    unconditional: false,
    table: Some(Table {
        // Those of a definition without columns of its own.
        columns: || vec![columns::NAME, Column { kind: "date", ..columns::AGE }],
        cells,
    }),
    ..Rows::NEW
};

fn parts(row: &KindRow) -> &Custom {
    row.custom.as_ref().expect("a custom kind has a definition")
}

fn cells(object: &CustomObject, now: Timestamp) -> Vec<Value> {
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
