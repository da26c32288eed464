//! Which chain of providers a key of the store belongs to.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use super::chain::Chain;
use crate::keys;

/// Groups of built-in kinds whose names have no dot: those of definitions have one.
static GROUPS: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| stored().map(|row| &*row.group).filter(|group| !group.is_empty()).collect());

/// The resources of the core group.
static CORE: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| stored().filter(|row| row.group.is_empty()).map(|row| &*row.plural).collect());

fn stored() -> impl Iterator<Item = &'static api::KindRow> {
    api::kind::KINDS.iter().copied().filter(|row| row.stored)
}

/// A resource as a configuration names it: `secrets`, `deployments.apps`, `*.apps`, `*.`, `*.*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Resource {
    pub group: String,
    pub plural: String,
}

impl Resource {
    pub fn parse(text: &str) -> Self {
        let (plural, group) = text.split_once('.').unwrap_or((text, ""));
        Self { group: group.to_owned(), plural: plural.to_owned() }
    }

    /// As in the configuration.
    pub fn text(&self) -> String {
        match (self.plural.as_str(), self.group.as_str()) {
            ("*", "") => "*.".to_owned(),
            (plural, "") => plural.to_owned(),
            (plural, group) => format!("{plural}.{group}"),
        }
    }

    pub fn is_everything(&self) -> bool {
        self.group == "*" && self.plural == "*"
    }
}

/// The chains by resource.
#[derive(Default)]
pub struct Selection {
    groups: HashMap<String, HashMap<String, Arc<Chain>>>,
}

impl Selection {
    pub fn new(chains: impl IntoIterator<Item = (Resource, Chain)>) -> Self {
        let mut groups = HashMap::<String, HashMap<_, _>>::new();
        for (resource, chain) in chains {
            groups.entry(resource.group).or_default().insert(resource.plural, Arc::new(chain));
        }
        Self { groups }
    }

    /// The chain of a key: that of its resource, or else of its group, or else of everything. What
    /// is no object is stored as it is.
    pub fn chain(&self, key: &[u8]) -> Option<&Arc<Chain>> {
        if self.groups.is_empty() {
            return None;
        }
        let (group, plural) = resource(key)?;
        let everything = || self.groups.get("*").and_then(|all| all.get("*"));
        let own = self.groups.get(group);
        own.and_then(|own| own.get(plural).or_else(|| own.get("*"))).or_else(everything)
    }
}

/// The group and the resource of a key.
fn resource(key: &[u8]) -> Option<(&str, &str)> {
    let rest = std::str::from_utf8(key).ok()?.strip_prefix(keys::ROOT)?;
    let (first, tail) = rest.split_once('/')?;
    if first.contains('.') || GROUPS.contains(first) {
        return Some((first, tail.split_once('/')?.0));
    }
    CORE.contains(first).then_some(("", first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_row_counts() {
        let select = |names: &[&str], key: &str| {
            let chains = names.iter().map(|name| (Resource::parse(name), Chain::default()));
            let selection = Selection::new(chains);
            let found = selection.chain(key.as_bytes()).cloned();
            let own = |name: &&&str| {
                let resource = Resource::parse(name);
                let chain = selection.groups.get(&resource.group);
                let chain = chain.and_then(|group| group.get(&resource.plural));
                chain.zip(found.as_ref()).is_some_and(|(own, found)| Arc::ptr_eq(own, found))
            };
            names.iter().find(own).map(|name| (*name).to_owned())
        };
        let all = ["secrets", "*.", "deployments.apps", "*.apps", "things.example.com", "*.*"];
        for (key, chosen) in [
            ("/registry/secrets/default/a", Some("secrets")),
            ("/registry/configmaps/default/a", Some("*.")),
            ("/registry/apps/deployments/default/a", Some("deployments.apps")),
            ("/registry/apps/daemonsets/default/a", Some("*.apps")),
            ("/registry/example.com/things/a", Some("things.example.com")),
            ("/registry/example.com/others/a", Some("*.*")),
            ("/registry/batch/jobs/default/a", Some("*.*")),
            ("/registry/masterleases/10.0.0.1", None),
            ("/other/secrets/default/a", None),
            ("/registry/secrets", None),
        ] {
            assert_eq!(select(&all, key).as_deref(), chosen, "{key}");
        }
        assert_eq!(select(&["secrets"], "/registry/configmaps/default/a"), None);
    }

    #[test]
    fn resources_are_named_as_upstream_does() {
        for name in ["secrets", "*.", "*.*", "*.apps", "things.example.com"] {
            assert_eq!(Resource::parse(name).text(), name);
        }
    }
}
