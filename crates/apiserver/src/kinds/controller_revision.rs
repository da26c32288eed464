//! ControllerRevisions.

use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use serde_json::Value;

use super::{Column, Strategy, columns};

/// The strategy of ControllerRevisions.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Controller", "Controller of the object."),
    columns::integer("Revision", "Number of the state that the object holds."),
    columns::AGE,
];

impl Strategy for Rules {
    type Object = ControllerRevision;

    fn validate(&self, revision: &ControllerRevision) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if revision.data.0.is_null() {
            errors.push(FieldError::required("data", "data is mandatory"));
        }
        if revision.revision.unwrap_or(0) < 0 {
            let problem = "must be greater than or equal to 0";
            errors.push(FieldError::invalid("revision", revision.revision, problem));
        }
        errors
    }

    fn validate_update(
        &self,
        new: &ControllerRevision,
        old: &ControllerRevision,
    ) -> Vec<FieldError> {
        if new.data == old.data {
            return Vec::new();
        }
        vec![FieldError::invalid("data", "", "field is immutable")]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, revision: &ControllerRevision, now: Timestamp) -> Vec<Value> {
        let owners = revision.metadata.owner_references.iter().flatten();
        let controller = owners.filter(|owner| owner.controller == Some(true)).map(|owner| {
            let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
            let dot = if group.is_empty() { "" } else { "." };
            format!("{}{dot}{group}/{}", owner.kind.to_lowercase(), owner.name)
        });
        vec![
            columns::name(&revision.metadata),
            columns::or_none(controller.into_iter().next().as_deref()),
            revision.revision.into(),
            columns::age(&revision.metadata, now),
        ]
    }
}
