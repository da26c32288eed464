//! What requests read: every APIService, as of the last change of one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::custom::definition;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;

use super::backend::Backend;
use super::documents::ResourceDocument;
use super::{condition, priorities};
use crate::openapi::Other;
use crate::registry::Kinds;
use crate::rest::percent_decode;

/// One APIService.
#[derive(Debug)]
pub struct Registered {
    /// `VERSION.GROUP`
    pub name: String,
    pub group: String,
    pub version: String,
    pub group_priority: i32,
    pub version_priority: i32,
    /// The server behind its Service; `None`: this one.
    pub backend: Option<Arc<Backend>>,
    pub available: bool,
}

impl Registered {
    pub fn new(service: &APIService, backend: Option<Arc<Backend>>) -> Self {
        let none = Default::default();
        let spec = service.spec.as_ref().unwrap_or(&none);
        Self {
            name: service.metadata.name.clone().unwrap_or_default(),
            group: spec.group.clone().unwrap_or_default(),
            version: spec.version.clone().unwrap_or_default(),
            group_priority: spec.group_priority_minimum,
            version_priority: spec.version_priority,
            backend,
            available: condition::is_available(service),
        }
    }

    /// Its server's documents of OpenAPI.
    pub fn openapi(&self) -> Other {
        let documents = self.backend.as_ref().map(|backend| backend.documents.load_full());
        let documents = documents.unwrap_or_default();
        Other {
            group: self.group.clone(),
            version: self.version.clone(),
            v3: documents.openapi_v3.as_ref().map(|document| document.json.clone()),
            v2: documents.openapi_v2.as_ref().map(|document| document.json.clone()),
        }
    }

    /// What its server has said about its resources, and whether that still holds.
    pub fn resources(&self) -> (Arc<Vec<ResourceDocument>>, bool) {
        let documents = self.backend.as_ref().map(|backend| backend.documents.load_full());
        let documents = documents.unwrap_or_default();
        (documents.resources.clone(), documents.is_current && self.available)
    }
}

/// All of them, by group and version.
#[derive(Debug, Default)]
pub struct Snapshot {
    by_group: HashMap<String, BTreeMap<String, Arc<Registered>>>,
    remote: Vec<Arc<Registered>>,
}

impl Snapshot {
    pub fn new(all: impl IntoIterator<Item = Registered>) -> Self {
        let mut snapshot = Self::default();
        for one in all {
            let one = Arc::new(one);
            if one.backend.is_some() {
                snapshot.remote.push(one.clone());
            }
            let versions = snapshot.by_group.entry(one.group.clone()).or_default();
            versions.insert(one.version.clone(), one);
        }
        snapshot
    }

    fn get(&self, group: &str, version: &str) -> Option<&Arc<Registered>> {
        self.by_group.get(group)?.get(version)
    }

    /// The APIService of a group version that another server answers.
    pub fn remote(&self, group: &str, version: &str) -> Option<&Arc<Registered>> {
        self.get(group, version).filter(|found| found.backend.is_some())
    }

    /// The same by the path of a request. The core group's has everything below `/api`.
    pub fn remote_at(&self, path: &str) -> Option<&Arc<Registered>> {
        if self.remote.is_empty() {
            return None;
        }
        let path = percent_decode(path);
        let mut parts = path.trim_start_matches('/').split('/');
        match (parts.next()?, parts.next(), parts.next()) {
            ("api", _, _) => self.remote("", "v1"),
            ("apis", Some(group), Some(version)) => self.remote(group, version),
            _ => None,
        }
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Registered>> {
        self.by_group.values().flat_map(BTreeMap::values)
    }

    /// All that other servers answer.
    pub fn remotes(&self) -> &[Arc<Registered>] {
        &self.remote
    }
}

/// A version of a group in discovery.
#[derive(Clone, Debug)]
pub struct GroupVersion {
    pub version: String,
    priority: i32,
    /// The server that answers it; `None`: this one.
    pub remote: Option<Arc<Registered>>,
}

/// A group in discovery, its versions in order.
#[derive(Clone, Debug)]
pub struct Group {
    pub name: String,
    /// The highest of any version.
    pub priority: i32,
    /// Of equal groups, the one whose first version is less comes first: `v1.apps`.
    order: String,
    pub versions: Vec<GroupVersion>,
}

/// All groups, in the order of `/apis`: by the highest priority of their versions, then by name
/// (upstream's `SortedByGroupAndVersion`). That of APIServices is the first.
pub fn groups(kinds: &Kinds, snapshot: &Snapshot) -> Vec<Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    let mut add = |group: &str, version: &str, (of_group, priority), remote| {
        let order = format!("{version}.{group}");
        let known = groups.entry(group.to_owned()).or_insert_with(|| Group {
            name: group.to_owned(),
            priority: i32::MIN,
            order: String::new(),
            versions: Vec::new(),
        });
        if (Reverse(of_group), &order) < (Reverse(known.priority), &known.order) {
            (known.priority, known.order) = (of_group, order);
        }
        known.versions.push(GroupVersion { version: version.to_owned(), priority, remote });
    };
    for group in kinds.groups() {
        for version in &group.versions {
            let known = snapshot.get(&group.name, version);
            if known.is_some_and(|known| known.backend.is_some()) {
                continue;
            }
            let own = priorities::of(&group.name, version);
            let both = known.map_or(own, |known| (known.group_priority, known.version_priority));
            add(&group.name, version, both, None);
        }
    }
    for one in snapshot.remotes() {
        let both = (one.group_priority, one.version_priority);
        add(&one.group, &one.version, both, Some(one.clone()));
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    for group in &mut groups {
        group.versions.sort_by(|one, other| {
            let versions = || definition::version_order(&one.version, &other.version);
            other.priority.cmp(&one.priority).then_with(versions)
        });
    }
    groups.sort_by(|one, other| {
        let key = |group: &Group| (group.name != priorities::FIRST, Reverse(group.priority));
        key(one).cmp(&key(other)).then_with(|| one.order.cmp(&other.order))
    });
    groups
}

/// The same in the order of aggregated discovery: by priority, then by name.
pub fn by_name(mut groups: Vec<Group>) -> Vec<Group> {
    groups.sort_by(|one, other| {
        let key = |group: &Group| (group.name != priorities::FIRST, Reverse(group.priority));
        key(one).cmp(&key(other)).then_with(|| one.name.cmp(&other.name))
    });
    groups
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::registry::Registry;

    fn registered(group: &str, version: &str, priorities: (i32, i32), remote: bool) -> Registered {
        let mut service = json!({"metadata": {"name": format!("{version}.{group}")}, "spec": {
            "group": group, "version": version, "groupPriorityMinimum": priorities.0,
            "versionPriority": priorities.1}});
        if remote {
            service["spec"]["service"] = json!({"namespace": "n", "name": "s", "port": 443});
        }
        let service: APIService = serde_json::from_value(service).unwrap();
        let address = service.spec.as_ref().and_then(super::super::backend::Address::of);
        let backend = address.map(|address| Arc::new(Backend::new(address, None)));
        Registered::new(&service, backend)
    }

    fn names(groups: &[Group]) -> Vec<&str> {
        groups.iter().map(|group| group.name.as_str()).collect()
    }

    #[test]
    fn groups_are_in_the_order_of_their_priorities() {
        let kinds = Registry::default().kinds();
        let own = groups(&kinds, &Snapshot::default());
        let start = ["apiregistration.k8s.io", "", "apps", "events.k8s.io"];
        assert_eq!(names(&own)[..4], start);
        assert_eq!(names(&own).last(), Some(&"metrics.k8s.io"));
        let autoscaling = own.iter().find(|group| group.name == "autoscaling").unwrap();
        let versions: Vec<_> = autoscaling.versions.iter().map(|one| &*one.version).collect();
        assert_eq!(versions, ["v2", "v1"]);
        let snapshot = Snapshot::new([
            registered("zoo", "v1", (17_760, 5), true),
            registered("zoo", "v1beta1", (20, 9), true),
            registered("metrics.k8s.io", "v1beta1", (100, 100), true),
            registered("b.example.com", "v2", (50, 1), true),
            registered("a.example.com", "v3", (50, 1), true),
            registered("apps", "v1", (60, 1), false),
        ]);
        let merged = groups(&kinds, &snapshot);
        assert_eq!(names(&merged)[..4], ["apiregistration.k8s.io", "", "zoo", "events.k8s.io"]);
        let end = ["metrics.k8s.io", "apps", "b.example.com", "a.example.com"];
        assert_eq!(names(&merged)[merged.len() - 4..], end, "of equal ones, v2 is before v3");
        let sorted = by_name(merged.clone());
        assert_eq!(names(&sorted)[merged.len() - 2..], ["a.example.com", "b.example.com"]);
        let zoo = merged.iter().find(|group| group.name == "zoo").unwrap();
        let versions: Vec<_> = zoo.versions.iter().map(|one| &*one.version).collect();
        assert_eq!(versions, ["v1beta1", "v1"], "the higher priority first");
        let metrics = merged.iter().find(|group| group.name == "metrics.k8s.io").unwrap();
        assert_eq!(metrics.versions.len(), 1);
        assert!(metrics.versions[0].remote.is_some(), "it is replaced");
    }

    #[test]
    fn paths_are_those_of_the_group_version() {
        let snapshot = Snapshot::new([
            registered("g.io", "v1", (1, 1), true),
            registered("apps", "v1", (1, 1), false),
        ]);
        let table = [
            ("/apis/g.io/v1", true),
            ("/apis/g.io/v1/", true),
            ("/apis/g.io/v1/namespaces/a/things", true),
            ("/apis/g.io/v2/things", false),
            ("/apis/g.io", false),
            ("/apis/apps/v1/deployments", false),
            ("/api/v1/pods", false),
            ("/apis/g.io/v1x/things", false),
            ("/healthz", false),
            ("", false),
        ];
        for (path, remote) in table {
            assert_eq!(snapshot.remote_at(path).is_some(), remote, "{path}");
        }
        let core = Snapshot::new([registered("", "v1", (1, 1), true)]);
        assert!(core.remote_at("/api").is_some() && core.remote_at("/api/v1/pods").is_some());
        assert!(core.remote_at("/apis/apps/v1").is_none());
    }

    proptest! {
        /// Whatever is registered, each group and version is there once, in a total order.
        #[test]
        fn every_group_version_is_there_once(
            all in proptest::collection::btree_map(
                ("[a-c]", "v[1-3](beta1)?"), (1..5_i32, 1..3_i32, any::<bool>()), 0..12),
        ) {
            let registered = all.iter().map(|((group, version), (of_group, of_version, remote))| {
                registered(group, version, (*of_group, *of_version), *remote)
            });
            let kinds = Registry::default().kinds();
            let groups = groups(&kinds, &Snapshot::new(registered));
            let mut seen = std::collections::BTreeSet::new();
            for group in &groups {
                for version in &group.versions {
                    prop_assert!(seen.insert((group.name.clone(), version.version.clone())));
                }
                let order = |pair: &[GroupVersion]| pair[0].priority.cmp(&pair[1].priority);
                prop_assert!(group.versions.windows(2).all(|pair| order(pair) != Ordering::Less));
            }
            let remote = all.iter().filter(|(_, (_, _, remote))| *remote);
            for ((group, version), _) in remote {
                prop_assert!(seen.contains(&(group.clone(), version.clone())));
            }
            prop_assert!(groups[1..].windows(2).all(|pair| pair[0].priority >= pair[1].priority));
        }
    }
}
