//! Kinds whose objects are stored as those of another kind: they are converted where a request
//! comes in, and where its answer goes out.

use api::status::FieldError;
use api::{Kind, KindRow};
use k8s_openapi::api::{autoscaling, core, events};
use serde_json::Value;

use super::{event, horizontal_pod_autoscaler};

/// A kind that is another form of a stored one.
pub struct Form {
    pub served: &'static KindRow,
    pub stored: &'static KindRow,
    pub to_stored: fn(Value) -> Value,
    pub from_stored: fn(Value) -> Value,
    /// The stored kind's name of a field that the form selects by.
    pub field_to_stored: fn(&str) -> String,
    /// What the form alone requires of a new object, which has been converted.
    pub check_new: fn(&Value) -> Vec<FieldError>,
}

/// Every form.
pub static FORMS: [Form; 2] = [
    Form {
        served: events::v1::Event::ROW,
        stored: core::v1::Event::ROW,
        to_stored: event::conversion::to_core,
        from_stored: event::conversion::from_core,
        field_to_stored: event::conversion::field_to_core,
        check_new: event::check_new,
    },
    Form {
        served: autoscaling::v1::HorizontalPodAutoscaler::ROW,
        stored: autoscaling::v2::HorizontalPodAutoscaler::ROW,
        to_stored: horizontal_pod_autoscaler::conversion::to_v2,
        from_stored: horizontal_pod_autoscaler::conversion::to_v1,
        field_to_stored: str::to_owned,
        check_new: |_| Vec::new(),
    },
];

/// The form that a kind is, if it is one.
pub fn of(row: &KindRow) -> Option<&'static Form> {
    FORMS.iter().find(|form| row == form.served)
}

/// The kind as which objects of a kind are stored.
pub fn stored(row: &KindRow) -> &KindRow {
    of(row).map_or(row, |form| form.stored)
}

/// The other forms of a built-in kind.
pub fn others(row: &KindRow) -> Vec<&'static KindRow> {
    let pairs = FORMS.iter().map(|form| [form.served, form.stored]);
    let mine = pairs.filter(|pair| pair.contains(&row));
    mine.flatten().filter(|one| row != *one).collect()
}

/// An object of one form in another one.
pub fn convert(from: &KindRow, object: Value) -> Value {
    match FORMS.iter().find(|form| from == form.served || from == form.stored) {
        Some(form) if from == form.served => (form.to_stored)(object),
        Some(form) => (form.from_stored)(object),
        None => object,
    }
}
