//! The APIServices that are kept automatically: of built-in groups, of those of
//! CustomResourceDefinitions, and of `metrics.k8s.io` (upstream's `autoregister` and
//! `crdregistration`).
//!
//! A pure [`plan`] decides for each name. Those of built-in groups are looked at once, when the
//! server starts; those of CustomResourceDefinitions whenever something changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use api::{ApiError, Kind};
use futures::future::join_all;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec};
use serde::Deserialize;

use super::priorities;
use crate::bootstrap::{create_missing, system_user};
use crate::cache::Filter;
use crate::core::{Call, Core};
use crate::request::{Options, Target, Verb};
use crate::verbs::delete::delete_object;
use crate::verbs::update::update_with;

/// The label of what is kept automatically.
const LABEL: &str = "kube-aggregator.kubernetes.io/automanaged";

/// When an APIService is made to be as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Managed {
    /// Once, when the server starts.
    OnStart,
    Always,
    /// Always, unless somebody has named another server for it.
    Yielding,
}

impl Managed {
    fn label(self) -> &'static str {
        match self {
            Self::OnStart => "onstart",
            Self::Always | Self::Yielding => "true",
        }
    }
}

/// What is done about one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Nothing,
    Create,
    Update,
    Delete,
}

/// What is known of a name.
#[derive(Clone, Copy, Debug)]
struct Known<'a> {
    wanted: Option<(Managed, &'a APIServiceSpec)>,
    there: Option<&'a APIService>,
    /// Whether it was there when the server started.
    at_start: bool,
    /// Whether it has been looked at since.
    settled: bool,
}

fn plan(known: Known<'_>) -> Action {
    let Known { wanted, there, at_start, settled } = known;
    let once = wanted.is_some_and(|(managed, _)| managed == Managed::OnStart) && settled;
    let there = match (there, wanted) {
        _ if once => return Action::Nothing,
        (None, None) => return Action::Nothing,
        (None, Some(_)) => return Action::Create,
        (Some(there), _) => there,
    };
    let labels = there.metadata.labels.as_ref();
    let label = labels.and_then(|labels| labels.get(LABEL)).map_or("", String::as_str);
    let managed = match label {
        "true" => true,
        "onstart" => at_start && !settled,
        _ => false,
    };
    match wanted {
        _ if !managed => Action::Nothing,
        None => Action::Delete,
        Some((Managed::Yielding, _)) if names_a_service(there) => Action::Nothing,
        Some((_, spec)) if there.spec.as_ref() == Some(spec) => Action::Nothing,
        Some(_) => Action::Update,
    }
}

fn names_a_service(there: &APIService) -> bool {
    there.spec.as_ref().is_some_and(|spec| spec.service.is_some())
}

type GroupVersion = (String, String);

fn name((group, version): &GroupVersion) -> String {
    format!("{version}.{group}")
}

/// What of a definition is looked at here.
#[derive(Deserialize)]
struct Definition {
    spec: DefinitionSpec,
}

#[derive(Deserialize)]
struct DefinitionSpec {
    group: String,
    versions: Vec<DefinitionVersion>,
}

#[derive(Deserialize)]
struct DefinitionVersion {
    name: String,
    served: bool,
}

/// The group versions of CustomResourceDefinitions, as they were seen last.
#[derive(Default)]
struct Definitions(HashMap<Box<str>, (u64, Vec<GroupVersion>)>);

impl Definitions {
    /// Only what has changed is decoded.
    fn refresh(&mut self, core: &Core) -> impl Iterator<Item = &GroupVersion> {
        let row = CustomResourceDefinition::ROW;
        let mut before = std::mem::take(&mut self.0);
        for version in core.cache.resource(row).list(&Filter::everything(row, "")) {
            let same = before.remove(&version.name).filter(|(seen, _)| *seen == version.revision);
            let read = same.unwrap_or_else(|| {
                let read = serde_json::from_slice::<Definition>(&version.json);
                (version.revision, read.map_or_else(|_| Vec::new(), served))
            });
            self.0.insert(version.name.clone(), read);
        }
        self.0.values().flat_map(|(_, served)| served)
    }
}

fn served(definition: Definition) -> Vec<GroupVersion> {
    let DefinitionSpec { group, versions } = definition.spec;
    let served = versions.into_iter().filter(|version| version.served);
    served.map(|version| (group.clone(), version.name)).collect()
}

/// Keeps them.
#[derive(Default)]
pub struct Registration {
    definitions: Definitions,
    /// Once it has been looked at.
    at_start: Option<BTreeSet<String>>,
    settled: BTreeSet<String>,
}

impl Registration {
    /// Makes all of them as they should be; whether that worked.
    pub async fn settle(&mut self, core: &Arc<Core>) -> bool {
        let there = services(core);
        let at_start = self.at_start.get_or_insert_with(|| there.keys().cloned().collect());
        let wanted = wanted(self.definitions.refresh(core));
        let names: BTreeSet<&String> = there.keys().chain(wanted.keys()).collect();
        let writes = names.into_iter().map(|name| {
            let wanted = wanted.get(name);
            let known = Known {
                wanted: wanted.map(|(managed, spec)| (*managed, spec)),
                there: there.get(name),
                at_start: at_start.contains(name),
                settled: self.settled.contains(name),
            };
            let action = plan(known);
            async move { (name, apply(core, name, action, known).await) }
        });
        let mut all = true;
        // Together: on the first start each is a write, and the store commits them at once.
        for (name, outcome) in join_all(writes).await {
            match outcome {
                Ok(()) => {
                    self.settled.insert(name.clone());
                }
                Err(error) => {
                    all = false;
                    tracing::debug!(name, %error, "cannot keep an APIService");
                }
            }
        }
        self.settled.retain(|name| there.contains_key(name) || wanted.contains_key(name));
        all
    }
}

fn services(core: &Core) -> BTreeMap<String, APIService> {
    let row = APIService::ROW;
    let all = core.cache.resource(row).list(&Filter::everything(row, ""));
    let decoded = all.iter().filter_map(|one| APIService::decode(&one.json).ok());
    decoded.map(|one| (one.metadata.name.clone().unwrap_or_default(), one)).collect()
}

fn wanted<'a>(
    custom: impl Iterator<Item = &'a GroupVersion>,
) -> BTreeMap<String, (Managed, APIServiceSpec)> {
    let spec = |(group, version): &GroupVersion| {
        let (of_group, of_version) = priorities::of(group, version);
        APIServiceSpec {
            group: Some(group.clone()).filter(|group| !group.is_empty()),
            version: Some(version.clone()),
            group_priority_minimum: of_group,
            version_priority: of_version,
            ..APIServiceSpec::default()
        }
    };
    let mut all: BTreeMap<_, _> =
        custom.map(|one| (name(one), (Managed::Always, spec(one)))).collect();
    for row in api::kind::KINDS.iter().filter(|row| row.group != priorities::FIRST) {
        let one = (row.group.to_string(), row.version.to_string());
        all.insert(name(&one), (Managed::OnStart, spec(&one)));
    }
    for row in api::metrics::rows() {
        let one = (row.group.to_string(), row.version.to_string());
        all.insert(name(&one), (Managed::Yielding, spec(&one)));
    }
    all
}

async fn apply(
    core: &Arc<Core>,
    name: &str,
    action: Action,
    known: Known<'_>,
) -> Result<(), ApiError> {
    let (user, options) = (system_user(), Options::default());
    let target = Target {
        row: APIService::ROW.into(),
        namespace: String::new(),
        name: name.to_owned(),
        subresource: String::new(),
        subpath: String::new(),
    };
    match (action, known.wanted) {
        (Action::Create, Some((managed, spec))) => {
            let mut service = APIService { spec: Some(spec.clone()), ..APIService::default() };
            service.metadata.name = Some(name.to_owned());
            service.metadata.labels =
                Some(BTreeMap::from([(LABEL.to_owned(), managed.label().to_owned())]));
            create_missing(core, Box::new(service)).await
        }
        (Action::Update, Some((_, spec))) => {
            let call =
                Call { core, user: &user, verb: Verb::Update, target: &target, options: &options };
            let seen = known.there.and_then(|there| there.metadata.resource_version.clone());
            update_with(call, |current, _| {
                let mut new = current.clone_object();
                new.metadata_mut().resource_version.clone_from(&seen);
                if let Some(service) = new.downcast_mut::<APIService>() {
                    service.spec = Some(spec.clone());
                }
                Ok(new)
            })
            .await
            .map(|_| ())
        }
        (Action::Delete, _) => {
            let call =
                Call { core, user: &user, verb: Verb::Delete, target: &target, options: &options };
            match delete_object(call, &DeleteOptions::default()).await {
                Err(error) if !error.is_not_found() => Err(error),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(label: &str, priority: i32, remote: bool) -> APIService {
        let mut json = json!({"metadata": {"name": "v1.g", "labels": {LABEL: label}},
            "spec": {"group": "g", "version": "v1", "groupPriorityMinimum": priority,
                "versionPriority": 100}});
        if remote {
            json["spec"]["service"] = json!({"namespace": "n", "name": "s", "port": 443});
        }
        serde_json::from_value(json).unwrap()
    }

    /// Upstream's table, above `checkAPIService`.
    #[test]
    fn what_is_done_is_what_upstream_does() {
        use Action::{Create, Delete, Nothing, Update};
        let wanted = service("", 1000, false).spec.unwrap();
        let decide = |managed: Option<Managed>, there: Option<&APIService>, start, settled| {
            let wanted = managed.map(|managed| (managed, &wanted));
            plan(Known { wanted, there, at_start: start, settled })
        };
        let (never, start, always) =
            (service("", 1, false), service("onstart", 1, false), service("true", 1, false));
        let modes = [None, Some(Managed::OnStart), Some(Managed::Always)];
        // Of what is there, whether it was at the start, and whether it has been settled: what is
        // done if it is not wanted, at the start, or always.
        let table = [
            (None, false, false, [Nothing, Create, Create]),
            (None, true, true, [Nothing, Nothing, Create]),
            (Some(&never), true, false, [Nothing, Nothing, Nothing]),
            (Some(&start), false, false, [Nothing, Nothing, Nothing]),
            (Some(&start), true, false, [Delete, Update, Update]),
            (Some(&start), true, true, [Nothing, Nothing, Nothing]),
            (Some(&always), false, false, [Delete, Update, Update]),
            (Some(&always), true, true, [Delete, Nothing, Update]),
        ];
        for (there, start, settled, expected) in table {
            let actual = modes.map(|mode| decide(mode, there, start, settled));
            assert_eq!(actual, expected, "{there:?} {start} {settled}");
        }
        let same = service("true", 1000, false);
        assert_eq!(decide(Some(Managed::Always), Some(&same), true, true), Nothing);
        // A built-in group that names a Service is restored when the server starts.
        let replaced = service("onstart", 1, true);
        assert_eq!(decide(Some(Managed::OnStart), Some(&replaced), true, false), Update);
        assert_eq!(decide(Some(Managed::OnStart), Some(&replaced), true, true), Nothing);
        // Others yield, and come back.
        let replaced = service("true", 1, true);
        assert_eq!(decide(Some(Managed::Yielding), Some(&replaced), true, false), Nothing);
        assert_eq!(decide(Some(Managed::Yielding), None, true, true), Create);
        assert_eq!(decide(Some(Managed::Yielding), Some(&always), true, true), Update);
    }

    #[test]
    fn built_in_group_versions_are_not_those_of_definitions() {
        let custom = [("apps".to_owned(), "v1".to_owned()), ("g".to_owned(), "v1".to_owned())];
        let all = wanted(custom.iter());
        assert_eq!(all["v1."].0, Managed::OnStart);
        assert_eq!(all["v1.apps"].0, Managed::OnStart);
        assert_eq!(all["v1.apps"].1.group_priority_minimum, 17_800);
        assert_eq!((all["v1.g"].0, all["v1.g"].1.version_priority), (Managed::Always, 100));
        assert_eq!(all["v1beta1.metrics.k8s.io"].0, Managed::Yielding);
        assert!(!all.contains_key("v1.apiregistration.k8s.io"));
    }
}
