//! ComponentStatuses, which are computed: only their columns are here.

use k8s_openapi::api::core::v1::ComponentStatus;
use serde_json::Value;

use super::columns::text;
use super::table::{Rows, items, name, text_at};

pub static RULES: Rows<ComponentStatus> = Rows {
    columns: &[
        name(),
        text("Status", "Status of the component conditions").json(|component| {
            let status = healthy(component).map(|condition| text_at(condition, "status"));
            match status {
                None => "Unknown".into(),
                Some("True") => "Healthy".into(),
                Some(_) => "Unhealthy".into(),
            }
        }),
        text("Message", "Message of the component conditions").json(|it| said(it, "message")),
        text("Error", "Error of the component conditions").json(|it| said(it, "error")),
    ],
    ..Rows::NEW
};

fn healthy(component: &Value) -> Option<&Value> {
    items(&component["conditions"]).iter().find(|condition| condition["type"] == "Healthy")
}

fn said(component: &Value, field: &str) -> Value {
    healthy(component).map_or("", |condition| text_at(condition, field)).into()
}
