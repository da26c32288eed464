//! ComponentStatuses, which are computed: only their columns are here.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ComponentStatus;
use serde_json::Value;

use super::{Column, Strategy, columns};

/// The strategy of ComponentStatuses.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Status", "Status of the component conditions"),
    columns::text("Message", "Message of the component conditions"),
    columns::text("Error", "Error of the component conditions"),
];

impl Strategy for Rules {
    type Object = ComponentStatus;

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, component: &ComponentStatus, _: Timestamp) -> Vec<Value> {
        let mut conditions = component.conditions.iter().flatten();
        let healthy = conditions.find(|condition| condition.type_ == "Healthy");
        let status = match healthy.map(|condition| condition.status.as_str()) {
            None => "Unknown",
            Some("True") => "Healthy",
            Some(_) => "Unhealthy",
        };
        let text = |field: Option<&Option<String>>| -> Value {
            field.cloned().flatten().unwrap_or_default().into()
        };
        vec![
            columns::name(&component.metadata),
            status.into(),
            text(healthy.map(|condition| &condition.message)),
            text(healthy.map(|condition| &condition.error)),
        ]
    }
}
