//! ControllerRevisions.

use k8s_openapi::api::apps::v1::ControllerRevision;

use super::check;
use super::columns::{self, integer, text};
use super::table::{Rows, age, name};

pub static RULES: Rows<ControllerRevision> = Rows {
    judge: |revision, at| {
        if revision.data.0.is_null() {
            at.child("data").required("data is mandatory");
        }
        at.child("revision").not_negative(revision.revision.unwrap_or(0));
    },
    update: |new, old, at| {
        if new.data != old.data {
            at.child("data").invalid("", check::IMMUTABLE);
        }
    },
    columns: &[
        name(),
        text("Controller", "Controller of the object.").of(|revision| {
            let mut owners = revision.metadata.owner_references.iter().flatten();
            let controller = owners.find(|owner| owner.controller == Some(true)).map(|owner| {
                let group = owner.api_version.split_once('/').map(|(group, _)| group);
                let group =
                    group.filter(|group| !group.is_empty()).map(|group| format!(".{group}"));
                format!("{}{}/{}", owner.kind.to_lowercase(), group.unwrap_or_default(), owner.name)
            });
            columns::or_none(controller.as_deref())
        }),
        integer("Revision", "Number of the state that the object holds.")
            .of(|revision| revision.revision.into()),
        age(),
    ],
    ..Rows::NEW
};
