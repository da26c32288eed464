//! Server-side apply: merges a manager's configuration into an object, and tracks which manager
//! owns which field.
//!
//! Entry points: [`apply`] merges a configuration and returns the new object and its managed
//! fields, or the [`Conflict`]s; [`track`] updates the managed fields when an object is changed in
//! any other way; [`overlay()`] merges what nobody owns. All work on JSON and a [`Schema`]: the table's
//! or a custom resource's. Each entry lists the fields of the version that it was written in, so that
//! objects are compared in every version that has an entry; [`Versions`] converts them.
//!
//! [`create`] gives a new object's fields to the manager that created it. An object without managed
//! fields, because a client cleared them, is not tracked until it is applied. Its first apply gives
//! everything that was there to the manager `before-first-apply`; `kubectl` gets what its
//! last-applied annotation has, as its own migration would do.
//!
//! Rules: `sigs.k8s.io/structured-merge-diff` and `k8s.io/apimachinery/pkg/util/managedfields`.

mod fields;
mod merge;
mod overlay;
#[cfg(test)]
mod tests;
mod typed;
mod versions;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, Time};
use k8s_openapi::jiff;
use serde_json::Value;

pub use fields::Set;
pub use overlay::overlay;
use versions::Changes;
pub use versions::{OneVersion, Versions};

use crate::schema::{Field, List, Ty, TypeRow, zero};
use crate::structural::Structural;
use crate::structural::node::{ListType, Node};
use crate::structural::path::Path;

/// Kubectl's record of what it applied last on the client's side.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Largest total of an object's annotations, in bytes.
const ANNOTATIONS_MAX: usize = 256 << 10;
/// Most managers that update an object, besides those that apply (upstream's limit). The oldest
/// ones are counted as one.
const UPDATERS_MAX: usize = 10;
/// Manager of the oldest updates, once there are too many managers.
const ANCIENT: &str = "ancient-changes";
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

/// Why a configuration cannot be applied.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused<E> {
    Conflicts(Vec<Conflict>),
    /// The object cannot be converted.
    Conversion(E),
}

impl<E> From<E> for Refused<E> {
    fn from(error: E) -> Self {
        Self::Conversion(error)
    }
}

/// The object after an apply, and its owners.
#[derive(Clone, Debug)]
pub struct Applied {
    pub object: Value,
    pub owners: Vec<ManagedFieldsEntry>,
}

/// What an object is merged by.
#[derive(Clone, Copy)]
pub enum Schema<'a> {
    /// A built-in kind's definition.
    Table(&'static TypeRow),
    /// The schema of a custom resource.
    Structural(&'a Structural),
    /// Maps merge and lists do not.
    Untyped,
}

impl From<Option<&'static TypeRow>> for Schema<'_> {
    fn from(row: Option<&'static TypeRow>) -> Self {
        row.map_or(Self::Untyped, Self::Table)
    }
}

impl<'a> From<&'a Structural> for Schema<'a> {
    fn from(structural: &'a Structural) -> Self {
        Self::Structural(structural)
    }
}

impl<'a> Schema<'a> {
    fn root(self) -> FieldSchema<'a> {
        match self {
            Self::Table(row) => FieldSchema::of_definition(Some(row)),
            Self::Structural(structural) => {
                FieldSchema { is_object: true, ..FieldSchema::of_node(&structural.root) }
            }
            Self::Untyped => FieldSchema::of_definition(None),
        }
    }
}

/// How a list merges.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Merge<'a> {
    Atomic,
    Set,
    /// With its keys.
    Map(Keys<'a>),
}

/// The keys of a list of type map, from either kind of schema.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys<'a> {
    Table(&'static [&'static str]),
    Node(&'a [String]),
}

impl<'a> Keys<'a> {
    fn iter(self) -> impl Iterator<Item = &'a str> {
        let (table, node): (&[&str], &[String]) = match self {
            Self::Table(keys) => (keys, &[]),
            Self::Node(keys) => (&[], keys),
        };
        table.iter().copied().chain(node.iter().map(String::as_str))
    }
}

/// The schema of a value: of the table, of a custom resource, or neither.
#[derive(Clone, Copy)]
struct FieldSchema<'a> {
    ty: Option<Ty>,
    fields: Option<&'static [Field]>,
    node: Option<&'a Node>,
    /// An object of a custom resource, or one embedded in it, with metadata.
    is_object: bool,
    list: Merge<'a>,
    atomic: bool,
    /// In Go every object has it, even if empty: a struct that is not a pointer, a required list.
    always: bool,
}

impl<'a> FieldSchema<'a> {
    fn of_definition(row: Option<&'static TypeRow>) -> Self {
        Self {
            ty: None,
            fields: row.map(|row| row.fields),
            node: None,
            is_object: false,
            list: Merge::Atomic,
            atomic: false,
            always: false,
        }
    }

    fn of_field(field: &Field) -> Self {
        let always = match field.ty {
            Ty::Ref(_) => !field.pointer,
            Ty::Array(_) | Ty::Map(_) => field.required,
            _ => false,
        };
        Self { always, ..Self::of(field.ty, field.list, field.atomic) }
    }

    fn of(ty: Ty, list: Option<List>, atomic: bool) -> Self {
        let definition = ty.definition();
        let list = match list.unwrap_or(List::Atomic) {
            List::Atomic => Merge::Atomic,
            List::Set => Merge::Set,
            List::Map(keys) => Merge::Map(Keys::Table(keys)),
        };
        Self {
            ty: Some(ty),
            list,
            atomic: atomic || ty == Ty::Any || definition.is_some_and(|row| row.atomic),
            ..Self::of_definition(definition)
        }
    }

    fn of_node(node: &'a Node) -> Self {
        let list = match &node.list {
            ListType::Atomic => Merge::Atomic,
            ListType::Set => Merge::Set,
            ListType::Map(keys) => Merge::Map(Keys::Node(keys)),
        };
        Self {
            node: Some(node),
            is_object: node.embedded,
            list,
            atomic: node.atomic,
            ..Self::of_definition(None)
        }
    }

    /// The schema of a field or of a map's value. Without a schema maps merge and lists do not.
    fn child(self, name: &str) -> Self {
        if let Some(node) = self.node {
            if self.is_object && name == "metadata" {
                return Self::of_definition(crate::structural::object_meta());
            }
            return node.member(name).map_or(Self::of_definition(None), Self::of_node);
        }
        if let Some(Ty::Map(value)) = self.ty {
            return Self::of(*value, None, false);
        }
        let field = self.fields.and_then(|fields| {
            let index = fields.binary_search_by(|field| field.name.cmp(name)).ok()?;
            Some(fields[index])
        });
        match field {
            Some(field) => Self::of_field(&field),
            None => Self::of_definition(None),
        }
    }

    fn element(self) -> Self {
        if let Some(items) = self.node.and_then(|node| node.items.as_deref()) {
            return Self::of_node(items);
        }
        let element = self.ty.and_then(Ty::element);
        element.map_or(Self::of_definition(None), |ty| Self::of(ty, None, false))
    }

    /// The default of a field.
    fn default(self, name: &str) -> Option<Value> {
        if let Some(node) = self.node {
            return node.property(name)?.default.as_deref().cloned();
        }
        let json = self.fields?.iter().find(|field| field.name == name)?.default;
        serde_json::from_str(json?).ok()
    }

    /// Whether the members of an object here are entries of a map rather than fields of a type.
    fn is_map(self) -> bool {
        self.fields.is_none() && !self.is_object && !self.node.is_some_and(Node::has_properties)
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

fn version_of(entry: &ManagedFieldsEntry) -> &str {
    entry.api_version.as_deref().unwrap_or_default()
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

/// Appliers have one entry, whatever its version; updaters one for each.
fn is_of_writer(entry: &ManagedFieldsEntry, writer: &Writer<'_>, operation: &str) -> bool {
    (operation == "Apply" || version_of(entry) == writer.api_version)
        && entry.manager.as_deref() == Some(writer.manager)
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
fn last_applied(live: &Value, schema: FieldSchema<'_>, writer: &Writer<'_>) -> Set {
    if writer.manager != "kubectl" || !writer.subresource.is_empty() {
        return Set::default();
    }
    let annotation = live["metadata"]["annotations"][LAST_APPLIED].as_str();
    let config = annotation.and_then(|text| serde_json::from_str::<Value>(text).ok());
    let Some(config) = config.filter(|config| config["apiVersion"] == writer.api_version) else {
        return Set::default();
    };
    let (changed, removed) = merge::compare(&config, live, schema);
    let set_by_kubectl = stripped(merge::set_of(&config, schema));
    set_by_kubectl.difference(&changed).difference(&removed)
}

/// Merges `config` into `live` (`None`: the object does not exist), whose managed fields are
/// `owners`. All of it is in the writer's version. Fields that the manager applied before and leaves
/// out now are removed, unless another manager owns them. Entries of versions that there are no
/// more are dropped.
///
/// # Errors
/// The conflicts, if any, unless the writer forces; and why the object cannot be converted.
pub async fn apply<V: Versions>(
    live: Option<&Value>,
    owners: &[ManagedFieldsEntry],
    config: &Value,
    versions: &V,
    writer: &Writer<'_>,
) -> Result<Applied, Refused<V::Error>> {
    let own = versions.schema(writer.api_version).unwrap_or(Schema::Untyped);
    let row = match own {
        Schema::Table(row) => Some(row),
        _ => None,
    };
    let schema = own.root();
    let wanted = stripped(merge::set_of(config, schema));
    let Some(live) = live else {
        return Ok(Applied {
            object: config.clone(),
            owners: vec![entry(writer, "Apply", &wanted, None)],
        });
    };
    let mut owners = versions::known(owners, versions);
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
    let mut changed = merge::compare(live, &merged, schema).0;
    // To set a zero value changes the field if that was there, and nothing if it was not.
    if row.is_some_and(|row| zero::normalize(&mut merged, row)) {
        let (differs, gone) = merge::compare(live, &merged, schema);
        changed = differs.union(&changed.intersection(&gone));
    }
    let (mut own, mut others): (Vec<_>, Vec<_>) =
        owners.into_iter().partition(|entry| is_of_writer(entry, writer, "Apply"));
    let before = own.pop();
    if let Some(before) = &before {
        merged = versions::prune(merged, before, &wanted, &others, versions, writer).await?;
    }
    let mut changes = Changes::new(versions, live, &merged, writer.api_version);
    changes.insert(writer.api_version, changed, Set::default());
    let conflicts = dispossess(&mut others, &mut changes, &allowed, writer).await?;
    if !conflicts.is_empty() {
        return Err(Refused::Conflicts(conflicts));
    }
    others.retain(|other| !fields_of(other).is_empty());
    if writer.manager == "kubectl" && writer.subresource.is_empty() {
        update_last_applied(&mut merged, config);
    }
    // Applying the same again changes nothing: with the old time the object stays as it is.
    let time = before
        .filter(|before| {
            version_of(before) == writer.api_version
                && fields_of(before) == wanted
                && merged == *live
        })
        .and_then(|before| before.time);
    others.push(entry(writer, "Apply", &wanted, time));
    Ok(Applied { object: merged, owners: sorted(others) })
}

/// Takes the fields that an apply changes from the managers that own them; returns those that it may
/// not take.
async fn dispossess<V: Versions>(
    others: &mut [ManagedFieldsEntry],
    changes: &mut Changes<'_, V>,
    allowed: &Set,
    writer: &Writer<'_>,
) -> Result<Vec<Conflict>, V::Error> {
    let mut conflicts = Vec::new();
    for other in others {
        let set = fields_of(other);
        let (changed, removed) = changes.seen_in(version_of(other)).await?;
        let taken = set.intersection(changed);
        let disputed = taken.difference(allowed);
        if !writer.force && !disputed.is_empty() {
            let owner = described(other);
            conflicts.extend(
                disputed.paths().into_iter().map(|field| Conflict { owner: owner.clone(), field }),
            );
            continue;
        }
        let left = set.difference(&taken).difference(removed);
        if left != set {
            other.fields_v1 = Some(FieldsV1(left.to_json()));
        }
    }
    Ok(conflicts)
}

/// Keeps the annotation of a client-side apply, if there is one, equal to what was applied, so that
/// `kubectl` may be used without `--server-side` again. Too long, it is dropped.
fn update_last_applied(object: &mut Value, config: &Value) {
    let path = "/metadata/annotations";
    let Some(annotations) = object.pointer_mut(path).and_then(Value::as_object_mut) else {
        return;
    };
    if annotations.get(LAST_APPLIED).and_then(Value::as_str).unwrap_or_default().is_empty() {
        return;
    }
    let mut config = config.clone();
    if let Some(own) = config.pointer_mut(path).and_then(Value::as_object_mut) {
        own.remove(LAST_APPLIED);
        if own.is_empty()
            && let Some(metadata) = config.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.remove("annotations");
        }
    }
    annotations.insert(LAST_APPLIED.to_owned(), format!("{config}\n").into());
    let text = |value: &Value| value.as_str().map_or(0, str::len);
    let size: usize = annotations.iter().map(|(name, value)| name.len() + text(value)).sum();
    if size > ANNOTATIONS_MAX {
        annotations.remove(LAST_APPLIED);
    }
}

/// Where a configuration has several elements with the same keys, which cannot be applied:
/// `.spec.containers[name="a"].env: duplicate entries for key [name="X"]`.
pub fn duplicate<'a>(config: &Value, schema: impl Into<Schema<'a>>) -> Option<String> {
    merge::duplicate(config, schema.into().root(), &Path::ROOT)
}

/// The values of a configuration that are not of their schema's type, as many as fit into an error:
/// `.spec.replicas: expected numeric (int or float), got string`.
pub fn mistyped<'a>(config: &Value, schema: impl Into<Schema<'a>>) -> Vec<String> {
    let mut found = typed::Problems::default();
    typed::find(config, schema.into().root(), &Path::ROOT, &mut found);
    found.lines
}

/// The managed fields of a new object, all of which the writer owns but the `status`, if that has a
/// subresource of its own.
pub fn create<'a>(
    object: &Value,
    schema: impl Into<Schema<'a>>,
    has_status: bool,
    writer: &Writer<'_>,
) -> Vec<ManagedFieldsEntry> {
    let nothing = Value::Object(serde_json::Map::new());
    let mut set = stripped(merge::compare(&nothing, object, schema.into().root()).0);
    if has_status {
        set.remove("f:status");
    }
    if set.is_empty() { Vec::new() } else { vec![entry(writer, "Update", &set, None)] }
}

/// Managed fields as a client sent them with an update.
#[derive(Clone, Debug, PartialEq)]
pub enum Sent {
    /// The object is no longer tracked.
    Cleared,
    /// They replace those that the object had.
    Taken(Vec<ManagedFieldsEntry>),
    /// Nothing, or nothing that can be understood.
    Ignored,
}

impl Sent {
    /// Judges the entries that an update has; `[]` and `[{}]` clear them.
    pub fn of(entries: Option<Vec<ManagedFieldsEntry>>) -> Self {
        let Some(entries) = entries else {
            return Self::Ignored;
        };
        match entries.as_slice() {
            [] => Self::Cleared,
            [only] if *only == ManagedFieldsEntry::default() => Self::Cleared,
            all if all.iter().all(is_valid) => Self::Taken(entries),
            _ => Self::Ignored,
        }
    }
}

fn is_valid(entry: &ManagedFieldsEntry) -> bool {
    matches!(entry.operation.as_deref(), Some("Apply" | "Update"))
        && entry.api_version.as_deref().is_some_and(|version| !version.is_empty())
        && entry.fields_type.as_deref() == Some("FieldsV1")
        && entry.fields_v1.as_ref().is_none_or(|fields| Set::is_valid(&fields.0))
}

/// In Kubernetes' order: appliers first, then by time and name.
fn sorted(mut owners: Vec<ManagedFieldsEntry>) -> Vec<ManagedFieldsEntry> {
    owners.sort_by(|one, other| {
        let key = |entry: &ManagedFieldsEntry| {
            (
                entry.operation.clone(),
                entry.time.as_ref().map_or(0, |time| time.0.as_second()),
                entry.manager.clone(),
                entry.api_version.clone(),
                entry.subresource.clone(),
            )
        };
        key(one).cmp(&key(other))
    });
    owners
}

/// Unites the oldest of too many updaters, by API version.
fn capped(owners: Vec<ManagedFieldsEntry>) -> Vec<ManagedFieldsEntry> {
    let owners = sorted(owners);
    let is_update = |entry: &ManagedFieldsEntry| entry.operation.as_deref() == Some("Update");
    let mut more = owners.iter().filter(|entry| is_update(entry)).count();
    if more <= UPDATERS_MAX {
        return owners;
    }
    let mut kept: Vec<ManagedFieldsEntry> = Vec::with_capacity(owners.len());
    for owner in owners {
        let same = kept.iter_mut().find(|kept| {
            is_update(kept) && is_update(&owner) && kept.api_version == owner.api_version
        });
        match same {
            Some(oldest) if more > UPDATERS_MAX => {
                let set = fields_of(oldest).union(&fields_of(&owner));
                *oldest = ManagedFieldsEntry {
                    manager: Some(ANCIENT.to_owned()),
                    subresource: None,
                    fields_v1: Some(FieldsV1(set.to_json())),
                    ..owner
                };
                more -= 1;
            }
            _ => kept.push(owner),
        }
    }
    sorted(kept)
}

/// The managed fields after a change other than an apply: the writer owns what it changed or added,
/// other managers lose that, and nobody owns what was removed. Both objects are in the version
/// `base`; if all entries and the writer are too, it is enough that they have the members that
/// differ. Entries of versions that there are no more are dropped.
///
/// # Errors
/// Why the objects cannot be converted.
pub async fn track<V: Versions>(
    old: &Value,
    owners: &[ManagedFieldsEntry],
    new: &Value,
    base: &str,
    versions: &V,
    writer: &Writer<'_>,
) -> Result<Vec<ManagedFieldsEntry>, V::Error> {
    // Also what has entries only of versions that are gone is tracked.
    let is_tracked = !owners.is_empty();
    let owners = versions::known(owners, versions);
    if !is_tracked || old == new {
        return Ok(owners);
    }
    let mut changes = Changes::new(versions, old, new, base);
    let (changed, removed) = changes.seen_in(writer.api_version).await?;
    if base == writer.api_version && changed.is_empty() && removed.is_empty() {
        return Ok(owners);
    }
    let mut own = changed.clone();
    let mut kept = Vec::new();
    for owner in owners {
        let (changed, removed) = changes.seen_in(version_of(&owner)).await?;
        let set = fields_of(&owner).difference(removed);
        if is_of_writer(&owner, writer, "Update") {
            own = own.union(&set);
            continue;
        }
        let set = set.difference(changed);
        if !set.is_empty() {
            kept.push(ManagedFieldsEntry { fields_v1: Some(FieldsV1(set.to_json())), ..owner });
        }
    }
    if !own.is_empty() {
        kept.push(entry(writer, "Update", &own, None));
    }
    Ok(capped(kept))
}
