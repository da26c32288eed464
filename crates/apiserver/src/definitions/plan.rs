//! Decides what becomes of definitions: a pure function of all of them.

use std::borrow::Borrow;
use std::collections::HashSet;

use api::custom::definition::{ESTABLISHED, NAMES_ACCEPTED, TERMINATING, holds};
use api::structural::definition::{APPROVAL_ANNOTATION, Approval, has_invalid_ca_bundle};
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionCondition, CustomResourceDefinitionNames,
    CustomResourceDefinitionStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

/// Keeps a definition until its objects are gone.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
const APPROVED: &str = "KubernetesAPIApprovalPolicyConformant";

/// What has to be done for a definition.
#[derive(Debug, PartialEq)]
pub enum Action {
    Write(Box<CustomResourceDefinitionStatus>),
    /// Delete its objects; remove the finalizer when there is none.
    Finalize,
}

/// What has to be done now. Names are taken in the order of the definitions; those that are
/// accepted already come first.
pub fn plan<D: Borrow<CustomResourceDefinition>>(
    all: &[D],
    now: Timestamp,
) -> Vec<(&CustomResourceDefinition, Action)> {
    let all: Vec<&CustomResourceDefinition> = all.iter().map(Borrow::borrow).collect();
    let mut accepted: Vec<CustomResourceDefinitionNames> =
        all.iter().map(|definition| accepted_names(definition).clone()).collect();
    let mut actions = Vec::new();
    for (index, definition) in all.iter().copied().enumerate() {
        if definition.metadata.deletion_timestamp.is_some() {
            let ours = |finalizer: &String| finalizer == FINALIZER;
            if definition.metadata.finalizers.iter().flatten().any(ours) {
                actions.push((definition, Action::Finalize));
            }
            continue;
        }
        // With the names that it has, it is in nobody's way.
        let is_settled = *accepted_names(definition) == definition.spec.names;
        let taken = if is_settled { Taken::default() } else { taken(&all, &accepted, index) };
        let (names, conflict) = names(definition, &taken);
        let mut status = definition.status.clone().unwrap_or_default();
        status.accepted_names = Some(names.clone());
        accepted[index] = names;
        let established = holds(definition, ESTABLISHED);
        let (named, reason, message) = match conflict {
            None => ("True", "NoConflicts", "no conflicts found".to_owned()),
            Some((reason, message)) => ("False", reason, message),
        };
        set(&mut status, NAMES_ACCEPTED, named, reason, &message, now);
        if !established && named == "True" && has_invalid_ca_bundle(&value(definition)) {
            let message = "The conversion webhook CABundle is invalid";
            set(&mut status, ESTABLISHED, "False", "InvalidCABundle", message, now);
        } else if !established && named == "True" {
            let message = "the initial names have been accepted";
            set(&mut status, ESTABLISHED, "True", "InitialNamesAccepted", message, now);
        } else if !established {
            let message = "not all names are accepted";
            set(&mut status, ESTABLISHED, "False", "NotAccepted", message, now);
        }
        approve(definition, &mut status, now);
        if definition.status.as_ref() != Some(&status) {
            actions.push((definition, Action::Write(Box::new(status))));
        }
    }
    actions
}

fn accepted_names(definition: &CustomResourceDefinition) -> &CustomResourceDefinitionNames {
    static NONE: std::sync::LazyLock<CustomResourceDefinitionNames> =
        std::sync::LazyLock::new(CustomResourceDefinitionNames::default);
    let status = definition.status.as_ref();
    status.and_then(|status| status.accepted_names.as_ref()).unwrap_or(&NONE)
}

/// The names of resources and of kinds that the other definitions of a group have.
#[derive(Default)]
struct Taken<'a> {
    resources: HashSet<&'a str>,
    kinds: HashSet<&'a str>,
}

fn taken<'a>(
    all: &[&CustomResourceDefinition],
    accepted: &'a [CustomResourceDefinitionNames],
    own: usize,
) -> Taken<'a> {
    let mut taken = Taken { resources: HashSet::new(), kinds: HashSet::new() };
    for (index, names) in accepted.iter().enumerate() {
        if index == own || all[index].spec.group != all[own].spec.group {
            continue;
        }
        taken.resources.insert(&names.plural);
        taken.resources.extend(names.singular.as_deref());
        taken.resources.extend(names.short_names.iter().flatten().map(String::as_str));
        taken.kinds.insert(&names.kind);
        taken.kinds.extend(names.list_kind.as_deref());
    }
    taken.resources.remove("");
    taken.kinds.remove("");
    taken
}

/// The names that are accepted, and the last conflict with another definition's.
fn names(
    definition: &CustomResourceDefinition,
    taken: &Taken<'_>,
) -> (CustomResourceDefinitionNames, Option<(&'static str, String)>) {
    let (wanted, mut names) = (&definition.spec.names, accepted_names(definition).clone());
    let mut conflict = None;
    let free =
        |wanted: &str, own: &str, taken: &HashSet<&str>| wanted == own || !taken.contains(wanted);
    let in_use = |name: &str| format!("{name:?} is already in use");
    let text = |name: &Option<String>| name.clone().unwrap_or_default();
    if free(&wanted.plural, &names.plural, &taken.resources) {
        names.plural.clone_from(&wanted.plural);
    } else {
        conflict = Some(("PluralConflict", in_use(&wanted.plural)));
    }
    let (singular, own) = (text(&wanted.singular), text(&names.singular));
    if free(&singular, &own, &taken.resources) {
        names.singular.clone_from(&wanted.singular);
    } else {
        conflict = Some(("SingularConflict", in_use(&singular)));
    }
    let own = names.short_names.clone().unwrap_or_default();
    let short = wanted.short_names.iter().flatten();
    let bad: Vec<String> = short
        .filter(|name| !own.contains(name) && taken.resources.contains(name.as_str()))
        .map(|name| in_use(name))
        .collect();
    match bad.as_slice() {
        [] => names.short_names.clone_from(&wanted.short_names),
        [only] => conflict = Some(("ShortNamesConflict", only.clone())),
        all => conflict = Some(("ShortNamesConflict", format!("[{}]", all.join(", ")))),
    }
    if free(&wanted.kind, &names.kind, &taken.kinds) {
        names.kind.clone_from(&wanted.kind);
    } else {
        conflict = Some(("KindConflict", in_use(&wanted.kind)));
    }
    let (list_kind, own) = (text(&wanted.list_kind), text(&names.list_kind));
    if free(&list_kind, &own, &taken.kinds) {
        names.list_kind.clone_from(&wanted.list_kind);
    } else {
        conflict = Some(("ListKindConflict", in_use(&list_kind)));
    }
    names.categories.clone_from(&wanted.categories);
    (names, conflict)
}

/// Groups of the Kubernetes project say whether they have been reviewed.
fn approve(
    definition: &CustomResourceDefinition,
    status: &mut CustomResourceDefinitionStatus,
    now: Timestamp,
) {
    if !Approval::is_needed(&definition.spec.group) {
        return;
    }
    let annotations = definition.metadata.annotations.as_ref();
    let value = annotations.and_then(|all| all.get(APPROVAL_ANNOTATION)).map_or("", String::as_str);
    let (approval, message) = Approval::of(value);
    let (holds, reason) = match approval {
        Approval::Missing => ("False", "MissingAnnotation"),
        Approval::Bypassed => ("False", "UnapprovedAnnotation"),
        Approval::Approved => ("True", "ApprovedAnnotation"),
        Approval::Invalid => ("False", "InvalidAnnotation"),
    };
    set(status, APPROVED, holds, reason, &message, now);
}

/// Sets a condition; its time changes only with its status.
fn set(
    status: &mut CustomResourceDefinitionStatus,
    type_: &str,
    holds: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let conditions = status.conditions.get_or_insert_default();
    let found = conditions.iter_mut().find(|condition| condition.type_ == type_);
    let new = |time| CustomResourceDefinitionCondition {
        type_: type_.to_owned(),
        status: holds.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: time,
        ..CustomResourceDefinitionCondition::default()
    };
    let changed = || Some(Time(crate::meta::whole_seconds(now)));
    match found {
        Some(found) if found.status == holds => {
            let time = found.last_transition_time.take();
            *found = CustomResourceDefinitionCondition {
                observed_generation: found.observed_generation,
                ..new(time)
            };
        }
        Some(found) => *found = new(changed()),
        None => conditions.push(new(changed())),
    }
}

/// What the deletion of a definition writes into it.
pub fn mark_terminating(definition: &mut CustomResourceDefinition, now: Timestamp) {
    let finalizers = definition.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let status = definition.status.get_or_insert_default();
    set_terminating(status, &Deletion::Pending, now);
}

/// How far the deletion of a definition's objects has come.
pub enum Deletion {
    Pending,
    /// Some are left.
    InProgress,
    /// Some are left after a long time.
    Unconfirmed,
    Failed(String),
    Completed,
    /// There have never been any.
    NeverEstablished,
}

/// Says how far the deletion has come.
pub fn set_terminating(
    status: &mut CustomResourceDefinitionStatus,
    deletion: &Deletion,
    now: Timestamp,
) {
    let (holds, reason, message) = match deletion {
        Deletion::Pending => (
            "True",
            "InstanceDeletionPending",
            "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        ),
        Deletion::InProgress => {
            ("True", "InstanceDeletionInProgress", "CustomResource deletion is in progress")
        }
        Deletion::Unconfirmed => (
            "True",
            "InstanceDeletionCheck",
            "could not confirm zero CustomResources remaining: context deadline exceeded",
        ),
        Deletion::Failed(why) => ("True", "InstanceDeletionFailed", why.as_str()),
        Deletion::Completed => ("False", "InstanceDeletionCompleted", "removed all instances"),
        Deletion::NeverEstablished => {
            ("False", "NeverEstablished", "resource was never established")
        }
    };
    set(status, TERMINATING, holds, reason, message, now);
}

fn value(definition: &CustomResourceDefinition) -> Value {
    serde_json::to_value(definition).unwrap_or_default()
}

#[cfg(test)]
mod tests;
