//! Custom resources: everything that differs is in their definition.

use std::collections::BTreeSet;

use api::custom::{Custom, CustomObject};
use api::object::Object;
use api::structural::{ScalePaths, validate_scale};
use api::{KindRow, ObjectMeta};
use jiff::Timestamp;
use serde_json::Value;

use super::at::At;
use super::table::{Parts, Rows, Table};
use super::{Column, columns};
use crate::meta;

pub static RULES: Rows<CustomObject> = Rows {
    any_finalizer: true,
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
        let (row, judged) = (object.row(), object.to_judged());
        at.errors(parts(&row).schema.validate(&judged, None));
        scale(&row, &judged, true, at);
    },
    update: |new, old, at| {
        let (row, judged, old) = (new.row(), new.to_judged(), old.to_judged());
        at.errors(parts(&row).schema.validate(&judged, Some(&old)));
        scale(&row, &judged, true, at);
    },
    status_update: |new, old, _, at| {
        let (row, judged, old) = (new.row(), new.to_judged(), old.to_judged());
        at.errors(parts(&row).schema.validate_status(&judged, &old));
        scale(&row, &judged, false, at);
    },
    // Without a status of its own, every change outside the metadata counts.
    generation: |new, old| {
        let has_status = new.row().has_subresource("status");
        let (new, old) = (&new.body, &old.body);
        let counts = |name: &&String| !has_status || *name != "status";
        let names = new.keys().chain(old.keys()).filter(counts);
        Some(names.into_iter().any(|name| new.get(name) != old.get(name)))
    },
    warnings: |new, old| {
        let before = old.and_then(|old| old.metadata.finalizers.as_deref()).unwrap_or_default();
        let added = new.metadata.finalizers.iter().flatten().filter(|name| !before.contains(name));
        let added: BTreeSet<&String> = added.collect();
        added.into_iter().filter_map(|name| warning(name)).collect()
    },
    unconditional: false,
    table: Some(Table {
        // Those of a definition without columns of its own.
        columns: || vec![columns::NAME, Column { kind: "date", ..columns::AGE }],
        cells,
    }),
    ..Rows::NEW
};

/// About a finalizer that somebody else may use as well (`validateKubeFinalizerName`).
fn warning(finalizer: &str) -> Option<String> {
    let path = if finalizer.contains('.') { " including a path (/)" } else { "" };
    meta::needs_domain(finalizer).then(|| {
        format!(
            "metadata.finalizers: {finalizer:?}: prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers"
        )
    })
}

fn parts(row: &KindRow) -> &Custom {
    row.custom.as_ref().expect("a custom kind has a definition")
}

/// Judges the replicas and the selector that `scale` shows.
fn scale(row: &KindRow, object: &Value, with_spec: bool, at: &At<'_>) {
    if let Some(paths) = &parts(row).scale {
        at.errors(validate_scale(
            object,
            &ScalePaths {
                spec_replicas: with_spec.then_some(&*paths.spec_replicas),
                status_replicas: &paths.status_replicas,
                label_selector: paths.label_selector.as_deref(),
            },
        ));
    }
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
