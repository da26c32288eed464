//! Server-side apply: merges a manager's configuration into an object, and tracks which manager
//! owns which field.
//!
//! Entry points: [`apply`] merges a configuration and returns the new object and its managed
//! fields, or the [`Conflict`]s; [`track`] updates the managed fields when an object is changed in
//! any other way. Both work on JSON and the schema table.
//!
//! An object that was never applied has no managed fields and costs nothing here. Its first apply
//! gives everything that was there to the manager `before-first-apply`, as Kubernetes does for
//! legacy objects; `kubectl` gets what its last-applied annotation has, as its own migration would
//! do.
//!
//! Rules: `sigs.k8s.io/structured-merge-diff` and `k8s.io/apimachinery/pkg/util/managedfields`.

mod fields;
mod merge;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, Time};
use k8s_openapi::jiff;
use serde_json::Value;

pub use fields::Set;

use crate::schema::{Field, List, Ty, TypeRow};

/// Manager of the fields that an object had before it was first applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Who writes, and how.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    pub manager: &'a str,
    pub api_version: &'a str,
    /// `""` for the object itself.
    pub subresource: &'a str,
    pub now: Timestamp,
    /// Take fields over from other managers instead of failing.
    pub force: bool,
}

/// A field that another manager owns with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// `"kubectl-edit" using apps/v1 at 2026-01-02T03:04:05Z`
    pub owner: String,
    /// `.spec.replicas`
    pub field: String,
}

/// The object after an apply, and its owners.
#[derive(Clone, Debug)]
pub struct Applied {
    pub object: Value,
    pub owners: Vec<ManagedFieldsEntry>,
}

/// The schema of a value.
#[derive(Clone, Copy)]
struct FieldSchema {
    ty: Option<Ty>,
    fields: Option<&'static [Field]>,
    list: List,
    atomic: bool,
}

impl FieldSchema {
    fn root(schema: Option<&'static TypeRow>) -> Self {
        Self { ty: None, fields: schema.map(|row| row.fields), list: List::Atomic, atomic: false }
    }

    fn of(ty: Ty, list: Option<List>, atomic: bool) -> Self {
        let definition = ty.definition();
        Self {
            ty: Some(ty),
            fields: definition.map(|row| row.fields),
            list: list.unwrap_or(List::Atomic),
            atomic: atomic || ty == Ty::Any || definition.is_some_and(|row| row.atomic),
        }
    }

    /// The schema of a field or of a map's value. Without a schema maps merge and lists do not.
    fn child(self, name: &str) -> Self {
        if let Some(Ty::Map(value)) = self.ty {
            return Self::of(*value, None, false);
        }
        let field = self.fields.and_then(|fields| {
            let index = fields.binary_search_by(|field| field.name.cmp(name)).ok()?;
            Some(fields[index])
        });
        match field {
            Some(field) => Self::of(field.ty, field.list, field.atomic),
            None => Self::root(None),
        }
    }

    fn element(self) -> Self {
        self.ty.and_then(Ty::element).map_or(Self::root(None), |ty| Self::of(ty, None, false))
    }

    /// Whether the members of an object here are entries of a map rather than fields of a type.
    fn is_map(self) -> bool {
        self.fields.is_none()
    }
}

/// Removes the fields that no manager owns.
fn stripped(mut set: Set) -> Set {
    set.remove_member(&["f:apiVersion"]);
    set.remove_member(&["f:kind"]);
    for name in [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "generation",
        "managedFields",
        "resourceVersion",
    ] {
        set.remove_member(&["f:metadata", &format!("f:{name}")]);
    }
    set.remove_member(&["f:metadata"]);
    set
}

fn fields_of(entry: &ManagedFieldsEntry) -> Set {
    entry.fields_v1.as_ref().map(|fields| Set::from_json(&fields.0)).unwrap_or_default()
}

fn entry(
    writer: &Writer<'_>,
    operation: &str,
    set: &Set,
    time: Option<Time>,
) -> ManagedFieldsEntry {
    ManagedFieldsEntry {
        api_version: Some(writer.api_version.to_owned()),
        fields_type: Some("FieldsV1".to_owned()),
        fields_v1: Some(FieldsV1(set.to_json())),
        manager: Some(writer.manager.to_owned()),
        operation: Some(operation.to_owned()),
        subresource: (!writer.subresource.is_empty()).then(|| writer.subresource.to_owned()),
        time: time.or(Some(Time(writer.now))),
    }
}

fn is_of_writer(entry: &ManagedFieldsEntry, writer: &Writer<'_>, operation: &str) -> bool {
    entry.manager.as_deref() == Some(writer.manager)
        && entry.operation.as_deref() == Some(operation)
        && entry.subresource.as_deref().unwrap_or_default() == writer.subresource
}

/// A manager as an error names it.
fn described(entry: &ManagedFieldsEntry) -> String {
    let mut text = format!("{:?}", entry.manager.as_deref().unwrap_or_default());
    if let Some(subresource) =
        entry.subresource.as_deref().filter(|subresource| !subresource.is_empty())
    {
        text.push_str(&format!(" with subresource {subresource:?}"));
    }
    if entry.operation.as_deref() == Some("Update") {
        text.push_str(&format!(" using {}", entry.api_version.as_deref().unwrap_or_default()));
        if let Some(time) = &entry.time {
            text.push_str(&format!(" at {}", time.0.strftime("%Y-%m-%dT%H:%M:%SZ")));
        }
    }
    text
}

/// The fields of kubectl's last-applied annotation that are still unchanged: `kubectl` may take
/// them over without force, and remove those that it leaves out.
fn last_applied(live: &Value, schema: FieldSchema, writer: &Writer<'_>) -> Set {
    const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
    if writer.manager != "kubectl" || !writer.subresource.is_empty() {
        return Set::default();
    }
    let annotation = live["metadata"]["annotations"][ANNOTATION].as_str();
    let config = annotation.and_then(|text| serde_json::from_str::<Value>(text).ok());
    let Some(config) = config else {
        return Set::default();
    };
    let (changed, removed) = merge::compare(&config, live, schema);
    let set_by_kubectl = stripped(merge::set_of(&config, schema));
    set_by_kubectl.difference(&changed).difference(&removed)
}

/// Merges `config` into `live` (`None`: the object does not exist), whose managed fields are
/// `owners`. Fields that the manager applied before and leaves out now are removed, unless another
/// manager owns them.
///
/// # Errors
/// The conflicts, if any, unless the writer forces.
pub fn apply(
    live: Option<&Value>,
    owners: &[ManagedFieldsEntry],
    config: &Value,
    schema: Option<&'static TypeRow>,
    writer: &Writer<'_>,
) -> Result<Applied, Vec<Conflict>> {
    let schema = FieldSchema::root(schema);
    let wanted = stripped(merge::set_of(config, schema));
    let Some(live) = live else {
        return Ok(Applied {
            object: config.clone(),
            owners: vec![entry(writer, "Apply", &wanted, None)],
        });
    };
    let mut owners = owners.to_vec();
    let allowed = last_applied(live, schema, writer);
    if owners.is_empty() {
        if !allowed.is_empty() {
            owners.push(entry(writer, "Apply", &allowed, None));
        }
        let before = Writer { manager: BEFORE_FIRST_APPLY, subresource: "", ..*writer };
        // With an element that `kubectl` removes, the defaults within it are removed too.
        let rest = stripped(merge::set_of(live, schema)).difference(&allowed);
        let rest = rest.without_elements(&allowed.abandoned_by(&wanted));
        owners.push(entry(&before, "Update", &rest, None));
    }
    let mut merged = merge::merge(live, config, schema);
    let changed = stripped(merge::compare(live, &merged, schema).0);
    let (mut own, mut others): (Vec<_>, Vec<_>) =
        owners.into_iter().partition(|entry| is_of_writer(entry, writer, "Apply"));
    let mut conflicts = Vec::new();
    for other in &mut others {
        let set = fields_of(other);
        let taken = set.intersection(&changed);
        if taken.is_empty() {
            continue;
        }
        let disputed = taken.difference(&allowed);
        if !writer.force && !disputed.is_empty() {
            let owner = described(other);
            conflicts.extend(
                disputed.paths().into_iter().map(|field| Conflict { owner: owner.clone(), field }),
            );
            continue;
        }
        other.fields_v1 = Some(FieldsV1(set.difference(&taken).to_json()));
    }
    if !conflicts.is_empty() {
        return Err(conflicts);
    }
    others.retain(|other| !fields_of(other).is_empty());
    let before = own.pop();
    if let Some(before) = &before {
        let mut removed = fields_of(before).abandoned_by(&wanted);
        for other in &others {
            removed = removed.abandoned_by(&fields_of(other));
        }
        merge::remove(&mut merged, &removed, schema);
    }
    // Applying the same again changes nothing: with the old time the object stays as it is.
    let time = before
        .filter(|before| fields_of(before) == wanted && merged == *live)
        .and_then(|before| before.time);
    others.push(entry(writer, "Apply", &wanted, time));
    Ok(Applied { object: merged, owners: others })
}

/// The managed fields after a change other than an apply: the writer owns what it changed or added,
/// other managers lose that, and nobody owns what was removed.
pub fn track(
    old: &Value,
    owners: &[ManagedFieldsEntry],
    new: &Value,
    schema: Option<&'static TypeRow>,
    writer: &Writer<'_>,
) -> Vec<ManagedFieldsEntry> {
    if owners.is_empty() {
        return Vec::new();
    }
    let (changed, removed) = merge::compare(old, new, FieldSchema::root(schema));
    let (changed, removed) = (stripped(changed), stripped(removed));
    if changed.is_empty() && removed.is_empty() {
        return owners.to_vec();
    }
    let mut own = changed.clone();
    let mut kept = Vec::new();
    for owner in owners {
        let set = fields_of(owner).difference(&removed);
        if is_of_writer(owner, writer, "Update") {
            own = own.union(&set);
            continue;
        }
        let set = set.difference(&changed);
        if !set.is_empty() {
            kept.push(ManagedFieldsEntry {
                fields_v1: Some(FieldsV1(set.to_json())),
                ..owner.clone()
            });
        }
    }
    if !own.is_empty() {
        kept.push(entry(writer, "Update", &own, None));
    }
    kept
}
