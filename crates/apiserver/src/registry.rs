//! The kinds that are served at the moment: the built-in ones, and those of established
//! CustomResourceDefinitions.
//!
//! A request's kind is looked up once, at its front end. The cache's feed sets custom kinds in the
//! store's order ([`Registry::set`]), so that whoever has seen a definition established is served
//! by it. It must not know requests or the store.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::custom::definition;
use api::kind::{KINDS, Text};
use api::{KindRef, KindRow};
use arc_swap::ArcSwap;
use parking_lot::Mutex;

/// A group with its versions, the preferred one first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub name: Text,
    pub versions: Vec<Text>,
}

/// All kinds at one moment.
#[derive(Debug, Default)]
pub struct Kinds {
    by_plural: HashMap<Text, Vec<KindRef>>,
    /// The core group first, then built-in ones, custom ones, and `metrics.k8s.io`.
    groups: Vec<Group>,
    /// Rises with every change of the custom kinds.
    pub generation: u64,
}

impl Kinds {
    fn new(custom: &BTreeMap<String, Vec<Arc<KindRow>>>, generation: u64) -> Self {
        let mut kinds = Self { generation, ..Self::default() };
        for row in KINDS.iter().copied() {
            kinds.add(row.into());
        }
        let built_in = kinds.groups.len();
        for row in custom.values().flatten() {
            if kinds.by_resource(&row.group, &row.version, &row.plural).is_none() {
                kinds.add(KindRef::Custom(row.clone()));
            }
        }
        kinds.groups[built_in..].sort_by(|one, other| one.name.cmp(&other.name));
        for group in &mut kinds.groups {
            group.versions.sort_by(|one, other| definition::version_order(one, other));
        }
        // Last, as metrics-server's APIService has it, so that `nodes` and `pods` are the core's.
        for row in api::metrics::rows() {
            if kinds.by_resource(&row.group, &row.version, &row.plural).is_none() {
                kinds.add(row);
            }
        }
        kinds
    }

    fn add(&mut self, kind: KindRef) {
        let known = self.groups.iter_mut().find(|group| group.name == kind.group);
        match known {
            Some(group) if group.versions.contains(&kind.version) => {}
            Some(group) => group.versions.push(kind.version.clone()),
            None => self
                .groups
                .push(Group { name: kind.group.clone(), versions: vec![kind.version.clone()] }),
        }
        self.by_plural.entry(kind.plural.clone()).or_default().push(kind);
    }

    /// The kind of a resource by its path segments.
    pub fn by_resource(&self, group: &str, version: &str, plural: &str) -> Option<KindRef> {
        let mut same = self.by_plural.get(plural)?.iter();
        same.find(|kind| kind.group == group && kind.version == version).cloned()
    }

    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The kinds of a group version, by plural name.
    pub fn of(&self, group: &str, version: &str) -> Vec<KindRef> {
        let all = self.by_plural.values().flatten();
        let mut kinds: Vec<_> =
            all.filter(|kind| kind.group == group && kind.version == version).cloned().collect();
        kinds.sort_by(|one, other| one.plural.cmp(&other.plural));
        kinds
    }
}

/// The kinds that are served, as they change.
pub struct Registry {
    current: ArcSwap<Kinds>,
    /// The rows of each definition that is served, by its name.
    custom: Mutex<BTreeMap<String, Vec<Arc<KindRow>>>>,
}

impl Default for Registry {
    fn default() -> Self {
        let current = ArcSwap::from_pointee(Kinds::new(&BTreeMap::new(), 0));
        Self { current, custom: Mutex::default() }
    }
}

impl Registry {
    pub fn kinds(&self) -> Arc<Kinds> {
        self.current.load_full()
    }

    /// The kind of a resource by its path segments.
    pub fn by_resource(&self, group: &str, version: &str, plural: &str) -> Option<KindRef> {
        self.current.load().by_resource(group, version, plural)
    }

    /// Serves a definition's versions; none: it is not served (any more).
    pub fn set(&self, definition: &str, rows: Vec<Arc<KindRow>>) {
        let mut custom = self.custom.lock();
        if rows.is_empty() {
            if custom.remove(definition).is_none() {
                return;
            }
        } else {
            custom.insert(definition.to_owned(), rows);
        }
        let generation = self.current.load().generation + 1;
        self.current.store(Arc::new(Kinds::new(&custom, generation)));
    }

    /// The definitions that are served.
    pub fn definitions(&self) -> Vec<String> {
        self.custom.lock().keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests;
